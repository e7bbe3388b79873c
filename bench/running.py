"""Runs one program in a process group of its own, and sees to it that nothing of it stays.

Decides when a program is over: when it ends, when its time is up, when this process is interrupted or
dies. Then its group is ended, politely at first so that its context managers clean up; what is left
of the group is killed. What it had found by then is kept or is not: a result is written whole.

``python -m bench.running NAME`` is the other end: it runs the program in this very process.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

from bench import machine
from bench.measure import Failed
from bench.outcome import Outcome, Result, save
from bench.programs import BY_NAME, Asked, Program
from bench.rivals import Missing

_SHARED_MEMORY = Path("/dev/shm")
_SET_PARENT_DEATH_SIGNAL = 1  # prctl(2)


class CannotRun(Exception):
    """There is not the room, or not the program; the text says what to do."""


@contextlib.contextmanager
def directories(program: Program, base: Path) -> Iterator[tuple[Path, Path]]:
    """
    Two empty directories, on a disk and on tmpfs, gone afterwards.

    :raises CannotRun: there is not enough room.
    """
    base.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(base).free / 2**30
    if free < program.gib:
        raise CannotRun(f"it needs {program.gib:g} GiB in {base}, where {free:.1f} are free")
    if (free := machine.available_memory() / 2**30) < 4:
        raise CannotRun(f"it needs 4 GiB of memory, of which {free:.1f} are free")
    shared = _SHARED_MEMORY if os.access(_SHARED_MEMORY, os.W_OK) else base
    disk = Path(tempfile.mkdtemp(prefix=f"{program.name}-", dir=base.resolve()))
    memory = Path(tempfile.mkdtemp(prefix=f"swarm-bench-{program.name}-", dir=shared))
    try:
        yield disk, memory
    finally:
        # By a program of its own, which goes on if this one is interrupted meanwhile: there may be millions.
        subprocess.Popen(["rm", "-rf", str(disk), str(memory)], start_new_session=True).wait()


def run(program: Program, options: argparse.Namespace, results: Path) -> None:
    """
    Run it, bounded in time; its outcome is then in ``results``.

    :raises CannotRun: it is not there, there is no room, it failed, or it took too long.
    """
    if not program.here:
        raise CannotRun(f"{program.at.partition(':')[0]} is not in this checkout")
    bound = program.quick if options.quick else program.full
    with directories(program, options.dir) as (disk, memory):
        command = [sys.executable, "-m", "bench.running", program.name]
        command += ["--disk", str(disk), "--memory", str(memory), "--results", str(results.resolve())]
        command += ["--rounds", str(options.rounds)]
        command += ["--quick"] if options.quick else []
        command += ["--mib", str(options.mib)] if options.mib else []
        process = subprocess.Popen(command, cwd=machine.ROOT, start_new_session=True)
        try:
            status = process.wait(bound)
        except subprocess.TimeoutExpired:
            raise CannotRun(f"it was stopped after {bound:g} s") from None
        finally:
            _end(process)
    if status:
        raise CannotRun(f"it ended with {status}; what it said is above")


def _end(process: subprocess.Popen[bytes]) -> None:
    """Politely, then the whole group."""
    if process.poll() is None:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(30)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _stop(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


def main() -> int:
    """Run one program here and save its outcome."""
    parser = argparse.ArgumentParser(prog="python -m bench.running")
    parser.add_argument("name", choices=list(BY_NAME))
    for path in ("--disk", "--memory", "--results"):
        parser.add_argument(path, type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--mib", type=int)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, _stop)
    ctypes.CDLL(None).prctl(_SET_PARENT_DEATH_SIGNAL, int(signal.SIGTERM))
    facts, commit, start = machine.facts(options.disk, options.memory), machine.commit(), time.time()
    program = BY_NAME[options.name]
    asked = Asked(
        options.disk,
        options.memory,
        options.quick,
        options.rounds,
        options.mib,
        _say,
        time.monotonic() + 0.7 * (program.quick if options.quick else program.full),
    )
    try:
        result: Result = program.run(asked)
    except (Missing, Failed, AssertionError, OSError) as e:
        print(f"  {options.name}: {e}", file=sys.stderr)
        return 1
    form = "quick" if options.quick else "full"
    if options.mib:
        form += f", {options.mib} MiB"
    date = time.strftime("%Y-%m-%d %H:%M", time.gmtime(start))
    outcome = Outcome(
        options.name, form, options.rounds, date, commit, round(time.time() - start, 1), facts, result
    )
    save(options.results / f"{options.name}.json", outcome)
    return 0


def _say(text: str) -> None:
    print(f"  {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())

"""How a sample is taken: interleaved rounds, wall time, the CPU of both ends, peak memory.

Decides nothing about what is measured. A case is a function that does its work once and returns what
it cost; cases of one table run in turn, A B C A B C, so that a noisy minute hits all of them.
"""

from __future__ import annotations

import contextlib
import math
import os
import resource
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from attrs import frozen

from bench.outcome import CLIENT, SERVER, WALL, Row, Sample

MIB = 1 << 20
MB = 10**6


@frozen
class Case:
    """One row of a table; ``run`` does the work once, ``reset`` undoes it, untimed."""

    name: str
    run: Callable[[], Sample]
    reset: Callable[[], object] = lambda: None


class Failed(Exception):
    """Something that was to be measured did not do its work."""


def interleave(
    cases: Sequence[Case],
    rounds: int,
    say: Callable[[str], None],
    *,
    notes: list[str],
    until: float = math.inf,
) -> list[Row]:
    """
    Run all cases in turn, once to warm up and ``rounds`` times for the record.

    A case that fails is out, its row stays empty and ``notes`` says why. After ``until``
    (``time.monotonic()``) no further round begins, if there is one for the record.
    """
    rows = [Row(case.name) for case in cases]
    failed: set[str] = set()
    for number in range(rounds + 1):
        if number > 1 and time.monotonic() > until:
            notes.append(f"time was up after {number - 1} of {rounds} rounds")
            break
        label = f"round {number}" if number else "warm-up"
        for case, row in zip(cases, rows, strict=True):
            if case.name in failed:
                continue
            try:
                sample = case.run()
                case.reset()
            except (Failed, OSError, AssertionError) as e:
                failed.add(case.name)
                row.samples.clear()
                notes.append(f"left out: {case.name}: {' '.join(str(e).split())[-300:]}")
                say(f"{label}: {case.name}: failed: {e}")
                with contextlib.suppress(Failed, OSError, AssertionError):
                    case.reset()
                continue
            if number:
                row.samples.append(sample)
            say(f"{label}: {case.name}: {', '.join(f'{k} {v:.4g}' for k, v in sample.items())}")
    return rows


def tree(pid: int) -> list[int]:
    """A process and those it started, and they, while they run."""
    found = [pid]
    for each in found:
        for task in Path(f"/proc/{each}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                found.extend(int(child) for child in task.read_text().split())
    return found


def cpu_of(pids: Iterable[int]) -> float:
    """CPU seconds, user's and kernel's, these processes used so far: all threads, to the nanosecond."""
    return sum(time.clock_gettime((~pid << 3) | 2) for pid in pids)  # the kernel's clock of a process


def peak_memory(pids: Iterable[int]) -> float:
    """The most that was resident in each, added up, in MB of 10⁶ bytes."""
    kib = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                kib += int(line.split()[1])
    return kib * 1024 / MB


@contextmanager
def one_core(pids: Iterable[int]) -> Iterator[None]:
    """Inside, these processes and whatever is started share one core: nobody works while another does."""
    ours = os.sched_getaffinity(0)
    tasks = [int(task.name) for pid in pids for task in Path(f"/proc/{pid}/task").iterdir()]
    try:
        for each in (0, *tasks):
            os.sched_setaffinity(each, {min(ours)})
        yield
    finally:
        for each in (0, *tasks):
            with contextlib.suppress(ProcessLookupError):
                os.sched_setaffinity(each, ours)


@contextmanager
def children_cpu() -> Iterator[list[float]]:
    """Collects the CPU seconds of child processes that ended inside."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = [0.0]
    yield used
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used[0] = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def command(
    arguments: Sequence[str | Path], servers: Iterable[int] = (), *, within: float = 300
) -> dict[str, float]:
    """
    Run a program to its end, which must be a good one; ``servers`` are what it talks to.

    :raises Failed: it did not end well, or not in time.
    """
    return commands([arguments], servers, within=within)


def commands(
    many: Sequence[Sequence[str | Path]], servers: Iterable[int] = (), *, within: float = 300
) -> dict[str, float]:
    """The same for several programs at once. :raises Failed:"""
    servers = list(servers)
    busy, start = cpu_of(servers), time.perf_counter()
    with children_cpu() as used:
        running = [
            subprocess.Popen(
                [str(each) for each in arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
            )
            for arguments in many
        ]
        try:
            said = [process.communicate(timeout=within)[1] for process in running]
        except subprocess.TimeoutExpired as e:
            raise Failed(f"{many[0][0]} did not end within {within:g} s") from e
        finally:
            for process in running:
                if process.poll() is None:
                    process.kill()
                    process.wait()
    wall = time.perf_counter() - start
    for process, text in zip(running, said, strict=True):
        if process.returncode:
            last = text[-500:].decode(errors="replace")
            raise Failed(f"{many[0][0]} ended with {process.returncode}: {last}")
    return {WALL: wall, CLIENT: used[0], SERVER: cpu_of(servers) - busy}

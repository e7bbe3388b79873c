"""``python -m swarm.testing.fuzzing [NAME…]``: every target for its share of the time, one after the other.

Where something breaks a promise, its bytes are kept in the corpus, and the ordinary suite fails with them
from then on. Needs the extra ``fuzz``.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from attrs import frozen

from swarm.testing.fuzzing.target import Target
from swarm.testing.fuzzing.targets import TARGETS

#: An input takes a broken promise's place when it takes so many seconds, or a process so many MiB.
SLOWEST, LARGEST = 10, 1024

_DONE = re.compile(r"Done (\d+) (?:runs )?in (\d+) second")


@frozen
class Outcome:
    """How it went with a target: inputs tried, seconds it took, files that break its promise."""

    target: Target
    tried: int
    seconds: int
    broken: tuple[Path, ...]
    said: str


def fuzz(target: Target, seconds: int, corpus: Path, known: Path) -> Outcome:
    """
    Try for so long.

    :param corpus: where what breaks the promise is kept; what lies there is tried first.
    :param known: where inputs are kept that took a new path, for the next time.
    """
    kept, begin = corpus / target.name, known / target.name
    before = set(kept.glob("*"))
    for directory in (kept, begin):
        directory.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(target.seeds):
        (begin / f"seed-{number}").write_bytes(seed)
    options = [
        *(f"-max_total_time={seconds}", f"-max_len={target.longest}", f"-timeout={SLOWEST}"),
        *(f"-rss_limit_mb={LARGEST}", f"-artifact_prefix={kept}{os.sep}", "-print_final_stats=1"),
        *(str(begin), str(kept)),
    ]
    command = [sys.executable, "-m", "swarm.testing.fuzzing.one", target.check.__module__, target.name]
    run = subprocess.run(
        [*command, *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=seconds + 300,
        check=False,
    )
    said = run.stdout.decode("utf-8", "replace")
    done = _DONE.search(said)
    found = tuple(sorted(set(kept.glob("*")) - before))
    if not any(kept.iterdir()):
        kept.rmdir()
    if run.returncode and not found:
        raise RuntimeError(f"{target.name} could not be run:\n{said[-4000:]}")
    return Outcome(target, int(done[1]) if done else 0, int(done[2]) if done else 0, found, said)


def main() -> int:
    """1 if a promise was broken, 2 if there is no atheris."""
    options = argparse.ArgumentParser(prog="python -m swarm.testing.fuzzing", description=__doc__)
    options.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(TARGETS)} [all]")
    options.add_argument("--seconds", type=int, default=60, help="for all together [60]")
    options.add_argument(
        "--corpus", type=Path, default=Path("tests/fuzz/corpus"), help="where finds are kept"
    )
    options.add_argument("--known", type=Path, help="a directory for what took new paths, to go on from")
    asked = options.parse_args()
    if unknown := set(asked.names) - TARGETS.keys():
        options.error(f"no such target: {', '.join(sorted(unknown))}")
    if importlib.util.find_spec("atheris") is None:
        _say("atheris is not installed: pip install '.[fuzz]'; there may be none for this Python")
        return 2
    chosen = [TARGETS[name] for name in asked.names or TARGETS]
    share = max(1, asked.seconds // len(chosen))
    broken = False
    with tempfile.TemporaryDirectory(prefix="swarm-fuzz-") as scratch:
        for target in chosen:
            outcome = fuzz(target, share, asked.corpus, asked.known or Path(scratch))
            rate = outcome.tried // max(1, outcome.seconds)
            _say(f"{target.name}: {outcome.tried} inputs in {outcome.seconds} s, {rate} a second")
            for path in outcome.broken:
                broken = True
                _say(f"BROKEN: {target.promise}\n  by {path}\n{outcome.said[-6000:]}")
    return 1 if broken else 0


def _say(line: str) -> None:
    print(line, flush=True)  # noqa: T201 - this is the answer


if __name__ == "__main__":
    sys.exit(main())

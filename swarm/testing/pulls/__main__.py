"""``python -m swarm.testing.pulls``: rounds of pulls until the time is over; fails when one stood still.

A round is its seed: ``--first N --rounds 1`` plays it again, as far as real processes do the same twice.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from pathlib import Path

from swarm.testing.pulls.playing import Played, stage
from swarm.testing.pulls.rounds import MIB, SIZES, Round, draw

_PULLERS = 2


def main() -> int:
    """See the module. 1: a download stood still, or was wrong."""
    parser = argparse.ArgumentParser(prog="python -m swarm.testing.pulls", description=__doc__)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--rounds", type=int, help="no more than so many")
    parser.add_argument("--first", type=int, default=0, help="the seed of the first round (0)")
    parser.add_argument("--largest", type=int, default=1024, help="MiB of the largest blob (1024)")
    parser.add_argument("--asleep", type=float, default=1.5, help="seconds that nobody does anything (1.5)")
    parser.add_argument(
        "--troubled", type=float, default=6.0, help="the same, while a holder is stopped or slow (6)"
    )
    parser.add_argument("--wall", type=float, default=60.0, help="seconds that nothing comes, whyever (60)")
    parser.add_argument("--directory", type=Path, help="where to work; kept (a temporary one)")
    given = parser.parse_args()
    sizes = tuple(size for size in SIZES if size <= given.largest << 20)
    directory = given.directory or Path(tempfile.mkdtemp(prefix="swarm-pulls-"))
    directory.mkdir(exist_ok=True)
    failed = rounds = downloads = 0
    worst: dict[str, float] = {}
    end = time.monotonic() + given.minutes * 60
    with stage(directory, sizes, given.asleep) as on:
        while time.monotonic() < end and (given.rounds is None or rounds < given.rounds):
            seed = given.first + rounds
            drawn = draw(seed, sizes, _PULLERS)
            limit = given.asleep if drawn.trouble == "none" else given.troubled
            on.limit = limit
            began = time.monotonic()
            played_all = on.play(drawn)
            _say(_line(seed, drawn, played_all, time.monotonic() - began))
            for played in played_all:
                downloads += 1
                worst[drawn.trouble] = max(worst.get(drawn.trouble, 0.0), played.worst.asleep)
                if played.wrong or played.worst.asleep > limit or played.worst.wall > given.wall:
                    failed += 1
                    _say(_words(seed, drawn, played))
            rounds += 1
    longest = ", ".join(f"{name} {seconds:.2f} s" for name, seconds in sorted(worst.items()))
    _say(f"{rounds} rounds, {downloads} downloads, {failed} failed; longest asleep: {longest}")
    if not failed and given.directory is None:
        shutil.rmtree(directory)
    elif failed:
        _say(f"see {directory}")
    return 1 if failed else 0


def _line(seed: int, drawn: Round, all_played: list[Played], seconds: float) -> str:
    asleep = max(played.worst.asleep for played in all_played)
    wall = max(played.worst.wall for played in all_played)
    passed = max(played.worst.passed for played in all_played)
    return (
        f"round {seed} ({drawn.trouble}): {len(all_played)} downloads, {seconds:.1f} s; "
        f"longest pause {asleep:.2f} s asleep, {wall:.2f} s in all, {passed / MIB:.0f} MiB for others"
    )


def _words(seed: int, drawn: Round, played: Played) -> str:
    return (
        f"FAILED {seed} ({drawn.trouble}): {played.what}, {played.seconds:.1f} s: asleep for "
        f"{played.worst.asleep:.2f} s, nothing for {played.worst.wall:.2f} s at {played.worst.at} "
        f"{played.wrong}"
    )


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())

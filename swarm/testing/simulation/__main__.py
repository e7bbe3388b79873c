"""``python -m swarm.testing.simulation --seeds 0:100``: many runs, and what they came to."""

from __future__ import annotations

import argparse
import itertools
import json
import os
import sys
import time
from collections.abc import Iterable
from pathlib import Path

from swarm.testing.simulation.ensemble import Ensemble, outcomes
from swarm.testing.simulation.plan import draw_plan
from swarm.testing.simulation.runs import begin, replay, run
from swarm.testing.simulation.shrink import shrink
from swarm.testing.simulation.written import read, write

#: A soak writes down how far it is after so many seeds, and tells after ten times as many.
_NOTE_EVERY = 100


def main() -> int:
    """Run the seeds asked for; 1 if a promise was broken."""
    options = argparse.ArgumentParser(prog="python -m swarm.testing.simulation", description=__doc__)
    options.add_argument("--seeds", default="0:20", help="FIRST:AFTER_LAST, or one seed [0:20]")
    options.add_argument("--plan", type=Path, help="instead of seeds: do again what this file says")
    options.add_argument("--workers", type=int, default=1, help="so many processes at once")
    options.add_argument("--hours", type=float, default=0.0, help="go on from FIRST for so long instead")
    options.add_argument("--state", type=Path, help="with --hours: go on from what this file says, and note")
    options.add_argument("--tls", action="store_true", default=None, help="real TLS in every run")
    options.add_argument("--trace", action="store_true", help="print each seed's trace")
    options.add_argument("--shrink", action="store_true", help="print the smallest plan that fails, too")
    options.add_argument("--history", action="store_true", help="print every event")
    asked = options.parse_args()
    if asked.plan is not None:
        return _planned(asked)
    first, _, stop = asked.seeds.partition(":")
    seeds: Iterable[int] = range(int(first), int(stop) if stop else int(first) + 1)
    if asked.hours:
        return _soak(asked, int(first))
    total, began = Ensemble(), time.perf_counter()
    if asked.history:
        begin()
        done = (run(seed, tls=asked.tls, history=True) for seed in seeds)
    else:
        done = outcomes(seeds, asked.workers, tls=asked.tls)  # type: ignore[assignment]  # an iterator, too
    for outcome in done:
        for line in outcome.history:
            _say(line)
        if asked.trace:
            _say(f"{outcome.seed} {outcome.trace} {outcome.events} events {outcome.seconds:.0f} s")
        for problem in outcome.problems:
            _say(f"seed {outcome.seed}: {problem}")
        if outcome.problems and asked.shrink:
            begin()
            plan = draw_plan(outcome.seed, tls=asked.tls)
            _say(write(shrink(plan, lambda plan: bool(replay(plan).problems))))
        total.add(outcome)
    total.took = time.perf_counter() - began
    for line in total.lines():
        _say(line)
    return 1 if total.broken else 0


def _planned(asked: argparse.Namespace) -> int:
    """One run as written down."""
    begin()
    plan = read(asked.plan.read_text("utf-8"))
    outcome = replay(plan, history=asked.history)
    for line in outcome.history:
        _say(line)
    if asked.trace:
        _say(f"{outcome.trace} {outcome.events} events {outcome.seconds:.0f} s")
    for problem in outcome.problems:
        _say(problem)
    if outcome.problems and asked.shrink:
        _say(write(shrink(plan, lambda plan: bool(replay(plan).problems))))
    return 1 if outcome.problems else 0


def _soak(asked: argparse.Namespace, first: int) -> int:
    """A night of it; what was found so far survives whatever ends it."""
    state: Path | None = asked.state
    total = Ensemble()
    if state is not None and state.exists():
        known = json.loads(state.read_text("utf-8"))
        first, total = known["next"], Ensemble.from_json(known["total"])
        _say(f"going on from seed {first}")
    began = last = time.perf_counter()

    def note() -> None:
        nonlocal last
        now = time.perf_counter()
        total.took, last = total.took + now - last, now
        if state is not None:
            _note(state, {"next": first, "total": total.to_json()})

    stopped = False
    try:
        for outcome in outcomes(itertools.count(first), asked.workers, tls=asked.tls):
            total.add(outcome)
            first = outcome.seed + 1
            for problem in outcome.problems:
                _say(f"seed {outcome.seed}: {problem}")
            if outcome.problems or total.seeds % _NOTE_EVERY == 0:
                note()
            if total.seeds % (10 * _NOTE_EVERY) == 0:
                _tell(total)
            if time.perf_counter() - began > asked.hours * 3600:
                break
    except KeyboardInterrupt:
        stopped = True
    note()
    _tell(total)
    if stopped:
        _say("stopped; the same command goes on from here" if state is not None else "stopped")
    return 1 if total.broken else 130 if stopped else 0


def _tell(total: Ensemble) -> None:
    for line in total.lines():
        _say(line)


def _note(state: Path, document: object) -> None:
    draft = state.with_suffix(".new")
    draft.write_text(json.dumps(document, indent=1), "utf-8")
    os.replace(draft, state)


def _say(line: str) -> None:
    print(line, file=sys.stdout, flush=True)  # noqa: T201 - this is the answer


if __name__ == "__main__":
    sys.exit(main())

"""P12, the wires: pulls from sources that are far away, or of mixed rates, or that fail halfway.

Decides which scenarios of :mod:`bench.network` stand beside the goals, and how often they run. The goals
allow for what a link cannot give: headers and TLS leave 96.4 % of it at best.
"""

from __future__ import annotations

import shutil
import time

from bench.measure import Failed
from bench.network import SCENARIOS, scenario
from bench.outcome import Figure, Result, Row, absolute
from bench.programs import Asked

_SHARE, _TAIL = "of the links %", "last 1 % of bytes, % of time"
_BESIDE = {"P12 20 ms": "three-20ms", "P12 100 ms": "three-100ms", "P12 mixed": "mixed"}
_OTHERS = ("slows", "stalls", "leaves", "five", "seeks")


def run(asked: Asked) -> Result:
    """Those beside goals in turn, then each of the others once."""
    rows = {name: Row(SCENARIOS[name].title) for name in (*_BESIDE.values(), *_OTHERS)}
    notes: list[str] = []
    rounds = 1 if asked.quick else min(2, asked.rounds)
    for _ in range(rounds):
        for name in _BESIDE.values():
            _once(asked, name, rows[name], notes)
    for name in () if asked.quick else _OTHERS:
        _once(asked, name, rows[name], notes)
    tails = [value for name in _BESIDE.values() for value in rows[name].values(_TAIL)]
    return Result(
        "sources behind long wires",
        tuple(rows.values()),
        (
            *(_share(goal, rows[name]) for goal, name in _BESIDE.items()),
            absolute("P12 tail", tails, worst=True),
        ),
        (
            *notes,
            "real nodes, each in a network namespace of its own; a relay delays packets, the kernel's "
            "shaper gives the rate; the ideal is what the shapers let through, headers included",
            "the delay is the round trip; the tail is the worst of all these pulls",
        ),
    )


def _once(asked: Asked, name: str, row: Row, notes: list[str]) -> None:
    if time.monotonic() > asked.until:
        notes.append(f"time was up before {row.name} could run {'again' if row.samples else 'at all'}")
        return
    work = asked.disk / name
    work.mkdir()
    try:
        row.samples.append(dict(scenario(name, work, quick=asked.quick).figures))
        asked.say(f"{row.name}: " + ", ".join(f"{k} {v:.4g}" for k, v in row.samples[-1].items()))
    except (Failed, OSError, AssertionError) as e:
        notes.append(f"left out: {row.name}: {' '.join(str(e).split())[-300:]}")
        asked.say(notes[-1])
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _share(goal: str, row: Row) -> Figure:
    return absolute(goal, [share / 100 for share in row.values(_SHARE)])

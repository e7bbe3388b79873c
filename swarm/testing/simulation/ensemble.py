"""Many runs, and what they came to together.

Decides when an ensemble is good: no run broke a promise, and every rare path was taken often enough. A
path nobody takes is a test nobody runs, so a change of the plan or the product that closes one is noticed.
"""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from multiprocessing import get_context
from typing import Any

from attrs import asdict, define, field

from swarm.testing.simulation.runs import Outcome, begin, run

#: Rare paths, and how many seeds there may be for one that takes it: several times what was measured, so
#: that chance alone does not make an ensemble fail.
PROBES: Mapping[str, int] = {
    "PUT 202": 30,
    "GET 206": 10,
    "GET 404": 20,
    "GET 503": 60,
    "GET given up": 10,
    "DELETE 202": 60,
    "EEXIST in link_fd": 60,
    "ENOSPC in pwritev": 100,
    "EIO in pwritev": 100,
    "EIO in preadv": 150,
    "a disk gave out": 60,
    "restarted to write again": 80,
    "asked a liar": 40,
    "asked a liar over TLS": 100,
    "conviction for data": 60,
    "conviction for list": 300,
    "data rotten": 120,
    "midstates rotten": 300,
    "healed by an advisory": 300,
    "hint delivered": 40,
    "tombstone had to wait": 250,
    "copies took too long": 60,
    "pulls_failed": 20,
    "pulls_resumed": 60,
    "bytes_resumed": 250,
    "spans_stolen": 20,
    "spans_hedged": 10,
    "spans_doubled": 10,
    "spans_taken_over": 15,
    "spans_aborted": 40,
    "bytes_duplicated": 20,
    "copies_challenged": 20,
    "copies_missing": 60,
    "copies_refuted": 60,
    "proven as a whole": 150,
    "PUT of what a liar says it has": 60,
}

_BATCH = 500


@define
class Ensemble:
    """
    What runs came to.

    :ivar broken: problems by seed.
    :ivar refetched: bytes that came again, of each pull that a crash interrupted.
    :ivar probes: in how many seeds each rare path was taken; ``faults``: how many of each kind there were.
    """

    seeds: int = 0
    events: int = 0
    simulated: float = 0.0
    took: float = 0.0
    cpu: float = 0.0
    broken: dict[int, list[str]] = field(factory=dict)
    probes: Counter[str] = field(factory=Counter)
    faults: Counter[str] = field(factory=Counter)
    refetched: list[int] = field(factory=list)

    def add(self, outcome: Outcome) -> None:
        """Count a run."""
        self.seeds += 1
        self.events += outcome.events
        self.simulated += outcome.seconds
        self.cpu += outcome.cpu
        self.probes.update(outcome.probes.keys())
        self.faults.update(outcome.faults)
        self.refetched.extend(outcome.refetched)
        if outcome.problems:
            self.broken[outcome.seed] = list(outcome.problems)

    def unvisited(self) -> list[str]:
        """Paths taken too seldom for so many seeds."""
        return [
            f"{name}: in {self.probes[name]} of {self.seeds} seeds"
            for name, seeds in PROBES.items()
            if self.probes[name] < self.seeds // seeds
        ]

    def lines(self) -> Iterator[str]:
        """For people."""
        yield (
            f"{self.seeds} seeds, {len(self.broken)} broken; {self.events} events, "
            f"{self.simulated / 3600:.1f} simulated hours in {self.took:.0f} s: "
            f"{self.seeds / max(self.took, 1e-9):.2f} seeds/s, "
            f"{self.seeds / max(self.cpu, 1e-9):.2f} in a second of one core"
        )
        if again := sorted(self.refetched):
            half, most = again[len(again) // 2], again[len(again) * 99 // 100]
            yield f"{len(again)} pulls cut short by a crash: {half} bytes fetched again (p50), {most} (p99)"
        yield "faults: " + ", ".join(f"{kind} {count}" for kind, count in sorted(self.faults.items()))
        yield "probes, by seeds that hit them: " + ", ".join(
            f"{probe} {count}" for probe, count in sorted(self.probes.items())
        )
        yield from (f"too seldom: {each}" for each in self.unvisited())

    def to_json(self) -> dict[str, Any]:
        """To go on from later."""
        return asdict(self)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Ensemble:
        """The opposite."""
        known = cls(**document)
        known.broken = {int(seed): problems for seed, problems in known.broken.items()}
        known.probes, known.faults = Counter(known.probes), Counter(known.faults)
        return known


def outcomes(seeds: Iterable[int], workers: int, *, tls: bool | None = None) -> Iterator[Outcome]:
    """
    Do runs, several at once, each worker a process of its own.

    :return: in the order of the seeds.
    """
    if workers == 1:
        begin()
        for seed in seeds:
            yield run(seed, tls=tls)
        return
    with get_context("spawn").Pool(workers, _begin_working) as pool:
        rest = iter(seeds)
        while batch := list(islice(rest, _BATCH)):  # a pool takes all it is given at once, if endless, too
            yield from pool.imap(_Job(tls), batch)


def _begin_working() -> None:
    """Ctrl-C is for the one who collects."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    begin()


@define
class _Job:
    tls: bool | None

    def __call__(self, seed: int) -> Outcome:
        return run(seed, tls=self.tls)


def ensemble(seeds: Iterable[int], workers: int = 1) -> Ensemble:
    """All of them; see :func:`outcomes`."""
    began, total = time.perf_counter(), Ensemble()
    for outcome in outcomes(seeds, workers):
        total.add(outcome)
    total.took = time.perf_counter() - began
    return total

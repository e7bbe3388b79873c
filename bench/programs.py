"""The programs there are, what each answers, and how long each may take.

To add one: a module of this package with a function ``run(asked: Asked) -> Result``, and a line here.
A program starts whatever it measures itself, in context managers, works only below ``asked.disk`` and
``asked.memory``, and leaves the rest to ``running``: its own process group, its end when time is up,
and its result, which is kept as JSON.
"""

from __future__ import annotations

import importlib
import importlib.util
import math
from collections.abc import Callable, Sequence
from pathlib import Path

from attrs import frozen

from bench.measure import Case, interleave
from bench.outcome import Result, Row


@frozen
class Asked:
    """What a program is told."""

    disk: Path  # an empty directory on a real filesystem; gone afterwards
    memory: Path  # the same on tmpfs
    quick: bool
    rounds: int  # for the record, after one to warm up
    mib: int | None  # size of the large blob, if somebody wants another than usual
    say: Callable[[str], None]  # progress, for people
    until: float = math.inf  # no further round after this, of time.monotonic()

    def size(self, full: int, quick: int) -> int:
        """Bytes of the large blob; arguments in MiB."""
        return (self.mib or (quick if self.quick else full)) << 20

    def interleave(
        self, cases: Sequence[Case], notes: list[str], rounds: int | None = None
    ) -> dict[str, Row]:
        """Rows by name, of as many rounds as were asked for; see :func:`bench.measure.interleave`."""
        rounds = self.rounds if rounds is None else rounds
        rows = interleave(cases, rounds, self.say, notes=notes, until=self.until)
        return {row.name: row for row in rows}


@frozen
class Program:
    """One program: ``at`` is ``module:function``; the bounds are seconds."""

    name: str
    what: str
    at: str
    goals: tuple[str, ...]
    full: float = 600.0
    quick: float = 240.0
    gib: float = 8.0  # room it needs on the disk

    @property
    def here(self) -> bool:
        """Is its module there?"""
        return importlib.util.find_spec(self.at.partition(":")[0]) is not None

    def run(self, asked: Asked) -> Result:
        """Do it."""
        module, _, function = self.at.partition(":")
        result: Result = getattr(importlib.import_module(module), function)(asked)
        return result


PROGRAMS = (
    Program("pull", "a pull from three peers", "bench.pulls:run", ("P1", "P2", "P3", "P4"), 900),
    Program("sender", "sending over mutual TLS", "bench.senders:mutual_tls", ("P5",)),
    Program("get", "one large GET", "bench.senders:plain", ("P6",)),
    Program("small", "small GETs", "bench.small:run", ("P7", "P8")),
    Program("put", "large and small PUTs", "bench.puts:run", ("P9",)),
    Program("memory", "peak memory", "bench.memory:run", ("P10",), 900, gib=45),
    Program("resume", "kill -9 and on", "bench.resume:run", ("P11",)),
    Program("network", "far sources, uneven ones, ones that fail", "bench.far:run", ("P12",), 900),
    Program("sources", "many sources", "bench.sources:run", ("P12",), gib=10),
    Program("cold", "first bytes of what is elsewhere", "bench.cold:run", ("P14",), gib=16),
    Program("stores", "a store of a million blobs", "bench.stores:run", ("P12", "P13"), 1200, gib=20),
)

BY_NAME = {program.name: program for program in PROGRAMS}

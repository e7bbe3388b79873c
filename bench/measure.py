"""How a figure is taken: interleaved rounds, medians, the CPU of both ends, peak memory.

Decides nothing about what is measured. A case is a function that does its work once and returns
what it cost; cases of one table run in turn, A B C A B C, so that a noisy minute hits all of them.
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from attrs import define, field, frozen

TICKS = os.sysconf("SC_CLK_TCK")


@frozen
class Cost:
    """One run: seconds on the wall, and of CPU at the client's and the servers' end."""

    wall: float
    client: float = 0.0
    server: float = 0.0


@frozen
class Case:
    """One row of a table; ``run`` does the work once, ``reset`` undoes it, untimed."""

    name: str
    run: Callable[[], Cost]
    reset: Callable[[], None] = lambda: None


@define
class Row:
    """What all rounds of a case gave."""

    name: str
    costs: list[Cost] = field(factory=list)

    def median(self, what: str) -> float:
        """Of ``wall``, ``client`` or ``server``."""
        median: float = statistics.median(getattr(cost, what) for cost in self.costs)
        return median

    def spread(self, what: str) -> tuple[float, float]:
        """The least and the most."""
        values = [getattr(cost, what) for cost in self.costs]
        return min(values), max(values)


def interleave(cases: Sequence[Case], rounds: int, say: Callable[[str], None]) -> list[Row]:
    """Run all cases in turn, once to warm up and ``rounds`` times for the record."""
    rows = [Row(case.name) for case in cases]
    for number in range(rounds + 1):
        for case, row in zip(cases, rows, strict=True):
            cost = case.run()
            case.reset()
            if number:
                row.costs.append(cost)
            label = f"round {number}" if number else "warm-up"
            say(f"{label}: {case.name}: {cost.wall:.3f} s")
    return rows


def cpu_of(pids: Iterable[int]) -> float:
    """CPU seconds these processes and their threads have used so far."""
    total = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / TICKS


def peak_memory(pid: int) -> int:
    """The most bytes that were resident, ever."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no VmHWM")


@contextmanager
def children_cpu() -> Iterator[list[float]]:
    """Collects the CPU seconds of child processes that ended inside."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = [0.0]
    yield used
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used[0] = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def command(arguments: Sequence[str | Path], servers: Iterable[int] = ()) -> Cost:
    """Run a program to its end, which must be a good one; ``servers`` are what it talks to."""
    servers = list(servers)
    busy, start = cpu_of(servers), time.perf_counter()
    with children_cpu() as used:
        done = subprocess.run([str(each) for each in arguments], capture_output=True, text=True)
    wall = time.perf_counter() - start
    if done.returncode:
        raise RuntimeError(f"{arguments[0]} failed: {done.stderr[-500:] or done.stdout[-500:]}")
    return Cost(wall, used[0], cpu_of(servers) - busy)

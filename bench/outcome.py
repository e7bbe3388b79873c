"""What a program found: rows of samples, figures beside goals, notes. Values, and their way to JSON.

Decides what a figure is: the median of ours over the median of theirs, with the least and the most
of the ratios of the single rounds. A figure that could not be taken says why and has no value.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
from attrs import define, field, frozen

#: What one run gave: by the heading of its column, unit included.
Sample = Mapping[str, float]

WALL, CLIENT, SERVER, PEAK = "wall s", "client CPU s", "server CPU s", "peak MB"


@define
class Row:
    """One side of a comparison, and what each of its rounds gave."""

    name: str
    samples: list[Sample] = field(factory=list)

    def values(self, what: str) -> list[float]:
        """One column."""
        return [sample[what] for sample in self.samples if what in sample]

    def median(self, what: str) -> float:
        """The middle of one column."""
        return statistics.median(self.values(what))

    @property
    def headings(self) -> list[str]:
        """What was measured of it."""
        return list(dict.fromkeys(name for sample in self.samples for name in sample))


@frozen
class Figure:
    """What stands beside a goal (by its key); without a value, the reason."""

    goal: str
    value: float | None = None
    low: float | None = None
    high: float | None = None
    why_not: str = ""


def ratio(goal: str, ours: Row, theirs: Row | None, what: str, *, inverse: bool = False) -> Figure:
    """
    Ours over theirs; ``inverse`` where a rate is asked for and a time was taken.

    :param theirs: None, or without samples: it could not be run.
    """
    if theirs is None or not theirs.samples:
        return Figure(goal, why_not="the other program was not run: see the notes")
    if not ours.samples:
        return Figure(goal, why_not="ours was not run: see the notes")
    pairs = list(zip(ours.values(what), theirs.values(what), strict=False))
    over, under = ours.median(what), theirs.median(what)
    if inverse:
        pairs, over, under = [(b, a) for a, b in pairs], under, over
    each = [a / b for a, b in pairs]
    return Figure(goal, over / under, min(each), max(each))


def absolute(goal: str, values: Sequence[float], *, worst: bool = False) -> Figure:
    """The median of some values, or the greatest, beside a goal that is a plain number."""
    if not values:
        return Figure(goal, why_not="it was not run: see the notes")
    middle = max(values) if worst else statistics.median(values)
    return Figure(goal, middle, min(values), max(values))


@frozen
class Result:
    """What a program hands back."""

    title: str
    rows: tuple[Row, ...]
    figures: tuple[Figure, ...]
    notes: tuple[str, ...] = ()


@frozen
class Outcome:
    """A result and where it comes from, as kept in JSON; ``error`` if the program did not finish."""

    program: str
    form: str  # quick, full, or what was asked for
    rounds: int
    date: str
    commit: str
    seconds: float
    machine: Mapping[str, str]
    result: Result
    error: str = ""


def save(path: Path, outcome: Outcome) -> None:
    """Write it whole or not at all."""
    beside = path.with_suffix(".new")
    beside.write_text(json.dumps(attrs.asdict(outcome), indent=1, ensure_ascii=False) + "\n")
    beside.replace(path)


def load(path: Path) -> Outcome:
    """Read what :func:`save` wrote."""
    return decode(json.loads(path.read_text()))


def decode(document: dict[str, Any]) -> Outcome:
    """The values of a JSON document."""
    result = document.pop("result")
    return Outcome(
        result=Result(
            result["title"],
            tuple(Row(**row) for row in result["rows"]),
            tuple(Figure(**figure) for figure in result["figures"]),
            tuple(result["notes"]),
        ),
        **document,
    )


def load_all(directory: Path, order: Iterable[str]) -> list[Outcome]:
    """All that programs left there, in this order."""
    paths = [directory / f"{name}.json" for name in order]
    return [load(path) for path in paths if path.exists()]

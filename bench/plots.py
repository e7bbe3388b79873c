"""Pictures of outcomes: how far each figure is from its goal, and every round of every program.

The same outcomes give the same bytes. Without matplotlib there are no pictures, and the report has none.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.goals import BY_KEY
from bench.outcome import Outcome, Row

_REACHED, _MISSED = "#2a7f3f", "#b5452c"


def draw(outcomes: Sequence[Outcome], directory: Path) -> dict[str, Path]:
    """Write SVG files; program → file, and ``""`` for the overview."""
    try:
        import matplotlib
    except ImportError:
        return {}
    matplotlib.use("svg")
    matplotlib.rcParams.update({"svg.hashsalt": "swarm", "svg.fonttype": "none", "font.size": 8})
    directory.mkdir(parents=True, exist_ok=True)
    made: dict[str, Path] = {}
    if any(f.value is not None for outcome in outcomes for f in outcome.result.figures):
        made[""] = directory / "goals.svg"
        _overview(outcomes, made[""])
    for outcome in outcomes:
        if any(row.samples for row in outcome.result.rows):
            made[outcome.program] = directory / f"{outcome.program}.svg"
            _rounds(outcome, made[outcome.program])
    return made


def _save(figure: Any, path: Path) -> None:
    from matplotlib import pyplot

    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None, "Creator": None})
    pyplot.close(figure)


def _overview(outcomes: Sequence[Outcome], path: Path) -> None:
    """One bar a figure, as a share of its goal: left of the line it is reached."""
    from matplotlib import pyplot

    figures = [f for outcome in outcomes for f in outcome.result.figures if f.value is not None]
    shares = []
    for each in figures:
        goal, value = BY_KEY[each.goal], each.value or 0.0
        shares.append(goal.limit / max(value, 1e-9) if goal.more else value / goal.limit)
    figure, axes = pyplot.subplots(figsize=(7, 0.6 + 0.22 * len(figures)))
    colours = [_REACHED if BY_KEY[each.goal].reached(each.value or 0.0) else _MISSED for each in figures]
    axes.barh([each.goal for each in figures], [min(share, 4.0) for share in shares], color=colours)
    for place, share in enumerate(shares):
        axes.text(min(share, 4.0) + 0.03, place, f"{share:.2f}", va="center")
    axes.axvline(1.0, color="black", linewidth=0.8)
    axes.set_xlim(0, min(4.4, max(1.3, *shares) + 0.3))
    axes.set_xlabel("share of the goal: 1 is the goal itself, less is better")
    axes.invert_yaxis()
    _save(figure, path)


def _rounds(outcome: Outcome, path: Path) -> None:
    """Every round a dot, the median a line; a panel for each of the first two columns of a row."""
    from matplotlib import pyplot

    rows = [row for row in outcome.result.rows if row.samples]
    panels = list(dict.fromkeys(heading for row in rows for heading in row.headings[:2]))[:3]
    figure, every = pyplot.subplots(
        1, len(panels), figsize=(3.2 * len(panels) + 2, 0.8 + 0.28 * len(rows)), squeeze=False
    )
    for axes, what in zip(every[0], panels, strict=True):
        shown: list[Row] = [row for row in rows if row.values(what)]
        for place, row in enumerate(shown):
            axes.plot(row.values(what), [place] * len(row.values(what)), "o", color="#3b6ea5", markersize=3)
            axes.plot([row.median(what)] * 2, [place - 0.3, place + 0.3], color="black", linewidth=1)
        axes.set_yticks(range(len(shown)), [row.name for row in shown])
        axes.set_ylim(len(shown) - 0.5, -0.5)
        axes.set_xlim(left=0)
        axes.set_xlabel(what)
        axes.grid(axis="x", linewidth=0.3)
    _save(figure, path)

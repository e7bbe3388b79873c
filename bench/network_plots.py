"""Pictures of pulls over wires: what came over each, moment by moment, below what the links carry.

Draws; measures nothing. The same courses give the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

Course = Sequence[tuple[float, Mapping[str, int]]]
_STEP = 0.25  # seconds that are averaged over


def draw(courses: Mapping[str, tuple[str, float, Course]], path: Path) -> None:
    """
    Write one SVG with a panel each.

    :param courses: by scenario: its title, what all its links carry in Mbit/s, and its course.
    :raises ImportError: without matplotlib.
    """
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams.update({"svg.hashsalt": "swarm", "svg.fonttype": "none", "font.size": 8})
    from matplotlib import pyplot

    figure, every = pyplot.subplots(
        len(courses), 1, figsize=(7, 1.7 * len(courses)), squeeze=False, constrained_layout=True
    )
    for axes, (title, links, course) in zip(every[:, 0], courses.values(), strict=True):
        times, rates = megabits(course)
        names = [name.replace("host", "source ") for name in rates]
        axes.stackplot(times, list(rates.values()), labels=names, linewidth=0)
        axes.axhline(links, color="black", linewidth=0.8, linestyle="--")
        axes.set_title(title, loc="left")
        axes.set_ylabel("Mbit/s")
        axes.set_xlim(0, times[-1] if times else 1)
        axes.set_ylim(0, links * 1.15)
        axes.grid(linewidth=0.3)
        if len(names) > 1:
            axes.legend(loc="lower center", ncols=len(names), frameon=False, fontsize=7)
    every[-1, 0].set_xlabel("seconds since the pull was asked for; dashed: what the links carry together")
    figure.savefig(path, metadata={"Date": None, "Creator": None})
    pyplot.close(figure)


def megabits(course: Course) -> tuple[list[float], dict[str, list[float]]]:
    """The rate of each wire over equal steps: their middles in seconds, and Mbit/s by wire."""
    times: list[float] = []
    rates: dict[str, list[float]] = {name: [] for name in course[0][1]}
    then, before = course[0]
    for now, counts in course:
        if now - then >= _STEP or (now, counts) == course[-1]:
            times.append((then + now) / 2)
            for name, values in rates.items():
                values.append((counts[name] - before[name]) * 8e-6 / max(now - then, _STEP / 4))
            then, before = now, counts
    return times, rates

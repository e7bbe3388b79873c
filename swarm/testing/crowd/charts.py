"""Runs as a picture: how a blob spread, in times of the bound. SVG, the same for the same runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from swarm.testing.crowd.runs import Outcome

_WIDTH, _HEIGHT, _LEFT, _TOP = 640, 300, 50, 30
_COLOURS = ("#1b6ca8", "#c0392b", "#2e8b57", "#8e44ad", "#d68910", "#34495e")


def chart(title: str, runs: Mapping[str, Outcome]) -> str:
    """One line a run: across the time over the bound, upwards the share of nodes that have the blob."""
    most = max(outcome.times[-1] / outcome.bound for outcome in runs.values())
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH + 100} {_HEIGHT + 80}" '
        'font-family="sans-serif" font-size="12">',
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="{_LEFT}" y="18" font-size="14">{escape(title)}</text>',
    ]
    for tick in range(5):
        x, y = _x(most * tick / 4, most), _y(tick / 4)
        parts.append(
            f'<text x="{x:.1f}" y="{_TOP + _HEIGHT + 18}" text-anchor="middle">{most * tick / 4:.1f}</text>'
        )
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{25 * tick} %</text>')
        parts.append(f'<path d="M{_LEFT} {y:.1f}h{_WIDTH}" stroke="#ddd"/>')
    one = _x(1.0, most)
    parts.append(f'<path d="M{one:.1f} {_TOP}v{_HEIGHT}" stroke="#888" stroke-dasharray="4 3"/>')
    for number, (name, outcome) in enumerate(runs.items()):
        colour = _COLOURS[number % len(_COLOURS)]
        parts.append(f'<path d="{_line(outcome, most)}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts.append(
            f'<text x="{_LEFT + 8 + 210 * (number % 3)}" y="{_TOP + _HEIGHT + 36 + 16 * (number // 3)}" '
            f'fill="{colour}">{escape(name)}</text>'
        )
    return "\n".join([*parts, "</svg>", ""])


def _line(outcome: Outcome, most: float) -> str:
    times: Sequence[float] = outcome.times
    steps = [
        f"L{_x(time / outcome.bound, most):.1f} {_y((number + 1) / len(times)):.1f}"
        for number, time in enumerate(times)
    ]
    return f"M{_x(0, most):.1f} {_y(0):.1f}" + "".join(steps)


def _x(time: float, most: float) -> float:
    return _LEFT + _WIDTH * time / most


def _y(share: float) -> float:
    return _TOP + _HEIGHT * (1 - share)

"""A whole swarm keeps its promises while everything around it breaks: half of the seeds of every change.

The other half is in a file of its own, for another worker. More of them: ``make soak``.
"""

from __future__ import annotations

import pytest

from swarm.testing.simulation.ensemble import Ensemble
from swarm.testing.simulation.runs import run

FIRST, AFTER, AT_ONCE = 0, 250, 10
total = Ensemble()


@pytest.mark.parametrize("first", range(FIRST, AFTER, AT_ONCE))
def test_promises_hold(first: int) -> None:
    for seed in range(first, first + AT_ONCE):
        total.add(run(seed))
    assert not total.broken


def test_every_rare_path_was_taken() -> None:
    """By the seeds above: a path that nobody takes any more is a test that nobody runs any more."""
    assert not total.unvisited()

"""From a run that fails to the smallest one that still does.

Decides what to leave out next: nodes' faults, requests, blobs, each alone and in halves, until nothing can
go without the failure going, too. What is printed in the end is Python: a test to be kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import attrs

from swarm.testing.simulation.plan import Plan

_PARTS = ("faults", "gets", "deletes", "puts")


def shrink(plan: Plan, fails: Callable[[Plan], bool]) -> Plan:
    """The smallest plan found for which ``fails`` holds, as it does for ``plan``."""
    assert fails(plan)
    while (smaller := next(filter(fails, _smaller(plan)), None)) is not None:
        plan = smaller
    return plan


def _smaller(plan: Plan) -> Iterator[Plan]:
    """Plans with something left out, the smallest first."""
    for part in _PARTS:
        whole: tuple[Any, ...] = getattr(plan, part)
        size = len(whole)
        while size:
            for at in range(0, len(whole), size):
                less: dict[str, Any] = {part: whole[:at] + whole[at + size :]}
                yield attrs.evolve(plan, **less)
            size //= 2
    if plan.lies is not None:
        yield attrs.evolve(plan, lies=None)
    simpler: dict[str, Any]
    for simpler in ({"tls": False}, {"skew": 0.0}, {"bandwidth": (1e6, 1e6)}):
        if attrs.evolve(plan, **simpler) != plan:
            yield attrs.evolve(plan, **simpler)

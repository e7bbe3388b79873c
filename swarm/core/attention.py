"""What waits because a reader does.

A pull at full rate takes every lane, and on a small machine every core. Who just came, or has just sought to
another place, wants a few megabytes and not the rest of the blob: for a moment nothing else is asked, and
at the very first nothing but the grain it stands at. What was asked before goes on. Decides how long;
what a reader waits for next is in ``swarm.core.picker``.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from math import inf

from attrs import define, field


@define
class Attention:
    """
    Of one pull, for readers that wait for bytes that are not here.

    ``alone`` seconds at most, nothing is asked but the first grain of who came; for ``calm`` seconds, nothing
    but what readers come to. Both are short beside the way to a source that is far away.
    """

    alone: float
    calm: float
    _verified: Callable[[int], bool]
    _firsts: dict[Hashable, tuple[int, float]] = field(factory=dict)  # by reader: its grain, and until when
    _calm_until: float = -inf

    def came(self, reader: Hashable, grain: int, now: float) -> None:
        """A reader waits for the grain, its first."""
        self._firsts[reader] = grain, now + self.alone
        self._calm_until = now + self.calm

    def forget(self, reader: Hashable) -> None:
        """The reader is gone. Perhaps only to ask for another place: what is calm stays so."""
        self._firsts.pop(reader, None)

    def only_firsts(self, now: float) -> bool:
        """Is nothing to be asked but grains that readers stand at?"""
        return any(now < until and not self._verified(grain) for grain, until in self._firsts.values())

    def only_readers(self, now: float) -> bool:
        """Is nothing to be asked but what readers want?"""
        return now < self._calm_until

    def next_due(self, now: float) -> float:
        """When, by the clock alone, more may be asked than now; infinity if that is not to come."""
        ends = (until for grain, until in self._firsts.values() if not self._verified(grain))
        return min((end for end in (*ends, self._calm_until) if end > now), default=inf)

"""The node's clock: the machine's, but never set back.

Twisted's timers and all deadlines here are instants of the wall clock. Set back by an hour, as on a machine
whose clock was wrong, it would hold them all up for an hour: no silent peer would be hung up on, nothing
tried again. This clock then goes on, a little slower, until the wall clock has caught up. Set forward, it
follows at once. Decides nothing else; seconds since the epoch.
"""

from __future__ import annotations

from collections.abc import Callable

#: How fast it goes while it is ahead: a timeout then takes a ninth longer, and an hour is made up for in ten.
_SLOWED = 0.9


class Steady:
    """I tell the time."""

    def __init__(self, wall: Callable[[], float], monotonic: Callable[[], float]) -> None:
        self._wall = wall
        self._monotonic = monotonic
        self._told = wall()
        self._at = monotonic()

    def seconds(self) -> float:
        """Never less than before."""
        at = self._monotonic()
        least = self._told + (at - self._at) * _SLOWED
        self._told = max(self._wall(), least)
        self._at = at
        return self._told

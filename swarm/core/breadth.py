"""How many sources one pull asks at once: more than usual while they are slow and more of them bring more.

Looks at rates and counts; who is next is ``swarm.core.sources``. Never fewer than before: a lane that is
there costs nothing, and one more to a source that was left costs three round trips.
"""

from __future__ import annotations

from attrs import define, field

_SLOW = 12_500_000.0  # bytes a second (100 Mbit/s): sources that bring more need no help
_PAYS = 1.1  # times the rate before, or widening it once more is not worth it


@define
class Breadth:
    """
    Of one pull. ``allowed`` sources may be asked at once now, in the end at most ``most``.

    It doubles at a :meth:`look` where all that are allowed are in use and bring little each, unless the
    last doubling did not pay: then something else is the limit.
    """

    allowed: int
    most: int
    _before: float = field(init=False, default=0.0)  # all sources' rate when it was widened last

    def meet(self, crowd: int) -> None:
        """Others pull the blob, too: few of them have what is wanted, so more are known, up to ``crowd``."""
        self.allowed = max(self.allowed, min(crowd, self.most))

    def look(self, rate: float, taking: int) -> int:
        """
        How many are allowed from now on.

        :param rate: bytes a second, of all sources together.
        :param taking: sources in use.
        """
        if taking >= self.allowed and 0 < rate < _SLOW * taking and rate >= _PAYS * self._before:
            self.allowed, self._before = max(self.allowed, min(2 * self.allowed, self.most)), rate
        return self.allowed

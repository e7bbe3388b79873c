"""How long to wait before trying again: exponential, capped, with full jitter.

Decides the delay only. Full jitter (uniform between nothing and the exponential) spreads a
herd best for the fewest calls: "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
"""

from __future__ import annotations

from random import Random

from attrs import frozen


@frozen
class Backoff:
    """
    A policy. All values are seconds.

    :param base: the most the first wait may be; it doubles with every further failure.
    :param cap: the most any wait may be.
    :param floor: the least any wait is.
    """

    base: float = 1.0
    cap: float = 300.0
    floor: float = 0.1

    def __attrs_post_init__(self) -> None:
        assert 0 <= self.floor <= self.base <= self.cap

    def most(self, failures: int) -> float:
        """The longest wait after that many failures in a row (1 is the first)."""
        assert failures >= 1
        # 2.0 ** 1024 overflows; long before it the cap rules.
        return min(self.cap, self.base * 2.0 ** min(failures - 1, 64))

    def delay(self, failures: int, *, random: Random) -> float:
        """The wait after that many failures in a row (1 is the first)."""
        return random.uniform(self.floor, self.most(failures))

"""How many sources hold each grain, for all grains at once: sets of grains as bits, counters in bit planes.

Bit ``g`` of a number stands for grain ``g``. Adding a source, dropping one, or finding the rarest of a set
costs a few operations on whole numbers, however many sources and grains there are. Nothing is decided here.
"""

from __future__ import annotations

from random import Random


class Rarity:
    """Counts by grain: bit ``g`` of plane ``p`` is bit ``p`` of the count of grain ``g``."""

    def __init__(self) -> None:
        self._planes: list[int] = []

    def add(self, grains: int) -> None:
        """One more has these."""
        planes = self._planes
        for index, plane in enumerate(planes):
            planes[index], grains = plane ^ grains, plane & grains
            if not grains:
                return
        if grains:
            planes.append(grains)

    def remove(self, grains: int) -> None:
        """One who was added has these no more."""
        planes = self._planes
        for index, plane in enumerate(planes):
            planes[index], grains = plane ^ grains, ~plane & grains
            if not grains:
                break
        assert not grains, "never added"

    def rarest(self, among: int) -> int:
        """Those of a set that the fewest have."""
        for plane in reversed(self._planes):
            among = among & ~plane or among
        return among

    def count(self, grain: int) -> int:
        """How many have it."""
        return sum((plane >> grain & 1) << index for index, plane in enumerate(self._planes))


def one_of(bits: int, random: Random) -> int:
    """A grain of a set that is not empty, each as likely as the others."""
    left, width, first = random.randrange(bits.bit_count()), bits.bit_length(), 0
    while width > 1:
        half = width >> 1
        lower = bits & (1 << half) - 1
        if left < (count := lower.bit_count()):
            bits, width = lower, half
        else:
            bits, width, first, left = bits >> half, width - half, first + half, left - count
    return first

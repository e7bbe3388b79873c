"""How a blob of a given size is cut into grains.

A function of the size alone, so all nodes agree without asking each other
(DESIGN 1): a power of two, clamp(size/2000, 1 MiB, 16 MiB).
"""

from __future__ import annotations

from attrs import field, frozen

from swarm.model.ranges import ByteRange

MIN_GRAIN = 1 << 20
MAX_GRAIN = 16 << 20
_MOST_GRAINS = 2000


def grain_size(size: int) -> int:
    """
    The grain, in bytes, of a blob of ``size`` bytes.

    The smallest power of two, from 1 MiB to 16 MiB, that makes at most 2,000 grains;
    blobs above 31.25 GiB have more, at 16 MiB each.
    """
    grain = MIN_GRAIN
    while grain < MAX_GRAIN and grain * _MOST_GRAINS < size:
        grain *= 2
    return grain


@frozen
class Grains:
    """The cut of one blob. An empty blob has one empty grain, so that it too is verified."""

    size: int
    grain: int
    count: int = field(init=False, eq=False, repr=False)
    """How many grains there are; at least one."""
    last: int = field(init=False, eq=False, repr=False)
    """The index of the grain that ends the blob."""

    @count.default
    def _count(self) -> int:
        return max(1, -(-self.size // self.grain))

    @last.default
    def _last(self) -> int:
        return self.count - 1

    @classmethod
    def of(cls, size: int) -> Grains:
        """The cut all nodes use for a blob of ``size`` bytes."""
        assert size >= 0
        return cls(size, grain_size(size))

    def start(self, index: int) -> int:
        """Offset of the grain's first byte."""
        return index * self.grain

    def stop(self, index: int) -> int:
        """Offset after the grain's last byte."""
        stop = (index + 1) * self.grain
        return stop if stop < self.size else self.size

    def length(self, index: int) -> int:
        """Bytes in the grain; only the last may be shorter, only an empty blob's is empty."""
        return self.stop(index) - self.start(index)

    def at(self, offset: int) -> int:
        """The grain that holds byte ``offset``."""
        index = offset // self.grain
        return index if index < self.last else self.last

    def covering(self, span: ByteRange) -> range:
        """The grains that hold any byte of ``span``."""
        return range(self.at(span.start), self.at(span.stop - 1) + 1)

    def within(self, span: ByteRange) -> range:
        """The grains that lie in ``span`` with every byte."""
        first = -(-span.start // self.grain)
        after = self.count if span.stop >= self.size else span.stop // self.grain
        return range(first, max(first, after))

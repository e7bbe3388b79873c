"""Byte ranges: one interval, sets of intervals, and their HTTP spellings.

Half-open everywhere inside (``start <= offset < stop``); the inclusive form of
RFC 9110 section 14 exists only in the parsers and formatters here.
"""

from __future__ import annotations

import re
from bisect import bisect_left as _first_at_least
from bisect import bisect_right as _first_above
from collections.abc import Iterable, Iterator

from attrs import frozen

from swarm.errors import Malformed

_MAX = 2**63 - 1
_CONTENT_RANGE = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19})", re.ASCII)
_HAVE = re.compile(r"(\d{1,19})-(\d{1,19})", re.ASCII)


@frozen(order=True)
class ByteRange:
    """Bytes ``start`` up to but not including ``stop``; never empty."""

    start: int
    stop: int

    def __attrs_post_init__(self) -> None:
        assert 0 <= self.start < self.stop, (self.start, self.stop)

    def __len__(self) -> int:
        return self.stop - self.start

    @property
    def header(self) -> str:
        """The value of a ``Range`` request field for exactly this interval."""
        return f"bytes={self.start}-{self.stop - 1}"

    def content_range(self, total: int) -> str:
        """The value of ``Content-Range`` for this interval of ``total`` bytes."""
        return f"bytes {self.start}-{self.stop - 1}/{total}"


def parse_content_range(value: str) -> tuple[ByteRange, int]:
    """
    Read ``bytes a-b/total``.

    :raises Malformed: another unit, an unknown total, an empty or impossible interval.
    """
    match = _CONTENT_RANGE.fullmatch(value)
    if match is None:
        raise Malformed("not a Content-Range of known length")
    first, last, total = int(match[1]), int(match[2]), int(match[3])
    if not first <= last < total <= _MAX:
        raise Malformed("an impossible Content-Range")
    return ByteRange(first, last + 1), total


class RangeSet:
    """A set of bytes kept as sorted, disjoint, non-touching intervals.

    Adding and removing cost a bisection plus the intervals touched; a pull's sets stay
    short because grains are fetched in runs.
    """

    __slots__ = ("_edges",)

    def __init__(self, ranges: Iterable[ByteRange] = ()) -> None:
        self._edges: list[int] = []
        for each in ranges:
            self.add(each.start, each.stop)

    def add(self, start: int, stop: int) -> None:
        """Put ``start <= byte < stop`` in; an empty interval changes nothing."""
        if start >= stop:
            return
        edges = self._edges
        left, right = _first_at_least(edges, start), _first_above(edges, stop)
        inner: list[int] = []
        if left % 2 == 0:
            inner.append(start)
        if right % 2 == 0:
            inner.append(stop)
        edges[left:right] = inner

    def remove(self, start: int, stop: int) -> None:
        """Take ``start <= byte < stop`` out."""
        if start >= stop:
            return
        edges = self._edges
        left, right = _first_at_least(edges, start), _first_above(edges, stop)
        inner: list[int] = []
        if left % 2 == 1:
            inner.append(start)
        if right % 2 == 1:
            inner.append(stop)
        edges[left:right] = inner

    def covers(self, start: int, stop: int) -> bool:
        """Is every byte of ``start <= byte < stop`` in? True for an empty interval."""
        if start >= stop:
            return True
        index = _first_above(self._edges, start)
        return index % 2 == 1 and stop <= self._edges[index]

    def end_of_run(self, offset: int) -> int:
        """Where the run of bytes that begins at ``offset`` ends; ``offset`` itself if it is not in."""
        index = _first_above(self._edges, offset)
        return self._edges[index] if index % 2 == 1 else offset

    def gaps(self, start: int, stop: int) -> Iterator[ByteRange]:
        """The maximal intervals of ``start <= byte < stop`` that are not in, in order."""
        at = start
        for each in self.overlap(start, stop):
            if each.start > at:
                yield ByteRange(at, each.start)
            at = each.stop
        if at < stop:
            yield ByteRange(at, stop)

    def overlap(self, start: int, stop: int) -> Iterator[ByteRange]:
        """The maximal intervals of ``start <= byte < stop`` that are in, in order."""
        if start >= stop:
            return
        edges = self._edges
        for index in range(_first_above(edges, start) // 2 * 2, len(edges), 2):
            if edges[index] >= stop:
                break
            yield ByteRange(max(start, edges[index]), min(stop, edges[index + 1]))

    def cells(self, size: int) -> int:
        """Cut into cells of ``size`` bytes: those of which any byte is in, as bits, the first the lowest."""
        bits, edges = 0, self._edges
        for index in range(0, len(edges), 2):
            bits |= (2 << (edges[index + 1] - 1) // size) - (1 << edges[index] // size)
        return bits

    def is_even(self, size: int, end: int) -> bool:
        """Does each run begin and end at a multiple of ``size``, or at ``end``?"""
        return all(edge % size == 0 or edge == end for edge in self._edges)

    def longest(self) -> ByteRange | None:
        """The longest run, of equals the last; None if empty."""
        edges = self._edges
        best = length = -1
        for index in range(0, len(edges), 2):
            if edges[index + 1] - edges[index] >= length:
                best, length = index, edges[index + 1] - edges[index]
        return ByteRange(edges[best], edges[best + 1]) if best >= 0 else None

    def copy(self) -> RangeSet:
        """An independent copy."""
        twin = RangeSet()
        twin._edges = self._edges.copy()
        return twin

    @property
    def total(self) -> int:
        """How many bytes are in."""
        edges = self._edges
        return sum(edges[1::2]) - sum(edges[::2])

    def __and__(self, other: RangeSet) -> RangeSet:
        """The bytes that are in both; costs the intervals of both."""
        both = RangeSet()
        mine, theirs, out = self._edges, other._edges, both._edges
        i = j = 0
        while i < len(mine) and j < len(theirs):
            start, stop = max(mine[i], theirs[j]), min(mine[i + 1], theirs[j + 1])
            if start < stop:
                out += (start, stop)
            if mine[i + 1] < theirs[j + 1]:
                i += 2
            else:
                j += 2
        return both

    def __iter__(self) -> Iterator[ByteRange]:
        edges = self._edges
        return (ByteRange(edges[i], edges[i + 1]) for i in range(0, len(edges), 2))

    def __bool__(self) -> bool:
        return bool(self._edges)

    def __contains__(self, offset: int) -> bool:
        return _first_above(self._edges, offset) % 2 == 1

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RangeSet) and self._edges == other._edges

    __hash__ = None  # type: ignore[assignment]  # mutable, so not hashable

    def __repr__(self) -> str:
        return f"RangeSet({self.have_header()!r})"

    def have_header(self) -> str:
        """The value of ``Swarm-Have``: ``bytes=a-b,c-d``, inclusive."""
        edges = self._edges
        return "bytes=" + ",".join(f"{edges[i]}-{edges[i + 1] - 1}" for i in range(0, len(edges), 2))


def parse_have(value: str, total: int, *, limit: int = 4096) -> RangeSet:
    """
    Read ``Swarm-Have``: what a partial holder of ``total`` bytes can serve.

    :param limit: most intervals accepted.
    :raises Malformed: syntax, order, bytes past ``total`` or too many intervals.
    """
    unit, equals, rest = value.partition("=")
    if unit != "bytes" or not equals:
        raise Malformed("Swarm-Have must begin with bytes=")
    have = RangeSet()
    edges = have._edges
    parts = rest.split(",") if rest else []
    if len(parts) > limit:
        raise Malformed(f"more than {limit} intervals in Swarm-Have")
    for part in parts:
        match = _HAVE.fullmatch(part.strip())
        if match is None:
            raise Malformed("Swarm-Have is bytes=a-b,c-d")
        first, last = int(match[1]), int(match[2])
        if not first <= last < total:
            raise Malformed("an impossible interval in Swarm-Have")
        if not edges or first > edges[-1]:
            edges += (first, last + 1)  # as whoever writes it has it
        else:
            have.add(first, last + 1)
    return have

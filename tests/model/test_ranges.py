"""Ranges against the plainest model there is: a set of integers."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from swarm.errors import Malformed
from swarm.model.ranges import ByteRange, RangeSet, parse_content_range, parse_have

TOP = 40
offsets = st.integers(0, TOP)


class RangeSetMachine(RuleBasedStateMachine):
    """Every operation does to the set what it does to its model."""

    def __init__(self) -> None:
        super().__init__()
        self.ranges = RangeSet()
        self.model: set[int] = set()

    @rule(start=offsets, stop=offsets)
    def add(self, start: int, stop: int) -> None:
        self.ranges.add(start, stop)
        self.model |= set(range(start, stop))

    @rule(start=offsets, stop=offsets)
    def remove(self, start: int, stop: int) -> None:
        self.ranges.remove(start, stop)
        self.model -= set(range(start, stop))

    @rule(start=offsets, stop=offsets)
    def ask(self, start: int, stop: int) -> None:
        wanted = set(range(start, stop))
        assert self.ranges.covers(start, stop) == (wanted <= self.model)
        assert (start in self.ranges) == (start in self.model)
        end = self.ranges.end_of_run(start)
        assert set(range(start, end)) <= self.model and end not in self.model
        gaps = list(self.ranges.gaps(start, stop))
        assert {n for gap in gaps for n in range(gap.start, gap.stop)} == wanted - self.model
        assert all(before.stop < after.start for before, after in pairwise(gaps))
        parts = list(self.ranges.overlap(start, stop))
        assert {n for part in parts for n in range(part.start, part.stop)} == wanted & self.model
        assert all(before.stop < after.start for before, after in pairwise(parts))

    @rule(other=st.sets(offsets))
    def meet(self, other: set[int]) -> None:
        both = self.ranges & RangeSet(ByteRange(n, n + 1) for n in other)
        assert both == RangeSet(ByteRange(n, n + 1) for n in other & self.model)

    @rule(start=offsets, stop=offsets)
    def copies_are_independent(self, start: int, stop: int) -> None:
        twin = self.ranges.copy()
        twin.add(start, stop)
        assert {n for each in self.ranges for n in range(each.start, each.stop)} == self.model

    @invariant()
    def is_what_its_model_is(self) -> None:
        parts = list(self.ranges)
        assert {n for each in parts for n in range(each.start, each.stop)} == self.model
        assert all(before.stop < after.start for before, after in pairwise(parts))
        assert self.ranges.total == len(self.model) and bool(self.ranges) == bool(self.model)
        assert RangeSet(parts) == self.ranges
        assert self.ranges.longest() == max(parts, key=lambda each: (len(each), each.start), default=None)
        if self.model:
            assert parse_have(self.ranges.have_header(), TOP + 1) == self.ranges


TestRangeSet = RangeSetMachine.TestCase


def test_sets_compare_by_content_and_cannot_be_hashed() -> None:
    one = RangeSet([ByteRange(3, 5), ByteRange(0, 3)])
    assert one == RangeSet([ByteRange(0, 5)]) and one != RangeSet() and one != [ByteRange(0, 5)]
    assert repr(one) == "RangeSet('bytes=0-4')"
    with pytest.raises(TypeError):
        hash(one)


def test_an_empty_interval_changes_nothing_and_is_always_in() -> None:
    ranges = RangeSet([ByteRange(3, 5)])
    ranges.add(9, 9)
    ranges.remove(4, 4)
    assert ranges == RangeSet([ByteRange(3, 5)])
    assert ranges.covers(7, 7) and list(ranges.overlap(4, 4)) == []


def test_a_hole_in_a_run_leaves_two() -> None:
    ranges = RangeSet([ByteRange(0, 9)])
    ranges.remove(3, 5)
    assert list(ranges) == [ByteRange(0, 3), ByteRange(5, 9)] and ranges.longest() == ByteRange(5, 9)
    assert list(ranges.gaps(0, 9)) == [ByteRange(3, 5)]
    assert ranges.end_of_run(1) == 3 and ranges.end_of_run(4) == 4
    twin = ranges.copy()
    twin.add(3, 5)
    assert twin == RangeSet([ByteRange(0, 9)]) != ranges


def test_a_content_range_says_what_came_of_how_much() -> None:
    assert parse_content_range("bytes 2-4/10") == (ByteRange(2, 5), 10)


def test_a_range_speaks_http() -> None:
    assert ByteRange(0, 5).header == "bytes=0-4" and len(ByteRange(2, 5)) == 3
    assert ByteRange(2, 5).content_range(10) == "bytes 2-4/10"


@given(st.integers(0, 2**62), st.integers(1, 2**40), st.integers(0, 2**40))
def test_a_content_range_is_read_back(start: int, length: int, more: int) -> None:
    span = ByteRange(start, start + length)
    assert parse_content_range(span.content_range(span.stop + more)) == (span, span.stop + more)


@pytest.mark.parametrize(
    "value",
    [
        "",
        "bytes */5",
        "bytes 0-4/*",
        "bytes 0-5/5",
        "bytes 3-2/5",
        "bytes 0-4/5 ",
        "bytes  0-4/5",
        "Bytes 0-4/5",
        "items 0-4/5",
        "bytes -1-4/5",
        "bytes 0-4/0x5",
        "bytes ٠-4/5",
        "bytes 0-1/9223372036854775808",
        "bytes 0-1/" + "9" * 20,
    ],
)
def test_anything_else_is_no_content_range(value: str) -> None:
    with pytest.raises(Malformed):
        parse_content_range(value)


def test_an_empty_have_is_an_empty_set() -> None:
    assert parse_have("bytes=", 0) == RangeSet()


def test_have_may_touch_overlap_and_come_in_any_order() -> None:
    assert parse_have("bytes=4-5, 0-3,2-4", 6) == RangeSet([ByteRange(0, 6)])


@pytest.mark.parametrize(
    "value",
    [
        "",
        "bytes",
        "0-4",
        "items=0-4",
        "bytes=0-",
        "bytes=-4",
        "bytes=4-3",
        "bytes=0-10",
        "bytes=0-1,",
        "bytes=a-b",
    ],
)
def test_anything_else_is_no_have(value: str) -> None:
    with pytest.raises(Malformed):
        parse_have(value, 10)


def test_a_have_has_a_limit() -> None:
    assert parse_have("bytes=0-0,2-2", 9, limit=2).total == 2
    with pytest.raises(Malformed):
        parse_have("bytes=0-0,2-2,4-4", 9, limit=2)


@given(st.text(max_size=40))
def test_any_text_is_read_or_malformed(text: str) -> None:
    for value in (text, "bytes=" + text, "bytes " + text):
        for parse in (parse_content_range, lambda value: parse_have(value, 100)):
            try:
                parse(value)
            except Malformed:
                continue


@given(st.lists(st.tuples(st.integers(0, 949), st.integers(1, 400)), max_size=8))
def test_a_cell_is_set_if_any_byte_of_it_is_in(parts: list[tuple[int, int]]) -> None:
    ranges = RangeSet(ByteRange(start, min(950, start + count)) for start, count in parts)
    bits = ranges.cells(100)
    cells = {cell for cell in range(10) if bits >> cell & 1}
    assert bits >> 10 == 0
    assert cells == {cell for cell in range(10) if any(ranges.overlap(cell * 100, cell * 100 + 100))}
    whole = all(ranges.covers(cell * 100, min(950, cell * 100 + 100)) for cell in cells)
    assert ranges.is_even(100, 950) == whole

"""What set a combination of range sets is, against plain sets of numbers."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from swarm.model.ranges import ByteRange, RangeSet

numbers = st.frozensets(st.integers(0, 40))


def ranges(offsets: frozenset[int]) -> RangeSet:
    return RangeSet(ByteRange(each, each + 1) for each in offsets)


def members(found: RangeSet | list[ByteRange]) -> set[int]:
    return {offset for run in found for offset in range(run.start, run.stop)}


@given(numbers, numbers)
def test_and_is_what_both_have(one: frozenset[int], other: frozenset[int]) -> None:
    both = ranges(one) & ranges(other)
    assert members(both) == one & other
    assert both == ranges(one & other), "in the shortest form"


@given(numbers, st.integers(0, 42), st.integers(0, 42))
def test_overlap_and_gaps_split_an_interval(offsets: frozenset[int], start: int, stop: int) -> None:
    inside = set(range(start, stop))
    within, without = list(ranges(offsets).overlap(start, stop)), list(ranges(offsets).gaps(start, stop))
    assert members(within) == inside & offsets
    assert members(without) == inside - offsets
    assert within == sorted(within) and without == sorted(without)
    assert all(one.stop < other.start for one, other in pairwise(within))


@given(numbers)
def test_the_longest_run_is_the_last_of_the_longest(offsets: frozenset[int]) -> None:
    found = ranges(offsets).longest()
    if not offsets:
        assert found is None
    else:
        assert found == max(ranges(offsets), key=lambda run: (len(run), run.start))

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.model.grains import MAX_GRAIN, MIN_GRAIN, Grains, grain_size
from swarm.model.ranges import ByteRange

MIB, GIB = 1 << 20, 1 << 30
sizes = st.one_of(st.integers(0, 2**50), st.integers(0, 5 * MIB))
small = st.builds(Grains, st.integers(0, 5000), st.sampled_from([128, 256, 512]))


@pytest.mark.parametrize(
    ("size", "grain"),
    [
        (0, MIB),
        (1, MIB),
        (2000 * MIB, MIB),
        (2000 * MIB + 1, 2 * MIB),
        (4000 * MIB, 2 * MIB),
        (4000 * MIB + 1, 4 * MIB),
        (32000 * MIB, 16 * MIB),
        (32000 * MIB + 1, 16 * MIB),
        (2**50, 16 * MIB),
    ],
)
def test_the_grain_of_a_size_never_changes(size: int, grain: int) -> None:
    """Nodes of all versions must cut alike."""
    assert grain_size(size) == Grains.of(size).grain == grain


@given(sizes)
def test_a_grain_is_a_power_of_two_within_bounds_and_no_larger_than_needed(size: int) -> None:
    grain = grain_size(size)
    assert MIN_GRAIN <= grain <= MAX_GRAIN and grain & (grain - 1) == 0 and grain % 128 == 0
    assert grain == MAX_GRAIN or Grains.of(size).count <= 2000
    assert grain == MIN_GRAIN or size > grain // 2 * 2000


@given(small)
def test_grains_tile_the_blob(grains: Grains) -> None:
    assert grains.count >= 1 and grains.last == grains.count - 1
    assert grains.start(0) == 0 and grains.stop(grains.last) == grains.size
    for index in range(grains.count):
        assert grains.length(index) == grains.stop(index) - grains.start(index)
        assert grains.length(index) == grains.grain or index == grains.last
        assert grains.length(index) > 0 or grains.size == 0
        if index:
            assert grains.start(index) == grains.stop(index - 1)


@given(small, st.data())
def test_every_byte_lies_in_the_grain_it_is_said_to(grains: Grains, data: st.DataObject) -> None:
    offset = data.draw(st.integers(0, max(0, grains.size - 1)))
    index = grains.at(offset)
    assert grains.start(index) <= offset and (offset < grains.stop(index) or grains.size == 0)


def test_the_end_of_the_blob_counts_to_the_last_grain() -> None:
    assert Grains(256, 128).at(256) == 1 and Grains(0, 128).at(0) == 0


def test_a_grain_cut_by_a_span_is_covered_but_not_within() -> None:
    grains = Grains(500, 128)
    assert grains.covering(ByteRange(1, 257)) == range(3)
    assert grains.within(ByteRange(1, 257)) == range(1, 2)
    assert grains.within(ByteRange(1, 500)) == range(1, 4), "the last one is short"
    assert not grains.within(ByteRange(1, 127))


@given(small, st.data())
def test_covering_and_within_are_what_they_say(grains: Grains, data: st.DataObject) -> None:
    if grains.size == 0:
        return
    start = data.draw(st.integers(0, grains.size - 1))
    span = ByteRange(start, data.draw(st.integers(start + 1, grains.size)))
    indices = range(grains.count)
    assert list(grains.covering(span)) == [
        n for n in indices if grains.start(n) < span.stop and span.start < grains.stop(n)
    ]
    assert list(grains.within(span)) == [
        n for n in indices if span.start <= grains.start(n) and grains.stop(n) <= span.stop
    ]

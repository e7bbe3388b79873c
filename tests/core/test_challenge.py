"""What is asked to see whether a peer has what it says."""

from __future__ import annotations

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from swarm.core.challenge import PIECE, PIECES, probes


@given(st.integers(0, 1 << 40), st.integers())
def test_little_is_asked_and_all_of_it_is_there(size: int, seed: int) -> None:
    asked = probes(size, Random(seed))
    assert sum(map(len, asked)) <= 256 << 10
    assert all(each.stop <= size for each in asked)
    assert bool(asked) == bool(size)


def test_small_blobs_are_asked_for_whole() -> None:
    for size in (1, PIECES * PIECE):
        [whole] = probes(size, Random(1))
        assert (whole.start, whole.stop) == (0, size)


def test_every_byte_may_be_asked_for() -> None:
    size, random = 2 * PIECES * PIECE, Random(1)
    asked = [each for _ in range(3000) for each in probes(size, random)]
    assert min(each.start for each in asked) < 100 and max(each.stop for each in asked) > size - 100
    assert len(set(asked)) > 20_000


def test_who_lacks_a_tenth_is_caught_more_often_than_not() -> None:
    size, random = 1 << 30, Random(1)
    caught = sum(any(each.start < size // 10 for each in probes(size, random)) for _ in range(1000))
    assert 500 < caught < 650

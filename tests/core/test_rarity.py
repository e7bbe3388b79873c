from __future__ import annotations

from collections import Counter
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from swarm.core.rarity import Rarity, one_of

SETS = st.lists(st.integers(0, 2**40 - 1), max_size=12)


def members(bits: int) -> list[int]:
    return [grain for grain in range(bits.bit_length()) if bits >> grain & 1]


@given(SETS, SETS, st.integers(0, 2**40 - 1), st.randoms(use_true_random=False))
def test_counts_and_the_rarest_are_those_of_a_plain_count(
    stay: list[int], leave: list[int], among: int, random: Random
) -> None:
    rarity, sources = Rarity(), [*stay, *leave]
    random.shuffle(sources)
    for each in sources:
        rarity.add(each)
    for each in leave:
        rarity.remove(each)
    counts = Counter(grain for each in stay for grain in members(each))
    assert all(rarity.count(grain) == counts[grain] for grain in range(40))
    fewest = min((counts[grain] for grain in members(among)), default=0)
    assert members(rarity.rarest(among)) == [each for each in members(among) if counts[each] == fewest]


@given(st.integers(1, 2**70 - 1), st.integers())
def test_one_of_a_set_is_in_it(bits: int, seed: int) -> None:
    assert bits >> one_of(bits, Random(seed)) & 1


def test_each_of_a_set_is_as_likely_as_the_others() -> None:
    random, bits = Random(1), 1 << 3 | 1 << 4 | 1 << 900
    drawn = Counter(one_of(bits, random) for _ in range(3000))
    assert set(drawn) == {3, 4, 900}
    assert all(800 < each < 1200 for each in drawn.values())

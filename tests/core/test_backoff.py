from __future__ import annotations

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from swarm.core.backoff import Backoff


@given(failures=st.integers(1, 5000), seed=st.integers())
def test_a_delay_lies_between_the_floor_and_the_capped_exponential(failures: int, seed: int) -> None:
    backoff = Backoff(base=2.0, cap=60.0, floor=0.5)
    most = min(60, 2**failures)
    assert 0.5 <= backoff.delay(failures, random=Random(seed)) <= most


def test_delays_are_spread_over_the_whole_interval() -> None:
    random = Random(7)
    delays = [Backoff(base=1, cap=8, floor=0).delay(4, random=random) for _ in range(400)]
    assert min(delays) < 0.5 and max(delays) > 7.5
    assert 3.5 < sum(delays) / len(delays) < 4.5


def test_the_same_seed_gives_the_same_delays() -> None:
    assert Backoff().delay(9, random=Random(1)) == Backoff().delay(9, random=Random(1))

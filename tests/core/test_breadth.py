from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from swarm.core.breadth import Breadth

MB = 1e6


def test_slow_sources_are_joined_by_more_until_that_does_not_pay() -> None:
    breadth = Breadth(10, 100)
    assert breadth.look(10 * MB, 10) == 20
    assert breadth.look(20 * MB, 20) == 40, "it paid"
    assert breadth.look(21 * MB, 40) == 40, "it did not"
    assert breadth.look(22 * MB, 40) == 80, "now it does"


def test_fast_sources_room_to_spare_and_a_pull_that_has_not_begun_need_no_more() -> None:
    breadth = Breadth(10, 100)
    assert breadth.look(200 * MB, 10) == 10, "fast ones"
    assert breadth.look(10 * MB, 9) == 10, "there is room, but nobody to take it"
    assert breadth.look(0.0, 10) == 10, "nothing is known yet"


@given(
    st.integers(1, 50),
    st.integers(1, 100),
    st.lists(st.tuples(st.floats(0, 1e9), st.integers(0, 100))),
)
def test_it_never_shrinks_and_stays_below_the_most(
    least: int, most: int, looks: list[tuple[float, int]]
) -> None:
    breadth, before = Breadth(least, most), least
    for rate, taking in looks:
        allowed = breadth.look(rate, taking)
        assert before <= allowed <= max(least, min(most, 2 * before))
        before = allowed


def test_in_a_crowd_more_are_known_but_never_more_than_the_most() -> None:
    breadth = Breadth(10, 30)
    breadth.meet(20)
    assert breadth.allowed == 20
    breadth.meet(15)
    assert breadth.allowed == 20
    breadth.meet(100)
    assert breadth.allowed == 30

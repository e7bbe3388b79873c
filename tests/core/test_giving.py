from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from swarm.core.giving import Giving
from swarm.model.ranges import ByteRange, RangeSet
from tests.core.pulling import peer_id

A, B = peer_id(1), peer_id(2)


def test_what_was_given_or_promised_is_told_and_who_asks_for_it_is_asked_once_to_look_again() -> None:
    giving = Giving(300)
    first, second = ByteRange(0, 100), ByteRange(100, 200)
    assert not giving.deflects(A, first)
    giving.promise(A, first)
    assert giving.told == RangeSet([first])
    assert giving.deflects(B, first) and not giving.deflects(B, first)
    giving.settle(first, given=True)
    giving.promise(A, second)
    assert giving.told == RangeSet([ByteRange(0, 200)])
    assert not giving.deflects(A, first), "it asks again for what it was given itself"
    giving.settle(second, given=False)
    assert giving.told == RangeSet([first])
    assert not giving.deflects(B, second)


def test_when_all_is_given_nobody_is_asked_to_look_again() -> None:
    giving = Giving(200)
    for each in (ByteRange(0, 100), ByteRange(100, 200)):
        giving.promise(B, each)
        giving.settle(each, given=True)
    assert not giving.deflects(A, ByteRange(0, 100))
    giving.promise(A, ByteRange(0, 100))
    assert not giving._asked, "who asked for what is of no use any more"


@given(st.lists(st.tuples(st.integers(0, 9), st.booleans(), st.integers(1, 3)), max_size=40))
def test_told_is_what_is_given_and_what_is_promised(steps: list[tuple[int, bool, int]]) -> None:
    giving, promised, gave = Giving(1000), list[ByteRange](), RangeSet()
    for place, give, length in steps:
        wanted = ByteRange(place * 100, min(1000, (place + length) * 100))
        if promised and give:
            settled = promised.pop(place % len(promised))
            giving.settle(settled, given=length == 1)
            if length == 1:
                gave.add(settled.start, settled.stop)
        else:
            promised.append(wanted)
            giving.promise(A, wanted)
        told = gave.copy()
        for each in promised:
            told.add(each.start, each.stop)
        assert giving.told == told

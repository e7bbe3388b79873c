from __future__ import annotations

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from swarm.core.sources import Sources, SourceSettings
from swarm.model.digest import Digest
from swarm.model.holdings import Holding
from swarm.model.peers import Address, Peer, PeerID
from swarm.model.ranges import RangeSet

BLOB = Digest(bytes(64))
OTHER = Digest(bytes(63) + b"\1")


def peer(number: int) -> Peer:
    return Peer(PeerID(number.to_bytes(32, "big")), f"node{number}", Address("127.0.0.1", 7000 + number))


def holding(number: int, size: int = 100, *, partial: bool = False) -> Holding:
    return Holding(peer(number), size, RangeSet() if partial else None)


def sources(**settings: float) -> Sources:
    return Sources(SourceSettings(**settings), Random(1))  # type: ignore[arg-type]  # counts are ints


def test_a_stranger_is_neither_reliable_nor_not() -> None:
    assert sources().reliability(peer(1).id, 0.0) == 0.5


@given(st.lists(st.booleans(), max_size=50), st.floats(0, 1e6))
def test_reliability_is_a_fraction_and_fades_to_a_half(story: list[bool], later: float) -> None:
    table, who = sources(), peer(1).id
    for good in story:
        (table.worked if good else table.broke)(who, 0.0)
    now = table.reliability(who, 0.0)
    assert abs(now - (sum(story) + 1) / (len(story) + 2)) < 1e-9
    assert 0 < now < 1
    assert abs(table.reliability(who, later) - 0.5) <= abs(now - 0.5) + 1e-9


def test_what_happened_a_half_life_ago_counts_half() -> None:
    table, who = sources(half_life=100.0), peer(1).id
    table.worked(who, 0.0)
    table.worked(who, 100.0)
    assert abs(table.reliability(who, 100.0) - 2.5 / 3.5) < 1e-9


def test_a_404_is_remembered_for_that_blob_for_a_while() -> None:
    table, who = sources(negative=30.0), peer(1).id
    assert table.may_have(who, BLOB, 0.0)
    table.lacks(who, BLOB, 0.0)
    assert not table.may_have(who, BLOB, 29.0)
    assert table.may_have(who, OTHER, 29.0)
    assert table.may_have(who, BLOB, 30.0)


def test_a_peer_that_got_the_blob_is_asked_again_at_once() -> None:
    table, who = sources(), peer(1).id
    table.lacks(who, BLOB, 0.0)
    table.gained(who, BLOB)
    assert table.may_have(who, BLOB, 1.0)


def test_memory_is_bounded() -> None:
    table = sources(most_remembered=3)
    for number in range(6):
        table.lacks(peer(number).id, BLOB, 0.0)
        table.broke(peer(number).id, 0.0)
    assert [table.may_have(peer(number).id, BLOB, 1.0) for number in range(6)] == [True] * 3 + [False] * 3
    assert [table.reliability(peer(number).id, 0.0) == 0.5 for number in range(6)] == [True] * 3 + [False] * 3


def test_expired_404s_are_swept() -> None:
    table = sources(negative=1.0)
    table.lacks(peer(1).id, BLOB, 0.0)
    table.lacks(peer(2).id, BLOB, 5.0)
    assert table.may_have(peer(1).id, BLOB, 0.5), "forgotten"


def test_the_size_most_peers_claim_is_tried_first_and_no_claim_is_dropped() -> None:
    claims = [holding(1, 7), holding(2, 100), holding(3, 100), holding(4, 9, partial=True)]
    attempts = sources().attempts(claims, 0.0)
    assert [attempt.size for attempt in attempts] == [100, 7, 9]
    assert sum(len(attempt.active) for attempt in attempts) == 4


def test_of_equal_groups_the_reliable_one_is_tried_first() -> None:
    table = sources()
    table.broke(peer(1).id, 0.0)
    assert [each.size for each in table.attempts([holding(1, 7), holding(2, 8)], 0.0)] == [8, 7]


def test_complete_and_reliable_holders_come_first_and_only_ten_are_active() -> None:
    table = sources()
    for _ in range(20):
        table.worked(peer(5).id, 0.0)
        table.broke(peer(6).id, 0.0)
    (attempt,) = table.attempts([holding(n, partial=n > 11) for n in range(15)], 0.0)
    assert len(attempt.active) == 10
    assert attempt.active[0] == holding(5)
    assert holding(6) in attempt.spare
    assert {each.peer.id for each in attempt.spare if not each.complete} == {peer(n).id for n in (12, 13, 14)}


def test_no_claims_no_attempts() -> None:
    assert sources().attempts([], 0.0) == ()


def test_the_way_to_a_peer_is_the_shortest_time_of_late_and_the_longest_silent_is_forgotten() -> None:
    sources = Sources(SourceSettings(most_remembered=2), Random(1))
    one, two, three = (PeerID(number.to_bytes(32, "big")) for number in range(3))
    for seconds in (0.5, 0.02, 0.3):
        sources.heard(one, seconds)
    assert 0.02 <= sources.trips([one, two])[one] < 0.03
    for _ in range(100):
        sources.heard(one, 0.3)
    assert sources.trips([one]) == {one: 0.3}, "another route by now"
    sources.heard(two, 0.1)
    sources.heard(three, 0.1)
    assert sources.trips([one, two, three]) == {two: 0.1, three: 0.1}


def test_of_those_that_have_a_part_the_near_come_before_the_far_whatever_their_record() -> None:
    table = sources(most_active=2)
    for number, seconds in ((1, 0.040), (2, 0.001), (3, 0.002), (4, 0.050)):
        table.heard(peer(number).id, seconds)
    table.worked(peer(1).id, 0.0)
    group = [holding(4), *(holding(number, partial=True) for number in (1, 2, 3))]
    (attempt,) = table.attempts(group, 0.0)
    first, *others = (each.peer.id for each in attempt.active + attempt.spare)
    assert first == peer(4).id, "it has all"
    assert set(others[:2]) == {peer(2).id, peer(3).id}

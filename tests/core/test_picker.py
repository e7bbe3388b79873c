from __future__ import annotations

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from swarm.core.picker import Picker
from swarm.core.shares import Share
from swarm.model.grains import Grains
from swarm.model.peers import PeerID
from swarm.model.ranges import ByteRange, RangeSet

G = 100  # bytes a grain


def picker(grains: int = 20, seed: int = 1, short: int = 0) -> Picker:
    return Picker(Grains(grains * G - short, G), Random(seed))


def peer(number: int) -> PeerID:
    return PeerID(number.to_bytes(32, "big"))


def have(*grains: int) -> RangeSet:
    return RangeSet(ByteRange(g * G, (g + 1) * G) for g in grains)


def take(p: Picker, chosen: ByteRange | None) -> ByteRange:
    assert chosen is not None
    p.take(chosen.start, chosen.stop)
    return chosen


def leave(p: Picker, *runs: ByteRange) -> None:
    """Only these are free."""
    p.take(0, 1 << 40)
    for run in runs:
        p.give(run.start, run.stop)


def test_two_pullers_begin_at_different_grains() -> None:
    starts = {picker(seed=seed).spread(peer(1), G) for seed in range(20)}
    assert len(starts) > 5
    assert all(each is not None and len(each) == G for each in starts)


def test_then_the_largest_gap_is_filled_from_its_end() -> None:
    p = picker()
    p.source(peer(1), None)
    p.spread(peer(1), G)
    leave(p, ByteRange(0, 500), ByteRange(600, 1500), ByteRange(1600, 1700))
    assert take(p, p.spread(peer(1), 2 * G)) == ByteRange(1300, 1500)
    assert take(p, p.spread(peer(1), 250)) == ByteRange(1100, 1300)


def test_a_span_begins_at_a_grain_edge_and_leaves_no_crumb() -> None:
    p = picker()
    p.spread(peer(1), G)
    leave(p, ByteRange(130, 300))
    assert p.spread(peer(1), G) == ByteRange(130, 300)
    leave(p, ByteRange(120, 500))
    assert p.spread(peer(1), G) == ByteRange(400, 500)
    leave(p, ByteRange(120, 180))
    assert p.spread(peer(1), G) == ByteRange(120, 180)


def test_what_a_source_does_not_have_is_not_picked() -> None:
    p = picker()
    p.source(peer(1), RangeSet())
    p.source(peer(2), have(3))
    assert p.spread(peer(1), G) is None and not p.has(peer(1))
    assert p.has(peer(2))
    leave(p, ByteRange(310, 320))
    assert p.has(peer(2)) and p.spread(peer(2), G) == ByteRange(310, 320)
    p.source(peer(2), RangeSet([ByteRange(330, 400)]))
    assert not p.has(peer(2)), "it has another part of the grain"
    assert p.urgent(RangeSet(), G) is None


def test_readers_get_their_earliest_bytes_first_to_a_grains_edge() -> None:
    p = picker()
    p.want("reader", ByteRange(330, 700))
    assert take(p, p.urgent(None, 0)) == ByteRange(300, 400)
    assert take(p, p.urgent(None, 2 * G)) == ByteRange(400, 600)
    assert take(p, p.urgent(have(6, 9), 9 * G)) == ByteRange(600, 700)
    assert p.urgent(None, G) is None
    p.want("reader", ByteRange(0, 1))
    assert p.urgent(None, G) == ByteRange(0, 100)
    p.unwant("reader")
    p.unwant("reader")
    assert p.urgent(None, G) is None


def test_a_reader_takes_what_a_partial_source_has_of_its_window() -> None:
    p = picker()
    p.want("reader", ByteRange(0, 1000))
    assert p.urgent(have(5), G) == ByteRange(500, 600)


def test_what_trust_prefers_comes_before_readers_until_it_is_settled() -> None:
    p = picker()
    p.want("reader", ByteRange(0, 300))
    p.prefer(18)
    assert p.urgent(None, G) == ByteRange(1800, 1900)
    assert p.urgent(have(0), G) == ByteRange(0, 100)
    assert p.is_urgent(ByteRange(1850, 1860)) and p.is_urgent(ByteRange(0, 1))
    p.settle(18)
    assert p.urgent(None, G) == ByteRange(0, 100)
    assert not p.is_urgent(ByteRange(1850, 1860))


def test_the_last_grain_comes_after_what_readers_stand_at_and_before_what_they_come_to() -> None:
    p = picker()
    p.prefer(19)
    assert p.urgent(None, 9 * G) == ByteRange(1900, 2000), "nobody waits for anything else"
    p.want("reader", ByteRange(0, 300))
    p.want("another", ByteRange(950, 1300))
    order = []
    while (chosen := p.urgent(None, 9 * G)) is not None:
        order.append(take(p, chosen))
    assert order == [
        ByteRange(0, 100),
        ByteRange(900, 1000),
        ByteRange(1900, 2000),
        ByteRange(100, 300),
        ByteRange(1000, 1300),
    ]


def test_among_partial_sources_the_last_grain_comes_in_its_turn_unless_it_is_contested() -> None:
    p = picker()
    p.prefer(19)
    p.source(peer(1), have(2))
    assert p.urgent(None, G) is None
    p.contested = True
    assert p.urgent(None, G) == ByteRange(1900, 2000)
    p.contested = False
    p.drop(peer(1))
    assert p.urgent(None, G) == ByteRange(1900, 2000)


def test_among_partial_sources_the_rarest_bytes_go_first_after_four_random_grains() -> None:
    p = picker(10)
    p.source(peer(1), None)
    p.source(peer(2), have(0, 1, 2, 3, 4, 5, 6, 7))
    p.source(peer(3), have(0, 1, 2, 3, 4, 5, 6, 7))
    for _ in range(4):
        chosen = p.spread(peer(1), 5 * G)
        assert chosen is not None and len(chosen) == G, "random ones are single grains"
    rarest = p.spread(peer(1), 9 * G)
    assert rarest in (ByteRange(800, 1000), ByteRange(900, 1000)), (
        "from a random grain on, to the end of the run"
    )
    p.take(800, 1000)
    common = p.spread(peer(2), 9 * G)
    assert common is not None and common.stop == 800


def test_pullers_that_know_the_same_ask_for_different_grains_of_the_rarest() -> None:
    asked = set()
    for seed in range(20):
        p = Picker(Grains(100 * G, G), Random(seed))
        p.source(peer(1), None)
        p.source(peer(2), have(*range(50)))
        for _ in range(5):
            chosen = p.spread(peer(1), G)
        assert chosen is not None and chosen.start >= 50 * G, "what nobody else offers"
        asked.add(chosen)
    assert len(asked) > 15


def test_rarity_follows_sources_that_gain_and_leave() -> None:
    p = picker(4)
    p.source(peer(1), have(0, 1))
    for _ in range(4):
        p.spread(peer(9), G)
    assert p.spread(peer(9), 4 * G) in (ByteRange(200, 400), ByteRange(300, 400))
    p.source(peer(1), have(2, 3))
    assert p.spread(peer(9), 4 * G) in (ByteRange(0, 200), ByteRange(100, 200))
    p.drop(peer(1))
    p.drop(peer(1))
    assert p.spread(peer(9), 4 * G) == ByteRange(0, 400)
    p.source(peer(2), have(2))
    p.source(peer(2), None)
    assert p.spread(peer(9), 4 * G) == ByteRange(0, 400)


@given(
    st.integers(1, 30),
    st.integers(0, G - 1),
    st.lists(st.tuples(st.integers(0, 2999), st.integers(1, 700)), max_size=6),
    st.lists(st.tuples(st.integers(0, 2999), st.integers(1, 900)), max_size=4),
    st.integers(0, 900),
    st.integers(0, 1000),
)
def test_whatever_is_picked_is_free_offered_and_not_too_much(
    grains: int,
    short: int,
    taken: list[tuple[int, int]],
    offers: list[tuple[int, int]],
    length: int,
    seed: int,
) -> None:
    p = picker(grains, seed, short)
    size = grains * G - short
    for start, count in taken:
        p.take(start, start + count)
    offered = RangeSet() if offers else None
    for start, count in offers:
        assert offered is not None
        offered.add(start, min(size, start + count))
    p.source(peer(1), offered)
    for _ in range(200):
        possible = p.free if offered is None else p.free & offered
        chosen = p.spread(peer(1), length)
        assert (chosen is None) == (not possible) == (not p.has(peer(1)))
        if chosen is None:
            break
        assert possible.covers(chosen.start, chosen.stop)
        assert len(chosen) < max(length, G) + 2 * G
        take(p, chosen)
    assert chosen is None


def crowded(grains: int = 20, seed: int = 1) -> Picker:
    """One complete source (1), one with nothing yet (2), and the first random grains are over."""
    p = picker(grains, seed)
    p.source(peer(1), None)
    p.source(peer(2), have())
    for _ in range(4):
        p.spread(peer(1), G)
    return p


def test_who_has_all_is_asked_first_for_what_it_gave_to_nobody_and_of_that_for_ones_own_share() -> None:
    p = crowded(6)
    p.share(Share(0b001011, 0, frozenset()))
    p.gave(peer(1), have(0, 4))
    assert take(p, p.spread(peer(1), G)) in (ByteRange(100, 200), ByteRange(300, 400))
    assert take(p, p.spread(peer(1), G)) in (ByteRange(100, 200), ByteRange(300, 400))
    assert {take(p, p.spread(peer(1), G)).start for _ in range(2)} == {200, 500}, "then the share of others"
    assert {take(p, p.spread(peer(1), G)).start for _ in range(2)} == {0, 400}, "then what others were given"
    assert p.spread(peer(1), G) is None


def test_what_a_source_gave_away_is_rarer_no_more_until_the_source_leaves() -> None:
    p = crowded(4)
    p.gave(peer(1), have(0, 1, 2))
    p.source(peer(2), have(0, 1, 2, 3))
    p.source(peer(2), have(0, 1, 2, 3))
    assert p.spread(peer(2), G) == ByteRange(300, 400)
    p.gave(peer(1), have(1, 2, 3))
    assert p.spread(peer(2), G) == ByteRange(0, 100)
    p.drop(peer(1))
    assert len({p.spread(peer(2), G) for _ in range(60)}) == 4


def test_from_far_away_comes_what_nobody_near_has_and_is_ours_to_bring_unless_little_is_under_way() -> None:
    p = crowded(8)
    near, far, there = peer(2), peer(3), frozenset([peer(1), peer(3)])
    p.source(near, have(0, 1, 2))
    p.share(Share(0, 0b00011110, there))
    p.source(far, have(*range(8)))
    assert {p.spread(far, G, eager=False) for _ in range(60)} == {ByteRange(300, 400), ByteRange(400, 500)}
    assert {p.spread(peer(1), G, eager=False) for _ in range(60)} == {
        ByteRange(300, 400),
        ByteRange(400, 500),
    }
    p.source(near, have(0, 1, 2, 3, 4))
    assert p.spread(far, G, eager=False) is None
    assert p.spread(far, G) is not None
    assert p.spread(near, G, eager=False) is not None, "whoever is near is asked for anything"
    p.share(Share(0, 0b00011110, frozenset()))
    assert p.spread(far, G, eager=False) is not None, "nobody is far away"

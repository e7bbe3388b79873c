"""Whole pulls in virtual time. Every run checks the invariants of :class:`pulling.Pull` at every step."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from swarm.core.dispatch import Abort, DispatchSettings, Shorten
from swarm.errors import Fault
from tests.core.pulling import KIB, ByteRange, Pull, RangeSet, Source, grains_of, peer_id

GRAIN = 64 * KIB
RATE = 640.0 * KIB  # ten grains a second


def proven(pull: Pull) -> None:
    assert pull.dispatch.complete and pull.dispatch.remaining == 0
    assert set(pull.verified) == set(range(pull.grains.count))
    assert set(pull.verified.values()) == {1}


def grain_set(grains: set[int] | frozenset[int], last: int, size: int) -> RangeSet:
    return RangeSet(ByteRange(g * GRAIN, size if g == last else (g + 1) * GRAIN) for g in grains)


@st.composite
def swarms(draw: st.DrawFn) -> tuple[Pull, list[str]]:
    """A pull with at least one complete source that lives, does not lie, and answers in the end."""
    count = draw(st.integers(1, 24))
    grains = grains_of(count, GRAIN, draw(st.integers(0, GRAIN - 1)))
    story: list[str] = []
    sources = {}
    for number in range(1, draw(st.integers(1, 5)) + 1):
        kind = draw(
            st.sampled_from(["honest", "honest", "partial", "liar", "stalls", "dies", "busy", "loris"])
        )
        kind = "honest" if number == 1 else kind
        rate = RATE * draw(st.sampled_from([0.1, 0.5, 1.0, 1.0, 3.0]))
        source = Source(rate, lag=draw(st.sampled_from([0.001, 0.03, 0.4])))
        some = draw(st.frozensets(st.integers(0, count - 1)))
        since = draw(st.floats(0, 3))
        if kind == "partial":
            source.have = grain_set(some, grains.last, grains.size)
        elif kind == "liar":
            source.lies = some
        elif kind == "stalls":
            source.stalls = lambda now, since=since: since < now < since + 40  # type: ignore[misc]
        elif kind == "dies":
            source.fails = lambda now, since=since: Fault.UNREACHABLE if now > since else None  # type: ignore[misc]
        elif kind == "busy":
            source.fails = lambda now, since=since: Fault.BUSY if now < since else None  # type: ignore[misc]
        elif kind == "loris":
            source.rate, source.chunk = 50.0, 10
        story.append(f"{number}: {kind} {rate:.0f} {source.lag}")
        sources[number] = source
    pull = Pull(grains, sources, seed=draw(st.integers(0, 99)), exile=draw(st.booleans()))
    for number in range(2, len(sources) + 1):
        if draw(st.booleans()):
            pull.at(draw(st.floats(0, 4)), lambda number=number: pull.leave(number))  # type: ignore[misc]
    if draw(st.booleans()):
        late = Source(RATE)
        pull.at(draw(st.floats(0, 4)), lambda: pull.join(9, late))
    if draw(st.booleans()):
        start = draw(st.integers(0, grains.size - 1))
        window = ByteRange(start, min(grains.size, start + 3 * GRAIN))
        pull.at(draw(st.floats(0, 2)), lambda: pull.dispatch.want("reader", window, pull.now))
        pull.at(draw(st.floats(2, 4)), lambda: pull.dispatch.unwant("reader"))
    return pull, story


@settings(suppress_health_check=list(HealthCheck))
@given(swarms())
def test_every_grain_is_verified_exactly_once_if_one_honest_source_lives(
    case: tuple[Pull, list[str]],
) -> None:
    pull, story = case
    pull.run(limit=600)
    assert pull.dispatch.complete, (story, pull.now, pull.dispatch.sources(pull.now))
    proven(pull)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("count", [64, 200])
@pytest.mark.parametrize("rates", [(100, 100, 1), (100, 100, 100), (100, 50, 25, 10, 1), (100,), (3, 100)])
def test_the_tail_is_short(rates: tuple[int, ...], count: int, seed: int) -> None:
    """Within 15 % of what the rates allow together, however slow the slowest."""
    sources = {n: Source(rate * GRAIN, lag=0.0001) for n, rate in enumerate(rates)}
    pull = Pull(grains_of(count, GRAIN), sources, seed=seed)
    assert pull.run() <= 1.15 * count / sum(rates)
    proven(pull)


def test_the_last_grain_is_asked_first() -> None:
    pull = Pull(grains_of(20, GRAIN, 5), {1: Source(RATE)})
    pull.run()
    assert pull.order[0] == 19


def test_a_reader_is_served_in_order_before_anything_else() -> None:
    pull = Pull(grains_of(60, GRAIN), {1: Source(RATE), 2: Source(RATE), 3: Source(RATE / 50)})
    pull.dispatch.want("reader", ByteRange(10 * GRAIN, 20 * GRAIN), 0.0)
    pull.run()
    proven(pull)
    assert set(pull.order[:12]) >= set(range(10, 19))


def test_a_seek_into_bytes_far_off_cuts_spans_short() -> None:
    pull = Pull(grains_of(400, GRAIN), {1: Source(RATE), 2: Source(RATE)})
    done: dict[int, float] = {}
    window = ByteRange(200 * GRAIN, 202 * GRAIN)
    pull.at(5.0, lambda: pull.dispatch.want("reader", window, 5.0))
    pull.at(7.0, lambda: done.update(dict.fromkeys(pull.order, 7.0)))
    pull.run()
    proven(pull)
    assert {200, 201} <= set(done)


def test_a_silent_source_is_aborted_snubbed_and_welcome_again() -> None:
    """Alone, it is asked again with more patience each time, so even a very slow start gets through."""
    pull = Pull(grains_of(8, GRAIN), {1: Source(RATE, stalls=lambda now: 0.2 < now < 30)})
    pull.run()
    proven(pull)
    aborts = [each for each in pull.actions if isinstance(each, Abort)]
    assert aborts and {each.reason for each in aborts} == {"silence"}
    assert pull.dispatch.tally.aborts == len(aborts)
    assert pull.now < 75
    assert pull.dispatch.sources(pull.now)[0].state == "idle"


def test_a_crawling_source_does_not_hold_up_the_end() -> None:
    pull = Pull(grains_of(32, GRAIN), {1: Source(RATE), 2: Source(20.0, chunk=1)})
    assert pull.run() < 4.5
    proven(pull)


def test_two_crawling_sources_do_not_hold_up_the_end_either() -> None:
    """Both may be after the same grain; a third takes over from both."""
    sources = {1: Source(20.0, chunk=1), 2: Source(20.0, chunk=1)}
    pull = Pull(grains_of(3, GRAIN), sources)
    pull.at(20.0, lambda: pull.join(3, Source(RATE)))
    pull.run()
    proven(pull)
    assert pull.now < 35


@pytest.mark.parametrize("seed", range(48))
def test_a_liar_and_a_crawling_source_together_do_not_hold_up_an_honest_one(seed: int) -> None:
    """What the liar spoilt together with the honest one would else be left to the one that crawls."""
    chance = Random(seed)
    grains = grains_of(chance.randrange(1, 9), GRAIN)
    honest = Source(RATE * chance.choice([0.1, 0.5, 1.0, 3.0]))
    liar = Source(RATE * chance.choice([0.1, 0.5, 1.0]), lies=frozenset(range(grains.count)))
    crawling = Source(50.0, chunk=10)
    pull = Pull(grains, {1: honest, 2: liar, 3: crawling}, seed=seed, exile=seed % 2 == 0)
    assert pull.run() < 30
    proven(pull)


@pytest.mark.parametrize("seed", range(6))
def test_a_source_that_crawls_and_one_never_asked_bring_a_single_grain(seed: int) -> None:
    pull = Pull(grains_of(1, GRAIN), {1: Source(100.0, chunk=1), 2: Source(RATE)}, seed=seed)
    assert pull.run() < 3
    proven(pull)


def test_a_liar_is_told_from_the_honest_and_its_grains_come_from_others() -> None:
    sources = {1: Source(RATE), 2: Source(RATE, lies=frozenset(range(32))), 3: Source(RATE)}
    pull = Pull(grains_of(32, GRAIN), sources, exile=False)
    pull.run()
    proven(pull)
    assert pull.rejected
    for grain, senders in pull.rejected.items():
        again = [s.peer for s in pull.asked if ByteRange(grain * GRAIN, grain * GRAIN + 1) == s.range]
        assert len(senders) == 1 and peer_id(2) not in again


def test_a_rejected_grain_never_goes_back_to_its_sender_while_another_has_it() -> None:
    pull = Pull(grains_of(16, GRAIN), {1: Source(RATE), 2: Source(RATE, lies=frozenset({3, 9}))}, exile=False)
    seen: dict[int, int] = {}
    judge = pull.judge

    def judged(grain: int) -> None:
        judge(grain)
        if grain in pull.rejected:
            seen.setdefault(grain, len(pull.asked))

    pull.judge = judged  # type: ignore[method-assign]  # a look over its shoulder
    pull.run()
    proven(pull)
    for grain, mark in seen.items():
        for span in pull.asked[mark:]:
            if grain in pull.grains.covering(span.range):
                assert span.peer == peer_id(1)


def test_a_sole_liar_starves_the_pull_instead_of_looping() -> None:
    pull = Pull(grains_of(2, GRAIN), {1: Source(RATE, lies=frozenset({0}))}, exile=False)
    pull.run()
    assert pull.dispatch.starved and not pull.dispatch.complete
    assert pull.dispatch.tally.wasted == 4 * GRAIN


def test_a_pull_starves_when_nobody_has_the_rest_and_goes_on_when_somebody_comes() -> None:
    grains = grains_of(10, GRAIN)
    pull = Pull(grains, {1: Source(RATE, have=grain_set({0, 1, 9}, 9, grains.size))})
    pull.run()
    assert pull.dispatch.starved
    assert set(pull.verified) == {0, 1, 9}
    pull.join(2, Source(RATE))
    pull.run()
    proven(pull)


def test_a_partial_source_that_gains_grains_is_asked_for_them() -> None:
    grains = grains_of(12, GRAIN)
    source = Source(RATE, have=RangeSet())
    pull = Pull(grains, {1: source})

    def gain(upto: int) -> None:
        assert source.have is not None
        source.have = RangeSet([ByteRange(0, upto * GRAIN)])
        pull.dispatch.update_source(source.id, source.have)

    assert pull.dispatch.starved
    for second in range(1, 7):
        gain(2 * second)
        pull.run()
    proven(pull)


def test_pullers_of_one_blob_that_share_have_something_for_each_other() -> None:
    orders = []
    for seed in range(2):
        pull = Pull(grains_of(100, GRAIN), {1: Source(RATE), 2: Source(RATE)}, seed=seed)
        pull.run()
        orders.append(set(pull.order[:40]))
    assert len(orders[0] - orders[1]) >= 5


def test_the_cap_on_bytes_in_flight_holds() -> None:
    limits = DispatchSettings(in_flight=6 * GRAIN)
    pull = Pull(grains_of(200, GRAIN), {n: Source(RATE * 5) for n in range(4)}, settings=limits)
    pull.run()
    proven(pull)


def test_a_busy_source_is_left_alone_as_long_as_it_asks() -> None:
    pull = Pull(grains_of(4, GRAIN), {1: Source(RATE, fails=lambda now: Fault.BUSY if now < 3 else None)})
    pull.run()
    proven(pull)
    assert len(pull.asked) < 12


def test_a_source_that_fails_three_times_is_paused() -> None:
    sources = {1: Source(RATE / 10), 2: Source(RATE, fails=lambda now: Fault.TRUNCATED)}
    pull = Pull(grains_of(40, GRAIN), sources)
    pull.run(limit=30)
    assert sum(span.peer == peer_id(2) for span in pull.asked) == 3
    assert pull.dispatch.sources(30.0)[1].state == "resting"


def test_a_source_without_the_blob_is_not_asked_again() -> None:
    pull = Pull(grains_of(4, GRAIN), {1: Source(RATE), 2: Source(RATE, fails=lambda now: Fault.MISSING)})
    pull.run()
    proven(pull)
    assert sum(span.peer == peer_id(2) for span in pull.asked) == 1


def test_the_same_seed_gives_the_same_pull() -> None:
    def once() -> list[object]:
        sources = {n: Source(RATE * n, lag=0.01 * n) for n in range(1, 5)}
        pull = Pull(grains_of(50, GRAIN), sources, seed=7)
        pull.run()
        return [*pull.asked, *pull.actions]

    assert once() == once()


@pytest.mark.parametrize("seed", range(10))
def test_stealing_and_hedging_happen_and_stay_in_budget(seed: int) -> None:
    chance = Random(seed)
    sources = {
        n: Source(RATE * chance.choice([0.02, 1, 5]), lag=chance.choice([0.001, 0.3])) for n in range(5)
    }
    pull = Pull(grains_of(150, GRAIN), sources, seed=seed)
    pull.run()
    proven(pull)
    tally = pull.dispatch.tally
    assert tally.received == pull.grains.size + tally.duplicated + tally.wasted
    assert any(isinstance(each, Shorten) for each in pull.actions) == (tally.steals > 0)

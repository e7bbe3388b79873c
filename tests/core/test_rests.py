"""Sources that failed rest; when, and how long, in whole pulls."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from swarm.core.dispatch import Dispatch, Span
from swarm.core.feeds import Feed, rest_after
from swarm.core.rates import Rate
from swarm.errors import Fault
from swarm.model.peers import PeerID
from tests.core.pulling import KIB, Pull, Source, grains_of, peer_id

RATE = 1024 * KIB
_SOON = 0.5  # seconds for a request and the bytes of some grains


class Watched(Pull):
    """A pull that notes when who was asked."""

    def __init__(self, grains: int, sources: dict[int, Source]) -> None:
        self.asks: list[tuple[float, PeerID]] = []
        super().__init__(grains_of(grains), sources)

    def ask(self, span: Span) -> None:
        self.asks.append((self.now, span.peer))
        super().ask(span)

    def gaps(self, number: int) -> list[float]:
        """Seconds between two times that a source was asked."""
        times = [when for when, peer in self.asks if peer == peer_id(number)]
        return [after - before for before, after in pairwise(times)]


def away(until: float, fault: Fault) -> Source:
    return Source(RATE, fails=lambda now: fault if now < until else None)


@given(
    st.lists(st.floats(0, 200), min_size=1, max_size=5),
    st.sampled_from([Fault.UNREACHABLE, Fault.SILENT, Fault.BUSY]),
)
@settings(deadline=None, max_examples=50)
def test_when_all_are_away_the_first_that_is_back_is_found_within_seconds(
    returns: list[float], fault: Fault
) -> None:
    pull = Watched(2, {number: away(until, fault) for number, until in enumerate(returns)})
    quiet = pull.settings.quiet
    assert pull.run() <= min(returns) + quiet + _SOON
    assert pull.dispatch.complete
    for number in range(len(returns)):
        before = [gap for gap in pull.gaps(number) if gap >= _SOON]
        assert all(gap >= 1.0 for gap in before[:1])
        assert all(gap >= quiet for gap in before[1:]), "each is asked in vain no oftener than that"


@given(st.floats(0, 100), st.floats(0, 40), st.floats(0, 40))
@settings(deadline=None, max_examples=50)
def test_what_was_counted_while_another_worked_does_not_keep_one_away_when_that_one_goes(
    first: float, second: float, pause: float
) -> None:
    """One goes at ``first``, the other some time later; then the first is back."""
    back = first + second + pause

    def works(now: float) -> Fault | None:
        return Fault.UNREACHABLE if now >= first + second else None

    def is_away(now: float) -> Fault | None:
        return Fault.UNREACHABLE if first <= now < back else None

    slow = Source(RATE / 64, fails=works)
    pull = Watched(100, {1: slow, 2: Source(RATE / 32, fails=is_away)})
    fed: list[float] = []
    received = pull.dispatch.received

    def noted(span_id: int, stop: int, now: float) -> tuple[int, ...]:
        fed.append(now)
        return received(span_id, stop, now)

    pull.dispatch.received = noted  # type: ignore[method-assign]  # it is only listened to
    pull.run()
    assert pull.dispatch.complete
    quiet = pull.settings.quiet
    longest = max((b - a for a, b in pairwise(fed)), default=0.0)
    assert longest <= pause + 2 * quiet + _SOON


@given(st.integers(1, 4), st.sampled_from([Fault.UNREACHABLE, Fault.TRUNCATED]))
@settings(deadline=None, max_examples=8)
def test_while_another_brings_something_rests_are_kept(failing: int, fault: Fault) -> None:
    sources = {number: away(1e9, fault) for number in range(1, failing + 1)}
    pull = Watched(40, {0: Source(RATE / 80), **sources})
    assert pull.run() > 150
    assert pull.dispatch.complete
    s = pull.settings
    for number in sources:
        for failures, gap in enumerate(pull.gaps(number), 1):
            least = rest_after(
                failures, strikes=s.strikes, pause=s.pause, most=s.backoff_most, longest=s.pause_most
            )
            assert gap >= least - 0.01


def test_one_that_breaks_off_is_paused_although_nobody_else_brings_anything() -> None:
    pull = Watched(4, {1: away(1e9, Fault.TRUNCATED)})
    pull.run(limit=60.0)
    assert [round(gap) for gap in pull.gaps(1)] == [1, 4, 60]


@given(st.sampled_from([Fault.UNREACHABLE, Fault.SILENT, Fault.TRUNCATED, Fault.BUSY]))
def test_a_return_ends_a_rest_for_being_away_and_no_other(fault: Fault) -> None:
    dispatch = Watched(4, {}).dispatch
    dispatch.returned(peer_id(1), 0.0)  # nobody we know
    dispatch.add_source(peer_id(1), 0.0)
    now = 0.0
    while dispatch._table.feeds[peer_id(1)].failures + dispatch._table.feeds[peer_id(1)].busy < 2:
        (span, *_) = dispatch.next(now)
        dispatch.failed(span.id, now, fault)
        for other in tuple(dispatch._table.flights):
            dispatch.failed(other, now)
        feed = dispatch._table.feeds[peer_id(1)]
        before, now = now, feed.rests_until
    assert dispatch.next(before) == ()
    dispatch.returned(peer_id(1), before)
    away = fault in (Fault.UNREACHABLE, Fault.SILENT)
    assert bool(dispatch.next(before)) == away
    assert (feed.failures == 0) == (away or fault is Fault.BUSY)


def test_a_strike_counts_only_while_another_brings_something() -> None:
    pull = Watched(4, {number: away(100.0, Fault.UNREACHABLE) for number in range(3)})
    pull.run(limit=99.0)
    assert {feed.failures for feed in pull.dispatch._table.feeds.values()} == {2}


def test_what_a_busy_source_asks_for_is_kept_although_nobody_else_brings_anything() -> None:
    feed = Feed(peer_id(1), Rate(1, 1))
    feed.rest(10.0, 1.0, quiet=3.0, owed=17.0)
    assert feed.rests_until == feed.spared_until == 27.0
    feed.rest(10.0, 60.0, quiet=3.0)
    assert (feed.rests_until, feed.spared_until) == (70.0, 13.0)


def test_a_held_up_table_names_the_moment_it_will_try_again() -> None:
    pull = Dispatch(grains_of(2), Watched(1, {}).settings, Watched(1, {}).dispatch._random)
    for number in range(2):
        pull.add_source(peer_id(number), 0.0)
    now = 0.0
    for _ in range(20):
        for span in pull.next(now):
            pull.failed(span.id, now, Fault.UNREACHABLE)
        due = pull.next_due()
        assert due is not None
        assert now < due <= now + pull.settings.quiet
        now = due
        assert pull.due(now) == ()

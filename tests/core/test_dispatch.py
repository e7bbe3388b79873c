"""The table step by step; whole pulls are in ``test_pulls``."""

from __future__ import annotations

from random import Random

from swarm.core.dispatch import Abort, Dispatch, DispatchSettings, Shorten, Span
from swarm.core.feeds import Feed, rest_after
from swarm.core.rates import Rate
from swarm.core.shares import Share
from swarm.core.stragglers import Stragglers
from swarm.core.table import Table
from swarm.errors import Fault
from swarm.model.grains import Grains
from swarm.model.ranges import ByteRange, RangeSet
from tests.core.pulling import peer_id

G = 100
A, B, C = peer_id(1), peer_id(2), peer_id(3)


def table(grains: int = 10, **settings: float) -> Dispatch:
    limits = DispatchSettings(**settings)  # type: ignore[arg-type]  # counts are ints
    return Dispatch(Grains(grains * G, G), limits, Random(1))


def deliver(pull: Dispatch, span: Span, now: float) -> None:
    for grain in pull.received(span.id, span.range.stop, now):
        pull.verified(grain, now)
    pull.finished(span.id, now)


def only(spans: tuple[Span, ...]) -> Span:
    (span,) = spans
    return span


def measured(grains: int, *peers: tuple[object, float], **settings: float) -> tuple[Dispatch, float]:
    """A table whose sources have each delivered one grain, at that many grains a second."""
    pull, now = table(grains, **settings), 0.0
    for peer, rate in peers:
        pull.add_source(peer, now)  # type: ignore[arg-type]  # a PeerID
        span = only(pull.next(now))
        pull.received(span.id, span.range.start + 1, now + 0.001)
        now += 1 / rate
        deliver(pull, span, now)
        pull.remove_source(peer, now)  # type: ignore[arg-type]  # a PeerID
    for peer, _ in peers:
        pull.add_source(peer, now)  # type: ignore[arg-type]  # a PeerID
    return pull, now


def test_an_unknown_source_gets_one_grain_and_the_first_is_the_last() -> None:
    pull = table()
    pull.add_source(A, 0.0)
    span = only(pull.next(0.0))
    assert span == Span(1, A, ByteRange(900, 1000))
    assert pull.next(0.0) == ()
    assert pull.sources(0.0)[0].state == "probing"


def test_a_known_source_has_one_span_in_flight_and_one_queued() -> None:
    pull, now = measured(40, (A, 10.0))
    assert pull.sources(now)[0].state == "idle"
    assert len(pull.next(now)) == 2
    assert pull.next(now) == ()
    assert pull.sources(now)[0].state == "active"


def test_adding_twice_keeps_what_is_under_way() -> None:
    pull = table()
    pull.add_source(A, 0.0)
    span = only(pull.next(0.0))
    pull.add_source(A, 1.0)
    assert pull.flying(span.id)


def test_strangers_are_ignored() -> None:
    pull = table()
    pull.update_source(A, None)
    assert pull.remove_source(A, 0.0) == ()
    assert pull.wanted(77, 100) == () and pull.received(77, 100, 0.0) == ()
    pull.failed(77, 0.0, Fault.TRUNCATED)
    pull.finished(77, 0.0)
    assert pull.next_due() is None


def test_a_source_that_leaves_takes_its_spans_but_not_its_bytes() -> None:
    pull = table()
    pull.add_source(A, 0.0)
    span = only(pull.next(0.0))
    pull.received(span.id, 930, 1.0)
    assert pull.remove_source(A, 1.0) == (span,)
    assert not pull.flying(span.id) and pull.starved
    assert pull.sources(1.0)[0].state == "gone" and pull.sources(1.0)[0].bytes == 30
    pull.add_source(B, 1.0)
    assert only(pull.next(1.0)).range == ByteRange(930, 1000)


def test_a_clock_that_is_set_back_makes_no_source_look_instant() -> None:
    pull = table()
    pull.add_source(A, 100.0)
    span = only(pull.next(100.0))
    pull.received(span.id, 910, 40.0)
    pull.received(span.id, 920, 30.0)
    feed = pull._table.feeds[A]
    assert feed.cold_lag == 0.0
    assert feed.gaps.at(0.5, 1.0) == 0.0
    assert pull._table.first_bytes.at(0.5, 1.0) == 0.0


def test_only_missing_bytes_of_a_failed_span_are_asked_again() -> None:
    pull = table()
    pull.add_source(A, 0.0)
    span = only(pull.next(0.0))
    assert pull.wanted(span.id, 950) == (ByteRange(900, 950),)
    assert pull.received(span.id, 950, 0.1) == ()
    pull.failed(span.id, 0.2, Fault.TRUNCATED)
    assert pull.next(0.3) == (), "it rests"
    assert pull.next_due() == 1.2
    assert only(pull.next(1.2)).range == ByteRange(950, 1000)


def test_a_span_that_was_asked_before_is_as_late_as_it_is() -> None:
    pull = table()
    pull.add_source(A, 10.0)
    span = only(pull.next(10.0))
    pull.asked_at(span.id, 9.0)
    flight = pull._table.flights[span.id]
    assert (flight.asked, flight.heard) == (9.0, 9.0)
    assert flight.expected == 9.0 + pull.settings.first_byte
    pull.received(span.id, span.range.stop, 10.5)
    assert pull._table.first_bytes.at(0.5, 0.0) == 1.5


def test_no_news_and_old_news_change_nothing() -> None:
    pull = table()
    pull.add_source(A, 0.0)
    span = only(pull.next(0.0))
    assert pull.received(span.id, 900, 0.1) == ()
    assert pull.received(span.id, 890, 0.1) == ()
    assert pull.wanted(span.id, 900) == ()
    assert pull.tally.received == 0 == pull.tally.wasted


def test_both_spans_of_a_broken_lane_are_one_failure() -> None:
    pull, now = measured(40, (A, 10.0))
    first, second = pull.next(now)
    pull.failed(first.id, now, Fault.UNREACHABLE)
    pull.failed(second.id, now, Fault.UNREACHABLE)
    assert pull.next_due() == now + 1


def test_a_lane_we_closed_is_nobodys_fault() -> None:
    pull = table()
    pull.add_source(A, 0.0)
    pull.failed(only(pull.next(0.0)).id, 0.0)
    assert len(pull.next(0.0)) == 1


def test_rests_grow_with_failures_to_a_pause_that_doubles() -> None:
    rests = [rest_after(n, strikes=3, pause=60, most=30, longest=200) for n in range(1, 7)]
    assert rests == [1, 4, 60, 120, 200, 200]
    assert rest_after(9, strikes=20, pause=60, most=30, longest=200) == 30
    assert rest_after(5000, strikes=3, pause=60, most=30, longest=200) == 200


def test_a_busy_source_says_itself_how_long() -> None:
    pull = table()
    pull.add_source(A, 0.0)
    pull.failed(only(pull.next(0.0)).id, 0.0, Fault.BUSY, retry_after=17)
    assert pull.next_due() == 17
    assert pull.sources(1.0)[0].state == "resting" and pull.sources(1.0)[0].detail == "busy"


def test_a_delivered_span_forgives() -> None:
    pull = table()
    pull.add_source(A, 0.0)
    pull.failed(only(pull.next(0.0)).id, 0.0, Fault.TRUNCATED)
    pull.failed(only(pull.next(1.0)).id, 1.0, Fault.TRUNCATED)
    assert pull.next_due() == 5.0
    deliver(pull, only(pull.next(5.0)), 5.1)
    first, second = pull.next(5.1)
    pull.failed(first.id, 5.1, Fault.TRUNCATED)
    pull.failed(second.id, 5.1, Fault.TRUNCATED)
    assert pull.next_due() == 6.1


def test_grains_of_an_earlier_run_are_not_asked_for_while_they_are_rechecked() -> None:
    pull = table(3)
    for grain in range(3):
        pull.arrived(grain)
    assert pull.remaining == 0 and not pull.complete and not pull.starved
    pull.add_source(A, 0.0)
    assert pull.next(0.0) == ()
    pull.verified(0, 0.0)
    pull.verified(2, 0.0)
    pull.rejected(1, 0.0)
    assert pull.tally.wasted == 0 and pull.remaining == G
    span = only(pull.next(0.0))
    assert span.range == ByteRange(100, 200)
    deliver(pull, span, 1.0)
    assert pull.complete and pull.next_due() is None


def test_an_empty_blob_is_complete_once_its_empty_grain_is_verified() -> None:
    pull = Dispatch(Grains.of(0), DispatchSettings(), Random(1))
    pull.add_source(A, 0.0)
    assert pull.next(0.0) == () and not pull.complete and not pull.starved
    pull.verified(0, 0.0)
    assert pull.complete


def test_trust_may_ask_for_a_grain_out_of_turn() -> None:
    pull = table()
    pull.verified(9, 0.0)
    pull.prefer(4)
    pull.add_source(A, 0.0)
    assert only(pull.next(0.0)).range == ByteRange(400, 500)


def test_a_grain_taken_back_after_it_was_verified_is_fetched_again() -> None:
    pull = table(1)
    pull.add_source(A, 0.0)
    deliver(pull, only(pull.next(0.0)), 1.0)
    assert pull.complete
    pull.rejected(0, 1.0)
    assert not pull.complete and pull.remaining == G and pull.tally.wasted == G
    pull.add_source(B, 1.0)
    assert {span.peer for span in pull.next(1.0)} == {B}


def test_a_mixed_bad_grain_goes_whole_to_one_that_sent_none_of_it() -> None:
    pull = table(1)
    pull.add_source(A, 0.0)
    first = only(pull.next(0.0))
    pull.received(first.id, 40, 0.1)
    pull.failed(first.id, 0.1, Fault.TRUNCATED)
    pull.add_source(B, 0.1)
    second = only(pull.next(0.1))
    assert second.range == ByteRange(40, 100)
    assert pull.received(second.id, 100, 0.2) == (0,)
    assert pull.senders(0) == (A, B)
    pull.rejected(0, 2.0)
    pull.add_source(C, 2.0)
    third = only(pull.next(2.0))
    assert (third.peer, third.range) == (C, ByteRange(0, 100))


def test_a_whole_grain_that_breaks_off_is_begun_again() -> None:
    pull = table(1)
    pull.add_source(A, 0.0)
    pull.add_source(B, 0.0)
    span = only(pull.next(0.0))
    pull.received(span.id, 100, 0.1)
    pull.rejected(0, 0.1)
    again = only(pull.next(0.1))
    assert again.peer != span.peer and again.range == ByteRange(0, 100)
    pull.received(again.id, 60, 0.2)
    pull.failed(again.id, 0.2, Fault.TRUNCATED)
    assert pull.remaining == 100 and pull.tally.wasted == 160
    assert pull.senders(0) == (), "what it sent is not held against who comes next"
    assert only(pull.next(1.3)).range == ByteRange(0, 100)


def test_silence_aborts_the_lane_and_the_source_is_snubbed() -> None:
    pull, now = measured(40, (A, 10.0))
    first, second = pull.next(now)
    assert pull.due(now + 1.9) == ()
    assert pull.due(now + 2.0) == (Abort(A, (first.id, second.id), "silence"),)
    assert pull.tally.aborts == 1
    probe = only(pull.next(now + 3.0))
    assert len(probe.range) == G
    assert pull.sources(now + 3.0)[0].state == "snubbed"
    deliver(pull, probe, now + 3.1)
    assert len(pull.next(now + 3.1)) == 2


def test_a_call_that_comes_late_blames_nobody() -> None:
    pull, now = measured(40, (A, 10.0))
    pull.next(now)
    due = pull.next_due()
    assert due is not None and due <= now + 2.0
    assert pull.due(now + 60.0) == (), "we were held up, not they"
    assert len(pull.due(now + 62.0)) == 1


def test_silence_by_our_own_fault_is_excused() -> None:
    pull, now = measured(40, (A, 10.0))
    pull.next(now)
    pull.excuse(now + 1.5)
    assert pull.due(now + 3.4) == ()


def test_patience_follows_what_is_usual_for_the_source() -> None:
    pull, now = measured(40, (A, 10.0))
    span = pull.next(now)[0]
    for step in range(8):
        now += 1.5
        pull.received(span.id, span.range.start + step + 1, now)
    assert pull.due(now + 5.9) == ()
    due = pull.next_due()
    assert due is not None and abs(due - (now + 6.0)) < 1e-6, "four times the usual gap"
    assert len(pull.due(now + 6.01)) == 1


def test_an_idle_source_steals_the_tail_of_the_latest_span() -> None:
    pull, now = measured(40, (A, 10.0))
    asked = {g for span in pull.next(now) for g in pull.grains.covering(span.range)}
    for grain in set(range(39)) - asked:
        pull.verified(grain, now)
    pull.add_source(B, now)
    (notice,) = pull.due(now)
    assert isinstance(notice, Shorten) and notice.stop % G == 0
    assert pull.next_due() == now, "a span waits to be told"
    stolen = only(pull.next(now))
    assert stolen.peer == B and stolen.range.start == notice.stop
    assert pull.tally.steals == 1


def test_the_only_grain_left_is_asked_twice_and_the_first_wins() -> None:
    pull, now = measured(8, (A, 100.0), (B, 1.0))
    for grain in set(range(8)) - {5}:
        pull.verified(grain, now)
    pull.remove_source(A, now)
    slow = only(pull.next(now))
    pull.received(slow.id, slow.range.start + 10, now + 0.3)
    pull.add_source(A, now + 0.3)
    pull.due(now + 0.3)
    twin = only(pull.next(now + 0.3))
    assert (
        twin.duplicate and twin.peer == A and twin.range == ByteRange(slow.range.start + 10, slow.range.stop)
    )
    pull.received(slow.id, slow.range.start + 20, now + 0.31)
    assert pull.wanted(twin.id, twin.range.start + 30) == (
        ByteRange(twin.range.start + 10, twin.range.start + 30),
    ), "what the other brought meanwhile is not written again"
    deliver(pull, twin, now + 0.32)
    assert pull.complete and pull.tally.duplicated == 10
    assert pull.due(now + 0.32) == (Abort(B, (slow.id,), "lost"),)


def test_a_lost_span_that_is_nearly_done_is_drained() -> None:
    pull = table(1)
    pull.add_source(A, 0.0)
    slow = only(pull.next(0.0))
    pull.received(slow.id, 10, 0.01)
    pull.received(slow.id, 80, 2.0)
    pull.add_source(B, 2.1)
    pull.due(3.5)
    twin = only(pull.next(3.5))
    assert twin.duplicate
    deliver(pull, twin, 3.6)
    assert pull.due(3.6) == () and pull.flying(slow.id)
    assert pull.wanted(slow.id, 90) == ()
    pull.received(slow.id, 100, 3.7)
    assert pull.tally.duplicated == 20 and pull.in_flight == 0


def test_a_first_byte_that_does_not_come_is_hedged_where_somebody_waits() -> None:
    pull = table(20)
    pull.add_source(A, 0.0)
    span = only(pull.next(0.0))
    due = pull.next_due()
    assert due == 0.05
    pull.add_source(B, 0.06)
    pull.due(0.06)
    twin, *_ = pull.next(0.06)
    assert twin == Span(twin.id, B, span.range, duplicate=True)
    assert pull.tally.hedges == 1


def test_a_bad_grain_that_two_were_after_is_written_by_neither() -> None:
    pull = table(1)
    pull.add_source(A, 0.0)
    first = only(pull.next(0.0))
    pull.add_source(B, 0.1)
    pull.due(0.1)
    second = only(pull.next(0.1))
    pull.received(first.id, 60, 0.2)
    assert pull.received(second.id, 100, 0.2) == (0,)
    assert pull.senders(0) == (A, B)
    pull.rejected(0, 0.3)
    assert pull.wanted(first.id, 100) == ()
    pull.received(first.id, 100, 0.4)
    assert pull.remaining == 100
    assert pull.tally.received == 200 == pull.tally.wasted + pull.tally.duplicated


def test_a_whole_grain_that_crawls_changes_hands_only_to_one_that_may_send_it() -> None:
    pull = table(1)
    pull.add_source(A, 0.0)
    deliver_bad = only(pull.next(0.0))
    pull.received(deliver_bad.id, 100, 1.0)
    pull.rejected(0, 1.0)
    pull.add_source(B, 1.0)
    owner = only(pull.next(1.0))
    assert owner.peer == B
    for step in range(30):
        pull.received(owner.id, step + 1, 2.0 + step)
        assert pull.due(2.0 + step) == (), "A sent it bad: it may not take over"
    pull.add_source(C, 32.0)
    assert pull.due(32.0) == (Abort(B, (owner.id,), "slow"),)
    assert only(pull.next(32.0)).peer == C


def test_a_whole_grain_that_crawls_is_relieved_by_one_that_sent_only_a_part_of_it() -> None:
    """Else a crawling peer keeps from the honest one what a liar spoilt, for as long as it likes."""
    pull = table(1)
    pull.add_source(A, 0.0)
    first = only(pull.next(0.0))
    pull.received(first.id, 40, 0.4)
    pull.failed(first.id, 0.4, Fault.TRUNCATED)
    pull.add_source(B, 0.4)
    second = only(pull.next(0.4))
    assert pull.received(second.id, 100, 1.0) == (0,)
    pull.rejected(0, 1.0)
    pull.remove_source(A, 1.0)
    pull.add_source(C, 1.0)
    owner = only(pull.next(1.0))
    assert (owner.peer, owner.range) == (C, ByteRange(0, 100))
    pull.received(owner.id, 1, 2.0)
    pull.received(owner.id, 2, 3.0)
    assert pull.due(3.0) == (Abort(C, (owner.id,), "slow"),)
    relief = only(pull.next(3.0))
    assert (relief.peer, relief.range) == (B, ByteRange(0, 100))
    deliver(pull, relief, 3.5)
    assert pull.complete


def test_nor_does_one_that_sent_only_a_part_wait_for_one_that_puts_us_off() -> None:
    pull = table(1)
    pull.add_source(A, 0.0)
    first = only(pull.next(0.0))
    pull.received(first.id, 40, 0.4)
    pull.remove_source(A, 0.4)
    pull.add_source(B, 0.4)
    assert pull.received(only(pull.next(0.4)).id, 100, 1.0) == (0,)
    pull.rejected(0, 1.0)
    pull.add_source(C, 1.0)
    owner = only(pull.next(1.0))
    assert owner.peer == C
    pull.failed(owner.id, 1.1, Fault.BUSY, retry_after=3600)
    assert only(pull.next(1.1)).peer == B


def test_a_whole_grain_is_not_left_queued_behind_a_lost_span_that_crawls() -> None:
    pull = table(2)
    pull.add_source(A, 0.0)
    head = only(pull.next(0.0))
    pull.received(head.id, 101, 0.5)
    pull.add_source(B, 0.6)
    bad = only(pull.next(0.6))
    assert pull.received(bad.id, 100, 0.7) == (0,)
    pull.rejected(0, 0.7)
    pull.received(head.id, 102, 1.5)
    pull.due(1.5)
    twin, queued = pull.next(1.5)
    assert (twin.peer, twin.duplicate) == (B, True)
    assert (queued.peer, queued.range) == (A, ByteRange(0, 100)), "B sent it bad"
    assert pull.received(twin.id, 200, 1.6) == (1,)
    pull.rejected(1, 1.6)
    assert pull.wanted(head.id, 150) == (), "lost"
    deliver(pull, only(pull.next(1.6)), 1.7)
    assert pull.due(1.7) == ()
    pull.add_source(C, 1.8)
    assert pull.due(1.8) == (Abort(A, (head.id, queued.id), "slow"),)
    relief = only(pull.next(1.8))
    assert (relief.peer, relief.range) == (C, ByteRange(0, 100))


def test_what_a_rival_brought_is_not_asked_again_while_it_is_verified() -> None:
    pull = table(1)
    pull.add_source(A, 0.0)
    slow = only(pull.next(0.0))
    pull.received(slow.id, 1, 0.5)
    pull.received(slow.id, 2, 1.5)
    pull.add_source(B, 1.5)
    pull.due(1.5)
    twin = only(pull.next(1.5))
    assert twin.duplicate
    assert pull.received(twin.id, 100, 1.6) == (0,)
    assert pull.due(1.6) == () and pull.next(1.6) == ()


def test_who_takes_over_from_two_is_asked_only_for_what_both_left() -> None:
    pull = table(1)
    pull.add_source(A, 0.0, RangeSet())
    pull.add_source(B, 0.0)
    slow = only(pull.next(0.0))
    pull.received(slow.id, 1, 0.5)
    pull.received(slow.id, 2, 1.5)
    pull.update_source(A, None)
    pull.due(1.5)
    twin = only(pull.next(1.5))
    assert (slow.peer, twin.peer, twin.duplicate) == (B, A, True)
    pull.received(twin.id, 3, 1.6)
    pull.received(slow.id, 40, 39.0)
    pull.received(twin.id, 6, 39.0)
    pull.add_source(C, 39.0)
    assert pull.due(39.0) == (Abort(A, (twin.id,), "slow"), Abort(B, (slow.id,), "slow"))
    relief = only(pull.next(39.0))
    assert (relief.peer, relief.range) == (C, ByteRange(40, 100))
    deliver(pull, relief, 40.0)
    assert pull.complete and pull.tally.duplicated == 4


def test_the_only_grain_is_not_left_to_one_that_crawls_for_want_of_a_measure() -> None:
    """Else the crawling one's rate would be thought the usual, and the other never be asked."""
    pull = table(1)
    pull.add_source(A, 0.0)
    crawling = only(pull.next(0.0))
    for step in range(1, 4):
        pull.received(crawling.id, step, step / 2)
    pull.add_source(B, 1.5)
    assert pull.due(1.5) == ()
    twin = only(pull.next(1.5))
    assert (twin.peer, twin.range, twin.duplicate) == (B, ByteRange(3, 100), True)


def test_a_source_whose_trial_came_to_nothing_is_not_hoped_for_again() -> None:
    pull = table(1)
    pull.add_source(A, 0.0)
    pull.add_source(B, 0.0)
    idle = only(pull.next(0.0))
    pull.failed(idle.id, 20.0, Fault.TRUNCATED)
    crawling = only(pull.next(20.0))
    assert crawling.peer != idle.peer
    for step in range(1, 10):
        pull.received(crawling.id, 10 * step, 20.0 + step)
        assert pull.due(20.0 + step) == () and pull.next(20.0 + step) == ()


def test_what_a_source_would_bring_much_later_than_another_is_left_to_that_one() -> None:
    pull, now = measured(400, (A, 20.0), (B, 0.5))
    window = ByteRange(100 * G, 140 * G)
    pull.want("reader", window, now - 1.0)  # it came a while ago: other bytes are asked for, too
    asked = pull.next(now)
    assert {span.peer for span in asked} == {A, B}
    for span in asked:
        waited_for = window.start <= span.range.start < window.stop
        assert waited_for == (span.peer == A)


def test_a_reader_takes_the_place_of_a_queued_span_if_the_first_is_down_to_a_grain() -> None:
    pull, now = measured(4, (A, 1.0))
    head, queued = pull.next(now)
    assert len(head.range) == len(queued.range) == G
    (free,) = {0, 1, 2} - {pull.grains.at(head.range.start), pull.grains.at(queued.range.start)}
    pull.want("reader", ByteRange(free * G, free * G + 1), now)
    assert pull.due(now) == (Shorten(queued.id, queued.range.start),)
    assert pull.flying(head.id) and pull.tally.preempted == 1


def test_a_broken_span_leaves_grains_on_parole_to_those_who_were_asked_for_them() -> None:
    pull = table(3)
    pull.add_source(A, 0.0)
    bad = only(pull.next(0.0))
    pull.received(bad.id, bad.range.stop, 0.1)
    pull.finished(bad.id, 0.1)
    pull.rejected(2, 0.1)
    pull.add_source(B, 0.1)
    asked = {span.peer: span for span in pull.next(0.1)}
    whole, other = asked[B], asked[A]
    assert whole.range == bad.range
    pull.received(whole.id, 250, 0.2)
    pull.failed(other.id, 0.2, Fault.TRUNCATED)
    assert pull.tally.wasted == 100, "what came of it stays"
    assert pull.received(whole.id, 300, 0.3) == (2,)


def test_a_cut_spares_a_later_span_that_already_streams_on_a_lane_of_its_own() -> None:
    pull, now = measured(200, (A, 10.0), span_seconds=4.0)
    first, head = pull.next(now)
    deliver(pull, first, now)
    behind = only(pull.next(now))
    pull.received(behind.id, behind.range.start + 10, now + 0.1)
    middle = head.range.start + len(head.range) // 2 // G * G
    pull.want("reader", ByteRange(middle, middle + 10), now + 0.1)
    notices = pull.due(now + 0.1)
    assert notices == (Shorten(head.id, middle),)
    assert pull.flying(behind.id) and pull.tally.preempted == 1
    assert pull.next(now + 0.1) == (), "both lanes are busy"
    pull.unwant("reader")


def test_the_cap_leaves_a_grain_for_every_source() -> None:
    pull = table(50, in_flight=3 * G)
    for number in range(5):
        pull.add_source(peer_id(number), 0.0)
    assert len(pull.next(0.0)) == 5
    assert pull.in_flight == 5 * G


def test_a_slow_source_gets_nothing_the_others_would_finish_first() -> None:
    pull, now = measured(12, (A, 100.0), (B, 0.5))
    assert {span.peer for span in pull.next(now)} == {A}
    due = pull.next_due()
    assert due is not None and due <= now + 0.1, "it is reconsidered soon"


def test_a_source_that_lacks_the_blob_is_told_by_its_404() -> None:
    pull = table()
    pull.add_source(A, 0.0)
    pull.failed(only(pull.next(0.0)).id, 0.0, Fault.MISSING)
    assert pull.starved and pull.next(100.0) == ()


def test_a_span_cut_down_to_what_a_rival_brought_is_not_asked_for_again() -> None:
    """The rival's grain was verified while the span went on past it, so the span is not lost."""
    table = Table(Grains(3 * G, G), DispatchSettings(), Random(1))
    feeds = {peer: Feed(peer, Rate(10 * G, G)) for peer in (A, B)}
    for feed in feeds.values():
        feed.rate.begin(0.0)
        feed.rate.add(10 * G, 1.0)
    table.feeds.update(feeds)
    stragglers = Stragglers(table)
    late = table.flights[table.launch(feeds[A], ByteRange(0, 3 * G), 1.0).id]
    hedge = table.launch(feeds[B], ByteRange(0, G), 1.5, rival=late)
    table.doubled[0] = frozenset([B])
    assert table.receive(table.flights[hedge.id], G, 1.6) == (0,)
    for stop in (2 * G, G):
        table.cut(late, stop, 1.6)
        tail = table.launch(feeds[B], ByteRange(stop, stop + G), 1.6)
        table.receive(table.flights[tail.id], stop + G, 1.7)
    assert table.ledger.disk.covers(0, 3 * G) and not late.lost
    stragglers.act(1.8)
    assert not table.ready and late.span.id in table.flights


def test_a_reader_that_came_has_its_first_grain_alone_and_then_what_follows_before_the_rest() -> None:
    pull, now = measured(400, (A, 20.0), (B, 20.0), alone=0.04, calm=0.5)
    pull.want("reader", ByteRange(100 * G, 103 * G), now)
    first = only(pull.next(now))
    assert first.range == ByteRange(100 * G, 101 * G)
    assert sorted(map(pull.asked_of, (A, B, C))) == [0, 0, G]
    assert pull.next_due() == now + 0.04
    deliver(pull, first, now + 0.01)
    then = pull.next(now + 0.01)
    assert sorted((span.range.start, span.range.stop) for span in then) == [(101 * G, 103 * G)]
    deliver(pull, then[0], now + 0.02)
    assert pull.next(now + 0.02) == (), "who has read three grains may be about to seek"
    pull.unwant("reader")
    assert pull.next_due() == now + 0.5
    assert len(pull.next(now + 0.5)) == 4


def test_grains_that_readers_and_trust_wait_for_are_awaited() -> None:
    pull = table(10)
    assert [grain for grain in range(10) if pull.awaited(grain)] == [9]
    pull.want("reader", ByteRange(2 * G + 1, 4 * G), 0.0)
    assert [grain for grain in range(10) if pull.awaited(grain)] == [2, 3, 9]
    assert not Dispatch(Grains(0, G), DispatchSettings(), Random(1)).awaited(0), "it has no bytes"


def test_a_first_grain_that_takes_long_does_not_keep_others_waiting() -> None:
    pull, now = measured(400, (A, 20.0), (B, 20.0), alone=0.1, calm=0.5)
    pull.want("reader", ByteRange(100 * G, 400 * G), now)
    first = only(pull.next(now))
    assert pull.next(now + 0.09) == ()
    assert {span.peer for span in pull.next(now + 0.1)} == {A, B}
    assert pull.flying(first.id)


def test_a_reader_that_goes_on_is_not_a_reader_that_came() -> None:
    pull, now = measured(400, (A, 20.0), (B, 20.0), alone=0.1, calm=0.5)
    pull.want("reader", ByteRange(100 * G, 103 * G), now)
    pull.want("reader", ByteRange(200 * G, 203 * G), now + 0.6)
    assert {span.peer for span in pull.next(now + 0.6)} == {A, B}


def crowd(sources: int, grains: int = 40, **settings: float) -> Dispatch:
    """A table of partial sources that all have everything but the last grain."""
    pull = table(grains, **settings)
    for number in range(sources):
        pull.add_source(peer_id(number + 1), 0.0, RangeSet([ByteRange(0, (grains - 1) * G)]))
    return pull


def test_of_a_crowd_so_many_are_asked_at_once_and_another_when_one_is_through() -> None:
    pull = crowd(12, crowd=5)
    spans = pull.next(0.0)
    assert len({span.peer for span in spans}) == len(spans) == 5
    assert pull.next(0.01) == ()
    deliver(pull, spans[0], 0.02)
    assert len({span.peer for span in pull.next(0.02)} - {span.peer for span in spans[1:]}) == 1


def test_a_pull_is_hungry_while_a_crowd_has_less_for_it_than_it_would_ask() -> None:
    pull = crowd(12, crowd=5)
    assert pull.hungry and pull.crowded
    pull.next(0.0)
    assert not pull.hungry, "half of those it may ask at once are busy"
    alone = table(4)
    alone.add_source(A, 0.0)
    assert not alone.hungry and not alone.crowded


def test_more_than_our_share_is_asked_from_afar_only_in_a_drought_and_one_span_at_a_time() -> None:
    pull = table(8)
    pull.add_source(A, 0.0, RangeSet())
    pull.add_source(B, 0.0)
    pull.share(Share(mine=1, ours=1, far=frozenset({B})))
    (own,) = pull.next(0.0)
    assert own.range == ByteRange(0, G), "ours to bring here"
    deliver(pull, own, 0.1)
    assert pull.next(0.1) == ()
    assert pull.next(0.9) == (), "the neighbour may yet bring the others"
    (more,) = pull.next(2.0)
    assert more.peer == B and more.range.start >= G
    assert pull.next(2.1) == ()


def test_in_a_crowd_the_last_grain_comes_first_if_sizes_disagree() -> None:
    for contested in (False, True):
        pull = table(40)
        pull.contest(contested)
        pull.add_source(A, 0.0, RangeSet([ByteRange(0, G)]))
        pull.add_source(B, 0.0)
        last = pull.grains.start(pull.grains.last)
        assert (last in {span.range.start for span in pull.next(0.0)}) == contested


def test_of_a_crowd_a_source_that_answers_is_asked_for_a_second_grain() -> None:
    pull = crowd(12, crowd=5)
    spans = pull.next(0.0)
    pull.received(spans[0].id, spans[0].range.start + 1, 0.01)
    assert [span.peer for span in pull.next(0.01)] == [spans[0].peer]


def test_of_a_crowd_idle_sources_take_nothing_over_while_anything_is_free() -> None:
    pull = crowd(12, crowd=5)
    spans = pull.next(0.0)
    pull.add_source(peer_id(99), 0.0, RangeSet())
    for now in (0.5, 1.0, 1.5):
        assert pull.due(now) == () and pull.next(now) == ()
    assert len(spans) == 5
    assert pull.next_due() is not None


def test_in_a_crowd_spans_are_short() -> None:
    def lengths(others: bool) -> set[int]:
        pull, now = measured(400, (A, 20.0))
        if others:
            pull.add_source(B, now, RangeSet([ByteRange(0, G)]))
        seen = set()
        for _ in range(8):
            for span in pull.next(now):
                seen.add(len(span.range))
                if span.peer == A:
                    now += len(span.range) / G / 20
                    deliver(pull, span, now)
        return seen

    assert max(lengths(others=True)) == 2 * G < max(lengths(others=False))


def test_a_source_that_would_rather_send_something_else_is_asked_at_once_but_not_for_ever() -> None:
    pull = crowd(1)
    for _ in range(3):
        pull.failed(only(pull.next(0.0)).id, 0.0, Fault.BUSY, retry_after=0.0)
    pull.failed(only(pull.next(0.0)).id, 0.0, Fault.BUSY, retry_after=0.0)
    assert pull.next(0.0) == (), "it is busy, then"
    deliver(pull, only(pull.next(2.0)), 3.0)
    span = pull.next(3.0)[0]
    pull.failed(span.id, 3.0, Fault.BUSY, retry_after=0.0)
    assert pull.next(3.0) != ()


def test_the_share_of_a_crowd_is_asked_of_who_has_all() -> None:
    pull = crowd(1, grains=40)
    pull.add_source(A, 0.0, RangeSet())
    pull.add_source(B, 0.0)
    pull.gave(B, RangeSet([ByteRange(0, 10 * G)]))
    pull.gave(C, RangeSet([ByteRange(0, 40 * G)]))
    pull.share(Share(1 << 4 | 1 << 20))
    assert {span.range.start for span in pull.next(0.0) if span.peer == B} == {20 * G}

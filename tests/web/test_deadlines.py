"""How long a slow client lasts: RELIABILITY 0.4 re-run against our own limits."""

from __future__ import annotations

import pytest
from twisted.internet.task import Clock

from swarm.testing.wire import Wire
from swarm.web.deadlines import Deadlines, Phase
from swarm.web.limits import WebLimits

from .door import Door, Sink

LIMITS = WebLimits()
HEAD = b"PUT /f HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000000\r\n\r\n"


def drip(door: Door, wire: Wire, every: float, data: bytes, most: float) -> float:
    """Send ``data`` every so many seconds until the server gives up; when that was."""
    while not (wire.disconnected or wire.disconnecting) and door.clock.seconds() < most:
        door.clock.advance(every)
        wire.send(data)
    return door.clock.seconds()


@pytest.mark.parametrize("every", [0.5, 5.0, 19.0])
def test_a_dripped_head_has_an_absolute_deadline(every: float) -> None:
    door = Door()
    wire = door.wire()
    wire.send(b"GET / HTTP/1.1\r\nX: ")
    assert drip(door, wire, every, b"x", 1000) <= LIMITS.head + every
    assert [each.status for each in wire.responses()] == [408]


def test_a_silent_connection_ends_without_an_answer() -> None:
    door = Door()
    wire = door.wire()
    assert drip(door, wire, 1.0, b"", 1000) == LIMITS.head
    assert wire.received == b"" and wire.disconnected


def test_an_idle_connection_ends_after_its_last_answer() -> None:
    door = Door()
    wire = door.wire()
    wire.send(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
    assert drip(door, wire, 1.0, b"", 1000) == LIMITS.idle
    assert [each.status for each in wire.responses()] == [200]


def test_the_next_head_on_a_connection_has_its_own_deadline() -> None:
    door = Door()
    wire = door.wire()
    wire.send(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
    door.clock.advance(LIMITS.idle - 1)
    wire.send(b"GET / HT")
    door.clock.advance(LIMITS.head - 1)
    assert not wire.disconnecting
    door.clock.advance(1)
    assert [each.status for each in wire.responses()] == [200, 408]


@pytest.mark.parametrize("every", [1.0, 10.0])
def test_a_dripped_body_ends_soon(every: float) -> None:
    door, sink = Door(), Sink()
    door.decide = lambda request: sink
    wire = door.wire()
    wire.send(HEAD)
    assert drip(door, wire, every, b"x", 1000) <= LIMITS.body_grace + LIMITS.linger + 2 * every
    assert [each.status for each in wire.responses()] == [408]
    assert sink.aborted


def test_a_body_at_the_least_rate_lasts_as_long_as_it_needs() -> None:
    door = Door()
    door.decide = lambda request: Sink()
    wire = door.wire()
    wire.send(HEAD)
    assert drip(door, wire, 10.0, b"x" * LIMITS.body_rate * 10, 3600) == 3600


def test_a_fast_start_buys_no_stall() -> None:
    door = Door()
    door.decide = lambda request: Sink()
    wire = door.wire()
    wire.send(HEAD + b"x" * 10_000_000)
    door.clock.advance(LIMITS.body_grace)
    assert [each.status for each in wire.responses()] == [408]


def test_our_own_lag_is_not_held_against_the_client() -> None:
    door, sink = Door(), Sink()
    sink.behind = True
    door.decide = lambda request: sink
    wire = door.wire()
    wire.send(HEAD + b"x")
    door.clock.advance(1000)
    sink.catch_up()
    assert not wire.disconnecting
    door.clock.advance(LIMITS.body_grace)
    assert [each.status for each in wire.responses()] == [408]


def test_a_slow_answer_of_ours_has_no_deadline_here() -> None:
    door = Door()
    door.leaf.hold = {b"/"}
    wire = door.wire()
    wire.send(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
    door.clock.advance(86400)
    assert not wire.disconnecting


def test_a_client_that_never_reads_is_dropped() -> None:
    door = Door()
    door.leaf.hold = {b"/"}
    wire = door.wire(draining=False)
    wire.send(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
    door.leaf.held[b"/"].write(b"x" * 100_000)
    door.clock.advance(LIMITS.progress)
    assert wire.aborted


def test_a_client_that_reads_now_and_then_is_kept() -> None:
    door = Door()
    door.leaf.hold = {b"/"}
    wire = door.wire(draining=False)
    wire.send(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
    for _ in range(10):
        door.leaf.held[b"/"].write(b"x" * 100_000)
        door.clock.advance(LIMITS.progress - 1)
        wire.take()
    assert not wire.disconnected


def test_a_last_answer_that_is_not_read_is_dropped() -> None:
    door = Door()
    wire = door.wire(draining=False)
    wire.send(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
    assert wire.disconnecting and not wire.disconnected
    door.clock.advance(LIMITS.progress)
    assert wire.aborted


def test_what_the_kernel_gets_rid_of_is_progress() -> None:
    clock, expired, queue = Clock(), list[Phase](), [900]
    deadlines = Deadlines(LIMITS, clock, expired.append, lambda: queue[0])
    deadlines.draining()
    for _ in range(10):
        queue[0] -= 1
        clock.advance(LIMITS.progress)
    assert expired == []
    clock.advance(LIMITS.progress)
    assert expired == [Phase.DRAINING]
    assert clock.getDelayedCalls() == []


def test_an_answered_connection_leaves_no_timer_behind() -> None:
    door = Door()
    wire = door.wire()
    wire.send(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
    wire.hang_up()
    assert door.clock.getDelayedCalls() == []


def test_what_ends_after_the_connection_was_lost_is_not_timed() -> None:
    clock = Clock()
    deadlines = Deadlines(LIMITS, clock, lambda phase: None)
    deadlines.head()
    deadlines.over()
    deadlines.draining()
    deadlines.idle()
    assert clock.getDelayedCalls() == [] and deadlines.phase is Phase.OVER

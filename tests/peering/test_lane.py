"""A lane against a scripted peer in memory: order, time, hanging up, asking again, no left-overs."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import pytest
from OpenSSL import SSL
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionLost, ConnectionRefusedError
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from zope.interface.verify import verifyObject

from swarm.errors import Fault, PeerError
from swarm.interfaces import ILane
from swarm.model.digest import Digest
from swarm.model.peers import Address, Peer, PeerID
from swarm.model.ranges import ByteRange
from swarm.peering.lane import Lane
from swarm.peering.limits import PeerLimits
from tests.peering.wires import Wires

BLOB = bytes(range(256)) * 40
DIGEST = Digest.of(BLOB)
SIZE = len(BLOB)
PEER = Peer(PeerID(b"p" * 32), "p", Address("p.example", 7041))
FIRST, SECOND, THIRD = ByteRange(0, 4000), ByteRange(4000, 8000), ByteRange(8000, SIZE)


class Fetch:
    """One fetch under way, and what came of it."""

    def __init__(self, lane: ILane, span: ByteRange, sink: Callable[..., None] | None = None) -> None:
        self.at = span.start
        self.data = b""
        self.outcome: Any = None
        work: Coroutine[Any, Any, None] = lane.fetch(span, sink or self.sink)
        self.running: Deferred[None] = Deferred.fromCoroutine(work)
        self.running.addCallbacks(lambda _: "done", lambda f: f.value).addCallback(self.ended)

    def ended(self, outcome: object) -> None:
        self.outcome = outcome

    def sink(self, offset: int, views: Sequence[memoryview]) -> None:
        assert offset == self.at
        for view in views:
            self.data += view
            self.at += len(view)

    @property
    def fault(self) -> Fault:
        assert isinstance(self.outcome, PeerError), self.outcome
        assert self.outcome.peer == PEER.id
        return self.outcome.fault


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def wires() -> Wires:
    return Wires()


@pytest.fixture
def lane(wires: Wires, clock: Clock) -> Lane:
    limits = PeerLimits(batch=1000)
    return Lane(PEER, DIGEST, SIZE, endpoint=wires, clock=clock, cluster="test", limits=limits)


def answer(span: ByteRange, *more: str) -> bytes:
    lines = [f"Content-Range: {span.content_range(SIZE)}", f"Content-Length: {len(span)}", *more]
    head = "HTTP/1.1 206 x\r\n" + "".join(f"{line}\r\n" for line in lines) + "\r\n"
    return head.encode() + BLOB[span.start : span.stop]


MISSING = b"HTTP/1.1 404 x\r\nContent-Length: 2\r\n\r\nno"


def test_it_is_a_lane(lane: Lane) -> None:
    verifyObject(ILane, lane)


def test_the_request_is_one_bounded_range_of_the_blob(lane: Lane, wires: Wires) -> None:
    Fetch(lane, FIRST)
    lines = wires.transports[0].value().decode().split("\r\n")
    assert lines[0] == f"GET /blobs/{DIGEST.hex} HTTP/1.1"
    assert set(lines[1:]) == {
        "Host: p.example:7041",
        "Swarm-Cluster: test",
        "Accept-Encoding: identity",
        "Swarm-Given: ?1",
        "Range: bytes=0-3999",
        "",
    }


def test_the_second_request_is_sent_at_once_and_answered_in_order(
    lane: Lane, wires: Wires, clock: Clock
) -> None:
    one, two = Fetch(lane, FIRST), Fetch(lane, SECOND)
    assert wires.asked() == ["bytes=0-3999", "bytes=4000-7999"]
    stream = answer(FIRST) + answer(SECOND)
    wires.send(stream[:3000])
    assert one.outcome is None and one.data
    wires.send(stream[3000:4600])
    assert (str(one.outcome), one.data) == ("done", BLOB[:4000])
    three = Fetch(lane, THIRD)
    wires.send(stream[4600:] + answer(THIRD))
    assert (two.outcome, two.data) == ("done", BLOB[4000:8000])
    assert (three.outcome, three.data) == ("done", BLOB[8000:])
    assert len(wires.transports) == 1
    assert not clock.getDelayedCalls()


def test_a_refusal_leaves_the_lane_usable(lane: Lane, wires: Wires) -> None:
    one, two = Fetch(lane, FIRST), Fetch(lane, SECOND)
    wires.send(MISSING + b"HTTP/1.1 503 x\r\nRetry-After: 3\r\nContent-Length: 0\r\n\r\n")
    assert one.fault is Fault.MISSING
    assert two.fault is Fault.BUSY
    assert two.outcome.retry_after == 3
    three = Fetch(lane, THIRD)
    wires.send(answer(THIRD))
    assert three.outcome == "done"
    assert len(wires.transports) == 1


def test_an_unframed_refusal_costs_the_connection_but_not_the_lane(lane: Lane, wires: Wires) -> None:
    one, two = Fetch(lane, FIRST), Fetch(lane, SECOND)
    wires.send(b"HTTP/1.1 404 x\r\n\r\nwho knows where this ends")
    assert one.fault is Fault.MISSING
    assert wires.dropped(0)
    wires.send(answer(SECOND))
    assert two.outcome == "done"
    assert wires.asked(1) == ["bytes=4000-7999"]


def test_a_fault_ends_the_lane_for_all(lane: Lane, wires: Wires, clock: Clock) -> None:
    one, two = Fetch(lane, FIRST), Fetch(lane, SECOND)
    wires.send(answer(SECOND))
    assert one.fault is two.fault is Fault.WRONG_RANGE
    assert wires.dropped()
    assert Fetch(lane, FIRST).fault is Fault.WRONG_RANGE
    assert not clock.getDelayedCalls()
    assert one.outcome is not two.outcome


def test_an_early_end_delivers_what_had_arrived(lane: Lane, wires: Wires) -> None:
    one = Fetch(lane, FIRST)
    wires.send(answer(FIRST)[:-1])
    wires.end(ConnectionLost())
    assert one.fault is Fault.TRUNCATED
    assert one.data == BLOB[:3999]


def test_an_end_within_the_head_is_truncated_too(lane: Lane, wires: Wires) -> None:
    one = Fetch(lane, FIRST)
    wires.send(b"HTTP/1.1 2")
    wires.end()
    assert one.fault is Fault.TRUNCATED


def test_an_end_before_any_answer_is_unreachable(lane: Lane, wires: Wires) -> None:
    one = Fetch(lane, FIRST)
    wires.end(ConnectionLost())
    assert one.fault is Fault.UNREACHABLE
    assert len(wires.transports) == 1


def test_a_refused_connection_is_unreachable(lane: Lane, wires: Wires, clock: Clock) -> None:
    wires.later = True
    one = Fetch(lane, FIRST)
    wires.pending.pop()[0].errback(Failure(ConnectionRefusedError()))
    assert one.fault is Fault.UNREACHABLE
    assert not clock.getDelayedCalls()


def test_a_late_refusal_of_our_certificate_is_untrusted_and_not_tried_again(lane: Lane, wires: Wires) -> None:
    """TLS 1.3 says so only after the handshake."""
    Fetch(lane, FIRST)
    wires.send(answer(FIRST))
    two = Fetch(lane, SECOND)
    wires.end(SSL.Error([("SSL routines", "", "tlsv1 alert certificate revoked")]))
    assert two.fault is Fault.UNTRUSTED
    assert len(wires.transports) == 1


def test_what_is_no_matter_of_networks_is_not_blamed_on_the_peer(lane: Lane, wires: Wires) -> None:
    wires.later = True
    one = Fetch(lane, FIRST)
    wires.pending.pop()[0].errback(Failure(RuntimeError("ours")))
    assert isinstance(one.outcome, RuntimeError)


def test_a_cancelled_request_is_not_asked_again_on_a_fresh_connection(lane: Lane, wires: Wires) -> None:
    Fetch(lane, THIRD)
    wires.send(answer(THIRD))
    one, two = Fetch(lane, FIRST), Fetch(lane, SECOND)
    two.running.cancel()
    wires.end()
    assert wires.asked(1) == ["bytes=0-3999"]
    wires.send(answer(FIRST))
    assert one.outcome == "done"


def test_a_sink_that_fails_on_the_last_bytes_of_a_lost_connection(lane: Lane, wires: Wires) -> None:
    def full(offset: int, views: Sequence[memoryview]) -> None:
        raise OSError("disk full")

    one = Fetch(lane, FIRST, full)
    wires.send(answer(FIRST)[:200])
    wires.end()
    assert isinstance(one.outcome, OSError)


def test_a_stale_connection_is_not_the_peers_fault(lane: Lane, wires: Wires) -> None:
    """The request crossed the server's idle close."""
    Fetch(lane, FIRST)
    wires.send(answer(FIRST))
    two, three = Fetch(lane, SECOND), Fetch(lane, THIRD)
    wires.end()
    assert wires.asked(1) == ["bytes=4000-7999", "bytes=8000-10239"]
    wires.send(answer(SECOND) + answer(THIRD))
    assert two.outcome == three.outcome == "done"


def test_but_only_once(lane: Lane, wires: Wires) -> None:
    Fetch(lane, FIRST)
    wires.send(answer(FIRST))
    two = Fetch(lane, SECOND)
    wires.end()
    wires.end()
    assert two.fault is Fault.UNREACHABLE


def test_an_idle_close_is_noticed_and_the_next_fetch_dials(lane: Lane, wires: Wires) -> None:
    Fetch(lane, FIRST)
    wires.send(answer(FIRST))
    wires.end()
    assert len(wires.transports) == 1
    two = Fetch(lane, SECOND)
    wires.send(answer(SECOND))
    assert two.outcome == "done"


def test_connection_close_moves_what_is_queued_to_a_fresh_connection(lane: Lane, wires: Wires) -> None:
    """nginx says so every ``keepalive_requests`` requests."""
    one, two = Fetch(lane, FIRST), Fetch(lane, SECOND)
    wires.send(answer(FIRST, "Connection: close"))
    assert one.outcome == "done"
    assert wires.dropped(0)
    wires.send(answer(SECOND, "Connection: close"))
    assert two.outcome == "done"
    assert len(wires.transports) == 2


@pytest.mark.parametrize("arrived", [0, 20, 3000])
def test_silence(lane: Lane, wires: Wires, clock: Clock, arrived: int) -> None:
    one = Fetch(lane, FIRST)
    clock.advance(9)
    wires.send(answer(FIRST)[:arrived] or b"H")
    clock.advance(9.9)
    assert one.outcome is None
    clock.advance(0.2)
    assert one.fault is Fault.SILENT
    assert wires.dropped()
    assert one.data == answer(FIRST)[:arrived].partition(b"\r\n\r\n")[2]
    assert not clock.getDelayedCalls()


def test_a_head_that_drips_is_silence_in_the_end(lane: Lane, wires: Wires, clock: Clock) -> None:
    one = Fetch(lane, FIRST)
    for byte in answer(FIRST)[:40]:
        wires.send(bytes([byte]))
        clock.advance(5)
        if one.outcome is not None:
            break
    assert one.fault is Fault.SILENT
    assert clock.seconds() == 30


def test_a_body_may_take_as_long_as_it_likes_while_it_moves(lane: Lane, wires: Wires, clock: Clock) -> None:
    one = Fetch(lane, FIRST)
    data = answer(FIRST)
    for at in range(0, len(data), 100):
        wires.send(data[at : at + 100])
        clock.advance(9)
    assert one.outcome == "done"


def test_an_idle_lane_has_no_timer(lane: Lane, wires: Wires, clock: Clock) -> None:
    Fetch(lane, FIRST)
    wires.send(answer(FIRST))
    assert not clock.getDelayedCalls()
    clock.advance(1000)
    two = Fetch(lane, SECOND)
    clock.advance(9)
    wires.send(answer(SECOND))
    assert two.outcome == "done"


def test_a_slow_connection_is_given_up(lane: Lane, wires: Wires, clock: Clock) -> None:
    wires.later = True
    one = Fetch(lane, FIRST)
    clock.advance(10)
    assert one.fault is Fault.UNREACHABLE
    assert not clock.getDelayedCalls()


def test_pause_stops_reading_and_the_patience(lane: Lane, wires: Wires, clock: Clock) -> None:
    one = Fetch(lane, FIRST)
    lane.pause()
    lane.pause()
    assert wires.transports[0].producerState == "paused"
    clock.advance(100)
    assert one.outcome is None and not clock.getDelayedCalls()
    lane.resume()
    lane.resume()
    assert wires.transports[0].producerState == "producing"
    clock.advance(9)
    assert one.outcome is None
    clock.advance(1)
    assert one.fault is Fault.SILENT


def test_a_lane_paused_before_it_connects_begins_paused(lane: Lane, wires: Wires) -> None:
    wires.later = True
    Fetch(lane, FIRST)
    lane.pause()
    wires.accept()
    assert wires.transports[0].producerState == "paused"


def test_close(lane: Lane, wires: Wires, clock: Clock) -> None:
    one, two = Fetch(lane, FIRST), Fetch(lane, SECOND)
    lane.close()
    lane.close()
    assert isinstance(one.outcome, CancelledError) and isinstance(two.outcome, CancelledError)
    assert wires.dropped()
    wires.end()
    assert isinstance(Fetch(lane, FIRST).outcome, CancelledError)
    assert not clock.getDelayedCalls()


def test_close_while_dialing(lane: Lane, wires: Wires, clock: Clock) -> None:
    wires.later = True
    one = Fetch(lane, FIRST)
    dialing = wires.pending[0][0]
    lane.close()
    assert isinstance(one.outcome, CancelledError)
    assert dialing.called
    assert not clock.getDelayedCalls()


def test_a_connection_that_comes_up_after_close_is_dropped(lane: Lane, wires: Wires) -> None:
    wires.later = True
    Fetch(lane, FIRST)
    done, factory = wires.pending[0]
    lane.close()
    wires.pending = [(Deferred(), factory)]
    wires.accept()
    assert wires.dropped()
    assert done.called


def test_cancelling_the_fetch_under_way_hangs_up_and_keeps_the_queued_one(lane: Lane, wires: Wires) -> None:
    one, two = Fetch(lane, FIRST), Fetch(lane, SECOND)
    wires.send(answer(FIRST)[:2000])
    one.running.cancel()
    assert isinstance(one.outcome, CancelledError)
    assert wires.dropped(0)
    assert wires.asked(1) == ["bytes=4000-7999"]
    wires.send(answer(FIRST)[2000:], on=0)
    wires.send(answer(SECOND))
    assert (two.outcome, two.data) == ("done", BLOB[4000:8000])


def test_cancelling_the_queued_fetch_hangs_up_only_when_its_turn_comes(
    lane: Lane, wires: Wires, clock: Clock
) -> None:
    one, two = Fetch(lane, FIRST), Fetch(lane, SECOND)
    two.running.cancel()
    three = Fetch(lane, THIRD)
    assert wires.asked() == ["bytes=0-3999", "bytes=4000-7999"]
    wires.send(answer(FIRST))
    assert one.outcome == "done"
    assert wires.dropped(0)
    assert wires.asked(1) == ["bytes=8000-10239"]
    wires.send(answer(THIRD))
    assert three.outcome == "done"
    assert not clock.getDelayedCalls()


def test_cancelling_while_dialing_leaves_a_connection_for_the_next(lane: Lane, wires: Wires) -> None:
    wires.later = True
    one = Fetch(lane, FIRST)
    one.running.cancel()
    two = Fetch(lane, SECOND)
    wires.accept()
    assert wires.asked() == ["bytes=4000-7999"]
    wires.send(answer(SECOND))
    assert two.outcome == "done"


def test_what_the_sink_raises_comes_out_of_the_fetch(lane: Lane, wires: Wires, clock: Clock) -> None:
    def full(offset: int, views: Sequence[memoryview]) -> None:
        raise OSError("disk full")

    one, two = Fetch(lane, FIRST, full), Fetch(lane, SECOND)
    wires.send(answer(FIRST))
    assert isinstance(one.outcome, OSError)
    assert isinstance(two.outcome, CancelledError)
    assert wires.dropped()
    assert not clock.getDelayedCalls()


def test_the_sink_may_close_the_lane(lane: Lane, wires: Wires) -> None:
    one = Fetch(lane, FIRST, lambda *_: lane.close())
    wires.send(answer(FIRST) + answer(SECOND))
    assert isinstance(one.outcome, CancelledError)


def test_bytes_on_an_idle_connection_end_the_lane(lane: Lane, wires: Wires) -> None:
    Fetch(lane, FIRST)
    wires.send(answer(FIRST))
    wires.send(b"HTTP/1.1 200 OK\r\n")
    assert wires.dropped()
    assert Fetch(lane, SECOND).fault is Fault.GARBLED


@pytest.mark.parametrize(
    ("block", "fault"),
    [
        (b"X-Pad: " + b"a" * 1000 + b"\r\n", Fault.OVERSIZED),
        (b"\r\nHTTP/1.1 100 Continue\r\n", Fault.OVERSIZED),
    ],
)
def test_a_torrent_of_head_is_cut_at_the_budget(lane: Lane, wires: Wires, block: bytes, fault: Fault) -> None:
    one = Fetch(lane, FIRST)
    wires.send(b"HTTP/1.1 100 Continue\r\n")
    accepted = 0
    while not wires.dropped() and accepted < 300 << 20:
        wires.send(block)
        accepted += len(block)
    assert one.fault is fault
    assert accepted <= 20 << 10


def test_a_body_is_handed_over_from_its_first_byte_on_and_in_batches_if_it_comes_fast(
    lane: Lane, wires: Wires, clock: Clock
) -> None:
    """Else a slow peer would look silent, and a far one slower to begin than it is."""
    one, stream = Fetch(lane, FIRST), answer(FIRST)
    head, sent = len(stream) - len(FIRST), 0

    def handed_after(stop: int) -> int:
        nonlocal sent
        wires.send(stream[sent : head + stop])
        sent = head + stop
        return len(one.data)

    assert [handed_after(stop) for stop in (1, 400, 800, 1200, 1300)] == [1, 1, 1, 1200, 1200]
    clock.advance(0.1)
    assert handed_after(1310) == 1310
    assert handed_after(4000) == 4000
    assert (one.outcome, one.data) == ("done", BLOB[:4000])

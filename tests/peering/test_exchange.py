"""The client against hostile and unlucky peers, in memory: each gets its budget, and its fault a name."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

import pytest
from attrs import evolve
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock

from swarm.errors import Fault, PeerError, StoreFailed
from swarm.interfaces import BlobInfo, ILane
from swarm.model.digest import Digest
from swarm.model.filenames import Filename
from swarm.model.grains import Grains
from swarm.model.midstates import Midstates
from swarm.model.peers import Address, Peer, PeerID
from swarm.model.ranges import ByteRange, RangeSet
from swarm.peering.client import Introduction, PeerClient
from swarm.peering.limits import PeerLimits
from swarm.testing.contracts_peers import Collector
from tests.peering.wires import Wires

BLOB = bytes(range(256)) * 12_000
DIGEST = Digest.of(BLOB)
PEER = Peer(PeerID(b"p" * 32), "p", Address("p.example", 7041))
OTHER = Peer(PeerID(b"q" * 32), "q", Address("p.example", 7041))
INFO = BlobInfo(DIGEST, len(BLOB), (Filename("a"), Filename("ü,%")))
HELD = f"HTTP/1.1 200 OK\r\nContent-Length: {len(BLOB)}\r\nETag: {DIGEST.etag}\r\n".encode()


class Rig:
    """A client whose connections a test answers."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.wires = Wires()
        self.dialed: list[tuple[Address, PeerID | None]] = []
        self.client = PeerClient(
            dial=self.dial,
            identify=lambda transport: PEER.id,
            introduce=lambda: Introduction("us", "test", "pub:1", "mgmt:2"),
            clock=self.clock,
            limits=PeerLimits(),
        )

    def dial(self, address: Address, expected: PeerID | None) -> IStreamClientEndpoint:
        self.dialed.append((address, expected))
        return self.wires

    def ask(self, work: Coroutine[Any, Any, Any]) -> Call:
        return Call(work)

    def locate(self, peer: Peer = PEER) -> Call:
        return Call(self.client.locate(peer, DIGEST))

    def push(self, read: Any = None) -> Call:
        async def from_blob(offset: int, length: int) -> bytes:
            return BLOB[offset : offset + length]

        return Call(self.client.push(PEER, INFO, read or from_blob, 3))

    def nothing_left(self) -> bool:
        """No connection and no timer, once the client is closed."""
        self.client.close()
        self.wires.settle()
        return all(t.disconnecting for t in self.wires.transports) and not self.clock.getDelayedCalls()


class Call:
    """A question under way, and its outcome."""

    def __init__(self, work: Coroutine[Any, Any, Any]) -> None:
        self.outcome: Any = ...
        self.running: Deferred[Any] = Deferred.fromCoroutine(work)
        self.running.addErrback(lambda failure: failure.value).addCallback(self.ended)

    def ended(self, outcome: object) -> None:
        self.outcome = outcome

    @property
    def fault(self) -> Fault:
        assert isinstance(self.outcome, PeerError), self.outcome
        assert self.outcome.peer == PEER.id
        return self.outcome.fault


@pytest.fixture
def rig() -> Rig:
    return Rig()


# -- questions and answers ----------------------------------------------------


@pytest.mark.parametrize("host", ["192.0.2.1", "::1", "2001:db8::7", "paris.example.org"])
def test_a_peer_is_asked_by_any_kind_of_address(rig: Rig, host: str) -> None:
    address = Address(host, 7041)
    call = rig.locate(evolve(PEER, address=address))
    assert rig.dialed == [(address, PEER.id)]
    assert f"\r\nHost: {address}\r\n".encode() in rig.wires.said()
    rig.wires.send(HELD + b"\r\n")
    assert call.outcome.size == len(BLOB)


def test_a_holder_says_size_and_names(rig: Rig) -> None:
    call = rig.locate()
    assert rig.wires.said().startswith(f"HEAD /blobs/{DIGEST.hex} HTTP/1.1\r\n".encode())
    assert b"Swarm-Cluster: test\r\n" in rig.wires.said()
    assert b"Accept-Encoding: identity\r\n" in rig.wires.said()
    rig.wires.send(HELD + b"Swarm-Names: a,%C3%BC%2C%25\r\n\r\n")
    assert (call.outcome.size, call.outcome.complete) == (len(BLOB), True)
    assert call.outcome.names == INFO.names
    assert rig.nothing_left()


def test_a_partial_holder_says_what_it_has(rig: Rig) -> None:
    call = rig.locate()
    rig.wires.send(HELD + b"Swarm-Have: bytes=0-9,20-29\r\n\r\n")
    have = RangeSet()
    have.add(0, 10)
    have.add(20, 30)
    assert call.outcome.have == have


def test_no_holder(rig: Rig) -> None:
    call = rig.locate()
    rig.wires.send(b"HTTP/1.1 404 x\r\nContent-Length: 55\r\n\r\n")
    assert call.outcome is None


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        (b"HTTP/1.1 200 x\r\n\r\n", Fault.GARBLED),
        (b"HTTP/1.1 200 x\r\nContent-Length: 99999999999999999999\r\n\r\n", Fault.GARBLED),
        (b"HTTP/1.1 200 x\r\nContent-Length: 9223372036854775808\r\n\r\n", Fault.GARBLED),
        (b'HTTP/1.1 200 x\r\nContent-Length: 5\r\nETag: "x"\r\n\r\n', Fault.VALIDATOR),
        (HELD + b"Swarm-Have: all\r\n\r\n", Fault.GARBLED),
        (HELD + b"Swarm-Have: bytes=0-9999999999\r\n\r\n", Fault.GARBLED),
        (HELD + b"Swarm-Names: a%2Fb\r\n\r\n", Fault.GARBLED),
        (HELD + b"Swarm-Names: " + b"a," * 40 + b"a\r\n\r\n", Fault.GARBLED),
        (HELD + b"Content-Encoding: gzip\r\n\r\n", Fault.CODED),
        (b"HTTP/1.1 302 x\r\nLocation: https://evil.example/\r\n\r\n", Fault.REFUSED),
        (b"HTTP/1.1 403 x\r\n\r\n", Fault.REFUSED),
        (b"HTTP/1.1 421 x\r\n\r\n", Fault.FOREIGN),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", Fault.GARBLED),
    ],
)
def test_each_wrong_answer_has_its_name(rig: Rig, answer: bytes, fault: Fault) -> None:
    call = rig.locate()
    rig.wires.send(answer)
    assert call.fault is fault
    assert len(rig.dialed) == 1
    assert rig.nothing_left()


def test_busy_says_when_to_come_back(rig: Rig) -> None:
    call = rig.locate()
    rig.wires.send(b"HTTP/1.1 503 x\r\nRetry-After: 7\r\n\r\n")
    assert call.fault is Fault.BUSY
    assert call.outcome.retry_after == 7


def ok(body: bytes) -> bytes:
    return b"HTTP/1.1 200 x\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)


def test_midstates_are_for_the_size_that_was_asked(rig: Rig) -> None:
    size = 3 << 20
    right = Midstates(Grains.of(size), bytes(128))
    call = rig.ask(rig.client.midstates(PEER, DIGEST, size))
    assert f"GET /blobs/{DIGEST.hex}/midstates?grain=1048576 ".encode() in rig.wires.said()
    rig.wires.send(ok(right.encode()))
    assert call.outcome == right
    call = rig.ask(rig.client.midstates(PEER, DIGEST, size + 1 - (1 << 20)))
    rig.wires.send(ok(Midstates(Grains.of(size - (1 << 20)), bytes(64)).encode()))
    assert call.fault is Fault.GARBLED


def test_midstates_that_are_missing_or_too_many(rig: Rig) -> None:
    call = rig.ask(rig.client.midstates(PEER, DIGEST, 1))
    rig.wires.send(b"HTTP/1.1 404 x\r\nContent-Length: 0\r\n\r\n")
    assert call.fault is Fault.MISSING
    call = rig.ask(rig.client.midstates(PEER, DIGEST, 1))
    rig.wires.send(ok(bytes(5000)))
    assert call.fault is Fault.OVERSIZED
    assert rig.nothing_left()


def test_a_greeting_is_a_form_and_tells_who_answers(rig: Rig) -> None:
    call = rig.ask(rig.client.greet(PEER.address, True))
    assert rig.dialed == [(PEER.address, None)]
    body = rig.wires.said().partition(b"\r\n\r\n")[2]
    assert body == b"name=us&public-addr=pub%3A1&mgmt-addr=mgmt%3A2&request-full-update=true"
    rig.wires.send(ok(b'{"Name":"test","Peers":{}}'))
    assert call.outcome == (PEER.id, {"Name": "test", "Peers": {}})


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        (b'{"Name":"other"}', Fault.FOREIGN),
        (b"{}", Fault.FOREIGN),
        (b"[]", Fault.GARBLED),
        (b"{", Fault.GARBLED),
        (b"\xff", Fault.GARBLED),
        (b"[" * 100_000, Fault.GARBLED),
        (b" " * (1 << 20) + b"{}", Fault.OVERSIZED),
    ],
)
def test_a_greeting_answered_wrongly(rig: Rig, body: bytes, fault: Fault) -> None:
    call = rig.ask(rig.client.greet(PEER.address, False))
    rig.wires.send(ok(body))
    error = call.outcome
    assert isinstance(error, PeerError)
    assert error.fault is fault


def test_an_advice_is_cut_to_a_kilobyte(rig: Rig) -> None:
    call = rig.ask(rig.client.report_corrupt(PEER, DIGEST, "ä" * 4000))
    head, _, body = rig.wires.said().partition(b"\r\n\r\n")
    assert head.startswith(f"POST /blobs/{DIGEST.hex}/corrupt ".encode())
    assert body == "ä".encode() * 512
    rig.wires.send(b"HTTP/1.1 202 x\r\nContent-Length: 0\r\n\r\n")
    assert call.outcome is None


def test_a_tombstone_names_its_generation(rig: Rig) -> None:
    call = rig.ask(rig.client.delete(PEER, DIGEST, 4))
    assert b"Swarm-Generation: 4\r\n" in rig.wires.said()
    rig.wires.send(ok(b"{}"))
    assert call.outcome is True


# -- budgets ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("start", "block"),
    [
        (b"HTTP/1.1 200 OK\r\n", b"".join(b"X-%07d: %s\r\n" % (i, b"a" * 1000) for i in range(20))),
        (b"HTTP/1.1 200 OK\r\n", b"x" * 10_000),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        (b"", b"HTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\n" * 50),
    ],
)
def test_a_torrent_of_head_is_cut_at_the_budget(rig: Rig, start: bytes, block: bytes) -> None:
    call = rig.locate()
    rig.wires.send(start)
    accepted = len(start)
    while not rig.wires.dropped() and accepted < 300 << 20:
        rig.wires.send(block)
        accepted += len(block)
    assert call.fault in (Fault.OVERSIZED, Fault.GARBLED)
    assert accepted <= (64 + 4 + 20) << 10
    assert rig.nothing_left()


def test_silence(rig: Rig) -> None:
    call = rig.locate()
    rig.clock.advance(9.9)
    rig.wires.send(b"HTTP/1.1 2")
    rig.clock.advance(9.9)
    assert call.outcome is ...
    rig.clock.advance(0.1)
    rig.wires.settle()
    assert call.fault is Fault.SILENT
    assert len(rig.wires.transports) == 1
    assert rig.nothing_left()


def test_a_drip_is_given_up_in_the_end(rig: Rig) -> None:
    call = rig.locate()
    rig.wires.send(b"HTTP/1.1 200 OK\r\nX: ")
    while call.outcome is ... and rig.clock.seconds() < 1000:
        rig.wires.send(b"x")
        rig.clock.advance(5)
        rig.wires.settle()
    assert call.fault is Fault.SILENT
    assert rig.clock.seconds() == 30
    assert rig.nothing_left()


def test_no_connection_in_time(rig: Rig) -> None:
    rig.wires.later = True
    call = rig.locate()
    rig.clock.advance(10)
    assert call.fault is Fault.UNREACHABLE
    assert rig.nothing_left()


def test_a_truncated_body(rig: Rig) -> None:
    call = rig.ask(rig.client.greet(PEER.address, True))
    rig.wires.send(ok(b"{}" * 100)[:-1])
    rig.wires.end(ConnectionLost())
    assert isinstance(call.outcome, PeerError)
    assert call.outcome.fault is Fault.TRUNCATED


def test_an_end_before_the_answer(rig: Rig) -> None:
    call = rig.locate()
    rig.wires.end(ConnectionLost())
    assert call.fault is Fault.UNREACHABLE
    assert len(rig.dialed) == 1


def test_cancelling_ends_the_connection(rig: Rig) -> None:
    call = rig.locate()
    call.running.cancel()
    rig.wires.settle()
    assert isinstance(call.outcome, CancelledError)
    assert rig.nothing_left()


# -- kept connections ---------------------------------------------------------------


def test_a_connection_is_kept_and_used_again(rig: Rig) -> None:
    for _ in range(3):
        call = rig.locate()
        rig.wires.send(HELD + b"\r\n")
        assert call.outcome.size == len(BLOB)
    assert len(rig.wires.transports) == 1
    rig.clock.advance(89)
    assert not rig.wires.dropped()
    rig.clock.advance(1)
    assert rig.wires.dropped()
    rig.wires.settle()
    assert rig.nothing_left()


def test_identities_at_one_address_share_nothing(rig: Rig) -> None:
    """Whose certificate a connection was checked against is part of what it is."""
    rig.locate(PEER)
    rig.wires.send(HELD + b"\r\n")
    rig.locate(OTHER)
    assert rig.dialed == [(PEER.address, PEER.id), (PEER.address, OTHER.id)]
    assert len(rig.wires.transports) == 2


GREETED = b'HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\n{"Name":"test"}'


def greeted(rig: Rig) -> int:
    """Greet; which connection it went over."""
    before = [len(t.value()) for t in rig.wires.transports]
    call = rig.ask(rig.client.greet(PEER.address, full=True))
    said = [len(t.value()) for t in rig.wires.transports]
    (used,) = [n for n, length in enumerate(said) if length > sum(before[n : n + 1])]
    rig.wires.send(GREETED, on=used)
    assert call.outcome[0] == PEER.id
    return used


def test_greetings_go_round_the_kept_connections_so_all_stay_warm(rig: Rig) -> None:
    used = []
    for _ in range(8):
        used.append(greeted(rig))
        rig.clock.advance(38)
    assert used == [0, 1] * 4
    assert not rig.wires.dropped(0) and not rig.wires.dropped(1)
    assert rig.nothing_left()


def test_who_answered_a_greeting_is_asked_on_the_same_connections(rig: Rig) -> None:
    greeted(rig), greeted(rig)
    one, two = rig.locate(), rig.locate()
    rig.wires.send(HELD + b"\r\n", on=0)
    rig.wires.send(HELD + b"\r\n", on=1)
    assert one.outcome.size == two.outcome.size == len(BLOB)
    assert len(rig.wires.transports) == 2


def test_who_else_answered_a_greeting_there_is_not_asked_for_a_peer(rig: Rig) -> None:
    greeted(rig)
    rig.locate(OTHER)
    assert rig.wires.dropped(0) and len(rig.wires.transports) == 2
    assert rig.dialed[-1] == (PEER.address, OTHER.id)


def test_stale_connections_are_tried_through_and_nobodys_fault(rig: Rig) -> None:
    one, two = rig.locate(), rig.locate()
    rig.wires.send(HELD + b"\r\n", on=0)
    rig.wires.send(HELD + b"\r\n", on=1)
    assert one.outcome.size == two.outcome.size
    call = rig.locate()
    rig.wires.end(on=0)
    rig.wires.end(on=1)
    assert call.outcome is ...
    rig.wires.send(HELD + b"\r\n", on=2)
    assert call.outcome.size == len(BLOB)


def test_a_kept_connection_that_speaks_unasked_is_dropped(rig: Rig) -> None:
    rig.locate()
    rig.wires.send(HELD + b"\r\n")
    rig.wires.send(b"x")
    assert rig.wires.dropped()
    call = rig.locate()
    rig.wires.send(HELD + b"\r\n", on=1)
    assert call.outcome.size == len(BLOB)


def test_close_ends_what_is_under_way(rig: Rig) -> None:
    call = rig.locate()
    assert rig.nothing_left()
    assert call.fault is Fault.UNREACHABLE


# -- a lane that begins on a kept connection ---------------------------------------------


@pytest.fixture
def lane(rig: Rig) -> ILane:
    rig.locate()
    rig.wires.send(HELD + b"\r\n")
    return rig.client.lane(PEER, DIGEST, len(BLOB))


def answer(span: ByteRange) -> bytes:
    head = f"HTTP/1.1 206 x\r\nContent-Range: {span.content_range(len(BLOB))}\r\nContent-Length: {len(span)}"
    return head.encode() + b"\r\n\r\n" + BLOB[span.start : span.stop]


def fetch(lane: ILane, span: ByteRange) -> tuple[Call, Collector]:
    sink = Collector(span.start)
    return Call(lane.fetch(span, sink)), sink


FIRST, SECOND = ByteRange(0, 70_000), ByteRange(70_000, 200_000)


def test_the_first_bytes_come_over_the_connection_that_is_kept(rig: Rig, lane: ILane) -> None:
    (one, data), (two, more) = fetch(lane, FIRST), fetch(lane, SECOND)
    assert len(rig.wires.transports) == 1
    assert rig.wires.asked() == [FIRST.header, SECOND.header]
    rig.wires.send(answer(FIRST) + answer(SECOND))
    assert one.outcome is two.outcome is None
    assert data.data + more.data == BLOB[: SECOND.stop]
    rig.clock.advance(1000)
    assert not rig.wires.dropped(), "it is the lane's as long as that wants"
    lane.close()
    assert rig.wires.dropped()
    assert rig.nothing_left()


def test_bytes_in_records_are_handed_on_as_they_are(rig: Rig, lane: ILane) -> None:
    one, data = fetch(lane, FIRST)
    whole = answer(FIRST)
    records = [whole[at : at + 16_384] for at in range(0, len(whole), 16_384)]
    rig.wires.protocols[0].recordsReceived(records)  # type: ignore[attr-defined]  # a meter's
    assert one.outcome is None and data.data == BLOB[: FIRST.stop]


def test_an_answer_in_records_is_read_too(rig: Rig) -> None:
    for records in ([HELD + b"\r\n"], [HELD, b"\r\n"]):
        call = rig.locate()
        rig.wires.protocols[0].recordsReceived(records)  # type: ignore[attr-defined]  # a meter's
        assert call.outcome.size == len(BLOB)


def test_a_connection_that_a_lane_has_is_nobody_elses(rig: Rig, lane: ILane) -> None:
    one, _ = fetch(lane, FIRST)
    call = rig.locate()
    assert len(rig.wires.transports) == 2
    rig.wires.send(HELD + b"\r\n", on=1)
    assert call.outcome.size == len(BLOB)
    rig.client.close()
    assert rig.wires.dropped(1) and not rig.wires.dropped(0)
    rig.wires.send(answer(FIRST), on=0)
    assert one.outcome is None


def test_a_lane_on_a_stale_connection_asks_on_a_fresh_one_and_blames_nobody(rig: Rig, lane: ILane) -> None:
    (one, data), (two, _) = fetch(lane, FIRST), fetch(lane, SECOND)
    rig.wires.end(on=0)
    assert rig.dialed[-1] == (PEER.address, PEER.id)
    assert rig.wires.asked(1) == [FIRST.header, SECOND.header]
    rig.wires.send(answer(FIRST) + answer(SECOND), on=1)
    assert one.outcome is two.outcome is None and data.data == BLOB[: FIRST.stop]


def test_a_stale_connection_is_followed_by_a_fresh_one_though_others_are_kept(rig: Rig, lane: ILane) -> None:
    """They are as old, and it is a matter of one try."""
    greeted(rig)
    assert len(rig.wires.transports) == 2
    one, _ = fetch(lane, FIRST)
    rig.wires.end(on=0)
    assert rig.wires.asked(1) == [] and rig.wires.asked(2) == [FIRST.header]
    rig.wires.end(on=2)
    assert one.fault is Fault.UNREACHABLE


def test_a_lane_takes_no_connection_of_another_identity(rig: Rig, lane: ILane) -> None:
    other = rig.client.lane(OTHER, DIGEST, len(BLOB))
    fetch(other, FIRST)
    assert rig.wires.dropped(0) and rig.dialed[-1] == (PEER.address, OTHER.id)
    assert rig.wires.asked(1) == [FIRST.header]


def test_what_comes_unasked_on_a_connection_that_was_taken_over_ends_the_lane(rig: Rig, lane: ILane) -> None:
    one, _ = fetch(lane, FIRST)
    rig.wires.send(answer(FIRST))
    rig.wires.send(b"x")
    assert one.outcome is None and rig.wires.dropped()
    with pytest.raises(PeerError) as failed:
        lane.fetch(SECOND, Collector(0)).send(None)
    assert failed.value.fault is Fault.GARBLED


def test_silence_on_a_connection_that_was_taken_over_counts_from_when_it_was_asked(
    rig: Rig, lane: ILane
) -> None:
    rig.clock.advance(60)
    one, _ = fetch(lane, FIRST)
    rig.clock.advance(9)
    assert one.outcome is ...
    rig.clock.advance(1)
    assert one.fault is Fault.SILENT


# -- pushing ------------------------------------------------------------------------


def test_a_push_streams_the_blob(rig: Rig) -> None:
    call = rig.push()
    head, _, body = rig.wires.said().partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    assert lines[0] == f"PUT /blobs/{DIGEST.hex} HTTP/1.1"
    assert f"Content-Length: {len(BLOB)}" in lines
    assert f"Repr-Digest: {DIGEST.repr_digest}" in lines
    assert "Swarm-Generation: 3" in lines
    assert "Swarm-Names: a,%C3%BC%2C%25" in lines
    assert not any(line.startswith("Expect") for line in lines)
    assert body == BLOB
    rig.clock.advance(599)
    rig.wires.send(b"HTTP/1.1 201 x\r\nContent-Length: 0\r\n\r\n")
    assert call.outcome is True
    call = rig.push()
    rig.wires.send(ok(b"{}"))
    assert call.outcome is False
    assert rig.nothing_left()


def test_an_empty_blob_is_pushed_too(rig: Rig) -> None:
    async def never(offset: int, length: int) -> bytes:
        raise AssertionError

    call = rig.ask(rig.client.push(PEER, BlobInfo(Digest.of(b""), 0), never))
    assert b"\r\nContent-Length: 0\r\n" in rig.wires.said()
    rig.wires.send(b"HTTP/1.1 201 x\r\nContent-Length: 0\r\n\r\n")
    assert call.outcome is True


def test_a_push_reads_no_faster_than_the_peer_takes(rig: Rig) -> None:
    reads: list[tuple[int, int]] = []

    async def read(offset: int, length: int) -> bytes:
        reads.append((offset, length))
        rig.wires.transports[0].producer.pauseProducing()
        return BLOB[offset : offset + length]

    call = rig.push(read)
    assert reads == [(0, 1 << 20)]
    rig.wires.transports[0].producer.resumeProducing()
    assert reads == [(0, 1 << 20), (1 << 20, 1 << 20)]
    rig.wires.transports[0].producer.resumeProducing()
    rig.wires.transports[0].producer.resumeProducing()
    assert rig.wires.said().endswith(BLOB)
    rig.wires.send(ok(b""))
    assert call.outcome is False


def paused(rig: Rig) -> Call:
    """A push the peer has stopped taking."""

    async def read(offset: int, length: int) -> bytes:
        rig.wires.transports[-1].producer.pauseProducing()
        return BLOB[offset : offset + length]

    return rig.push(read)


def take_all(rig: Rig) -> None:
    """The peer takes the rest of a push."""
    while (producer := rig.wires.transports[-1].producer) is not None:
        producer.resumeProducing()
    assert rig.wires.said().endswith(BLOB)


def test_a_peer_that_takes_nothing_more_is_silent(rig: Rig) -> None:
    call = paused(rig)
    rig.clock.advance(60)
    rig.wires.settle()
    assert call.fault is Fault.SILENT
    assert rig.nothing_left()


def test_a_verdict_that_never_comes(rig: Rig) -> None:
    call = rig.push()
    rig.clock.advance(600)
    rig.wires.settle()
    assert call.fault is Fault.SILENT
    assert rig.nothing_left()


@pytest.mark.parametrize("step", [1, 10_000])
def test_a_refusal_before_the_end_of_the_body_is_heard(rig: Rig, step: int) -> None:
    """Twisted's own client loses it with the connection."""
    call = paused(rig)
    body = b'{"error":"x","detail":"no\\u0000 room"}'
    answer = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 507 x\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    for at in range(0, len(answer), step):
        rig.wires.send(answer[at : at + step])
    assert call.fault is Fault.REFUSED
    assert call.outcome.detail == "507 no  room"
    assert rig.nothing_left()


def test_an_acceptance_before_the_end_of_the_body_is_heard_too(rig: Rig) -> None:
    call = paused(rig)
    rig.wires.send(ok(b""))
    assert call.outcome is False
    assert rig.nothing_left()


def test_an_answer_that_begins_before_the_end_of_the_body(rig: Rig) -> None:
    call = paused(rig)
    rig.wires.send(b"HTTP/1.1 201 x\r\nContent-Le")
    take_all(rig)
    rig.wires.send(b"ngth: 0\r\n\r\n")
    assert call.outcome is True


def test_nonsense_during_a_push(rig: Rig) -> None:
    call = paused(rig)
    rig.wires.send(b"no HTTP\r\n\r\n")
    assert call.fault is Fault.GARBLED


def test_chatter_during_a_push_counts(rig: Rig) -> None:
    call = paused(rig)
    for _ in range(10_000):
        rig.wires.send(b"HTTP/1.1 100 Continue\r\n\r\n")
    assert call.fault is Fault.OVERSIZED


def test_a_disk_that_fails_is_not_the_peers_fault(rig: Rig) -> None:
    async def broken(offset: int, length: int) -> bytes:
        raise StoreFailed("EIO")

    call = rig.push(broken)
    rig.wires.settle()
    assert isinstance(call.outcome, StoreFailed)
    assert rig.nothing_left()


@pytest.mark.parametrize("where", ["reading", "sending", "waiting"])
def test_cancelling_a_push(rig: Rig, where: str) -> None:
    async def forever(offset: int, length: int) -> bytes:
        return await Deferred()

    call = rig.push(forever) if where == "reading" else paused(rig) if where == "sending" else rig.push()
    call.running.cancel()
    rig.wires.settle()
    assert isinstance(call.outcome, CancelledError)
    assert rig.nothing_left()


def test_a_connection_lost_during_a_push(rig: Rig) -> None:
    call = paused(rig)
    rig.wires.end(ConnectionLost())
    assert call.fault is Fault.UNREACHABLE


def test_a_push_over_a_stale_connection_begins_again(rig: Rig) -> None:
    rig.locate()
    rig.wires.send(HELD + b"\r\n")
    call = paused(rig)
    rig.wires.end(ConnectionLost(), on=0)
    take_all(rig)
    rig.wires.send(ok(b""))
    assert call.outcome is False


def test_what_is_given_up_while_it_connects_was_cancelled_and_did_not_fail() -> None:
    """Twisted has an error of its own for that, which would be logged as a failure when a node stops."""
    reactor = MemoryReactorClock()
    client = PeerClient(
        dial=lambda address, expected: TCP4ClientEndpoint(reactor, "10.0.0.1", address.port),
        identify=lambda transport: PEER.id,
        introduce=lambda: Introduction("us", "test", "pub:1", "mgmt:2"),
        clock=reactor,
        limits=PeerLimits(),
    )
    call = Call(client.locate(PEER, DIGEST))
    call.running.cancel()
    assert isinstance(call.outcome, CancelledError)
    assert not reactor.getDelayedCalls()

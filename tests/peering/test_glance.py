"""Over a kept connection HEAD and a small GET tell what they do over a fresh one, and leave it as it was."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError
from twisted.internet.error import ConnectionLost

from swarm.errors import Fault, PeerError
from swarm.model.grains import Grains
from swarm.model.midstates import Midstates
from swarm.model.ranges import ByteRange
from swarm.testing.contracts_peers import Collector
from tests.peering.test_exchange import BLOB, DIGEST, HELD, PEER, Call, Rig


def warm() -> Rig:
    """A client with one connection that is kept."""
    rig = Rig()
    rig.locate()
    rig.wires.send(HELD + b"\r\n")
    return rig


ANSWERS = [
    HELD + b"\r\n",
    HELD + b"Connection: close\r\n\r\n",
    HELD + b"Swarm-Have: bytes=0-9,20-29\r\n\r\n",
    HELD + b"Swarm-Names: a,%C3%BC%2C%25\r\n\r\n",
    HELD + b"Content-Encoding: gzip\r\n\r\n",
    b"HTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\n" + HELD + b"\r\n",
    b"HTTP/1.1 200 x\r\n\r\n",
    b"HTTP/1.1 200 x\r\nContent-Length: 99999999999999999999\r\n\r\n",
    b'HTTP/1.1 200 x\r\nContent-Length: 5\r\nETag: "x"\r\n\r\n',
    b"HTTP/1.1 302 x\r\nLocation: https://evil.example/\r\n\r\n",
    b"HTTP/1.1 403 x\r\n\r\n",
    b"HTTP/1.1 404 x\r\nContent-Length: 55\r\n\r\n",
    b"HTTP/1.1 421 x\r\n\r\n",
    b"HTTP/1.1 503 x\r\nRetry-After: 7\r\nContent-Length: 3\r\n\r\n",
    b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
]


def told(call: Call) -> object:
    """What came of it, to be compared."""
    outcome = call.outcome
    if isinstance(outcome, PeerError):
        return outcome.peer, outcome.fault, outcome.retry_after
    return outcome


@given(st.sampled_from(ANSWERS), st.data())
def test_a_kept_connection_says_what_a_fresh_one_does(answer: bytes, data: st.DataObject) -> None:
    fresh, kept = Rig(), warm()
    first, second = fresh.locate(), kept.locate()
    fresh.wires.send(answer)
    at = 0
    while at < len(answer):
        step = data.draw(st.integers(1, len(answer) - at))
        kept.wires.send(answer[at : at + step])
        at += step
    assert told(first) is not ...
    assert told(second) == told(first)
    assert len(kept.wires.transports) == 1
    asked = kept.wires.said().split(b"\r\n\r\n")
    fields = [{line.lower() for line in each.split(b"\r\n")} for each in asked[:2]]
    assert fields[1] and fields[1] <= fields[0], "the same request, without what it need not say"
    assert fresh.nothing_left() and kept.nothing_left()


MIDSTATES = Midstates(Grains.of(len(BLOB)), bytes(64 * (Grains.of(len(BLOB)).count - 1)))
LIST = MIDSTATES.encode()
LISTED = f"HTTP/1.1 200 OK\r\nContent-Length: {len(LIST)}\r\n".encode()
LISTS = [
    LISTED + b"\r\n" + LIST,
    LISTED + b"Connection: close\r\n\r\n" + LIST,
    LISTED + b"Content-Encoding: gzip\r\n\r\n" + LIST,
    LISTED + b"\r\n" + LIST[:-1] + b"!",
    b"HTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\n" + LISTED + b"\r\n" + LIST,
    b"HTTP/1.1 200 x\r\nContent-Length: 5\r\n\r\nhello",
    b"HTTP/1.1 200 x\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 204 x\r\n\r\n",
    b"HTTP/1.1 404 x\r\nContent-Length: 3\r\n\r\nnot",
    b"HTTP/1.1 503 x\r\nRetry-After: 7\r\nContent-Length: 3\r\n\r\nnot",
]


@given(st.sampled_from(LISTS), st.data())
def test_a_list_over_a_kept_connection_is_the_one_over_a_fresh_one(
    answer: bytes, data: st.DataObject
) -> None:
    fresh, kept = Rig(), warm()
    first, second = (Call(rig.client.midstates(PEER, DIGEST, len(BLOB))) for rig in (fresh, kept))
    fresh.wires.send(answer)
    at = 0
    while at < len(answer) and second.outcome is ...:
        step = data.draw(st.integers(1, len(answer) - at))
        kept.wires.send(answer[at : at + step])
        at += step
    assert told(first) is not ...
    assert told(second) == told(first)
    assert len(kept.wires.transports) == 1
    assert fresh.nothing_left() and kept.nothing_left()


def test_an_answer_without_a_length_is_left_to_a_whole_client() -> None:
    rig = warm()
    call = Call(rig.client.midstates(PEER, DIGEST, len(BLOB)))
    answer = b"HTTP/1.1 200 x\r\nTransfer-Encoding: chunked\r\n\r\n"
    answer += b"%x\r\n%s\r\n0\r\n\r\n" % (len(LIST), LIST)
    rig.wires.send(answer)
    assert call.outcome is ... and len(rig.wires.transports) == 2
    rig.wires.send(answer)
    assert call.outcome == MIDSTATES
    assert rig.nothing_left()


def test_a_list_that_is_too_long_is_not_read() -> None:
    rig = warm()
    call = Call(rig.client.midstates(PEER, DIGEST, len(BLOB)))
    rig.wires.send(b"HTTP/1.1 200 x\r\nContent-Length: 999999999\r\n\r\n")
    assert call.fault is Fault.OVERSIZED
    assert rig.wires.dropped() and rig.nothing_left()


def test_a_list_that_breaks_off_is_truncated() -> None:
    rig = warm()
    call = Call(rig.client.midstates(PEER, DIGEST, len(BLOB)))
    rig.wires.send(LISTED + b"\r\n")
    rig.wires.end(ConnectionLost())
    assert call.fault is Fault.TRUNCATED


def test_it_is_kept_on_for_whatever_comes_next() -> None:
    rig = warm()
    for _ in range(3):
        call = rig.locate()
        rig.wires.send(HELD + b"\r\n")
        assert call.outcome.size == len(BLOB)
    advice = rig.ask(rig.client.report_corrupt(PEER, DIGEST, "look"))
    rig.wires.send(b"HTTP/1.1 202 x\r\nContent-Length: 0\r\n\r\n")
    assert advice.outcome is None
    lane, collector = rig.client.lane(PEER, DIGEST, len(BLOB)), Collector(0)
    work = Call(lane.fetch(ByteRange(0, 10), collector))
    rig.wires.send(
        f"HTTP/1.1 206 x\r\nContent-Range: bytes 0-9/{len(BLOB)}\r\nContent-Length: 10\r\n\r\n".encode()
        + BLOB[:10]
    )
    assert work.outcome is None
    assert len(rig.wires.transports) == 1
    lane.close()
    assert rig.nothing_left()


def test_its_time_as_an_idle_one_begins_anew() -> None:
    rig = warm()
    rig.clock.advance(60)
    rig.locate()
    rig.wires.send(HELD + b"\r\n")
    rig.clock.advance(89)
    assert not rig.wires.dropped()
    rig.clock.advance(1)
    assert rig.wires.dropped()
    assert rig.nothing_left()


def test_one_that_says_it_closes_is_not_kept() -> None:
    rig = warm()
    rig.locate()
    rig.wires.send(HELD + b"Connection: close\r\n\r\n")
    assert rig.wires.dropped()
    rig.locate()
    assert len(rig.wires.transports) == 2
    assert rig.nothing_left()


def test_more_than_the_answer_is_garbled() -> None:
    rig = warm()
    call = rig.locate()
    rig.wires.send(HELD + b"\r\nx")
    assert call.fault is Fault.GARBLED
    assert rig.wires.dropped() and rig.nothing_left()


def test_a_stale_one_is_nobodys_fault() -> None:
    rig = warm()
    call = rig.locate()
    rig.wires.end(ConnectionLost())
    assert call.outcome is ...
    rig.wires.send(HELD + b"\r\n")
    assert call.outcome.size == len(BLOB)
    assert len(rig.wires.transports) == 2


def test_an_end_in_the_answer_is_truncated() -> None:
    rig = warm()
    call = rig.locate()
    rig.wires.send(HELD)
    rig.wires.end(ConnectionLost())
    assert call.fault is Fault.TRUNCATED


def test_silence_and_drips_are_given_up() -> None:
    rig = warm()
    began = rig.clock.seconds()
    call = rig.locate()
    while call.outcome is ... and rig.clock.seconds() < began + 1000:
        rig.wires.send(b"x")
        rig.clock.advance(5)
        rig.wires.settle()
    assert call.fault is Fault.SILENT
    assert rig.clock.seconds() == began + 30
    call = rig.locate()
    rig.clock.advance(10)
    rig.wires.settle()
    assert call.fault is Fault.SILENT
    assert rig.nothing_left()


def test_a_torrent_is_cut_at_the_budget() -> None:
    rig = warm()
    call = rig.locate()
    accepted = 0
    while not rig.wires.dropped() and accepted < 300 << 20:
        rig.wires.send(b"HTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\n" * 50)
        accepted += 2000
    assert call.fault is Fault.OVERSIZED
    assert accepted <= 72 << 10
    assert rig.nothing_left()


def test_cancelling_ends_the_connection() -> None:
    rig = warm()
    call = rig.locate()
    call.running.cancel()
    rig.wires.settle()
    assert isinstance(call.outcome, CancelledError)
    assert rig.wires.dropped() and rig.nothing_left()

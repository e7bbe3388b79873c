"""What a connection accepts, refuses and waits for, against a transport that pauses."""

from __future__ import annotations

import json

import pytest
from twisted.internet.defer import Deferred
from twisted.logger import capturedLogs

from swarm.errors import Overloaded, StoreFailed
from swarm.testing.wire import STRANGER, Wire
from swarm.web.errors import Refusal
from swarm.web.limits import WebLimits

from .door import Door, Sink

POST = b"POST / HTTP/1.1\r\nHost: h\r\n"
GET = b"GET / HTTP/1.1\r\nHost: h\r\n"
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"

# RELIABILITY C.1: every vector is one refusal and the end of the connection.
REFUSED = {
    "two Content-Lengths": POST
    + b"Content-Length: 0\r\nContent-Length: %d\r\n\r\n" % len(SMUGGLED)
    + SMUGGLED,
    "equal Content-Lengths": POST + b"Content-Length: 0\r\nContent-Length: 0\r\n\r\n" + SMUGGLED,
    "CL and TE": POST + b"Content-Length: 5\r\n" + CHUNKED + b"0\r\n\r\n" + SMUGGLED,
    "TE and CL": POST + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n" + SMUGGLED,
    "TE xchunked": POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
    "TE chunked, identity": POST + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n" + SMUGGLED,
    "TE identity": POST + b"Transfer-Encoding: identity\r\n\r\n" + SMUGGLED,
    "TE identity and CL": POST + b"Transfer-Encoding: identity\r\nContent-Length: 0\r\n\r\n" + SMUGGLED,
    "TE gzip, chunked": POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
    "TE twice": POST + b"Transfer-Encoding: chunked\r\n" + CHUNKED + b"0\r\n\r\n" + SMUGGLED,
    "CL +0": POST + b"Content-Length: +0\r\n\r\n" + SMUGGLED,
    "CL -1": POST + b"Content-Length: -1\r\n\r\n" + SMUGGLED,
    "CL 0_0": POST + b"Content-Length: 0_0\r\n\r\n" + SMUGGLED,
    "CL list": POST + b"Content-Length: 0, 0\r\n\r\n" + SMUGGLED,
    "CL other digits": POST + "Content-Length: \u0660\r\n\r\n".encode() + SMUGGLED,
    "CL past 2^63": POST + b"Content-Length: 9223372036854775808\r\n\r\n",
    "CL of 5000 digits": POST + b"Content-Length: " + b"1" * 5000 + b"\r\n\r\n",
    "CL empty": POST + b"Content-Length:\r\n\r\n" + SMUGGLED,
    "blank before colon": POST + b"Content-Length : 0\r\n\r\n" + SMUGGLED,
    "obs-fold in TE": POST + b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
    "obs-fold": GET + b"X: a\r\n\tb\r\n\r\n" + SMUGGLED,
    "obs-fold first": b"GET / HTTP/1.1\r\n Host: h\r\n\r\n",
    "chunk 0x0": POST + CHUNKED + b"0x0\r\n\r\n" + SMUGGLED,
    "chunk +0": POST + CHUNKED + b"+0\r\n\r\n" + SMUGGLED,
    "chunk extension with LF": POST + CHUNKED + b"0;\n\r\n\r\n" + SMUGGLED,
    "chunk without CRLF": POST + CHUNKED + b"3\r\nabcXX0\r\n\r\n" + SMUGGLED,
    "trailer with LF": POST + CHUNKED + b"0\r\nX: y\n\n" + SMUGGLED,
    "trailer with CR": POST + CHUNKED + b"0\r\nX: y\rz\r\n\r\n" + SMUGGLED,
    "trailer without colon": POST + CHUNKED + b"0\r\nnonsense\r\n\r\n" + SMUGGLED,
    "folded trailer": POST + CHUNKED + b"0\r\nX: y\r\n z: a\r\n\r\n" + SMUGGLED,
    "endless chunk size": POST + CHUNKED + b"0" * 5000,
    "bare LF": b"GET / HTTP/1.1\nHost: h\n\n",
    "one bare LF": b"GET / HTTP/1.1\r\nHost: h\nX: y\r\n\r\n",
    "bare CR in a value": POST + b"X: a\rContent-Length: 0\r\n\r\n" + SMUGGLED,
    "NUL in a value": POST + b"X: a\x00b\r\n\r\n" + SMUGGLED,
    "no colon": POST + b"nonsense\r\n\r\n" + SMUGGLED,
    "no Host": b"GET / HTTP/1.1\r\n\r\n",
    "two Hosts": b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    "two equal Hosts": b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
    "Host with a path": b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n",
    "foreign absolute-form": b"GET http://evil/x HTTP/1.1\r\nHost: h\r\n\r\n",
    "absolute-form with user": b"GET http://h@evil/x HTTP/1.1\r\nHost: h\r\n\r\n",
    "authority-form": b"CONNECT evil:80 HTTP/1.1\r\nHost: h\r\n\r\n",
    "asterisk with GET": b"GET * HTTP/1.1\r\nHost: h\r\n\r\n",
    "control character in the target": b"GET /a\x7fb HTTP/1.1\r\nHost: h\r\n\r\n",
    "NUL in the target": b"GET /a\x00b HTTP/1.1\r\nHost: h\r\n\r\n",
    "tab in the target": b"GET /a\tb HTTP/1.1\r\nHost: h\r\n\r\n",
    "fragment": b"GET /a#b HTTP/1.1\r\nHost: h\r\n\r\n",
    "HTTP/1.0 with TE": b"POST / HTTP/1.0\r\n" + CHUNKED + b"0\r\n\r\n" + SMUGGLED,
    "HTTP/9.9": b"GET / HTTP/9.9\r\nHost: h\r\n\r\n",
    "HTTP/2.0": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "HTTP/0.9": b"GET /\r\n\r\n",
    "two blanks": b"GET  / HTTP/1.1\r\nHost: h\r\n\r\n",
    "501 fields": GET + b"".join(b"A%d: 1\r\n" % i for i in range(501)) + b"\r\n",
    "a head of 17 kB": GET + b"".join(b"A%d: %s\r\n" % (i, b"x" * 1000) for i in range(17)) + b"\r\n",
}


@pytest.mark.parametrize("vector", REFUSED)
@pytest.mark.parametrize("piece", [1, 1 << 16], ids=["bytewise", "whole"])
def test_an_ambiguous_request_is_one_400_and_the_end(vector: str, piece: int) -> None:
    door = Door()
    wire = door.wire()
    wire.send(REFUSED[vector], piece=piece)
    assert [each.status for each in wire.responses()] == [400]
    assert wire.disconnected
    assert door.leaf.seen == []
    assert door.statuses == [400]


@pytest.mark.parametrize(
    ("line", "status"), [(b"GET /" + b"a" * 20000, 414), (GET + b"X: " + b"a" * 20000, 431)]
)
@pytest.mark.parametrize("ended", [b"", b"\r\n\r\n"])
@pytest.mark.parametrize("piece", [1000, 1 << 16])
def test_a_line_of_more_than_16_kb_is_answered_and_ends_the_connection(
    line: bytes, status: int, ended: bytes, piece: int
) -> None:
    door = Door()
    wire = door.wire()
    wire.send(line + ended, piece=piece)
    assert [each.status for each in wire.responses()] == [status]
    door.clock.advance(door.limits.linger)
    assert wire.disconnected and door.leaf.seen == []


@pytest.mark.parametrize(
    "request_, uri",
    [
        (b"GET /x?y=z HTTP/1.1\r\nHost: h\r\n\r\n", b"/x?y=z"),
        (b"GET http://H/x HTTP/1.1\r\nHost: h\r\n\r\n", b"/x"),
        (b"GET http://h HTTP/1.1\r\nHost: h\r\n\r\n", b"/"),
        (b"\r\nGET /x HTTP/1.1\r\nHost: h\r\n\r\n", b"/x"),
        (b"GET /x HTTP/1.1\r\nHost: [::1]:7040\r\n\r\n", b"/x"),
    ],
)
def test_plain_requests_are_answered(request_: bytes, uri: bytes) -> None:
    door = Door()
    wire = door.wire()
    wire.send(request_)
    assert [each.status for each in wire.responses()] == [200]
    assert door.leaf.seen == [(b"GET", uri, b"")]
    assert not wire.disconnecting


def test_http_1_0_needs_no_host_and_ends_the_connection() -> None:
    wire = Door().wire()
    wire.send(b"GET / HTTP/1.0\r\n\r\n")
    assert wire.received.startswith(b"HTTP/1.0 200")
    assert wire.disconnected


def test_options_asterisk_is_a_ping() -> None:
    wire = Door().wire()
    wire.send(b"OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n")
    assert [each.status for each in wire.responses()] == [204]


@pytest.mark.parametrize("piece", [1, 7, 1 << 16])
def test_pipelined_requests_are_answered_in_order(piece: int) -> None:
    door = Door()
    wire = door.wire()
    bodies = POST + b"Content-Length: 3\r\n\r\nabc" + POST + CHUNKED + b"2\r\nde\r\n1\r\nf\r\n0\r\n\r\n"
    wire.send(bodies + SMUGGLED, piece=piece)
    assert [each.body for each in wire.responses()] == [b"ok /", b"ok /", b"ok /smuggled"]
    assert [body for _, _, body in door.leaf.seen] == [b"abc", b"def", b""]


def test_a_request_waits_for_the_answer_to_the_one_before() -> None:
    door = Door()
    door.leaf.hold = {b"/1"}
    wire = door.wire()
    wire.send(b"".join(b"GET /%d HTTP/1.1\r\nHost: h\r\n\r\n" % i for i in range(1, 4)))
    assert [uri for _, uri, _ in door.leaf.seen] == [b"/1"]
    door.leaf.held[b"/1"].write(b"ok /1")
    door.leaf.held[b"/1"].finish()
    assert [each.body for each in wire.responses()] == [b"ok /1", b"ok /2", b"ok /3"]


def test_a_flood_behind_a_slow_answer_pauses_the_client() -> None:
    door = Door()
    door.leaf.hold = {b"/"}
    wire = door.wire()
    wire.send(GET + b"\r\n")
    for _ in range(100):
        if not wire.paused:
            wire.send(SMUGGLED * 100)
    assert wire.paused
    assert len(wire.protocol._dataBuffer) < 10  # type: ignore[union-attr]  # what is kept of it


def test_connection_close_in_any_spelling_ends_the_connection() -> None:
    wire = Door().wire()
    wire.send(GET + b"Connection: te, Close\r\n\r\n" + SMUGGLED)
    [response] = wire.responses()
    assert response.fields["connection"] == "close"
    assert wire.disconnected


# -- bodies ---------------------------------------------------------------------


def put(length: int, *fields: bytes) -> bytes:
    head = b"PUT /f HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n" % length
    return head + b"".join(field + b"\r\n" for field in fields) + b"\r\n"


def test_the_decision_comes_before_the_body_and_knows_the_head() -> None:
    door, seen = Door(), []
    sink = Sink()

    def decide(request):  # type: ignore[no-untyped-def]
        seen.append((request.method, request.path, request.query, request.length, request.client.host))
        return sink

    door.decide = decide
    wire = door.wire(client=STRANGER)
    wire.send(b"PUT /f?q HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\n")
    assert seen == [(b"PUT", b"/f", b"q", 5, "203.0.113.9")]
    wire.send(b"12345")
    assert door.leaf.seen == [(b"PUT", b"/f?q", b"12345")]
    assert [each.status for each in wire.responses()] == [200]


def test_a_refusal_comes_instead_of_100_continue_and_reads_no_byte() -> None:
    door = Door()
    door.decide = lambda request: Refusal(401, "who are you", ("WWW-Authenticate", "Bearer"))
    wire = door.wire()
    wire.send(put(99_999_999_999, b"Expect: 100-continue"))
    [response] = wire.responses()
    assert b"100 Continue" not in wire.received
    assert (response.status, response.fields["www-authenticate"]) == (401, "Bearer")
    assert json.loads(response.body) == {"error": "Unauthorized", "detail": "who are you"}
    assert wire.disconnected
    assert door.statuses == [401]


def test_100_continue_is_sent_once_the_body_is_wanted() -> None:
    door = Door()
    verdict: Deferred[Sink] = Deferred()
    door.decide = lambda request: verdict
    wire = door.wire()
    wire.send(put(3, b"Expect: 100-Continue"))
    assert wire.received == b"" and wire.paused
    verdict.callback(Sink())
    assert wire.received == b"HTTP/1.1 100 Continue\r\n\r\n" and not wire.paused
    wire.send(b"abc")
    assert [each.status for each in wire.responses()] == [200]


def test_another_expectation_is_417() -> None:
    wire = Door().wire()
    wire.send(put(3, b"Expect: miracles"))
    assert [each.status for each in wire.responses()] == [417]


def test_no_byte_is_parsed_while_undecided() -> None:
    door = Door()
    verdict: Deferred[Sink] = Deferred()
    door.decide = lambda request: verdict if request.path == b"/f" else None
    wire = door.wire()
    wire.send(put(6) + b"abc")
    assert wire.paused
    wire.send(b"def" + SMUGGLED)  # what was in flight
    sink = Sink()
    verdict.callback(sink)
    assert sink.data == b"abcdef"
    assert [each.body for each in wire.responses()] == [b"ok /f", b"ok /smuggled"]


def test_a_bodiless_request_may_also_be_decided_later() -> None:
    door = Door()
    verdict: Deferred[None] = Deferred()
    door.decide = lambda request: verdict if request.path == b"/" else None
    wire = door.wire()
    wire.send(GET + b"\r\n" + SMUGGLED)
    assert door.leaf.seen == []
    verdict.callback(None)
    assert [each.body for each in wire.responses()] == [b"ok /", b"ok /smuggled"]


def test_refusing_a_bodiless_request_keeps_the_connection() -> None:
    door = Door()
    door.decide = lambda request: Refusal(403, "no") if request.path == b"/" else None
    wire = door.wire()
    wire.send(GET + b"\r\n" + SMUGGLED)
    assert [each.status for each in wire.responses()] == [403, 200]
    assert not wire.disconnecting


def test_deciding_has_a_deadline() -> None:
    door = Door()
    door.decide = lambda request: Deferred()
    wire = door.wire()
    wire.send(put(3))
    door.clock.advance(door.limits.admission)
    [response] = wire.responses()
    assert response.status == 503 and response.fields["retry-after"]


def test_a_client_that_leaves_while_undecided_cancels_the_decision() -> None:
    door, canceled = Door(), []
    door.decide = lambda request: Deferred(canceled.append)
    wire = door.wire()
    wire.send(put(3))
    wire.hang_up()
    assert len(canceled) == 1
    assert door.clock.getDelayedCalls() == []


def test_a_decision_that_comes_too_late_is_aborted() -> None:
    """A decision that swallows its cancellation still may not leave a sink open."""
    door, sink = Door(), Sink()
    verdict: Deferred[Sink] = Deferred(lambda d: d.callback(sink))
    door.decide = lambda request: verdict
    wire = door.wire()
    wire.send(put(3))
    wire.hang_up()
    assert sink.aborted


def test_a_decision_that_fails_later_is_answered() -> None:
    door = Door()
    verdict: Deferred[Sink] = Deferred()
    door.decide = lambda request: verdict
    wire = door.wire()
    wire.send(put(3))
    verdict.errback(Refusal(403, "no"))
    assert [each.status for each in wire.responses()] == [403]


def test_a_resource_that_raises_is_500() -> None:
    door = Door()

    def render(request: object) -> bytes:
        raise RuntimeError("secret")

    door.leaf.render = render  # type: ignore[method-assign]
    wire = door.wire()
    wire.send(GET + b"\r\n")
    [response] = wire.responses()
    assert response.status == 500 and b"secret" not in response.body


def test_after_a_refusal_what_is_in_flight_is_thrown_away_for_a_while() -> None:
    """A close with bytes unread is a reset, which can destroy the answer on its way."""
    door = Door()
    door.decide = lambda request: Refusal(413, "too much")
    wire = door.wire()
    wire.send(put(1 << 30) + b"x" * 1000)
    wire.send(b"x" * 1000)
    assert [each.status for each in wire.responses()] == [413]
    assert not wire.disconnecting
    door.clock.advance(door.limits.linger)
    assert wire.disconnected and door.leaf.seen == []


def test_lingering_has_a_budget_of_bytes() -> None:
    door = Door()
    door.decide = lambda request: Refusal(413, "too much")
    wire = door.wire()
    wire.send(put(1 << 30) + b"x" * (door.limits.linger_bytes + (1 << 18)))
    assert wire.paused and not wire.disconnected
    door.clock.advance(door.limits.linger)
    assert wire.disconnected


def test_a_sink_that_lags_pauses_the_client() -> None:
    door, sink = Door(), Sink()
    door.decide = lambda request: sink
    wire = door.wire()
    wire.send(put(6))
    sink.behind = True
    wire.send(b"ab")
    assert wire.paused
    wire.send(b"cd")  # what was in flight waits
    assert sink.data == b"ab"
    sink.catch_up()
    assert not wire.paused and sink.data == b"abcd"
    wire.send(b"ef")
    assert [each.status for each in wire.responses()] == [200]


def test_a_sink_that_fails_is_answered_and_the_rest_stays_unread() -> None:
    door, sink = Door(), Sink(full_after=3)
    door.decide = lambda request: sink
    wire = door.wire()
    wire.send(put(1000) + b"abcdef")
    assert [each.status for each in wire.responses()] == [507]
    assert sink.aborted and door.leaf.seen == []
    wire.send(b"more")
    assert sink.data == b"abcdef"


def test_a_chunked_body_into_a_sink_that_fails_stops_at_once() -> None:
    door, sink = Door(), Sink(full_after=1)
    door.decide = lambda request: sink
    wire = door.wire()
    wire.send(b"PUT /f HTTP/1.1\r\nHost: h\r\n" + CHUNKED + b"2\r\nab\r\n2\r\ncd\r\n0\r\n\r\n" + SMUGGLED)
    assert [each.status for each in wire.responses()] == [507]
    assert sink.data == b"ab"


def test_malformed_chunks_abort_the_sink() -> None:
    door, sink = Door(), Sink()
    door.decide = lambda request: sink
    wire = door.wire()
    wire.send(b"PUT /f HTTP/1.1\r\nHost: h\r\n" + CHUNKED + b"2\r\nab\r\nzz\r\n")
    assert [each.status for each in wire.responses()] == [400]
    assert sink.aborted and wire.disconnected


@pytest.mark.parametrize("how", ["hang_up", "abort"])
def test_a_client_that_leaves_midway_aborts_the_sink(how: str) -> None:
    door, sink = Door(), Sink()
    door.decide = lambda request: sink
    wire = door.wire()
    wire.send(put(10) + b"abc")
    wire.hang_up() if how == "hang_up" else wire.abortConnection()
    assert sink.aborted and door.leaf.seen == []
    assert door.clock.getDelayedCalls() == [] and door.site.connections == 0


def test_a_client_that_leaves_while_held_up_aborts_the_sink() -> None:
    door, sink = Door(), Sink()
    sink.behind = True
    door.decide = lambda request: sink
    wire = door.wire()
    wire.send(put(10) + b"abc")
    wire.hang_up()
    assert sink.aborted and door.clock.getDelayedCalls() == []


def test_a_body_nobody_streams_has_a_limit() -> None:
    door = Door()
    limit = door.limits.small_body
    for head in (put(limit + 1), b"PUT /f HTTP/1.1\r\nHost: h\r\n" + CHUNKED):
        wire = door.wire()
        wire.send(head)
        wire.send(b"%x\r\n%s\r\n" % (limit + 1, b"x" * (limit + 1)))
        assert [each.status for each in wire.responses()] == [413]
    wire = door.wire()
    wire.send(put(limit) + b"x" * limit)
    assert [each.status for each in wire.responses()] == [200]


def test_32_mib_of_form_are_refused_by_their_length() -> None:
    """Stock twisted.web blocks for seconds and takes 810 MiB (RELIABILITY 0.5)."""
    door = Door()
    wire = door.wire()
    kind = b"Content-Type: application/x-www-form-urlencoded\r\n"
    wire.send(POST + kind + b"Content-Length: %d\r\n\r\n" % (32 << 20))
    assert [each.status for each in wire.responses()] == [413]


def test_a_small_form_is_not_parsed() -> None:
    door = Door()
    door.leaf.hold = {b"/"}
    wire = door.wire()
    wire.send(POST + b"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 3\r\n\r\na=b")
    assert door.leaf.held[b"/"].args == {}
    assert door.leaf.seen[0][2] == b"a=b"


def test_an_overloaded_node_says_when_to_come_back() -> None:
    door = Door()
    door.decide = lambda request: Overloaded("busy", retry_after=7)
    wire = door.wire()
    wire.send(GET + b"\r\n")
    [response] = wire.responses()
    assert (response.status, response.fields["retry-after"]) == (503, "7")


def test_a_bug_is_500_without_its_text() -> None:
    door = Door()
    door.decide = lambda request: RuntimeError("secret path /etc/swarm/key")
    wire = door.wire()
    wire.send(GET + b"\r\n")
    [response] = wire.responses()
    assert response.status == 500 and b"secret" not in response.body


@pytest.mark.parametrize(("error", "traced"), [(StoreFailed("the disk: EIO"), False), (RuntimeError(), True)])
def test_only_what_nobody_foresaw_is_logged_with_a_traceback(error: Exception, traced: bool) -> None:
    door = Door()
    door.decide = lambda request: error
    with capturedLogs() as events:
        door.wire().send(GET + b"\r\n")
    assert [("log_failure" in event) for event in events] == [traced]


# -- how many ---------------------------------------------------------------------


def test_a_client_has_a_cap_of_connections_and_gets_it_back() -> None:
    door = Door(WebLimits(connections_per_client=2))
    first, second = door.wire(client=STRANGER), door.wire(client=STRANGER)
    assert door.wire(client=STRANGER).refused
    assert not door.wire().refused  # another client
    first.hang_up()
    assert not door.wire(client=STRANGER).refused
    assert not second.disconnected


def test_local_clients_are_many_behind_one_address() -> None:
    door = Door(WebLimits(connections_per_client=1))
    assert not any(door.wire().refused for _ in range(3))


def test_all_clients_together_have_a_cap() -> None:
    door = Door(WebLimits(connections=2))
    assert [door.wire().refused for _ in range(3)] == [False, False, True]


def test_stopping_aborts_every_connection() -> None:
    door = Door()
    wires: list[Wire] = [door.wire(), door.wire()]
    door.site.disconnect()
    assert all(wire.aborted for wire in wires) and door.site.connections == 0


def test_h2_is_never_offered() -> None:
    assert Door().site.acceptableProtocols() == [b"http/1.1"]

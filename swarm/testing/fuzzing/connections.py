"""Both ends of HTTP: requests as the doors read them, a peer's answers as a pull reads them.

A request that was answered as one must be one to h11, too: two parsers that disagree are what request
smuggling is made of. h11 is asked only about what was accepted; that the doors refuse more is on purpose.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import h11
from twisted.internet.task import Clock
from twisted.logger import ILogObserver, LogLevel, globalLogPublisher
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET
from zope.interface import implementer

from swarm.model.digest import Digest
from swarm.model.ranges import ByteRange, RangeSet
from swarm.peering.http1 import Answered, Answers, Arrived, Broken, Told
from swarm.testing.fuzzing.target import Target
from swarm.testing.wire import Wire
from swarm.web.request import StreamingRequest
from swarm.web.site import StreamingSite

_Seen = tuple[bytes, bytes, bytes]


@implementer(ILogObserver)
class _Door(Resource):
    """Takes whatever is a request, and remembers it."""

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[_Seen] = []
        self.statuses: list[int] = []
        self.errors: list[Any] = []
        self.clock = Clock()
        self.site = StreamingSite(self, admit=self._admit, clock=self.clock, observer=self)

    async def _admit(self, request: StreamingRequest) -> None:
        return None

    def render(self, request: Any) -> Any:
        self.seen.append((request.method, request.uri, request.content.read()))
        request.write(b"ok")
        request.finish()
        return NOT_DONE_YET

    def answered(self, request: StreamingRequest) -> None:
        self.statuses.append(request.code)

    def rejected(self, status: int) -> None:
        self.statuses.append(status)

    def sent(self, method: str, size: int) -> None:
        raise AssertionError("there is no short path here")

    def __call__(self, event: dict[str, Any]) -> None:
        """Of what was logged: nothing may go wrong that nobody expected."""
        if event.get("log_failure") is not None or event["log_level"] >= LogLevel.error:
            self.errors.append(event.get("log_failure") or event.get("log_format"))

    def hear(self, stream: bytes, piece: int) -> tuple[object, ...]:
        """A whole connection; what became of it."""
        globalLogPublisher.addObserver(self)
        try:
            wire = Wire(self.site)
            wire.send(stream, piece=piece)
            ended = wire.disconnected
            wire.hang_up()
        finally:
            globalLogPublisher.removeObserver(self)
        assert not self.errors, self.errors
        assert not self.clock.getDelayedCalls() and self.site.connections == 0
        return tuple(self.statuses), tuple(self.seen), bytes(wire.received), ended


def _requests(data: bytes) -> None:
    door = _Door()
    whole = door.hear(data, max(1, len(data)))
    assert whole == _Door().hear(data, 1 + len(data) // 7), "how a stream is cut changes something"
    accepted = 0
    for status in door.statuses:
        if status != 200:
            break
        accepted += 1
    for ours, theirs in zip(door.seen[:accepted], (*_by_h11(data), *[None] * accepted), strict=False):
        if not ours[1].isascii():
            return  # h11 knows no such targets; a path in plain UTF-8 is what many clients send
        assert theirs is not None, f"h11 knows no such request: {ours}"
        method, target, body = theirs
        if not target.startswith((b"/", b"*")):  # absolute-form
            slashes = target.partition(b"//")[2]
            cut = min(
                [at for at in (slashes.find(b"/"), slashes.find(b"?")) if at >= 0], default=len(slashes)
            )
            target = slashes[cut:] if slashes[cut:].startswith(b"/") else b"/" + slashes[cut:]
        assert ours == (method, target.removesuffix(b"?"), body), (ours, theirs)


def _by_h11(stream: bytes) -> Iterator[_Seen]:
    """The requests h11 sees, as far as it sees any."""
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    connection.receive_data(stream.removeprefix(b"\r\n"))
    connection.receive_data(b"")
    method = target = body = b""
    while True:
        try:
            event = connection.next_event()
        except h11.RemoteProtocolError:
            return
        if isinstance(event, h11.Request):
            method, target, body = event.method, event.target, b""
        elif isinstance(event, h11.Data):
            body += bytes(event.data)
        elif isinstance(event, h11.EndOfMessage):
            yield method, target, body
            connection.send(h11.Response(status_code=404, headers=[("content-length", "0")]))
            connection.send(h11.EndOfMessage())
            if connection.our_state is not h11.DONE:
                return
            rest, _ = connection.trailing_data
            connection = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
            connection.receive_data(rest.removeprefix(b"\r\n"))
            connection.receive_data(b"")
        else:
            return


_BLOB = bytes(range(256)) * 4
_DIGEST = Digest.of(_BLOB)
_SPANS = (ByteRange(100, 300), ByteRange(300, 301), ByteRange(0, 1024))
_HEAD_LIMIT, _REFUSAL_LIMIT, _BATCH = 1024, 512, 64


def _answers(data: bytes) -> None:
    ends, got = _read(data, max(1, len(data)))
    others, gotten = _read(data, 1 + len(data) // 7)
    last = len(_SPANS) - 1  # what follows all answers spoils the last of them if it came together with it
    assert (ends[:last], got) == (others[:last], gotten), "how a stream is cut changes something"


def _read(data: bytes, piece: int) -> tuple[list[object], dict[int, bytes]]:
    answers = Answers(_DIGEST, len(_BLOB), head_limit=_HEAD_LIMIT, refusal_limit=_REFUSAL_LIMIT, batch=_BATCH)
    for span in _SPANS:
        answers.expect(span)
    got: dict[int, bytes] = {}
    told: dict[int, RangeSet | None] = {}
    ends: list[object] = []
    for at in range(0, len(data), piece):
        for event in answers.receive([data[at : at + piece]]):
            if isinstance(event, Told):
                assert len(ends) not in told and len(ends) not in got, "what it has is told once, and first"
                assert event.have is None or all(run.stop <= len(_BLOB) for run in event.have)
                told[len(ends)] = event.have
            elif isinstance(event, Arrived):
                assert len(ends) in told, "bytes of which it is not known who sends them"
                span = _SPANS[len(ends)]
                body = b"".join(event.views)
                got[len(ends)] = got.get(len(ends), b"") + body
                assert body and span.start <= event.offset
                assert event.offset + len(body) == span.start + len(got[len(ends)]) <= span.stop
            else:
                ends.append(event)
        if ends and (isinstance(ends[-1], Broken) or not getattr(ends[-1], "reusable", True)):
            break
    for left in answers.flush():
        assert isinstance(left, Arrived)
        got[len(ends)] = got.get(len(ends), b"") + b"".join(left.views)
    for number, end in enumerate(ends):
        if isinstance(end, Answered) and end.fault is None:
            assert len(got[number]) == len(_SPANS[number]), "an answer that is complete and is not"
    return ends, got


def _answer(span: ByteRange, *fields: str, status: int = 206) -> bytes:
    lines = [f"HTTP/1.1 {status} x", f"Content-Length: {len(span)}", f"ETag: {_DIGEST.etag}", *fields]
    lines += [f"Content-Range: {span.content_range(len(_BLOB))}"] * (status == 206)
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + _BLOB[span.start : span.stop]


_GET = b"GET /a?b HTTP/1.1\r\nHost: h\r\n"
_POST = b"POST / HTTP/1.1\r\nHost: h\r\n"
_CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"

_ALL = (
    Target(
        "requests",
        "whatever a client sends, in whatever pieces: no exception, no timer left, and each request "
        "answered is one to h11, too, with the same method, target and body",
        _requests,
        [
            _GET + b"\r\n" + _GET + b"\r\n",
            _GET + b"Connection: close\r\n\r\n",
            _POST + b"Content-Length: 5\r\n\r\nhello" + _GET + b"\r\n",
            _POST + _CHUNKED + b"5\r\nhello\r\n1;x=y\r\n!\r\n0\r\n\r\n" + _GET + b"\r\n",
            _POST + b"Expect: 100-continue\r\nContent-Length: 1\r\n\r\n!",
            b"GET http://h/x?y HTTP/1.1\r\nHost: h\r\n\r\nOPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n",
            b"HEAD / HTTP/1.0\r\n\r\n",
            b"\r\nPUT /%41 HTTP/1.1\r\nHost: [::1]:80\r\nRange: bytes=0-\r\nContent-Length: 0\r\n\r\n",
        ],
        1024,
    ),
    Target(
        "answers",
        "whatever a peer answers, in whatever pieces: only bytes of the span asked for, and all of them",
        _answers,
        [
            b"".join(map(_answer, _SPANS)),
            _answer(_SPANS[0], "Connection: close"),
            b"HTTP/1.1 100 Continue\r\n\r\n" + _answer(_SPANS[0], _DIGEST.repr_digest),
            b"HTTP/1.1 404 x\r\nContent-Length: 3\r\n\r\nno!"
            + b"HTTP/1.1 503 x\r\nRetry-After: 5\r\nContent-Length: 0\r\n\r\n"
            + _answer(_SPANS[2], status=200),
            b"HTTP/1.1 416 x\r\nContent-Range: bytes */1024\r\nContent-Length: 0\r\n\r\n",
            _answer(_SPANS[0], "Transfer-Encoding: chunked"),
            _answer(_SPANS[0])[:-1],
            _answer(_SPANS[0], "Swarm-Have: bytes=0-299")
            + b"HTTP/1.1 503 x\r\nSwarm-Have: bytes=0-9,400-499\r\nContent-Length: 0\r\n\r\n",
        ],
        2048,
    ),
)
BY_NAME = {each.name: each for each in _ALL}

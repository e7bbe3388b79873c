"""Sending a blob: paced, framed, whole or broken off."""

from __future__ import annotations

from email.message import Message
from email.parser import BytesParser
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

from swarm.errors import LocalError, PullFailed, StoreFailed
from swarm.interfaces import BlobInfo
from swarm.model.digest import Digest
from swarm.testing.memory import MemoryReader
from swarm.testing.wire import Wire
from swarm.web.bodies import conditions_of, send
from swarm.web.errors import answer_error
from swarm.web.limits import WebLimits
from swarm.web.ranges import select
from swarm.web.request import StreamingRequest
from swarm.web.site import StreamingSite

BLOB = bytes(range(256)) * 8192  # 2 MiB
DIGEST = Digest.of(BLOB)
INFO = BlobInfo(DIGEST, len(BLOB))


class ArrivingReader(MemoryReader):
    """A pull: bytes up to ``verified`` may leave; more when the test says so, or an error."""

    def __init__(self, verified: int = 0) -> None:
        super().__init__(INFO, BLOB)
        self.verified = verified
        self.error: LocalError | None = None
        self.waiting: list[Deferred[None]] = []

    async def available(self, offset: int, stop: int) -> int:
        while True:
            if self.error is not None:
                raise self.error
            if self.verified > offset or offset == stop:
                return min(stop, self.verified)
            waiter: Deferred[None] = Deferred()
            self.waiting.append(waiter)
            await waiter

    def advance(self, verified: int) -> None:
        self.verified = verified
        self._wake()

    def fail(self, error: LocalError) -> None:
        self.error = error
        self._wake()

    def _wake(self) -> None:
        waiting, self.waiting = self.waiting, []
        for each in waiting:
            each.callback(None)


class Blobs(Resource):
    """Sends one reader's blob, as a Klein handler would: canceled with the connection."""

    isLeaf = True

    def __init__(self, reader: MemoryReader) -> None:
        super().__init__()
        self.reader = reader

    def render(self, request: Any) -> Any:
        sending = Deferred.fromCoroutine(self._send(request))
        gone = request.notifyFinish()
        gone.addErrback(lambda _: sending.cancel())
        sending.addErrback(lambda failure: gone.called or answer_error(request, failure))
        return NOT_DONE_YET

    async def _send(self, request: StreamingRequest) -> None:
        chosen = select(request.method.decode(), conditions_of(request), DIGEST.etag, self.reader.info.size)
        await send(request, self.reader, chosen)


async def nothing(request: StreamingRequest) -> None:
    """Admits everything."""


def ask(reader: MemoryReader, *fields: str, method: str = "GET", **kwargs: Any) -> Wire:
    site = StreamingSite(Blobs(reader), admit=nothing, clock=Clock(), limits=WebLimits())
    wire = Wire(site, **kwargs)
    wire.send("\r\n".join([f"{method} / HTTP/1.1", "Host: h", *fields, "", ""]).encode())
    return wire


@pytest.mark.parametrize("blocking", [False, True], ids=["cached", "from disk"])
@pytest.mark.parametrize("draining", [False, True])
def test_the_whole_blob(blocking: bool, draining: bool) -> None:
    reader = MemoryReader(INFO, BLOB, blocking)
    [response] = ask(reader, draining=draining).responses()
    assert (response.status, response.body) == (200, BLOB)
    assert reader.closed


def test_a_client_that_does_not_read_is_not_buffered_for() -> None:
    reader = MemoryReader(INFO, BLOB)
    wire = ask(reader, draining=False)
    limit = WebLimits().chunk + 1000
    assert 0 < len(wire.output) <= limit
    while wire.take(100_000):
        assert len(wire.output) <= limit
    [response] = wire.responses()
    assert response.body == BLOB and reader.closed


def test_one_range() -> None:
    [response] = ask(MemoryReader(INFO, BLOB), "Range: bytes=1000-300999").responses()
    assert (response.status, response.body) == (206, BLOB[1000:301_000])
    assert response.fields["content-range"] == f"bytes 1000-300999/{len(BLOB)}"


def test_several_ranges_are_multipart() -> None:
    [response] = ask(MemoryReader(INFO, BLOB), "Range: bytes=0-1, 1000-1999, -5").responses()
    assert response.status == 206
    kind = response.fields["content-type"]
    assert kind.startswith("multipart/byteranges; boundary=")
    parsed = BytesParser().parsebytes(f"Content-Type: {kind}\r\n\r\n".encode() + response.body)
    parts = parsed.get_payload()
    assert isinstance(parts, list)
    found = [
        (part["Content-Range"], part.get_payload(decode=True)) for part in parts if isinstance(part, Message)
    ]
    size = len(BLOB)
    assert found == [
        (f"bytes 0-1/{size}", BLOB[:2]),
        (f"bytes 1000-1999/{size}", BLOB[1000:2000]),
        (f"bytes {size - 5}-{size - 1}/{size}", BLOB[-5:]),
    ]


@pytest.mark.parametrize("count", [1, 2, 16, 17, 500])
def test_no_request_gets_more_than_there_is(count: int) -> None:
    """The frame around parts is all that may be added."""
    [response] = ask(MemoryReader(INFO, BLOB), "Range: bytes=" + ",".join(["0-"] * count)).responses()
    assert len(response.body) <= len(BLOB)


@pytest.mark.parametrize(
    "field, status",
    [("Range: bytes=99999999-", 416), ('If-Match: "x"', 412)],
)
def test_what_cannot_be_is_said_and_the_reader_closed(field: str, status: int) -> None:
    reader = MemoryReader(INFO, BLOB)
    [response] = ask(reader, field).responses()
    assert response.status == status and reader.closed
    assert status != 416 or response.fields["content-range"] == f"bytes */{len(BLOB)}"


def test_not_modified_has_no_body() -> None:
    reader = MemoryReader(INFO, BLOB)
    [response] = ask(reader, f"If-None-Match: {DIGEST.etag}").responses()
    assert (response.status, response.body) == (304, b"") and reader.closed


def test_head_says_what_get_would() -> None:
    reader = MemoryReader(INFO, BLOB)
    [response] = ask(reader, method="HEAD").responses(head=True)
    assert (response.status, response.fields["content-length"]) == (200, str(len(BLOB)))
    assert reader.closed


def test_an_empty_blob() -> None:
    reader = MemoryReader(BlobInfo(Digest.of(b""), 0), b"")
    [response] = ask(reader).responses()
    assert (response.status, response.fields["content-length"], response.body) == (200, "0", b"")


def test_bytes_leave_as_they_arrive() -> None:
    reader = ArrivingReader(100)
    wire = ask(reader)
    assert wire.received.endswith(b"\r\n\r\n" + BLOB[:100])
    reader.advance(1000)
    assert wire.received.endswith(BLOB[:1000])
    reader.advance(len(BLOB))
    [response] = wire.responses()
    assert response.body == BLOB and reader.closed


def test_an_error_before_the_first_byte_is_an_answer() -> None:
    reader = ArrivingReader()
    wire = ask(reader)
    reader.fail(PullFailed(DIGEST, ("north: silent",)))
    [response] = wire.responses()
    assert response.status == 502 and reader.closed
    assert "etag" not in response.fields


@pytest.mark.parametrize("fields", [(), ("Range: bytes=0-9, 500000-",)], ids=["whole", "multipart"])
def test_an_error_midway_breaks_the_connection(fields: tuple[str, ...]) -> None:
    """Promise 3: a finished response is correct."""
    reader = ArrivingReader(100)
    wire = ask(reader, *fields)
    reader.fail(PullFailed(DIGEST, ("bytes already sent proved wrong",)))
    assert wire.aborted and reader.closed
    with pytest.raises(ValueError, match="too short"):
        whole(bytes(wire.received))


def test_a_disk_that_fails_midway_breaks_the_connection() -> None:
    class Failing(MemoryReader):
        async def read(self, offset: int, length: int) -> bytes:
            if offset:
                raise StoreFailed("EIO")
            return await super().read(offset, length)

    wire = ask(Failing(INFO, BLOB, blocking=True))
    assert wire.aborted
    with pytest.raises(ValueError, match="too short"):
        whole(bytes(wire.received))


def whole(data: bytes) -> bytes:
    head, _, body = data.partition(b"\r\n\r\n")
    declared = next(
        int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")
    )
    if len(body) < declared:
        raise ValueError("too short")
    return body


@pytest.mark.parametrize("draining", [True, False])
def test_a_client_that_leaves_closes_the_reader(draining: bool) -> None:
    reader = ArrivingReader(100 if draining else len(BLOB))
    wire = ask(reader, draining=draining)
    wire.hang_up()
    assert reader.closed


def test_the_next_request_on_the_connection_waits_its_turn() -> None:
    reader = ArrivingReader(100)
    wire = ask(reader)
    wire.send(b"GET /next HTTP/1.1\r\nHost: h\r\nRange: bytes=0-0\r\n\r\n")
    reader.advance(len(BLOB))
    first = wire.responses()[0]
    assert first.body == BLOB

"""Sending bytes of a blob: framed by a selection, paced by the client, never torn.

A push producer: bytes that cannot block are taken at once, others are read in a thread. What is long
enough takes the straight way of :mod:`swarm.web.straight`, where there is one.
When the reader fails midway its error is raised with the response unfinished, and
:func:`swarm.web.errors.answer_error` aborts the connection: a response that ends is correct.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer

from swarm.interfaces import IBlobReader
from swarm.model.ranges import ByteRange
from swarm.web.eager import urge
from swarm.web.errors import Refusal
from swarm.web.ranges import Conditions, Selection
from swarm.web.straight import send_straight

if TYPE_CHECKING:
    from swarm.web.request import StreamingRequest


@frozen
class _Frame:
    """What surrounds the bytes: a lead before each part, a tail after the last."""

    parts: tuple[tuple[bytes, ByteRange], ...]
    tail: bytes = b""

    @property
    def length(self) -> int:
        return sum(len(lead) + len(span) for lead, span in self.parts) + len(self.tail)


def conditions_of(request: StreamingRequest) -> Conditions:
    """The conditional fields of a request."""

    def field(name: str) -> str | None:
        values = request.requestHeaders.getRawHeaders(name.encode())
        return ",".join(value.decode("latin-1") for value in values) if values else None

    return Conditions(
        range=field("Range"),
        if_range=field("If-Range"),
        if_match=field("If-Match"),
        if_none_match=field("If-None-Match"),
    )


async def send(request: StreamingRequest, reader: IBlobReader, selection: Selection) -> None:
    """
    Answer with what was selected of ``reader``'s blob, and close the reader.

    Fields already set stay; ``Content-Type`` is that of the blob. Sets status, ``Content-Length``,
    ``Content-Range`` and finishes the request.

    :raises SwarmError: the selection is 412 or 416, or bytes cannot be had. Nothing may have been
        written yet, or part of a response that must not end: :func:`~swarm.web.errors.answer_error`
        knows.
    """
    try:
        _check(selection, reader.info.size)
        frame = _frame(request, reader.info.digest.hex[:32], reader.info.size, selection)
        # A 304 carries the fields of a 200 but for the length: RFC 9110 section 15.4.5 lets it be absent.
        if selection.status != 304:
            request.setHeader("Content-Length", str(frame.length))
        if request.method == b"HEAD" or not selection.parts:
            request.setResponseCode(selection.status)
            request.write(b"")
        else:
            await _stream(request, reader, frame, selection.status)
    finally:
        reader.close()
    request.finish()


def _check(selection: Selection, size: int) -> None:
    if selection.status == 412:
        raise Refusal(412, "the blob is not the one If-Match names")
    if selection.status == 416:
        raise Refusal(416, f"the blob has {size} bytes", ("Content-Range", f"bytes */{size}"))


async def _stream(request: StreamingRequest, reader: IBlobReader, frame: _Frame, status: int) -> None:
    first = frame.parts[0][1]
    await reader.available(first.start, first.stop)
    request.setResponseCode(status)
    flow = _Flow()
    request.registerProducer(flow, True)
    try:
        for lead, span in frame.parts:
            if lead:
                request.write(lead)
            await _send_span(request, reader, span, flow)
        end = frame.parts[-1][1].stop
        await reader.available(end, end)  # raises if bytes that were given out have proved wrong since
        if frame.tail:
            request.write(frame.tail)
    finally:
        if request.channel is not None:
            request.unregisterProducer()


async def _send_span(request: StreamingRequest, reader: IBlobReader, span: ByteRange, flow: _Flow) -> None:
    chunk = request.site.limits.chunk
    offset = span.start
    while offset < span.stop:
        stop = await reader.available(offset, span.stop)
        while offset < stop:
            if stop - offset > chunk:
                request.write(b"")  # the head, if that is still to come
                await flow.ready()
                offset = await send_straight(request, reader, ByteRange(offset, stop))
                if offset == stop:
                    break
            length = min(chunk, stop - offset)
            data = reader.read_now(offset, length) or await reader.read(offset, length)
            request.write(data)
            if offset == span.start and reader.fileno() < 0:
                urge(
                    request.channel.transport
                )  # of a pull: they were waited for, and there is more to do now
            offset += len(data)
            await flow.ready()


def _frame(request: StreamingRequest, boundary: str, size: int, selection: Selection) -> _Frame:
    """
    Frame the parts; several become ``multipart/byteranges`` (RFC 9110 section 14.6).

    :param boundary: from the blob's own digest, so no blob can be made to contain it.
    """
    parts = selection.parts
    if selection.status != 206 or len(parts) == 1:
        if selection.status == 206:
            request.setHeader("Content-Range", parts[0].content_range(size))
        return _Frame(tuple((b"", span) for span in parts))
    types = request.responseHeaders.getRawHeaders("Content-Type") or ["application/octet-stream"]
    request.setHeader("Content-Type", f"multipart/byteranges; boundary={boundary}")
    head = f"--{boundary}\r\nContent-Type: {types[0]}\r\nContent-Range: "
    leads = [f"\r\n{head}{span.content_range(size)}\r\n\r\n".encode() for span in parts]
    leads[0] = leads[0][2:]
    return _Frame(tuple(zip(leads, parts, strict=True)), f"\r\n--{boundary}--\r\n".encode())


@implementer(IPushProducer)
class _Flow:
    """The transport's word on whether it takes more."""

    def __init__(self) -> None:
        self._paused = False
        self._waiting: Deferred[None] | None = None

    def pauseProducing(self) -> None:
        self._paused = True

    def resumeProducing(self) -> None:
        self._paused = False
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.callback(None)

    def stopProducing(self) -> None:
        """The connection is lost: who awaits us is canceled by the request's end."""
        self._paused = True

    async def ready(self) -> None:
        if self._paused:
            self._waiting = Deferred()
            await self._waiting

"""One HTTP/1.1 connection: Twisted's channel, made strict, held to deadlines, able to wait.

Decides when bytes are read. What a request means, and whether its body is wanted, is
:mod:`swarm.web.request`'s; which heads are believed is :mod:`swarm.web.strict`'s.
"""

from __future__ import annotations

import fcntl
import json
import struct
import termios
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from twisted.web import http

from swarm.errors import Malformed
from swarm.web.deadlines import Deadlines, Phase
from swarm.web.eager import eager_file, eager_send
from swarm.web.errors import Refusal
from swarm.web.strict import check_head, check_trailers

if TYPE_CHECKING:
    from swarm.web.request import StreamingRequest
    from swarm.web.short_path import ShortPath
    from swarm.web.site import StreamingSite


class Channel(http.HTTPChannel):
    """
    The server's side of a connection.

    ``paused`` is :class:`~twisted.protocols.basic.LineReceiver`'s: while it is set, bytes wait
    unparsed. The transport is paused with it, so few of them do.
    """

    site: StreamingSite
    requests: list[StreamingRequest]
    transport: Any  # TCP, UNIX or TLS; Twisted has no one interface with all we need of them
    timeOut = None  # Twisted's idle timer; Deadlines takes its place
    _line = b""
    _in_head = False
    _closed = False
    _lingering = False
    _thrown_away = 0
    _between = False  # no byte of a request is anywhere in the parser
    _blank = False  # but perhaps the empty line that is allowed before one
    _waiting = b""  # requests for the short path, when it may go on
    _turn: IDelayedCall | None = None
    _just_read = False  # some of the bytes at hand came in this turn of the reactor

    # -- the connection's life --------------------------------------------------

    def connectionMade(self) -> None:
        """A client connected."""
        super().connectionMade()
        self.deadlines = Deadlines(self.site.limits, self.site.reactor, self._expired, self._unsent)
        self.deadlines.head()
        self._send = eager_send(self.transport)
        self._send_file = eager_file(self.transport)
        self._between = True
        if self.site.together is not None:
            self.site.together.join(self.transport)
        self.site.opened(self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The client went, or was sent away."""
        self._closed = True
        self._waiting = b""
        if self._turn is not None:
            self._turn.cancel()
        self.deadlines.over()
        if self.site.together is not None:
            self.site.together.leave(self.transport)
        self.site.closed(self)
        super().connectionLost(reason)

    def loseConnection(self) -> None:
        """End the connection once what was written is taken; at the latest when nothing moves."""
        if self._lingering and not self._closed:
            self._closed = True
            self.paused = False
            self._networkProducer.resumeProducing()
            self.deadlines.linger()
            return
        self._closed = True
        self.deadlines.draining()
        super().loseConnection()

    def leave(self) -> None:
        """The node stops: no further request is read, and the one under way is the last."""
        if self.requests:
            self.persistent = False
        elif not self._closed:
            self.loseConnection()

    def refuse_body(self, unread: bool) -> None:
        """
        The next response is the last, and the body it refuses stays unread.

        :param unread: bytes of it may be on their way; see ``WebLimits.linger``.
        """
        self.persistent = False
        self._lingering = unread

    def _expired(self, phase: Phase) -> None:
        if phase is Phase.HEAD and (self._in_head or self.clearLineBuffer()):
            self._reject(408, "the head of a request took too long")
        elif phase is Phase.BODY:
            self.requests[-1].refuse(Refusal(408, "the body comes too slowly"))
        elif phase is Phase.DRAINING:
            self.transport.abortConnection()
        else:
            self._lingering = False
            self.loseConnection()

    def _unsent(self) -> int | None:
        """Bytes in the kernel's send queue, where the transport is a socket."""
        try:
            answer = fcntl.ioctl(self.transport.fileno(), termios.TIOCOUTQ, bytes(4))
        except (AttributeError, OSError):
            return None
        return int(struct.unpack("i", answer)[0])

    # -- waiting ------------------------------------------------------------------

    def hold(self) -> None:
        """Read nothing until :meth:`release`: the decision, or the disk, is not there yet."""
        if not self.paused:
            self.paused = True
            self._networkProducer.pauseProducing()
            self.deadlines.ours()

    def release(self) -> None:
        """Go on reading. Does nothing unless held."""
        if not self.paused or self._closed:
            return
        self.paused = False
        if not self._handlingRequest:
            self.deadlines.body()
        if not self._waitingForTransport:
            self._networkProducer.resumeProducing()
        self.dataReceived(b"")

    def pauseProducing(self) -> None:
        """The transport is full."""
        super().pauseProducing()
        if self.deadlines.phase is Phase.OURS:
            self.deadlines.draining()

    def resumeProducing(self) -> None:
        """The transport is empty again."""
        if self.deadlines.phase is Phase.DRAINING and not self._closed:
            if self._between:
                self.deadlines.idle()
            else:
                self.deadlines.ours()
        super().resumeProducing()
        if self.paused or self._turn is not None:
            self._networkProducer.pauseProducing()
        elif self._waiting:
            self.dataReceived(b"")

    # -- the short path -------------------------------------------------------------

    @property
    def full(self) -> bool:
        """Does the transport take nothing more for now, or is the connection over?"""
        return self._waitingForTransport or self._closed

    def send_whole(self, response: bytes | memoryview) -> None:
        """Write a whole response; the memory may be used again at once."""
        self._send(response)
        self.deadlines.idle()

    def send_file(self, head: bytes, file: int, size: int) -> bool:
        """Write a whole response, its body from a file. False: there is no such way, :meth:`send_whole`."""
        sent = self._send_file(head, file, size)
        if sent:
            self.deadlines.idle()
        return sent

    def yield_turn(self) -> None:
        """Go on when other connections had their turn."""
        if self._turn is None:
            self._networkProducer.pauseProducing()
            self._turn = self.site.reactor.callLater(0, self._next_turn)

    def _next_turn(self) -> None:
        self._turn = None
        if not self.full:
            self._networkProducer.resumeProducing()
            self.dataReceived(b"")

    def _answered_shortly(self, short: ShortPath, data: bytes) -> bytes:
        """Let the short path answer what it can; what is left is for the parser."""
        data = self._waiting + data
        self._waiting = b""
        if self.full or self._turn is not None:
            self._waiting = data
            return b""
        rest = data[short.answer(self, data, fresh=self._just_read) :]
        if rest and (self.full or self._turn is not None):
            self._waiting = rest
            if self._waitingForTransport:
                self.deadlines.draining()
            return b""
        return rest

    def _know_between(self) -> None:
        self._between = not (
            self._buffer
            or self._busyReceiving
            or self._in_head
            or self._blank
            or self._closed
            or self.paused
            or self.requests
        ) and bool(self.line_mode)

    # -- parsing ------------------------------------------------------------------

    def dataReceived(self, data: bytes) -> None:
        """Bytes came; ``b""`` parses what waited."""
        if self._closed:
            self._thrown_away += len(data)
            if self._thrown_away > self.site.limits.linger_bytes:
                self._networkProducer.pauseProducing()  # the client still has its time to read
            return
        self._just_read = bool(data)
        if self._between and (short := self.site.short_path) is not None:
            data = self._answered_shortly(short, data)
            if not data:
                return
        self._between = False
        if data and self.deadlines.phase is Phase.IDLE:
            self.deadlines.head()
        self.deadlines.received(len(data))
        super().dataReceived(data)
        # What the parser leaves in line mode has no CRLF in it, so any LF there is bare.
        if self.line_mode and not self._busyReceiving and not self._closed and b"\n" in self._buffer:
            self._reject(400, "a line ends with CRLF")
        self._know_between()

    def lineReceived(self, line: bytes) -> None:
        """A line of a head came."""
        if self._closed:
            return
        if b"\n" in line:
            self._reject(400, "a line ends with CRLF")
            return
        if not self._in_head:
            self._in_head = bool(line)
            self._blank = not line
            self._line = line
        elif line.startswith((b" ", b"\t")):
            self._reject(400, "a field is one line")  # obs-fold, RFC 9112 section 5.2
            return
        super().lineReceived(line)

    def headerReceived(self, line: bytes) -> bool:
        """A field came. Thousands of digits would make ``int`` raise."""
        if len(line) > 64 and line[:15].lower() == b"content-length:":
            self._reject(400, "an impossible Content-Length")
            return False
        return bool(super().headerReceived(line))

    def allHeadersReceived(self) -> None:
        """The head is whole: judge it, then let the request decide. 100-continue is the request's too."""
        self._in_head = False
        request = self.requests[-1]
        try:
            line = check_head(self._line, request.requestHeaders, self.length)
        except Malformed as e:
            self._reject(400, str(e))
            return
        self.persistent = self.checkPersistence(request, line.version)
        request.begin(line)
        if self.length != 0:
            self.deadlines.body()
        request.gotLength(self.length)

    def checkPersistence(self, request: http.Request, version: bytes) -> bool:
        """Does the connection stay after this request? HTTP/1.0 never does."""
        fields = request.requestHeaders.getRawHeaders(b"Connection") or []
        tokens = {token.strip().lower() for field in fields for token in field.split(b",")}
        stays = version == b"HTTP/1.1" and b"close" not in tokens
        if not stays:
            request.responseHeaders.setRawHeaders(b"Connection", [b"close"])
        return stays

    def rawDataReceived(self, data: bytes) -> None:
        """Bytes of a body, or of the next request while one is answered."""
        if not self._closed:
            super().rawDataReceived(data)

    def allContentReceived(self) -> None:
        """The body is whole. What Twisted kept of its trailers, nobody has looked at yet."""
        if self._closed:
            return
        try:
            check_trailers(map(bytes, getattr(self._transferDecoder, "_trailerHeaders", ())))
        except Malformed as e:
            self._reject(400, str(e))
            return
        self.deadlines.ours()
        super().allContentReceived()

    def requestDone(self, request: http.Request) -> None:
        """The response is written."""
        self.deadlines.idle()
        super().requestDone(request)
        self._know_between()

    def send_continue(self) -> None:
        """Ask for the body."""
        self._send100Continue()

    def _send100Continue(self) -> None:
        if not self._closed:
            super()._send100Continue()

    def _respondToBadRequestAndDisconnect(self) -> None:
        self._reject(400, "malformed request")

    def lineLengthExceeded(self, line: bytes) -> None:
        """A line alone is longer than a head may be; the rest of it may be on its way."""
        status = 431 if self._in_head else 414
        self._reject(status, f"the head of a request has at most {self.totalHeadersSize} bytes", unread=True)

    def _reject(self, status: int, detail: str, *, unread: bool = False) -> None:
        """Answer what never became a request, and hang up. ``unread``: see :meth:`refuse_body`."""
        if self._closed:
            return
        if self.requests:
            self.requests[-1].abandon()
        phrase = HTTPStatus(status).phrase
        body = json.dumps({"error": phrase, "detail": detail}).encode() + b"\n"
        self.transport.write(
            b"HTTP/1.1 %d %s\r\nConnection: close\r\nContent-Type: application/json\r\n"
            b"X-Content-Type-Options: nosniff\r\nContent-Length: %d\r\n\r\n%s"
            % (status, phrase.encode(), len(body), body)
        )
        self.site.rejected(self, status)
        self._lingering = unread
        self.loseConnection()

"""A request whose body is wanted or refused before any of it is read (DESIGN 3).

Stock twisted.web spools a body to a temporary file, answers ``100-continue`` first and asks
nobody. Here the site's :data:`Admit` decides in ``gotLength``: it raises what should be answered,
returns a sink for the bytes, or None for a body that is small or absent. Routing comes after
the body, as ever. Who may do what is not decided here.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from io import BytesIO
from typing import TYPE_CHECKING, Any, Protocol

from twisted.internet.abstract import FileDescriptor
from twisted.internet.defer import Deferred, TimeoutError, maybeDeferred
from twisted.internet.interfaces import IAddress
from twisted.python.failure import Failure
from twisted.web import http, server

from swarm.errors import Overloaded, SwarmError
from swarm.web.errors import Refusal, answer_error
from swarm.web.strict import RequestLine

if TYPE_CHECKING:
    from swarm.web.channel import Channel
    from swarm.web.site import StreamingSite


#: Bytes of a body to be received at once.
_BODY = 256 << 10


class BodySink(Protocol):
    """Where a body goes; ``IBlobWriter`` is one."""

    def write(self, data: bytes) -> None:
        """Take bytes. What it raises is answered, and the rest of the body stays unread."""

    def lagging(self) -> bool:
        """Should the client be held up until :meth:`caught_up`?"""

    async def caught_up(self) -> None:
        """Wait until no longer lagging."""

    def abort(self) -> None:
        """The client went, or the request was refused: throw the bytes away."""


class StreamingRequest(server.Request):
    """
    One request.

    :ivar length: declared bytes of body; 0 for none, None for chunked.
    :ivar received: bytes of body taken so far.
    :ivar sink: what :data:`Admit` returned.
    :ivar answering: what answers once the body is whole, if :data:`Admit` knew it; else the site's resource.
        A body it returns is written; the response is finished if it has not been.
    """

    defaultContentType = None
    channel: Channel
    site: StreamingSite
    client: IAddress
    transport: Any  # see Channel.transport
    content: BytesIO
    path: bytes = b""
    query: bytes = b""
    length: int | None = 0
    received: int = 0
    sink: BodySink | None = None
    answering: Callable[[], Any] | None = None
    _deciding: Deferred[BodySink | None] | None = None
    _catching_up: Deferred[None] | None = None
    _refused: Failure | None = None
    _abandoned = False
    _complete = False
    _continued = False

    # -- called by the channel ------------------------------------------------------

    def begin(self, line: RequestLine) -> None:
        """Know the request line before the body; Twisted would tell after it."""
        self.method, self.path, self.query = line.method, line.path, line.query
        self.uri, self.clientproto = line.uri, line.version
        self.args = http.parse_qs(line.query, True) if line.query else {}
        self.prepath: list[bytes] = []
        # Segments stay percent-encoded: decoded once, by the parser of what they name (%2F is no slash).
        self.postpath = line.path[1:].split(b"/")

    def gotLength(self, length: int | None) -> None:
        """The head is whole: decide."""
        self.length = length
        self.site = self.channel.site
        self.content = BytesIO()
        self.setHeader(b"Date", self.site.date())
        expects = self.getHeader(b"expect")
        if expects is not None and expects.lower() != b"100-continue":
            self.refuse(Refusal(417, "the only expectation met here is 100-continue"))
            return
        limits = self.site.limits
        deciding: Deferred[BodySink | None] = Deferred.fromCoroutine(self._decide())
        self._deciding = deciding
        if not deciding.called:  # most decide at once
            deciding.addTimeout(limits.admission, self.site.reactor)
        deciding.addCallbacks(self._admitted, self._failed)
        if self._deciding is not None and length != 0:
            self.channel.hold()

    async def _decide(self) -> BodySink | None:
        sink = await self.site.admit(self)
        limit = self.site.limits.small_body
        if sink is None and self.length is not None and self.length > limit:
            raise Refusal(413, f"a body here has at most {limit} bytes")
        return sink

    def _admitted(self, sink: BodySink | None) -> None:
        self._deciding = None
        if self._abandoned:
            if sink is not None:
                sink.abort()
            return
        self.sink = sink
        if self.length == 0:
            self._proceed()
            return
        if sink is not None:
            self._receive(_BODY)
        if self.expects_continue:
            self._continued = True
            self.channel.send_continue()
        self.channel.release()

    def _failed(self, failure: Failure) -> None:
        self._deciding = None
        if failure.check(TimeoutError):
            failure = Failure(Overloaded("deciding took too long"))
        self._refuse(failure)

    def handleContentChunk(self, data: bytes) -> None:
        """Bytes of the body came."""
        if self._abandoned or self.finished:
            return
        self.received += len(data)
        if self.sink is None:
            if self.content.tell() + len(data) > self.site.limits.small_body:
                self.refuse(Refusal(413, f"a body here has at most {self.site.limits.small_body} bytes"))
                return
            self.content.write(data)
            return
        try:
            self.sink.write(data)
        except SwarmError:
            self._refuse(Failure())
            return
        if self._catching_up is None and self.sink.lagging():
            self.channel.hold()
            self._catching_up = Deferred.fromCoroutine(self.sink.caught_up())
            self._catching_up.addCallbacks(self._caught_up, self._failed)

    def _caught_up(self, _: None) -> None:
        self._catching_up = None
        if not self._abandoned:
            self.channel.release()

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:
        """The body is whole; what Twisted tells here, :meth:`begin` knew."""
        self._receive(FileDescriptor.bufferSize)
        self._complete = True
        self.content.seek(0)
        self._proceed()

    def connectionLost(self, reason: Failure) -> None:
        """The client went."""
        self.abandon()
        super().connectionLost(reason)

    def _receive(self, size: int) -> None:
        """
        Let the transport take up to ``size`` bytes at once.

        Through a socket of its own: a quarter of the calls, here and into Python. It is also how much a
        transport sends at once, where more is slower, so it is set back before anything is answered.
        """
        if isinstance(self.channel.transport, FileDescriptor):
            self.channel.transport.bufferSize = size

    # -- refusing -------------------------------------------------------------------

    @property
    def expects_continue(self) -> bool:
        """Does the client wait to be asked for its body?"""
        return self.clientproto == b"HTTP/1.1" and self.requestHeaders.hasHeader(b"Expect")

    def refuse(self, error: Exception) -> None:
        """Answer ``error`` now; a body still to come stays unread and the connection ends."""
        self._refuse(Failure(error))

    def _refuse(self, failure: Failure) -> None:
        if self._abandoned or self.finished:
            return
        if self.length == 0:
            self._refused = failure
            self._proceed()
            return
        self.abandon()
        if not self._complete:
            self.setHeader(b"Connection", b"close")
            self.channel.refuse_body(unread=self._continued or not self.expects_continue)
        answer_error(self, failure)

    def abandon(self) -> None:
        """Let go of the body: nobody will come for it."""
        self._abandoned = True
        for waiting in (self._deciding, self._catching_up):
            if waiting is not None:
                waiting.cancel()
        if self.sink is not None:
            self.sink.abort()
            self.sink = None

    # -- answering ------------------------------------------------------------------

    def take_sink(self) -> BodySink | None:
        """Hand the sink to who finishes it; from now on that is also who aborts it."""
        sink, self.sink = self.sink, None
        return sink

    def _proceed(self) -> None:
        if self._complete and self._deciding is None:
            self.process()

    def process(self) -> None:
        """Answer."""
        if self._refused is not None:
            answer_error(self, self._refused)
        elif self.path == b"*":  # OPTIONS *: a ping
            self.setResponseCode(http.NO_CONTENT)
            self.finish()
        elif self.answering is not None:
            answering, self.answering = self.answering, None  # it knows us: a circle for the collector
            self._answer(maybeDeferred(answering))
        else:
            try:
                self.render(self.site.getResourceFor(self))
            except Exception:  # route dispatch: whatever it is becomes a status
                self.processingFailed(Failure())

    def _answer(self, answering: Deferred[bytes | None]) -> None:
        self.notifyFinish().addErrback(lambda gone: answering.cancel())
        answering.addCallback(self._answered)
        answering.addErrback(self._unanswered)

    def _answered(self, body: bytes | None) -> None:
        if body is not None:
            self.write(body)
        if not self.finished:
            self.finish()

    def _unanswered(self, failure: Failure) -> None:
        if not self._abandoned and not self.finished:
            answer_error(self, failure)

    def processingFailed(self, reason: Failure) -> Failure:
        """Something raised where no handler caught it."""
        answer_error(self, reason)
        return reason


#: Decides whether a body is wanted; see the module's docstring. Runs for every request.
Admit = Callable[[StreamingRequest], Awaitable[BodySink | None]]

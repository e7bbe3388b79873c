"""The factory of one HTTP door: who may connect, and what every request of it shares."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from typing import Any, Protocol

from twisted.internet.defer import TimeoutError
from twisted.internet.interfaces import IAddress
from twisted.logger import Logger
from twisted.web import http, server
from twisted.web.resource import IResource

from swarm.services.tasks import Signal, within
from swarm.web.channel import Channel
from swarm.web.clients import client_key
from swarm.web.limits import WebLimits
from swarm.web.request import Admit, StreamingRequest
from swarm.web.short_path import Answers, Blobs, ShortPath
from swarm.web.together import Together


class Observer(Protocol):
    """Told of every response, for metrics."""

    def answered(self, request: StreamingRequest) -> None:
        """A response was written whole; ``request.code``, ``sentLength`` and ``length`` are final."""

    def rejected(self, status: int) -> None:
        """Something that never became a request was answered."""

    def sent(self, method: str, size: int) -> None:
        """The short path answered 200 with ``size`` bytes of body."""


class StreamingSite(server.Site):
    """
    HTTP/1.1 only: no h2, no parsed forms, no temporary files, no version in answers.

    :param clock: timers and the ``Date`` field.
    :param blobs: for the short path, with ``answers``; without either there is none.
    """

    noisy = False
    log_ = Logger()

    def __init__(
        self,
        resource: IResource,
        *,
        admit: Admit,
        clock: Any,
        limits: WebLimits | None = None,
        observer: Observer | None = None,
        blobs: Blobs | None = None,
        answers: Answers | None = None,
    ) -> None:
        super().__init__(
            resource,
            requestFactory=StreamingRequest,
            parsePOSTFormSubmission=False,
            timeout=None,
            reactor=clock,
        )
        self.admit = admit
        self.limits = limits or WebLimits()
        self._observer = observer
        self._channels: dict[Channel, None] = {}  # in the order they came, not as they lie in memory
        self._clients: Counter[str] = Counter()
        self._lent = 0
        self._closed = Signal()
        self._date = (-1, b"")
        self.short_path: ShortPath | None = None
        self.together: Together | None = None
        if blobs is not None and answers is not None:
            limit = self.limits.chunk
            count = observer.sent if observer is not None else lambda method, size: None
            self.short_path = ShortPath(blobs, answers, clock=clock, limit=limit, date=self.date, count=count)
            self.together = Together(clock, self.short_path.forget)

    @property
    def connections(self) -> int:
        """Connections open now."""
        return len(self._channels)

    def buildProtocol(  # type: ignore[override]  # Twisted's type names its h2 switch, which we leave out
        self, addr: IAddress | None
    ) -> Channel | None:
        """A channel for a client; None, which hangs up, when it or everybody has too many."""
        if not self._admits(addr):
            return None
        channel = Channel()
        channel.factory = self
        channel.site = self
        channel.requestFactory = self.requestFactory
        return channel

    def _admits(self, addr: IAddress | None) -> bool:
        client = client_key(addr)
        return len(self._channels) + self._lent < self.limits.connections and (
            client is None or self._clients[client] < self.limits.connections_per_client
        )

    def opened(self, channel: Channel) -> None:
        """A connection was made."""
        self._channels[channel] = None
        self._came(channel.getPeer())

    def closed(self, channel: Channel) -> None:
        """A connection is gone."""
        self._channels.pop(channel, None)
        self._went(channel.getPeer())
        self._closed.fire()

    def lend(self, addr: IAddress | None) -> bool:
        """Count a client that is served elsewhere; False when it or everybody has too many."""
        if not self._admits(addr):
            return False
        self.lend_again(addr)
        return True

    def lend_again(self, addr: IAddress | None) -> None:
        """The same for one that was served here for a while, whatever is open by now."""
        self._lent += 1
        self._came(addr)

    def unlend(self, addr: IAddress | None) -> None:
        """It is served elsewhere no more."""
        self._lent -= 1
        self._went(addr)

    def _came(self, addr: IAddress | None) -> None:
        if client := client_key(addr):
            self._clients[client] += 1

    def _went(self, addr: IAddress | None) -> None:
        if client := client_key(addr):
            self._clients[client] -= 1
            self._clients += Counter()  # drops those at zero

    async def drain(self, seconds: float) -> None:
        """Read no further request; wait for so long at most until what is under way is answered."""
        for channel in tuple(self._channels):
            channel.leave()
        with suppress(TimeoutError):
            await within(self.reactor, seconds, self._emptied())

    async def _emptied(self) -> None:
        while self._channels:
            await self._closed.wait()

    def disconnect(self) -> None:
        """Abort every connection: the node stops."""
        for channel in tuple(self._channels):
            channel.transport.abortConnection()

    def date(self) -> bytes:
        """The ``Date`` of now, made once a second."""
        now = int(self.reactor.seconds())
        if now != self._date[0]:
            self._date = now, http.datetimeToString(now)
        return self._date[1]

    def acceptableProtocols(self) -> list[bytes]:
        """What ALPN may choose. h2 costs seven times the CPU in Twisted (PERFORMANCE 2)."""
        return [b"http/1.1"]

    def startFactory(self) -> None:
        """No access log file, so no clock for its lines."""

    def stopFactory(self) -> None:
        """Nothing was started."""

    def log(self, request: http.Request) -> None:
        """A response was written. No line for it: metrics count, and ids are capabilities."""
        if self._observer is not None and isinstance(request, StreamingRequest):
            self._observer.answered(request)

    def rejected(self, channel: Channel, status: int) -> None:
        """A channel answered what never became a request."""
        self.log_.debug("{client} was rejected: {status}", client=channel.getPeer(), status=status)
        if self._observer is not None:
            self._observer.rejected(status)

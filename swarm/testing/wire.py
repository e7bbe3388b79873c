"""A connection in memory to an HTTP door: it fills up, pauses, drains when told, and can break.

Twisted's own test transports never pause a push producer, so back-pressure goes untested with them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from attrs import frozen
from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import (
    IConsumer,
    IProducer,
    IProtocol,
    IProtocolFactory,
    IPushProducer,
    ITCPTransport,
)
from twisted.python.failure import Failure
from zope.interface import implementer

CLIENT = IPv4Address("TCP", "127.0.0.1", 50000)
STRANGER = IPv4Address("TCP", "203.0.113.9", 50000)
_SERVER = IPv4Address("TCP", "127.0.0.1", 7040)
_FULL = 64 << 10


@frozen
class Response:
    """A parsed response; ``fields`` by lower-case name, repeated ones joined with commas."""

    status: int
    fields: dict[str, str]
    body: bytes


@implementer(ITCPTransport, IPushProducer, IConsumer)
class Wire:
    """
    The server's transport, and the client's hands on it.

    :ivar draining: does the client take bytes as they are written? Else only by :meth:`take`.
    :ivar output: bytes written and not yet taken.
    :ivar received: bytes taken.
    :ivar paused: the server reads no more for now.
    """

    def __init__(
        self, factory: IProtocolFactory, client: IPv4Address = CLIENT, *, draining: bool = True
    ) -> None:
        self.output = bytearray()
        self.received = bytearray()
        self.paused = False
        self.disconnecting = False
        self.disconnected = False
        self.aborted = False
        self.draining = draining
        self._client = client
        self._producer: Any = None
        self._producer_paused = False
        protocol = factory.buildProtocol(client)
        self.refused = protocol is None
        self.protocol: IProtocol | None = protocol
        if protocol is not None:
            protocol.makeConnection(self)

    # -- the client -----------------------------------------------------------------

    def send(self, data: bytes, *, piece: int = 1 << 16) -> None:
        """Deliver bytes in pieces, as far as the connection lasts."""
        for at in range(0, len(data), piece):
            if self.disconnected or self.disconnecting or self.protocol is None:
                return
            self.protocol.dataReceived(data[at : at + piece])

    def take(self, size: int | None = None) -> int:
        """Receive bytes; once all are taken the server may write more. Returns how many."""
        data = self.output[:size]
        del self.output[: len(data)]
        self.received += data
        self._drained()
        return len(data)

    def responses(self, head: bool = False) -> list[Response]:
        """Take everything there is and parse it; ``head``: responses have no bodies."""
        while self.take():
            pass
        data, found = bytes(self.received), list[Response]()
        self.received.clear()
        while data:
            response, data = _parse(data, head)
            if response.status != 100:
                found.append(response)
        return found

    def hang_up(self) -> None:
        """The client goes without a word."""
        self._lose(Failure(ConnectionLost()))

    # -- the server -----------------------------------------------------------------

    def write(self, data: bytes) -> None:
        """See ITransport."""
        if self.disconnected or self.disconnecting:
            return
        if self.draining:
            self.received += data
            return
        self.output += data
        if len(self.output) > _FULL and self._producer is not None and not self._producer_paused:
            self._producer_paused = True
            self._producer.pauseProducing()

    def writeSequence(self, iovec: Iterable[bytes]) -> None:
        """See ITransport."""
        self.write(b"".join(iovec))

    def _drained(self) -> None:
        if self.output:
            return
        if self.disconnecting:
            self._lose(Failure(ConnectionDone()))
        elif self._producer is not None and self._producer_paused:
            self._producer_paused = False
            self._producer.resumeProducing()

    def loseConnection(self) -> None:
        """See ITransport: what was written is taken first."""
        self.disconnecting = True
        self._drained()

    def abortConnection(self) -> None:
        """See ITCPTransport."""
        self.aborted = True
        self._lose(Failure(ConnectionAborted()))

    def _lose(self, reason: Failure) -> None:
        if self.disconnected:
            return
        self.disconnected = True
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.stopProducing()
        if self.protocol is not None:
            self.protocol.connectionLost(reason)

    def registerProducer(self, producer: IProducer, streaming: bool) -> None:
        """See IConsumer."""
        assert streaming and IPushProducer.providedBy(producer), "only push producers here"
        if self.disconnected:
            producer.stopProducing()
        else:
            self._producer = producer
            self._producer_paused = False

    def unregisterProducer(self) -> None:
        """See IConsumer."""
        self._producer = None

    def pauseProducing(self) -> None:
        """The server reads no more for now."""
        self.paused = True

    def resumeProducing(self) -> None:
        """It reads again."""
        self.paused = False

    def stopProducing(self) -> None:
        """See IProducer."""
        self.loseConnection()

    def getPeer(self) -> IPv4Address:
        """See ITransport."""
        return self._client

    def getHost(self) -> IPv4Address:
        """See ITransport."""
        return _SERVER

    def setTcpNoDelay(self, enabled: bool) -> None:
        """See ITCPTransport."""

    def getTcpNoDelay(self) -> bool:
        """See ITCPTransport."""
        return True

    def setTcpKeepAlive(self, enabled: bool) -> None:
        """See ITCPTransport."""

    def getTcpKeepAlive(self) -> bool:
        """See ITCPTransport."""
        return False

    def loseWriteConnection(self) -> None:
        """See ITCPTransport."""


def _parse(data: bytes, head: bool) -> tuple[Response, bytes]:
    top, separator, rest = data.partition(b"\r\n\r\n")
    assert separator, f"no whole response: {data[:200]!r}"
    first, *lines = top.decode("latin-1").split("\r\n")
    version, status, _ = first.split(" ", 2)
    assert version == "HTTP/1.1", first
    fields: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(":")
        name, value = name.lower(), value.strip()
        fields[name] = f"{fields[name]}, {value}" if name in fields else value
    if head or int(status) < 200 or int(status) in (204, 304):
        return Response(int(status), fields, b""), rest
    if fields.get("transfer-encoding") == "chunked":
        body = b""
        while True:
            size, _, rest = rest.partition(b"\r\n")
            length = int(size, 16)
            body, rest = body + rest[:length], rest[length + 2 :]
            if not length:
                return Response(int(status), fields, body), rest
    length = int(fields.get("content-length", len(rest)))
    return Response(int(status), fields, rest[:length]), rest[length:]

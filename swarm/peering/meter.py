"""Counts what a connection under Twisted's HTTP client receives: bytes against an allowance, silence
against a clock. One that is idle may be taken over by a lane, which counts for itself.

Stock ``Agent`` takes any amount of head and of 1xx, waits for ever, and forgets an answer that
arrives while a body is still being sent (RELIABILITY 0.6). Decides only when a connection is ended.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IProtocol,
    IProtocolFactory,
    IReactorTime,
    IStreamClientEndpoint,
)
from twisted.internet.protocol import connectionDone
from twisted.protocols.policies import ProtocolWrapper, TimeoutMixin, WrappingFactory
from twisted.python.failure import Failure
from zope.interface import implementer

from swarm.errors import Fault, Malformed
from swarm.model.peers import PeerID
from swarm.peering.http1 import Head
from swarm.peering.lean import IRecordsReceiver
from swarm.peering.pushing import BlobBody


@implementer(IStreamClientEndpoint)
@frozen
class Metered:
    """
    An endpoint whose connections have a :class:`Meter` below what is built on them.

    :ivar open: the meters of connections that are up.
    """

    endpoint: IStreamClientEndpoint
    clock: IReactorTime
    identify: Callable[[Any], PeerID]
    open: dict[Meter, None]

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[Any]:
        """See :class:`~twisted.internet.interfaces.IStreamClientEndpoint`."""
        connecting: Deferred[Any] = self.endpoint.connect(_Factory(protocolFactory, self))
        return connecting.addCallback(lambda meter: meter.wrappedProtocol)


class _Factory(WrappingFactory[Any]):
    noisy = False

    def __init__(self, wrapped: IProtocolFactory, metered: Metered) -> None:
        super().__init__(wrapped)
        self._metered = metered

    def buildProtocol(self, addr: IAddress | None) -> Any:
        return Meter(self, self.wrappedFactory.buildProtocol(addr), self._metered)


@implementer(IRecordsReceiver)
class Meter(ProtocolWrapper, TimeoutMixin):
    """
    I let a connection receive so much and be silent so long for each request it carries.

    :ivar uses: requests carried so far.
    :ivar received: bytes received since this request began.
    :ivar fault: why I ended the connection, if I did.
    :ivar early: an answer that came while a body was still being sent; the connection is ended.
    :ivar who: the other side, known when it has sent something.
    """

    transport: Any  # TCP, or TLS on top of it: more than any one interface says
    who: PeerID

    def __init__(self, factory: _Factory, wrapped: Any, metered: Metered) -> None:
        super().__init__(factory, wrapped)
        self.uses = 0
        self.received = 0
        self.fault: Fault | None = None
        self.early: tuple[Head, bytes] | None = None
        self._metered = metered
        self._allowed = 0
        self._active = False
        self._over = False
        self._body: BlobBody | None = None
        self._ahead = bytearray()
        self._taker: IProtocol | None = None  # who has the connection now, if not Twisted's client
        self._records: Any = None  # the same, if it would rather have records

    def begin(self, allowed: int, silence: float) -> None:
        """A request is about to be written."""
        self.uses += 1
        self.received = 0
        self._allowed = allowed
        self._active = True
        self.setTimeout(silence)

    def sending(self, body: BlobBody, verdict: float) -> None:
        """The request has a long body; after its end the peer may be silent for ``verdict``."""

        def ended() -> None:
            if self._body is body:
                self._body = None
                self.setTimeout(verdict)
                ahead, self._ahead = bytes(self._ahead), bytearray()
                if ahead:
                    self.wrappedProtocol.dataReceived(ahead)

        self._body = body
        body.ended = ended

    def settle(self) -> None:
        """The request is over: from now on every byte is one too many."""
        self._allowed = self.received
        self._active = False
        self._body = None
        self.setTimeout(None)

    def lend(self, protocol: IProtocol) -> None:
        """Let another than Twisted's client read what is counted, or that one again."""
        self.wrappedProtocol = protocol

    def hand_over(self, protocol: IProtocol) -> None:
        """
        Let another than Twisted's client have the connection, for good; nothing is counted any more.

        Only while no request is under way. What comes in records is passed on as records.
        """
        assert not self._active, "a request is under way"
        self._metered.open.pop(self, None)
        self.wrappedProtocol = self._taker = protocol
        self._records = IRecordsReceiver(protocol, None)
        protocol.makeConnection(self)  # type: ignore[arg-type]  # the transport of what it wraps

    def write(self, data: bytes) -> None:
        """Twisted's client sends, so the peer took what was sent before."""
        self.resetTimeout()
        super().write(data)

    def dataReceived(self, data: bytes) -> None:
        """
        Count, then pass on.

        An answer to an unfinished request is kept from Twisted's client: that stops reading
        until the body is sent, and loses the answer with the connection.
        """
        if self._taker is not None:
            self._taker.dataReceived(data)
            return
        if self.fault is not None or self.early is not None:
            return
        if not self.received:
            self.who = self._metered.identify(self.transport)
        self.received += len(data)
        if self.received > self._allowed:
            self._end(Fault.OVERSIZED)
            return
        self.resetTimeout()
        if self._body is not None:
            self._ahead += data
            self._look_ahead()
        else:
            super().dataReceived(data)

    def recordsReceived(self, records: Sequence[bytes | memoryview]) -> None:
        """See :class:`~swarm.peering.lean.IRecordsReceiver`."""
        if self._records is not None:
            self._records.recordsReceived(records)
        else:
            self.dataReceived(b"".join(records))

    def _look_ahead(self) -> None:
        while (end := self._ahead.find(b"\r\n\r\n")) >= 0:
            try:
                head = Head.parse(bytes(self._ahead[:end]))
                length = head.length or 0
            except Malformed:
                self._end(Fault.GARBLED)
                return
            body = bytes(self._ahead[end + 4 :])
            if head.status >= 200:
                if len(body) >= length:
                    self.early = head, body[:length]
                    self.abortConnection()
                return
            self._ahead = bytearray(body)

    def _end(self, fault: Fault) -> None:
        self.fault = fault
        self.abortConnection()

    def timeoutConnection(self) -> None:
        """Twisted: nothing moved for too long."""
        self._end(Fault.SILENT)

    def abortConnection(self) -> None:
        """End it now, asking nobody."""
        if not self._over:
            self.transport.abortConnection()

    def loseConnection(self) -> None:
        """
        Twisted's client is done with the connection.

        In the middle of an answer that means it could not read it. Over TLS a polite end would wait
        for the peer's consent.
        """
        if self._active and self.fault is None:
            self.fault = Fault.GARBLED
        self.abortConnection()

    def callLater(self, period: float, func: Callable[[], None]) -> IDelayedCall:
        """Twisted: the clock of the timeout."""
        return self._metered.clock.callLater(period, func)

    def connectionMade(self) -> None:
        """Twisted: connected."""
        self._metered.open[self] = None
        super().connectionMade()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Twisted: over."""
        self._over = True
        self._metered.open.pop(self, None)
        self.setTimeout(None)
        super().connectionLost(reason)

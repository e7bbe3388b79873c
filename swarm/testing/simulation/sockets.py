"""The ends of simulated TCP connections: Twisted's transports, as protocols see them.

Decides how bytes are cut into segments (anew, at random) and when a writer is held up: a window of limited
size is all that is unread at the other end, so a reader that pauses reaches the writer's producer.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from attrs import frozen
from twisted.internet import error
from twisted.internet.address import IPv4Address
from twisted.internet.interfaces import (
    IConsumer,
    IPushProducer,
    ITCPTransport,
)
from twisted.python.failure import Failure
from zope.interface import implementer

from swarm.testing.simulation.reactor import SimReactor
from swarm.testing.simulation.timeline import Timeline

if TYPE_CHECKING:
    from swarm.testing.simulation.connecting import Connector
    from swarm.testing.simulation.network import Network
    from swarm.testing.simulation.wiretap import Wiretap


@frozen
class Ack:
    """So many bytes were read at the other end."""

    count: int


class Mark:
    """What travels beside bytes."""


FIN, RST = Mark(), Mark()
Item = bytes | Ack | Mark


@implementer(ITCPTransport, IConsumer, IPushProducer)
class Socket:
    """One end of a connection: Twisted's TCP transport as protocols see it."""

    disconnecting = False

    def __init__(self, network: Network, process: SimReactor, here: IPv4Address, there: IPv4Address) -> None:
        self.process = process
        self.other: Socket
        self.protocol: Any = None
        self.connector: Connector | None = None
        self.tap: Wiretap | None = None
        self.stuck: deque[Item] = deque()
        self.last_arrival = 0.0
        self.closed = False
        self._network = network
        self._here = here
        self._there = there
        self.window = network.random.choice([1, 4, 16]) * network.segment
        self._crumbs = network.random.random() < 0.05
        self._unsent: deque[bytes | memoryview] = deque()
        self._queued = 0
        self._in_flight = 0
        self._unsaid = 0
        self._inbox: deque[bytes | Mark] = deque()
        self._reading = True
        self._producer: Any = None
        self._streaming = False
        self._producer_paused = False
        self._turn = False
        self._aborting = False
        network.sockets[self] = None

    @property
    def connected(self) -> bool:
        """Twisted's own attribute."""
        return not self.closed

    # -- writing ----------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        """See :class:`~twisted.internet.interfaces.ITransport`."""
        if self.closed or self._aborting or not data:
            return
        data = bytes(data)
        if self.tap is not None:
            self.tap.sent(data)
        self._unsent.append(data)
        self._queued += len(data)
        self._soon()
        pausable = self._producer is not None and self._streaming and not self._producer_paused
        if pausable and self._queued > self._network.segment:
            self._producer_paused = True
            self._producer.pauseProducing()

    def writeSequence(self, data: Iterable[bytes]) -> None:
        """See :class:`~twisted.internet.interfaces.ITransport`."""
        self.write(b"".join(data))

    def _soon(self) -> None:
        if not self._turn:
            self._turn = True
            self.process.callLater(0, self._send)

    def _send(self) -> None:
        """Hand to the network what its window takes."""
        self._turn = False
        unsent, carry = self._unsent, self._network.carry
        while unsent and self._in_flight < self.window:
            data = unsent.popleft()
            size = min(len(data), self.window - self._in_flight, self._segment())
            if size < len(data):
                rest = memoryview(data)
                unsent.appendleft(rest[size:])
                data = rest[:size]
            self._in_flight += size
            self._queued -= size
            carry(self, bytes(data))
        if not unsent and not self.closed and not self._aborting:
            self._drained()

    def _segment(self) -> int:
        """As the kernel cuts them: mostly large, at times of any size; some connections get crumbs only."""
        draw, most = self._network.random, self._network.segment
        if self._crumbs:
            return draw.randint(1, most // 4)
        return draw.randint(1, most) if draw.random() < 0.1 else most

    def _drained(self) -> None:
        if self._producer is not None:
            if self._producer_paused or not self._streaming:
                self._producer_paused = False
                self._producer.resumeProducing()
        elif self.disconnecting:
            # A kernel that has bytes nobody read says so with a reset.
            self._network.carry(self, RST if any(isinstance(i, bytes) for i in self._inbox) else FIN)
            self._close(error.ConnectionDone())

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """See :class:`~twisted.internet.interfaces.IConsumer`."""
        if self._producer is not None:
            raise RuntimeError(f"{producer} while {self._producer} is registered")
        if self.closed:
            producer.stopProducing()
            return
        self._producer, self._streaming, self._producer_paused = producer, streaming, False
        if not streaming:
            producer.resumeProducing()

    def unregisterProducer(self) -> None:
        """See :class:`~twisted.internet.interfaces.IConsumer`."""
        self._producer = None
        if self.disconnecting and not self.closed:
            self._soon()

    # -- reading ----------------------------------------------------------------------

    def pauseProducing(self) -> None:
        """See :class:`~twisted.internet.interfaces.IPushProducer`."""
        self._reading = False

    def resumeProducing(self) -> None:
        """See :class:`~twisted.internet.interfaces.IPushProducer`."""
        if not self.closed and not self.disconnecting and not self._reading:
            self._reading = True
            self.process.callLater(0, self._read)

    def stopProducing(self) -> None:
        """See :class:`~twisted.internet.interfaces.IPushProducer`."""
        self.loseConnection()

    def _read(self) -> None:
        while self._inbox and self._reading and not self.closed:
            item = self._inbox.popleft()
            if isinstance(item, Mark):
                self._close(error.ConnectionDone())
                return
            self._acknowledge(len(item))
            if self.tap is not None:
                self.tap.received(item)
            try:
                self.protocol.dataReceived(item)
            except Exception:
                Timeline.log.failure("a protocol raised")
                self._network.carry(self, RST)
                self._close(error.ConnectionLost())

    def _acknowledge(self, count: int) -> None:
        """Only when the writer has use for it: a window is far from full without, as in TCP."""
        self._unsaid += count
        if self._unsaid * 4 >= self.other.window:
            self._network.carry(self, Ack(self._unsaid))
            self._unsaid = 0

    # -- what the network brings --------------------------------------------------------

    def arrived(self, item: Item) -> None:
        """Something came from the other end."""
        if isinstance(item, Ack):
            self._in_flight -= item.count
            if not self.closed:
                self.process.wake(self._send)
        elif item is RST:
            self._inbox.clear()
            self.lost(error.ConnectionLost())
        elif self.closed:
            if isinstance(item, bytes):
                self._network.carry(self, RST)  # nobody there
        else:
            self._inbox.append(item)
            self.process.wake(self._read)

    def lost(self, reason: Exception) -> None:
        """The connection broke."""
        self.process.wake(self._close, reason)

    def cut_short(self) -> None:
        """Something in between ends the connection as if its two ends had: what comes later is lost."""
        self._unsent.clear()
        self.arrived(FIN)

    def vanish(self, *, silently: bool) -> None:
        """The process is gone, and tells nobody but, through its host, the other end."""
        self.closed = True
        self._network.sockets.pop(self, None)
        self.process.remains.append(self)
        if not silently:
            self._network.carry(self, RST)

    # -- the end ------------------------------------------------------------------------

    def loseConnection(self, reason: Failure | None = None) -> None:
        """See :class:`~twisted.internet.interfaces.ITransport`."""
        if not self.closed and not self.disconnecting:
            self.disconnecting = True
            self._reading = False
            self._soon()

    loseWriteConnection = loseConnection

    def abortConnection(self) -> None:
        """See :class:`~twisted.internet.interfaces.ITCPTransport`."""
        if self.closed or self._aborting:
            return
        self._aborting = self.disconnecting = True
        self._reading = False
        self._forget()
        self._network.carry(self, RST)
        self.process.callLater(0, self._close, error.ConnectionAborted())

    def _forget(self) -> None:
        self._unsent.clear()
        self._queued = 0

    def _close(self, reason: Exception) -> None:
        if self.closed:
            return
        self.closed = True
        self._network.sockets.pop(self, None)
        self._forget()
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.stopProducing()
        failure = Failure(reason)
        if self.protocol is not None:  # else it never knew
            self.protocol.connectionLost(failure)
        if self.connector is not None:
            self.connector.ended(failure)

    # -- what it is ---------------------------------------------------------------------

    def getHost(self) -> IPv4Address:
        """See :class:`~twisted.internet.interfaces.ITransport`."""
        return self._here

    def getPeer(self) -> IPv4Address:
        """See :class:`~twisted.internet.interfaces.ITransport`."""
        return self._there

    def getTcpNoDelay(self) -> bool:
        """See :class:`~twisted.internet.interfaces.ITCPTransport`."""
        return True

    def setTcpNoDelay(self, enabled: bool) -> None:
        """See :class:`~twisted.internet.interfaces.ITCPTransport`."""

    def getTcpKeepAlive(self) -> bool:
        """See :class:`~twisted.internet.interfaces.ITCPTransport`."""
        return False

    def setTcpKeepAlive(self, enabled: bool) -> None:
        """See :class:`~twisted.internet.interfaces.ITCPTransport`."""

"""The ends of simulated TCP connections: Twisted's transports, ports and connectors.

Decides how bytes are cut into segments (anew, at random) and when a writer is held up: a window of limited
size is all that is unread at the other end, so a reader that pauses reaches the writer's producer.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from attrs import define, field, frozen
from twisted.internet import error
from twisted.internet.address import IPv4Address
from twisted.internet.interfaces import (
    IConnector,
    IConsumer,
    IListeningPort,
    IPushProducer,
    ITCPTransport,
)
from twisted.python.failure import Failure
from zope.interface import implementer

from swarm.testing.simulation.reactor import SimReactor, Timeline

if TYPE_CHECKING:
    from swarm.testing.simulation.network import Host, Network

#: What a transport takes before it pauses its producer: Twisted's.
BUFFER = 1 << 16


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
        self.stuck: deque[Item] = deque()
        self.last_arrival = 0.0
        self.closed = False
        self._network = network
        self._here = here
        self._there = there
        self._window = network.random.choice([1 << 16, 1 << 18, 1 << 20])
        self._crumbs = network.random.random() < 0.05
        self._unsent: deque[memoryview] = deque()
        self._in_flight = 0
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
        self._unsent.append(memoryview(bytes(data)))
        self._soon()
        pausable = self._producer is not None and self._streaming and not self._producer_paused
        if pausable and sum(map(len, self._unsent)) > BUFFER:
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
        while self._unsent and self._in_flight < self._window:
            data = self._unsent.popleft()
            most = min(len(data), self._window - self._in_flight)
            size = min(most, self._segment())
            if size < len(data):
                self._unsent.appendleft(data[size:])
            self._in_flight += size
            self._network.carry(self, bytes(data[:size]))
        if not self._unsent and not self.closed and not self._aborting:
            self._drained()

    def _segment(self) -> int:
        """As the kernel cuts them: mostly large, at times of any size; some connections get crumbs only."""
        draw = self._network.random
        if self._crumbs:
            return draw.randint(1, 1 << 14)
        return draw.randint(1, 1 << 16) if draw.random() < 0.1 else 1 << 16

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
            self._network.carry(self, Ack(len(item)))
            try:
                self.protocol.dataReceived(item)
            except Exception:
                Timeline.log.failure("a protocol raised")
                self._network.carry(self, RST)
                self._close(error.ConnectionLost())

    # -- what the network brings --------------------------------------------------------

    def arrived(self, item: Item) -> None:
        """Something came from the other end."""
        if isinstance(item, Ack):
            self._in_flight -= item.count
            if not self.closed:
                self._run(self._send)
        elif item is RST:
            self._inbox.clear()
            self.lost(error.ConnectionLost())
        elif self.closed:
            if isinstance(item, bytes):
                self._network.carry(self, RST)  # nobody there
        else:
            self._inbox.append(item)
            self._run(self._read)

    def lost(self, reason: Exception) -> None:
        """The connection broke."""
        self._run(self._close, reason)

    def vanish(self, *, silently: bool) -> None:
        """The process is gone, and tells nobody but, through its host, the other end."""
        self.closed = True
        self._network.sockets.pop(self, None)
        self.process.remains.append(self)
        if not silently:
            self._network.carry(self, RST)

    def _run(self, function: Any, *args: Any) -> None:
        if not self.process.dead:
            self._network.timeline.run(self.process, function, *args)

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
        self._unsent.clear()
        self._network.carry(self, RST)
        self.process.callLater(0, self._close, error.ConnectionAborted())

    def _close(self, reason: Exception) -> None:
        if self.closed:
            return
        self.closed = True
        self._network.sockets.pop(self, None)
        self._unsent.clear()
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


@implementer(IListeningPort)
@define(eq=False)
class Port:
    """Where a process listens."""

    network: Network
    process: SimReactor
    interface: str
    number: int
    factory: Any

    def startListening(self) -> None:
        """See :class:`~twisted.internet.interfaces.IListeningPort`."""
        self.network.occupy(self)
        self.factory.doStart()

    def stopListening(self) -> None:
        """See :class:`~twisted.internet.interfaces.IListeningPort`."""
        self.network.leave(self)
        self.factory.doStop()

    def getHost(self) -> IPv4Address:
        """See :class:`~twisted.internet.interfaces.IListeningPort`."""
        return IPv4Address("TCP", self.interface, self.number)


@implementer(IConnector)
@define(eq=False)
class Connector:
    """One try to connect: a SYN, and what comes of it."""

    network: Network
    process: SimReactor
    ip: str
    number: int
    factory: Any
    timeout: float
    _socket: Socket | None = field(default=None, init=False)
    _settled: bool = field(default=False, init=False)
    _timer: Any = field(default=None, init=False)

    def connect(self) -> None:
        """See :class:`~twisted.internet.interfaces.IConnector`."""
        network, process = self.network, self.process
        self.factory.doStart()
        self.factory.startedConnecting(self)
        self._timer = process.callLater(self.timeout, self._fail, error.TimeoutError())
        host = process.host if self.ip.startswith("127.") else self._target()
        if host is not None:
            network.timeline.after(network.delay(process.host, host), None, self._syn, host, label="syn")

    def _target(self) -> Host | None:
        return next((each for each in self.network.hosts.values() if each.ip == self.ip), None)

    def _syn(self, host: Host) -> None:
        network, process = self.network, self.process
        if process.dead or self._settled:
            return
        if not network.reach(process.host, host) or not network.reach(host, process.host):
            network.timeline.after(1.0, None, self._syn, host, label="syn")  # again and again
            return
        back = network.delay(host, process.host)
        port = network.port(host, self.ip, self.number)
        if port is None or port.process.dead:
            network.timeline.after(back, None, self._refused, label="refused")
            return
        source = "127.0.0.1" if self.ip.startswith("127.") else process.host.ip
        client_at = IPv4Address("TCP", source, network.free_port())
        server_at = IPv4Address("TCP", self.ip, self.number)
        client = Socket(network, process, client_at, server_at)
        server = Socket(network, port.process, server_at, client_at)
        client.other, server.other = server, client
        client.last_arrival = server.last_arrival = network.timeline.now + back
        network.timeline.run(port.process, self._accept, port, server, client_at)
        network.timeline.after(back, None, self._answered, client, label="established")

    def _accept(self, port: Port, server: Socket, peer: IPv4Address) -> None:
        server.protocol = port.factory.buildProtocol(peer)
        if server.protocol is None:
            server.vanish(silently=False)
        else:
            server.protocol.makeConnection(server)

    def _answered(self, client: Socket) -> None:
        if self._settled or self.process.dead:
            client.vanish(silently=False)
        elif client.closed:
            self.network.timeline.run(self.process, self._fail, error.ConnectionLost())
        else:
            self.network.timeline.run(self.process, self._established, client)

    def _established(self, client: Socket) -> None:
        self._settle()
        self._socket = client
        client.connector = self
        client.protocol = self.factory.buildProtocol(client.getPeer())
        if client.protocol is None:
            client.vanish(silently=False)
        else:
            client.protocol.makeConnection(client)

    def _settle(self) -> None:
        self._settled = True
        if self._timer is not None and self._timer.active():
            self._timer.cancel()

    def _refused(self) -> None:
        if not self.process.dead:
            self.network.timeline.run(self.process, self._fail, error.ConnectionRefusedError())

    def _fail(self, reason: Exception) -> None:
        if not self._settled:
            self._settle()
            self.factory.clientConnectionFailed(self, Failure(reason))
            self.factory.doStop()

    def ended(self, reason: Failure) -> None:
        """The connection that was made is over."""
        self.factory.clientConnectionLost(self, reason)
        self.factory.doStop()

    def stopConnecting(self) -> None:
        """See :class:`~twisted.internet.interfaces.IConnector`."""
        self._fail(error.UserError())

    def disconnect(self) -> None:
        """See :class:`~twisted.internet.interfaces.IConnector`."""
        if self._socket is not None:
            self._socket.loseConnection()
        else:
            self.stopConnecting()

    def getDestination(self) -> IPv4Address:
        """See :class:`~twisted.internet.interfaces.IConnector`."""
        return IPv4Address("TCP", self.ip, self.number)

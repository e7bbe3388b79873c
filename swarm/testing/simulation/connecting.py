"""Listening ports, and tries to connect to them: what a SYN meets.

Decides who is refused, who hears nothing, and when both ends of a connection come to be.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from attrs import define, field
from twisted.internet import error
from twisted.internet.address import IPv4Address
from twisted.internet.interfaces import IConnector, IListeningPort
from twisted.python.failure import Failure
from zope.interface import implementer

from swarm.testing.simulation.reactor import SimReactor
from swarm.testing.simulation.sockets import Socket

if TYPE_CHECKING:
    from swarm.testing.simulation.network import Host, Network


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
        port.process.wake(self._accept, port, server, client_at)
        network.timeline.after(back, None, self._answered, client, label="established")

    def _accept(self, port: Port, server: Socket, peer: IPv4Address) -> None:
        if server.closed:
            return
        server.protocol = port.factory.buildProtocol(peer)
        if server.protocol is None:
            server.vanish(silently=False)
        else:
            server.protocol.makeConnection(server)

    def _answered(self, client: Socket) -> None:
        if self._settled or self.process.dead:
            client.vanish(silently=False)
        elif client.closed:
            self.process.wake(self._fail, error.ConnectionLost())
        else:
            self.process.wake(self._established, client)

    def _established(self, client: Socket) -> None:
        if self._settled or client.closed:  # while the process was stopped
            client.vanish(silently=False)
            self._fail(error.ConnectionLost())
            return
        self._settle()
        self._socket = client
        client.connector = self
        client.tap = self.network.tap(client)
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
        self.process.wake(self._fail, error.ConnectionRefusedError())

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

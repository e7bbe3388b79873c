"""Simulated UDP: sockets that send and receive datagrams, to one address or to a multicast group.

Decides what becomes of each datagram at each receiver, independently: lost, late, come twice, and so in
another order than sent. A cut, a host without power and a receiver that has too much unread lose them for
good. A group's datagrams stay in the sender's segment, unless their TTL lets a router pass them on.
"""

from __future__ import annotations

import errno
import os
from ipaddress import IPv4Address as Number
from random import Random
from typing import TYPE_CHECKING, Any

from attrs import define, field, frozen
from twisted.internet import error
from twisted.internet.abstract import isIPAddress
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.interfaces import IListeningPort, IMulticastTransport, IUDPTransport
from zope.interface import implementer

from swarm.testing.simulation.reactor import SimReactor

if TYPE_CHECKING:
    from swarm.testing.simulation.network import Host, Network

#: Bytes: the longest datagram there is, and what a socket holds unread, as Linux does by default.
LONGEST, UNREAD = 65507, 212_992
BROADCAST = "255.255.255.255"


@frozen
class Weather:
    """
    What happens to datagrams on their way, each with a probability of its own.

    :ivar lost: it never comes.
    :ivar twice: it comes a second time.
    :ivar late: it takes up to ``delay`` seconds more, and others overtake it.
    """

    lost: float = 0.0
    twice: float = 0.0
    late: float = 0.0
    delay: float = 2.0

    @classmethod
    def drawn(cls, draw: Random) -> Weather:
        """Some kinds of it, in one run mild and in another one rough."""
        return cls(*(draw.choice([0.0, 0.02, 0.3]) for _ in range(3)))


class Datagrams:
    """All UDP sockets of a network, and what is between them."""

    def __init__(self, network: Network) -> None:
        self.weather = Weather()
        self._network = network
        self._random = Random(f"{network.timeline.seed} datagrams")
        self._sockets: dict[DatagramSocket, None] = {}

    def listen(
        self, process: SimReactor, interface: str, number: int, protocol: Any, longest: int, *, shared: bool
    ) -> DatagramSocket:
        """
        Open a socket, and connect ``protocol`` to it.

        :param shared: others on the same host may have the same port, if they share it, too.
        :raises CannotListenError: somebody has it.
        """
        number = number or self._network.free_port()
        socket = DatagramSocket(self._network, process, interface, number, protocol, longest, shared)
        socket.startListening()
        return socket

    def open(self, socket: DatagramSocket) -> None:
        """:raises CannotListenError: its port is taken."""
        for other in self._sockets:
            same = other.process.host is socket.process.host and other.number == socket.number
            apart = "" not in (other.interface, socket.interface) and other.interface != socket.interface
            if same and not apart and not (other.shared and socket.shared):
                taken = OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
                raise error.CannotListenError(socket.interface, socket.number, taken)
        self._sockets[socket] = None

    def close(self, socket: DatagramSocket) -> None:
        """It gets nothing any more."""
        self._sockets.pop(socket, None)

    def end(self, process: SimReactor) -> None:
        """All sockets of a process are gone."""
        for socket in list(self._sockets):
            if socket.process is process:
                self.close(socket)

    def of(self, process: SimReactor) -> list[DatagramSocket]:
        """What a process has open."""
        return [socket for socket in self._sockets if socket.process is process]

    # -- on their way -----------------------------------------------------------------

    def send(self, sender: DatagramSocket, data: bytes, ip: str, number: int) -> None:
        """One datagram to whoever should get it."""
        to_many = ip == BROADCAST or Number(ip).is_multicast
        hosts = self._hosts(sender, ip, to_many=to_many)
        reached = False
        for host in hosts:
            receivers = [
                each for each in self._sockets if each.process.host is host and each.hears(ip, number)
            ]
            if not to_many:
                receivers = receivers[-1:]  # of several on one port the kernel takes the last
            for receiver in receivers:
                reached = True
                self._carry(sender, receiver, data, ip)
        if not to_many and not reached and sender.peer is not None:
            self._refuse(sender, hosts)

    def _hosts(self, sender: DatagramSocket, ip: str, *, to_many: bool) -> list[Host]:
        home, hosts = sender.process.host, self._network.hosts.values()
        if not to_many:
            return [home] if ip.startswith("127.") else [host for host in hosts if host.ip == ip]
        far = sender.ttl > 1 and ip != BROADCAST
        return [
            host
            for host in hosts
            if (host is home and sender.loopback)
            or (host is not home and sender.ttl > 0 and (far or host.segment == home.segment))
        ]

    def _carry(self, sender: DatagramSocket, receiver: DatagramSocket, data: bytes, ip: str) -> None:
        network, draw, weather = self._network, self._random, self.weather
        home, there = sender.process.host, receiver.process.host
        here = "127.0.0.1" if ip.startswith("127.") else home.ip
        for _ in range(1 + (draw.random() < weather.twice and home is not there)):
            took = network.delay(home, there, len(data))
            if home is not there:
                took += draw.uniform(0.0, weather.delay) if draw.random() < weather.late else 0.0
                if draw.random() < weather.lost:
                    continue
            label = f"datagram {len(data)}"
            network.timeline.after(
                took, None, self._arrive, home, receiver, data, (here, sender.number), label=label
            )

    def _arrive(self, home: Host, receiver: DatagramSocket, data: bytes, source: tuple[str, int]) -> None:
        if receiver in self._sockets and self._network.reach(home, receiver.process.host):
            receiver.arrived(data, source)

    def _refuse(self, sender: DatagramSocket, hosts: list[Host]) -> None:
        """Nobody has that port: an ICMP message says so, and a socket that has one peer hears it."""
        home = sender.process.host
        for host in hosts:
            if self._network.reach(home, host) and self._network.reach(host, home):
                back = 2 * self._network.delay(home, host)
                self._network.timeline.after(back, None, sender.refused, label="unreachable")


@implementer(IListeningPort, IUDPTransport, IMulticastTransport)
@define(eq=False)
class DatagramSocket:
    """A socket as a :class:`~twisted.internet.protocol.DatagramProtocol` sees it."""

    network: Network
    process: SimReactor
    interface: str
    number: int
    protocol: Any
    longest: int
    shared: bool
    peer: tuple[str, int] | None = None
    ttl: int = 1
    loopback: bool = True
    _groups: dict[str, None] = field(factory=dict, init=False)
    _broadcast: bool = field(default=False, init=False)
    _outgoing: str | int = field(default="0.0.0.0", init=False)
    _unread: int = field(default=0, init=False)
    connected: bool = field(default=False, init=False)

    def startListening(self) -> None:
        """See :class:`~twisted.internet.interfaces.IListeningPort`."""
        self.network.datagrams.open(self)
        self.connected = True
        self.protocol.makeConnection(self)

    def stopListening(self) -> Deferred[None]:
        """See :class:`~twisted.internet.interfaces.IListeningPort`."""
        if not self.connected:
            return succeed(None)
        self.network.datagrams.close(self)
        self.connected = False
        stopped: Deferred[None] = Deferred()
        self.process.callLater(0, self._stopped, stopped)
        return stopped

    def _stopped(self, stopped: Deferred[None]) -> None:
        self.protocol.doStop()
        stopped.callback(None)

    def getHost(self) -> IPv4Address:
        """See :class:`~twisted.internet.interfaces.IListeningPort`."""
        return IPv4Address("UDP", self.interface or "0.0.0.0", self.number)

    # -- sending ----------------------------------------------------------------------

    def write(self, packet: bytes, addr: tuple[str, int] | None = None) -> None:
        """See :class:`~twisted.internet.interfaces.IUDPTransport`."""
        assert addr in (None, self.peer) or self.peer is None, "connected to another"
        target = addr or self.peer
        assert target is not None, "to whom?"
        ip = BROADCAST if target[0] == "<broadcast>" else target[0]
        if not isIPAddress(ip):
            raise error.InvalidAddressError(ip, "write() only accepts IP addresses, not hostnames")
        if not self.connected:
            return
        if len(packet) > LONGEST:
            raise error.MessageLengthError("message too long")
        if ip == BROADCAST and not self._broadcast:
            raise OSError(errno.EACCES, os.strerror(errno.EACCES))
        self.network.datagrams.send(self, bytes(packet), ip, target[1])

    def connect(self, host: str, port: int) -> None:
        """See :class:`~twisted.internet.interfaces.IUDPTransport`."""
        if self.peer is not None:
            raise RuntimeError("already connected")
        if not isIPAddress(host):
            raise error.InvalidAddressError(host, "not an IPv4 address")
        self.peer = (host, port)

    # -- receiving --------------------------------------------------------------------

    def hears(self, ip: str, number: int) -> bool:
        """Is it meant by such an address, on this host?"""
        if number != self.number:
            return False
        if Number(ip).is_multicast:
            return ip in self._groups
        return ip == BROADCAST or self.interface in ("", ip) or self.interface == "0.0.0.0"

    def arrived(self, data: bytes, source: tuple[str, int]) -> None:
        """A datagram is here, to be read as soon as the process can."""
        if self.peer in (None, source) and self._unread + len(data) <= UNREAD:
            self._unread += len(data)
            self.process.wake(self._read, data, source)

    def _read(self, data: bytes, source: tuple[str, int]) -> None:
        self._unread -= len(data)
        if self.connected:
            self.protocol.datagramReceived(data[: self.longest], source)

    def refused(self) -> None:
        """Nobody is there."""
        self.process.wake(self._refused)

    def _refused(self) -> None:
        if self.connected:
            self.protocol.connectionRefused()

    # -- groups -----------------------------------------------------------------------

    def joinGroup(self, addr: str, interface: str = "") -> Deferred[None]:
        """See :class:`~twisted.internet.interfaces.IMulticastTransport`."""
        return maybeDeferred(self._join, addr)

    def _join(self, group: str) -> None:
        if not Number(group).is_multicast or group in self._groups:
            raise error.MulticastJoinError(group, self.interface, "no group, or a member already")
        self._groups[group] = None

    def leaveGroup(self, addr: str, interface: str = "") -> Deferred[None]:
        """See :class:`~twisted.internet.interfaces.IMulticastTransport`."""
        return maybeDeferred(self._leave, addr)

    def _leave(self, group: str) -> None:
        if group not in self._groups:
            raise error.MulticastJoinError(group, self.interface, "no member")
        del self._groups[group]

    def setTTL(self, ttl: int) -> None:
        """See :class:`~twisted.internet.interfaces.IMulticastTransport`."""
        self.ttl = ttl

    def getTTL(self) -> int:
        """See :class:`~twisted.internet.interfaces.IMulticastTransport`."""
        return self.ttl

    def setLoopbackMode(self, mode: bool) -> None:
        """See :class:`~twisted.internet.interfaces.IMulticastTransport`."""
        self.loopback = mode

    def getLoopbackMode(self) -> bool:
        """See :class:`~twisted.internet.interfaces.IMulticastTransport`."""
        return self.loopback

    def setOutgoingInterface(self, addr: str | int) -> Deferred[int]:
        """See :class:`~twisted.internet.interfaces.IMulticastTransport`: a host has one only."""
        self._outgoing = addr
        return succeed(1)

    def getOutgoingInterface(self) -> str | int:
        """See :class:`~twisted.internet.interfaces.IMulticastTransport`."""
        return self._outgoing

    def setBroadcastAllowed(self, enabled: bool) -> None:
        """See :class:`~twisted.internet.interfaces.IUDPTransport`."""
        self._broadcast = enabled

    def getBroadcastAllowed(self) -> bool:
        """See :class:`~twisted.internet.interfaces.IUDPTransport`."""
        return self._broadcast

"""Simulated hosts and what is on its way between them.

Decides when which bytes arrive: they take a link's latency and share its bandwidth. What cannot get through
(a cut, a host without power) is retransmitted until it can, or until the sender gives up. Only what real
TCP does: nothing is lost or changes its order within a connection. What its two ends do is in
:mod:`.sockets`, what becomes of UDP in :mod:`.datagrams`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from math import log10
from random import Random
from typing import Any

from attrs import define
from twisted.internet import error

from swarm.testing.simulation.connecting import Connector, Port
from swarm.testing.simulation.datagrams import Datagrams
from swarm.testing.simulation.reactor import SimReactor
from swarm.testing.simulation.sockets import FIN, RST, Ack, Item, Socket
from swarm.testing.simulation.timeline import Event, Timeline
from swarm.testing.simulation.wiretap import Wiretap

#: A sender that gets nothing through for so many seconds gives up, as after many retransmissions.
GIVE_UP = 90.0
_NONE: Mapping[str, Any] = {}


@define(eq=False)
class Host:
    """A machine. Without power it answers nothing, not even with a refusal."""

    name: str
    ip: str
    up: bool = True
    segment: int = 0
    """Multicast with a TTL of 1 stays in there."""


@define(eq=False)
class Link:
    """One direction between two hosts; seconds, and bytes a second."""

    latency: float
    bandwidth: float
    busy: float = 0.0


class Network:
    """I connect hosts."""

    def __init__(
        self,
        timeline: Timeline,
        random: Random,
        *,
        bandwidth: tuple[float, float] = (1e6, 1e8),
        segment: int = 1 << 16,
    ) -> None:
        """
        Begin with no hosts.

        :param bandwidth: what links have at least and at most, in bytes a second.
        :param segment: most bytes that arrive at once, and what a transport takes before it pauses its
            producer.
        """
        self.segment = segment
        self.timeline = timeline
        self.random = random
        self.hosts: dict[str, Host] = {}
        self.links: dict[tuple[str, str], Link] = {}
        self.cuts: set[tuple[str, str]] = set()
        self.sockets: dict[Socket, None] = {}
        self._listening: dict[tuple[str, int], Port] = {}
        self._stuck: dict[Socket, float] = {}
        self._ports = 32768
        self._bandwidth = tuple(map(log10, bandwidth))
        self.datagrams = Datagrams(self)
        self.tap: Callable[[Socket], Wiretap | None] = lambda socket: None

    # -- making it ------------------------------------------------------------------

    def add(self, name: str) -> Host:
        """A new host with the next address; links to the others of drawn quality."""
        host = Host(name, f"10.0.0.{len(self.hosts) + 1}")
        draw = self.random
        for other in self.hosts:
            for pair in ((name, other), (other, name)):
                self.links[pair] = Link(10 ** draw.uniform(-3.3, -1.2), 10 ** draw.uniform(*self._bandwidth))
        self.hosts[name] = host
        return host

    def cut(self, sources: Iterable[str], targets: Iterable[str]) -> None:
        """From now on nothing gets from one to the other; the way back is another matter."""
        self.cuts.update((a, b) for a in sources for b in targets if a != b)

    def reset(self, host: str, draw: Random) -> int:
        """
        Something in between forgets some connections of a host: what is sent on them is answered by RST.

        :return: how many.
        """
        ends = self._ends(host, draw)
        for socket in ends:
            for end in (socket, socket.other):
                end.lost(error.ConnectionLost())
        return len(ends)

    def finish(self, host: str, draw: Random) -> int:
        """The same, with FIN both ways: a body that is not complete seems to be over."""
        ends = self._ends(host, draw)
        for socket in ends:
            for end in (socket, socket.other):
                end.cut_short()
        return len(ends)

    def _ends(self, host: str, draw: Random) -> list[Socket]:
        """Drawn connections of a host to others."""
        return [
            socket
            for socket in list(self.sockets)
            if socket.process.host.name == host and socket.other.process.host.name != host
            if draw.random() < 0.7
        ]

    def heal(self) -> None:
        """All ways are open again."""
        self.cuts.clear()
        self.retransmit()

    def retransmit(self) -> None:
        """What waits is tried again soon."""
        for socket in self._stuck:
            self.timeline.after(self.random.uniform(0.0, 1.0), None, self._flush, socket)

    # -- what processes do ------------------------------------------------------------

    def listen(self, process: SimReactor, interface: str, number: int, factory: Any) -> Port:
        """:raises CannotListenError: the port is taken."""
        if not number:
            number = self.free_port()
        port = Port(self, process, interface or process.host.ip, number, factory)
        port.startListening()
        return port

    def connect(self, process: SimReactor, host: str, port: int, factory: Any, timeout: float) -> Connector:
        """Begin to connect."""
        connector = Connector(self, process, host, port, factory, timeout)
        connector.connect()
        return connector

    def end(self, process: SimReactor, *, power: bool) -> None:
        """
        A process is gone. Its host resets its connections; one without power says nothing.

        :param power: was it lost? Then the host is down.
        """
        process.die()
        process.host.up = process.host.up and not power
        for key, port in list(self._listening.items()):
            if port.process is process:
                del self._listening[key]
        for socket in list(self.sockets):
            if socket.process is process:
                socket.vanish(silently=power)
        self.datagrams.end(process)

    def boot(self, host: Host) -> None:
        """There is power again; the host knows nothing of earlier connections."""
        host.up = True
        self.retransmit()

    # -- what is on its way -------------------------------------------------------------

    def port(self, host: Host, ip: str, number: int) -> Port | None:
        """Who listens there."""
        port = self._listening.get((f"{host.name}/{ip}", number))
        return port or self._listening.get((f"{host.name}/0.0.0.0", number))

    def free_port(self) -> int:
        """A number nobody uses now."""
        self._ports = 32768 + (self._ports - 32767) % 28000
        return self._ports

    def occupy(self, port: Port) -> None:
        """:raises CannotListenError:"""
        key = (f"{port.process.host.name}/{port.interface}", port.number)
        if key in self._listening:
            raise error.CannotListenError(port.interface, port.number, OSError(98, "Address already in use"))
        self._listening[key] = port

    def leave(self, port: Port) -> None:
        """The opposite."""
        self._listening.pop((f"{port.process.host.name}/{port.interface}", port.number), None)

    def listens(self, process: SimReactor) -> bool:
        """Has a process a listening port, or a socket for datagrams?"""
        ports = any(port.process is process for port in self._listening.values())
        return ports or bool(self.datagrams.of(process))

    def reach(self, source: Host, target: Host) -> bool:
        """Does anything get through now?"""
        return source is target or ((source.name, target.name) not in self.cuts and target.up and source.up)

    def delay(self, source: Host, target: Host, size: int = 0) -> float:
        """Seconds until ``size`` bytes sent now have arrived."""
        if source is target:
            return 0.00005
        link = self.links[source.name, target.name]
        now = self.timeline.now
        busy = link.busy
        link.busy = busy = (now if now > busy else busy) + size / link.bandwidth
        return busy - now + link.latency * self.random.uniform(1.0, 1.3)

    def carry(self, sender: Socket, item: Item) -> None:
        """Send one item to the other end, in order; acknowledgements and resets overtake."""
        if isinstance(item, bytes):
            size, ordered, label = len(item), True, f"bytes {len(item)}"
        else:
            size, ordered, label = 0, item is FIN, "ack" if isinstance(item, Ack) else "end"
        timeline = self.timeline
        at = timeline.now + self.delay(sender.process.host, sender.other.process.host, size)
        if ordered:
            at = sender.last_arrival = max(at, sender.last_arrival)
        timeline.add(Event(timeline, None, at, self._arrive, (sender, item), _NONE, label, timed=False))

    def _arrive(self, sender: Socket, item: Item) -> None:
        reached = self.reach(sender.process.host, sender.other.process.host)
        if reached and not sender.stuck:
            sender.other.arrived(item)
        elif item is not RST:
            sender.stuck.append(item)
            if sender not in self._stuck:
                since = self._stuck[sender] = self.timeline.now
                self.timeline.after(GIVE_UP, None, self._give_up, sender, since)

    def _flush(self, sender: Socket) -> None:
        if sender in self._stuck and self.reach(sender.process.host, sender.other.process.host):
            del self._stuck[sender]
            while sender.stuck:
                sender.other.arrived(sender.stuck.popleft())

    def _give_up(self, sender: Socket, since: float) -> None:
        if self._stuck.get(sender) == since:
            del self._stuck[sender]
            sender.stuck.clear()
            sender.lost(error.TimeoutError())

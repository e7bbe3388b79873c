"""The reactor that each simulated process has to itself.

Decides how long threads take: they are functions run at once at a drawn later instant, whose results
arrive at a later one still; running them inline would hide races. Time itself is in :mod:`.timeline`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IAddress,
    IHostnameResolver,
    IHostResolution,
    IReactorFromThreads,
    IReactorMulticast,
    IReactorPluggableNameResolver,
    IReactorTCP,
    IReactorTime,
    IReactorUDP,
    IResolutionReceiver,
)
from twisted.python.failure import Failure
from zope.interface import implementer

from swarm.testing.simulation.timeline import START, Event, name_of

if TYPE_CHECKING:
    from swarm.testing.simulation.connecting import Connector, Port
    from swarm.testing.simulation.datagrams import DatagramSocket
    from swarm.testing.simulation.network import Host, Network

_P = ParamSpec("_P")
_T = TypeVar("_T")


def thread_pause(random: Random) -> float:
    """Seconds that one waits for a thread, or for its answer: mostly none, now and then a disk's time."""
    slow = random.random() < 0.02
    return random.uniform(0.05, 0.5) if slow else random.uniform(0.00001, 0.002)


@implementer(
    IReactorTime,
    IReactorTCP,
    IReactorUDP,
    IReactorMulticast,
    IReactorFromThreads,
    IReactorPluggableNameResolver,
    IHostnameResolver,
)
class SimReactor:
    """
    I am the reactor of one process on one host, until it dies.

    :ivar skew: how far the clock of this process is ahead of the others', in seconds.
    :ivar stopped: nothing of it runs until then (SIGSTOP, a virtual machine moved).
    :ivar remains: what a dead process had, kept from being collected in the middle of another's events:
        its coroutines would run their ``finally`` blocks.
    """

    running = True

    def __init__(self, name: str, network: Network, host: Host, *, random: Random, skew: float = 0.0) -> None:
        self.name = name
        self.network = network
        self.host = host
        self.skew = skew
        self.dead = False
        self.stopped = 0.0
        self.jobs = 0
        self.remains: list[Any] = []
        self.timeline = network.timeline
        self.nameResolver: Any = self
        self._random = random

    def __repr__(self) -> str:
        return f"<{self.name}{' (dead)' if self.dead else ''}>"

    # -- time -------------------------------------------------------------------

    def seconds(self) -> float:
        """See :class:`~twisted.internet.interfaces.IReactorTime`."""
        return START + self.timeline.now + self.skew

    def callLater(self, delay: float, callable: Callable[..., Any], *args: object, **kwargs: object) -> Event:
        """See :class:`~twisted.internet.interfaces.IReactorTime`."""
        assert delay >= 0, f"{callable} in the past"
        timeline = self.timeline
        return timeline.add(
            Event(timeline, self, timeline.now + delay, callable, args, kwargs, name_of(callable), timed=True)
        )

    def getDelayedCalls(self) -> Sequence[Event]:
        """See :class:`~twisted.internet.interfaces.IReactorTime`."""
        return self.timeline.pending(self)

    def wake(self, function: Callable[..., Any], *args: Any) -> None:
        """The kernel has news for this process: now, or when it runs again."""
        if self.dead:
            return
        timeline = self.timeline
        if self.stopped > timeline.now:
            timeline.at(self.stopped, self, function, *args)
        else:
            timeline.run(self, function, *args)

    # -- threads ----------------------------------------------------------------

    def callFromThread(self, callable: Callable[..., Any], *args: object, **kwargs: object) -> None:
        """See :class:`~twisted.internet.interfaces.IReactorFromThreads`."""
        self.callLater(0, callable, *args, **kwargs)

    async def run_blocking(self, function: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """The port of :class:`swarm.interfaces.RunBlocking`, with threads that take drawn times."""
        outcome: Deferred[_T] = Deferred()
        name = name_of(function)

        def work() -> None:
            result: Any
            try:
                result = function(*args, **kwargs)
            except Exception:
                result = Failure()
            self.timeline.after(self._pause(), self, tell, result, label=f"thread ended: {name}")

        def tell(result: Any) -> None:
            self.jobs -= 1
            outcome.callback(result)

        self.jobs += 1
        self.timeline.after(self._pause(), self, work, label=f"thread: {name}")
        return await outcome

    def _pause(self) -> float:
        return thread_pause(self._random)

    # -- network ----------------------------------------------------------------

    def listenTCP(self, port: int, factory: Any, backlog: int = 50, interface: str = "") -> Port:
        """See :class:`~twisted.internet.interfaces.IReactorTCP`."""
        return self.network.listen(self, interface, port, factory)

    def connectTCP(
        self,
        host: str,
        port: int,
        factory: Any,
        timeout: float = 30.0,
        bindAddress: tuple[str, int] | None = None,
    ) -> Connector:
        """See :class:`~twisted.internet.interfaces.IReactorTCP`."""
        return self.network.connect(self, host, port, factory, timeout)

    def listenUDP(
        self, port: int, protocol: Any, interface: str = "", maxPacketSize: int = 8192
    ) -> DatagramSocket:
        """See :class:`~twisted.internet.interfaces.IReactorUDP`."""
        datagrams = self.network.datagrams
        return datagrams.listen(self, interface, port, protocol, maxPacketSize, shared=False)

    def listenMulticast(
        self,
        port: int,
        protocol: Any,
        interface: str = "",
        maxPacketSize: int = 8192,
        listenMultiple: bool = False,
    ) -> DatagramSocket:
        """See :class:`~twisted.internet.interfaces.IReactorMulticast`."""
        datagrams = self.network.datagrams
        return datagrams.listen(self, interface, port, protocol, maxPacketSize, shared=listenMultiple)

    def installNameResolver(self, resolver: IHostnameResolver) -> IHostnameResolver:
        """See :class:`~twisted.internet.interfaces.IReactorPluggableNameResolver`."""
        before: IHostnameResolver
        before, self.nameResolver = self.nameResolver, resolver
        return before

    def resolveHostName(
        self,
        resolutionReceiver: IResolutionReceiver,
        hostName: str,
        portNumber: int = 0,
        addressTypes: Sequence[type[IAddress]] | None = None,
        transportSemantics: str = "TCP",
    ) -> IHostResolution:
        """See :class:`~twisted.internet.interfaces.IHostnameResolver`: hosts have their own names."""
        resolution: IHostResolution = self  # type: ignore[assignment]  # nothing to cancel
        resolutionReceiver.resolutionBegan(resolution)
        for host in self.network.hosts.values():
            if hostName in (host.name, host.ip):
                resolutionReceiver.addressResolved(IPv4Address("TCP", host.ip, portNumber))
        resolutionReceiver.resolutionComplete()
        return resolution

    # -- the end ----------------------------------------------------------------

    def die(self) -> None:
        """Nothing of this process runs from now on. What becomes of its sockets is the network's to say."""
        self.dead = True

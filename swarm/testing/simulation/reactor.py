"""Simulated time, and the reactor that each simulated process has to itself.

Decides what happens next: the earliest event, of equal ones the one scheduled first. Every event belongs
to a process (or to the network), so a process that dies takes exactly its own timers and threads along.
Threads are functions run at once at a drawn later instant, whose results arrive at a later one still;
running them inline would hide races.
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Callable, Sequence
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from twisted.internet.address import IPv4Address
from twisted.internet.base import DelayedCall
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IAddress,
    IHostnameResolver,
    IHostResolution,
    IReactorFromThreads,
    IReactorPluggableNameResolver,
    IReactorTCP,
    IReactorTime,
    IResolutionReceiver,
)
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

if TYPE_CHECKING:
    from swarm.testing.simulation.connecting import Connector, Port
    from swarm.testing.simulation.network import Host, Network

_P = ParamSpec("_P")
_T = TypeVar("_T")

#: When every run begins, seconds since 1970. In the past, so that OpenSSL, which reads the real clock,
#: accepts certificates that are valid in the simulation.
START = 1_600_000_000.0


class Livelock(Exception):
    """Far more events than any sound run has."""


class Timeline:
    """
    I hold all events of a run.

    :ivar now: seconds since the beginning.
    :ivar current: whose event is running; None: the network's, or none.
    """

    log = Logger()

    def __init__(self, seed: object, *, history: bool = False) -> None:
        """
        Begin.

        :param history: keep each event's description in :attr:`history`, to compare two runs.
        """
        self.random = Random(f"{seed} timeline")
        self.now = 0.0
        self.events = 0
        self.current: SimReactor | None = None
        self.history: list[str] | None = [] if history else None
        self._heap: list[tuple[float, int, SimReactor | None, DelayedCall, str]] = []
        self._sequence = 0
        self._trace = hashlib.sha256()

    @property
    def trace(self) -> str:
        """The run so far in 16 digits."""
        return self._trace.hexdigest()[:16]

    def after(
        self,
        delay: float,
        owner: SimReactor | None,
        function: Callable[..., Any],
        *args: Any,
        label: str = "",
        **kwargs: Any,
    ) -> DelayedCall:
        """Call in ``delay`` seconds; see :meth:`at`."""
        return self.at(self.now + delay, owner, function, *args, label=label, **kwargs)

    def at(
        self,
        when: float,
        owner: SimReactor | None,
        function: Callable[..., Any],
        *args: Any,
        label: str = "",
        **kwargs: Any,
    ) -> DelayedCall:
        """Call at an exact moment, on behalf of ``owner``, unless that is dead by then."""
        skew = owner.skew if owner is not None else 0.0

        def local_time() -> float:
            return START + self.now + skew

        def reset(call: DelayedCall) -> None:
            self._push(call.getTime() - START - skew, owner, call, name)

        name = label or getattr(function, "__qualname__", type(function).__name__)
        call = DelayedCall(START + when + skew, function, args, kwargs, lambda _: None, reset, local_time)
        if owner is None or not owner.dead:
            self._push(when, owner, call, name)
        return call

    def _push(self, when: float, owner: SimReactor | None, call: DelayedCall, name: str) -> None:
        self._sequence += 1
        heapq.heappush(self._heap, (when, self._sequence, owner, call, name))

    def pending(self, owner: SimReactor | None) -> list[tuple[DelayedCall, str]]:
        """What is still to come for a process, with names."""
        calls = {id(call): (call, name) for _, _, whose, call, name in self._heap if whose is owner}
        return [(call, name) for call, name in calls.values() if call.active()]

    def _next(self) -> float | None:
        """When the next event is; what was called off or put off meanwhile is cleared away."""
        while self._heap:
            when, _, owner, call, name = self._heap[0]
            if owner is not None and owner.dead:
                owner.remains.append(call)
            elif call.active():
                due = call.getTime() - START - (owner.skew if owner is not None else 0.0)
                if due <= when + 1e-6:  # less than that is rounding
                    return when
                call.activate_delay()
                self._push(due, owner, call, name)
            heapq.heappop(self._heap)
        return None

    def _step(self) -> None:
        when, _, owner, call, name = heapq.heappop(self._heap)
        self.now = max(self.now, when)
        call.called = 1
        self.events += 1
        line = f"{self.events} {self.now:.6f} {owner.name if owner else 'network'} {name}"
        self._trace.update(line.encode())
        if self.history is not None:
            self.history.append(line)
        self.run(owner, call.func, *call.args or (), **call.kw or {})

    def run(self, owner: SimReactor | None, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call now on behalf of ``owner``; what it raises is logged, as a reactor does."""
        before, self.current = self.current, owner
        try:
            return function(*args, **kwargs)
        except Exception:
            self.log.failure("an event raised")
        finally:
            self.current = before

    def until(
        self, done: Callable[[], bool] = lambda: False, *, most: float, events: int = 3_000_000
    ) -> bool:
        """
        Go on until ``done()`` or for ``most`` seconds of simulated time.

        :return: what ``done()`` says at the end.
        :raises Livelock:
        """
        end, last = self.now + most, self.events + events
        while not done():
            when = self._next()
            if when is None or when > end:
                self.now = max(self.now, end)
                return done()
            self._step()
            if self.events > last:
                raise Livelock(f"{events} events in {most} s")
        return True


@implementer(IReactorTime, IReactorTCP, IReactorFromThreads, IReactorPluggableNameResolver, IHostnameResolver)
class SimReactor:
    """
    I am the reactor of one process on one host, until it dies.

    :ivar skew: how far the clock of this process is ahead of the others', in seconds.
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

    def callLater(
        self, delay: float, callable: Callable[..., Any], *args: object, **kwargs: object
    ) -> DelayedCall:
        """See :class:`~twisted.internet.interfaces.IReactorTime`."""
        assert delay >= 0, f"{callable} in the past"
        call: Callable[..., None] = partial(callable, *args, **kwargs)
        label = getattr(callable, "__qualname__", type(callable).__name__)
        return self.timeline.after(delay, self, call, label=label)

    def getDelayedCalls(self) -> Sequence[DelayedCall]:
        """See :class:`~twisted.internet.interfaces.IReactorTime`."""
        return [call for call, _ in self.timeline.pending(self)]

    # -- threads ----------------------------------------------------------------

    def callFromThread(self, callable: Callable[..., Any], *args: object, **kwargs: object) -> None:
        """See :class:`~twisted.internet.interfaces.IReactorFromThreads`."""
        self.callLater(0, callable, *args, **kwargs)

    async def run_blocking(self, function: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """The port of :class:`swarm.interfaces.RunBlocking`, with threads that take drawn times."""
        outcome: Deferred[_T] = Deferred()
        name = getattr(function, "__qualname__", type(function).__name__)

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
        """A thread is mostly scheduled at once, and now and then it waits for a disk."""
        slow = self._random.random() < 0.02
        return self._random.uniform(0.05, 0.5) if slow else self._random.uniform(0.00001, 0.002)

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

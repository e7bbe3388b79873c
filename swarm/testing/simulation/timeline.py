"""Simulated time: all events of a run, in the one order they happen in.

Decides what happens next: the earliest event, of equal ones the one scheduled first. Every event belongs
to a process (or to the network), so a process that dies takes exactly its own timers and threads along,
and one that is stopped for a while has its events late and in order. What a process is, :mod:`.reactor`
says.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from heapq import heappop, heappush
from random import Random
from typing import TYPE_CHECKING, Any

from attrs import define, field
from twisted.internet.error import AlreadyCalled, AlreadyCancelled
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from zope.interface import implementer

if TYPE_CHECKING:
    from swarm.testing.simulation.reactor import SimReactor

#: When every run begins, seconds since 1970. In the past, so that OpenSSL, which reads the real clock,
#: accepts certificates that are valid in the simulation.
START = 1_600_000_000.0

#: Lines of the trace that are hashed at once.
_LINES = 1000


class Livelock(Exception):
    """Far more events than any sound run has."""


@implementer(IDelayedCall)
@define(eq=False)
class Event:
    """
    Something that is to happen.

    :ivar when: seconds since the beginning; ``entry``: its place in the heap that counts.
    :ivar timed: was it set by the owner's clock, and so moves when that jumps?
    """

    timeline: Timeline
    owner: SimReactor | None
    when: float
    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    label: str
    timed: bool
    entry: int = 0
    called: bool = False
    cancelled: bool = False

    def getTime(self) -> float:
        """See :class:`~twisted.internet.interfaces.IDelayedCall`."""
        return START + self.when + (self.owner.skew if self.owner is not None else 0.0)

    def active(self) -> bool:
        """See :class:`~twisted.internet.interfaces.IDelayedCall`."""
        return not (self.called or self.cancelled)

    def cancel(self) -> None:
        """See :class:`~twisted.internet.interfaces.IDelayedCall`."""
        self._must_be_active()
        self.cancelled = True
        self.function, self.args, self.kwargs = _nothing, (), {}

    def reset(self, secondsFromNow: float) -> None:
        """See :class:`~twisted.internet.interfaces.IDelayedCall`."""
        self._must_be_active()
        self.timeline.move(self, self.timeline.now + secondsFromNow)

    def delay(self, secondsLater: float) -> None:
        """See :class:`~twisted.internet.interfaces.IDelayedCall`."""
        self._must_be_active()
        self.timeline.move(self, self.when + secondsLater)

    def _must_be_active(self) -> None:
        if self.cancelled:
            raise AlreadyCancelled
        if self.called:
            raise AlreadyCalled


def _nothing() -> None:
    """What is left of a call that was called off."""


@define(eq=False)
class Timeline:
    """
    I hold all events of a run.

    :ivar now: seconds since the beginning.
    :ivar current: whose event is running; None: the network's, or none.
    :ivar history: each event's description, if it is to be kept, to compare two runs.
    """

    seed: object
    keep: bool = False
    now: float = field(default=0.0, init=False)
    events: int = field(default=0, init=False)
    current: SimReactor | None = field(default=None, init=False)
    history: list[str] = field(factory=list, init=False)
    random: Random = field(init=False)
    _heap: list[tuple[float, int, Event]] = field(factory=list, init=False)
    _sequence: int = field(default=0, init=False)
    _lines: list[str] = field(factory=list, init=False)
    _hash: Any = field(factory=hashlib.sha256, init=False)
    log = Logger()

    def __attrs_post_init__(self) -> None:
        self.random = Random(f"{self.seed} timeline")

    @property
    def trace(self) -> str:
        """The run so far in 16 digits."""
        self._hash_lines()
        digits: str = self._hash.hexdigest()[:16]
        return digits

    def _hash_lines(self) -> None:
        self._hash.update("".join(self._lines).encode())
        self._lines.clear()

    # -- what is to happen --------------------------------------------------------------

    def after(
        self,
        delay: float,
        owner: SimReactor | None,
        function: Callable[..., Any],
        *args: Any,
        label: str = "",
    ) -> Event:
        """Call in ``delay`` seconds; see :meth:`at`."""
        event = Event(
            self, owner, self.now + delay, function, args, {}, label or name_of(function), timed=False
        )
        return self.add(event)

    def at(
        self, when: float, owner: SimReactor | None, function: Callable[..., Any], *args: Any, label: str = ""
    ) -> Event:
        """Call at an exact moment, on behalf of ``owner``, unless that is dead by then."""
        return self.add(Event(self, owner, when, function, args, {}, label or name_of(function), timed=False))

    def add(self, event: Event) -> Event:
        """Have an event happen; the dead have none."""
        owner = event.owner
        if owner is None or not owner.dead:
            event.entry = self._sequence = entry = self._sequence + 1
            heappush(self._heap, (event.when, entry, event))
        return event

    def move(self, event: Event, when: float) -> None:
        """Have it happen at another moment."""
        sooner = when < event.when
        event.when = when
        if sooner and (event.owner is None or not event.owner.dead):
            self._push(event)  # its old place counts no more

    def _push(self, event: Event) -> None:
        self._sequence += 1
        event.entry = self._sequence
        heappush(self._heap, (event.when, self._sequence, event))

    def pending(self, owner: SimReactor | None) -> list[Event]:
        """What is still to come for a process."""
        return [
            event
            for _, entry, event in self._heap
            if event.owner is owner and event.entry == entry and event.active()
        ]

    def jump(self, process: SimReactor, seconds: float) -> None:
        """Set the clock of a process: as in Twisted, its timers stay at the times of day they were set to."""
        process.skew += seconds
        for event in sorted(self.pending(process), key=lambda event: event.entry):
            if event.timed:
                event.when = max(self.now, event.when - seconds)
                self._push(event)

    # -- what happens ---------------------------------------------------------------------

    def _next(self, end: float) -> Event | None:
        """
        Take the next event off the heap, unless it comes after ``end``.

        What was called off or put off meanwhile is cleared away.
        """
        heap = self._heap
        while heap:
            place = heappop(heap)
            when, entry, event = place
            owner = event.owner
            if event.cancelled or event.entry != entry:
                continue
            if owner is not None and owner.dead:
                owner.remains.append(event)
            elif event.when > when:  # put off
                self._push(event)
            elif owner is not None and owner.stopped > when:
                event.when = owner.stopped
                self._push(event)
            elif when > end:
                heappush(heap, place)
                return None
            else:
                return event
        return None

    def _happen(self, event: Event) -> None:
        if event.when > self.now:
            self.now = event.when
        event.called = True
        self.events = number = self.events + 1
        owner = event.owner
        line = f"{number} {self.now:.6f} {'network' if owner is None else owner.name} {event.label}"
        self._lines.append(line)
        if self.keep:
            self.history.append(line)
        if number % _LINES == 0:
            self._hash_lines()
        self.current = owner
        try:
            event.function(*event.args, **event.kwargs)
        except Exception:
            self.log.failure("an event raised")
        finally:
            self.current = None

    def run(self, owner: SimReactor | None, function: Callable[..., Any], *args: Any) -> Any:
        """Call now on behalf of ``owner``; what it raises is logged, as a reactor does."""
        before, self.current = self.current, owner
        try:
            return function(*args)
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
            event = self._next(end)
            if event is None:
                self.now = max(self.now, end)
                return done()
            self._happen(event)
            if self.events > last:
                raise Livelock(f"{events} events in {most} s")
        return True


def name_of(function: Callable[..., Any]) -> str:
    """The same in every run: no addresses."""
    name: str = getattr(function, "__qualname__", type(function).__name__)
    return name

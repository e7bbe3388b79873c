"""Hosts and the flows between them: bytes as a fluid, in events that only begin, end or pass a mark.

A flow's rate is min(upload / flows out of its source, download / flows into its target) and changes only
when a flow at one of its ends begins or ends. Knows nothing of grains; who sends what is ``puller``'s.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from itertools import count

from attrs import define, field

_ROUNDING = 1e-3  # of a byte


@define(eq=False)
class Host:
    """A machine behind one link. ``up`` and ``down`` in bytes a second; ``site`` is where it stands."""

    number: int
    up: float
    down: float
    site: int = 0
    sending: dict[Flow, None] = field(factory=dict, init=False)
    taking: dict[Flow, None] = field(factory=dict, init=False)
    sent: float = field(default=0.0, init=False)
    abroad: float = field(default=0.0, init=False)  # of what it took: bytes from other sites


@define(eq=False)
class Flow:
    """
    Bytes from ``at`` to ``stop`` under way. ``passed`` is called at each multiple of ``step`` and the end.

    ``stop`` may be moved down between events, by :meth:`Fluid.shorten` only.
    """

    source: Host
    target: Host
    at: float
    stop: int
    step: int
    passed: Callable[[Flow], None]
    rate: float = field(default=0.0, init=False)
    since: float = field(default=0.0, init=False)
    mark: int = field(default=0, init=False)  # where it is looked at next
    due: float = field(default=float("inf"), init=False)  # when an event for that stands in the heap
    over: bool = field(default=False, init=False)

    @property
    def here(self) -> int:
        """Bytes up to this offset have arrived, as of the last look."""
        return min(self.stop, int(self.at + _ROUNDING))


@define(eq=False)
class Fluid:
    """I hold the time, the events and the flows."""

    now: float = field(default=0.0, init=False)
    events: int = field(default=0, init=False)
    _heap: list[tuple[float, int, Callable[[], None] | Flow]] = field(factory=list, init=False)
    _ties: count[int] = field(factory=count, init=False)

    def after(self, delay: float, event: Callable[[], None]) -> None:
        """Have something happen."""
        heapq.heappush(self._heap, (self.now + delay, next(self._ties), event))

    def run(self, done: Callable[[], bool], limit: float) -> bool:
        """Until ``done()``; False if ``limit`` seconds, or all events, came first."""
        while not done():
            if not self._heap or self._heap[0][0] > limit:
                return False
            when, _, event = heapq.heappop(self._heap)
            self.now = max(self.now, when)
            if not isinstance(event, Flow):
                self.events += 1
                event()
            elif when == event.due and not event.over:
                self._look(event)
        return True

    # -- flows ----------------------------------------------------------------------------

    def begin(self, flow: Flow) -> None:
        """Bytes begin to come."""
        flow.since = self.now
        flow.source.sending[flow] = flow.target.taking[flow] = None
        self._aim(flow)
        self._share(flow)

    def end(self, flow: Flow) -> None:
        """They come no more."""
        if not flow.over:
            self.settle(flow)
            flow.over = True
            del flow.source.sending[flow], flow.target.taking[flow]
            self._share(flow)

    def shorten(self, flow: Flow, stop: int) -> None:
        """Its end is nearer than it was."""
        self.settle(flow)
        flow.stop = max(stop, flow.here)
        self._aim(flow)
        self._plan(flow)

    def settle(self, flow: Flow) -> None:
        """Count what came since the last look."""
        came = min(flow.rate * (self.now - flow.since), flow.stop - flow.at)
        flow.since = self.now
        if came > 0:
            flow.at += came
            flow.source.sent += came
            if flow.source.site != flow.target.site:
                flow.target.abroad += came

    def _aim(self, flow: Flow) -> None:
        flow.mark = min(flow.stop, (flow.here // flow.step + 1) * flow.step)

    def _share(self, changed: Flow) -> None:
        for flow in (*changed.source.sending, *changed.target.taking):
            source, target = flow.source, flow.target
            rate = min(source.up / len(source.sending), target.down / len(target.taking))
            if rate != flow.rate:
                self.settle(flow)
                flow.rate = rate
                self._plan(flow)

    def _plan(self, flow: Flow) -> None:
        """An event that stands too early is moved when it comes, which spares the heap most changes."""
        when = self.now + max(0.0, flow.mark - flow.at) / flow.rate
        if when < flow.due:
            flow.due = when
            heapq.heappush(self._heap, (when, next(self._ties), flow))

    def _look(self, flow: Flow) -> None:
        self.settle(flow)
        flow.due = float("inf")
        if flow.here < flow.mark:
            self._plan(flow)
            return
        self.events += 1
        self._aim(flow)
        flow.passed(flow)
        if not flow.over:
            self._plan(flow)

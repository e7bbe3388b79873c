"""A pull over long wires in virtual time: sources behind a rate and a round trip, played against a Dispatch.

Knows of TCP what matters to a puller: a connection costs two round trips before a request can be sent
on it (TCP, then TLS), begins with ten segments a round trip and doubles, begins anew after idling,
and never has more under way than a send buffer; connections to one source share its wire. Requests
are answered in order, the next body right behind the one before. What a cut or an abort does to lanes
is what ``swarm.services.asking`` does. Exact to a chunk of bytes, and the same for the same seed.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable
from itertools import count
from random import Random

from attrs import define, field

from swarm.core.dispatch import Abort, Dispatch, DispatchSettings, Span
from swarm.model.grains import Grains
from swarm.model.peers import PeerID

MIB = 1 << 20
MBIT = 125_000.0  # bytes a second
_FIRST_WINDOW = 14_600  # ten segments
_SEND_BUFFER = 2_600_000  # what fits a send buffer of 4 MiB, a kernel's usual limit
_CHUNK = 32 << 10


@define(eq=False)
class Wire:
    """A source at the end of a wire: bytes a second, seconds there and back, seconds of queue in routers."""

    rate: float
    rtt: float
    queue: float = 0.1
    id: PeerID = field(init=False, default=PeerID(bytes(32)))
    free: float = field(init=False, default=0.0)  # when what was sent so far has left
    gone: bool = field(init=False, default=False)  # nothing comes of it any more

    @property
    def ceiling(self) -> float:
        """Bytes a second of one connection, once it has gathered speed."""
        return min(self.rate, _SEND_BUFFER / self.rtt)


@define(eq=False)
class Connection:
    """A lane. ``spans`` in the order they were asked."""

    wire: Wire
    ready: float  # when a request can be sent
    window: float = _FIRST_WINDOW
    flying: int = 0
    spans: list[Span] = field(factory=list)  # not answered to the end, seen from the puller
    sending: list[tuple[Span, int]] = field(factory=list)  # at the source: and the next byte
    busy: float = 0.0  # when it was last under way
    retired: bool = False
    closed: bool = False


class LongPull:
    """One run."""

    def __init__(
        self, size: int, wires: list[Wire], *, seed: int = 0, settings: DispatchSettings | None = None
    ) -> None:
        self.grains = Grains.of(size)
        self.dispatch = Dispatch(self.grains, settings or DispatchSettings(), Random(seed))
        self.now = 0.0
        self.wires: dict[PeerID, Wire] = {}
        self.lanes: dict[PeerID, Connection] = {}
        self.open: dict[Connection, None] = {}
        self.lane_of: dict[int, Connection] = {}
        self.dialed: Counter[PeerID] = Counter()
        self.asked: dict[int, float] = {}
        self.latencies: list[float] = []
        self.on_verified: dict[int, Callable[[], None]] = {}
        self.came: list[tuple[float, int]] = [(0.0, 0)]
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._ties = count()
        self._alarm: float | None = None
        for number, wire in enumerate(wires, 1):
            wire.id = PeerID(number.to_bytes(32, "big"))
            self.wires[wire.id] = wire
            self.dispatch.add_source(wire.id, 0.0)

    # -- what tests ask -----------------------------------------------------------------

    def reached(self, share: float) -> float:
        """When so much of all bytes had come."""
        total = self.came[-1][1]
        return next(when for when, bytes_ in self.came if bytes_ >= share * total)

    @property
    def tail(self) -> float:
        """The part of the time in which the last hundredth of the bytes came."""
        return 1 - self.reached(0.99) / self.now

    # -- running ------------------------------------------------------------------------

    def at(self, when: float, event: Callable[[], None]) -> None:
        """Have something happen."""
        heapq.heappush(self._heap, (when, next(self._ties), event))

    def run(self, limit: float = 3600.0) -> float:
        """Until complete; the time it took."""
        self.turn()
        while self.now < limit and not self.dispatch.complete:
            alarm = self._alarm
            if alarm is not None and (not self._heap or alarm < self._heap[0][0]):
                self.now = max(self.now + 0.01, alarm)
                self.turn()
            else:
                self.now, _, event = heapq.heappop(self._heap)
                event()
        return self.now

    def turn(self) -> None:
        """What ``Asking.pump`` does."""
        for action in self.dispatch.due(self.now):
            if isinstance(action, Abort):
                for lane in [each for each in self.open if each.wire.id == action.peer]:
                    self.close(lane)
            elif (shortened := self.lane_of.get(action.span)) is not None:
                self.retire(shortened)
        for span in self.dispatch.next(self.now):
            self.ask(span)
        self._alarm = self.dispatch.next_due()

    def close(self, lane: Connection) -> None:
        """End a connection now."""
        self.retire(lane)
        lane.closed = True
        self.open.pop(lane, None)
        for span in lane.spans:
            self.dispatch.failed(span.id, self.now)

    def retire(self, lane: Connection) -> None:
        """Ask nothing more on it."""
        lane.retired = True
        if self.lanes.get(lane.wire.id) is lane:
            del self.lanes[lane.wire.id]

    # -- asking -------------------------------------------------------------------------

    def ask(self, span: Span) -> None:
        """Send a request, on a new connection if there is none."""
        wire = self.wires[span.peer]
        lane = self.lanes.get(span.peer)
        if lane is None:
            lane = self.lanes[span.peer] = Connection(wire, self.now + 2 * wire.rtt)
            self.open[lane] = None
            self.dialed[span.peer] += 1
        self.asked[span.id] = self.now
        self.lane_of[span.id] = lane
        lane.spans.append(span)

        def arrives(lane: Connection = lane) -> None:
            if self.now - lane.busy > 0.2 + wire.rtt:
                lane.window = _FIRST_WINDOW
            lane.sending.append((span, span.range.start))
            self.send(lane)

        self.at(max(self.now, lane.ready) + wire.rtt / 2, arrives)

    # -- sending ------------------------------------------------------------------------

    def send(self, lane: Connection) -> None:
        """The source sends what the window lets it."""
        wire = lane.wire
        while lane.sending and not lane.closed and not wire.gone:
            span, start = lane.sending[0]
            size = min(_CHUNK, int(max(1_460, lane.window / 4)), span.range.stop - start)
            if lane.flying + size > min(lane.window, _SEND_BUFFER):
                return
            stop = start + size
            lane.sending[0] = (span, stop)
            if stop == span.range.stop:
                lane.sending.pop(0)
            lane.flying += size
            wire.free = max(self.now, wire.free) + size / wire.rate
            there = wire.free + wire.rtt / 2
            self.at(there, lambda span=span, stop=stop: self.arrive(lane, span, stop))  # type: ignore[misc]
            self.at(there + wire.rtt / 2, lambda size=size: self.acknowledge(lane, size))  # type: ignore[misc]

    def acknowledge(self, lane: Connection, size: int) -> None:
        """The window opens, up to what wire and queue hold."""
        lane.flying -= size
        lane.busy = self.now
        if lane.window < lane.wire.rate * (lane.wire.rtt + lane.wire.queue):
            lane.window += size
        self.send(lane)

    def arrive(self, lane: Connection, span: Span, stop: int) -> None:
        """Bytes come in."""
        if lane.closed or lane.wire.gone:
            return
        before = self.dispatch.tally.received
        for grain in self.dispatch.received(span.id, stop, self.now):
            self.latencies.append(self.now - self.asked[span.id])
            self.at(self.now + 0.001, lambda grain=grain: self.judge(grain))  # type: ignore[misc]
        fresh = self.dispatch.tally.received - before
        self.came.append((self.now, self.came[-1][1] + fresh))
        over = stop == span.range.stop
        if not over and self.dispatch.flying(span.id):
            if self.dispatch.hasty:
                self.turn()
            return
        self.dispatch.finished(span.id, self.now)
        lane.spans.remove(span)
        # Left amid a body, it has to be closed, and what is queued behind is asked anew.
        if not over or (lane.retired and not lane.spans):
            self.close(lane)
        self.turn()

    def judge(self, grain: int) -> None:
        """A grain was hashed."""
        self.dispatch.verified(grain, self.now)
        self.on_verified.pop(grain, lambda: None)()
        self.turn()

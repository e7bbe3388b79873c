"""A pull in virtual time: peers with rates, latencies and faults, played against a :class:`Dispatch`.

Checks on the way what must hold at every step (see :meth:`Pull.check`), so that any test that runs a
pull is a test of all of it.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable
from itertools import count
from random import Random

from attrs import define, field

from swarm.core.dispatch import Abort, Dispatch, DispatchSettings, Span
from swarm.errors import Fault
from swarm.model.grains import Grains
from swarm.model.peers import PeerID
from swarm.model.ranges import ByteRange, RangeSet

KIB = 1024


def peer_id(number: int) -> PeerID:
    return PeerID(number.to_bytes(32, "big"))


@define(eq=False)
class Source:
    """A peer: ``rate`` bytes a second, ``lag`` seconds to a first byte, bad ``lies`` grains."""

    rate: float
    lag: float = 0.001
    have: RangeSet | None = None
    lies: frozenset[int] = frozenset()
    stalls: Callable[[float], bool] = lambda now: False  # takes requests, sends nothing
    fails: Callable[[float], Fault | None] = lambda now: None  # how it answers a request
    chunk: int = 16 * KIB
    id: PeerID = field(init=False, default=peer_id(0))
    lane: list[Span] = field(init=False, factory=list)
    epoch: int = field(init=False, default=0)
    at: int = field(init=False, default=0)


class Pull:
    """One run. ``events`` are ``(time, function)``, for joins, deaths and readers."""

    def __init__(
        self,
        grains: Grains,
        sources: dict[int, Source],
        *,
        seed: int = 0,
        settings: DispatchSettings | None = None,
        exile: bool = True,
    ) -> None:
        self.grains = grains
        self.settings = settings or DispatchSettings()
        self.dispatch = Dispatch(grains, self.settings, Random(seed))
        self.now = 0.0
        self.live: dict[PeerID, Source] = {}
        self.by_span: dict[int, Source] = {}
        self.lies: dict[PeerID, frozenset[int]] = {}  # of all there ever were
        self.verified: Counter[int] = Counter()
        self.rejected: dict[int, set[PeerID]] = {}
        self.order: list[int] = []
        self.asked: list[Span] = []
        self.actions: list[object] = []
        self.exile = exile
        self.checking: set[int] = set()
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._ties = count()
        self._alarm: float | None = None
        self._quiet = False  # did the last event change nothing that asks for a turn?
        for number, source in sources.items():
            self.join(number, source)

    def at(self, when: float, event: Callable[[], None]) -> None:
        heapq.heappush(self._heap, (when, next(self._ties), event))

    def join(self, number: int, source: Source) -> None:
        source.id = peer_id(number)
        self.live[source.id] = source
        self.lies[source.id] = source.lies
        self.dispatch.add_source(source.id, self.now, source.have)

    def leave(self, number: int) -> None:
        source = self.live.pop(peer_id(number), None)
        if source is not None:
            self.hang_up(source)
            self.dispatch.remove_source(source.id, self.now)

    def hang_up(self, source: Source) -> None:
        source.epoch += 1
        source.lane.clear()

    def run(self, limit: float = 100_000.0) -> float:
        """Until complete, starved or ``limit`` seconds; the time it took."""
        self.turn()
        while self.now < limit and not self.dispatch.complete:
            if self.dispatch.starved and not self.checking:
                break
            alarm = self._alarm
            if alarm is not None and (not self._heap or alarm < self._heap[0][0]):
                self.now = max(self.now, alarm)
                self.turn()
            elif self._heap:
                self.now, _, event = heapq.heappop(self._heap)
                self._quiet = False
                event()
                if not self._quiet:
                    self.turn()
            else:
                break
        return self.now

    def turn(self) -> None:
        self._alarm = None
        for _ in range(50):
            actions = self.dispatch.due(self.now)
            self.actions += actions
            for action in actions:
                if isinstance(action, Abort) and action.peer in self.live:
                    self.hang_up(self.live[action.peer])
            spans = self.dispatch.next(self.now)
            for span in spans:
                self.ask(span)
            self.check()
            due = self.dispatch.next_due()
            if due is None or due > self.now:
                break
        else:
            raise AssertionError("due() and next() never come to rest")
        if due is not None:
            self._alarm = due

    def ask(self, span: Span) -> None:
        self.asked.append(span)
        if not self.dispatch.flying(span.id):
            return
        source = self.live[span.peer]
        assert source.have is None or source.have.covers(span.range.start, span.range.stop), "has it not"
        source.lane.append(span)
        if len(source.lane) == 1:
            self.begin(source)

    def begin(self, source: Source) -> None:
        span, epoch = source.lane[0], source.epoch
        source.at = span.range.start

        def answer() -> None:
            if epoch != source.epoch:
                return
            fault = source.fails(self.now)
            if fault is not None:
                lane = tuple(source.lane)
                self.hang_up(source)
                for each in lane:
                    self.dispatch.failed(each.id, self.now, fault)
            else:
                self.stream(source, span, epoch)

        self.at(self.now + source.lag, answer)

    def stream(self, source: Source, span: Span, epoch: int) -> None:
        if epoch != source.epoch:
            return
        if source.stalls(self.now):
            self._quiet = True
            self.at(self.now + 0.5, lambda: self.stream(source, span, epoch))
            return
        self._quiet = True
        size = min(source.chunk, span.range.stop - source.at)
        self.at(self.now + size / source.rate, lambda: self.arrive(source, span, epoch, size))

    def arrive(self, source: Source, span: Span, epoch: int, size: int) -> None:
        if epoch != source.epoch:
            return
        stop = source.at + size
        for part in self.dispatch.wanted(span.id, stop):
            for grain in self.grains.covering(part):
                assert not self.verified[grain], "written over verified bytes"
        source.at = stop
        for grain in self.dispatch.received(span.id, stop, self.now):
            self.checking.add(grain)
            self.at(self.now + 0.0005, lambda grain=grain: self.judge(grain))  # type: ignore[misc]
        if stop == span.range.stop:
            self.dispatch.finished(span.id, self.now)
            source.lane.pop(0)
            if source.lane:
                self.begin(source)
        elif not self.dispatch.flying(span.id):
            again = [each for each in source.lane[1:] if self.dispatch.flying(each.id)]
            self.hang_up(source)
            source.lane = again
            if again:
                self.begin(source)
        else:
            self.stream(source, span, epoch)

    def judge(self, grain: int) -> None:
        self.checking.discard(grain)
        senders = self.dispatch.senders(grain)
        assert senders, "complete, yet sent by nobody"
        if any(grain in self.lies[sender] for sender in senders):
            self.rejected.setdefault(grain, set()).update(senders)
            self.dispatch.rejected(grain, self.now)
            if self.exile and len(senders) == 1:
                self.leave(int.from_bytes(senders[0].raw, "big"))
        else:
            self.verified[grain] += 1
            self.order.append(grain)
            self.dispatch.verified(grain, self.now)

    def check(self) -> None:
        """What must hold after every turn."""
        dispatch, per_peer = self.dispatch, Counter[PeerID]()
        for flight in dispatch._table.flights.values():
            per_peer[flight.span.peer] += 1
        assert all(each <= 2 for each in per_peer.values()), "more than one in flight and one queued"
        assert dispatch.tally.duplicated <= self.settings.budget(self.grains), "duplicates over budget"
        assert all(each == 1 for each in self.verified.values()), "verified twice"
        grain = self.grains.grain
        assert dispatch.in_flight <= self.settings.in_flight + 2 * grain * len(self.live)
        free = dispatch._table.picker.free
        for flight in dispatch._table.flights.values():
            if flight.left:
                assert not list(free.overlap(flight.at, flight.stop)), "asked and yet free"


def grains_of(number: int, size: int = 64 * KIB, short: int = 0) -> Grains:
    return Grains(number * size - short, size)


__all__ = ["KIB", "ByteRange", "Pull", "RangeSet", "Source", "grains_of", "peer_id"]

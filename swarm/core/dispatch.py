"""One pull's table: which bytes to ask of which source next, and what to do about late ones.

Decides; never asks, times, writes or verifies. Drive it like this (``now`` in seconds, any origin)::

    table = Dispatch(grains, DispatchSettings(), random)
    table.arrived(grain)                    # for each grain an earlier run left, before the start
    table.add_source(peer, now)             # have=RangeSet for a partial holder; any time
    # After every call below, and when the clock reaches next_due():
    for action in table.due(now): ...       # Abort: close that lane. Shorten: later spans go on a new lane
    for span in table.next(now): ...        # ask span.range of span.peer
    clock.callLater(max(0, table.next_due() - now), turn)      # unless next_due() is None
    # While the bytes of a span come in, with all bytes up to offset ``stop`` here:
    for part in table.wanted(span.id, stop): write(part)       # nearly always all of them
    for grain in table.received(span.id, stop, now): verify(grain, table.senders(grain))
    if table.hasty: call due and next soon
    if not table.flying(span.id): leave the body: full, stopped short, or off
    # When the fetch ends:
    table.finished(span.id, now)  |  table.failed(span.id, now, fault, retry_after)
    # When a grain was checked:
    table.verified(grain, now)    |  table.rejected(grain, now)

``wanted`` is what keeps a duplicate from writing over bytes that may be verified already: each byte on
disk has one sender. Ids of spans that are over are ignored by every method, so late news does no harm.
``next`` may create spans whose ``Shorten`` the following ``due`` tells, and the other way round; then
``next_due`` is at once. If this node held the bytes back itself (a slow disk), call :meth:`Dispatch.excuse`.
A pull is ``complete`` when every grain is verified (an empty blob has one, without bytes), and ``starved``
when no source can bring what is missing.
"""

from __future__ import annotations

from collections.abc import Hashable
from math import inf
from random import Random

from attrs import frozen

from swarm.core.attention import Attention
from swarm.core.drought import Drought
from swarm.core.feeds import AWAY, Abort, Feed, Shorten, Span, rest_after
from swarm.core.rates import Rate
from swarm.core.shares import Share
from swarm.core.stragglers import Stragglers
from swarm.core.table import DispatchSettings, Pace, Table, Tally
from swarm.errors import Fault
from swarm.model.grains import Grains
from swarm.model.peers import PeerID
from swarm.model.ranges import ByteRange, RangeSet


@frozen
class FeedProgress:
    """What one source did so far. ``state``: active, probing, idle, snubbed, resting or gone."""

    peer: PeerID
    bytes: int
    rate: float
    state: str
    detail: str = ""


class Dispatch:
    """The decisions of one pull of one blob of one claimed size."""

    def __init__(self, grains: Grains, settings: DispatchSettings, random: Random) -> None:
        self.grains = grains
        self.settings = settings
        self._random = random
        self._table = Table(grains, settings, random)
        self._table.picker.prefer(grains.last)  # trust grows from the end
        self._ledger = self._table.ledger
        self._stragglers = Stragglers(self._table)
        self._attention = Attention(settings.alone, settings.calm, self._ledger.is_verified)
        self._drought = Drought(settings.far_share, settings.far_seconds)
        self._gone: dict[PeerID, Feed] = {}
        self._now = 0.0
        self._promised: float | None = None

    # -- what there is ---------------------------------------------------------

    @property
    def tally(self) -> Tally:
        """Counters so far."""
        return self._table.tally

    @property
    def complete(self) -> bool:
        """Is every grain verified?"""
        return self._ledger.unverified == 0

    @property
    def remaining(self) -> int:
        """Bytes not on disk yet."""
        return self._ledger.missing

    @property
    def in_flight(self) -> int:
        """Bytes asked and not yet here."""
        return self._table.in_flight

    @property
    def starved(self) -> bool:
        """Is something missing that no source, even after a rest, could bring?"""
        if self._table.flights or not self.remaining:
            return False
        return not any(self._table.has_work(feed) for feed in self._table.feeds.values())

    @property
    def hasty(self) -> bool:
        """May :meth:`next` ask for more, although no span came to its end? Told once."""
        hasty, self._table.hasty = self._table.hasty, False
        return hasty

    @property
    def crowded(self) -> bool:
        """Are there sources that have only a part? Then others pull the blob right now."""
        return self._table.picker.crowded

    @property
    def hungry(self) -> bool:
        """Others pull the blob, too, and could bring more than is asked of them, if they had it?"""
        table = self._table
        return table.picker.crowded and bool(table.picker.free) and 2 * len(table.busy) < self.settings.crowd

    def flying(self, span_id: int) -> bool:
        """Are more bytes of the span expected?"""
        return span_id in self._table.flights

    def asked_of(self, peer: PeerID) -> int:
        """Bytes asked of a source and not yet here."""
        feed = self._table.feeds.get(peer)
        return 0 if feed is None else feed.outstanding

    def senders(self, grain: int) -> tuple[PeerID, ...]:
        """Whose bytes of the grain are on disk; empty if an earlier run fetched it."""
        return self._ledger.senders(grain)

    def sources(self, now: float) -> tuple[FeedProgress, ...]:
        """Every source there was, for people."""
        live = [(feed, feed.state(now)) for feed in self._table.feeds.values()]
        return tuple(
            FeedProgress(feed.peer, feed.rate.total, feed.rate.at(now) or 0.0, state, feed.detail)
            for feed, state in [*live, *((feed, "gone") for feed in self._gone.values())]
        )

    # -- sources come and go ---------------------------------------------------

    def add_source(self, peer: PeerID, now: float, have: RangeSet | None = None) -> None:
        """A peer that offers the blob (``have`` None) or a part of it. One that returns keeps its record."""
        self._now = now
        if peer not in self._table.feeds:
            grain = self.grains.grain
            rate = Rate(self.settings.rate_grains * grain, max(1, min(grain, self.grains.size)))
            self._table.feeds[peer] = self._gone.pop(peer, Feed(peer, rate))
        self.update_source(peer, have)

    def update_source(self, peer: PeerID, have: RangeSet | None) -> None:
        """A source says anew what it has."""
        if peer in self._table.feeds:
            self._table.feeds[peer].have = have
            self._table.picker.source(peer, have)

    def returned(self, peer: PeerID, now: float) -> None:
        """It was away and is back: a rest for being away ends, strikes begin anew. Others are kept."""
        self._now = now
        feed = self._table.feeds.get(peer) or self._gone.get(peer)
        if feed is not None and feed.detail in {fault.value for fault in AWAY}:
            feed.failures = 0
            feed.rests_until = feed.spared_until = min(feed.rests_until, now)

    def gave(self, peer: PeerID, given: RangeSet) -> None:
        """A source that has all says what it gave to others."""
        if peer in self._table.feeds:
            self._table.picker.gave(peer, given)

    def share(self, share: Share) -> None:
        """Others pull the blob, too; see :mod:`swarm.core.shares`."""
        self._table.picker.share(share)

    def remove_source(self, peer: PeerID, now: float) -> tuple[Span, ...]:
        """It left, or is out. Its spans, now off; what they had yet to bring is wanted again."""
        self._now = now
        feed = self._table.feeds.get(peer)
        if feed is None:
            return ()
        spans = tuple(flight.span for flight in feed.flights)
        for flight in tuple(feed.flights):
            self._table.release(flight, now)
        self._gone[peer] = self._table.feeds.pop(peer)
        self._table.picker.drop(peer)
        return spans

    # -- what is wanted --------------------------------------------------------

    def want(self, reader: Hashable, window: ByteRange, now: float) -> None:
        """``reader`` waits for these bytes, the first the most; replaces what it wanted before."""
        self._now = now
        if reader not in self._table.picker.windows:
            self._attention.came(reader, self.grains.at(window.start), now)
        self._table.picker.want(reader, window)

    def unwant(self, reader: Hashable) -> None:
        """The reader is gone."""
        self._table.picker.unwant(reader)
        self._stragglers.forget(reader)
        self._attention.forget(reader)

    def awaited(self, grain: int) -> bool:
        """Does a reader, or trust, wait for the grain?"""
        return bool(self.grains.size) and self._table.picker.is_urgent(self._ledger.range_of(grain))

    def prefer(self, grain: int) -> None:
        """Trust wants this grain before all others."""
        self._table.picker.prefer(grain)

    def contest(self, contested: bool) -> None:
        """Do lists, or sizes, disagree? Then the last grain is wanted before all others, also in a crowd."""
        self._table.picker.contested = contested

    def arrived(self, grain: int) -> None:
        """
        An earlier run left the grain on disk, still to be rechecked: it is not asked for.

        Say so before the first :meth:`next`; then :meth:`verified` or :meth:`rejected`.
        """
        self._table.picker.take(self.grains.start(grain), self.grains.stop(grain))
        self._ledger.arrive(grain)

    # -- bytes -----------------------------------------------------------------

    def asked_at(self, span_id: int, when: float) -> None:
        """A span just told by :meth:`next` had been asked before, at that time."""
        flight = self._table.flights[span_id]
        flight.expected += when - flight.asked
        flight.asked = flight.heard = when

    def wanted(self, span_id: int, stop: int) -> tuple[ByteRange, ...]:
        """Of the bytes that came since the last :meth:`received`, up to ``stop``: those to write."""
        flight = self._table.flights.get(span_id)
        if flight is None:
            return ()
        parts = self._ledger.lacking(flight.at, min(stop, flight.stop), span_id)
        return tuple(ByteRange(begin, end) for begin, end in parts)

    def received(self, span_id: int, stop: int, now: float) -> tuple[int, ...]:
        """The bytes up to ``stop`` came, and what was wanted of them is on disk. Grains now complete."""
        self._now = now
        flight = self._table.flights.get(span_id)
        return self._table.receive(flight, stop, now) if flight is not None else ()

    def finished(self, span_id: int, now: float) -> None:
        """The fetch returned. What it did not bring, if anything, is wanted again."""
        self.failed(span_id, now)

    def failed(
        self, span_id: int, now: float, fault: Fault | None = None, retry_after: float | None = None
    ) -> None:
        """
        The fetch broke; only missing bytes are wanted again.

        :param fault: the peer's, which then rests; None is nobody's (its lane was closed by us).
        :param retry_after: seconds a busy peer asked for; 0: it may be asked at once, for something else.
        """
        self._now = now
        flight = self._table.flights.get(span_id)
        if flight is None:
            return
        feed = self._table.feeds[flight.span.peer]
        self._table.release(flight, now)
        feed.cold = feed.cold or fault not in (Fault.MISSING, Fault.BUSY)  # else its lane is over
        if fault is None:
            return
        feed.detail = fault.value
        if fault is Fault.MISSING:
            self.update_source(feed.peer, RangeSet())
        elif now >= feed.rests_until:  # else it is the other span of the same broken lane
            self._rest(feed, now, fault, retry_after)

    def _rest(self, feed: Feed, now: float, fault: Fault, retry_after: float | None) -> None:
        s = self.settings
        if fault is Fault.BUSY and retry_after == 0.0 and feed.deflected < s.strikes:
            feed.deflected += 1  # it has rather what it says it gave to nobody yet
            return
        if fault is Fault.BUSY:
            feed.busy += 1
            rest = min(s.busy_most, float(feed.busy**2)) * self._random.uniform(1.0, 1.5)  # not all at once
            feed.rest(now, rest, quiet=s.quiet, owed=retry_after or 0.0)
            return
        away = fault in AWAY
        feed.failures += not away or feed.failures + 1 < s.strikes or not self._table.is_quiet(now)
        most, longest = s.backoff_most, s.pause_most
        rest = rest_after(feed.failures, strikes=s.strikes, pause=s.pause, most=most, longest=longest)
        feed.rest(now, rest, quiet=s.quiet if away else rest)

    # -- grains ----------------------------------------------------------------

    def verified(self, grain: int, now: float) -> None:
        """The grain is proven good, fetched now or by an earlier run."""
        self._now = now
        table = self._table
        table.picker.take(self.grains.start(grain), self.grains.stop(grain))
        table.picker.settle(grain)
        self._ledger.verify(grain)
        if table.doubled.pop(grain, None) is None:
            return
        for flight in tuple(table.flights.values()):
            if self.flying(flight.span.id) and self._ledger.disk.covers(flight.at, flight.stop):
                flight.lost = True
                if flight.left > self.settings.drain_share * len(flight.span.range):
                    table.close(table.feeds[flight.span.peer], "lost", now)

    def rejected(self, grain: int, now: float) -> None:
        """
        The grain is bad, or no longer believed: its bytes are wanted again.

        If they came in this pull: whole from one source, and not from one that sent all of it
        while another has it; see ``swarm.core.ledger``.
        """
        self._now = now
        if self.senders(grain):
            self._table.tally.wasted += self._ledger.reject(grain)
        else:
            self._ledger.forget(grain)
            self._table.free(self.grains.start(grain), self.grains.stop(grain))
        if self._table.doubled.pop(grain, None) is not None:
            start, stop = self.grains.start(grain), self.grains.stop(grain)
            for flight in self._table.flights.values():  # who came second is not written any more
                flight.lost = flight.lost or start <= flight.at < flight.stop <= stop

    # -- time ------------------------------------------------------------------

    def excuse(self, now: float) -> None:
        """Nobody could be heard, by our own fault: every silence begins anew."""
        self._now = now
        for flight in self._table.flights.values():
            flight.heard = now

    def due(self, now: float) -> tuple[Abort | Shorten, ...]:
        """What has to end, because it is late or because its bytes are better asked of another."""
        if self._promised is not None and now > self._promised + self.settings.silence / 2:
            self.excuse(now)  # called late: this node was held up, not they
        self._now, self._promised = now, None
        self._table.rouse(now)
        self._stragglers.act(now)
        notices, self._table.notices = self._table.notices, []
        return tuple(notices)

    def next(self, now: float) -> tuple[Span, ...]:
        """Everything that should be asked now: fills each source's two slots, shortest queue first."""
        self._now = now
        table = self._table
        spans, table.ready = [span for span in table.ready if self.flying(span.id)], []
        if not table.picker.free and not self._ledger.parole:
            return tuple(spans)
        able = table.busy if table.thronged else table.feeds.values()
        waiting = [feed for feed in able if feed.open_slots(now) > 0 and table.has_work(feed)]
        pace = Pace.of(table.feeds.values(), now) if waiting else None
        while waiting:
            assert pace is not None
            if table.thronged:
                waiting = [feed for feed in waiting if feed.flights]
                if not waiting:
                    break
            if self.settings.in_flight - table.in_flight < self.grains.grain:
                waiting = [feed for feed in waiting if not feed.flights]
                if not waiting:
                    break
            feed = self._shortest(waiting, pace)
            span = self._assign(feed, pace)
            if span is not None:
                spans.append(span)
            if span is None or not feed.open_slots(now):
                waiting.remove(feed)
        return tuple(spans)

    def next_due(self) -> float | None:
        """When :meth:`due` and :meth:`next` must be called at the latest; None: when something happens."""
        if self.complete or not self._table.feeds:
            return None
        if self._table.ready or self._table.notices:
            return self._now
        times = [self._attention.next_due(self._now)]
        idle = False
        thronged = self._table.thronged
        for feed in self._table.busy if thronged else self._table.feeds.values():
            if feed.flights:
                times.append(self._stragglers.next_due(feed, self._now))
            elif feed.rests_until > self._now:
                times.append(self._table.wakes(feed))
            else:
                idle = True
        if idle and self._table.flights:
            times.append(self._now + self.settings.tick)
        soonest = min(times)
        self._promised = soonest if soonest < inf else None
        return self._promised

    # -- asking ----------------------------------------------------------------

    def _shortest(self, feeds: list[Feed], pace: Pace) -> Feed:
        """The source that would have one more grain soonest; of near equals one at random."""
        if len(feeds) == 1:
            return feeds[0]
        grain = self.grains.grain
        seconds = [(feed.outstanding + grain) / (pace.guess(feed) or 1.0) for feed in feeds]
        bound = min(seconds) * (1 + self.settings.near)
        return self._random.choice([feed for feed, each in zip(feeds, seconds, strict=True) if each <= bound])

    def _assign(self, feed: Feed, pace: Pace) -> Span | None:
        grain = self._table.parole_for(feed)
        if grain is not None:
            return self._table.launch_whole(feed, grain, pace.now)
        chosen = self._urgent(feed, pace)
        if chosen is None and not self._attention.only_readers(pace.now):
            usual = pace.rates[feed] or pace.usual or 0.0
            dry = self._drought.ails(usual, pace.now, self.tally.received)
            eager = dry and not self._table.busy
            chosen = self._table.picker.spread(feed.peer, self._length(feed, pace), eager=eager)
        if chosen is None or self._too_slow(feed, chosen, pace):
            return None
        return self._table.launch(feed, chosen, pace.now)

    def _length(self, feed: Feed, pace: Pace) -> int:
        """Bytes the next span of a source should have: whole grains, at least one."""
        s, grain, rate = self.settings, self.grains.grain, pace.rates[feed]
        if rate is None or feed.snubbed:
            return grain
        total = max(pace.total, rate)
        seconds = s.reader_seconds if self._table.picker.windows else s.span_seconds
        if self._table.picker.crowded:
            seconds = min(seconds, s.crowd_seconds)
        seconds *= min(1.0, self.remaining / (s.shrink_seconds * total))
        seconds = max(seconds, s.span_lags * (feed.lag or 0.0))
        share = s.in_flight * rate / total / 2  # two spans each fill the cap, the fast get more
        room = s.in_flight - self.in_flight
        worth = max(rate, feed.rate.lately(pace.now)) * seconds
        return max(1, int(min(worth, s.largest_span, share, room)) // grain) * grain

    def _urgent(self, feed: Feed, pace: Pace) -> ByteRange | None:
        """Bytes somebody waits for, unless another source would bring them much sooner."""
        length = int((pace.rates[feed] or 0.0) * self.settings.window_seconds)
        firsts = self._attention.only_firsts(pace.now)
        chosen = self._table.picker.urgent(feed.have, length, firsts=firsts)
        if chosen is None:
            return None
        others = [
            seconds
            for other in pace.rates
            if other.slots(pace.now) and other.can_serve(chosen)
            if (seconds := pace.seconds(other, len(chosen))) is not None
        ]
        mine = pace.seconds(feed, len(chosen))
        if not others or (mine is not None and mine <= 2 * min(others) + self.settings.first_byte):
            return chosen
        return None

    def _too_slow(self, feed: Feed, chosen: ByteRange, pace: Pace) -> bool:
        """
        Would the source still be at it when the others could have finished everything?

        Never true of all: no source is too slow that would have the bytes before any other.
        """
        mine = pace.seconds(feed, len(chosen))
        if mine is None or mine * pace.total <= self.remaining:
            return False
        together, soonest = 0.0, mine
        for other, rate in pace.rates.items():
            if other is feed or not rate or other.snubbed or pace.now < other.rests_until:
                continue
            if other.can_serve(chosen):
                together += rate
                soonest = min(soonest, (other.outstanding + len(chosen)) / rate)
        return soonest < mine and mine * together > self.remaining


__all__ = ["Abort", "Dispatch", "DispatchSettings", "FeedProgress", "Shorten", "Span", "Tally"]

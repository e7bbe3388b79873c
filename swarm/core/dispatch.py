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
from random import Random

from attrs import define, frozen

from swarm.core.feeds import Abort, Feed, Flight, Shorten, Span, rest_after
from swarm.core.ledger import Ledger
from swarm.core.picker import Picker
from swarm.core.rates import Quantiles, Rate
from swarm.core.stragglers import Conditions, hedge_quantile, latest, steal
from swarm.errors import Fault
from swarm.model.grains import Grains
from swarm.model.peers import PeerID
from swarm.model.ranges import ByteRange, RangeSet

MIB = 1 << 20


@frozen
class DispatchSettings:
    """Seconds and bytes; the defaults are those of ANCHORS D2 to D5."""

    span_seconds: float = 4.0  # a span is worth this much of its source's rate
    reader_seconds: float = 1.0  # the same while readers wait, so that lanes come free soon
    window_seconds: float = 0.25  # and for the very bytes they wait for
    shrink_seconds: float = 8.0  # with less than this left, spans shrink towards one grain
    largest_span: int = 64 * MIB
    in_flight: int = 64 * MIB  # asked and not yet here, all sources together
    rate_grains: int = 10  # a rate is the mean over this many grains
    near: float = 0.25  # sources whose queues differ by less are equal: one is taken at random
    silence: float = 2.0  # no byte for this long, or
    silence_factor: float = 4.0  # this many times the usual gap, is too long;
    silence_most: float = 60.0  # doubled at each silence in a row, up to this
    first_byte: float = 0.05  # the time to first byte assumed before any was seen; no hedge sooner
    endgame_grains: int = 3  # duplicates only with at most so many grains left,
    endgame_seconds: float = 2.0  # or so many seconds of all sources' rate
    duplicate_share: float = 0.03  # of the size, at least one grain, is what duplicates may cost,
    duplicate_most: int = 16 * MIB  # but never more than this
    drain_share: float = 0.25  # a span lost with no more than this to come is read to its end
    overtake: float = 0.5  # a span that cannot be cut changes hands if that takes at most this fraction
    reader_patience: float = 0.5  # a reader's bytes this far off justify cutting other spans short
    backoff_most: float = 30.0  # rest after the n-th failure in a row: n² seconds, at most this,
    strikes: int = 3  # from the third one on
    pause: float = 60.0  # this, doubling,
    pause_most: float = 3600.0  # up to this
    tick: float = 0.1  # how often idle sources are reconsidered


@define
class Tally:
    """Counters of one pull, in bytes and occasions."""

    received: int = 0
    duplicated: int = 0  # came although they were on disk already
    wasted: int = 0  # thrown away: of rejected grains, or past a cut
    steals: int = 0
    hedges: int = 0
    endgames: int = 0
    takeovers: int = 0
    preempted: int = 0
    aborts: int = 0  # for silence


@frozen
class FeedProgress:
    """What one source did so far. ``state``: active, probing, idle, snubbed, resting or gone."""

    peer: PeerID
    bytes: int
    rate: float
    state: str
    detail: str = ""


class Dispatch:
    """The table of one pull of one blob of one claimed size."""

    def __init__(self, grains: Grains, settings: DispatchSettings, random: Random) -> None:
        self.grains = grains
        self.settings = settings
        self.tally = Tally()
        self._random = random
        self._ledger = Ledger(grains)
        self._picker = Picker(grains, random)
        self._picker.prefer(grains.last)  # trust grows from the end
        self._feeds: dict[PeerID, Feed] = {}
        self._gone: dict[PeerID, Feed] = {}
        self._flights: dict[int, Flight] = {}
        self._ids = 0
        self._ready: list[Span] = []
        self._notices: list[Abort | Shorten] = []
        self._first_bytes = Quantiles(100)
        self._doubled: dict[int, set[PeerID]] = {}  # grain: who was ever asked for it as a second
        self._charged = 0  # bytes that did, or still may, come twice
        self._preempted: dict[Hashable, float] = {}
        self._now = 0.0
        self._promised: float | None = None
        self.budget = min(
            settings.duplicate_most, max(int(settings.duplicate_share * grains.size), grains.grain)
        )

    # -- what there is ---------------------------------------------------------

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
        return sum(feed.outstanding for feed in self._feeds.values())

    @property
    def starved(self) -> bool:
        """Is there something missing that no source, even after a rest, could bring?"""
        if self._flights or self._ready or not self.remaining:
            return False
        return not any(self._has_work(feed) for feed in self._feeds.values())

    def flying(self, span_id: int) -> bool:
        """Are more bytes of the span expected?"""
        return span_id in self._flights

    def senders(self, grain: int) -> tuple[PeerID, ...]:
        """Whose bytes of the grain are on disk; empty if an earlier run fetched it."""
        return self._ledger.senders(grain)

    def sources(self, now: float) -> tuple[FeedProgress, ...]:
        """Every source there was, for people."""
        live = [(feed, self._state(feed, now)) for feed in self._feeds.values()]
        return tuple(
            FeedProgress(feed.peer, feed.rate.total, feed.rate.at(now) or 0.0, state, feed.detail)
            for feed, state in [*live, *((feed, "gone") for feed in self._gone.values())]
        )

    def _state(self, feed: Feed, now: float) -> str:
        if now < feed.rests_until:
            return "resting"
        if feed.snubbed:
            return "snubbed"
        if not feed.flights:
            return "idle"
        return "probing" if feed.rate.at(now) is None else "active"

    # -- sources come and go ---------------------------------------------------

    def add_source(self, peer: PeerID, now: float, have: RangeSet | None = None) -> None:
        """A peer that offers the blob (``have`` None) or a part of it. One that returns keeps its record."""
        self._now = now
        if peer not in self._feeds:
            window, enough = self.settings.rate_grains * self.grains.grain, self.grains.grain
            feed = self._gone.pop(peer, None) or Feed(
                peer, Rate(window, min(enough, max(1, self.grains.size)))
            )
            self._feeds[peer] = feed
        self.update_source(peer, have)

    def update_source(self, peer: PeerID, have: RangeSet | None) -> None:
        """A source says anew what it has."""
        if peer in self._feeds:
            self._feeds[peer].have = have
            self._picker.source(peer, have)

    def remove_source(self, peer: PeerID, now: float) -> tuple[Span, ...]:
        """It left, or is out. Its spans, now off; what they had yet to bring is wanted again."""
        self._now = now
        feed = self._feeds.get(peer)
        if feed is None:
            return ()
        spans = tuple(flight.span for flight in feed.flights)
        for flight in tuple(feed.flights):
            self._release(flight, now)
        self._gone[peer] = self._feeds.pop(peer)
        self._picker.drop(peer)
        return spans

    # -- what is wanted --------------------------------------------------------

    def want(self, reader: Hashable, window: ByteRange) -> None:
        """``reader`` waits for these bytes, the first the most; replaces what it wanted before."""
        self._picker.want(reader, window)

    def unwant(self, reader: Hashable) -> None:
        """The reader is gone."""
        self._picker.unwant(reader)
        self._preempted.pop(reader, None)

    def prefer(self, grain: int) -> None:
        """Trust wants this grain before all others."""
        self._picker.prefer(grain)

    def arrived(self, grain: int) -> None:
        """
        An earlier run left the grain on disk, still to be rechecked: it is not asked for.

        Say so before the first :meth:`next`; then :meth:`verified` or :meth:`rejected`.
        """
        self._picker.free.remove(self.grains.start(grain), self.grains.stop(grain))
        self._ledger.arrive(grain)

    # -- bytes -----------------------------------------------------------------

    def wanted(self, span_id: int, stop: int) -> tuple[ByteRange, ...]:
        """Of the bytes that came since the last :meth:`received`, up to ``stop``: those to write."""
        flight = self._flights.get(span_id)
        if flight is None or flight.at >= flight.stop:
            return ()
        parts = self._ledger.lacking(flight.at, min(stop, flight.stop), span_id)
        return tuple(ByteRange(start, end) for start, end in parts)

    def received(self, span_id: int, stop: int, now: float) -> tuple[int, ...]:
        """The bytes up to ``stop`` came, and what was wanted of them is on disk. Grains now complete."""
        self._now = now
        flight = self._flights.get(span_id)
        if flight is None:
            return ()
        feed, start, upto = self._feeds[flight.span.peer], flight.at, min(stop, flight.stop)
        self.tally.wasted += stop - upto
        count = upto - start
        if count <= 0:
            return ()
        if flight.started:
            feed.gaps.add(now - flight.heard)
        else:
            flight.started = True
            self._first_bytes.add(now - flight.asked)
        parts = list(self._ledger.lacking(start, upto, span_id))
        written = sum(end - begin for begin, end in parts)
        if written < count:
            absent = sum(len(gap) for gap in self._ledger.disk.gaps(start, upto))
            self.tally.duplicated += count - absent
            self.tally.wasted += absent - written
        complete = [grain for begin, end in parts for grain in self._ledger.add(begin, end, flight.span.peer)]
        self.tally.received += count
        feed.rate.add(count, now)
        feed.outstanding -= count
        flight.at, flight.heard = upto, now
        if not flight.left:
            self._drop(flight, now)
            feed.delivered()
        return tuple(complete)

    def finished(self, span_id: int, now: float) -> None:
        """The fetch returned. What it did not bring, if anything, is wanted again."""
        self.failed(span_id, now)

    def failed(
        self, span_id: int, now: float, fault: Fault | None = None, retry_after: float | None = None
    ) -> None:
        """
        The fetch broke; only missing bytes are wanted again.

        :param fault: the peer's, which then rests; None is nobody's (its lane was closed by us).
        :param retry_after: seconds a busy peer asked for.
        """
        self._now = now
        flight = self._flights.get(span_id)
        if flight is None:
            return
        feed = self._feeds[flight.span.peer]
        self._release(flight, now)
        if fault is None:
            return
        feed.detail = fault.value
        if fault is Fault.MISSING:
            self.update_source(feed.peer, RangeSet())
        elif now >= feed.rests_until:  # else the other span of the same broken lane
            if fault is Fault.BUSY:
                feed.busy += 1
                rest = max(retry_after or 0.0, min(self.settings.backoff_most, float(feed.busy**2)))
            else:
                feed.failures += 1
                rest = self._rest_after(feed.failures)
            feed.rests_until = now + rest

    def _rest_after(self, failures: int) -> float:
        s = self.settings
        return rest_after(
            failures, strikes=s.strikes, pause=s.pause, most=s.backoff_most, longest=s.pause_most
        )

    # -- grains ----------------------------------------------------------------

    def verified(self, grain: int, now: float) -> None:
        """The grain is proven good, fetched now or by an earlier run."""
        self._now = now
        self._picker.free.remove(self.grains.start(grain), self.grains.stop(grain))
        self._picker.settle(grain)
        self._ledger.verify(grain)
        if self._doubled.pop(grain, None) is None:
            return
        for flight in tuple(self._flights.values()):
            if self.flying(flight.span.id) and self._ledger.disk.covers(flight.at, flight.stop):
                flight.lost = True
                if flight.left > self.settings.drain_share * len(flight.span.range):
                    self._close(self._feeds[flight.span.peer], "lost", now)

    def rejected(self, grain: int, now: float) -> None:
        """
        The grain is bad (or no longer believed): its bytes are wanted again, whole from one source.

        Never from one that sent all of it while another has it; see ``swarm.core.ledger``.
        """
        self._now = now
        if self.senders(grain):
            self.tally.wasted += self._ledger.reject(grain)
        else:
            self._ledger.forget(grain)
            self._free(self.grains.start(grain), self.grains.stop(grain))
        self._doubled.pop(grain, None)

    # -- time ------------------------------------------------------------------

    def excuse(self, now: float) -> None:
        """Nobody could be heard, by our own fault: every silence begins anew."""
        self._now = now
        for flight in self._flights.values():
            flight.heard = now

    def next(self, now: float) -> tuple[Span, ...]:
        """Everything that should be asked now: fills each source's two slots, fastest queue first."""
        self._now = now
        spans, self._ready = [span for span in self._ready if span.id in self._flights], []
        if not self._picker.free and not self._ledger.parole:
            return tuple(spans)
        rates = {feed: feed.rate.at(now) for feed in self._feeds.values()}
        room = {feed: feed.slots(now) - len(feed.flights) for feed in rates}
        waiting = [feed for feed in rates if room[feed] > 0]
        while waiting:
            feed = self._shortest(waiting, now)
            span = self._assign(feed, now)
            if span is not None:
                spans.append(span)
                room[feed] -= 1
            if span is None or not room[feed]:
                waiting.remove(feed)
        return tuple(spans)

    def due(self, now: float) -> tuple[Abort | Shorten, ...]:
        """What has to end, because it is late or because its bytes are better asked of another."""
        if self._promised is not None and now > self._promised + self.settings.silence / 2:
            self.excuse(now)  # called late: this node was held up, not they
        self._now, self._promised = now, None
        for feed in tuple(self._feeds.values()):
            if feed.flights and now >= feed.flights[0].heard + self._patience(feed):
                self._silenced(feed, now)
        self._serve_readers(now)
        self._employ(now)
        notices, self._notices = self._notices, []
        return tuple(notices)

    def next_due(self) -> float | None:
        """When :meth:`due` and :meth:`next` must be called at the latest; None: when something happens."""
        if self.complete or not self._feeds:
            return None
        if self._ready or self._notices:
            return self._now
        times = []
        idle = False
        for feed in self._feeds.values():
            if feed.flights:
                head = feed.flights[0]
                times.append(head.heard + self._patience(feed))
                if not head.started and head.rival is None and (hedge := self._hedge_at(head)) > self._now:
                    times.append(hedge)
            elif feed.rests_until > self._now:
                times.append(feed.rests_until)
            else:
                idle = True
        if times and idle and self._flights:
            times.append(self._now + self.settings.tick)
        self._promised = min(times, default=None)
        return self._promised

    # -- asking ----------------------------------------------------------------

    def _shortest(self, feeds: list[Feed], now: float) -> Feed:
        """The source that would have one more grain soonest; of near equals one at random."""
        if len(feeds) == 1:
            return feeds[0]
        usual = self._usual(now)
        seconds = [feed.seconds_for(self.grains.grain, now, usual) or 0.0 for feed in feeds]
        bound = min(seconds) * (1 + self.settings.near)
        return self._random.choice([feed for feed, each in zip(feeds, seconds, strict=True) if each <= bound])

    def _usual(self, now: float) -> float | None:
        """The mean of the rates that are known."""
        known = [rate for feed in self._feeds.values() if (rate := feed.rate.at(now)) is not None]
        return sum(known) / len(known) if known else None

    def _total_rate(self, now: float) -> float:
        """The known rates of all sources that may be asked, together."""
        return sum(feed.rate.at(now) or 0.0 for feed in self._feeds.values() if now >= feed.rests_until)

    def _assign(self, feed: Feed, now: float) -> Span | None:
        for grain in self._ledger.waiting():
            if self._may_redeem(feed, grain):
                span = self._launch(feed, self._ledger.range_of(grain), now)
                self._ledger.parole[grain] = span.id
                return span
        length = self._length(feed, now)
        if not length:
            return None
        chosen = self._urgent(feed, now) or self._picker.spread(feed.have, length)
        if chosen is not None and self._too_slow(feed, chosen, now):
            last = self.grains.start(self.grains.at(chosen.stop - 1))
            chosen = ByteRange(max(last, chosen.start), chosen.stop)
            if self._too_slow(feed, chosen, now):
                return None
        return self._launch(feed, chosen, now) if chosen is not None else None

    def _length(self, feed: Feed, now: float) -> int:
        """Bytes the next span of a source should have; whole grains, 0 for none now."""
        s, grain = self.settings, self.grains.grain
        room = s.in_flight - self.in_flight
        if room < grain:
            return 0 if feed.flights else grain
        rate = feed.rate.at(now)
        if rate is None or feed.snubbed:
            return grain
        total = max(self._total_rate(now), rate)
        seconds = s.reader_seconds if self._picker.windows else s.span_seconds
        seconds *= min(1.0, self.remaining / (s.shrink_seconds * total))
        share = s.in_flight * rate / total / 2
        length = min(rate * seconds, s.largest_span, share, room)
        return max(1, int(length) // grain) * grain

    def _urgent(self, feed: Feed, now: float) -> ByteRange | None:
        """Bytes somebody waits for, unless another source would bring them much sooner."""
        rate = feed.rate.at(now)
        chosen = self._picker.urgent(feed.have, int((rate or 0.0) * self.settings.window_seconds))
        if chosen is None:
            return None
        mine = feed.seconds_for(len(chosen), now)
        best = min(
            (
                seconds
                for other in self._feeds.values()
                if other.slots(now) and other.can_serve(chosen)
                if (seconds := other.seconds_for(len(chosen), now)) is not None
            ),
            default=None,
        )
        if best is None or (mine is not None and mine <= 2 * best + self.settings.first_byte):
            return chosen
        return None

    def _too_slow(self, feed: Feed, chosen: ByteRange, now: float) -> bool:
        """Would the source still be at it when the others could have finished everything?"""
        mine = feed.seconds_for(len(chosen), now)
        if mine is None:
            return False
        together, soonest = 0.0, 0.0
        for other in self._feeds.values():
            rate = other.rate.at(now)
            if other is feed or not rate or other.snubbed or now < other.rests_until:
                continue
            if other.can_serve(chosen):
                together += rate
                alone = (other.outstanding + len(chosen)) / rate
                soonest = min(soonest or alone, alone)
        return together > 0 and mine > max(soonest, self.remaining / together)

    def _launch(self, feed: Feed, wanted: ByteRange, now: float, duplicate: bool = False) -> Span:
        self._ids += 1
        span = Span(self._ids, feed.peer, wanted, duplicate)
        flight = Flight(span, wanted.start, wanted.stop, now, now)
        if not duplicate:
            self._picker.free.remove(wanted.start, wanted.stop)
        self._flights[span.id] = flight
        feed.flights.append(flight)
        feed.outstanding += len(wanted)
        feed.rate.begin(now)
        return span

    # -- letting go ------------------------------------------------------------

    def _drop(self, flight: Flight, now: float) -> None:
        """Take a flight out of the table."""
        feed = self._feeds[flight.span.peer]
        del self._flights[flight.span.id]
        feed.flights.remove(flight)
        feed.outstanding -= flight.left
        if flight.span.duplicate:
            self._charged -= flight.span.range.stop - flight.at
        if (rival := flight.rival) is not None:
            rival.rival = flight.rival = None
        if not feed.flights:
            feed.rate.rest()
        elif not feed.flights[0].started:
            feed.flights[0].asked = feed.flights[0].heard = now

    def _release(self, flight: Flight, now: float) -> None:
        """Take a flight out of the table; what it had yet to bring is wanted again."""
        self._drop(flight, now)
        for grain, span in self._ledger.parole.items():
            if span == flight.span.id:
                self.tally.wasted += self._ledger.restart(grain)
        self._free(flight.at, flight.stop)

    def _free(self, start: int, stop: int) -> None:
        """Bytes nobody is after any more become free, but for those here, on parole or asked of another."""
        back = RangeSet(self._ledger.disk.gaps(start, stop))
        for grain in self._ledger.parole:
            back.remove(self.grains.start(grain), self.grains.stop(grain))
        if back:
            for flight in self._flights.values():
                back.remove(flight.at, flight.stop)
        for run in back:
            self._picker.free.add(run.start, run.stop)

    def _close(self, feed: Feed, reason: str, now: float) -> None:
        """Everything asked of a source is off."""
        spans = tuple(flight.span.id for flight in feed.flights)
        for flight in tuple(feed.flights):
            self._release(flight, now)
        self._notices.append(Abort(feed.peer, spans, reason))

    def _cut(self, flight: Flight, stop: int, now: float) -> None:
        """Shorten a flight; what is queued behind it is off, for its lane ends there."""
        feed = self._feeds[flight.span.peer]
        for later in feed.flights[feed.flights.index(flight) + 1 :]:
            if not later.started:
                self._release(later, now)
                self._notices.append(Shorten(later.span.id, later.span.range.start))
        tail = flight.stop
        feed.outstanding -= tail - stop
        flight.stop = stop
        if not flight.left:
            self._drop(flight, now)
        self._free(stop, tail)
        self._notices.append(Shorten(flight.span.id, stop))

    # -- late ones -------------------------------------------------------------

    def _patience(self, feed: Feed) -> float:
        s = self.settings
        usual = self._first_bytes.at(0.95, s.first_byte)
        return feed.patience(s.silence, s.silence_factor, s.silence_most, usual)

    def _silenced(self, feed: Feed, now: float) -> None:
        self.tally.aborts += 1
        feed.silences += 1
        feed.detail = Fault.SILENT.value
        feed.rests_until = now + min(self.settings.backoff_most, float(feed.silences**2))
        self._close(feed, "silence", now)

    def _has_work(self, feed: Feed) -> bool:
        """Is anything free that the source could bring?"""
        if any(self._may_redeem(feed, grain) for grain in self._ledger.waiting()):
            return True
        return bool(self._picker.free if feed.have is None else self._picker.free & feed.have)

    def _may_redeem(self, feed: Feed, grain: int) -> bool:
        wanted = self._ledger.range_of(grain)
        able = [
            each.peer
            for each in self._feeds.values()
            if each.can_serve(wanted) and max(each.failures, each.silences, each.busy) < self.settings.strikes
        ]
        return feed.can_serve(wanted) and self._ledger.may_send(feed.peer, grain, able)

    def _conditions(self, now: float) -> Conditions:
        return Conditions(
            self.grains, now, self._first_bytes.at(0.5, self.settings.first_byte), self._usual(now)
        )

    def _employ(self, now: float) -> None:
        """Give sources that have nothing to do a part in what others are late with."""
        if not self._flights:
            return
        self._hedge(now)
        idle = [
            feed
            for feed in self._feeds.values()
            if not feed.flights and feed.slots(now) and not feed.snubbed and not self._has_work(feed)
        ]
        for feed in sorted(idle, key=lambda each: -(each.rate.at(now) or 0.0)):
            given = self._conditions(now)
            stolen = steal(feed, self._feeds.values(), given)
            if stolen is not None:
                flight, cut = stolen
                tail = ByteRange(cut, flight.stop)
                self._cut(flight, cut, now)
                self._ready.append(self._launch(feed, tail, now))
                self.tally.steals += 1
            else:
                self._overtake(feed, given, now)

    def _hedge(self, now: float) -> None:
        """
        Ask a second source for a first grain that has not begun to come in the usual time.

        Only where somebody waits for it or nothing else is free: amid a pull it would be waste.
        """
        for feed in tuple(self._feeds.values()):
            if not feed.flights or feed.flights[0].started or now < self._hedge_at(feed.flights[0]):
                continue
            flight = feed.flights[0]
            wanted = ByteRange(flight.at, min(flight.stop, self.grains.stop(self.grains.at(flight.at))))
            if self._picker.free and not self._picker.is_urgent(wanted):
                continue
            able = [
                other
                for other in self._feeds.values()
                if other is not feed and len(other.flights) < other.slots(now) and not other.snubbed
            ]
            if able and self._double(self._shortest(able, now), flight, wanted, now):
                self.tally.hedges += 1

    def _hedge_at(self, flight: Flight) -> float:
        under_way = sum(each.span.duplicate for each in self._flights.values())
        usual = self._first_bytes.at(hedge_quantile(under_way), 0.0)
        return flight.asked + max(usual, self.settings.first_byte)

    def _overtake(self, feed: Feed, given: Conditions, now: float) -> None:
        """Ask an idle source too for the latest span, or instead of who has it."""
        late = latest(feed, self._feeds.values(), given)
        if late is None:
            return
        s, flight = self.settings, late.flight
        wanted = ByteRange(flight.at, flight.stop)
        few = max(s.endgame_grains * self.grains.grain, int(s.endgame_seconds * self._total_rate(now)))
        if self.remaining <= few and self._double(feed, flight, wanted, now):
            self.tally.endgames += 1
        elif late.mine <= s.overtake * late.theirs:
            self.tally.takeovers += 1
            rivals = [flight] if flight.rival is None else [flight, flight.rival]
            for each in rivals:
                self._close(self._feeds[each.span.peer], "slow", now)

    def _double(self, feed: Feed, flight: Flight, wanted: ByteRange, now: float) -> bool:
        """Ask a second source for bytes another was asked for, if rules and budget allow."""
        grain = self.grains.at(wanted.start)
        asked = self._doubled.get(grain, set())
        if (
            flight.rival is not None
            or flight.lost
            or flight.span.duplicate
            or feed.peer in asked
            or grain in self._ledger.parole
            or self._charged + len(wanted) > self.budget
            or not feed.can_serve(wanted)
        ):
            return False
        self._doubled[grain] = asked | {feed.peer}
        self._charged += len(wanted)
        span = self._launch(feed, wanted, now, duplicate=True)
        second = self._flights[span.id]
        flight.rival, second.rival = second, flight
        self._ready.append(span)
        return True

    def _serve_readers(self, now: float) -> None:
        """Where a reader's next bytes are far off, cut other spans short to get at them, once a second."""
        for reader, window in self._picker.windows.items():
            if now - self._preempted.get(reader, now - 1.0) < 1.0:
                continue
            gap = next(self._ledger.disk.gaps(window.start, window.stop), None)
            if gap is not None and self._preempt(gap.start, now):
                self._preempted[reader] = now
                self.tally.preempted += 1

    def _preempt(self, offset: int, now: float) -> bool:
        """Free a slot, or the bytes themselves, if ``offset`` is further off than a reader's patience."""
        patience = self.settings.reader_patience
        if offset not in self._picker.free:
            return any(self._uncover(feed, offset, patience, now) for feed in self._feeds.values())
        able = [
            feed
            for feed in self._feeds.values()
            if feed.slots(now) and feed.can_serve(ByteRange(offset, offset + 1))
        ]
        if not able or any(len(feed.flights) < 2 for feed in able):
            return False
        soonest = min(able, key=lambda feed: feed.outstanding / (feed.rate.at(now) or 1.0))
        queued = soonest.flights[-1]
        if queued.started or (soonest.seconds_for(0, now) or 0.0) < patience:
            return False
        self._cut(queued, queued.at, now)
        return True

    def _uncover(self, feed: Feed, offset: int, patience: float, now: float) -> bool:
        """Cut the span of ``feed`` that would come to ``offset`` too late, at the grain that holds it."""
        before = 0
        rate = feed.rate.at(now)
        edge = self.grains.start(self.grains.at(offset))
        for flight in feed.flights:
            if flight.at < edge < flight.stop and rate is not None:
                if (before + edge - flight.at) / rate < patience or flight.rival is not None:
                    return False
                self._cut(flight, edge, now)
                return True
            before += flight.left
        return False


__all__ = ["Abort", "Dispatch", "DispatchSettings", "FeedProgress", "Shorten", "Span", "Tally"]

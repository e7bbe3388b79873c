"""The rows of one pull, sources and spans, and every step that changes them.

Keeps three things true: each missing byte is free, on parole, or asked of somebody; each byte on disk
has one sender; what is booked for duplicates covers what may yet come twice. What step to take is
decided in ``swarm.core.dispatch`` (asking) and ``swarm.core.stragglers`` (late ones).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from math import inf
from random import Random

from attrs import define, frozen

from swarm.core.feeds import Abort, Feed, Flight, Shorten, Span
from swarm.core.ledger import Ledger
from swarm.core.picker import Picker
from swarm.core.rates import Quantiles
from swarm.model.grains import Grains
from swarm.model.peers import PeerID
from swarm.model.ranges import ByteRange, RangeSet

MIB = 1 << 20


@frozen
class DispatchSettings:
    """Seconds and bytes; the defaults are those of ANCHORS D2 to D5."""

    span_seconds: float = 1.0  # a span is worth this much of its source's rate, more than a busy node naps,
    reader_seconds: float = 0.25  # less while readers wait, so that lanes come free soon,
    span_lags: float = 1.5  # but this many times the way to it and back, or its lane would run dry
    crowd_seconds: float = 0.1  # and this where others pull the blob as well: what is rare changes soon,
    crowd: int = 8  # and there so many sources are asked at once: each has others to serve
    far_share: float = 0.25  # of what is far more than one's own share is asked for once less than this part
    far_seconds: float = 1.0  # of what its source could bring came from all others for so long
    window_seconds: float = 0.25  # and for the very bytes they wait for
    shrink_seconds: float = 8.0  # with less than this left, spans shrink towards one grain
    largest_span: int = 64 * MIB
    in_flight: int = 32 * MIB  # asked and not yet here, all sources together: who seeks waits behind it
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
    trial: float = 4.0  # a source not measured yet is hoped to bring a late grain within this
    reader_patience: float = 0.5  # a reader's bytes this far off justify cutting other spans short,
    # or further off than a new lane needs to bring a first byte: the cut ends the lane there is
    backoff_most: float = 30.0  # rest after the n-th failure in a row: n² seconds, at most this,
    busy_most: float = 8.0  # and after the n-th time that it was busy: the same, but at most about this
    strikes: int = 3  # from the third one on, which counts only while others bring something,
    pause: float = 60.0  # this, doubling,
    pause_most: float = 3600.0  # up to this,
    quiet: float = 3.0  # but while nothing came from anybody for so long, who was not reached rests no longer
    alone: float = 0.03  # so long, at most, nothing is asked but the first grain of a reader that came,
    calm: float = 0.25  # and so long nothing but what readers want
    tick: float = 0.1  # how often idle sources are reconsidered

    def budget(self, grains: Grains) -> int:
        """Bytes that may come twice."""
        return min(self.duplicate_most, max(int(self.duplicate_share * grains.size), grains.grain))


@define
class Tally:
    """
    Counters of one pull, in bytes and occasions.

    ``received`` counts all that spans under way brought: what is on disk, ``duplicated`` and ``wasted``.
    """

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
class Pace:
    """How fast everybody is at one moment. ``usual`` is assumed of a source not measured yet."""

    now: float
    rates: Mapping[Feed, float | None]
    total: float  # of all sources that may be asked
    usual: float | None

    @classmethod
    def of(cls, feeds: Iterable[Feed], now: float) -> Pace:
        """Measure."""
        rates = {feed: feed.rate.at(now) for feed in feeds}
        known = [rate for rate in rates.values() if rate]
        total = sum(rate for feed, rate in rates.items() if rate and now >= feed.rests_until)
        return cls(now, rates, total, sum(known) / len(known) if known else None)

    def guess(self, feed: Feed) -> float | None:
        """The source's rate, or the usual one as far as its silence does not belie it."""
        rate = self.rates[feed]
        return rate or (min(self.usual, feed.rate.ceiling(self.now)) if self.usual else None)

    def seconds(self, feed: Feed, count: int) -> float | None:
        """When all it was asked and ``count`` bytes more would be here; None while it is not measured."""
        rate = self.rates[feed]
        return (feed.outstanding + count) / rate if rate else None


class Table:
    """One pull's rows. Methods take ``now`` where time is kept."""

    def __init__(self, grains: Grains, settings: DispatchSettings, random: Random) -> None:
        self.grains = grains
        self.settings = settings
        self.ledger = Ledger(grains)
        self.picker = Picker(grains, random)
        self.feeds: dict[PeerID, Feed] = {}
        self.flights: dict[int, Flight] = {}
        self.busy: dict[Feed, None] = {}  # asked for something
        self.in_flight = 0  # bytes asked and not yet here
        self.fed = -inf  # when bytes came last, from whomever
        self.charged = 0  # bytes that did, or still may, come twice
        self.doubled: dict[int, frozenset[PeerID]] = {}  # grain: who was asked for it as a second
        self.taken: Counter[int] = Counter()  # grain: how often it was taken from one and given to another
        self.first_bytes = Quantiles(100)  # seconds from asking, all sources
        self.ready: list[Span] = []  # launched, to be told
        self.notices: list[Abort | Shorten] = []  # done, to be told
        self.hasty = False  # did a source that is not measured yet begin to answer?
        self.tally = Tally()
        self._ids = 0

    def launch(self, feed: Feed, wanted: ByteRange, now: float, rival: Flight | None = None) -> Span:
        """A span begins; with ``rival``, as the second after the same bytes."""
        self._ids += 1
        span = Span(self._ids, feed.peer, wanted, duplicate=rival is not None)
        flight = Flight(
            span,
            wanted.start,
            wanted.stop,
            now,
            now,
            expected=now + self.lag(feed),
            pipelined=bool(feed.flights),
            cold=feed.cold,
            rival=rival,
        )
        feed.cold = False
        if rival is None:
            self.picker.take(wanted.start, wanted.stop)
        else:
            rival.rival = flight
            self.charged += len(wanted)
        self.flights[span.id] = flight
        feed.flights.append(flight)
        self.busy[feed] = None
        feed.outstanding += len(wanted)
        self.in_flight += len(wanted)
        feed.rate.begin(now)
        return span

    def launch_whole(self, feed: Feed, grain: int, now: float) -> Span:
        """A grain on parole is asked of one source."""
        span = self.launch(feed, self.ledger.range_of(grain), now)
        self.flights[span.id].whole = True
        self.ledger.parole[grain] = span.id
        return span

    def receive(self, flight: Flight, stop: int, now: float) -> tuple[int, ...]:
        """Bytes up to ``stop`` came, and those that lacked are on disk. The grains complete by it."""
        feed, start, upto = self.feeds[flight.span.peer], flight.at, min(stop, flight.stop)
        self.tally.received += max(0, stop - start)
        self.tally.wasted += max(0, stop - upto)
        count = upto - start
        if count <= 0:
            return ()
        if flight.started:
            feed.gaps.add(max(0.0, now - flight.heard))  # a clock may be set back
        else:
            flight.started = True
            self.hasty = self.hasty or feed.rate.at(now) is None
            if not flight.pipelined:
                waited = max(0.0, now - flight.asked)
                self.first_bytes.add(waited)
                feed.answered(flight, waited)
        parts = list(self.ledger.lacking(start, upto, flight.span.id))
        written = sum(end - begin for begin, end in parts)
        if written < count:
            absent = sum(len(gap) for gap in self.ledger.disk.gaps(start, upto))
            self.tally.duplicated += count - absent
            self.tally.wasted += absent - written
        complete = [each for begin, end in parts for each in self.ledger.add(begin, end, feed.peer)]
        feed.rate.add(count, now)
        feed.outstanding -= count
        self.in_flight -= count
        flight.at, flight.heard = upto, now
        self.fed = now
        if not flight.left:
            if (rival := flight.rival) is not None:  # nobody need take over what is being verified
                rival.lost = rival.lost or self.ledger.disk.covers(rival.at, rival.stop)
            self.drop(flight, now)
            feed.delivered()
        return tuple(complete)

    def drop(self, flight: Flight, now: float) -> None:
        """Take a flight out."""
        feed = self.feeds[flight.span.peer]
        del self.flights[flight.span.id]
        feed.flights.remove(flight)
        feed.outstanding -= flight.left
        self.in_flight -= flight.left
        if flight.span.duplicate:
            self.charged -= flight.span.range.stop - flight.at
        if (rival := flight.rival) is not None:
            rival.rival = flight.rival = None
        if not feed.flights:
            del self.busy[feed]
            feed.rate.rest(now)
        elif not feed.flights[0].started:
            feed.flights[0].asked = feed.flights[0].heard = now

    def lag(self, feed: Feed) -> float:
        """Seconds to the first byte of what is asked of a source now, if nothing is before it."""
        usual = feed.lag
        return self.first_bytes.at(0.5, self.settings.first_byte) if usual is None else usual

    @property
    def thronged(self) -> bool:
        """Are as many of a crowd's sources asked as may be at once?"""
        return self.picker.crowded and len(self.busy) >= self.settings.crowd

    def is_quiet(self, now: float) -> bool:
        """Does nothing come from anybody?"""
        return now >= self.fed + self.settings.quiet

    def rouse(self, now: float) -> None:
        """
        While nothing comes from anybody, nobody rests for long: better ask in vain than give up.

        What took all of them away at once, a network or a restart, may have brought any of them back.
        """
        if self.is_quiet(now):
            for feed in self.feeds.values():
                if now >= feed.spared_until:
                    feed.rests_until = min(feed.rests_until, now)

    def wakes(self, feed: Feed) -> float:
        """When a rest ends, if nothing comes until then."""
        return min(feed.rests_until, max(feed.spared_until, self.fed + self.settings.quiet))

    def release(self, flight: Flight, now: float) -> None:
        """Take a flight out; what it had yet to bring is wanted again."""
        self.drop(flight, now)
        for grain, span in self.ledger.parole.items():
            if span == flight.span.id:
                self.tally.wasted += self.ledger.restart(grain)
        self.free(flight.at, flight.stop)

    def free(self, start: int, stop: int) -> None:
        """Bytes become free, but for those on disk, on parole or asked of somebody."""
        back = RangeSet(self.ledger.disk.gaps(start, stop))
        for grain in self.ledger.parole:
            back.remove(self.grains.start(grain), self.grains.stop(grain))
        if back:
            for flight in self.flights.values():
                back.remove(flight.at, flight.stop)
        for run in back:
            self.picker.give(run.start, run.stop)

    def cut(self, flight: Flight, stop: int, now: float) -> None:
        """Shorten a flight; what is queued behind it is off, for its lane ends there."""
        feed = self.feeds[flight.span.peer]
        for later in feed.flights[feed.flights.index(flight) + 1 :]:
            if not later.started:
                self.release(later, now)
                self.notices.append(Shorten(later.span.id, later.span.range.start))
        if stop <= flight.at:
            self.release(flight, now)
        else:
            tail, flight.stop = flight.stop, stop
            feed.outstanding -= tail - stop
            self.in_flight -= tail - stop
            self.free(stop, tail)
        feed.cold = True
        self.notices.append(Shorten(flight.span.id, stop))

    def close(self, feed: Feed, reason: str, now: float) -> None:
        """Everything asked of a source is off."""
        spans = tuple(flight.span.id for flight in feed.flights)
        for flight in tuple(feed.flights):
            self.release(flight, now)
        feed.cold = True
        self.notices.append(Abort(feed.peer, spans, reason))

    # -- what could be asked ---------------------------------------------------

    def has_work(self, feed: Feed) -> bool:
        """Is anything free, or on parole, that the source could bring?"""
        if self.parole_for(feed) is not None:
            return True
        return self.picker.has(feed.peer)

    def parole_for(self, feed: Feed) -> int | None:
        """A grain on parole that waits for a source like this one."""
        if not self.ledger.parole:
            return None
        return next((grain for grain in self.ledger.waiting() if self.may_redeem(feed, grain)), None)

    def may_redeem(self, feed: Feed, grain: int) -> bool:
        """
        May the source be asked for a grain on parole, seeing who else could be?

        One that may be honest waits for others only until they fail to deliver once.
        """
        wanted = self.ledger.range_of(grain)
        patience = 1 if self.ledger.may_be_honest(feed.peer, grain) else self.settings.strikes
        able = [
            each.peer for each in self.feeds.values() if each.can_serve(wanted) and each.misses < patience
        ]
        return feed.can_serve(wanted) and self.ledger.may_send(feed.peer, grain, able)

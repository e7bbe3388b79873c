"""What to do about late sources: four layers (ANCHORS D5), and readers that cannot wait.

(a) Silence ends a lane; only missing bytes are asked again. (b) A first byte that does not come is hedged.
(c) A source with nothing to do steals the tail of the span that would end last. (d) What cannot be
cut any more is asked twice, within a budget, or changes hands. None of it is ever due to a total time.
"""

from __future__ import annotations

from collections.abc import Hashable

from swarm.core.feeds import Feed, Flight
from swarm.core.lateness import Laggards, Late
from swarm.core.table import Pace, Table
from swarm.errors import Fault
from swarm.model.ranges import ByteRange

_AGAIN = 1.0  # seconds between two cuts for the same reader


class Stragglers:
    """The layers of one pull."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self._grains = table.grains
        self._settings = table.settings
        self._budget = table.settings.budget(table.grains)
        self._cut_for: dict[Hashable, float] = {}  # by reader: when

    def act(self, now: float) -> None:
        """Do what is due; notices and new spans are left in the table."""
        for feed in tuple(self._table.busy):
            if feed.flights and self._is_silent(feed, now):
                self._silenced(feed, now)
        if self._table.picker.windows:
            self._serve_readers(now)
        if self._table.flights:
            self._hedge(now)
            if not (self._table.picker.crowded and self._table.picker.free):
                self._employ(now)

    def next_due(self, feed: Feed, now: float) -> float:
        """When something may become due of the source's first span. Never in the past twice."""
        head = feed.flights[0]
        due = head.heard + self._settings.silence
        if due <= now:
            due = head.heard + self._patience(feed)
        if not head.started and head.rival is None:
            hedge = self._hedge_at(head)
            if now < hedge < due:
                return hedge
        return due

    def forget(self, reader: Hashable) -> None:
        """A reader is gone."""
        self._cut_for.pop(reader, None)

    # -- (a) silence -----------------------------------------------------------

    def _patience(self, feed: Feed) -> float:
        s = self._settings
        usual = self._table.first_bytes.at(0.95, s.first_byte)
        return feed.patience(s.silence, s.silence_factor, s.silence_most, usual)

    def _is_silent(self, feed: Feed, now: float) -> bool:
        heard = feed.flights[0].heard
        return now >= heard + self._settings.silence and now >= heard + self._patience(feed)

    def _silenced(self, feed: Feed, now: float) -> None:
        self._table.tally.aborts += 1
        feed.silences += 1
        feed.detail = Fault.SILENT.value
        s = self._settings
        feed.rest(now, min(s.backoff_most, float(feed.silences**2)), quiet=s.quiet)
        self._table.close(feed, "silence", now)

    # -- (b) hedges ------------------------------------------------------------

    def _hedge(self, now: float) -> None:
        """
        Ask a second source for a first grain that has not begun to come in the usual time.

        Only where somebody waits for it or nothing else is free: amid a pull it would be waste.
        """
        table = self._table
        for feed in tuple(table.busy):
            if not feed.flights or feed.flights[0].started:
                continue
            flight = feed.flights[0]
            wanted = ByteRange(flight.at, min(flight.stop, self._grains.stop(self._grains.at(flight.at))))
            if (table.picker.free and not table.picker.is_urgent(wanted)) or now <= self._hedge_at(flight):
                continue
            able = [each for each in table.feeds.values() if each.open_slots(now) > 0 and not each.snubbed]
            able.sort(key=lambda each: each.outstanding / (each.rate.at(now) or 1.0))
            if any(self._double(each, flight, wanted, now) for each in able if each is not feed):
                table.tally.hedges += 1

    def _hedge_at(self, flight: Flight) -> float:
        """After p80 of the time to first byte; with one hedge under way p85, with more p90."""
        least = self._settings.first_byte
        under_way = sum(each.span.duplicate for each in self._table.flights.values())
        usual = self._table.first_bytes.at((0.80, 0.85, 0.90)[min(under_way, 2)], least)
        return max(flight.expected, flight.asked + max(usual, least))

    # -- (c) and (d): something to do for idle sources -------------------------

    def _employ(self, now: float) -> None:
        table = self._table
        idle = [
            feed
            for feed in table.feeds.values()
            if not feed.flights and feed.slots(now) and not feed.snubbed and not table.has_work(feed)
        ]
        if not idle:
            return
        pace = Pace.of(table.feeds.values(), now)
        laggards: Laggards | None = None
        for feed in sorted(idle, key=lambda each: -(pace.rates[each] or 0.0)):
            have = feed.have
            if have is not None and not any(each.stop - 1 in have for each in table.flights.values()):
                continue  # as most partial sources of a large swarm
            laggards = laggards or Laggards(self._grains, pace, self._settings.trial)
            lag = table.lag(feed)
            stolen = laggards.steal(feed, lag)
            if stolen is None:
                late = laggards.latest(feed, lag)
                if late is not None and self._overtake(feed, late, pace):
                    laggards = None
                continue
            laggards = None
            flight, cut = stolen
            tail = ByteRange(cut, flight.stop)
            table.cut(flight, cut, now)
            table.ready.append(table.launch(feed, tail, now))
            table.tally.steals += 1

    def _overtake(self, feed: Feed, late: Late, pace: Pace) -> bool:
        """
        Ask an idle source too for the latest span, or instead of who has it; False if it is left as it is.

        What changed hands once does so again only for a gain twice as great, and so on: each change
        costs a new lane, and sources far away would do nothing but take from each other.
        """
        s, table, flight = self._settings, self._table, late.flight
        few = max(s.endgame_grains * self._grains.grain, int(s.endgame_seconds * pace.total))
        gap = next(table.ledger.disk.gaps(flight.at, flight.stop), None)
        if gap is None:
            return False  # it was cut down to what a rival had brought
        wanted, grain = ByteRange(gap.start, flight.stop), self._grains.at(flight.at)
        honest = table.ledger.may_be_honest(feed.peer, grain)
        if flight.whole and not honest and not table.may_redeem(feed, grain):
            return False
        if table.ledger.missing <= few and self._double(feed, flight, wanted, pace.now):
            table.tally.endgames += 1
            return True
        if late.mine > s.overtake * late.theirs / 2 ** table.taken[grain]:
            return False
        table.tally.takeovers += 1
        table.taken[grain] += 1
        for each in [flight] if flight.rival is None else [flight, flight.rival]:
            table.close(table.feeds[each.span.peer], "slow", pace.now)
        if flight.whole:
            table.ready.append(table.launch_whole(feed, grain, pace.now))
        else:
            table.ready.append(table.launch(feed, wanted, pace.now))
        return True

    def _double(self, feed: Feed, flight: Flight, wanted: ByteRange, now: float) -> bool:
        """Ask a second source for bytes another was asked for, if rules and budget allow."""
        table, grain = self._table, self._grains.at(wanted.start)
        asked = table.doubled.get(grain, frozenset())
        if (
            flight.rival is not None
            or flight.lost
            or grain in table.ledger.parole
            or flight.span.duplicate
            or feed.peer in asked
            or table.charged + len(wanted) > self._budget
            or not feed.can_serve(wanted)
        ):
            return False
        table.doubled[grain] = asked | {feed.peer}
        table.ready.append(table.launch(feed, wanted, now, rival=flight))
        return True

    # -- readers ---------------------------------------------------------------

    def _serve_readers(self, now: float) -> None:
        """Where a reader's next bytes are far off, cut other spans short to get at them."""
        for reader, window in self._table.picker.windows.items():
            if reader in self._cut_for and now < self._cut_for[reader] + _AGAIN:
                continue
            gap = next(self._table.ledger.disk.gaps(window.start, window.stop), None)
            if gap is not None and self._make_way(gap.start, now):
                self._cut_for[reader] = now
                self._table.tally.preempted += 1

    def _make_way(self, offset: int, now: float) -> bool:
        """Free a slot, or the bytes themselves, if ``offset`` is further off than a reader's patience."""
        table = self._table
        pace = Pace.of(table.feeds.values(), now)
        if offset not in table.picker.free:
            return any(self._uncover(feed, offset, pace) for feed in table.feeds.values())
        able = [
            (seconds, feed)
            for feed in table.feeds.values()
            if feed.slots(now) and feed.can_serve(ByteRange(offset, offset + 1))
            if (seconds := pace.seconds(feed, 0)) is not None
        ]
        wait, feed = min(able, key=lambda each: each[0], default=(0.0, None))
        flights = feed.flights if feed is not None and wait >= self._forbearance(feed) else []
        if len(flights) < 2 or flights[-1].started:
            return False
        head, queued = flights[0], flights[-1]
        edge = self._grains.stop(self._grains.at(head.at))
        if head.rival is None and not head.lost and edge < head.stop:
            table.cut(head, edge, now)
        else:
            table.cut(queued, queued.at, now)
        return True

    def _forbearance(self, feed: Feed) -> float:
        """Seconds a reader had better wait for what was asked of a source, than have it cut short."""
        return max(self._settings.reader_patience, feed.cold_lag or 0.0)

    def _uncover(self, feed: Feed, offset: int, pace: Pace) -> bool:
        """Cut the span of ``feed`` that would come to ``offset`` too late, at the grain that holds it."""
        rate, before = pace.rates[feed], 0
        edge = self._grains.start(self._grains.at(offset))
        for flight in feed.flights:
            if rate is not None and flight.at <= edge < flight.stop:
                if flight.rival is not None or (before + edge - flight.at) / rate < self._forbearance(feed):
                    return False
                self._table.cut(flight, edge, pace.now)
                return True
            before += flight.left
        return False

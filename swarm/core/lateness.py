"""Whose span an idle source should take over, and from where: the sums behind stealing and overtaking.

Pure arithmetic over the sources of a pull; ``swarm.core.stragglers`` acts on it.
"""

from __future__ import annotations

from attrs import frozen

from swarm.core.feeds import Feed, Flight
from swarm.core.table import Pace
from swarm.model.grains import Grains
from swarm.model.ranges import ByteRange


@frozen
class Late:
    """A span an idle source would finish sooner: in ``mine`` seconds instead of ``theirs``."""

    flight: Flight
    theirs: float
    mine: float


class Laggards:
    """
    The spans of one moment, those that would end last first; to be made anew once any of them changed.

    All idle sources of a pull look through the same ones, so what does not depend on who looks is
    reckoned once.
    """

    def __init__(self, grains: Grains, pace: Pace, trial: float) -> None:
        """``trial``: seconds that a source not measured yet is hoped to need at most for a grain."""
        self._grains = grains
        self._pace = pace
        self._trial = trial
        busy = [feed for feed in pace.rates if feed.flights]
        self._ends = sorted(filter(None, (_end(feed, pace) for feed in busy)), key=lambda end: -end.eta)
        self._late = self._lates(busy)

    def steal(self, thief: Feed, lag: float) -> tuple[Flight, int] | None:
        """
        Where to cut whose last span, so that its source and an idle ``thief`` finish together.

        The cut lies on a grain's edge past what is arriving already, or at the start of a span
        that is not; all that it frees is within the thief's reach. Of several, the span whose source
        would finish last.

        :param lag: seconds until the thief's first byte.
        """
        speed = self._pace.guess(thief)
        if speed is None:
            return None
        for end in self._ends:
            flight, rate, feed = end.flight, end.rate, end.feed
            first = flight.at
            if flight.started or flight is feed.flights[0]:
                first = _edge(flight.at + int(rate * min(max(lag, feed.lag or 0.0), 1.0)) + 1, self._grains)
            cut = _cut(flight, first, (end.eta - lag) / (1 / rate + 1 / speed), self._grains)
            if cut is None or lag + (flight.stop - cut) / speed >= end.eta:
                continue
            if thief.can_serve(ByteRange(cut, flight.stop)):
                return flight, cut
        return None

    def latest(self, thief: Feed, lag: float) -> Late | None:
        """
        The latest span that cannot be cut, being down to one grain, that an idle ``thief`` has sooner.

        A silent source is taken to need at least as long again as it has been silent, not counting the
        usual way to it and back: who sits at the end of a long wire is not late for that.
        """
        for theirs, flight in self._late:
            mine = lag + _hoped(thief, flight.left, self._pace, self._trial)
            if mine < theirs and thief.can_serve(ByteRange(flight.at, flight.stop)):
                return Late(flight, theirs, mine)
        return None

    def _lates(self, busy: list[Feed]) -> list[tuple[float, Flight]]:
        pace, late = self._pace, dict[Flight, float]()
        for feed in busy:
            left, head = 0, feed.flights[0]
            for flight in feed.flights:
                left += flight.left
                if not flight.lost:  # lost ones are in its way: they are drained first
                    hope = head.awaited(pace.now) + max(
                        _hoped(feed, left, pace, self._trial), left / (_now(feed, pace) or float("inf"))
                    )
                    late[flight] = max(hope, head.silence(pace.now))
                    break
        at = self._grains.at
        one_grain = [
            (theirs if flight.rival is None else min(theirs, late.get(flight.rival, theirs)), flight)
            for flight, theirs in late.items()
            if at(flight.at) == at(flight.stop - 1)
        ]
        return sorted(one_grain, key=lambda each: -each[0])


@frozen
class _End:
    """The last span of a source, which can be cut, and when its source would be done with all."""

    eta: float
    feed: Feed
    flight: Flight
    rate: float


def _end(feed: Feed, pace: Pace) -> _End | None:
    flight, rate = feed.flights[-1], pace.guess(feed)
    if flight.rival is not None or flight.whole or flight.lost or rate is None:
        return None
    head = feed.flights[0]
    rate = min(rate, _now(feed, pace) or rate)
    eta = max(head.awaited(pace.now) + feed.outstanding / rate, head.silence(pace.now))
    return _End(eta, feed, flight, rate)


def _cut(flight: Flight, first: int, share: float, grains: Grains) -> int | None:
    """The edge, at ``first`` or after, that moves about ``share`` bytes, but at least a grain."""
    if first >= flight.stop:
        return None
    cut = _edge(flight.stop - max(0, int(share)), grains)
    if cut >= flight.stop:
        cut = _edge(flight.stop - grains.grain, grains)
    return max(first, cut)


def _edge(offset: int, grains: Grains) -> int:
    """The first grain's edge at or after an offset."""
    return -(-offset // grains.grain) * grains.grain


def _now(feed: Feed, pace: Pace) -> float | None:
    """
    The rate of a measured source over its last grain; None if not measured.

    The mean over ten says for long that a source is fast that has begun to crawl.
    """
    return feed.rate.lately(pace.now) if pace.rates[feed] is not None else None


def _hoped(feed: Feed, count: int, pace: Pace, trial: float) -> float:
    """
    Seconds a source needs for ``count`` bytes.

    One not measured yet is given a trial, unless its silence belies that: the usual rate may be
    that of a single source that crawls.
    """
    rate = pace.rates[feed]
    if rate is not None:
        return count / rate
    hope = min(count / pace.usual, trial) if pace.usual is not None else trial
    return max(hope, count / feed.rate.ceiling(pace.now))

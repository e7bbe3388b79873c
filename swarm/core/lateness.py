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


def steal(thief: Feed, grains: Grains, pace: Pace, lag: float) -> tuple[Flight, int] | None:
    """
    Where to cut whose last span, so that its source and an idle ``thief`` finish together.

    The cut lies on a grain's edge past what is arriving already, or at the start of a span
    that is not; all that it frees is within the thief's reach. Of several, the span whose source
    would finish last.

    :param lag: seconds until the thief's first byte.
    """
    speed = pace.guess(thief)
    best: tuple[float, Flight, int] | None = None
    for feed in pace.rates:
        if feed is thief or not feed.flights or speed is None:
            continue
        flight, rate = feed.flights[-1], pace.guess(feed)
        if flight.rival is not None or flight.whole or flight.lost or rate is None:
            continue
        head = feed.flights[0]
        rate = min(rate, _now(feed, pace) or rate)
        eta = max(head.awaited(pace.now) + feed.outstanding / rate, head.silence(pace.now))
        if best is not None and eta <= best[0]:
            continue
        first = flight.at
        if flight.started or flight is feed.flights[0]:
            first = _edge(flight.at + int(rate * min(max(lag, feed.lag or 0.0), 1.0)) + 1, grains)
        cut = _cut(flight, first, (eta - lag) / (1 / rate + 1 / speed), grains)
        if cut is None or lag + (flight.stop - cut) / speed >= eta:
            continue
        if thief.can_serve(ByteRange(cut, flight.stop)):
            best = eta, flight, cut
    return (best[1], best[2]) if best is not None else None


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


def latest(thief: Feed, grains: Grains, pace: Pace, lag: float, trial: float) -> Late | None:
    """
    The latest span that cannot be cut, being down to one grain, that an idle ``thief`` would finish sooner.

    A silent source is taken to need at least as long again as it has been silent, not counting the
    usual way to it and back: who sits at the end of a long wire is not late for that.

    :param trial: seconds that a source not measured yet is hoped to need at most.
    """
    late: dict[Flight, float] = {}
    for feed in pace.rates:
        if feed is thief:
            continue
        left = 0
        for flight in feed.flights:
            left += flight.left
            if not flight.lost:  # lost ones are in its way: they are drained first
                head = feed.flights[0]
                hope = head.awaited(pace.now) + max(
                    _hoped(feed, left, pace, trial), left / (_now(feed, pace) or float("inf"))
                )
                late[flight] = max(hope, head.silence(pace.now))
                break
    best: Late | None = None
    for flight, theirs in late.items():
        if flight.rival is not None:
            theirs = min(theirs, late.get(flight.rival, theirs))
        if best is not None and theirs <= best.theirs:
            continue
        mine = lag + _hoped(thief, flight.left, pace, trial)
        one_grain = grains.at(flight.at) == grains.at(flight.stop - 1)
        if mine < theirs and one_grain and thief.can_serve(ByteRange(flight.at, flight.stop)):
            best = Late(flight, theirs, mine)
    return best


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

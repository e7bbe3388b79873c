"""What to do about sources that are late, while others have nothing to do (ANCHORS D5, layers b to d).

Chooses a victim and a cut; carries nothing out. In order of cost: stealing moves whole grains and costs
a new connection at most; a takeover ends a span that crawls and costs its connection; a duplicate
costs bytes, out of a budget. Silence (layer a) needs no choice and lies in ``swarm.core.dispatch``.
"""

from __future__ import annotations

from collections.abc import Iterable

from attrs import frozen

from swarm.core.feeds import Feed, Flight
from swarm.model.grains import Grains
from swarm.model.ranges import ByteRange


@frozen
class Conditions:
    """What a choice is made under. ``usual`` is the rate assumed of a source not measured yet."""

    grains: Grains
    now: float
    lag: float  # seconds to a first byte
    usual: float | None


@frozen
class Late:
    """A span an idle source would finish sooner: in ``mine`` seconds instead of ``theirs``."""

    flight: Flight
    theirs: float
    mine: float


def steal(thief: Feed, feeds: Iterable[Feed], given: Conditions) -> tuple[Flight, int] | None:
    """
    Where to cut whose last span, so that its source and an idle ``thief`` finish together.

    The cut lies on a grain's edge past what is arriving already, or at the start of a span
    that is not; all that it frees is within the thief's reach.
    """
    speed = thief.rate.at(given.now) or given.usual
    best: tuple[float, Flight, int] | None = None
    for feed in feeds:
        if feed is thief or not feed.flights or speed is None:
            continue
        flight, rate = feed.flights[-1], feed.rate.at(given.now) or given.usual
        if flight.rival is not None or flight.lost or rate is None:
            continue
        eta = max(feed.outstanding / rate, given.now - feed.flights[0].heard)
        if best is not None and eta <= best[0]:
            continue
        arriving = flight.started or flight is feed.flights[0]
        first = _edge(flight.at + int(rate * min(given.lag, 1.0)) + 1, given) if arriving else flight.at
        cut = _cut(flight, first, eta, rate, speed, given)
        if cut is not None and thief.can_serve(ByteRange(cut, flight.stop)):
            best = eta, flight, cut
    return (best[1], best[2]) if best is not None else None


def _cut(flight: Flight, first: int, eta: float, rate: float, speed: float, given: Conditions) -> int | None:
    """The edge, at ``first`` or after, that lets both finish together; None if moving a tail helps nobody."""
    if first >= flight.stop:
        return None
    share = max(0, int((eta - given.lag) / (1 / rate + 1 / speed)))
    cut = max(first, _edge(flight.stop - share, given))
    if cut >= flight.stop:  # less than a grain would balance them: one may still help
        cut = max(first, _edge(flight.stop - given.grains.grain, given))
    return cut if given.lag + (flight.stop - cut) / speed < eta else None


def _edge(offset: int, given: Conditions) -> int:
    """The first grain's edge at or after an offset."""
    grain = given.grains.grain
    return -(-offset // grain) * grain


def latest(thief: Feed, feeds: Iterable[Feed], given: Conditions) -> Late | None:
    """
    The latest span that cannot be cut, being down to one grain, that an idle ``thief`` would finish sooner.

    A silent source is taken to need at least as long again as it has been silent.
    """
    speed = thief.rate.at(given.now) or given.usual
    late: dict[Flight, float] = {}
    for feed in feeds:
        rate = feed.rate.at(given.now) or given.usual
        if feed is not thief and feed.flights and rate is not None:
            flight = feed.flights[0]
            late[flight] = max(flight.left / rate, given.now - flight.heard)
    best: Late | None = None
    for flight, theirs in late.items():
        if flight.rival is not None:
            theirs = min(theirs, late.get(flight.rival, theirs))
        if speed is None or flight.lost or (best is not None and theirs <= best.theirs):
            continue
        mine = given.lag + flight.left / speed
        one_grain = given.grains.at(flight.at) == given.grains.at(flight.stop - 1)
        if mine < theirs and one_grain and thief.can_serve(ByteRange(flight.at, flight.stop)):
            best = Late(flight, theirs, mine)
    return best


def hedge_quantile(under_way: int) -> float:
    """The more hedges are under way, the more patience: p80, p85, then p90 of the time to first byte."""
    return (0.80, 0.85, 0.90)[min(under_way, 2)]

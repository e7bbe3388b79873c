"""Which peers to pull a blob from: how reliable each has been, and who was just asked in vain.

One table a node, gone when it stops. Ranks and groups the answers to HEAD; it does not ask, nor does
it convict: a source that lies is out by ``swarm.core.trust``, however reliable it was.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from random import Random

from attrs import define, frozen

from swarm.model.digest import Digest
from swarm.model.holdings import Holding
from swarm.model.peers import PeerID

_NEAR = 0.01  # seconds there and back: nobody is far who is no farther than this, or twice the nearest
_LENGTHENS = 1.05  # with each answer a way that was short before may be a little longer: routes change


@frozen
class SourceSettings:
    """Seconds and counts; the defaults are those of ANCHORS D1 and D6."""

    most_active: int = 10  # sources of one blob asked at the same time,
    most_widened: int = 80  # or up to this many, while they are slow and more of them bring more
    most_crowd: int = 40  # or this many where others pull the blob as well: few of those have what is wanted
    negative: float = 30.0  # a peer without the blob is not asked for it again before
    half_life: float = 3600.0  # what happened so long ago counts half
    near: float = 0.1  # reliabilities that differ by less are equal: order at random
    most_remembered: int = 4096  # peers, and (peer, blob) pairs


@frozen
class Attempt:
    """
    Sources that agree on the blob's size: one pull's. ``active`` are asked, best first.

    ``spare`` take the place of active ones that fail or leave.
    """

    size: int
    active: tuple[Holding, ...]
    spare: tuple[Holding, ...] = ()


@define
class _Record:
    good: float = 0.0
    bad: float = 0.0
    since: float = 0.0


def far_away(trips: Mapping[PeerID, float]) -> frozenset[PeerID]:
    """Who is in another place than the nearest of these, by the seconds there and back to each."""
    near = max(_NEAR, 2 * min(trips.values(), default=0.0))
    return frozenset(peer for peer, seconds in trips.items() if seconds > near)


class Sources:
    """What this node remembers of its peers as sources."""

    def __init__(self, settings: SourceSettings, random: Random) -> None:
        self._settings = settings
        self._random = random
        self._records: dict[PeerID, _Record] = {}  # least recently changed first
        self._trips: dict[PeerID, float] = {}  # least lately heard first
        self._without: dict[tuple[PeerID, Digest], float] = {}  # until when; soonest first

    def worked(self, peer: PeerID, now: float) -> None:
        """The peer delivered a span."""
        self._record(peer, now).good += 1

    def broke(self, peer: PeerID, now: float) -> None:
        """The peer failed to."""
        self._record(peer, now).bad += 1

    def reliability(self, peer: PeerID, now: float) -> float:
        """(good + 1) / (good + bad + 2), fading to 1/2 as it ages; strictly between 0 and 1."""
        record = self._records.get(peer)
        if record is None:
            return 0.5
        fade = self._fade(record, now)
        return (record.good * fade + 1) / ((record.good + record.bad) * fade + 2)

    def lacks(self, peer: PeerID, digest: Digest, now: float) -> None:
        """The peer answered 404."""
        self._without.pop((peer, digest), None)
        self._without[peer, digest] = now + self._settings.negative
        while len(self._without) > 1:
            oldest = next(iter(self._without))
            if self._without[oldest] > now and len(self._without) <= self._settings.most_remembered:
                return
            del self._without[oldest]

    def may_have(self, peer: PeerID, digest: Digest, now: float) -> bool:
        """Is it worth asking the peer for the blob? Not for a while after it lacked it."""
        return now >= self._without.get((peer, digest), now)

    def heard(self, peer: PeerID, seconds: float) -> None:
        """The peer answered a small question after so long: the shortest is the way there and back."""
        before = self._trips.pop(peer, seconds)
        self._trips[peer] = min(seconds, before * _LENGTHENS)
        if len(self._trips) > self._settings.most_remembered:
            del self._trips[next(iter(self._trips))]

    def trips(self, peers: Iterable[PeerID]) -> dict[PeerID, float]:
        """Seconds there and back to each of these that was heard."""
        return {peer: self._trips[peer] for peer in peers if peer in self._trips}

    def gained(self, peer: PeerID, digest: Digest) -> None:
        """The peer has it now, by its own word or because it was put there."""
        self._without.pop((peer, digest), None)

    def attempts(self, holdings: Iterable[Holding], now: float) -> tuple[Attempt, ...]:
        """
        Group what peers claim by size: the size most peers agree on first, the others to try after it.

        Of sizes with equally many, the one with more complete holders, then the more reliable. In
        a group complete holders come before partial ones, of those the near, then the reliable before
        the others.
        """
        groups: dict[int, list[Holding]] = {}
        for holding in holdings:
            groups.setdefault(holding.size, []).append(holding)

        def weight(size: int) -> tuple[int, int, float]:
            group = groups[size]
            return (
                len(group),
                sum(holding.complete for holding in group),
                sum(self.reliability(holding.peer.id, now) for holding in group),
            )

        return tuple(
            self._attempt(size, groups[size], now) for size in sorted(groups, key=weight, reverse=True)
        )

    def _attempt(self, size: int, group: list[Holding], now: float) -> Attempt:
        step = self._settings.near
        far = far_away(self.trips(holding.peer.id for holding in group))
        ranked = [
            (
                not holding.complete,
                not holding.complete and holding.peer.id in far,
                -int(self.reliability(holding.peer.id, now) / step),
                self._random.random(),
                holding,
            )
            for holding in group
        ]
        ranked.sort(key=lambda each: each[:4])
        order = tuple(each[4] for each in ranked)
        return Attempt(size, order[: self._settings.most_active], order[self._settings.most_active :])

    def _record(self, peer: PeerID, now: float) -> _Record:
        record = self._records.pop(peer, None) or _Record(since=now)
        fade = self._fade(record, now)
        record.good, record.bad, record.since = record.good * fade, record.bad * fade, now
        self._records[peer] = record
        if len(self._records) > self._settings.most_remembered:
            del self._records[next(iter(self._records))]
        return record

    def _fade(self, record: _Record, now: float) -> float:
        return float(0.5 ** (max(0.0, now - record.since) / self._settings.half_life))


__all__ = ["Attempt", "SourceSettings", "Sources", "far_away"]

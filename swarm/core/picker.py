"""Which missing bytes to ask for next: a choice among bytes, never among sources.

Keeps the *free* bytes: missing, and asked of nobody. In order: grains that trust prefers, readers'
windows, then bytes spread so that concurrent pullers of one blob soon have something to offer each
other: among partial holders a few at random, then at random among the rarest; else the largest gap, filled
from its end (BEP 19). Pullers that know the same must not choose the same, or a seed sends
it to each of them.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from random import Random

from attrs import frozen

from swarm.core.rarity import Rarity, one_of
from swarm.core.shares import Share
from swarm.model.grains import Grains
from swarm.model.peers import PeerID
from swarm.model.ranges import ByteRange, RangeSet

_RANDOM_FIRST = 4  # grains a puller takes at random before it looks at rarity


@frozen
class _Offer:
    """What a partial source has, and the grains it has any byte of."""

    have: RangeSet
    bits: int
    whole: bool  # has it all of each of those?

    @classmethod
    def of(cls, have: RangeSet, grains: Grains) -> _Offer:
        return cls(have, have.cells(grains.grain), have.is_even(grains.grain, grains.size))


class Picker:
    """
    The free bytes of one pull and the order in which they are wanted.

    :ivar free: to be read; changed by :meth:`take` and :meth:`give` alone.
    :ivar contested: do lists or sizes disagree? Then the last grain, which proves most, goes first anyway.
    """

    def __init__(self, grains: Grains, random: Random) -> None:
        self.free = RangeSet()
        self.contested = False
        self.windows: dict[Hashable, ByteRange] = {}  # by reader: what it waits for
        self._grains = grains
        self._random = random
        self._open = 0  # grains with a free byte
        self._picks = 0
        self._preferred: dict[int, None] = {}
        self._offers: dict[PeerID, _Offer] = {}  # of partial sources
        self._share = Share()
        self._near = 0  # grains that sources near me have
        self._given: dict[PeerID, int] = {}
        self._rarity = Rarity()
        self.give(0, grains.size)

    # -- what is free -----------------------------------------------------------

    def give(self, start: int, stop: int) -> None:
        """These bytes are free."""
        if start < stop:
            self.free.add(start, stop)
            self._open |= (2 << self._grains.at(stop - 1)) - (1 << self._grains.at(start))

    def take(self, start: int, stop: int) -> None:
        """These are not: asked of somebody, or here."""
        if start >= stop:
            return
        self.free.remove(start, stop)
        first, last = self._grains.at(start), self._grains.at(stop - 1)
        self._open &= ~((2 << last) - (1 << first))
        for grain in (first, last):
            if any(self.free.overlap(self._grains.start(grain), self._grains.stop(grain))):
                self._open |= 1 << grain

    # -- what is wanted first --------------------------------------------------

    def prefer(self, grain: int) -> None:
        """Before everything else; only the last, which proves most, after what readers stand at."""
        self._preferred[grain] = None

    def settle(self, grain: int) -> None:
        """No longer preferred."""
        self._preferred.pop(grain, None)

    def want(self, reader: Hashable, window: ByteRange) -> None:
        """A reader waits for these bytes, the first the most. Widened to whole grains."""
        first, last = self._grains.at(window.start), self._grains.at(window.stop - 1)
        self.windows[reader] = ByteRange(self._grains.start(first), self._grains.stop(last))

    def unwant(self, reader: Hashable) -> None:
        """The reader is gone."""
        self.windows.pop(reader, None)

    def is_urgent(self, wanted: ByteRange) -> bool:
        """Does somebody wait for any of these bytes?"""
        return any(w.start < wanted.stop and wanted.start < w.stop for w in self.windows.values()) or any(
            grain in self._preferred for grain in self._grains.covering(wanted)
        )

    # -- who has what ----------------------------------------------------------

    @property
    def crowded(self) -> bool:
        """Are there sources that have only a part? Then others pull this blob right now."""
        return bool(self._offers)

    def source(self, peer: PeerID, have: RangeSet | None) -> None:
        """A source came, or has other bytes than before."""
        before = self._offers.get(peer)
        if have is None or before is None or before.have != have:
            self._offer(peer, before, _Offer.of(have, self._grains) if have is not None else None)

    def gave(self, peer: PeerID, given: RangeSet) -> None:
        """What a source sent to others: of each of these grains there is a holder more, whoever that is."""
        old, bits = self._given.get(peer, 0), given.cells(self._grains.grain)
        self._rarity.add(bits & ~old)
        self._rarity.remove(old & ~bits)
        self._given[peer] = bits

    def drop(self, peer: PeerID) -> None:
        """A source left."""
        self._offer(peer, self._offers.get(peer), None)
        self._rarity.remove(self._given.pop(peer, 0))

    def _offer(self, peer: PeerID, before: _Offer | None, now: _Offer | None) -> None:
        old, new = before.bits if before is not None else 0, now.bits if now is not None else 0
        self._rarity.add(new & ~old)
        self._rarity.remove(old & ~new)
        if now is None:
            self._offers.pop(peer, None)
        else:
            self._offers[peer] = now
            self._near |= 0 if peer in self._share.far else new

    def share(self, share: Share) -> None:
        """Which grains are mine to bring, and who is far away."""
        self._share, self._near = share, 0
        for peer, offer in self._offers.items():
            self._near |= 0 if peer in share.far else offer.bits

    def has(self, peer: PeerID) -> bool:
        """Is anything free that the source has?"""
        offer = self._offers.get(peer)
        if offer is None:
            return bool(self._open)
        return bool(self._open & offer.bits) and (offer.whole or bool(self.free & offer.have))

    # -- the choice ------------------------------------------------------------

    def urgent(self, have: RangeSet | None, length: int, *, firsts: bool = False) -> ByteRange | None:
        """
        The first free bytes somebody waits for and ``have`` offers: about ``length``, to an edge.

        :param firsts: only grains that settle disputes and those readers stand at.
        """
        for start, stop in self._wishes(firsts):
            run = self._first(start, stop, have)
            if run is not None:
                edge = self._ceil(max(run.start + 1, run.start + length - self._grains.grain + 1))
                return ByteRange(run.start, min(run.stop, edge))
        return None

    def _wishes(self, firsts: bool) -> Iterator[tuple[int, int]]:
        """
        What is waited for, the most urgent first.

        Grains that settle disputes; the grain each reader stands at; the last grain, which trust
        grows from; then what the readers come to.
        """
        grains = self._grains
        for grain in self._preferred:
            if grain != grains.last:
                yield grains.start(grain), grains.stop(grain)
        for window in self.windows.values():
            yield window.start, min(window.stop, grains.stop(grains.at(window.start)))
        if firsts:
            return
        if grains.last in self._preferred and (self.contested or not self.crowded):
            yield grains.start(grains.last), grains.size
        for window in self.windows.values():
            yield window.start, window.stop

    def spread(self, peer: PeerID, length: int, *, eager: bool = True) -> ByteRange | None:
        """
        Up to ``length`` free bytes that a source offers, chosen for the good of the swarm.

        :param eager: of a source far away, more than what is ours to bring here.
        """
        if not self._offers:
            chosen = self._alone(length)
        else:
            offer = self._offers.get(peer)
            able = self._open if offer is None else self._open & offer.bits
            if peer in self._share.far and not eager:
                able &= self._share.ours & ~self._near
            chosen = self._among(self._fresh(able) if offer is None else able, offer, length)
        self._picks += chosen is not None
        return chosen

    def _fresh(self, able: int) -> int:
        """Of what who has all could be asked for: what it gave to nobody yet, and of that my share."""
        new = able
        for each in self._given.values():
            new &= ~each
        return new & self._share.mine or new or able

    def _alone(self, length: int) -> ByteRange | None:
        """The end of the largest gap, where everybody has all; the first time anywhere."""
        if not self._picks and self._open:
            return self._from(one_of(self._open, self._random), None, self._grains.grain)
        run = self.free.longest()
        return self._tail(run, length) if run is not None else None

    def _among(self, able: int, offer: _Offer | None, length: int) -> ByteRange | None:
        """A few at random, then one of the rarest of ``able``."""
        first = self._picks < _RANDOM_FIRST
        while able:
            rarest = able if first else self._rarity.rarest(able)
            grain = one_of(rarest, self._random)
            chosen = self._from(grain, offer, self._grains.grain if first else length, rarest)
            if chosen is not None:
                return chosen
            able &= ~(1 << grain)  # the free part of the grain and the offered one are two
        return None

    def _from(self, grain: int, offer: _Offer | None, length: int, also: int = 0) -> ByteRange | None:
        """The first free run in a grain, and of what comes after it as much as is alike: about ``length``."""
        last, edge = grain, self._grains.start(grain) + length
        while self._grains.stop(last + 1) <= edge and also >> last + 1 & 1:
            last += 1
        return self._first(
            self._grains.start(grain), self._grains.stop(last), None if offer is None else offer.have
        )

    def _first(self, start: int, stop: int, have: RangeSet | None) -> ByteRange | None:
        for run in self.free.overlap(start, stop):
            if have is None:
                return run
            for offered in have.overlap(run.start, run.stop):
                return offered
        return None

    def _tail(self, run: ByteRange, length: int) -> ByteRange:
        """The end of the run: about ``length`` bytes from a grain's edge, leaving no crumb before it."""
        start = min(self._ceil(run.stop - length), self._floor(run.stop - 1))
        if start - run.start < self._grains.grain and run.start % self._grains.grain:
            start = run.start
        return ByteRange(max(run.start, start), run.stop)

    def _floor(self, offset: int) -> int:
        return offset // self._grains.grain * self._grains.grain

    def _ceil(self, offset: int) -> int:
        return -(-offset // self._grains.grain) * self._grains.grain

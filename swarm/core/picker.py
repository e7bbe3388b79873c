"""Which missing bytes to ask for next: a choice among bytes, never among sources.

Keeps the *free* bytes: missing, and asked of nobody. In order: grains that trust prefers, readers'
windows, then bytes spread so that concurrent pullers of one blob soon have something to offer each
other: among partial holders a few at random, then at random among the rarest; else the largest gap, filled
from its end (BEP 19). Pullers that know the same must not choose the same, or a seed sends
it to each of them.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from itertools import pairwise
from random import Random

from swarm.model.grains import Grains
from swarm.model.peers import PeerID
from swarm.model.ranges import ByteRange, RangeSet

_RANDOM_FIRST = 4  # grains a puller takes at random before it looks at rarity


class Picker:
    """The free bytes of one pull and the order in which they are wanted."""

    def __init__(self, grains: Grains, random: Random) -> None:
        self.free = RangeSet()
        self.free.add(0, grains.size)
        self._grains = grains
        self._random = random
        self._picks = 0
        self._preferred: dict[int, None] = {}
        self.windows: dict[Hashable, ByteRange] = {}  # by reader: what it waits for
        self._haves: dict[PeerID, RangeSet | None] = {}
        self._levels: list[tuple[int, RangeSet]] | None = None

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

    def source(self, peer: PeerID, have: RangeSet | None) -> None:
        """A source came, or has other bytes than before."""
        if have is not None or self._haves.get(peer) is not None:
            self._levels = None
        self._haves[peer] = have

    def drop(self, peer: PeerID) -> None:
        """A source left."""
        if self._haves.pop(peer, None) is not None:
            self._levels = None

    # -- the choice ------------------------------------------------------------

    def urgent(self, have: RangeSet | None, length: int) -> ByteRange | None:
        """The first free bytes somebody waits for and ``have`` offers: about ``length``, to an edge."""
        for start, stop in self._wishes():
            run = self._first(start, stop, have)
            if run is not None:
                edge = self._ceil(max(run.start + 1, run.start + length - self._grains.grain + 1))
                return ByteRange(run.start, min(run.stop, edge))
        return None

    def _wishes(self) -> Iterator[tuple[int, int]]:
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
        if grains.last in self._preferred:
            yield grains.start(grains.last), grains.size
        for window in self.windows.values():
            yield window.start, window.stop

    def spread(self, have: RangeSet | None, length: int) -> ByteRange | None:
        """Up to ``length`` free bytes that ``have`` offers, chosen for the good of the swarm."""
        partial = len(self._haves) and any(each is not None for each in self._haves.values())
        offered = self.free if have is None else self.free & have
        if not offered:
            return None
        if self._picks < (_RANDOM_FIRST if partial else 1):
            chosen = self._anywhere(offered, self._grains.grain)
        elif partial:
            levels = (offered & level for _, level in self._by_rarity())
            chosen = self._anywhere(next(filter(None, levels)), length)
        else:
            run = offered.longest()
            assert run is not None, "offered is not empty"
            chosen = self._tail(run, length)
        self._picks += 1
        return chosen

    def _first(self, start: int, stop: int, have: RangeSet | None) -> ByteRange | None:
        for run in self.free.overlap(start, stop):
            if have is None:
                return run
            for offered in have.overlap(run.start, run.stop):
                return offered
        return None

    def _anywhere(self, offered: RangeSet, length: int) -> ByteRange:
        """The free part of a random grain, and what comes after it: about ``length`` bytes, to an edge."""
        offset = self._random.randrange(offered.total)
        runs = iter(offered)
        run = next(runs)
        while offset >= len(run):
            offset -= len(run)
            run = next(runs)
        grain = self._grains.at(run.start + offset)
        start, edge = self._grains.start(grain), self._grains.stop(grain)
        return ByteRange(max(run.start, start), min(run.stop, max(edge, self._floor(start + length))))

    def _by_rarity(self) -> list[tuple[int, RangeSet]]:
        """All bytes of the blob by how many partial sources hold them, fewest first."""
        if self._levels is None:
            steps: dict[int, int] = {0: 0, self._grains.size: 0}
            for have in self._haves.values():
                for run in have or ():
                    steps[run.start] = steps.get(run.start, 0) + 1
                    steps[run.stop] = steps.get(run.stop, 0) - 1
            edges = sorted(steps)
            levels: dict[int, RangeSet] = {}
            holders = 0
            for start, stop in pairwise(edges):
                holders += steps[start]
                levels.setdefault(holders, RangeSet()).add(start, stop)
            self._levels = sorted(levels.items(), key=lambda item: item[0])
        return self._levels

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

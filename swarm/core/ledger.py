"""Which bytes of a running pull are on disk, who sent them, and which grains must come whole from one source.

Keeps account; asks nobody and believes nobody. A grain that was rejected is on *parole*: it is
fetched again from a single source, so that a second failure names one sender. It goes to the source
with the least blame for this grain: first those that never sent any of it, then those that sent part
of a mixed grain (one of them may be honest), last, and not often, one that sent all of a bad one. The
second need not wait for a first that does not deliver, or it could keep the grain from us for good.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from swarm.model.grains import Grains
from swarm.model.peers import PeerID
from swarm.model.ranges import ByteRange, RangeSet

_MIXED, _SOLE, _TOO_MUCH = 1, 4, 16  # blame for a part, for the whole of a bad grain; never asked again


class Ledger:
    """The bytes of one pull."""

    def __init__(self, grains: Grains) -> None:
        self.grains = grains
        self.disk = RangeSet()
        self.missing = grains.size  # bytes neither on disk nor verified
        self.unverified = grains.count
        self.parole: dict[int, int | None] = {}  # grain: the one span that may fill it, once asked
        self._lacks = [grains.length(index) for index in range(grains.count)]
        self._verified = bytearray(grains.count)
        self._senders: dict[int, tuple[PeerID, ...]] = {}
        self._blame: dict[int, Counter[PeerID]] = {}

    def senders(self, grain: int) -> tuple[PeerID, ...]:
        """Whose bytes of the grain are on disk, in order of their first."""
        return self._senders.get(grain, ())

    def lacking(self, start: int, stop: int, span: int) -> Iterator[tuple[int, int]]:
        """The parts of an interval arriving with ``span`` that are to be written."""
        for gap in self.disk.gaps(start, stop):
            if not self.parole:
                yield gap.start, gap.stop
                continue
            for grain in self.grains.covering(gap):
                if self.parole.get(grain, span) == span:
                    yield max(gap.start, self.grains.start(grain)), min(gap.stop, self.grains.stop(grain))

    def add(self, start: int, stop: int, peer: PeerID) -> Iterator[int]:
        """Bytes that lacked were written; the grains that became complete by it."""
        self.disk.add(start, stop)
        self.missing -= stop - start
        for grain in range(self.grains.at(start), self.grains.at(stop - 1) + 1):
            senders = self._senders.get(grain, ())
            if peer not in senders:
                self._senders[grain] = (*senders, peer)
            edge = min(stop, self.grains.stop(grain))
            self._lacks[grain] -= edge - start
            start = edge
            if self._lacks[grain] == 0:
                yield grain

    def arrive(self, grain: int) -> None:
        """The grain's bytes are on disk from an earlier run, sent by nobody we know."""
        self.disk.add(self.grains.start(grain), self.grains.stop(grain))
        self.missing -= self._lacks[grain]
        self._lacks[grain] = 0

    def verify(self, grain: int) -> None:
        """The grain is good, whether its bytes came in this pull or an earlier one."""
        self.arrive(grain)
        self.parole.pop(grain, None)
        self.unverified -= not self._verified[grain]
        self._verified[grain] = 1

    def is_verified(self, grain: int) -> bool:
        """Is the grain good?"""
        return bool(self._verified[grain])

    def reject(self, grain: int) -> int:
        """The grain is bad: blame its senders and want it again, whole. Returns bytes thrown away."""
        senders = self.senders(grain)
        blame = self._blame.setdefault(grain, Counter())
        for peer in senders:
            blame[peer] += _MIXED if len(senders) > 1 else _SOLE
        return self.restart(grain)

    def restart(self, grain: int) -> int:
        """Begin the grain again, whole, from one source yet to be asked. Returns bytes thrown away."""
        lost = self.forget(grain)
        self.parole[grain] = None
        return lost

    def forget(self, grain: int) -> int:
        """The bytes on disk are not the grain's. Returns how many there were."""
        lost = self.grains.length(grain) - self._lacks[grain]
        self.disk.remove(self.grains.start(grain), self.grains.stop(grain))
        self.missing += lost
        self._lacks[grain] += lost
        self._senders.pop(grain, None)
        self.unverified += self._verified[grain]
        self._verified[grain] = 0
        return lost

    def waiting(self) -> Iterator[int]:
        """Grains on parole that are asked of nobody yet."""
        return (grain for grain, span in self.parole.items() if span is None)

    def may_send(self, peer: PeerID, grain: int, others: Iterable[PeerID]) -> bool:
        """May the peer be asked for a grain on parole that ``others`` could send as well?"""
        blame = self._blame.get(grain, Counter())
        mine = blame[peer]
        return mine < _TOO_MUCH and all(mine <= blame[other] for other in others)

    def may_be_honest(self, peer: PeerID, grain: int) -> bool:
        """Did the peer never send the whole of the grain and it was bad?"""
        return self._blame.get(grain, Counter())[peer] < _SOLE

    def range_of(self, grain: int) -> ByteRange:
        """The grain's bytes; not for the one grain of an empty blob."""
        return ByteRange(self.grains.start(grain), self.grains.stop(grain))

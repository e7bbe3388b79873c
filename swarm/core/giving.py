"""What one node gave to whom of one blob, and whether it had rather give something else: super-seeding.

Many who lack all of a blob ask the one who has it, and each grain sent twice before all were sent once is
time lost for everybody (BitTorrent's BEP 16 sends 105 % where others send 150 to 200 %). Here who asks
chooses, so the node tells what it gave to others, and asks somebody who chose just that to look again: once,
as nobody may wait in vain for a grain that was given to somebody who left. Bytes throughout.
"""

from __future__ import annotations

from collections import Counter

from attrs import define, field

from swarm.model.peers import PeerID
from swarm.model.ranges import ByteRange, RangeSet


@define
class Giving:
    """Of one blob of ``size`` bytes, all of which the node has."""

    size: int
    _given: RangeSet = field(init=False, factory=RangeSet)
    _promised: Counter[ByteRange] = field(init=False, factory=Counter)  # asked for by who waits for its turn
    _asked: set[tuple[PeerID, ByteRange]] = field(init=False, factory=set)  # who was deflected, or given it
    _told: RangeSet | None = field(init=False, default=None)

    @property
    def told(self) -> RangeSet:
        """What others were given, or will be soon. Not to be changed."""
        if self._told is None:
            self._told = self._given.copy()
            for each in self._promised:
                self._told.add(each.start, each.stop)
        return self._told

    def deflects(self, peer: PeerID, wanted: ByteRange) -> bool:
        """Is it given to others, something else to nobody, and does the peer ask for it the first time?"""
        told = self.told
        if not told.covers(wanted.start, wanted.stop) or told.covers(0, self.size):
            return False
        if (peer, wanted) in self._asked:
            return False
        self._asked.add((peer, wanted))
        return True

    def promise(self, peer: PeerID, wanted: ByteRange) -> None:
        """A peer waits for it."""
        if not self._given.covers(0, self.size):
            self._asked.add((peer, wanted))
        self._promised[wanted] += 1
        self._told = None

    def settle(self, wanted: ByteRange, *, given: bool) -> None:
        """Somebody waits for it no more: it is given now, or it is not."""
        self._promised[wanted] -= 1
        if not self._promised[wanted]:
            del self._promised[wanted]
        if given:
            self._given.add(wanted.start, wanted.stop)
            if self._given.covers(0, self.size):
                self._asked.clear()
        self._told = None

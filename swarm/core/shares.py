"""Which grains of a blob are whose, among those who pull it at the same time: no word is exchanged about it.

Everybody asks a source that all ask for its own share first, so that the source sends each grain once and
gets the rest from others. Grains and pullers stand on one ring, and a grain belongs to the puller that
follows it (D. Karger and others, *Consistent Hashing and Random Trees*, 1997). Who does not know all
pullers differs from the others in a few grains only, and whose grain it is among all, its is it among
those of its site, too. A share is a preference; nobody relies on it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from attrs import frozen

from swarm.core.sources import far_away
from swarm.model.digest import Digest
from swarm.model.grains import Grains
from swarm.model.peers import PeerID

_RING = 1 << 64
_STEP = 0x9E3779B97F4A7C15  # of the golden ratio: grains next to each other stand far apart, and evenly


@frozen
class Share:
    """
    Sets of grains as bits, and of peers.

    :ivar mine: to ask first of who has all.
    :ivar ours: mine among those near me: to bring here from ``far`` away, where nobody near has them.
    """

    mine: int = 0
    ours: int = 0
    far: frozenset[PeerID] = frozenset()


class Shares:
    """The ring of one blob, as one puller sees it."""

    def __init__(self, me: PeerID, digest: Digest, grains: Grains) -> None:
        self._origin = int.from_bytes(digest.raw[:8], "big")
        self._grains = grains
        self._me = self._place(me)
        self._known: dict[int, int] = {}  # shares by the width of my arc; two at a time are of use

    def among(self, pullers: Iterable[PeerID], trips: Mapping[PeerID, float]) -> Share:
        """
        My share, while these pull the blob too.

        :param trips: seconds there and back, of them and of all sources, as far as known; else they are near.
        """
        pullers = frozenset(pullers)
        far = far_away(trips)
        return Share(self.mine(pullers), self.mine(pullers - far), far)

    def mine(self, others: Iterable[PeerID]) -> int:
        """My grains, as bits, if ``others`` pull the blob too; all of them if nobody does."""
        me = self._me
        width = min(((me - self._place(each)) % _RING or _RING for each in others), default=_RING)
        if width not in self._known:
            if len(self._known) > 1:
                del self._known[next(iter(self._known))]
            grains = range(self._grains.count)
            self._known[width] = sum(1 << each for each in grains if (me - each * _STEP) % _RING < width)
        return self._known[width]

    def _place(self, peer: PeerID) -> int:
        return (int.from_bytes(peer.raw[:8], "big") - self._origin) % _RING

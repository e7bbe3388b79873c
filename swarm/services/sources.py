"""Who takes part in one pull, what each claims to have, and what went wrong with it. A table."""

from __future__ import annotations

from attrs import define, field

from swarm.model.filenames import Filename
from swarm.model.holdings import Holding
from swarm.model.peers import Peer, PeerID
from swarm.model.ranges import RangeSet


@define
class Sources:
    """
    The peers of one pull.

    :ivar peers: all there ever were.
    :ivar haves: those still to be asked, and what they have (None: all of it).
    :ivar names: what they call the blob, in the order told.
    """

    peers: dict[PeerID, Peer] = field(factory=dict)
    haves: dict[PeerID, RangeSet | None] = field(factory=dict)
    names: dict[Filename, None] = field(factory=dict)
    _reasons: dict[PeerID, str] = field(factory=dict)

    def add(self, holding: Holding) -> None:
        """A peer says what it has."""
        self.peers[holding.peer.id] = holding.peer
        self.haves[holding.peer.id] = holding.have
        self.names.update(dict.fromkeys(holding.names))

    def note(self, peer: PeerID, reason: str) -> None:
        """Keep why a peer is of no use now."""
        self._reasons[peer] = reason

    def detail(self, peer: PeerID) -> str:
        """What was noted last."""
        return self._reasons.get(peer, "")

    @property
    def complete(self) -> frozenset[PeerID]:
        """Those that claim all of the blob."""
        return frozenset(peer for peer, have in self.haves.items() if have is None)

    @property
    def reasons(self) -> tuple[str, ...]:
        """For people: what each peer that was of no use did."""
        return tuple(f"{self.peers[peer].name}: {reason}" for peer, reason in self._reasons.items())

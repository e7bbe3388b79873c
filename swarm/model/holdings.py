"""What one peer says it has of one blob. A claim, not a fact: see ``swarm.core.trust``."""

from __future__ import annotations

from attrs import frozen

from swarm.model.peers import Peer
from swarm.model.ranges import RangeSet


@frozen
class Holding:
    """A peer's answer to HEAD: the size it claims, and, for a partial holder, which bytes it can serve."""

    peer: Peer
    size: int
    have: RangeSet | None = None

    @property
    def complete(self) -> bool:
        """Does the peer claim every byte?"""
        return self.have is None

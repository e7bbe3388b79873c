"""What one peer says it has of one blob. A claim, not a fact: see ``swarm.core.trust``."""

from __future__ import annotations

from attrs import frozen

from swarm.model.filenames import Filename
from swarm.model.peers import Peer
from swarm.model.ranges import RangeSet


@frozen
class Holding:
    """
    A peer's answer to HEAD: the size and names it claims, and which bytes a partial holder can serve.

    :param generation: which life of the id its copy belongs to (see ``ITombstones``).
    :param given: what a complete holder says it gave to others.
    """

    peer: Peer
    size: int
    have: RangeSet | None = None
    names: tuple[Filename, ...] = ()
    generation: int = 0
    given: RangeSet | None = None

    @property
    def complete(self) -> bool:
        """Does the peer claim every byte?"""
        return self.have is None

"""Where copies of a blob belong: an order of nodes per blob that every node computes alike.

Rendezvous hashing (Thaler and Ravishankar, 1998), weighted as by Schindelhauer and Schomaker (2005):
each node draws a number from the blob's id and its own, the highest come first. A node that joins
or leaves moves only the blobs it gains or had. Decides the order; how many of it, and who is
reachable, is ``swarm.core.replication``'s and the roster's.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping

from swarm.model.digest import Digest
from swarm.model.peers import PeerID


def order(digest: Digest, nodes: Iterable[PeerID]) -> tuple[PeerID, ...]:
    """All nodes, best place for the blob first."""
    return tuple(sorted(nodes, key=lambda node: (-_draw(digest, node), node)))


def weighted_order(digest: Digest, nodes: Mapping[PeerID, float]) -> tuple[PeerID, ...]:
    """
    All nodes of weight above 0, best place first; a node comes first in proportion to its weight.

    With equal weights it is the order of :func:`order`, up to the rounding of a logarithm.
    """

    def score(node: PeerID) -> float:
        # Between 0 and 1, both excluded, so that the logarithm is finite and not 0.
        uniform = (_draw(digest, node) + 0.5) / 2**53
        return -nodes[node] / math.log(uniform)

    return tuple(sorted((n for n in nodes if nodes[n] > 0), key=lambda node: (-score(node), node)))


def _draw(digest: Digest, node: PeerID) -> int:
    """53 bits: what a float holds exactly."""
    return int.from_bytes(hashlib.sha256(digest.raw + node.raw).digest()[:8], "big") >> 11

"""What a pull shows of itself, and what all pulls add up to: values for ``/locations``, metrics and logs."""

from __future__ import annotations

from typing import Protocol

from attrs import define, frozen

from swarm.model.digest import Digest
from swarm.model.peers import PeerID


@frozen
class SourceProgress:
    """One peer's part in a pull. ``bytes`` received from it, ``rate`` in bytes a second."""

    name: str
    peer_id: PeerID
    bytes: int
    rate: float
    state: str
    detail: str = ""


@frozen
class PullProgress:
    """A pull at one moment; ``verified`` bytes of ``size``, ``started`` on the node's clock."""

    digest: Digest
    size: int
    verified: int
    resumed: int
    started: float
    state: str
    sources: tuple[SourceProgress, ...] = ()


@define
class Counters:
    """Totals since start; only ever counted up."""

    pulls_started: int = 0
    pulls_finished: int = 0
    pulls_failed: int = 0
    pulls_resumed: int = 0
    bytes_received: int = 0
    bytes_duplicated: int = 0
    bytes_wasted: int = 0
    bytes_resumed: int = 0
    grains_verified: int = 0
    grains_rejected: int = 0
    proofs: int = 0
    spans_aborted: int = 0
    spans_stolen: int = 0
    spans_hedged: int = 0
    copies_challenged: int = 0
    copies_missing: int = 0
    copies_refuted: int = 0
    spans_doubled: int = 0
    spans_taken_over: int = 0


class GrainWatch(Protocol):
    """Told what becomes of grains, for metrics."""

    def verified(self, seconds: float) -> None:
        """A grain passed, so long after it was asked for."""

    def failed(self, whose: str) -> None:
        """A grain did not: by a ``liar`` (proven), a ``suspect`` (not yet), or of our own disk: ``self``."""


class Unwatched:
    """Nobody counts."""

    def verified(self, seconds: float) -> None:
        """Nothing."""

    def failed(self, whose: str) -> None:
        """Nothing."""

"""What a node says of itself and of where a blob is: JSON for ``/ready`` and ``/{id}/locations``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import attrs
from attrs import frozen

from swarm.interfaces import Usage
from swarm.model.digest import Digest

if TYPE_CHECKING:
    from swarm.core.roster import PeerState
    from swarm.services.progress import PullProgress
    from swarm.services.replicator import Location

_DAY = 86_400.0


@frozen
class NodeFacts:
    """
    What does not change while a node runs, and three things that do.

    :ivar hashing: how blobs are verified, such as ``midstates`` or ``in order``.
    :ivar certificate_ends: when our certificate ends, seconds since the epoch; None without one.
    :ivar not_ready: reasons why the node should get no traffic now; empty when it should.
    :ivar workers: processes that serve reads now, and how many should; the node's own is one.
    """

    name: str
    cluster: str
    version: str
    peer_id: str = ""
    hashing: str = ""
    public_url: str = ""
    certificate_ends: Callable[[], float | None] = lambda: None
    not_ready: Callable[[], Sequence[str]] = lambda: ()
    workers: Callable[[], tuple[int, int]] = lambda: (1, 1)


def readiness(
    facts: NodeFacts, usage: Usage, peers: Sequence[PeerState], pulls: Sequence[PullProgress], now: float
) -> tuple[bool, dict[str, Any]]:
    """Is the node ready, and the document that says why not."""
    reasons = list(facts.not_ready())
    if usage.read_only is not None:
        reasons.append(f"the volume takes no writes: {usage.read_only}")
    ends = facts.certificate_ends()
    if ends is not None and ends <= now:
        reasons.append("our certificate has ended")
    serving, wanted = facts.workers()
    return not reasons, {
        "ready": not reasons,
        "reasons": reasons,
        "name": facts.name,
        "cluster": facts.cluster,
        "id": facts.peer_id,
        "version": facts.version,
        "hashing": facts.hashing,
        "workers": {"serving": serving, "wanted": wanted},
        "certificate_days": None if ends is None else round((ends - now) / _DAY, 2),
        "peers": [peer_document(each, now) for each in peers],
        "usage": attrs.asdict(usage),
        "pulls": [pull_document(each, now) for each in pulls],
    }


def peer_document(each: PeerState, now: float) -> dict[str, Any]:
    """One peer for people and scripts; ``silent_for`` in seconds."""
    return {
        "name": each.peer.name,
        "id": each.peer.id.hex,
        "address": str(each.peer.address),
        "url": each.peer.public_url or None,
        "state": each.state,
        "silent_for": None if each.last_alive is None else round(max(0.0, now - each.last_alive), 1),
        "detail": each.detail,
    }


def pull_document(pull: PullProgress, now: float) -> dict[str, Any]:
    """A running pull; ``rate`` of each source in bytes a second."""
    return {
        "sha512": pull.digest.hex,
        "size": pull.size,
        "verified": pull.verified,
        "state": pull.state,
        "seconds": round(max(0.0, now - pull.started), 3),
        "sources": [
            {
                "name": each.name,
                "id": each.peer_id.hex,
                "bytes": each.bytes,
                "rate": round(each.rate),
                "state": each.state,
                "detail": each.detail,
            }
            for each in pull.sources
        ],
    }


def locations_document(
    digest: Digest, length: int | None, locations: Sequence[Location], pull: PullProgress | None, now: float
) -> dict[str, Any]:
    """Who holds a blob, and the pull of it that runs here; ``length`` None where only others know it."""
    return {
        "sha512": digest.hex,
        "length": length,
        "nodes": [
            {"name": each.name, "id": each.peer_id.hex, "state": each.state, "url": each.public_url or None}
            for each in locations
        ],
        "pull": None if pull is None else pull_document(pull, now),
    }

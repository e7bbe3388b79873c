"""What follows from proven lies: a peer's standing over all blobs.

Decides, from :class:`swarm.core.evidence.Proof` alone, who may serve what:

1. One proof: out for this blob, and advised to verify its copy.
2. Proofs on two blobs, or on one again after it said that it had verified its copy:
   quarantined, asked for nothing at all for a day.

Suspicion, slowness and silence count for nothing here. Everything expires; what happened stays
readable. Does not tell anybody: the caller advises the peer and logs.
"""

from __future__ import annotations

import enum

from attrs import define, field, frozen

from swarm.core.evidence import Proof
from swarm.model.digest import Digest
from swarm.model.peers import PeerID


class Sanction(enum.Enum):
    """What a proof led to."""

    BLOB = "out for this blob"
    QUARANTINE = "quarantined"


@frozen
class StandingSettings:
    """
    Limits of the ladder.

    :param quarantine: seconds a quarantine lasts.
    :param memory: seconds a proof counts and keeps its peer out for its blob.
    :param evidence: most proofs kept per peer, the newest.
    :param peers: most peers remembered, those proven last.
    """

    quarantine: float = 24 * 3600.0
    memory: float = 7 * 24 * 3600.0
    evidence: int = 32
    peers: int = 1024


@frozen
class Evidence:
    """A proof and when it was made (seconds)."""

    proof: Proof
    at: float


@define
class _Record:
    evidence: list[Evidence] = field(factory=list)
    verified: dict[Digest, float] = field(factory=dict)  # when it said it had verified its copy
    quarantined_at: float | None = None


class Standing:
    """Every peer with proofs against it."""

    def __init__(self, settings: StandingSettings | None = None) -> None:
        self._settings = settings if settings is not None else StandingSettings()
        self._records: dict[PeerID, _Record] = {}

    def convict(self, proof: Proof, now: float) -> Sanction:
        """Take a proof and say what follows."""
        record = self._records.pop(proof.peer, None) or _Record()
        self._records[proof.peer] = record  # now the youngest
        while len(self._records) > self._settings.peers:
            del self._records[next(iter(self._records))]
        relapsed = proof.digest in record.verified
        record.verified.pop(proof.digest, None)
        record.evidence.append(Evidence(proof, now))
        del record.evidence[: -self._settings.evidence]
        if relapsed or len(self._counted(record, now)) >= 2:
            record.quarantined_at = now
            return Sanction.QUARANTINE
        return Sanction.BLOB

    def verified(self, peer: PeerID, digest: Digest, now: float) -> None:
        """The peer says it verified its copy since: it may serve the blob again, on probation."""
        record = self._records.get(peer)
        if record is not None and any(each.proof.digest == digest for each in record.evidence):
            record.verified[digest] = now

    def pardon(self, peer: PeerID) -> None:
        """An operator knows better: forget everything about the peer."""
        self._records.pop(peer, None)

    def quarantined_until(self, peer: PeerID, now: float) -> float | None:
        """When the peer's quarantine ends; None if it is in none."""
        record = self._records.get(peer)
        if record is None or record.quarantined_at is None:
            return None
        until = record.quarantined_at + self._settings.quarantine
        return until if now < until else None

    def barred(self, peer: PeerID, digest: Digest, now: float) -> str | None:
        """Why the peer must not be asked for this blob; None if it may."""
        if self.quarantined_until(peer, now) is not None:
            return "quarantined for proven lies"
        record = self._records.get(peer)
        if record is not None and digest not in record.verified:
            for each in record.evidence:
                if each.proof.digest == digest and self._fresh(each, now):
                    return f"proven wrong on this blob: {each.proof.detail}"
        return None

    def evidence(self, peer: PeerID) -> tuple[Evidence, ...]:
        """What is on record against a peer, oldest first."""
        record = self._records.get(peer)
        return tuple(record.evidence) if record is not None else ()

    def on_record(self) -> tuple[PeerID, ...]:
        """Peers with evidence against them, the latest proven last."""
        return tuple(self._records)

    def forget(self, now: float) -> None:
        """Drop what expired; call it now and then."""
        for peer, record in list(self._records.items()):
            record.evidence = [each for each in record.evidence if self._fresh(each, now)]
            if not record.evidence and self.quarantined_until(peer, now) is None:
                del self._records[peer]

    def _fresh(self, evidence: Evidence, now: float) -> bool:
        return now - evidence.at < self._settings.memory

    def _counted(self, record: _Record, now: float) -> set[Digest]:
        """Blobs whose proofs still count: fresh, and not punished by a quarantine already."""
        since = record.quarantined_at
        return {
            each.proof.digest
            for each in record.evidence
            if self._fresh(each, now) and (since is None or each.at > since)
        }

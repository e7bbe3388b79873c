"""What a pull's ledger says: what changed, and what is proven against whom.

Values only, shared by ``swarm.core.trust``, ``swarm.core.trust_whole`` and ``swarm.core.standing``.
"""

from __future__ import annotations

from attrs import define, field, frozen

from swarm.model.digest import Digest
from swarm.model.peers import PeerID


@frozen
class Proof:
    """Evidence that convicts one peer of one lie about one blob."""

    peer: PeerID
    digest: Digest
    grain: int | None
    kind: str  # "data": bytes it sent; "list": midstates it offered
    detail: str


@frozen
class Judgement:
    """What an observation changed. All tuples of grains are sorted.

    :param accepted: good from now on, also if they were before: note their ``bounds``.
    :param reopened: fetch them (again); a reader that was given bytes of one must be aborted.
    :param rehash: their bytes are still on disk, yet must be hashed from ``starts`` and
        judged again with ``senders``; until then they count as not accepted.
    :param refetch_whole: those of ``reopened`` to take from one sender only, so that it can be blamed.
    :param proofs: new convictions.
    :param suspended: peers newly not to be asked for this blob while ``suspended`` has them.
    :param need_list_of: peers whose midstate list would settle whether they or the list are wrong.
    """

    accepted: tuple[int, ...] = ()
    reopened: tuple[int, ...] = ()
    rehash: tuple[int, ...] = ()
    refetch_whole: tuple[int, ...] = ()
    proofs: tuple[Proof, ...] = ()
    suspended: tuple[PeerID, ...] = ()
    need_list_of: tuple[PeerID, ...] = ()


@define
class Findings:
    """A :class:`Judgement` under construction: a later finding on a grain replaces the earlier."""

    accepted: set[int] = field(factory=set)
    reopened: set[int] = field(factory=set)
    rehash: set[int] = field(factory=set)
    refetch_whole: set[int] = field(factory=set)
    proofs: list[Proof] = field(factory=list)
    suspended: set[PeerID] = field(factory=set)
    need_list_of: set[PeerID] = field(factory=set)

    def accept(self, grain: int) -> None:
        """Good, at least for now."""
        self.accepted.add(grain)

    def reopen(self, grain: int) -> None:
        """Its bytes are of no use."""
        self.accepted.discard(grain)
        self.rehash.discard(grain)
        self.reopened.add(grain)

    def hash_again(self, grain: int) -> None:
        """Its bytes may be of use, once hashed from elsewhere."""
        self.accepted.discard(grain)
        self.rehash.add(grain)

    def judgement(self) -> Judgement:
        """The outcome."""
        return Judgement(
            accepted=tuple(sorted(self.accepted)),
            reopened=tuple(sorted(self.reopened)),
            rehash=tuple(sorted(self.rehash)),
            refetch_whole=tuple(sorted(self.refetch_whole)),
            proofs=tuple(self.proofs),
            suspended=tuple(sorted(self.suspended)),
            need_list_of=tuple(sorted(self.need_list_of & self.suspended)),
        )

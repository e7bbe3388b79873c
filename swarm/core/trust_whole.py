"""Trust for a node that cannot compute midstates: nothing is proven before the whole blob is.

The same surface as ``swarm.core.trust``; what is hashed is each grain alone (``starts`` is
``(None,)``: a plain SHA-512). Once all grains are received the fetcher hashes the file and tells
:meth:`WholeTrust.verdict`. Decides who is to blame when that fails, not whom to ask.

The argument. A failed attempt proves nothing unless one peer sent every byte of it; so after a
failure the blob is taken from one peer at a time (*parole*). An attempt of one peer that
claims the whole blob and fails convicts it. The attempt that succeeds shows what each grain's
hash really is, and so convicts every single sender of another in the attempts before. Bytes
of relays (partial holders), of several senders or of an earlier run convict nobody.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from attrs import frozen

from swarm.core.evidence import Findings, Judgement, Proof
from swarm.core.parties import Parties
from swarm.model.digest import Digest
from swarm.model.grains import Grains
from swarm.model.midstates import Midstates
from swarm.model.peers import PeerID
from swarm.model.ranges import RangeSet


@frozen
class _Received:
    """One grain of one attempt."""

    senders: tuple[PeerID, ...]
    hash: bytes


class WholeTrust:
    """One pull's ledger without midstates."""

    def __init__(self, digest: Digest, grains: Grains, relays: Iterable[PeerID] = ()) -> None:
        """:param relays: who was one in this pull before: ``parties.relays``."""
        self.digest = digest
        self.grains = grains
        self._now: dict[int, _Received] = {}
        self._before: set[tuple[int, PeerID, bytes]] = set()  # of failed attempts, single senders only
        self.parties = Parties(relays=set(relays))
        self._proven: dict[PeerID, Proof] = {}
        self._tried: set[PeerID] = set()  # on parole, and failed
        self._sole: PeerID | None = None
        self._failed = False
        self._complete = False

    # -- what is told ---------------------------------------------------------

    def claim(self, peer: PeerID, *, complete: bool) -> None:
        """Note what a peer says it holds; see :meth:`swarm.core.trust.Trust.claim`."""
        self.parties.claim(peer, complete=complete)

    def amend(self, peer: PeerID, have: RangeSet | None) -> None:
        """Nobody is suspended here, so nobody is let go."""

    def offer(self, peer: PeerID, midstates: Midstates) -> Judgement:
        """Lists are of no use here: nothing could be compared with them."""
        return Judgement()

    def resume(self, grain: int, start: None, hash: bytes) -> Judgement:
        """Take a journaled grain, re-verified on our own disk."""
        return self.judge(grain, (), {None: hash})

    def judge(self, grain: int, senders: tuple[PeerID, ...], ends: Mapping[bytes | None, bytes]) -> Judgement:
        """
        Take a grain whose bytes are all on disk: received, not accepted.

        On parole, what others still had on their way is reopened.
        """
        if self._complete:
            return Judgement()
        if self._failed and senders != (self._sole,):
            self._now.pop(grain, None)
            return Judgement(reopened=(grain,))
        self._now[grain] = _Received(senders, ends[None])
        return Judgement()

    def verdict(self, ok: bool) -> Judgement:
        """
        Say whether the file, all grains :attr:`received`, hashes to the id.

        If not, every grain is reopened; go on with :meth:`parole` and then :meth:`missing`.
        """
        assert self.received and not self._complete
        found = Findings()
        if ok:
            self._complete = True
            found.accepted.update(self._now)
            for grain, peer, other in sorted(self._before):
                if other != self._now[grain].hash and peer in self.parties.whole:
                    self._prove(found, peer, grain, "its grain differs from the proven one")
            return found.judgement()
        senders = {peer for received in self._now.values() for peer in received.senders}
        alone = len(senders) == 1 and all(received.senders for received in self._now.values())
        if alone:
            (peer,) = senders
            self._tried.add(peer)
            if peer in self.parties.whole:
                self._prove(found, peer, None, "every byte came from it, and the whole is wrong")
        self._failed = True
        self._sole = None
        found.reopened.update(self._now)
        return found.judgement()

    def parole(self, candidates: Iterable[PeerID]) -> PeerID | None:
        """
        After a failure, or when the one on parole went away: choose the one peer to take all from.

        Of the candidates that claim the whole blob and did not fail alone, the one that sent most of the
        bytes on disk: its grains stay received, so ask :meth:`missing` what to fetch.

        :return: None if nobody is left: the pull has failed.
        """
        assert self._failed and not self._complete
        left = [peer for peer in candidates if peer in self.parties.whole and peer not in self._tried]
        if not left:
            return None
        sent = {peer: sum(each.senders == (peer,) for each in self._now.values()) for peer in left}
        sole = max(left, key=lambda peer: sent[peer])
        others = {grain: each for grain, each in self._now.items() if each.senders != (sole,)}
        self._keep_evidence(others)
        for grain in others:
            del self._now[grain]
        self._sole = sole
        return sole

    # -- what is asked --------------------------------------------------------

    @property
    def sole(self) -> PeerID | None:
        """The one peer to take bytes from; None while any may send."""
        return self._sole

    @property
    def failed(self) -> bool:
        """Did an attempt fail? From then on one peer at a time: :meth:`parole`."""
        return self._failed

    @property
    def received(self) -> bool:
        """Are all grains on disk? Then hash the whole."""
        return len(self._now) == self.grains.count

    def missing(self) -> tuple[int, ...]:
        """Grains to fetch in this attempt."""
        return tuple(grain for grain in range(self.grains.count) if grain not in self._now)

    def starts(self, grain: int) -> tuple[None, ...]:
        """One plain hash, from no chaining value."""
        return (None,)

    def senders(self, grain: int) -> tuple[PeerID, ...]:
        """Who sent a grain that is on disk; empty if nobody did, or we resumed with it."""
        return self._now[grain].senders if grain in self._now else ()

    def holds(self, grain: int) -> bool:
        """Was the grain received in this attempt? Then it has ``bounds``."""
        return grain in self._now

    def bounds(self, grain: int) -> tuple[None, bytes]:
        """What the journal keeps of a received grain: no chaining value, its plain hash."""
        return None, self._now[grain].hash

    def wanted(self) -> tuple[int, ...]:
        """No grain settles more than another."""
        return ()

    def releasable(self, grain: int) -> bool:
        """Only once the whole is proven."""
        return self._complete

    def proven(self, grain: int) -> bool:
        """Only once the whole is proven."""
        return self._complete

    def trusted(self, grain: int) -> bool:
        """Only once the whole is proven."""
        return self._complete

    def vouched(self, grain: int) -> bool:
        """Only once the whole is proven."""
        return self._complete

    @property
    def authenticated_from(self) -> int:
        """The first proven grain: all or none."""
        return 0 if self._complete else self.grains.count

    @property
    def agreed(self) -> bool:
        """Nobody can vouch for a grain here."""
        return False

    @property
    def complete(self) -> bool:
        """Does the whole hash to the id?"""
        return self._complete

    @property
    def has_list(self) -> bool:
        """Never; and none is waited for."""
        return False

    @property
    def suspended(self) -> frozenset[PeerID]:
        """On parole everybody waits but one; this is about nobody in particular."""
        return frozenset()

    @property
    def convicted(self) -> frozenset[PeerID]:
        """Peers proven to lie about this blob."""
        return frozenset(self._proven)

    def midstates(self) -> None:
        """There is no list to keep."""

    def _keep_evidence(self, grains: Mapping[int, _Received]) -> None:
        for grain, received in grains.items():
            if len(received.senders) == 1:
                self._before.add((grain, received.senders[0], received.hash))

    def _prove(self, found: Findings, peer: PeerID, grain: int | None, detail: str) -> None:
        if peer not in self._proven:
            self._proven[peer] = Proof(peer, self.digest, grain, "data", detail)
            found.proofs.append(self._proven[peer])

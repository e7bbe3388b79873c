"""Which bytes of a running pull are to be believed, and who has been proven to lie.

Decides: which midstate list to work with, which grains are good, what to fetch to settle a
dispute, whom the evidence convicts. It does not fetch, hash, choose sources or ban: the
fetcher brings observations, ``swarm.core.standing`` draws the consequences.

The argument. Number the boundaries 0 to n; grain ``g`` leads from boundary ``g`` to ``g + 1``.
The blob has one true chaining value at each; 0 is SHA-512's IV and n is the id, and every
list says so too. An *observation* is a fact whoever sent the bytes: hashing them from ``s``
gave ``e``. SHA-512's compression is taken to resist (free-start) collisions, so:

* If ``e`` is the true value at ``g + 1``, then ``s`` is the true one at ``g`` and the bytes are the
  blob's. So grains accepted in a row *from the end* (where the true value is the id) are proven,
  one after the other. All accepted: the file hashes to the id.
* If a list says ``e`` at ``g + 1`` but not ``s`` at ``g``, it is wrong: at ``g + 1`` if ``e`` is untrue, at
  ``g`` otherwise. This alone refutes lists, and it always can: two lists that differ agree
  right of their *last* difference, at the latest at n, so true bytes of the grain that starts
  at that difference refute the wrong one.
* A peer that claims the whole blob vouches for its bytes and for its list. An honest one never
  offers a refuted list, never sends a grain that fails its own list, and never sends bytes that
  miss a proven end from a proven start. These three, and offering two lists, are the only proofs.

Grains of several senders prove nobody. A peer that holds only a part is a *relay*: it passes on
any grain that is accepted by the list it works with (:meth:`Trust.releasable`), so what it sends is what
somebody else made it believe, and its bytes never convict it. It must not offer a list before its own
copy is complete. Why nobody honest is framed by that is argued in ``swarm.core.parties``.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping

from attrs import define, field

from swarm.core.evidence import Findings, Judgement, Proof
from swarm.core.parties import Parties
from swarm.model.digest import Digest
from swarm.model.grains import Grains
from swarm.model.midstates import IV, Midstates
from swarm.model.peers import PeerID
from swarm.model.ranges import RangeSet


class _State(enum.IntEnum):
    ABSENT = 0
    HELD = 1  # bytes on disk, not decided
    ACCEPTED = 2


@define(eq=False)
class _Claim:
    """One list and the unconvicted peers that offered it."""

    midstates: Midstates
    supporters: set[PeerID] = field(factory=set)


class Trust:
    """One pull's ledger. Its size is a claim too, proven with the last grain (padding holds it)."""

    def __init__(self, digest: Digest, grains: Grains) -> None:
        self.digest = digest
        self.grains = grains
        self._claims: list[_Claim] = []  # live lists, in the order they were first offered
        self._working: _Claim | None = None
        self._own: dict[PeerID, _Claim] = {}
        self.parties = Parties()
        self._state = bytearray(grains.count)
        self._accepted = 0
        self._held: set[int] = set()
        # What was observed of the bytes on disk, unless it is just what the working list says.
        self._ends: dict[int, dict[bytes | None, bytes]] = {}
        self._senders: dict[int, tuple[PeerID, ...]] = {}
        self._asked: dict[int, tuple[bytes, ...]] = {}  # rehashes already asked for, and from where
        self._failures: dict[PeerID, dict[int, Mapping[bytes | None, bytes]]] = {}
        self._proven: dict[PeerID, Proof] = {}
        self._proven_from = grains.count
        if grains.count == 1:  # between the IV and the id there is nothing to claim
            self._working = _Claim(Midstates(grains, b""))
            self._claims.append(self._working)

    # -- what is told ---------------------------------------------------------

    def claim(self, peer: PeerID, *, complete: bool) -> None:
        """
        Note what a peer says it holds, before it is asked for bytes.

        Whoever once was a partial holder stays a relay for this pull: bytes it sent then may be judged later.
        """
        self.parties.claim(peer, complete=complete)

    def amend(self, peer: PeerID, have: RangeSet | None) -> None:
        """A relay says what it has by now (None: all). Without what failed it is let go, a few times."""
        failures = self._failures.get(peer, {})
        offered = have is not None and any(self.grains.start(each) in have for each in failures)
        if failures and not offered and self.parties.amends(peer):
            del self._failures[peer]

    def offer(self, peer: PeerID, midstates: Midstates) -> Judgement:
        """Take a peer's list; it must be for this ledger's grains. A convicted peer's is ignored."""
        assert midstates.grains == self.grains
        found = Findings()
        if peer in self._proven:
            return self._conclude(found)
        self.claim(peer, complete=True)
        if peer in self._own:
            if self._own[peer].midstates != midstates:
                self._prove(found, peer, None, "list", "it offered two different lists")
        elif (grain := self._contradiction(midstates)) is not None:
            self._prove(found, peer, grain, "list", "its list contradicts bytes already hashed")
        else:
            self._support(found, peer, midstates)
        self._settle(found)
        return self._conclude(found)

    def resume(self, grain: int, start: bytes, end: bytes) -> Judgement:
        """Take a journaled grain, re-verified on our own disk; nobody is to blame if it is wrong."""
        return self.judge(grain, (), {start: end})

    def judge(self, grain: int, senders: tuple[PeerID, ...], ends: Mapping[bytes | None, bytes]) -> Judgement:
        """
        Take a grain whose bytes are all on disk.

        :param senders: everyone who sent any of its bytes.
        :param ends: for each of :meth:`starts` the value hashing led to. If lists came in the
            meantime the answer is ``rehash``; without any list the grain is held until one comes.

        An accepted grain must not be written to; judging it again changes nothing.
        """
        found = Findings()
        if self.releasable(grain):
            return self._conclude(found)
        self._state[grain] = _State.HELD
        self._held.add(grain)
        self._ends[grain] = dict(ends)
        self._senders[grain] = senders
        self._asked.pop(grain, None)
        for claim in self._claims.copy():
            for start, end in ends.items():
                if self._after(claim, grain) == end and claim.midstates.before(grain) != start:
                    self._refute(found, claim, grain)
                    break
        self._settle(found)
        return self._conclude(found)

    # -- what is asked --------------------------------------------------------

    def starts(self, grain: int) -> tuple[bytes, ...]:
        """The values to hash the grain from, the working list's first; usually one, none without a list."""
        if grain == 0:
            return (IV,)
        claims = sorted(self._claims, key=lambda claim: claim is not self._working)
        return tuple(dict.fromkeys(claim.midstates.before(grain) for claim in claims))

    def senders(self, grain: int) -> tuple[PeerID, ...]:
        """Who sent a grain that is on disk and not proven; empty if we resumed with it."""
        return self._senders.get(grain, ())

    def bounds(self, grain: int) -> tuple[bytes, bytes]:
        """The values an accepted grain leads from and to: what the journal keeps."""
        assert self.releasable(grain)
        if self._working is None:  # a proven grain outlives the list it was proven with
            ((start, end),) = self._ends[grain].items()
            assert start is not None
            return start, end
        return self._working.midstates.before(grain), self._after(self._working, grain)

    def wanted(self) -> tuple[int, ...]:
        """
        Grains to fetch before any other, in this order: those that settle disputes, then the last.

        Take them from somebody else than last time.
        """
        settling = sorted({self._last_difference(each) for each in self._rivals()}, reverse=True)
        if self._state[self.grains.last] == _State.ABSENT and self.grains.last not in settling:
            settling.append(self.grains.last)
        return tuple(settling)

    def releasable(self, grain: int) -> bool:
        """May its bytes be handed to a reader? If it is reopened later, that reader must be aborted."""
        return self._state[grain] == _State.ACCEPTED

    def proven(self, grain: int) -> bool:
        """Do these bytes belong to the blob whoever lied?"""
        return grain >= self._proven_from

    def trusted(self, grain: int) -> bool:
        """May a response end on it? Accepted, and proven or vouched for by two peers and disputed by none."""
        return self.proven(grain) or (self.releasable(grain) and self.agreed)

    def vouched(self, grain: int) -> bool:
        """Do two peers speak for an accepted grain, one by sending it and another by its list?"""
        liable = set(self._proven) if self._working is None else self._working.supporters.union(self._proven)
        return self.trusted(grain) or not self.senders(grain) or not liable.issuperset(self.senders(grain))

    @property
    def authenticated_from(self) -> int:
        """The first grain of the proven suffix; the number of grains if there is none."""
        return self._proven_from

    @property
    def agreed(self) -> bool:
        """Do two peers or more support the working list, and nobody another?"""
        return self._working is not None and len(self._working.supporters) >= 2 and len(self._claims) == 1

    @property
    def complete(self) -> bool:
        """Are all grains accepted? Then all are proven."""
        return self._proven_from == 0

    @property
    def has_list(self) -> bool:
        """Is there a list to work with?"""
        return self._working is not None

    @property
    def suspended(self) -> frozenset[PeerID]:
        """Peers not to be asked for this blob just now: they or the working list are wrong, undecided."""
        return frozenset(self._failures)

    @property
    def convicted(self) -> frozenset[PeerID]:
        """Peers proven to lie about this blob."""
        return frozenset(self._proven)

    def midstates(self) -> Midstates:
        """The proven list of a complete pull."""
        assert self.complete and self._working is not None
        return self._working.midstates

    # -- lists ----------------------------------------------------------------

    def _after(self, claim: _Claim, grain: int) -> bytes:
        return claim.midstates.after(grain, self.digest.raw)

    def _passes(self, claim: _Claim, grain: int, ends: Mapping[bytes | None, bytes]) -> bool:
        return ends.get(claim.midstates.before(grain)) == self._after(claim, grain)

    def _rivals(self) -> Iterator[_Claim]:
        return (claim for claim in self._claims if claim is not self._working)

    def _last_difference(self, rival: _Claim) -> int:
        """The last boundary where a rival differs from the working list: also the grain that settles it."""
        assert self._working is not None
        ours, theirs = self._working.midstates, rival.midstates
        return next(g for g in range(self.grains.last, 0, -1) if ours.before(g) != theirs.before(g))

    def _contradiction(self, midstates: Midstates) -> int | None:
        """A grain observed to refute a list that was not known when it was hashed."""
        for grain in range(self.grains.count):
            after = midstates.after(grain, self.digest.raw)
            facts = [*self._ends.get(grain, {}).items()]
            if self._working is not None and self.releasable(grain):
                facts.append(self.bounds(grain))
            if any(end == after and start != midstates.before(grain) for start, end in facts):
                return grain
        return None

    def _support(self, found: Findings, peer: PeerID, midstates: Midstates) -> None:
        claim = next((each for each in self._claims if each.midstates == midstates), None)
        if claim is None:
            claim = _Claim(midstates)
            self._claims.append(claim)
        claim.supporters.add(peer)
        self._own[peer] = claim
        for grain, ends in self._failures.pop(peer, {}).items():
            if midstates.before(grain) in ends:
                self._blame(found, peer, grain, ends)

    def _refute(self, found: Findings, claim: _Claim, grain: int) -> None:
        self._claims.remove(claim)
        for peer in sorted(claim.supporters):
            self._prove(found, peer, grain, "list", "its list misses the start of bytes that reach its end")

    def _best(self) -> _Claim | None:
        """The most supported list; but votes alone never take back what was accepted."""
        now = self._working
        if self._accepted and now in self._claims and now is not None and now.supporters:
            return now
        return max(self._claims, key=lambda claim: len(claim.supporters), default=None)

    def _adopt(self, new: _Claim | None) -> None:
        """Work with another list; what was accepted and it does not confirm goes back to held."""
        old, self._working = self._working, new
        if old is not None:
            if old in self._claims and not old.supporters:
                self._claims.remove(old)
            for grain in range(self.grains.count):
                if self._state[grain] != _State.ACCEPTED:
                    continue
                start, end = old.midstates.before(grain), self._after(old, grain)
                if new is not None and self._passes(new, grain, {start: end}):
                    continue
                self._ends.setdefault(grain, {})[start] = end
                if not self.proven(grain):
                    self._state[grain] = _State.HELD
                    self._held.add(grain)
                    self._accepted -= 1
        if new is not None:
            for peer, failures in list(self._failures.items()):
                for grain, ends in list(failures.items()):
                    if new.midstates.before(grain) not in ends or self._passes(new, grain, ends):
                        self._forgive(peer, grain)

    # -- grains ---------------------------------------------------------------

    def _settle(self, found: Findings) -> None:
        """Draw every consequence; a conviction may take a list's last supporter, so until nothing changes."""
        while True:
            if (best := self._best()) is not self._working:
                self._adopt(best)
            if best is None:
                return
            for grain in sorted(self._held):
                self._decide(found, best, grain)
            self._extend(found, best)
            if self._best() is best:
                return

    def _decide(self, found: Findings, working: _Claim, grain: int) -> None:
        ends = self._ends[grain]
        starts = self.starts(grain)
        if any(start not in ends for start in starts):
            if self._asked.get(grain) != starts:
                self._asked[grain] = starts
                found.hash_again(grain)
            return
        if self._passes(working, grain, ends):
            self._state[grain] = _State.ACCEPTED
            self._held.remove(grain)
            self._accepted += 1
            if len(ends) == 1:
                del self._ends[grain]
            found.accept(grain)
            return
        disputed = any(self._passes(each, grain, ends) for each in self._rivals())
        if disputed and grain not in self.wanted():
            return
        self._state[grain] = _State.ABSENT
        self._held.remove(grain)
        del self._ends[grain]
        found.reopen(grain)
        senders = self._senders.pop(grain)
        if disputed:
            return  # whether these bytes were wrong is just what their like is wanted for
        if len(senders) == 1:
            self._blame(found, senders[0], grain, ends)
        elif senders:
            found.refetch_whole.add(grain)

    def _extend(self, found: Findings, working: _Claim) -> None:
        """Grow the proven suffix and hold earlier failures against it."""
        while self._proven_from and self.releasable(self._proven_from - 1):
            self._proven_from -= 1
            grain = self._proven_from
            self._ends.pop(grain, None)
            self._senders.pop(grain, None)
            for peer, failures in list(self._failures.items()):
                # A failure that the working list does not confirm was forgiven when it was adopted.
                if peer in self.parties.whole and working.midstates.before(grain) in failures.get(grain, {}):
                    self._prove(found, peer, grain, "data", "its bytes miss a proven end from a proven start")

    # -- peers ----------------------------------------------------------------

    def _blame(self, found: Findings, peer: PeerID, grain: int, ends: Mapping[bytes | None, bytes]) -> None:
        """One peer sent all bytes of a grain that is not good by the working list."""
        own = self._claims[0] if self.grains.count == 1 else self._own.get(peer)
        if peer in self._proven:
            return
        if own is not None and self._passes(own, grain, ends):
            return  # it agrees with itself: a dispute between lists
        if own is not None and peer in self.parties.whole:
            self._prove(found, peer, grain, "data", "its bytes fail its own list")
            return
        self._failures.setdefault(peer, {})[grain] = dict(ends)
        found.suspended.add(peer)
        if own is None and peer not in self.parties.partial:
            found.need_list_of.add(peer)

    def _forgive(self, peer: PeerID, grain: int) -> None:
        del self._failures[peer][grain]
        if not self._failures[peer]:
            del self._failures[peer]

    def _conclude(self, found: Findings) -> Judgement:
        found.suspended &= self._failures.keys()  # some may have been let go again
        return found.judgement()

    def _prove(self, found: Findings, peer: PeerID, grain: int | None, kind: str, detail: str) -> None:
        proof = Proof(peer, self.digest, grain, kind, detail)
        self._proven[peer] = proof
        found.proofs.append(proof)
        self._failures.pop(peer, None)
        claim = self._own.pop(peer, None)
        if claim is None:
            return
        claim.supporters.remove(peer)
        if not claim.supporters and claim is not self._working and claim in self._claims:
            self._claims.remove(claim)

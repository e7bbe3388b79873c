"""The verifying side of one pull: grains on disk are hashed, midstate lists fetched, judgements carried out.

Decides nothing about whom to believe: ``core.trust`` does (or ``core.trust_whole``, where midstates
cannot be computed, or nobody has any), and is told all that was observed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from swarm.core.dispatch import Dispatch
from swarm.core.evidence import Judgement, Proof
from swarm.core.trust import Trust
from swarm.core.trust_whole import WholeTrust
from swarm.errors import LocalError, PeerError, PullFailed
from swarm.interfaces import IPartial, IPeerClient
from swarm.model.midstates import Midstates
from swarm.model.peers import Peer, PeerID
from swarm.model.ranges import RangeSet
from swarm.services.progress import Counters, GrainWatch
from swarm.services.sources import Sources
from swarm.services.tasks import Tasks, sleep

#: Seconds after which a second list is asked for although the first has not come.
_LIST_ALONE = 0.1
#: Longer than the turn in which it is decided what to ask of whom.
_MOMENT = 0.001
#: Seconds from then on that readers wait for another list to compare with, where that matters.
_LISTS_TOGETHER = 2.0


class Owner(Protocol):
    """What judgements lead to: see :class:`swarm.services.pull.Pull`."""

    def accepted(self, grain: int) -> None:
        """Its bytes may be read."""

    def marked(self, grain: int) -> None:
        """It is to be journaled."""

    def taken_back(self, grain: int) -> None:
        """They may not, after all."""

    def excluded(self, proof: Proof) -> None:
        """A peer is proven bad."""

    def idle(self, peer: PeerID) -> None:
        """The peer is not a source now: end its lane."""

    def judged(self) -> None:
        """Something changed."""

    def fail(self, error: LocalError) -> None:
        """The pull cannot go on."""


class Proving:
    """I find out which bytes are good."""

    log = Logger()

    def __init__(
        self,
        partial: IPartial,
        dispatch: Dispatch,
        trust: Trust | WholeTrust,
        client: IPeerClient,
        sources: Sources,
        owner: Owner,
        *,
        lists_wanted: int,
        clock: IReactorTime,
        tasks: Tasks,
        counters: Counters,
        backlog: Callable[[], None],
        watch: GrainWatch,
        early: dict[PeerID, Deferred[Midstates]],
    ) -> None:
        """
        :param lists_wanted: midstate lists to compare.
        :param early: those that were asked before; taken out when they are used.
        :param backlog: told whenever :attr:`unhashed` changes.
        """
        self.trust = trust
        self.unhashed = 0
        self.resumed = 0
        self._partial = partial
        self._grains = partial.grains
        self._dispatch = dispatch
        self._client = client
        self._sources = sources
        self._owner = owner
        self._lists_wanted = lists_wanted
        self._clock = clock
        self._tasks = tasks
        self._counters = counters
        self._backlog = backlog
        self._watch = watch
        self._early = early
        self._undecided: dict[int, object] = {}  # grains on disk, neither accepted nor rejected: latest check
        self._accepted: set[int] = set()
        self._listed: set[PeerID] = set()  # asked for their list
        self._listless: set[PeerID] = set()  # and had none
        self._came: set[PeerID] = set()  # whose list is here
        self._patient = True  # may readers wait for lists to be compared?
        self._all_lists = False  # did one come, or not come in time? Then the others are asked for, too
        self._benched: set[PeerID] = set()  # suspended by the ledger, for now
        self._asked: dict[int, float] = {}  # when grains that are not decided were asked for
        self._hashing_whole = False

    @property
    def busy(self) -> bool:
        """Is anything being hashed? Then it is not the peers that are late."""
        return bool(self.unhashed) or self._hashing_whole

    # -- sources ------------------------------------------------------------------------

    def claim(self, peer: PeerID, have: RangeSet | None) -> bool:
        """
        A peer says it has the blob (``have`` None), or some of it.

        :return: may it be asked for bytes now?
        """
        trust = self.trust
        trust.claim(peer, complete=have is None)
        trust.amend(peer, have)
        if peer not in trust.suspended:
            self._benched.discard(peer)
        if have is None:
            self._tasks.start("asking for midstates", self._want_lists_soon())
        return peer not in self._benched and not (isinstance(trust, WholeTrust) and trust.failed)

    # -- grains -------------------------------------------------------------------------

    def check_soon(self, grain: int, asked: float | None = None) -> None:
        """The grain's bytes are all on disk; ``asked`` for at that time, if they came just now."""
        if asked is not None:
            self._asked[grain] = asked
        check = self._undecided[grain] = object()
        self._count(self._grains.length(grain))
        self._tasks.start("verifying a grain", self._check(grain, check))

    def recheck_soon(self, grain: int) -> None:
        """An earlier run journaled the grain."""
        self._tasks.start("re-verifying a journaled grain", self._recheck(grain))

    async def _check(self, grain: int, check: object) -> None:
        trust, owner = self.trust, self._owner
        try:
            starts = trust.starts(grain)
            leisure = not self._dispatch.awaited(grain)
            ends = await self._partial.end_states(grain, starts, at_leisure=leisure) if starts else ()
        except LocalError as e:
            owner.fail(e)
            return
        finally:
            self._count(-self._grains.length(grain))
        if self._undecided.get(grain) is check:  # else its bytes are others by now, or it is hashed anew
            senders = self._dispatch.senders(grain) or trust.senders(grain)
            await self._apply(trust.judge(grain, senders, dict(zip(starts, ends, strict=True))))

    async def _recheck(self, grain: int) -> None:
        try:
            record = await self._partial.recheck(grain)
        except LocalError as e:  # a bad sector; written again it may be a good one
            self.log.warn("a journaled grain cannot be read: {error}", error=e)
            record = None
        if record is None:
            self.log.info("a journaled grain is not what was journaled; fetching it again")
            self._watch.failed("self")
            self._drop(grain)
            self._owner.judged()
            return
        self.resumed += self._grains.length(grain)
        self._counters.bytes_resumed += self._grains.length(grain)
        start, end = record
        if (start is None) == isinstance(self.trust, WholeTrust):
            self._undecided[grain] = object()
            await self._apply(self.trust.judge(grain, (), {start: end}))
        else:
            self.check_soon(grain)

    def _count(self, change: int) -> None:
        self.unhashed += change
        self._backlog()

    def _drop(self, grain: int) -> None:
        """The grain is no good: it is to be fetched again."""
        self._undecided.pop(grain, None)
        self._partial.unmark(grain)
        self._dispatch.rejected(grain, self._clock.seconds())

    # -- judgements -----------------------------------------------------------------------

    async def _apply(self, judgement: Judgement) -> None:
        """Carry out what the ledger concluded."""
        now, owner, trust = self._clock.seconds(), self._owner, self.trust
        for grain in judgement.rehash:
            self._take_back(grain)
            self.check_soon(grain)
        for grain in judgement.reopened:
            self._counters.grains_rejected += 1
            self._take_back(grain)
            self._drop(grain)
        for grain in judgement.accepted:
            if trust.releasable(grain):
                self._undecided.pop(grain, None)
                self._mark(grain)
                self._dispatch.verified(grain, now)
                self._counters.grains_verified += 1
                if (asked := self._asked.pop(grain, None)) is not None:
                    self._watch.verified(now - asked)
                self._accepted.add(grain)
                self._all_lists = self._all_lists or bool(self._came)
                owner.accepted(grain)
        for proof in judgement.proofs:
            self._exclude(proof)
        for peer in judgement.suspended:
            self._sources.note(peer, "its bytes do not fit the midstates")
            self._bench(peer)
        self._benched.update(judgement.suspended)
        for peer in judgement.need_list_of:
            self._fetch_list(peer)
        for peer in sorted(self._benched - trust.suspended):
            self._benched.discard(peer)
            if peer in self._sources.haves:
                self._dispatch.add_source(peer, now, self._sources.haves[peer])
        if isinstance(trust, WholeTrust):
            if not trust.complete:
                await self._prove_whole(trust)
        else:
            self.want_lists()
        for grain in trust.wanted():
            self._dispatch.prefer(grain)
        owner.judged()

    def _take_back(self, grain: int) -> None:
        self._accepted.discard(grain)
        self._owner.taken_back(grain)

    def _mark(self, grain: int) -> None:
        self._partial.mark(grain, *self.trust.bounds(grain))
        self._owner.marked(grain)

    def _bench(self, peer: PeerID) -> None:
        self._dispatch.remove_source(peer, self._clock.seconds())
        self._owner.idle(peer)

    def _exclude(self, proof: Proof) -> None:
        self._counters.proofs += 1
        self._sources.haves.pop(proof.peer, None)
        self._sources.note(proof.peer, proof.detail)
        self._bench(proof.peer)
        self._owner.excluded(proof)

    # -- without midstates ------------------------------------------------------------------

    async def _prove_whole(self, trust: WholeTrust) -> None:
        """Once all is received, hash it; if that fails, go on with one peer at a time."""
        for grain in sorted(self._undecided):
            if trust.holds(grain):
                del self._undecided[grain]
                self._mark(grain)
        if trust.received and not self._hashing_whole:
            self._hashing_whole = True
            try:
                digest = await self._partial.hash_all()
            except LocalError as e:
                self._owner.fail(e)
                return
            finally:
                self._hashing_whole = False
            judgement = trust.verdict(digest == trust.digest)
            if trust.complete:
                await self._apply(judgement)
                return
            for proof in judgement.proofs:
                self._exclude(proof)
        if trust.failed and (trust.sole is None or trust.sole not in self._sources.haves):
            self._parole(trust)

    def next_sole(self) -> None:
        """The one peer that everything is taken from brings nothing: take it from another if there is one."""
        trust = self.trust
        if isinstance(trust, WholeTrust) and trust.sole is not None and len(self._sources.haves) > 1:
            self._parole(trust, without=trust.sole)

    def _parole(self, trust: WholeTrust, without: PeerID | None = None) -> None:
        now, haves = self._clock.seconds(), self._sources.haves
        sole = trust.parole(sorted(set(haves) - trust.convicted - {without}))
        if sole is None and without is None:
            self._owner.fail(PullFailed(trust.digest, self._sources.reasons))
        if sole is None:
            return
        for peer in self._sources.peers:
            if peer == sole:
                self._dispatch.add_source(peer, now, haves[peer])
            else:
                self._bench(peer)
        for grain in trust.missing():
            self._drop(grain)

    # -- lists --------------------------------------------------------------------------------

    async def _want_lists_soon(self) -> None:
        """
        A moment later: bytes are asked for first, on the connection that is kept if there is but one, and
        the list is somebody else's to give.
        """
        await sleep(self._clock, _MOMENT)
        self.want_lists()

    def want_lists(self) -> None:
        """
        Have as many lists under way or at hand as shall be compared; do without if nobody has any.

        The first is asked for alone, if it comes soon: it is all that a first grain needs.
        """
        usable = self._listed - self._listless - self.trust.convicted
        missing = (self._lists_wanted if self._all_lists else 1) - len(usable)
        if missing <= 0:
            return
        others = sorted(
            self._sources.complete - self._listed,
            key=lambda p: (p not in self._early, self._dispatch.asked_of(p), p),
        )
        del others[missing:]
        for peer in others:
            self._fetch_list(peer)
        if not usable and not others and self._sources.complete:
            self._do_without_lists()

    async def _want_all_lists(self) -> None:
        await sleep(self._clock, _LIST_ALONE)
        self._all_lists = True
        self.want_lists()
        await sleep(self._clock, _LISTS_TOGETHER)
        self._patient = False
        self._owner.judged()

    @property
    def comparing(self) -> bool:
        """Is a list on its way, or do those here differ? Then what one peer alone says had better wait."""
        came, trust = self._came - self.trust.convicted, self.trust
        coming = self._listed - self._listless - self._came
        if len(came) < self._lists_wanted:
            coming |= self._sources.complete - self._listed
        return self._patient and bool(coming or (len(came) > 1 and not trust.agreed))

    def _fetch_list(self, peer: PeerID) -> None:
        if peer not in self._listed and not isinstance(self.trust, WholeTrust) and self._grains.count > 1:
            if not self._listed:
                self._tasks.start("waiting for a first list", self._want_all_lists())
            self._listed.add(peer)
            self._tasks.start("fetching midstates", self._offer_list(self._sources.peers[peer]))

    async def _offer_list(self, peer: Peer) -> None:
        trust = self.trust
        try:
            early = self._early.pop(peer.id, None)
            asking = self._client.midstates(peer, trust.digest, self._grains.size) if early is None else early
            midstates = await asking
        except PeerError as e:
            self.log.info("no midstates: {error}", error=e)
            self._all_lists = True
            self._listless.add(peer.id)
            self.want_lists()
            self._owner.judged()
            return
        self._came.add(peer.id)
        # One list and another peer's bytes speak for the grain a reader waits for: what can wait, does.
        self._all_lists = self._all_lists or bool(self._accepted or self._dispatch.asked_of(peer.id))
        if trust is self.trust:
            await self._apply(trust.offer(peer.id, midstates))

    def _do_without_lists(self) -> None:
        """Nobody can give midstates (foreign servers): prove the blob as a whole instead."""
        if isinstance(self.trust, WholeTrust):
            return
        self.log.info(
            "{digest}: nobody has midstates, so it is proven as a whole", digest=self.trust.digest.short
        )
        self.trust = WholeTrust(self.trust.digest, self._grains, self.trust.parties.relays)
        for peer, have in self._sources.haves.items():
            self.trust.claim(peer, complete=have is None)
        on_disk = sorted(self._accepted.union(self._undecided))
        for grain in sorted(self._accepted):
            self._take_back(grain)  # what it was believed by is gone
        for grain in on_disk:
            self.check_soon(grain)

"""Brings blobs here: one pull for all who miss the same id, from whoever holds it.

Decides when to look for holders again, when a pull is given up, and which claimed size to try next
when peers disagree (the most claimed first; a size is proven with the last grain). What a pull asks
of whom and whom it believes are ``core.dispatch`` and ``core.trust``.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Sequence
from random import Random
from typing import Any

from attrs import Factory, frozen
from twisted.internet.defer import CancelledError, DeferredSemaphore
from twisted.internet.defer import TimeoutError as TookTooLong
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from swarm.core.dispatch import Dispatch, DispatchSettings
from swarm.core.evidence import Proof
from swarm.core.sources import Sources as Ranking
from swarm.core.sources import SourceSettings
from swarm.core.standing import Standing
from swarm.core.trust import Trust
from swarm.core.trust_whole import WholeTrust
from swarm.errors import BlobMissing, Fault, LocalError, Overloaded, PeerError, PullFailed, SwarmError
from swarm.interfaces import BlobInfo, IBlobReader, IBlobStore, IPeerClient, ITombstones
from swarm.model.digest import Digest
from swarm.model.grains import Grains
from swarm.model.holdings import Holding
from swarm.model.peers import Peer, PeerID
from swarm.model.ranges import RangeSet
from swarm.services.progress import Counters, GrainWatch, PullProgress, Unwatched
from swarm.services.pull import Pull, PullSettings
from swarm.services.reading import PullReader
from swarm.services.tasks import Signal, Tasks, gather, sleep, within


@frozen
class FetchSettings:
    """Limits of all pulls together; seconds and counts."""

    gather: float = 0.1  # wait this long for more holders after the first (ANCHORS D1)
    answer_within: float = 6.0  # who does not say by then whether it has a blob is passed over this time
    search_every: float = 2.0  # look for holders again: partial ones grow, others come
    asked_again: int = 16  # of those that had nothing lately, so many at a time
    pulls_at_once: int = 64
    probation_after: float = 600.0  # a peer proven bad for a blob, and told so, may then serve it again
    retry_unfinished: float = 30.0  # pulls left over by an earlier run are tried again after this,
    resumes_at_once: int = 8  # so many at the same time
    pull: PullSettings = Factory(PullSettings)
    sources: SourceSettings = Factory(SourceSettings)


@frozen
class PartialView:
    """A running pull, as another peer may use it."""

    info: BlobInfo
    have: RangeSet
    reader: Callable[[], IBlobReader]


#: The one blob whose size needs no proof; a peer that claims no bytes of any other claims nonsense.
_EMPTY = Digest.of(b"")


class Fetcher:
    """I own all pulls of this node."""

    log = Logger()

    def __init__(
        self,
        store: IBlobStore,
        tombstones: ITombstones,
        client: IPeerClient,
        live: Callable[[], Sequence[Peer]],
        standing: Standing,
        settings: FetchSettings,
        dispatch: DispatchSettings,
        *,
        clock: IReactorTime,
        random: Random,
        tasks: Tasks,
        midstates: bool,
        acquainted: Callable[[], Coroutine[Any, Any, bool]],
        watch: GrainWatch | None = None,
    ) -> None:
        """
        Begin without pulls.

        :param midstates: can this node compute them?
        :param acquainted: see :meth:`swarm.services.membership.Membership.acquainted`.
        """
        self.counters = Counters()
        self._store = store
        self._tombstones = tombstones
        self._client = client
        self._live = live
        self._standing = standing
        self._settings = settings
        self._dispatch = dispatch
        self._clock = clock
        self._random = random
        self._tasks = tasks
        self._midstates = midstates
        self._acquainted = acquainted
        self._watch = watch or Unwatched()
        self._ranking = Ranking(settings.sources, random)
        self._fetches: dict[Digest, _Fetch] = {}
        self._stopping = False

    # -- reading ------------------------------------------------------------------

    async def open(self, digest: Digest) -> IBlobReader:
        """
        A reader of the blob: local bytes, or a pull that all who wait share.

        :raises BlobMissing: nobody reachable has it, or it is deleted or marked ``404``.
        :raises BlobForbidden: marked ``403``.
        :raises PullFailed: it exists, yet no source gave proven bytes.
        :raises StorageFull, VolumeReadOnly, StoreFailed, Overloaded:

        The size of what comes from a pull is what all holders say, or proven.
        """
        await self._store.check_markers(digest)
        try:
            return await self._store.open(digest)
        except BlobMissing:
            pass  # also if it was deleted from the swarm: it may have been put again elsewhere
        reader = await self._fetch(digest).reader()
        return await self._store.open(digest) if reader is None else reader

    async def open_local(self, digest: Digest) -> IBlobReader:
        """
        The same, from local bytes only.

        :raises BlobMissing, BlobForbidden, StoreFailed:
        """
        await self._store.check_markers(digest)
        return await self._store.open(digest)

    async def pull(self, digest: Digest) -> BlobInfo:
        """
        Bring the blob here and wait until it is published.

        :raises SwarmError: as :meth:`open`.
        """
        if info := await self._store.stat(digest):
            return info
        return await self._fetch(digest).finished()

    def serving(self, digest: Digest) -> PartialView | None:
        """What a running pull can already give to peers; None if nothing is running."""
        fetch = self._fetches.get(digest)
        if fetch is None or fetch.pull is None:
            return None
        return PartialView(fetch.pull.info, fetch.pull.servable(), fetch.pull.reader)

    def retries(self, digest: Digest) -> bool:
        """A reader got :class:`PullFailed`: shall it be opened anew, because peers claim another size too?"""
        fetch = self._fetches.get(digest)
        return fetch is not None and fetch.retries

    async def forget(self, digest: Digest) -> None:
        """
        The blob is being deleted: end its pull and drop what came so far.

        When this returns the blob was stored, to be deleted, or never will be.
        """
        if fetch := self._fetches.get(digest):
            await fetch.end(BlobMissing(digest, "deleted"), keep=False)

    # -- watching -------------------------------------------------------------------

    def progress(self, digest: Digest) -> PullProgress | None:
        """The running pull of a blob, if any."""
        fetch = self._fetches.get(digest)
        return fetch.pull.progress() if fetch is not None and fetch.pull is not None else None

    def pulls(self) -> tuple[PullProgress, ...]:
        """All running pulls."""
        return tuple(each.pull.progress() for each in self._fetches.values() if each.pull is not None)

    # -- running ----------------------------------------------------------------------

    async def resume_unfinished(self) -> None:
        """Go on with what an earlier run left; ends when all of it is here, gone or cancelled."""
        unfinished = await self._store.unfinished()
        self.counters.pulls_resumed += len(unfinished)
        turns = DeferredSemaphore(self._settings.resumes_at_once)
        for outcome in await gather(self._resume(digest, size, turns) for digest, size in unfinished):
            if isinstance(outcome, Failure):
                self.log.failure("a pull cannot be resumed", failure=outcome)

    async def _resume(self, digest: Digest, size: int, turns: DeferredSemaphore) -> None:
        self.log.info("resuming {digest}, {size} bytes", digest=digest.short, size=size)
        pause = 0.2  # peers are being greeted right now
        while not self._tombstones.buried(digest):
            try:
                async with turns:
                    await self.pull(digest)
                return
            except BlobMissing:
                pass  # nobody who is here now has it
            except SwarmError as e:
                self.log.warn("cannot resume {digest} yet: {error}", digest=digest.short, error=e)
            await sleep(self._clock, pause)
            pause = min(2 * pause, self._settings.retry_unfinished)
        partial = await self._store.partial(digest, size)
        await partial.discard()
        partial.close()

    async def stop(self) -> None:
        """End all pulls; what they verified stays on disk."""
        self._stopping = True
        error = Overloaded("the node is stopping")
        await gather(each.end(error, keep=True) for each in list(self._fetches.values()))

    def _fetch(self, digest: Digest) -> _Fetch:
        fetch = self._fetches.get(digest)
        if fetch is None:
            if self._stopping:
                raise Overloaded("the node is stopping")
            if len(self._fetches) >= self._settings.pulls_at_once:
                raise Overloaded("too many pulls at once")
            fetch = self._fetches[digest] = _Fetch(self, digest)
            self._tasks.start("pulling", fetch.run())
        return fetch

    # -- what a fetch uses ----------------------------------------------------------------

    async def met_more(self) -> bool:
        """After a start, wait a while until peers were met; False if they were already."""
        try:
            return await within(self._clock, self._settings.answer_within, self._acquainted())
        except TookTooLong:
            return True

    async def locate(self, peer: Peer, digest: Digest) -> Holding | None:
        """
        Ask one peer; None if it has nothing, or is in no standing, or has yet to hear of a deletion.

        A copy as new as our newest tombstone was put after it: then the blob is deleted no more.

        :raises PeerError: it did not say.
        :raises StorageFull, VolumeReadOnly, StoreFailed: that could not be noted.
        """
        if self._standing.barred(peer.id, digest, self._clock.seconds()) is not None:
            return None
        try:
            asking = self._client.locate(peer, digest)
            holding = await within(self._clock, self._settings.answer_within, asking)
        except TookTooLong as e:
            raise PeerError(peer.id, Fault.SILENT, "no answer in time") from e
        if holding is None:
            self._ranking.lacks(peer.id, digest, self._clock.seconds())
        else:
            self._ranking.gained(peer.id, digest)
            if self._tombstones.buried(digest) and holding.generation < self._tombstones.generation(digest):
                return None
            await self._tombstones.revive(digest, holding.generation)
        return holding

    def spared(self, digest: Digest) -> frozenset[PeerID]:
        """
        Live peers that had nothing of the blob lately, and are not asked again this time.

        Not all of them: others begin to pull it too, and then have something for us.
        """
        now = self._clock.seconds()
        lacking = sorted(p.id for p in self._live() if not self._ranking.may_have(p.id, digest, now))
        again = self._random.sample(lacking, min(self._settings.asked_again, len(lacking)))
        return frozenset(lacking).difference(again)

    def ranked(self, holdings: Iterable[Holding], size: int) -> tuple[Holding, ...]:
        """The holders that claim this size, those to ask first before the others."""
        attempts = self._ranking.attempts(holdings, self._clock.seconds())
        return next((each.active + each.spare for each in attempts if each.size == size), ())

    def delivered(self, peer: PeerID, well: bool) -> None:
        """A peer brought a span, or failed to."""
        note = self._ranking.worked if well else self._ranking.broke
        note(peer, self._clock.seconds())

    def convict(self, peer: Peer, proof: Proof) -> None:
        """A peer is proven bad for one blob: remember, say so, and tell it, so that it can heal itself."""
        self.log.error(
            "{name} ({peer}) gave wrong {kind} for {digest}, grain {grain}: {detail}",
            name=peer.name,
            peer=peer.id.short,
            kind=proof.kind,
            digest=proof.digest.short,
            grain=proof.grain,
            detail=proof.detail,
        )
        self._standing.convict(proof, self._clock.seconds())
        self._tasks.start("advising a peer", self._advise(peer, proof))

    async def _advise(self, peer: Peer, proof: Proof) -> None:
        where = "" if proof.grain is None else f" at grain {proof.grain}"
        try:
            await self._client.report_corrupt(
                peer, proof.digest, f"wrong {proof.kind}{where}: {proof.detail}"
            )
        except PeerError as e:
            self.log.info("could not advise {name}: {error}", name=peer.name, error=e)
            return
        await sleep(self._clock, self._settings.probation_after)
        self._standing.verified(peer.id, proof.digest, self._clock.seconds())


class _Fetch:
    """One id that is missing here, until it is here or given up. Pulls of several sizes may be tried."""

    def __init__(self, fetcher: Fetcher, digest: Digest) -> None:
        self.pull: Pull | None = None
        self._fetcher = fetcher
        self._digest = digest
        self._changed = Signal()
        self._stored: BlobInfo | None = None
        self._error: LocalError | None = None
        self._searched = False
        self._ended = False
        self._doom: LocalError | None = None  # why it is to end before its time,
        self._keep = True  # and whether what came is kept then
        self._holdings: dict[PeerID, Holding] = {}
        self._tried: set[int] = set()
        self._tasks = Tasks()

    # -- waiting for it ---------------------------------------------------------------

    async def reader(self) -> PullReader | None:
        """
        Wait until there is something to read from; None: the blob is here.

        :raises LocalError: there never will be.
        """
        while self._stored is None:
            if self._error is not None:
                raise self._error
            if self.pull is not None and self.pull.error is None and self._size_settled(self.pull):
                return self.pull.reader()
            await self._changed.wait()
        return None

    async def finished(self) -> BlobInfo:
        """Wait until the blob is published. :raises LocalError: it won't be."""
        while self._stored is None:
            if self._error is not None:
                raise self._error
            await self._changed.wait()
        return self._stored

    async def end(self, error: LocalError, *, keep: bool) -> None:
        """End with an error, and wait for that."""
        self._doom, self._keep = error, keep
        if self.pull is not None:
            self.pull.fail(error)
        self._changed.fire()
        while not self._ended:
            await self._changed.wait()

    def _size_settled(self, pull: Pull) -> bool:
        """May a reader be promised this size? If peers disagree, only once it is proven."""
        return pull.size_proven or len({each.size for each in self._holdings.values()}) == 1

    # -- running ------------------------------------------------------------------------

    async def run(self) -> None:
        """Search, pull, and tell who waits."""
        fetcher = self._fetcher
        try:
            self._stored = await self._attempts()
            fetcher.counters.pulls_finished += 1
        except CancelledError:
            self._error = Overloaded("the node is stopping")
            raise
        except LocalError as e:
            if not isinstance(e, BlobMissing) and e is not self._doom:
                fetcher.counters.pulls_failed += 1
                fetcher.log.warn("pull failed: {error}", error=e)
            self._error = e
        finally:
            if self._stored is None and self._error is None:
                self._error = PullFailed(self._digest, ("of an internal error",))
            del fetcher._fetches[self._digest]
            self._ended = True
            self._changed.fire()
            await self._tasks.stop()

    async def _attempts(self) -> BlobInfo:
        if info := await self._fetcher._store.stat(self._digest):
            return info  # it came since the miss
        await self._search_first()
        if not self._holdings and await self._fetcher.met_more():
            await self._search_first()
        if not self._holdings and self._doom is None:
            buried = self._fetcher._tombstones.buried(self._digest)
            raise BlobMissing(self._digest, "deleted from the swarm" if buried else "nobody reachable has it")
        self._fetcher.counters.pulls_started += 1
        failures: list[str] = []
        while self._doom is None and (size := self._best_size()) is not None:
            self._tried.add(size)
            try:
                return await self._attempt(size)
            except PullFailed as e:
                failures.extend(e.reasons)
        raise self._doom or PullFailed(self._digest, tuple(dict.fromkeys(failures)))

    @property
    def retries(self) -> bool:
        """If the pull fails, will another size be tried?"""
        return not self._ended and self._doom is None and self._best_size() is not None

    def _best_size(self) -> int | None:
        """The size most peers claim, of those not tried; of equals the one first heard of."""
        sizes = [each.size for each in self._holdings.values() if each.size not in self._tried]
        return max(sizes, key=sizes.count, default=None)

    async def _attempt(self, size: int) -> BlobInfo:
        fetcher, settings = self._fetcher, self._fetcher._settings
        partial = await fetcher._store.partial(self._digest, size)
        grains = Grains.of(size)
        pull = Pull(
            partial,
            Dispatch(grains, fetcher._dispatch, fetcher._random),
            (Trust if fetcher._midstates else WholeTrust)(self._digest, grains),
            fetcher._client,
            settings.pull,
            clock=fetcher._clock,
            counters=fetcher.counters,
            convict=fetcher.convict,
            delivered=fetcher.delivered,
            watch=fetcher._watch,
        )
        self.pull = pull
        beside = Tasks()
        try:
            if self._doom is not None:  # while the partial was opened
                raise self._doom
            pull.begin()
            self._feed(pull)
            self._changed.fire()
            beside.start("searching holders", self._search_on(pull))
            beside.start("waiting for a proven size", self._tell_size(pull))
            stored = await pull.outcome
            if stored is None:
                assert pull.error is not None
                raise pull.error
            return stored.info
        finally:
            self.pull = None
            await beside.stop()
            await pull.stop(keep=self._keep)

    async def _tell_size(self, pull: Pull) -> None:
        while not pull.size_proven:
            await pull.changed()
        self._changed.fire()

    # -- looking for holders ------------------------------------------------------------

    async def _search_first(self) -> None:
        """Ask every live peer; go on soon after the first has said yes, or when all have answered."""
        self._searched = False
        self._tasks.start("looking for holders", self._search_once())
        while not (self._searched or self._holdings or self._doom):
            await self._changed.wait()
        if not (self._searched or self._doom):
            await sleep(self._fetcher._clock, self._fetcher._settings.gather)

    async def _search_once(self) -> None:
        try:
            await self._search()
        finally:
            self._searched = True
            self._changed.fire()

    async def _search_on(self, pull: Pull) -> None:
        """Keep looking: partial holders grow, peers come back. A starved pull that finds nobody ends."""
        while True:
            await sleep(self._fetcher._clock, self._fetcher._settings.search_every)
            starved = pull.starved
            await self._search(skip=pull.complete_sources | self._fetcher.spared(self._digest))
            self._feed(pull)
            if starved and pull.starved:
                pull.fail(PullFailed(self._digest, pull.reasons))
                return

    async def _search(self, *, skip: frozenset[PeerID] = frozenset()) -> None:
        """Ask every live peer but those, and take in what each says when it says it."""
        peers = [peer for peer in self._fetcher._live() if peer.id not in skip]
        await gather(self._ask(peer) for peer in peers)

    async def _ask(self, peer: Peer) -> None:
        try:
            holding = await self._fetcher.locate(peer, self._digest)
        except PeerError as e:
            self._fetcher.log.debug("{error}", error=e)
            return
        if holding is None or (holding.size == 0) is not (self._digest == _EMPTY):
            if self.pull is not None:
                self.pull.lose(peer.id, "has it no more")
            self._holdings.pop(peer.id, None)
            return
        self._holdings[peer.id] = holding
        if self.pull is not None:
            self._feed(self.pull)
        self._changed.fire()

    def _feed(self, pull: Pull) -> None:
        """Tell the pull of its sources, and of more while it has fewer than it may: the best first."""
        taking = pull.sources
        room = self._fetcher._settings.sources.most_active - len(taking)
        for holding in self._fetcher.ranked(self._holdings.values(), pull.grains.size):
            if holding.peer.id in taking:
                pull.add(holding)
            elif room > 0:
                pull.add(holding)
                room -= holding.peer.id in pull.sources

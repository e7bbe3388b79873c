"""Brings blobs here: one pull for all who miss the same id, from whoever holds it.

Decides when to look for holders again, when a pull is given up, and which claimed size to try next
when peers disagree (the most claimed first; a size is proven with the last grain). What a pull asks
of whom and whom it believes are ``core.dispatch`` and ``core.trust``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

from attrs import Factory, frozen
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from swarm.core.dispatch import Dispatch, DispatchSettings
from swarm.core.evidence import Proof
from swarm.core.standing import Standing
from swarm.core.trust import Trust
from swarm.core.trust_whole import WholeTrust
from swarm.errors import BlobMissing, LocalError, Overloaded, PeerError, PullFailed, SwarmError
from swarm.interfaces import BlobInfo, IBlobReader, IBlobStore, IPeerClient, ITombstones
from swarm.model.digest import Digest
from swarm.model.grains import Grains
from swarm.model.holdings import Holding
from swarm.model.peers import Peer, PeerID
from swarm.model.ranges import RangeSet
from swarm.services.progress import Counters, PullProgress
from swarm.services.pull import Pull, PullSettings
from swarm.services.tasks import Signal, Tasks, gather, sleep


@frozen
class FetchSettings:
    """Limits of all pulls together; seconds and counts."""

    gather: float = 0.1  # wait this long for more holders after the first (ANCHORS D1)
    search_every: float = 2.0  # look for holders again: partial ones grow, others come
    pulls_at_once: int = 64
    probation_after: float = 600.0  # a peer proven bad for a blob, and told so, may then serve it again
    retry_unfinished: float = 30.0  # pulls left over by an earlier run are tried again after this
    pull: PullSettings = Factory(PullSettings)


@frozen
class PartialView:
    """A running pull, as another peer may use it."""

    info: BlobInfo
    have: RangeSet
    reader: Callable[[], IBlobReader]


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
    ) -> None:
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
        self._fetches: dict[Digest, _Fetch] = {}

    # -- reading ------------------------------------------------------------------

    async def open(self, digest: Digest) -> IBlobReader:
        """
        A reader of the blob: local bytes, or a pull that all who wait share.

        :raises BlobMissing: nobody reachable has it, or it is deleted or marked ``404``.
        :raises BlobForbidden: marked ``403``.
        :raises PullFailed: it exists, yet no source gave proven bytes.
        :raises StorageFull, VolumeReadOnly, StoreFailed, Overloaded:
        """
        await self._store.check_markers(digest)
        try:
            return await self._store.open(digest)
        except BlobMissing:
            if self._tombstones.buried(digest):
                raise BlobMissing(digest, "deleted from the swarm") from None
        return (await self._fetch(digest).ready()).reader()

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

    def forget(self, digest: Digest) -> None:
        """The blob is being deleted: stop pulling it and drop what came so far."""
        if fetch := self._fetches.get(digest):
            self._tasks.start("dropping a pull", fetch.discard(BlobMissing(digest, "deleted")))

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
        unfinished = dict(await self._store.unfinished())
        pause = 0.2  # peers are being greeted right now
        for digest, size in unfinished.items():
            self.log.info("resuming {digest}, {size} bytes", digest=digest.short, size=size)
        self.counters.pulls_resumed += len(unfinished)
        while unfinished:
            for digest in list(unfinished):
                try:
                    await self.pull(digest)
                except BlobMissing:
                    continue  # nobody who is here now has it
                except SwarmError as e:
                    self.log.warn("cannot resume {digest} yet: {error}", digest=digest.short, error=e)
                    continue
                del unfinished[digest]
            if unfinished:
                await sleep(self._clock, pause)
                pause = min(2 * pause, self._settings.retry_unfinished)

    async def stop(self) -> None:
        """Stop all pulls; what they verified stays on disk."""
        await gather(each.abandon() for each in list(self._fetches.values()))

    def _fetch(self, digest: Digest) -> _Fetch:
        fetch = self._fetches.get(digest)
        if fetch is None:
            if len(self._fetches) >= self._settings.pulls_at_once:
                raise Overloaded("too many pulls at once")
            fetch = self._fetches[digest] = _Fetch(self, digest)
            self._tasks.start("pulling", fetch.run())
        return fetch

    # -- what a fetch uses ----------------------------------------------------------------

    async def locate(self, peer: Peer, digest: Digest) -> Holding | None:
        """Ask one peer; None for no, unreachable, or in no standing."""
        if self._standing.barred(peer.id, digest, self._clock.seconds()) is not None:
            return None
        try:
            return await self._client.locate(peer, digest)
        except PeerError as e:
            self.log.debug("{error}", error=e)
            return None

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


class _Fetch:
    """One id that is missing here, until it is here or given up. Pulls of several sizes may be tried."""

    def __init__(self, fetcher: Fetcher, digest: Digest) -> None:
        self.pull: Pull | None = None
        self._fetcher = fetcher
        self._digest = digest
        self._changed = Signal()
        self._stored: BlobInfo | None = None
        self._error: LocalError | None = None
        self._holdings: dict[PeerID, Holding] = {}
        self._running: Deferred[None] | None = None

    # -- waiting for it ---------------------------------------------------------------

    async def ready(self) -> Pull:
        """Wait until there is something to read from. :raises LocalError: there never will be."""
        while self.pull is None:
            if self._error is not None:
                raise self._error
            await self._changed.wait()
        return self.pull

    async def finished(self) -> BlobInfo:
        """Wait until the blob is published. :raises LocalError: it won't be."""
        while self._stored is None:
            if self._error is not None:
                raise self._error
            await self._changed.wait()
        return self._stored

    async def abandon(self) -> None:
        """The node stops."""
        if self.pull is not None:
            await self.pull.stop()

    async def discard(self, error: LocalError) -> None:
        """End with an error, and keep nothing."""
        if self.pull is not None:
            self.pull.fail(error)
            await self.pull.stop()
            await self.pull.discard()

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
            if not isinstance(e, BlobMissing):
                fetcher.counters.pulls_failed += 1
                fetcher.log.warn("pull failed: {error}", error=e)
            self._error = e
        finally:
            if fetcher._fetches.get(self._digest) is self:
                del fetcher._fetches[self._digest]
            self._changed.fire()

    async def _attempts(self) -> BlobInfo:
        await self._search(first=True)
        if not self._holdings:
            raise BlobMissing(self._digest, "nobody reachable has it")
        self._fetcher.counters.pulls_started += 1
        tried: set[int] = set()
        failures: list[str] = []
        while (size := self._best_size(tried)) is not None:
            tried.add(size)
            try:
                return await self._attempt(size)
            except PullFailed as e:
                failures.extend(e.reasons)
        raise PullFailed(self._digest, tuple(dict.fromkeys(failures)))

    def _best_size(self, tried: set[int]) -> int | None:
        """The size most peers claim, of those not tried; of equals the one first heard of."""
        sizes = [each.size for each in self._holdings.values() if each.size not in tried]
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
        )
        self.pull = pull
        searching = Tasks()
        try:
            for holding in list(self._holdings.values()):
                pull.add(holding)
            pull.begin()
            self._changed.fire()
            searching.start("searching holders", self._search_on(pull))
            stored = await pull.outcome
            if stored is None:
                assert pull.error is not None
                raise pull.error
            return stored.info
        finally:
            self.pull = None
            await searching.stop()
            await pull.stop()

    # -- looking for holders ------------------------------------------------------------

    async def _search_on(self, pull: Pull) -> None:
        """Keep looking: partial holders grow, peers come back. A starved pull that finds nobody ends."""
        while True:
            await sleep(self._fetcher._clock, self._fetcher._settings.search_every)
            starved = pull.starved
            await self._search(skip=pull.complete_sources)
            if starved and pull.starved:
                pull.fail(PullFailed(self._digest, pull.reasons))
                return

    async def _search(self, *, first: bool = False, skip: frozenset[PeerID] = frozenset()) -> None:
        """Ask every live peer; the first time go on soon after the first has said yes."""
        peers = [peer for peer in self._fetcher._live() if peer.id not in skip]
        found = Signal()
        asking = Deferred.fromCoroutine(gather(self._ask(peer, found) for peer in peers))
        if not first:
            await asking
            return
        asking.addBoth(lambda _: found.fire())
        while not self._holdings and not asking.called:
            await found.wait()
        if not asking.called:
            await sleep(self._fetcher._clock, self._fetcher._settings.gather)

    async def _ask(self, peer: Peer, found: Signal) -> None:
        holding = await self._fetcher.locate(peer, self._digest)
        if holding is None:
            if self.pull is not None and peer.id in self._holdings:
                self.pull.lose(peer.id, "has it no more")
            self._holdings.pop(peer.id, None)
            return
        self._holdings[peer.id] = holding
        if self.pull is not None:
            self.pull.add(holding)
        found.fire()

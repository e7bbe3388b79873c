"""Brings blobs here: one pull for all who miss the same id, from whoever holds it.

Decides how many pulls run at once and how left-overs of an earlier run are taken up again. One id's
search and pull is ``fetch``'s; what a pull asks of whom and whom it believes are ``core.dispatch`` and
``core.trust``.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Coroutine, Sequence
from random import Random
from typing import Any

from attrs import frozen
from twisted.internet.defer import DeferredSemaphore
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from swarm.core.dispatch import DispatchSettings
from swarm.core.standing import Standing
from swarm.errors import BlobMissing, Overloaded, SwarmError
from swarm.interfaces import BlobInfo, IBlobReader, IBlobStore, IPeerClient, ITombstones
from swarm.model.digest import Digest
from swarm.model.peers import Peer, PeerID
from swarm.model.ranges import RangeSet
from swarm.services.fetch import Fetch
from swarm.services.holders import Holders
from swarm.services.progress import Counters, GrainWatch, PullProgress, Unwatched
from swarm.services.settings import FetchSettings
from swarm.services.tasks import Tasks, gather, sleep


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
        me: Callable[[], PeerID],
        clock: IReactorTime,
        random: Random,
        tasks: Tasks,
        midstates: bool,
        acquainted: Callable[[], Coroutine[Any, Any, bool]],
        watch: GrainWatch | None = None,
    ) -> None:
        """
        Begin without pulls.

        :param me: who this node is.
        :param midstates: can this node compute them?
        :param acquainted: see :meth:`swarm.services.membership.Membership.acquainted`.
        """
        self.counters = Counters()
        self._store = store
        self._tombstones = tombstones
        self._settings = settings
        self._clock = clock
        self._tasks = tasks
        self.holders = Holders(
            client,
            tombstones,
            live,
            standing,
            settings,
            clock=clock,
            random=random,
            tasks=tasks,
            acquainted=acquainted,
        )
        self._make = functools.partial(
            Fetch,
            me=me,
            store=store,
            tombstones=tombstones,
            client=client,
            holders=self.holders,
            settings=settings,
            dispatch=dispatch,
            midstates=midstates,
            clock=clock,
            random=random,
            counters=self.counters,
            watch=watch or Unwatched(),
        )
        self._fetches: dict[Digest, Fetch] = {}
        self._stopping = False

    # -- reading ------------------------------------------------------------------

    async def open(self, digest: Digest, near: int | None = None) -> IBlobReader:
        """
        A reader of the blob: local bytes, or a pull that all who wait share.

        :param near: see :meth:`swarm.services.fetch.Fetch.reader`.

        :raises BlobMissing: nobody reachable has it, or it is deleted or marked ``404``.
        :raises BlobForbidden: marked ``403``.
        :raises PullFailed: it exists, yet no source gave proven bytes.
        :raises StorageFull, VolumeReadOnly, StoreFailed, Overloaded:

        The size of what comes from a pull is what all holders say, or proven.
        """
        try:
            return await self._store.open(digest)
        except BlobMissing as e:
            if not e.nothing:
                await self._store.check_markers(digest)
        # Also if it was deleted from the swarm: it may have been put again elsewhere.
        reader = await self._fetch(digest).reader(near)
        return await self._store.open(digest) if reader is None else reader

    async def open_local(self, digest: Digest) -> IBlobReader:
        """
        The same, from local bytes only.

        :raises BlobMissing, BlobForbidden, StoreFailed:
        """
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
        return PartialView(fetch.pull.info, fetch.pull.servable(), fetch.pull.passing_reader)

    def notice(self, digest: Digest, peer: PeerID) -> None:
        """A peer asks us for a blob: if we pull it, so does the peer, or is about to."""
        if (fetch := self._fetches.get(digest)) is not None:
            fetch.notice(peer)

    def peer_came(self, peer: Peer) -> None:
        """Somebody joined or came back: pulls that left it alone for being away ask it again."""
        for fetch in self._fetches.values():
            fetch.returned(peer.id)

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

    def _fetch(self, digest: Digest) -> Fetch:
        fetch = self._fetches.get(digest)
        if fetch is None:
            if self._stopping:
                raise Overloaded("the node is stopping")
            if len(self._fetches) >= self._settings.pulls_at_once:
                raise Overloaded("too many pulls at once")
            fetch = self._fetches[digest] = self._make(digest, lambda: self._fetches.pop(digest, None))
            self._tasks.start("pulling", fetch.run())
        return fetch


__all__ = ["FetchSettings", "Fetcher", "PartialView"]

"""Deletes blobs: here, or everywhere with a tombstone that also reaches nodes that are away now.

Decides who must still hear of a deletion. A tombstone opens a new generation of the id (see
``ITombstones``): copies of an older generation go, newer ones stay, so it never matters how late a
tombstone arrives.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

from attrs import define, frozen
from twisted.internet.defer import TimeoutError as TookTooLong
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from swarm.core.backoff import Backoff
from swarm.core.feeds import AWAY
from swarm.errors import BlobMissing, LocalError, PeerError
from swarm.interfaces import BlobInfo, IBlobStore, IPeerClient, ITombstones
from swarm.model.digest import Digest
from swarm.model.peers import Peer, PeerID
from swarm.services.tasks import Signal, gather


@frozen
class DeletionSettings:
    """
    How often undelivered tombstones are tried again; seconds.

    :param retry_every: who is away is tried this often; of who refuses, each try doubles it, up to
    :param refused_most: this.
    """

    retry_every: float = 15.0
    refused_most: float = 600.0


@frozen
class Deleted:
    """Who confirmed a swarm-wide deletion, and who will be told later; node names."""

    info: BlobInfo | None
    confirmed: tuple[str, ...]
    pending: tuple[str, ...]


@define
class _Refusal:
    """A peer that was reached and took no tombstone."""

    times: int = 0  # in a row
    until: float = 0.0  # it is left alone


class Deletion:
    """I remove blobs and deliver tombstones."""

    log = Logger()

    def __init__(
        self,
        store: IBlobStore,
        tombstones: ITombstones,
        client: IPeerClient,
        peers: Callable[[], Sequence[Peer]],
        settings: DeletionSettings,
        *,
        name: str,
        clock: IReactorTime,
        forget: Callable[[Digest], Awaitable[None]],
    ) -> None:
        """
        :param peers: all peers known, also those that are silent.
        :param forget: ends a pull of the blob; when it returns, the blob was stored or never will be.
        """
        self._store = store
        self._tombstones = tombstones
        self._client = client
        self._peers = peers
        self._settings = settings
        self._name = name
        self._clock = clock
        self._forget = forget
        #: Buried, or about to be, with the copy perhaps still here: a disk kept us from removing it, or
        #: whoever told us hung up, which ends what is done for them at any await.
        self._unfinished: set[Digest] = set()
        self._refusals: dict[PeerID, _Refusal] = {}
        most = max(settings.retry_every, settings.refused_most)
        self._backoff = Backoff(settings.retry_every, most, floor=0.0)
        self._returns = Signal()

    async def here(self, digest: Digest) -> BlobInfo:
        """
        Remove this node's copy, and stop a pull of it.

        :raises BlobMissing: there is none.
        """
        await self._forget(digest)
        return await self._store.delete(digest)

    async def everywhere(self, digest: Digest) -> Deleted:
        """
        Remove all copies. The tombstone, and whom it is owed to, are durable before anything is removed.

        :raises StorageFull, VolumeReadOnly, StoreFailed: it may be that not all was removed; try again.
        """
        peers = {peer.id: peer for peer in self._peers()}
        generation = self._tombstones.generation(digest)
        if self._tombstones.buried(digest):
            await self._tombstones.owe(digest, sorted(peers))
        else:
            generation += 1
            self._unfinished.add(digest)
            await self._tombstones.bury(digest, generation, sorted(peers))
        info = await self._remove(digest)
        told = await gather(self._deliver(peer, digest, generation) for peer in peers.values())
        confirmed, pending = [self._name], list[str]()
        for peer, outcome in zip(peers.values(), told, strict=True):
            if isinstance(outcome, Failure):
                self.log.failure("telling {name} of a deletion", failure=outcome, name=peer.name)
            (confirmed if outcome is True else pending).append(peer.name)
        return Deleted(info, tuple(confirmed), tuple(pending))

    async def ordered(self, digest: Digest, generation: int) -> bool:
        """
        A peer delivered a tombstone; durable when this returns. Delivered again, it is carried out again
        if the disk did not let it be the first time, and synced again in any case: who took the copy away
        may have been killed before that.

        :return: whether a copy was removed.
        :raises StorageFull, VolumeReadOnly, StoreFailed: it is not, and is to be delivered again.
        """
        if generation <= self._tombstones.generation(digest):
            if not self._tombstones.buried(digest):
                return False
            if digest not in self._unfinished:
                await self._store.sync_removal(digest)
                return False
        else:
            self._unfinished.add(digest)
            await self._tombstones.bury(digest, generation)
        return await self._remove(digest) is not None

    def check_generation(self, digest: Digest, generation: int) -> None:
        """:raises BlobMissing: a copy of this generation was deleted since."""
        if generation < self._tombstones.generation(digest):
            raise BlobMissing(digest, "deleted from the swarm")

    async def deliver_forever(self) -> None:
        """Hand over owed tombstones as peers come back; ends only by cancellation."""
        while True:
            await self._pause()
            await self._finish()
            now = self._clock.seconds()
            peers = [peer for peer in self._peers() if self._refusals.get(peer.id, _Refusal()).until <= now]
            try:
                await self._deliver_owed(peers)
            except LocalError as e:
                self.log.error("cannot deliver tombstones now: {error}", error=e)

    async def deliver_owed(self) -> None:
        """Try every owed tombstone whose peer is known; one that does not take it gets no more this time."""
        await self._deliver_owed(self._peers())

    def peer_came(self, peer: Peer) -> None:
        """It joined or came back: what it is owed is told at once."""
        self._refusals.pop(peer.id, None)
        self._returns.fire()

    async def _finish(self) -> None:
        """Remove what was buried and not removed."""
        for digest in sorted(self._unfinished):
            if self._tombstones.buried(digest):
                try:
                    await self._remove(digest)
                except LocalError as e:
                    self.log.error("cannot delete {digest} now: {error}", digest=digest.short, error=e)

    async def _pause(self) -> None:
        with suppress(TookTooLong):
            await self._returns.wait().addTimeout(self._settings.retry_every, self._clock)

    async def _deliver_owed(self, among: Sequence[Peer]) -> None:
        peers = {peer.id: peer for peer in among}
        due: dict[PeerID, list[tuple[Digest, int]]] = {}
        for digest, generation, owed_to in await self._tombstones.owed():
            if owed_to in peers:
                due.setdefault(owed_to, []).append((digest, generation))
        for outcome in await gather(self._deliver_all(peers[peer], owed) for peer, owed in due.items()):
            if isinstance(outcome, Failure):
                outcome.raiseException()

    async def _deliver_all(self, peer: Peer, owed: Sequence[tuple[Digest, int]]) -> None:
        for digest, generation in owed:
            if not await self._deliver(peer, digest, generation):
                return

    async def _deliver(self, peer: Peer, digest: Digest, generation: int) -> bool:
        try:
            await self._client.delete(peer, digest, generation)
        except PeerError as e:
            self.log.info("tombstone of {digest} waits: {error}", digest=digest.short, error=e)
            if e.fault not in AWAY:  # who is away may be back at any moment
                refusal = self._refusals.setdefault(peer.id, _Refusal())
                refusal.times += 1
                refusal.until = self._clock.seconds() + self._backoff.most(refusal.times)
            return False
        self._refusals.pop(peer.id, None)
        try:
            await self._tombstones.paid(digest, peer.id)
        except LocalError as e:  # it is told again, which harms nobody
            self.log.error("cannot note who was told of {digest}: {error}", digest=digest.short, error=e)
        return True

    async def _remove(self, digest: Digest) -> BlobInfo | None:
        self._unfinished.add(digest)
        try:
            info = await self.here(digest)
        except BlobMissing:
            info = None
        self._unfinished.discard(digest)
        return info

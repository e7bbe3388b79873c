"""Hints, peers and tombstones: views of one catalog, each a port of :mod:`swarm.interfaces`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from threading import Lock

from attrs import define, field
from zope.interface import implementer

from swarm.interfaces import IHintStore, IPeerBook, ITombstones
from swarm.model.digest import Digest
from swarm.model.peers import Peer, PeerID
from swarm.storage.catalog import Catalog
from swarm.storage.work import Work


@implementer(IHintStore)
@define(eq=False)
class Hints:
    """Durable notes of blobs that still lack copies."""

    _catalog: Catalog
    _work: Work

    async def add(self, digest: Digest, copies: int) -> None:
        """See :meth:`IHintStore.add`."""
        await self._work.in_thread(self._catalog.put_hint, digest, copies)

    async def remove(self, digest: Digest) -> None:
        """See :meth:`IHintStore.remove`."""
        await self._work.in_thread(self._catalog.drop_hint, digest)

    async def pending(self) -> Sequence[tuple[Digest, int]]:
        """See :meth:`IHintStore.pending`."""
        return await self._work.in_thread(self._catalog.hints)


@implementer(IPeerBook)
@define(eq=False)
class PeerBook:
    """Peers met."""

    _catalog: Catalog
    _work: Work

    async def save(self, met: Sequence[tuple[Peer, float]]) -> None:
        """See :meth:`IPeerBook.save`."""
        await self._work.in_thread(self._catalog.put_peers, met)

    async def load(self) -> Sequence[tuple[Peer, float]]:
        """See :meth:`IPeerBook.load`."""
        return await self._work.in_thread(self._catalog.peers)


@implementer(ITombstones)
@define(eq=False)
class Tombstones:
    """All tombstones are kept in memory too: they are asked for on every miss."""

    _catalog: Catalog
    _work: Work
    _known: dict[Digest, tuple[int, bool]] = field(factory=dict)
    _writing: Lock = field(factory=Lock)

    async def load(self) -> None:
        """Read them; once, before anything else here."""
        rows = await self._work.in_thread(self._catalog.tombstones)
        self._known = {digest: (generation, buried) for digest, generation, buried in rows}

    def generation(self, digest: Digest) -> int:
        """See :meth:`ITombstones.generation`."""
        return self._known.get(digest, (0, False))[0]

    def buried(self, digest: Digest) -> bool:
        """See :meth:`ITombstones.buried`."""
        return self._known.get(digest, (0, False))[1]

    async def bury(self, digest: Digest, generation: int, owed_to: Iterable[PeerID] = ()) -> None:
        """See :meth:`ITombstones.bury`."""
        if generation > self.generation(digest):
            await self._set(digest, generation, True, tuple(owed_to))

    async def revive(self, digest: Digest, generation: int) -> None:
        """See :meth:`ITombstones.revive`."""
        known = self.generation(digest)
        if generation > known or (generation == known and self.buried(digest)):
            await self._set(digest, generation, False)

    async def owe(self, digest: Digest, peers: Iterable[PeerID]) -> None:
        """See :meth:`ITombstones.owe`."""
        await self._work.in_thread(self._catalog.put_owed, digest, tuple(peers))

    async def paid(self, digest: Digest, peer: PeerID) -> None:
        """See :meth:`ITombstones.paid`."""
        await self._work.in_thread(self._catalog.drop_owed, digest, peer)

    async def owed(self) -> Sequence[tuple[Digest, int, PeerID]]:
        """See :meth:`ITombstones.owed`."""
        rows = await self._work.in_thread(self._catalog.owed)
        return [(digest, self.generation(digest), peer) for digest, peer in rows]

    async def _set(
        self, digest: Digest, generation: int, buried: bool, owed_to: Sequence[PeerID] = ()
    ) -> None:
        def write() -> None:
            # Not the blob's own lock: reading it to verify it may take minutes.
            with self._writing:
                known = self._known.get(digest, (0, False))  # may be newer than when we were called
                if generation > known[0] or (generation == known[0] and not buried):
                    self._catalog.put_tombstone(digest, generation, buried, owed_to)
                    self._known[digest] = (generation, buried)

        await self._work.in_thread(write)

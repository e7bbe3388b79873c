"""The store in memory: the twin of :mod:`swarm.storage` that services are tested with.

It passes the same contract suite (:mod:`swarm.testing.contracts`), so what a test learns from it
holds for the real one. Nothing here waits: every coroutine is done at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from attrs import define, field
from zope.interface import implementer

from swarm.errors import (
    BlobForbidden,
    BlobMissing,
    DigestMismatch,
    LengthMismatch,
    LocalError,
    MethodDenied,
    StorageFull,
    StoreFailed,
    VolumeReadOnly,
)
from swarm.hashing import Sha512, load
from swarm.interfaces import (
    BlobInfo,
    IBlobReader,
    IBlobStore,
    IBlobWriter,
    IHintStore,
    IPartial,
    IPeerBook,
    ITombstones,
    Stored,
    Usage,
)
from swarm.model.digest import Digest
from swarm.model.filenames import Filename
from swarm.model.grains import Grains
from swarm.model.midstates import Midstates
from swarm.model.peers import Peer, PeerID


@define(eq=False)
class _Blob:
    data: bytes
    names: tuple[Filename, ...] = ()


@define(eq=False)
class _Pull:
    """What a partial leaves behind for the next start."""

    data: bytearray
    records: dict[int, tuple[bytes | None, bytes]] = field(factory=dict)


@implementer(IBlobReader)
@define(eq=False)
class MemoryReader:
    """A complete blob, open."""

    info: BlobInfo
    _data: bytes
    blocking: bool = False
    """Answer :meth:`read_now` as a disk does that has nothing cached."""
    closed: bool = False

    async def available(self, offset: int, stop: int) -> int:
        """See :meth:`IBlobReader.available`."""
        return min(stop, self.info.size)

    def read_now(self, offset: int, length: int) -> bytes | None:
        """See :meth:`IBlobReader.read_now`."""
        assert not self.closed
        return None if self.blocking else self._data[offset : offset + length]

    async def read(self, offset: int, length: int) -> bytes:
        """See :meth:`IBlobReader.read`."""
        assert not self.closed
        data = self._data[offset : offset + length]
        if len(data) < length:
            raise StoreFailed(f"{self.info.digest.short} ends at {offset + len(data)} of {self.info.size}")
        return data

    def fileno(self) -> int:
        """See :meth:`IBlobReader.fileno`: there is none."""
        return -1

    def close(self) -> None:
        """See :meth:`IBlobReader.close`."""
        assert not self.closed, "closed twice"
        self.closed = True


@implementer(IBlobWriter)
@define(eq=False)
class MemoryWriter:
    """A write under way."""

    _store: MemoryStore
    _length: int | None
    _expect: Digest | None
    received: int = 0
    behind: bool = False
    """Make the writer lag until this is False again."""
    _data: bytearray = field(factory=bytearray)
    _failure: LocalError | None = None
    _ended: bool = False

    def write(self, data: bytes) -> None:
        """See :meth:`IBlobWriter.write`."""
        self._check()
        try:
            if self._length is None:
                self._store.check_room(len(data))
            elif self.received + len(data) > self._length:
                raise LengthMismatch(f"more than the declared {self._length} bytes")
            self._store.check_disk()
        except LocalError as e:
            self._failure = e
            raise
        self._data += data
        self.received += len(data)

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure
        if self._ended:
            raise StoreFailed("the write is over")

    def lagging(self) -> bool:
        """See :meth:`IBlobWriter.lagging`."""
        return self.behind

    async def caught_up(self) -> None:
        """See :meth:`IBlobWriter.caught_up`."""
        self.behind = False

    async def finish(self, name: Filename | None = None) -> Stored:
        """See :meth:`IBlobWriter.finish`."""
        try:
            self._check()
            if self._length is not None and self.received != self._length:
                raise LengthMismatch(f"{self.received} bytes instead of the declared {self._length}")
            self._store.check_disk()
            digest = Digest.of(bytes(self._data))
            if self._expect is not None and digest != self._expect:
                raise DigestMismatch(self._expect.hex, digest.hex)
            return self._store.keep(bytes(self._data), () if name is None else (name,))
        finally:
            self.abort()

    def abort(self) -> None:
        """See :meth:`IBlobWriter.abort`."""
        if not self._ended:
            self._ended = True
            self._store.writing.discard(self)
            self._data.clear()

    @property
    def reserved(self) -> int:
        """Bytes this write keeps others from taking."""
        return self.received if self._length is None else self._length


@implementer(IPartial)
@define(eq=False)
class MemoryPartial:
    """A pull under way."""

    _store: MemoryStore
    digest: Digest
    grains: Grains
    _pull: _Pull
    journaled: Sequence[int]
    _pending: dict[int, tuple[bytes | None, bytes] | None] = field(factory=dict)
    checkpoints: int = 0
    closed: bool = False
    _over: bool = False

    def write(self, offset: int, data: Iterable[memoryview]) -> None:
        """See :meth:`IPartial.write`."""
        if self._over:
            raise StoreFailed("late bytes for a pull that is over")
        self._store.check_disk()
        for view in data:
            self._pull.data[offset : offset + len(view)] = view
            offset += len(view)
        assert len(self._pull.data) == self.grains.size

    async def end_states(
        self, index: int, starts: Sequence[bytes | None], *, at_leisure: bool = False
    ) -> tuple[bytes, ...]:
        """See :meth:`IPartial.end_states`."""
        grain = bytes(self._pull.data[self.grains.start(index) : self.grains.stop(index)])
        return tuple(
            Digest.of(grain).raw
            if start is None
            else self._store.sha512.end_state(
                grain, self.grains.start(index), start, index == self.grains.last
            )
            for start in starts
        )

    async def hash_all(self) -> Digest:
        """See :meth:`IPartial.hash_all`."""
        return Digest.of(bytes(self._pull.data))

    async def recheck(self, index: int) -> tuple[bytes | None, bytes] | None:
        """See :meth:`IPartial.recheck`."""
        start, end = self._pull.records[index]
        return (start, end) if (await self.end_states(index, (start,))) == (end,) else None

    def mark(self, index: int, start: bytes | None, end: bytes) -> None:
        """See :meth:`IPartial.mark`."""
        self._pending[index] = (start, end)

    def unmark(self, index: int) -> None:
        """See :meth:`IPartial.unmark`."""
        self._pending[index] = None

    async def checkpoint(self) -> None:
        """See :meth:`IPartial.checkpoint`."""
        if self._over:
            return
        self._store.check_disk()
        self.checkpoints += 1
        for index, record in self._pending.items():
            if record is None:
                self._pull.records.pop(index, None)
            else:
                self._pull.records[index] = record
        self._pending.clear()

    async def publish(self, midstates: Midstates | None, names: Sequence[Filename] = ()) -> Stored:
        """See :meth:`IPartial.publish`."""
        self._store.check_disk()
        data = bytes(self._pull.data)
        assert Digest.of(data) == self.digest, "published without a proof"
        stored = self._store.keep(data, names)
        self._over = True
        self._store.pulls.pop(self.digest, None)
        return stored

    async def discard(self) -> None:
        """See :meth:`IPartial.discard`."""
        self._over = True
        self._store.pulls.pop(self.digest, None)

    def read_now(self, offset: int, length: int) -> bytes | None:
        """See :meth:`IPartial.read_now`."""
        return bytes(self._pull.data[offset : offset + length])

    async def read(self, offset: int, length: int) -> bytes:
        """See :meth:`IPartial.read`."""
        return bytes(self._pull.data[offset : offset + length])

    def close(self) -> None:
        """See :meth:`IPartial.close`."""
        self.closed = True


@implementer(IBlobStore)
class MemoryStore:
    """Blobs in a dictionary. Its attributes are for tests to look at and to turn."""

    def __init__(
        self,
        *,
        sha512: Sha512 | None = None,
        quota: int | None = None,
        reserve: int = 0,
        free: int = 1 << 40,
        deny: Iterable[str] = (),
    ) -> None:
        self.sha512 = sha512 or load()
        self.quota = quota
        self.reserve = reserve
        self.free = free
        self.deny = set(deny)
        self.blobs: dict[Digest, _Blob] = {}
        self.pulls: dict[Digest, _Pull] = {}
        self.writing: set[MemoryWriter] = set()
        self.markers: dict[Digest, set[str]] = {}
        self.quarantine: dict[Digest, bytes] = {}
        self.read_only: str | None = None
        self.disk_error: Callable[[], LocalError] | None = None
        """If set, what every write to the "disk" raises."""
        self.hints = MemoryHints()
        self.peers = MemoryPeerBook()
        self.tombstones = MemoryTombstones()

    # -- for tests ------------------------------------------------------------

    def put(self, data: bytes, name: str | None = None) -> Digest:
        """Store bytes at once."""
        return self.keep(data, () if name is None else (Filename.parse(name),)).info.digest

    def damage(self, digest: Digest) -> None:
        """Flip one bit of a stored blob (or cut an empty one's emptiness short by adding a byte)."""
        data = self.blobs[digest].data
        self.blobs[digest].data = bytes([data[0] ^ 1]) + data[1:] if data else b"\0"

    def check_disk(self) -> None:
        """Raise what a write raises now."""
        if self.disk_error is not None:
            raise self.disk_error()
        if self.read_only is not None:
            raise VolumeReadOnly(f"the volume is read-only since: {self.read_only}")

    def keep(self, data: bytes, names: Sequence[Filename] = ()) -> Stored:
        """Make bytes a blob, or confirm (or replace) the one there is."""
        self.check_disk()
        digest = Digest.of(data)
        old = self.blobs.get(digest)
        new = old is None
        if old is not None and old.data != data:
            self.quarantine[digest] = old.data
            new = True
        known = list(old.names) if old is not None else []
        for name in names:
            if name in known:
                known.remove(name)
            known.append(name)
        self.blobs[digest] = _Blob(data, tuple(known))
        return Stored(BlobInfo(digest, len(data), tuple(known)), new)

    # -- lifetime and limits --------------------------------------------------

    async def start(self) -> None:
        """See :meth:`IBlobStore.start`."""

    async def stop(self) -> None:
        """See :meth:`IBlobStore.stop`."""
        for writer in list(self.writing):
            writer.abort()

    def usage(self) -> Usage:
        """See :meth:`IBlobStore.usage`."""
        return Usage(
            blobs=len(self.blobs),
            bytes=self._held(),
            partials=len(self.pulls),
            free=self.free - self._held(),
            quota=self.quota,
            reserve=self.reserve,
            read_only=self.read_only,
        )

    def _held(self) -> int:
        return sum(len(blob.data) for blob in self.blobs.values())

    def check_allowed(self, method: str) -> None:
        """See :meth:`IBlobStore.check_allowed`."""
        if method in self.deny:
            raise MethodDenied(method)

    def check_room(self, length: int) -> None:
        """See :meth:`IBlobStore.check_room`."""
        if self.read_only is not None:
            self.check_disk()
        reserved = sum(writer.reserved for writer in self.writing)
        taken = self._held() + reserved + sum(len(pull.data) for pull in self.pulls.values()) + length
        if self.quota is not None and taken > self.quota:
            raise StorageFull(f"{length} bytes more would exceed the quota of {self.quota}")
        if taken + self.reserve > self.free:
            raise StorageFull(f"{length} bytes more would break into the reserve of {self.reserve}")

    async def check_markers(self, digest: Digest) -> None:
        """See :meth:`IBlobStore.check_markers`."""
        markers = self.markers.get(digest, set())
        if "403" in markers:
            raise BlobForbidden(digest)
        if "404" in markers:
            raise BlobMissing(digest, "marked missing")

    # -- reading --------------------------------------------------------------

    async def open(self, digest: Digest) -> MemoryReader:
        """See :meth:`IBlobStore.open`."""
        await self.check_markers(digest)
        if digest in self.blobs and not await self.verify(digest):
            raise BlobMissing(digest, "its copy here was damaged")
        blob = self._blob(digest)
        return MemoryReader(BlobInfo(digest, len(blob.data), blob.names), blob.data)

    def opened(self, key: bytes) -> None:
        """See :meth:`IBlobStore.opened`: nothing here is a file."""

    def _blob(self, digest: Digest) -> _Blob:
        try:
            return self.blobs[digest]
        except KeyError:
            raise BlobMissing(digest) from None

    async def stat(self, digest: Digest) -> BlobInfo | None:
        """See :meth:`IBlobStore.stat`."""
        blob = self.blobs.get(digest)
        return None if blob is None else BlobInfo(digest, len(blob.data), blob.names)

    async def midstates(self, digest: Digest) -> Midstates | None:
        """See :meth:`IBlobStore.midstates`."""
        blob = self.blobs.get(digest)
        if blob is None:
            return None
        grains = Grains.of(len(blob.data))
        if grains.count == 1:
            return Midstates(grains, b"")
        hasher = self.sha512.hasher()
        hasher.update(blob.data)
        if hasher.digest() != digest:
            await self.verify(digest)
            return None
        return hasher.midstates()

    async def verify(self, digest: Digest) -> bool:
        """See :meth:`IBlobStore.verify`."""
        good = Digest.of(self._blob(digest).data) == digest
        if not good:
            self.quarantine[digest] = self.blobs.pop(digest).data
        return good

    async def digests(self, after: Digest | None = None, limit: int = 1000) -> Sequence[Digest]:
        """See :meth:`IBlobStore.digests`."""
        return [each for each in sorted(self.blobs) if after is None or each > after][:limit]

    # -- writing --------------------------------------------------------------

    async def writer(self, length: int | None, expect: Digest | None = None) -> MemoryWriter:
        """See :meth:`IBlobStore.writer`."""
        self.check_room(length or 0)
        self.check_disk()
        writer = MemoryWriter(self, length, expect)
        self.writing.add(writer)
        return writer

    async def partial(self, digest: Digest, size: int) -> MemoryPartial:
        """See :meth:`IBlobStore.partial`."""
        pull = self.pulls.get(digest)
        if pull is None or len(pull.data) != size:
            self.pulls.pop(digest, None)
            self.check_room(size)
            self.check_disk()
            pull = self.pulls[digest] = _Pull(bytearray(size))
        return MemoryPartial(self, digest, Grains.of(size), pull, sorted(pull.records))

    def begun(self, digest: Digest) -> int | None:
        """See :meth:`IBlobStore.begun`."""
        pull = self.pulls.get(digest)
        return None if pull is None else len(pull.data)

    async def unfinished(self) -> Sequence[tuple[Digest, int]]:
        """See :meth:`IBlobStore.unfinished`."""
        return [(digest, len(pull.data)) for digest, pull in sorted(self.pulls.items())]

    async def add_name(self, digest: Digest, name: Filename) -> None:
        """See :meth:`IBlobStore.add_name`."""
        blob = self._blob(digest)
        self.check_disk()
        blob.names = (*(each for each in blob.names if each != name), name)

    async def delete(self, digest: Digest) -> BlobInfo:
        """See :meth:`IBlobStore.delete`."""
        blob = self._blob(digest)
        self.check_disk()
        del self.blobs[digest]
        return BlobInfo(digest, len(blob.data), blob.names)

    async def sync_removal(self, digest: Digest) -> None:
        """See :meth:`IBlobStore.sync_removal`."""
        self.check_disk()


@implementer(IHintStore)
@define(eq=False)
class MemoryHints:
    """Hints in a dictionary."""

    hints: dict[Digest, int] = field(factory=dict)

    async def add(self, digest: Digest, copies: int) -> None:
        """See :meth:`IHintStore.add`."""
        self.hints[digest] = copies

    async def remove(self, digest: Digest) -> None:
        """See :meth:`IHintStore.remove`."""
        self.hints.pop(digest, None)

    async def pending(self) -> Sequence[tuple[Digest, int]]:
        """See :meth:`IHintStore.pending`."""
        return sorted(self.hints.items())


@implementer(IPeerBook)
@define(eq=False)
class MemoryPeerBook:
    """Peers in a list."""

    met: list[tuple[Peer, float]] = field(factory=list)

    async def save(self, met: Sequence[tuple[Peer, float]]) -> None:
        """See :meth:`IPeerBook.save`."""
        self.met = list(met)

    async def load(self) -> Sequence[tuple[Peer, float]]:
        """See :meth:`IPeerBook.load`."""
        return list(self.met)


@implementer(ITombstones)
@define(eq=False)
class MemoryTombstones:
    """Tombstones in a dictionary."""

    known: dict[Digest, tuple[int, bool]] = field(factory=dict)
    debts: set[tuple[Digest, PeerID]] = field(factory=set)

    def generation(self, digest: Digest) -> int:
        """See :meth:`ITombstones.generation`."""
        return self.known.get(digest, (0, False))[0]

    def buried(self, digest: Digest) -> bool:
        """See :meth:`ITombstones.buried`."""
        return self.known.get(digest, (0, False))[1]

    async def bury(self, digest: Digest, generation: int, owed_to: Iterable[PeerID] = ()) -> None:
        """See :meth:`ITombstones.bury`."""
        if generation > self.generation(digest):
            self.known[digest] = (generation, True)
            await self.owe(digest, owed_to)

    async def revive(self, digest: Digest, generation: int) -> None:
        """See :meth:`ITombstones.revive`."""
        known = self.generation(digest)
        if generation > known or (generation == known and self.buried(digest)):
            self.known[digest] = (generation, False)

    async def owe(self, digest: Digest, peers: Iterable[PeerID]) -> None:
        """See :meth:`ITombstones.owe`."""
        self.debts.update((digest, peer) for peer in peers)

    async def paid(self, digest: Digest, peer: PeerID) -> None:
        """See :meth:`ITombstones.paid`."""
        self.debts.discard((digest, peer))

    async def owed(self) -> Sequence[tuple[Digest, int, PeerID]]:
        """See :meth:`ITombstones.owed`."""
        return [(digest, self.generation(digest), peer) for digest, peer in sorted(self.debts)]

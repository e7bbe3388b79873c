"""Blobs as plain files (CONTRACT, "On disk"): the store of a real node.

Puts the parts together and decides what needs a blob to itself. How bytes get there is decided in
:mod:`swarm.storage.publish`, when they are trusted in :mod:`swarm.storage.copies`, how much fits in
:mod:`swarm.storage.volume`.

Only the disk says what is held; the catalog knows when it was proven and what it adds up to.
"""

from __future__ import annotations

import os.path
from collections.abc import AsyncIterator, Sequence
from contextlib import closing
from itertools import count
from random import Random
from weakref import WeakValueDictionary

from twisted.internet.defer import DeferredSemaphore
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from swarm.errors import BlobForbidden, BlobMissing, MethodDenied, StoreFailed
from swarm.hashing import Sha512
from swarm.interfaces import BlobInfo, IBlobReader, IBlobStore, IBlobWriter, IPartial, RunBlocking, Usage
from swarm.model.digest import Digest
from swarm.model.filenames import Filename
from swarm.model.midstates import Midstates
from swarm.storage.adopt import Adopted, Adoption
from swarm.storage.catalog import Catalog
from swarm.storage.copies import Copies, Held
from swarm.storage.descriptor import Descriptor
from swarm.storage.disk import Disk
from swarm.storage.hashers import Hashers
from swarm.storage.layout import DATA, FORBIDDEN, INCOMING, MISSING, Layout
from swarm.storage.ledgers import Hints, PeerBook, Tombstones
from swarm.storage.open_files import OpenBlob, OpenFiles, Seen
from swarm.storage.partial import Workshop
from swarm.storage.partial_files import Shelf
from swarm.storage.partials import Partials
from swarm.storage.proof import Proof
from swarm.storage.proving_reader import Coverages, Inspection, ProvingReader
from swarm.storage.publish import Publisher
from swarm.storage.reader import BlobReader
from swarm.storage.reconcile import Reconciliation
from swarm.storage.settings import StoreSettings
from swarm.storage.small import SmallWriter
from swarm.storage.volume import Volume
from swarm.storage.work import Work
from swarm.storage.writer import BlobWriter


def _let_go(opened: tuple[Held, Seen]) -> None:
    held, seen = opened
    held.close()
    seen.directory.close()


@implementer(IBlobStore)
class FilesystemStore:
    """One data directory. ``hints``, ``peers`` and ``tombstones`` are its other ports."""

    log = Logger()

    def __init__(
        self,
        path: str,
        settings: StoreSettings,
        *,
        clock: IReactorTime,
        sha512: Sha512,
        run_blocking: RunBlocking,
        random: Random,
        disk: Disk | None = None,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._sha512 = sha512
        self._disk = disk = disk or Disk()
        self._layout = Layout(path)
        self._work = Work(run_blocking)
        self._catalog = Catalog(self._layout.catalog, disk=disk)
        self._volume = Volume(path, settings, disk, clock, self._catalog.totals)
        self._catalog.broken = self._volume.latch
        hashers = Hashers(self._work, DeferredSemaphore(settings.hashers), sha512, clock)
        self._open_files = OpenFiles(disk, clock, settings.open_files, settings.verify_after)
        self._publisher = Publisher(
            self._layout,
            settings,
            disk,
            self._volume,
            self._catalog,
            self._work,
            sha512,
            clock,
            random,
            self._open_files.doubt,
        )
        self._copies = Copies(
            self._layout,
            disk,
            self._volume,
            self._catalog,
            self._publisher,
            sha512,
            Proof(sha512, self._volume, self._work),
            self._work,
            clock,
        )
        self._coverages = Coverages(
            Inspection(self._copies, self._volume, self._work, hashers), settings.verify_after, clock
        )
        self._reconciliation = Reconciliation(
            self._layout, disk, self._volume, self._catalog, self._publisher, self._work, clock
        )
        self._partials = Partials(
            workshop=Workshop(
                shelf=Shelf(self._layout.partial, disk, self._volume),
                work=self._work,
                sha512=sha512,
                hashers=hashers,
                publish=self._publisher.publish_file,
            ),
            random_bytes=random.randbytes,
        )
        self._switches = {method: self._layout.deny(method) for method in ("get", "put", "delete")}
        self._lock: int | None = None
        self._writers: WeakValueDictionary[int, BlobWriter | SmallWriter] = WeakValueDictionary()
        self._begun = count()
        self.hints = Hints(self._catalog, self._work)
        self.peers = PeerBook(self._catalog, self._work)
        self.tombstones = Tombstones(self._catalog, self._work)

    # -- lifetime -------------------------------------------------------------

    async def start(self) -> None:
        """See :meth:`IBlobStore.start`. After an unclean stop, the disk is compared in the background."""
        await self._work.in_thread(self._prepare)
        await self.tombstones.load()
        self._reconciliation.start()

    def _prepare(self) -> None:
        layout, disk = self._layout, self._disk
        with self._volume.guard("preparing the data directory"):
            self._make(layout.root)
            try:
                self._lock = disk.lock(layout.lock)
            except BlockingIOError as e:
                raise StoreFailed(f"another process uses {layout.root}") from e
            for path in (layout.blobs, layout.partial, layout.quarantine):
                self._make(path)
            for name in disk.listdir(layout.blobs):
                if name.startswith(INCOMING):
                    disk.unlink(f"{layout.blobs}/{name}")
        self._catalog.open()
        with self._volume.guard("fsync of the data directory", sync=True):
            disk.fsync_dir(layout.root)

    def _make(self, path: str) -> None:
        """Make a directory durably, and those above it."""
        if not self._disk.exists(path):
            above = os.path.dirname(os.path.abspath(path))
            self._make(above)
            self._disk.mkdir(path)
            self._disk.fsync_dir(above)

    async def stop(self) -> None:
        """See :meth:`IBlobStore.stop`."""
        await self._reconciliation.stop()
        for writer in list(self._writers.values()):
            writer.abort()
        self._partials.close()
        await self._work.idle()
        self._open_files.close()
        await self._work.in_thread(self._close)

    def _close(self) -> None:
        self._publisher.close()
        if self._volume.read_only is not None:
            self._catalog.doubts += 1  # what was not synced may look otherwise after power was lost
        self._catalog.close()
        if self._lock is not None:
            lock, self._lock = self._lock, None
            self._disk.close(lock)

    async def adopt(self, source: str, *, hard_links: bool = False) -> AsyncIterator[Adopted]:
        """
        Take in all blobs of a dtfc store, verified and published durably; see :mod:`swarm.storage.adopt`.

        :param source: its base directory.
        :param hard_links: share files with the other store where a reflink is not possible.
        """
        adoption = Adoption(
            self._layout, self._disk, self._volume, self._publisher, self._catalog, self._sha512, hard_links
        )
        for found in adoption.walk(source):
            yield await self._work.exclusively(found.digest, adoption.take, found)

    # -- limits ---------------------------------------------------------------

    def usage(self) -> Usage:
        """See :meth:`IBlobStore.usage`."""
        return self._volume.usage()

    def check_allowed(self, method: str) -> None:
        """See :meth:`IBlobStore.check_allowed`."""
        if method in self._settings.deny or self._disk.exists(self._switches[method]):
            raise MethodDenied(method)

    def check_room(self, length: int) -> None:
        """See :meth:`IBlobStore.check_room`."""
        self._volume.check_room(length)

    async def check_markers(self, digest: Digest) -> None:
        """See :meth:`IBlobStore.check_markers`."""
        if self.opened(digest.hex.encode("ascii")) is None:  # else there is none, and no thread to ask
            await self._work.in_thread(self._check_markers, digest)

    def _check_markers(self, digest: Digest) -> None:
        if self._disk.exists(self._layout.file(digest, FORBIDDEN)):
            raise BlobForbidden(digest)
        if self._disk.exists(self._layout.file(digest, MISSING)):
            raise BlobMissing(digest, "marked missing")

    # -- reading --------------------------------------------------------------

    async def open(self, digest: Digest) -> IBlobReader:
        """See :meth:`IBlobStore.open`."""
        if (known := self.opened(digest.hex.encode("ascii"))) is not None:
            return self._reader(known.info, known.file.share())
        held = await self._found(digest)
        vouched = held.vouched
        if not held.fresh and vouched is None:
            held.close()
            if not await self._work.alone(digest, self._copies.prove(digest, unless_fresh=True)):
                raise BlobMissing(digest, "its copy here was damaged")
            held = await self._found(digest)
        info = BlobInfo(digest, held.stat.size, held.names)
        if vouched is None:
            return self._reader(info, held.file)
        coverage = self._coverages.of(digest, held.stat, vouched)
        return ProvingReader(info, held.file, self._disk, self._volume, self._work, self.verify, coverage)

    def opened(self, key: bytes) -> OpenBlob | None:
        """See :meth:`IBlobStore.opened`."""
        return self._open_files.get(key)

    def _reader(self, info: BlobInfo, file: Descriptor) -> BlobReader:
        return BlobReader(info, file, self._disk, self._volume, self._work, self.verify)

    async def _found(self, digest: Digest) -> Held:
        held, seen = await self._work.obtain(_let_go, self._open, digest)
        with closing(seen.directory):
            if held.fresh:
                info = BlobInfo(digest, held.stat.size, held.names)
                self._open_files.keep(info, held.file, held.changed_at, seen, held.proven_at)
        return held

    def _open(self, digest: Digest) -> tuple[Held, Seen]:
        """The directory first: what changes after that look makes the opening not worth keeping."""
        with self._volume.guard("opening a blob", write=False):
            try:
                seen = self._open_files.look(self._layout.blob(digest))
            except (FileNotFoundError, NotADirectoryError) as e:
                raise BlobMissing(digest, nothing=True) from e
        try:
            self._check_markers(digest)
            return self._copies.find(digest), seen
        except BaseException:
            seen.directory.close()
            raise

    async def stat(self, digest: Digest) -> BlobInfo | None:
        """See :meth:`IBlobStore.stat`."""
        return await self._work.in_thread(self._copies.stat, digest)

    async def digests(self, after: Digest | None = None, limit: int = 1000) -> Sequence[Digest]:
        """See :meth:`IBlobStore.digests`. What a catalog lost is missing here until it is found again."""
        if self._catalog.incomplete:
            self._reconciliation.start()
        start = b"" if after is None else after.raw
        return [row.digest for row in await self._work.in_thread(self._catalog.page, start, limit)]

    # -- proving --------------------------------------------------------------

    async def verify(self, digest: Digest) -> bool:
        """See :meth:`IBlobStore.verify`. What the page cache remembers is not taken for the disk's word."""
        return await self._work.alone(digest, self._copies.prove(digest))

    async def midstates(self, digest: Digest) -> Midstates | None:
        """See :meth:`IBlobStore.midstates`."""
        return await self._work.exclusively(digest, self._copies.midstates, digest)

    # -- writing --------------------------------------------------------------

    async def writer(self, length: int | None, expect: Digest | None = None) -> IBlobWriter:
        """See :meth:`IBlobStore.writer`."""
        reservation = self._volume.reserve(length or 0)
        if length is not None and length <= self._settings.small:
            small = SmallWriter(length, expect, reservation, self._publisher, self._volume)
            self._writers[next(self._begun)] = small
            return small
        try:
            temporary = await self._work.obtain(
                self._publisher.throw_away, self._publisher.temporary, length or 0
            )
        except BaseException:
            reservation.release()
            raise
        writer = BlobWriter(
            temporary=temporary,
            length=length,
            expect=expect,
            reservation=reservation,
            hasher=self._sha512.hasher(),
            publisher=self._publisher,
            volume=self._volume,
            disk=self._disk,
            work=self._work,
            settings=self._settings,
            clock=self._clock,
        )
        self._writers[next(self._begun)] = writer
        return writer

    async def partial(self, digest: Digest, size: int) -> IPartial:
        """See :meth:`IBlobStore.partial`. The caller lets one pull of one blob run at a time."""
        return await self._partials.begin(digest, size)

    def begun(self, digest: Digest) -> int | None:
        """See :meth:`IBlobStore.begun`."""
        return self._partials.size_of(digest)

    async def unfinished(self) -> Sequence[tuple[Digest, int]]:
        """See :meth:`IBlobStore.unfinished`."""

        def held(digest: Digest) -> bool:
            return self._disk.exists(self._layout.file(digest, DATA))

        return await self._partials.unfinished(held, self._clock.seconds())

    async def add_name(self, digest: Digest, name: Filename) -> None:
        """See :meth:`IBlobStore.add_name`."""
        await self._work.exclusively(digest, self._add_name, digest, name)

    def _add_name(self, digest: Digest, name: Filename) -> None:
        info = self._copies.stat(digest)
        if info is None:
            raise BlobMissing(digest)
        self._publisher.add_names(digest, (name,))

    async def delete(self, digest: Digest) -> BlobInfo:
        """See :meth:`IBlobStore.delete`."""
        info = await self._work.exclusively(digest, self._publisher.remove, digest)
        if info is None:
            raise BlobMissing(digest)
        self._open_files.drop(digest)
        self._volume.freed()
        return info

    async def sync_removal(self, digest: Digest) -> None:
        """See :meth:`IBlobStore.sync_removal`."""
        await self._work.exclusively(digest, self._publisher.sync_removal, digest)

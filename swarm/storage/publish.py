"""Publishing: how proven bytes become a blob, for good (RELIABILITY E).

The order, and nothing is said to be stored before its end:

1. fsync the file;
2. make ``blobs/aa/bb/{id}``, fsyncing every parent, for a directory that exists may still be one
   a crash takes away;
3. ``midstates`` and ``names``: written, fsynced, in place;
4. link the file as ``data``, which never replaces anything;
5. fsync the directory.

Where ``data`` exists already it is made durable too; if it is not what it should be, it goes to
quarantine and is replaced. PUTs and pulls both end here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from random import Random

from attrs import define, field, frozen
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from swarm.errors import StoreFailed
from swarm.hashing import Sha512
from swarm.interfaces import BlobInfo, Stored
from swarm.model.digest import Digest
from swarm.model.filenames import Filename
from swarm.model.midstates import Midstates
from swarm.storage import names as names_file
from swarm.storage.catalog import Catalog, Row
from swarm.storage.descriptor import Descriptor
from swarm.storage.disk import NO_TMPFILE, Disk, Stat, make_room, read_file, write_all
from swarm.storage.layout import DATA, INCOMING, MIDSTATES, NAMES, Layout
from swarm.storage.settings import StoreSettings
from swarm.storage.volume import Volume
from swarm.storage.work import Work

#: What a file is written as before it replaces another of the blob's small files.
_NEXT = ".next"


@frozen
class Temporary:
    """A file no reader can see; ``path`` only where the disk has no unnamed ones."""

    file: Descriptor
    path: str | None


@frozen
class _Named:
    """What bears the name ``data`` now: ours (new) or one that was there."""

    new: bool
    mtime_ns: int
    verified_at: float


@define(eq=False)
class Publisher:
    """What publishing needs to know of its store. Methods block unless they say ``async``."""

    _layout: Layout
    _settings: StoreSettings
    _disk: Disk
    _volume: Volume
    _catalog: Catalog
    _work: Work
    _sha512: Sha512
    _clock: IReactorTime
    _random: Random
    _changed: Callable[[Digest], None]
    """Told when something of a blob that was there already is another now; in any thread."""
    _durable: set[str] = field(factory=set)
    """Fan-out directories that this process has made durable."""
    log = Logger()

    async def publish(
        self,
        digest: Digest,
        size: int,
        file: Descriptor,
        midstates: Midstates | None,
        names: Sequence[Filename] = (),
    ) -> Stored:
        """
        Make ``size`` proven bytes a blob; any other name the file has is the caller's to take away.

        :param midstates: proven with them.

        :raises StorageFull, VolumeReadOnly, StoreFailed: it is no blob, and nothing new is left behind.
        """
        return await self._work.exclusively(digest, self.publish_file, digest, size, file, midstates, names)

    def publish_file(
        self,
        digest: Digest,
        size: int,
        file: Descriptor,
        midstates: Midstates | None,
        names: Sequence[Filename] = (),
    ) -> Stored:
        """As :meth:`publish`; the caller sees to it that nobody else works on this blob."""
        self._volume.check_writable()
        with file.held() as fd:
            with self._volume.guard("fsync of new bytes", sync=True):
                self._disk.fsync(fd)
            with self._undoing() as made:
                self._directory(digest, made)
                if midstates is not None and midstates.grains.count > 1:
                    self._put(digest, MIDSTATES, midstates.encode(), made)
                known = self._add_names(digest, names, made)
                named = self._link(digest, size, fd, made)
                self._sync_directory(self._layout.blob(digest))
                made.clear()
        self._catalog.record(digest, size, named.mtime_ns, named.verified_at, midstates)
        if not named.new:
            self._changed(digest)
        return Stored(BlobInfo(digest, size, known), named.new)

    # -- the steps ------------------------------------------------------------

    def temporary(self, length: int = 0) -> Temporary:
        """
        Open an invisible file on the blobs' volume, with room for ``length`` bytes.

        :raises StorageFull, StoreFailed:
        """
        with self._volume.guard("making room for new bytes"):
            made = self._unnamed()
            try:
                with made.file.held() as fd:
                    make_room(self._disk, fd, length)
            except BaseException:
                self.throw_away(made)
                raise
        return made

    def throw_away(self, temporary: Temporary) -> None:
        """Take it away again, if it has not become a blob."""
        temporary.file.close()
        if temporary.path is not None:
            with suppress(OSError):  # what is left is taken away at the next start
                self._disk.unlink(temporary.path)

    def _unnamed(self) -> Temporary:
        try:
            return Temporary(Descriptor(self._disk, self._disk.tmpfile(self._layout.blobs)), None)
        except OSError as e:
            if e.errno not in NO_TMPFILE:
                raise
        path = f"{self._layout.blobs}/{INCOMING}{self._random.getrandbits(64):016x}"
        return Temporary(Descriptor(self._disk, self._disk.create(path, 0o440)), path)

    def _directory(self, digest: Digest, made: list[str]) -> None:
        above = self._layout.blobs
        for path in self._layout.fan_out(digest):
            if path not in self._durable:
                self._mkdir(path)
                self._sync_directory(above)
                self._durable.add(path)
            above = path
        try:
            new = self._mkdir(self._layout.blob(digest))
        except StoreFailed:
            if self._disk.exists(above):
                raise
            # Somebody tidied up empty directories behind our back.
            self._durable.difference_update(self._layout.fan_out(digest))
            self._directory(digest, made)
            return
        if new:
            made.append(self._layout.blob(digest))
        self._sync_directory(above)

    def _link(self, digest: Digest, size: int, fd: int, made: list[str]) -> _Named:
        path = self._layout.file(digest, DATA)
        with self._volume.guard("naming new bytes"):
            try:
                self._disk.link_fd(fd, path)
            except FileExistsError:
                pass
            else:
                made.append(path)
                return self._named(fd)
        held = self._confirm(digest, size)
        if held is not None:
            return held
        self.set_aside(digest, "another PUT or pull proved it wrong")
        with self._volume.guard("naming new bytes"):
            self._disk.link_fd(fd, path)
            made.append(path)
            return self._named(fd)

    def _named(self, fd: int) -> _Named:
        # Not sooner: a pull that could not be published must still be writable after a restart.
        self._disk.chmod(fd, 0o440)
        return _Named(True, self._disk.fstat(fd).mtime_ns, self._clock.seconds())

    def _confirm(self, digest: Digest, size: int) -> _Named | None:
        """Make the bytes already there durable; None if they are damaged."""
        with self._volume.guard("opening what is there", write=False):
            fd = self._disk.open_read(self._layout.file(digest, DATA))
        try:
            with self._volume.guard("looking at what is there", write=False):
                held = self._disk.fstat(fd)
            with self._volume.guard("fsync of what is there", sync=True):
                self._disk.fsync(fd)
            if held.size != size:
                return None
            row = self._catalog.row(digest)
            if row is not None and self.fresh(row, held):
                return _Named(False, held.mtime_ns, row.verified_at)
            if self._sha512.digest_of(fd, size) == digest:
                return _Named(False, held.mtime_ns, self._clock.seconds())
            return None
        except OSError as e:
            self.log.warn("{digest} cannot be read: {error}", digest=digest, error=e)
            return None
        finally:
            self._disk.close(fd)

    def fresh(self, row: Row | None, held: Stat) -> bool:
        """Is this the file that was proven, and not too long ago?"""
        return (
            row is not None
            and (row.size, row.mtime_ns) == (held.size, held.mtime_ns)
            and abs(self._clock.seconds() - row.verified_at) < self._settings.verify_after
        )

    # -- small files ----------------------------------------------------------

    def names(self, digest: Digest) -> tuple[Filename, ...]:
        """
        The names on disk.

        :raises StoreFailed: the disk cannot say.
        """
        with self._volume.guard("reading names", write=False):
            data = read_file(self._disk, self._layout.file(digest, NAMES), names_file.LIMIT)
        return () if data is None else names_file.decode(data)

    def add_names(self, digest: Digest, names: Sequence[Filename]) -> None:
        """Append names durably; the caller sees to it that nobody else works on this blob."""
        self._volume.check_writable()
        with self._undoing() as made:
            self._add_names(digest, names, made)
            self._sync_directory(self._layout.blob(digest))
            made.clear()
        self._changed(digest)

    def put_midstates(self, digest: Digest, midstates: Midstates) -> None:
        """Store a list durably; the caller sees to it that nobody else works on this blob."""
        self._volume.check_writable()
        with self._undoing() as made:
            self._put(digest, MIDSTATES, midstates.encode(), made)
            self._sync_directory(self._layout.blob(digest))
            made.clear()

    def put_marker(self, digest: Digest, marker: str) -> None:
        """Set ``403`` or ``404`` durably, whether the blob is held or not."""
        self._volume.check_writable()
        with self._undoing() as made:
            self._directory(digest, made)
            with self._volume.guard("setting a marker"), suppress(FileExistsError):
                self._disk.close(self._disk.create(self._layout.file(digest, marker)))
                made.append(self._layout.file(digest, marker))
            self._sync_directory(self._layout.blob(digest))
            made.clear()
        self._changed(digest)

    def _add_names(self, digest: Digest, names: Sequence[Filename], made: list[str]) -> tuple[Filename, ...]:
        old = self.names(digest)
        merged = names_file.merge(old, names)
        if merged != old:
            self._put(digest, NAMES, names_file.encode(merged), made)
        return merged

    def _put(self, digest: Digest, name: str, data: bytes, made: list[str]) -> None:
        """Write a small file whole; the old one stays until the new one is on the platter."""
        path = self._layout.file(digest, name)
        new = not self._disk.exists(path)
        with self._volume.guard(f"writing {name}"):
            try:
                fd = self._disk.create(path + _NEXT)
            except FileExistsError:  # a crash left it
                self._disk.unlink(path + _NEXT)
                fd = self._disk.create(path + _NEXT)
            made.append(path + _NEXT)
            try:
                write_all(self._disk, fd, [data], 0)
                with self._volume.guard(f"fsync of {name}", sync=True):
                    self._disk.fsync(fd)
            finally:
                self._disk.close(fd)
            self._disk.rename(path + _NEXT, path)
        made.pop()
        if new:
            made.append(path)

    # -- taking away ----------------------------------------------------------

    def set_aside(self, digest: Digest, reason: str) -> None:
        """
        Move a damaged blob's bytes to quarantine; names and markers stay for the copy that replaces it.

        :raises StoreFailed: it could not be moved. It is no longer trusted either way.
        """
        self.log.error("{digest} is damaged: {reason}", digest=digest, reason=reason)
        self._catalog.forget(digest)
        self._changed(digest)
        with self._volume.guard("moving a damaged blob to quarantine"):
            with suppress(FileNotFoundError):
                self._disk.unlink(self._layout.file(digest, MIDSTATES))
            with suppress(FileNotFoundError):
                self._disk.rename(self._layout.file(digest, DATA), self._layout.damaged(digest))
        self._sync_directory(self._layout.quarantine)
        self._sync_directory(self._layout.blob(digest))

    def remove(self, digest: Digest) -> BlobInfo | None:
        """Delete a blob durably; None if there is none. The caller sees to it that nobody else does so."""
        self._volume.check_writable()
        directory = self._layout.blob(digest)
        with self._volume.guard("deleting a blob"):
            try:
                size = self._disk.stat(self._layout.file(digest, DATA)).size
            except FileNotFoundError:
                return None
            info = BlobInfo(digest, size, self.names(digest))
            self._catalog.forget(digest)
            for name in (DATA, MIDSTATES, NAMES, MIDSTATES + _NEXT, NAMES + _NEXT):
                with suppress(FileNotFoundError):
                    self._disk.unlink(self._layout.file(digest, name))
            self._sync_directory(directory)
            self._changed(digest)
            with suppress(OSError):  # markers stay, and so does their directory
                self._disk.rmdir(directory)
        return info

    # -- directories ----------------------------------------------------------

    def _mkdir(self, path: str) -> bool:
        with self._volume.guard("making a directory"):
            try:
                self._disk.mkdir(path)
            except FileExistsError:
                return False
        return True

    def _sync_directory(self, path: str) -> None:
        with self._volume.guard("fsync of a directory", sync=True):
            self._disk.fsync_dir(path)

    @contextmanager
    def _undoing(self) -> Iterator[list[str]]:
        """Take away, newest first, what is in the list when the block fails."""
        made: list[str] = []
        try:
            yield made
        finally:
            for path in reversed(made):
                with suppress(OSError):
                    (self._disk.rmdir if self._disk.stat(path).is_directory else self._disk.unlink)(path)

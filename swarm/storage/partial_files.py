"""The two files of one pull, ``{id}.part`` and ``{id}.j``: opened, resumed, synced, removed.

Every function here blocks and belongs in a thread. The order of the calls is the point (RELIABILITY,
section E): the header is durable before the first record, the data before the record that names it.
Before the first record nothing is: a reader may be waiting for the first bytes, and nothing of worth is lost.
"""

from __future__ import annotations

import errno
import os.path
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress

from attrs import define, frozen

from swarm.errors import LocalError, Malformed
from swarm.model.digest import Digest
from swarm.storage.descriptor import Descriptor
from swarm.storage.disk import Disk, read_at, read_file, write_all
from swarm.storage.journal import HEADER_LENGTH, RECORD_LENGTH, Header, Mark, Replay
from swarm.storage.layout import digest_of_name
from swarm.storage.volume import Volume

_DATA, _JOURNAL = ".part", ".j"
_CANNOT_ALLOCATE = frozenset([errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL])


@frozen
class Shelf:
    """The directory of partial files, with the disk and the volume it is on."""

    directory: str
    disk: Disk
    volume: Volume

    def data(self, digest: Digest) -> str:
        """Where the bytes of a pull are."""
        return os.path.join(self.directory, digest.hex + _DATA)

    def journal(self, digest: Digest) -> str:
        """Where its journal is."""
        return os.path.join(self.directory, digest.hex + _JOURNAL)

    def open(self, header: Header) -> PartialFiles:
        """
        Resume what an earlier run left of this very blob and size, or begin anew with ``header``.

        :raises StorageFull, StoreFailed: nothing new was left behind.
        """
        with self.volume.guard("resuming a pull"):
            found = self._resume(header)
        if found is not None:
            return found
        self.remove(header.digest, durably=False)
        return self._create(header)

    def _resume(self, wanted: Header) -> PartialFiles | None:
        with self._opened() as fds:
            try:
                fds.append(self.disk.open_write(self.journal(wanted.digest)))
                content = read_at(self.disk, fds[0], self.disk.fstat(fds[0]).size, 0)
                header = Header.decode(content)
                fds.append(self.disk.open_write(self.data(wanted.digest)))
                matches = (header.digest, header.grains) == (wanted.digest, wanted.grains)
                if not matches or self.disk.fstat(fds[1]).size != header.grains.size:
                    return None
            except (FileNotFoundError, Malformed):
                return None
            except OSError as e:
                if e.errno != errno.EIO:
                    raise
                return None  # an unreadable left-over must not stand in the way of a fresh start
            replay = header.replay(content[HEADER_LENGTH:])
            # What follows the last whole record would hide every record appended after it.
            self.disk.ftruncate(fds[0], HEADER_LENGTH + replay.records * RECORD_LENGTH)
            return self._files(header, replay, fds)

    def _create(self, header: Header) -> PartialFiles:
        disk, guard = self.disk, self.volume.guard
        try:
            with self._opened() as fds:
                with guard("preallocating a pull"):
                    data = disk.create(self.data(header.digest))
                    fds.append(data)
                    self._allocate(data, header.grains.size)
                with guard("beginning a journal"):
                    journal = disk.create(self.journal(header.digest))
                    fds.insert(0, journal)
                    write_all(disk, journal, [header.encode()], 0)
                return self._files(header, Replay({}, 0), fds, durable=False)
        except LocalError:
            for path in (self.journal(header.digest), self.data(header.digest)):
                with suppress(OSError):
                    disk.unlink(path)
            raise

    def _allocate(self, fd: int, size: int) -> None:
        if size:
            try:
                self.disk.fallocate(fd, size)
            except OSError as e:
                if e.errno not in _CANNOT_ALLOCATE:
                    raise
                self.disk.ftruncate(fd, size)

    @contextmanager
    def _opened(self) -> Iterator[list[int]]:
        """Descriptors to close again unless they were taken away."""
        fds: list[int] = []
        try:
            yield fds
        finally:
            for fd in fds:
                with suppress(OSError):  # what led here matters more
                    self.disk.close(fd)

    def _files(self, header: Header, replay: Replay, fds: list[int], *, durable: bool = True) -> PartialFiles:
        journal, data = (Descriptor(self.disk, fd) for fd in fds)
        fds.clear()
        return PartialFiles(self, header, replay.marks, data, journal, replay.records, durable)

    def remove(self, digest: Digest, *, durably: bool = True) -> None:
        """
        Delete both files, whichever are there.

        :raises StoreFailed:
        """
        for path in (self.journal(digest), self.data(digest)):
            with self.volume.guard("removing a pull"), suppress(FileNotFoundError):
                self.disk.unlink(path)
        if durably:
            with self.volume.guard("syncing the directory of pulls", sync=True):
                self.disk.fsync_dir(self.directory)

    # -- left-overs -----------------------------------------------------------

    def left_over(self) -> Mapping[Digest, LeftOver | None]:
        """
        What is there, by id; None for files that cannot be resumed. Names that are not ours are ignored.

        :raises StoreFailed: the directory cannot be read.
        """
        with self.volume.guard("looking for unfinished pulls", write=False):
            names = self.disk.listdir(self.directory)
        found: dict[Digest, LeftOver | None] = {}
        for stem, suffix in map(os.path.splitext, names):
            digest = digest_of_name(stem) if suffix in (_DATA, _JOURNAL) else None
            if digest is not None and digest not in found:
                found[digest] = self._look(digest)
        return found

    def _look(self, digest: Digest) -> LeftOver | None:
        try:
            header = Header.decode(read_file(self.disk, self.journal(digest), HEADER_LENGTH) or b"")
            data, journal = self.disk.stat(self.data(digest)), self.disk.stat(self.journal(digest))
        except (OSError, Malformed):
            return None
        if header.digest != digest or data.size != header.grains.size:
            return None
        return LeftOver(data.size, max(data.mtime_ns, journal.mtime_ns) / 1e9)


@frozen
class LeftOver:
    """A pull that can be resumed: its size in bytes, and when it was last written to (epoch seconds)."""

    size: int
    touched: float


@define(eq=False)
class PartialFiles:
    """One pull's files, open. One thread at a time may sync or remove; reading is for any."""

    _shelf: Shelf
    header: Header
    marks: Mapping[int, Mark]
    data: Descriptor
    _journal: Descriptor
    _records: int
    _durable: bool
    """Are the files' names and the header? Not at first: a reader may be waiting for the first bytes."""

    def append(self, entries: Sequence[tuple[int, Mark | None]]) -> None:
        """
        Make everything written so far durable, then the entries.

        :raises StorageFull: the entries were not appended; they may be offered again.
        :raises StoreFailed: nothing on this volume can be relied upon any more.
        """
        disk, guard = self._shelf.disk, self._shelf.volume.guard
        with self.data.held() as data, guard("syncing a pull", sync=True):
            disk.fdatasync(data)
        if not entries:
            return
        records = [
            self.header.record(number, index, mark)
            for number, (index, mark) in enumerate(entries, self._records)
        ]
        end = HEADER_LENGTH + self._records * RECORD_LENGTH
        with self._journal.held() as journal:
            if not self._durable:
                with guard("syncing a new journal", sync=True):
                    disk.fsync(journal)
                    disk.fsync_dir(self._shelf.directory)
                self._durable = True
            try:
                with guard("writing a journal"):
                    write_all(disk, journal, [b"".join(records)], end)
            except LocalError:
                # Half a batch must not stay behind the next, which may take some of it back.
                with guard("cutting a journal"):
                    disk.ftruncate(journal, end)
                raise
            with guard("syncing a journal", sync=True):
                disk.fdatasync(journal)
        self._records += len(records)

    def remove(self) -> None:
        """Delete both; open descriptors go on reading. :raises StoreFailed:"""
        self._shelf.remove(self.header.digest)

    def close(self) -> None:
        """Close both as soon as nobody uses them."""
        self.data.close()
        self._journal.close()

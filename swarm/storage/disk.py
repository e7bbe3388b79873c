"""The calls this node makes to a file system, each once: the seam a simulated disk fits into.

Nothing is decided here. Every method blocks and raises :class:`OSError` as the kernel says it;
what an error means for the volume is :mod:`swarm.storage.volume`'s decision. Offsets and lengths
are bytes. Paths are strings; a method never creates a missing parent.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from attrs import frozen

from swarm.storage import syscalls

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

#: ``ioctl`` request that shares extents between two files (linux/fs.h).
_FICLONE: Final = 0x40049409
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_WOULD_BLOCK = frozenset([errno.EAGAIN, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS])

#: Nanoseconds that surely lie between two ticks of the kernel's clock for files (100 Hz and more; since
#: Linux 6.13 it ticks whenever somebody looks).
_TICK: Final = 50_000_000

#: What ``fallocate`` raises where room cannot be reserved.
NO_FALLOCATE: Final = frozenset([errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL])

#: What ``tmpfile`` raises where the file system (or kernel) has no unnamed files.
NO_TMPFILE: Final = frozenset([errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOSYS])


@frozen
class Stat:
    """The part of ``stat(2)`` the store looks at."""

    size: int
    mtime_ns: int
    inode: int
    is_directory: bool
    is_file: bool
    """A regular file: no directory, link, pipe or device."""


def _stat(found: os.stat_result) -> Stat:
    mode = found.st_mode
    return Stat(found.st_size, found.st_mtime_ns, found.st_ino, stat.S_ISDIR(mode), stat.S_ISREG(mode))


class Disk:
    """The real disk."""

    _scratch = memoryview(b"")
    _devices: Mapping[int, bool] = MappingProxyType({})

    # -- descriptors ----------------------------------------------------------

    def tmpfile(self, directory: str, mode: int = 0o440) -> int:
        """
        Open a new unnamed file in ``directory``'s volume for reading and writing.

        Never ``O_EXCL``: with it the file could not be linked later.

        :raises OSError: with an errno in :data:`NO_TMPFILE` where there is no such thing.
        """
        return os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, mode)

    def create(self, path: str, mode: int = 0o600) -> int:
        """Create ``path`` (it must not exist), for reading and writing."""
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)

    def open_read(self, path: str) -> int:
        """Open an existing file for reading; never follows a link in the last place."""
        return os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)

    def open_directory(self, path: str) -> int:
        """Open an existing directory to look at it."""
        return os.open(path, _DIRECTORY)

    def open_write(self, path: str) -> int:
        """Open an existing file for reading and writing."""
        return os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)

    def close(self, fd: int) -> None:
        """Close a descriptor."""
        os.close(fd)

    # -- bytes ----------------------------------------------------------------

    def pwritev(self, fd: int, data: Sequence[ReadableBuffer], offset: int) -> int:
        """Write at ``offset``; may take fewer bytes than offered. At most 1024 buffers."""
        return os.pwritev(fd, data, offset)

    def preadv(self, fd: int, buffers: Sequence[WriteableBuffer], offset: int) -> int:
        """Fill ``buffers`` from ``offset``; may give fewer bytes, 0 at the end of the file."""
        return os.preadv(fd, buffers, offset)

    def read_nowait(self, fd: int, length: int, offset: int) -> bytes | None:
        """
        Up to ``length`` bytes that are in memory already; None if the disk would have to be asked.

        For one thread, the reactor's: the bytes pass through a buffer that is kept. A fresh one of 256
        KiB would be cleared, filled and copied twice; this is filled and copied once.
        """
        if len(self._scratch) < length:
            self._scratch = memoryview(bytearray(length))
        buffer = self._scratch[:length]
        count = self._nowait(fd, buffer, offset)
        return None if count is None else bytes(buffer[:count])

    def fill_nowait(self, fd: int, buffer: WriteableBuffer, offset: int) -> int:
        """As :meth:`read_nowait`, into ``buffer``: how many bytes came; 0 also if the disk would be asked."""
        return self._nowait(fd, buffer, offset) or 0

    def _nowait(self, fd: int, buffer: WriteableBuffer, offset: int) -> int | None:
        try:
            return os.preadv(fd, [buffer], offset, os.RWF_NOWAIT)
        except OSError as e:
            if e.errno not in _WOULD_BLOCK:
                raise
            if e.errno == errno.EOPNOTSUPP and self._diskless(os.fstat(fd).st_dev, fd):
                return os.preadv(fd, [buffer], offset)
            return None

    def _diskless(self, device: int, fd: int) -> bool:
        """tmpfs does not know RWF_NOWAIT, and never has to wait."""
        if device not in self._devices:
            self._devices = {**self._devices, device: syscalls.diskless(fd)}
        return self._devices[device]

    def fallocate(self, fd: int, length: int) -> None:
        """Reserve disk for ``length`` (> 0) bytes from the start; the file grows to it."""
        os.posix_fallocate(fd, 0, length)

    def ftruncate(self, fd: int, length: int) -> None:
        """Cut or grow a file."""
        os.ftruncate(fd, length)

    def clone(self, source: int, target: int) -> None:
        """Make ``target`` share all of ``source``'s extents, copied on write (FICLONE)."""
        fcntl.ioctl(target, _FICLONE, source)

    def fsync(self, fd: int) -> None:
        """Data and inode to the platter."""
        os.fsync(fd)

    def fdatasync(self, fd: int) -> None:
        """Data, and the size if it changed, to the platter."""
        os.fdatasync(fd)

    def write_out(self, fd: int, offset: int, length: int) -> None:
        """
        Have bytes written and wait for it; only :meth:`fsync` makes them durable.

        :raises OSError: they are lost, and ``fsync`` would not say so a second time.
        """
        syscalls.write_out(fd, offset, length)

    def begin_write_out(self, fd: int) -> None:
        """
        Have all bytes of a file written, and do not wait for it.

        :raises OSError: as :meth:`write_out`.
        """
        syscalls.begin_write_out(fd)

    def open_volume(self, path: str) -> int | None:
        """
        A descriptor of the directory ``path`` to :meth:`sync_volume` through; None where that is no good.

        Errors of earlier writes, ours or not, are heard and forgotten here.
        """
        fd = os.open(path, _DIRECTORY)
        if not syscalls.believed(fd):
            os.close(fd)
            return None
        with suppress(OSError):
            syscalls.syncfs(fd)
        return fd

    def sync_volume(self, fd: int) -> None:
        """
        All that was done to the volume so far to the platter, by whomever.

        A second step flushes the device: without a journal ext4 does so before its last metadata is out.
        """
        syscalls.syncfs(fd)
        os.fsync(fd)

    def unwritten(self) -> int:
        """About how many bytes :meth:`sync_volume` would have to write."""
        return syscalls.unwritten()

    def drop_cache(self, fd: int) -> None:
        """Let the kernel forget the file's clean pages, so that a re-read asks the disk."""
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)

    def fstat(self, fd: int) -> Stat:
        """Look at an open file."""
        return _stat(os.fstat(fd))

    def changed_at(self, fd: int) -> int:
        """
        When an open file's bytes, or an open directory's entries, changed last: nanoseconds.

        The kernel's own note (``st_ctime``), which nobody can set back; of descriptors it never has to
        ask the disk.
        """
        return os.fstat(fd).st_ctime_ns

    def settled_at(self, fd: int) -> int | None:
        """As :meth:`changed_at`; None if that was so lately that the next change may bear the same date."""
        changed = self.changed_at(fd)
        return changed if time.time_ns() - changed > _TICK else None

    def chmod(self, fd: int, mode: int) -> None:
        """Set an open file's permissions."""
        os.fchmod(fd, mode)

    def lock(self, path: str) -> int:
        """
        Take a lock that other processes see (this one may take it again); it ends with the descriptor.

        :raises BlockingIOError: another process has it.
        """
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BaseException:
            os.close(fd)
            raise
        return fd

    # -- names ----------------------------------------------------------------

    def link_fd(self, fd: int, path: str) -> None:
        """Give an unnamed file its name, atomically; FileExistsError if there is one already."""
        # Without a dir_fd CPython calls link(2), which does not follow /proc's link: EXDEV. The kernel
        # has no use for it: the path is absolute.
        os.link(f"/proc/self/fd/{fd}", path, src_dir_fd=fd)

    def link(self, source: str, target: str) -> None:
        """A second name for a file; FileExistsError if the name is taken."""
        os.link(source, target, follow_symlinks=False)

    def rename(self, source: str, target: str) -> None:
        """Move, replacing what ``target`` named."""
        os.rename(source, target)

    def unlink(self, path: str) -> None:
        """Take a name away."""
        os.unlink(path)

    def mkdir(self, path: str, mode: int = 0o700) -> None:
        """Create a directory."""
        os.mkdir(path, mode)

    def rmdir(self, path: str) -> None:
        """Remove an empty directory."""
        os.rmdir(path)

    def listdir(self, path: str) -> list[str]:
        """The names in a directory, sorted."""
        return sorted(os.listdir(path))

    def exists(self, path: str) -> bool:
        """Is there anything of this name? (False also where it cannot be looked at.)"""
        return os.access(path, os.F_OK, follow_symlinks=False)

    def stat(self, path: str) -> Stat:
        """Look at a name; a symbolic link is looked at itself."""
        return _stat(os.lstat(path))

    def fsync_dir(self, path: str) -> None:
        """Make the names in a directory durable."""
        directory = os.open(path, _DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    def free(self, path: str) -> int:
        """Bytes an unprivileged process may still write to the volume of ``path``."""
        found = os.statvfs(path)
        return found.f_bavail * found.f_frsize


def write_all(disk: Disk, fd: int, data: Sequence[ReadableBuffer], offset: int) -> int:
    """
    Write all of ``data`` at ``offset``, however the kernel cuts it.

    :return: bytes written.
    :raises OSError: among others ``ENOSPC`` if the disk takes nothing more.
    """
    views = [view for each in data if (view := memoryview(each).cast("B"))]
    start = offset
    while views:
        count = disk.pwritev(fd, views[:1024], offset)
        if count <= 0:
            raise OSError(errno.EIO, "a write took no bytes")
        offset += count
        while views and count >= len(views[0]):
            count -= len(views.pop(0))
        if count:
            views[0] = views[0][count:]
    return offset - start


def make_room(disk: Disk, fd: int, length: int) -> None:
    """
    Reserve disk for ``length`` bytes where the file system can.

    :raises OSError: ``ENOSPC`` now instead of in the middle, where it can.
    """
    if length:
        try:
            disk.fallocate(fd, length)
        except OSError as e:
            if e.errno not in NO_FALLOCATE:
                raise


def read_at(disk: Disk, fd: int, length: int, offset: int) -> bytes:
    """``length`` bytes from ``offset``, fewer only where the file ends."""
    buffer = bytearray(length)
    view = memoryview(buffer)
    done = 0
    while done < length:
        count = disk.preadv(fd, [view[done:]], offset + done)
        if count == 0:
            break
        done += count
    return bytes(view[:done])


def read_file(disk: Disk, path: str, limit: int) -> bytes | None:
    """A small file's first ``limit`` bytes; None if it is not there."""
    try:
        fd = disk.open_read(path)
    except FileNotFoundError:
        return None
    try:
        return read_at(disk, fd, limit, 0)
    finally:
        disk.close(fd)

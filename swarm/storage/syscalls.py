"""Two calls of Linux that Python does not offer, and where they can be believed.

``syncfs`` writes all of a volume at once: for many small files it does in two device flushes what
``fsync`` one by one does in hundreds. Before Linux 5.8 it hid errors, and some file systems (FUSE, network
ones) do not pass it on, so it counts only where :func:`believed` says so. ``sync_file_range`` begins, or
awaits, the writing of a part of a file; it makes nothing durable.
"""

from __future__ import annotations

import ctypes
import os
import platform
import re
from typing import Final

_MAGIC: Final = {
    0xEF53: "ext4",
    0x58465342: "xfs",
    0x9123683E: "btrfs",
    0xF2F52010: "f2fs",
    0x01021994: "tmpfs",  # nothing there outlives power anyway
}
_MEMORY: Final = frozenset([0x01021994, 0x858458F6])  # tmpfs, ramfs
_WAIT_BEFORE, _WRITE, _WAIT_AFTER = 1, 2, 4


class _StatFS(ctypes.Structure):
    """The beginning of ``struct statfs``; all that comes after is room."""

    _fields_ = (("f_type", ctypes.c_long), ("rest", ctypes.c_byte * 512))


def _load() -> ctypes.CDLL | None:
    if platform.system() != "Linux":
        return None
    library = ctypes.CDLL(None, use_errno=True)
    try:
        library.syncfs.argtypes = [ctypes.c_int]
        library.sync_file_range.argtypes = [ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint]
        library.fstatfs.argtypes = [ctypes.c_int, ctypes.c_void_p]
    except AttributeError:
        return None
    return library


_LIBC: Final = _load()


def _reports_errors(release: str) -> bool:
    version = re.match(r"(\d+)\.(\d+)", release)
    return version is not None and (int(version[1]), int(version[2])) >= (5, 8)


def believed(fd: int) -> bool:
    """Does :func:`syncfs` on the volume of this descriptor mean what it says?"""
    return _reports_errors(platform.release()) and _magic(fd) in _MAGIC


def diskless(fd: int) -> bool:
    """Is this descriptor's file system one that has no disk, so that a read of it never waits for one?"""
    return _magic(fd) in _MEMORY


def _magic(fd: int) -> int | None:
    found = _StatFS()
    if _LIBC is None or _LIBC.fstatfs(fd, ctypes.byref(found)):
        return None
    return int(found.f_type) & 0xFFFFFFFF


def syncfs(fd: int) -> None:
    """
    Write out the volume of ``fd``; its device may still hold some of it in a volatile cache.

    :raises OSError: also for an error met since ``fd`` was opened, by whomever.
    """
    assert _LIBC is not None, "ask believed() first"
    if _LIBC.syncfs(fd):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def write_out(fd: int, offset: int, length: int) -> None:
    """
    Have these bytes written and wait for it, where there is such a call.

    :raises OSError: they could not be, and no later ``fsync`` on ``fd`` will say so again.
    """
    if _LIBC is not None and _LIBC.sync_file_range(fd, offset, length, _WAIT_BEFORE | _WRITE | _WAIT_AFTER):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def begin_write_out(fd: int) -> None:
    """
    Begin to write all bytes of a file, where there is such a call; ``fsync`` waits for them.

    :raises OSError: as :func:`write_out`.
    """
    if _LIBC is not None and _LIBC.sync_file_range(fd, 0, 0, _WRITE):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def unwritten() -> int:
    """
    Bytes that all volumes together have yet to write.

    :raises OSError: the kernel does not say.
    """
    with open("/proc/meminfo", "rb", buffering=0) as file:
        lines = file.read(4096).splitlines()
    return sum(int(line.split()[1]) << 10 for line in lines if line.startswith((b"Dirty:", b"Writeback:")))

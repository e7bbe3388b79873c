"""SQLite on simulated disks: what it writes and syncs goes through a :class:`~.disk.Platter`.

An apsw VFS that passes everything on to the real one, but syncs: those, and what they make durable, are
the platter's. Shared memory (``-shm``) is not durable anyway and passes by.
"""

from __future__ import annotations

import errno
import os.path
from collections.abc import Callable
from typing import Any, TypeVar

import apsw

from swarm.testing.simulation.disk import Platter, PowerLoss

_T = TypeVar("_T")
_NAME = "swarm-simulation"


class Databases(apsw.VFS):
    """
    I am the default VFS from when I am made until :meth:`unregister`.

    :ivar disks: the platter of each directory.
    """

    def __init__(self) -> None:
        self.disks: dict[str, Platter] = {}
        self.real = apsw.vfs_names()[0]
        super().__init__(_NAME, self.real, makedefault=True)

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:
        """See :class:`apsw.VFS`."""
        path = name.filename() if isinstance(name, apsw.URIFilename) else name
        disk = self.disks.get(os.path.dirname(path)) if path is not None else None
        if path is None or disk is None:
            return apsw.VFSFile(self.real, name, flags)
        return _Database(self.real, disk, path, name, flags)

    def xDelete(self, filename: str, syncdir: bool) -> None:
        """See :class:`apsw.VFS`."""
        disk = self.disks.get(os.path.dirname(filename))
        if disk is None:
            super().xDelete(filename, syncdir)
        elif not disk.dead:
            super().xDelete(filename, syncdir)
            disk.removed(filename, durable=syncdir)


class _Database(apsw.VFSFile):
    """A database or its log. A dead process writes nothing more, whatever SQLite tries when it closes."""

    def __init__(self, real: str, disk: Platter, path: str, name: Any, flags: list[int]) -> None:
        super().__init__(real, name, flags)
        self._disk = disk
        self._file = disk.adopted(path)

    def xWrite(self, data: bytes, offset: int) -> None:
        """See :class:`apsw.VFSFile`."""
        if self._do(self._disk.touched, "pwritev"):
            self._file.changes(offset, len(data))
            super().xWrite(data, offset)

    def xTruncate(self, newsize: int) -> None:
        """See :class:`apsw.VFSFile`."""
        if self._do(self._disk.touched, "ftruncate"):
            self._file.changes(newsize, 1 << 40)
            super().xTruncate(newsize)

    def xSync(self, flags: int) -> None:
        """See :class:`apsw.VFSFile`."""
        self._do(self._disk.synced, self._file)

    def _do(self, call: Callable[[_T], None], argument: _T) -> bool:
        if self._disk.dead:
            return False
        try:
            call(argument)
        except PowerLoss:
            return False
        except OSError as e:
            # SQLite's own VFS knows no full disk in a sync.
            full = e.errno == errno.ENOSPC and call != self._disk.synced
            raise (apsw.FullError if full else apsw.IOError)(e.strerror) from e
        return True

"""The one connection to a SQLite database of the store, and what its errors mean.

Decides how it is opened, when it is taken to be damaged (set aside and begun anew, never fatal), and when
writing to it ends: a sync that failed loses frames of SQLite's log that the kernel then holds for written, so
nothing is written behind them until the next start, and that writes the log once more. Which tables there are
is :mod:`swarm.storage.catalog`'s.

Everything here blocks and may be called from any thread; one lock puts callers in a row.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from threading import Lock
from typing import TypeVar

import apsw
from twisted.logger import Logger

from swarm.errors import LocalError, StorageFull, StoreFailed, VolumeReadOnly
from swarm.storage.disk import Disk, read_at, write_all

_T = TypeVar("_T")

_PIECE = 1 << 20
#: What errors in writing are called; the first is a VFS's that knows no better.
_LOST = frozenset(
    [
        apsw.SQLITE_IOERR,
        apsw.SQLITE_IOERR_WRITE,
        apsw.SQLITE_IOERR_FSYNC,
        apsw.SQLITE_IOERR_DIR_FSYNC,
        apsw.SQLITE_IOERR_TRUNCATE,
    ]
)
_DAMAGED = (apsw.CorruptError, apsw.NotADBError, apsw.FormatError)


class Database:
    """The connection. Who owns the tables inherits from me."""

    log = Logger()

    def __init__(self, path: str, *, disk: Disk) -> None:
        self._path = path
        self._disk = disk
        self._lock = Lock()
        self._database: apsw.Connection | None = None
        self._durable = False
        self.broken: Callable[[str], object] = lambda reason: None
        """Told why when writing fails in a way after which nothing written here could be trusted."""
        self._broken: str | None = None

    def _prepare(self, database: apsw.Connection) -> None:
        """
        The tables are made, or looked at.

        :raises StopIteration, apsw.SQLError: they are not what they should be; as damaged as other damage.
        """
        raise NotImplementedError

    def _finish(self, database: apsw.Connection) -> None:
        """It is about to be closed in good order."""
        raise NotImplementedError

    def open(self) -> None:
        """
        Open, create, or set aside and create.

        :raises StorageFull, StoreFailed: the disk refuses even an empty catalog.
        """
        with self._lock:
            self._renew_log()
            try:
                self._connect()
            except _DAMAGED as e:
                self._begin_anew(e)
            except apsw.Error as e:
                raise _translated(e) from e

    def close(self) -> None:
        """Close it; the next start takes in what its log still holds."""
        with self._lock:
            database, self._database = self._database, None
            if database is None:
                return
            try:
                self._finish(database)
            except apsw.Error as e:
                self.log.warn("the catalog could not be closed cleanly: {error}", error=e)
            try:
                database.close()
            except apsw.Error as e:  # it is closed; the next start takes in what its log holds
                self.log.warn("the catalog's log could not be taken in: {error}", error=e)

    def _renew_log(self) -> None:
        """
        Write SQLite's log once more over itself, if a process left one behind.

        One that died after a failed sync leaves frames that are in the kernel's memory and not on the disk,
        and that no later sync writes: what is appended behind them goes with the next power cut. SQLite's own
        checkpoint would not do: it trusts the syncs of its log.

        :raises StorageFull, StoreFailed: the disk refuses.
        """
        try:
            fd = self._disk.open_write(self._path + "-wal")
        except FileNotFoundError:
            return
        except OSError as e:
            raise StoreFailed(f"the catalog's log: {e.strerror}") from e
        try:
            at = 0
            while piece := read_at(self._disk, fd, _PIECE, at):
                at += write_all(self._disk, fd, [piece], at)
            self._disk.fsync(fd)
        except OSError as e:
            full = e.errno in (errno.ENOSPC, errno.EDQUOT)
            raise (StorageFull if full else StoreFailed)(f"the catalog's log: {e.strerror}") from e
        finally:
            self._disk.close(fd)

    def _connect(self) -> apsw.Connection:
        database = apsw.Connection(self._path)
        try:
            database.set_busy_timeout(10_000)
            database.execute("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL")
            self._prepare(database)
        except StopIteration as e:
            database.close()
            raise apsw.CorruptError("a catalog without its single rows") from e
        except apsw.SQLError as e:
            database.close()
            raise apsw.CorruptError(f"a catalog without its tables: {e}") from e
        except BaseException:
            database.close()
            raise
        self._database = database
        self._durable = True
        return database

    def _begin_anew(self, reason: Exception) -> apsw.Connection:
        """Set the files aside and start empty. Hints and tombstones are lost, and that is said."""
        self.log.critical(
            "the catalog is damaged ({reason}): set aside as {path}.damaged; hints and tombstones are lost",
            reason=reason,
            path=self._path,
        )
        if self._database is not None:
            self._database.close()
            self._database = None
        try:
            for suffix in ("-wal", "-shm", ""):
                if self._disk.exists(self._path + suffix):
                    self._disk.rename(self._path + suffix, f"{self._path}.damaged{suffix}")
            return self._connect()
        except OSError as e:
            raise StoreFailed(f"the catalog cannot be set aside: {e.strerror}") from e
        except apsw.Error as e:
            raise _translated(e) from e

    def transact(self, operation: Callable[[apsw.Connection], _T], *, durable: bool) -> _T:
        """
        Run ``operation`` in one transaction; fsynced before this returns if ``durable``.

        :raises StorageFull, StoreFailed: it has no effect.
        :raises VolumeReadOnly: an earlier one failed so that none can be trusted until the next start: what
            SQLite's log lost in a failed sync would hide all that comes after it.
        """
        if self._broken is not None:
            raise VolumeReadOnly(f"the catalog is not written to since: {self._broken}")

        def transaction(database: apsw.Connection) -> _T:
            if durable is not self._durable:
                database.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
                self._durable = durable
            database.execute("BEGIN IMMEDIATE")
            try:
                result = operation(database)
                database.execute("COMMIT")
            except BaseException:
                if database.in_transaction:  # some errors have rolled it back already
                    database.execute("ROLLBACK")
                raise
            return result

        def noting(database: apsw.Connection) -> _T:
            try:
                return transaction(database)
            except apsw.IOError as e:
                if getattr(e, "extendedresult", apsw.SQLITE_IOERR) in _LOST:
                    self._broken = f"the catalog: {e}"
                    self.broken(self._broken)
                raise

        return self.consult(noting)

    def consult(self, question: Callable[[apsw.Connection], _T]) -> _T:
        """
        Ask something in one statement. If the catalog proves damaged, an empty one is asked.

        :raises StorageFull, StoreFailed:
        """
        with self._lock:
            try:
                return question(self._connected())
            except _DAMAGED as e:
                database = self._begin_anew(e)
            except apsw.Error as e:
                raise _translated(e) from e
            try:
                return question(database)
            except apsw.Error as e:
                raise _translated(e) from e

    def _connected(self) -> apsw.Connection:
        if self._database is None:
            raise StoreFailed("the catalog is closed")
        return self._database


def _translated(error: apsw.Error) -> LocalError:
    if isinstance(error, apsw.FullError):
        return StorageFull("the catalog has no room")
    return StoreFailed(f"the catalog: {error}")

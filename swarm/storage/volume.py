"""What the volume holds, whether more fits, and whether it may still be written to.

Decides quota, reserve and the read-only latch, and translates the kernel's errors. What blobs add
up to is the catalog's; the other counters are touched on the reactor's thread only. The latch may be
closed from any thread.
"""

from __future__ import annotations

import errno
from contextlib import suppress

from attrs import define, field
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from swarm.errors import LocalError, StorageFull, StoreFailed, VolumeReadOnly
from swarm.interfaces import Usage
from swarm.storage.catalog import Totals
from swarm.storage.disk import Disk
from swarm.storage.settings import StoreSettings

#: statvfs is asked at most this often, in seconds; between, what we wrote is subtracted.
_FREE_FOR = 1.0

_FULL = frozenset([errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
#: The disk, not the request: nothing written later could be trusted.
_BROKEN = frozenset([errno.EIO, errno.EROFS, errno.ENXIO, errno.ENODEV, errno.EUCLEAN])
#: What opening a directory to sync it may raise before anything was synced.
_NOT_SYNCED_YET = frozenset([errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOENT, errno.EACCES])


@define(eq=False)
class Reservation:
    """Room taken by one write under way. Release it exactly when its bytes are a blob or gone."""

    _volume: Volume
    length: int = 0

    def grow(self, count: int) -> None:
        """
        Take ``count`` bytes more.

        :raises StorageFull, VolumeReadOnly: nothing more was taken.
        """
        self._volume.check_room(count)
        self._take(count)

    def _take(self, count: int) -> None:
        self.length += count
        self._volume.reserved += count
        self._volume.spend(count)

    def release(self) -> None:
        """Give the room back; harmless a second time."""
        self._volume.reserved -= self.length
        self.length = 0

    def gave_up(self) -> None:
        """Its bytes are gone, so there is room again."""
        self._volume.freed()


class Guard:
    """See :meth:`Volume.guard`. A class: a small PUT has ten, and a generator costs three times as much."""

    __slots__ = ("_doing", "_sync", "_volume", "_write")

    def __init__(self, volume: Volume, doing: str, sync: bool, write: bool) -> None:
        self._volume = volume
        self._doing = doing
        self._sync = sync
        self._write = write

    def __enter__(self) -> None:
        """Nothing happened yet."""

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        """What happened."""
        if isinstance(error, OSError):
            raise self._volume.failed(error, self._doing, sync=self._sync, write=self._write) from error


@define(eq=False)
class Volume:
    """The counters and limits of one data directory."""

    _path: str
    _settings: StoreSettings
    _disk: Disk
    _clock: IReactorTime
    _totals: Totals
    partials: int = 0
    reserved: int = 0
    read_only: str | None = None
    _free: int = 0
    _free_at: float | None = field(default=None)
    log = Logger()

    def usage(self) -> Usage:
        """The state now; if the disk cannot say what is free, what it said last."""
        with suppress(StoreFailed):
            self.free()
        return Usage(
            blobs=self._totals.blobs,
            bytes=self._totals.bytes,
            partials=self.partials,
            free=max(0, self._free),
            quota=self._settings.quota,
            reserve=self._settings.reserve,
            read_only=self.read_only,
        )

    def free(self) -> int:
        """Free bytes of the volume, at most a second old, less what was promised since."""
        now = self._clock.seconds()
        if self._free_at is None or not 0 <= now - self._free_at < _FREE_FOR:
            with self.guard("statvfs", write=False):
                self._free = self._disk.free(self._path)
            self._free_at = now
        return self._free

    def spend(self, count: int) -> None:
        """Subtract bytes promised to a write from the remembered free space."""
        self._free -= count

    def freed(self) -> None:
        """Something was deleted: ask anew what is free."""
        self._free_at = None

    # -- limits ---------------------------------------------------------------

    def check_writable(self) -> None:
        """:raises VolumeReadOnly: the latch is closed."""
        if self.read_only is not None:
            raise VolumeReadOnly(f"the volume is read-only since: {self.read_only}")

    def check_room(self, length: int) -> None:
        """:raises StorageFull, VolumeReadOnly, StoreFailed: see :class:`swarm.interfaces.IBlobStore`."""
        self.check_writable()
        quota = self._settings.quota
        if quota is not None and self._totals.bytes + self.reserved + length > quota:
            raise StorageFull(f"{length} bytes more would exceed the quota of {quota}")
        if self.free() - length < self._settings.reserve:
            raise StorageFull(f"{length} bytes more would break into the reserve of {self._settings.reserve}")

    def reserve(self, length: int) -> Reservation:
        """
        Take room for a write of ``length`` bytes.

        :raises StorageFull, VolumeReadOnly, StoreFailed:
        """
        reservation = Reservation(self)
        reservation.grow(length)
        return reservation

    # -- errors ---------------------------------------------------------------

    def guard(self, doing: str, *, sync: bool = False, write: bool = True) -> Guard:
        """
        Raise what the kernel says in the block as ours.

        :param doing: for people: what was being done.
        :param sync: an fsync. Whatever it says, pages may have been marked clean without being
            written, and a second try would lie: the latch closes.
        :param write: False for reads, whose errors never close the latch.
        :raises StorageFull: no room. :raises StoreFailed: anything else.
        """
        return Guard(self, doing, sync, write)

    def failed(self, error: OSError, doing: str, *, sync: bool = False, write: bool = True) -> LocalError:
        """The error to raise for ``error``; closes the latch when it must. See :meth:`guard`."""
        broken = write and error.errno in _BROKEN
        if broken or (sync and error.errno not in _NOT_SYNCED_YET):
            self.latch(f"{doing}: {error.strerror}")
        if error.errno in _FULL:
            return StorageFull(f"{doing}: {error.strerror}")
        return StoreFailed(f"{doing}: {error.strerror}")

    def latch(self, reason: str) -> None:
        """Close the volume for writing until the node is started again; the first reason stays."""
        if self.read_only is None:
            self.read_only = reason
            self.log.critical("the volume is read-only from now on: {reason}", reason=reason)

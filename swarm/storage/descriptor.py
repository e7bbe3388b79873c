"""A file descriptor that threads use while the reactor may close it.

Closing one number under a running read would let the kernel give it to another file, and the
read would return that file's bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

from swarm.errors import StoreFailed
from swarm.storage.disk import Disk


class Descriptor:
    """Closes when nobody uses it any more."""

    __slots__ = ("_closed", "_disk", "_fd", "_lock", "_users")

    def __init__(self, disk: Disk, fd: int) -> None:
        self._disk = disk
        self._fd = fd
        self._users = 0
        self._closed = False
        self._lock = Lock()

    @property
    def number(self) -> int:
        """The descriptor, for use on the reactor's thread only; -1 once closed."""
        return -1 if self._closed else self._fd

    @contextmanager
    def held(self) -> Iterator[int]:
        """
        Use the descriptor; it stays open until the block is left.

        :raises StoreFailed: it was closed before.
        """
        with self._lock:
            if self._closed:
                raise StoreFailed("the file was closed meanwhile")
            self._users += 1
        try:
            yield self._fd
        finally:
            with self._lock:
                self._users -= 1
                last = self._closed and self._users == 0
            if last:
                self._disk.close(self._fd)

    def close(self) -> None:
        """Close it, now or when the last user leaves; harmless a second time."""
        with self._lock:
            last = not self._closed and self._users == 0
            self._closed = True
        if last:
            self._disk.close(self._fd)

"""A file descriptor that threads use while the reactor may close it.

Closing one number under a running read would let the kernel give it to another file, and the
read would return that file's bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Protocol

from swarm.errors import StoreFailed


class _Closes(Protocol):
    """What closes a number: the disk, or who shares its own."""

    def close(self, fd: int) -> None: ...


class Descriptor:
    """Closes when nobody uses it any more."""

    __slots__ = ("_closed", "_disk", "_fd", "_lock", "_users")

    def __init__(self, disk: _Closes, fd: int) -> None:
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
            self._leave()

    def share(self) -> Descriptor:
        """
        Another user of the same open file, who closes it for himself.

        :raises StoreFailed: it was closed before.
        """
        with self._lock:
            if self._closed:
                raise StoreFailed("the file was closed meanwhile")
            self._users += 1
        return Descriptor(_Shared(self._leave), self._fd)

    def _leave(self) -> None:
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


class _Shared:
    """Lets go of somebody else's descriptor."""

    def __init__(self, leave: Callable[[], None]) -> None:
        self._leave = leave

    def close(self, fd: int) -> None:
        self._leave()

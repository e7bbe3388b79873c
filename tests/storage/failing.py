"""A disk on which one call fails, over a real directory."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from swarm.storage.disk import Disk

OPENING = frozenset(["tmpfile", "create", "open_read", "open_write"])
SYNCING = frozenset(["fsync", "fdatasync", "fsync_dir", "sync_volume", "write_out", "begin_write_out"])
_WATCHED = [name for name in vars(Disk) if not name.startswith("_") and name not in ("close", "exists")]


class FailingDisk(Disk):
    """
    The ``at``-th call (of those named in ``only``) fails with ``error``.

    A write that fails has written half of what it was given. Nothing is really synced: that would
    prove nothing here, and take its time.
    """

    def __init__(self, at: int = -1, error: int = 0, only: frozenset[str] | None = None) -> None:
        self.at = at
        self.error = error
        self.calls = 0
        self.failed: str | None = None
        self.open: set[int] = set()
        for name in _WATCHED:
            if only is None or name in only:
                setattr(self, name, self._failing(name, getattr(self, name)))

    def _failing(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def watched(*arguments: Any, **options: Any) -> Any:
            self.calls += 1
            if self.calls == self.at:
                self.failed = name
                if name == "pwritev":
                    fd, views, offset = arguments
                    whole = b"".join(views)
                    os.pwrite(fd, whole[: len(whole) // 2], offset)
                raise OSError(self.error, os.strerror(self.error))
            if name in SYNCING:
                return None
            result = call(*arguments, **options)
            if name in OPENING:
                self.open.add(result)
            return result

        return watched

    def unwritten(self) -> int:
        return 0

    def close(self, fd: int) -> None:
        self.open.discard(fd)
        super().close(fd)

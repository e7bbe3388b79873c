"""Disks that go wrong on purpose, over a real directory.

:class:`FailingDisk` fails one call; :class:`CrashingDisk` loses power at one, and says what a platter
may hold then.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

from swarm.storage.disk import Disk

OPENING = frozenset(["tmpfile", "create", "open_read", "open_write"])
SYNCING = frozenset(["fsync", "fdatasync", "fsync_dir"])
_CALLS = sorted(
    name for name in vars(Disk) if not name.startswith("_") and name not in ("close", "exists", "clone")
)


class _Watched(Disk):
    """Counts its calls and the descriptors that are open."""

    def __init__(self) -> None:
        self.calls = 0
        self.open: set[int] = set()
        for name in _CALLS:
            setattr(self, name, self._watch(name, getattr(self, name)))

    def _watch(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def watched(*arguments: Any, **options: Any) -> Any:
            self.calls += 1
            self.before(name, arguments)
            result = call(*arguments, **options)
            if name in OPENING:
                self.open.add(result)
            self.after(name, arguments, result)
            return result

        return watched

    def close(self, fd: int) -> None:
        self.open.discard(fd)
        super().close(fd)

    def before(self, name: str, arguments: tuple[Any, ...]) -> None:
        """About to make a call."""

    def after(self, name: str, arguments: tuple[Any, ...], result: Any) -> None:
        """It worked."""


class FailingDisk(_Watched):
    """The ``at``-th call fails with ``error``; a failing write writes half of what it was given first."""

    def __init__(self, at: int = -1, error: int = 0, only: frozenset[str] | None = None) -> None:
        super().__init__()
        self.at = at
        self.error = error
        self.only = only
        self.failed: str | None = None

    def before(self, name: str, arguments: tuple[Any, ...]) -> None:
        if self.only is not None and name not in self.only:
            self.calls -= 1
        elif self.calls == self.at:
            self.failed = name
            if name == "pwritev":
                fd, views, offset = arguments
                whole = b"".join(views)
                os.pwrite(fd, whole[: len(whole) // 2], offset)
            raise OSError(self.error, os.strerror(self.error))


class PowerLoss(Exception):
    """Not an OSError: nothing may catch it."""


class CrashingDisk(_Watched):
    """
    Loses power at its ``at``-th call.

    Weaker than any real file system: of what was not synced, each 512-byte sector and each name may
    or may not have reached the platter.
    """

    def __init__(self, root: Path, at: int = -1) -> None:
        super().__init__()
        self.root = root
        self.at = at
        self.synced: dict[int, bytes] = {}  # inode: what an fsync put on the platter
        self.named: dict[str, dict[str, int]] = {}  # directory: the names it put there
        self.dead = False
        self._copies = root.parent / (root.name + ".inodes")
        self._copies.mkdir()
        for directory in (root, *(each for each in root.rglob("*") if each.is_dir())):
            self._sync_names(str(directory))
            for file in directory.iterdir():
                if file.is_file():
                    self._keep(file)
                    self.synced[file.stat().st_ino] = file.read_bytes()

    def before(self, name: str, arguments: tuple[Any, ...]) -> None:
        if self.dead or self.calls == self.at:
            self.dead = True
            raise PowerLoss

    def after(self, name: str, arguments: tuple[Any, ...], result: Any) -> None:
        if name == "create":
            self._keep(Path(arguments[0]))
        elif name in ("fsync", "fdatasync"):
            path = f"/proc/self/fd/{arguments[0]}"
            self.synced[os.stat(path).st_ino] = Path(path).read_bytes()
        elif name == "fsync_dir":
            self._sync_names(arguments[0])

    def _keep(self, file: Path) -> None:
        # A second name keeps an inode (and its number) from being used again.
        os.link(file, self._copies / str(file.stat().st_ino))

    def _sync_names(self, directory: str) -> None:
        names = {each.name: each.stat().st_ino for each in Path(directory).iterdir()}
        self.named[directory] = names

    def survive(self, random: Random, target: Path) -> None:
        """Lay out in ``target`` what one possible platter holds."""
        shutil.rmtree(target, ignore_errors=True)
        for directory in (self.root, *(each for each in self.root.rglob("*") if each.is_dir())):
            here = target / directory.relative_to(self.root)
            here.mkdir()
            now = {each.name: each.stat().st_ino for each in directory.iterdir() if each.is_file()}
            before = self.named.get(str(directory), {})
            for name in sorted({*now, *before}):
                inode = random.choice([now.get(name), before.get(name)])
                if inode is not None and (self._copies / str(inode)).exists():
                    (here / name).write_bytes(self._content(inode, random))

    def _content(self, inode: int, random: Random) -> bytes:
        latest = (self._copies / str(inode)).read_bytes()
        synced = self.synced.get(inode, b"")
        length = random.choice([len(latest), len(synced)])
        sectors = []
        for at in range(0, length, 512):
            sector = random.choice([latest, synced])[at : at + 512]
            sectors.append(sector.ljust(min(512, length - at), b"\0"))
        return b"".join(sectors)

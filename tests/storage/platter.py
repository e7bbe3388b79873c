"""A disk that loses power, and what its platter may hold then.

Calls go through to a real directory, except that nothing is really synced; beside it a model notes what
each fsync made durable. The model is weaker than any real file system: of what was not synced, each
sector, each length and each name may or may not have arrived, independently. Directories are names too,
and take all below them along.
"""

from __future__ import annotations

import os
import os.path
from collections.abc import Callable
from random import Random
from typing import Any

from attrs import define, field

from swarm.storage.disk import Disk

SECTOR = 4096


class PowerLoss(Exception):
    """Not an OSError: nothing may catch it."""


@define(eq=False)
class _File:
    fd: int  # a descriptor of our own, to look at what was written
    synced: bytes = b""

    def __del__(self) -> None:
        os.close(self.fd)

    def content(self, random: Random) -> bytes:
        latest = os.pread(self.fd, 1 << 30, 0)
        length = random.choice([len(latest), len(self.synced)])
        sectors = []
        for at in range(0, length, SECTOR):
            sector = random.choice([latest, self.synced])[at : at + SECTOR]
            sectors.append(sector.ljust(min(SECTOR, length - at), b"\0"))
        return b"".join(sectors)


@define(eq=False)
class _Directory:
    names: dict[str, list[Any]] = field(factory=dict)
    """For each name what it stood for since the last sync, oldest first; None: nothing."""

    def latest(self, name: str) -> Any:
        return self.names.get(name, [None])[-1]

    def set(self, name: str, value: Any) -> None:
        self.names.setdefault(name, [None]).append(value)

    def sync(self) -> None:
        self.names = {name: [was[-1]] for name, was in self.names.items() if was[-1] is not None}


class Platter(Disk):
    """Power is lost at the ``at``-th call that changes or syncs something."""

    def __init__(self, root: str, at: int = -1) -> None:
        self.root = root
        self.at = at
        self.calls = 0
        self.dead = False
        self.trace: list[tuple[str, str]] = []
        self._top = _Directory()
        self._fds: dict[int, _File] = {}

    # -- the model ------------------------------------------------------------

    def _step(self, call: str, subject: str) -> None:
        if self.dead or self.calls == self.at:
            self.dead = True
            raise PowerLoss
        self.calls += 1
        self.trace.append((call, os.path.relpath(subject, self.root) if subject.startswith("/") else subject))

    def _directory(self, path: str) -> _Directory:
        directory = self._top
        relative = os.path.relpath(path, self.root)
        for name in relative.split("/") if relative != "." else ():
            directory = directory.latest(name)
        return directory

    def _name(self, path: str, value: Any) -> None:
        self._directory(os.path.dirname(path)).set(os.path.basename(path), value)

    def _value(self, path: str) -> Any:
        return self._directory(os.path.dirname(path)).latest(os.path.basename(path))

    def survivor(self, random: Random) -> dict[str, bytes]:
        """One possible platter: file contents by path below the root."""
        found: dict[str, bytes] = {}

        def look(directory: _Directory, path: str) -> None:
            for name, was in directory.names.items():
                value = random.choice(was)
                if isinstance(value, _Directory):
                    look(value, f"{path}{name}/")
                elif value is not None:
                    found[path + name] = value.content(random)

        look(self._top, "")
        return found

    # -- the calls ------------------------------------------------------------

    def _opened(self, fd: int, file: _File | None = None) -> int:
        self._fds[fd] = file or _File(os.open(f"/proc/self/fd/{fd}", os.O_RDONLY))
        return fd

    def tmpfile(self, directory: str, mode: int = 0o440) -> int:
        self._step("tmpfile", directory)
        return self._opened(super().tmpfile(directory, mode))

    def create(self, path: str, mode: int = 0o600) -> int:
        self._step("create", path)
        fd = self._opened(super().create(path, mode))
        self._name(path, self._fds[fd])
        return fd

    def open_read(self, path: str) -> int:
        return self._opened(super().open_read(path), self._value(path))

    def open_write(self, path: str) -> int:
        return self._opened(super().open_write(path), self._value(path))

    def pwritev(self, fd: int, data: Any, offset: int) -> int:
        self._step("pwritev", "file")
        return super().pwritev(fd, data, offset)

    def fallocate(self, fd: int, length: int) -> None:
        self._step("fallocate", "file")
        super().fallocate(fd, length)

    def fsync(self, fd: int) -> None:
        self._step("fsync", "file")
        self._fds[fd].synced = os.pread(fd, 1 << 30, 0)

    fdatasync: Callable[[Platter, int], None] = fsync

    def link_fd(self, fd: int, path: str) -> None:
        self._step("link_fd", path)
        super().link_fd(fd, path)
        self._name(path, self._fds[fd])

    def rename(self, source: str, target: str) -> None:
        self._step("rename", target)
        super().rename(source, target)
        if source.startswith(self.root):
            self._name(target, self._value(source))
            self._name(source, None)

    def unlink(self, path: str) -> None:
        self._step("unlink", path)
        super().unlink(path)
        self._name(path, None)

    def mkdir(self, path: str, mode: int = 0o700) -> None:
        self._step("mkdir", path)
        super().mkdir(path, mode)
        self._name(path, _Directory())

    def rmdir(self, path: str) -> None:
        self._step("rmdir", path)
        super().rmdir(path)
        self._name(path, None)

    def fsync_dir(self, path: str) -> None:
        self._step("fsync_dir", path)
        os.stat(path)
        if path.startswith(self.root):
            self._directory(path).sync()

"""A disk that loses power, and what its platter may hold then.

Calls go through to a real directory, except that nothing is really synced; beside it a model notes what
each fsync made durable. The model is weaker than any real file system: of what was not synced, each
sector, each length and each name may or may not have arrived, independently. Directories are names too,
and take all below them along. SQLite's files are in the model too, through :mod:`.sqlite`.

A disk in :class:`Trouble` fails calls; after a failed fsync of a file the next ones lie, as on Linux:
they succeed, and nothing becomes durable.
"""

from __future__ import annotations

import errno
import os
import os.path
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from random import Random
from typing import Any

from attrs import define, field

from swarm.storage.disk import Disk
from swarm.testing.simulation.durable import File
from swarm.testing.simulation.trouble import Trouble

_FREE = 1 << 40  # more than any file has


class PowerLoss(Exception):
    """Not an OSError: nothing may catch it."""


@define(eq=False)
class _Directory:
    names: dict[str, list[Any]] = field(factory=dict)
    """For each name what it stood for since the last sync, oldest first; None: nothing."""

    def latest(self, name: str) -> Any:
        return self.names.get(name, [None])[-1]

    changes: int = 0

    def set(self, name: str, value: Any) -> None:
        self.changes += 1
        self.names.setdefault(name, [None]).append(value)

    def sync(self) -> None:
        self.names = {name: [was[-1]] for name, was in self.names.items() if was[-1] is not None}


class Platter(Disk):
    """
    The disk of one process. Power is lost at the ``at``-th call that changes or syncs something.

    :ivar lost: told when that happens.
    :ivar pages: draws what of a file is in the page cache, and how much a write takes; None: whatever the
        kernel says.
    :ivar trouble: what fails now; ``met`` counts what did, and other rare things.
    """

    def __init__(self, root: str, at: int = -1) -> None:
        self.root = root
        self.at = at
        self.calls = 0
        self.dead = False
        self.trace: list[tuple[str, str]] = []
        self.lost: Callable[[], None] = lambda: None
        self.pages: Random | None = None
        self.trouble: Trouble | None = None
        self.met: Counter[str] = Counter()
        self._top = _Directory()
        self._fds: dict[int, File] = {}
        self._directories: dict[int, _Directory] = {}

    # -- the model ------------------------------------------------------------

    def _step(self, call: str, subject: str) -> None:
        if self.dead or self.calls == self.at:
            if not self.dead:
                self.dead = True
                self.lost()
            raise PowerLoss
        self._fail(call)
        self.calls += 1
        self.trace.append((call, subject.removeprefix(f"{self.root}/")))

    def _fail(self, call: str) -> None:
        error = self.trouble.meets(call) if self.trouble is not None else 0
        if error:
            self.met[f"{errno.errorcode[error]} in {call}"] += 1
            raise OSError(error, os.strerror(error))

    def _directory(self, path: str) -> _Directory:
        directory = self._top
        for name in path[len(self.root) + 1 :].split("/") if path != self.root else ():
            directory = directory.latest(name)
        return directory

    def _name(self, path: str, value: Any) -> None:
        self._directory(os.path.dirname(path)).set(os.path.basename(path), value)

    def _value(self, path: str) -> Any:
        return self._directory(os.path.dirname(path)).latest(os.path.basename(path))

    def survivor(self, random: Random) -> dict[str, bytes]:
        """One possible platter: file contents by path below the root."""
        return {path: file.survivor(random) for path, file in self._surviving(random)}

    def _surviving(self, random: Random) -> Iterator[tuple[str, File]]:
        def look(directory: _Directory, path: str) -> Iterator[tuple[str, File]]:
            for name, was in directory.names.items():
                value = random.choice(was)
                if isinstance(value, _Directory):
                    yield from look(value, f"{path}{name}/")
                elif value is not None:
                    yield path + name, value

        return look(self._top, "")

    # -- dying and coming back --------------------------------------------------

    def crash(self) -> None:
        """The process is gone: its descriptors are closed, and nothing it still tries has an effect."""
        self.dead = True
        while self._fds:
            os.close(self._fds.popitem()[0])

    def release(self) -> None:
        """The run is over: the model's own descriptors are closed."""
        self._top = _Directory()
        self._fds.clear()

    @property
    def descriptors(self) -> int:
        """How many the process has open."""
        return len(self._fds)

    def restarted(self) -> Platter:
        """The same disk for the next process; the kernel never went down and knows what was written."""
        after = type(self)(self.root)
        after._top, after.met = self._top, self.met
        return after

    def rebooted(self, root: str, random: Random) -> Platter:
        """One possible disk after power was lost, in a new directory; all that is left is durable."""
        after = type(self)(root)
        after.met = self.met
        for path, file in self._surviving(random):
            data = file.survivor(random)
            target = os.path.join(root, path)
            os.makedirs(os.path.dirname(target), exist_ok=True)
            fd = os.open(target, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
            os.write(fd, data)
            modified = os.fstat(file.fd).st_mtime_ns
            os.utime(fd, ns=(modified, modified))
            directory = after._top
            for name in path.split("/")[:-1]:
                if directory.latest(name) is None:
                    directory.names[name] = [_Directory()]
                directory = directory.latest(name)
            directory.names[path.rpartition("/")[2]] = [File(fd, len(data))]
        return after

    def is_durable(self, path: str, data: bytes) -> bool:
        """Would a file be there with these bytes, wherever the power is lost now?"""
        if self._value(path) is None:
            return False
        directory, names = self._top, path[len(self.root) + 1 :].split("/")
        for name in names:
            if len(directory.names[name]) > 1:
                return False
            directory = directory.latest(name)
        file: Any = directory
        return bool(file.synced() == data)

    def rot(self, path: str, offset: int) -> None:
        """A bit flips on the platter; nobody is told, and no date changes."""
        self._value(path).rot(offset)

    # -- SQLite's files ---------------------------------------------------------

    def adopted(self, path: str) -> Any:
        """A file that SQLite opened; new ones get their name when they are synced first."""
        file = self._value(path)
        if file is None:
            file = File(os.open(path, os.O_RDONLY))
            self._name(path, file)
        return file

    def removed(self, path: str, *, durable: bool) -> None:
        """SQLite removed a file."""
        self._name(path, None)
        if durable:
            self._directory(os.path.dirname(path)).names.pop(os.path.basename(path), None)

    def touched(self, call: str) -> None:
        """SQLite changes a file: the power may go, the disk may refuse."""
        self._step(call, "database")

    def synced(self, file: Any) -> None:
        """SQLite syncs a file, and with a new one the directory that it is in."""
        self._sync(file)
        if any(was[-1] is file and len(was) > 1 for was in self._top.names.values()):
            self._top.sync()

    # -- the calls ------------------------------------------------------------

    def _opened(self, fd: int, file: File | None = None) -> int:
        self._fds[fd] = file or File(os.dup(fd))
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
        self._fail("open_read")
        return self._opened(super().open_read(path), self._value(path))

    def open_write(self, path: str) -> int:
        return self._opened(super().open_write(path), self._value(path))

    def lock(self, path: str) -> int:
        return self._opened(super().lock(path))

    def close(self, fd: int) -> None:
        if self._fds.pop(fd, None) is not None:  # else it was closed in the crash, and is another's by now
            self._directories.pop(fd, None)
            super().close(fd)

    def pwritev(self, fd: int, data: Any, offset: int) -> int:
        self._step("pwritev", "file")
        self._fds[fd].changes(offset, sum(memoryview(each).nbytes for each in data))
        if self.pages is not None and self.pages.random() < 0.02:
            first = memoryview(data[0]).cast("B")
            return super().pwritev(fd, [first[: max(1, len(first) // 2)]], offset)
        return super().pwritev(fd, data, offset)

    def preadv(self, fd: int, buffers: Sequence[Any], offset: int) -> int:
        self._fail("preadv")
        return super().preadv(fd, buffers, offset)

    def read_nowait(self, fd: int, length: int, offset: int) -> bytes | None:
        if self.pages is None:
            return super().read_nowait(fd, length, offset)
        if self.pages.random() < 0.2:
            return None
        return os.pread(fd, length, offset)

    def fill_nowait(self, fd: int, buffer: Any, offset: int) -> int:
        if self.pages is None:
            return super().fill_nowait(fd, buffer, offset)
        return 0 if self.pages.random() < 0.2 else os.preadv(fd, [buffer], offset)

    def open_directory(self, path: str) -> int:
        fd = self._opened(super().open_directory(path))
        self._directories[fd] = self._directory(path)
        return fd

    def changed_at(self, fd: int) -> int:
        return self._directories[fd].changes if fd in self._directories else 0

    settled_at = changed_at  # no two changes of the model bear the same number

    def free(self, path: str) -> int:
        return super().free(path) if self.pages is None else _FREE

    def fallocate(self, fd: int, length: int) -> None:
        self._step("fallocate", "file")
        super().fallocate(fd, length)

    def clone(self, source: int, target: int) -> None:
        self._fds[target].changes(0, _FREE)
        super().clone(source, target)

    def ftruncate(self, fd: int, length: int) -> None:
        self._step("ftruncate", "file")
        self._fds[fd].changes(length, _FREE)
        super().ftruncate(fd, length)

    def fsync(self, fd: int) -> None:
        self._sync(self._fds[fd])

    def _sync(self, file: File) -> None:
        try:
            self._step("fsync", "file")
        except OSError:
            file.fail()
            raise
        file.sync()

    fdatasync: Callable[[Platter, int], None] = fsync  # type: ignore[assignment]  # weaker is allowed

    def link_fd(self, fd: int, path: str) -> None:
        self._step("link_fd", path)
        try:
            super().link_fd(fd, path)
        except FileExistsError:
            self.met["EEXIST in link_fd"] += 1
            raise
        self._name(path, self._fds[fd])

    def link(self, source: str, target: str) -> None:
        self._step("link", target)
        super().link(source, target)
        self._name(target, self._value(source))

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

    def write_out(self, fd: int, offset: int, length: int) -> None:
        self._step("write_out", "file")

    def begin_write_out(self, fd: int) -> None:
        self._step("begin_write_out", "file")

    def open_volume(self, path: str) -> int | None:
        return self.open_directory(path)

    def sync_volume(self, fd: int) -> None:
        try:
            self._step("sync_volume", "volume")
        except OSError:
            for file in self._fds.values():
                file.fail()
            raise
        for file in (*self._everything(self._top), *self._fds.values()):
            file.sync()

    def _everything(self, directory: _Directory) -> Iterator[File]:
        """The files that have a name now; their directories are synced on the way."""
        directory.sync()
        for (value,) in directory.names.values():
            if isinstance(value, _Directory):
                yield from self._everything(value)
            else:
                yield value

    def unwritten(self) -> int:
        return 0

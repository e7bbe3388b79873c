"""One life of a store on a disk that fails: what was there before, what is done, and who is told what."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from attrs import define, field

from swarm.errors import BlobMissing
from swarm.hashing import load
from swarm.model.digest import Digest
from swarm.storage.disk import Disk
from swarm.testing.contracts import at_once, put
from swarm.testing.simulation.disk import Platter, PowerLoss
from swarm.testing.simulation.sqlite import Databases
from swarm.testing.simulation.trouble import Trouble
from tests.contracts.rigs import SHA512, FilesystemRig, fast
from tests.crash.truth import Fact, Told, read

SHORT = -1
"""Instead of an error: a write takes only half of what it is given."""

_UNSEEN = (
    "open_write", "open_directory", "stat", "fstat", "listdir", "chmod", "lock", "clone", "drop_cache", "free"
)  # fmt: skip


@define
class Kth(Trouble):
    """The ``k``-th call, counted from 1, fails with ``error``, whichever it is."""

    k: int = 0
    error: int = 0
    calls: int = 0
    failed: str | None = None

    def meets(self, call: str) -> int:
        """See :class:`Trouble`."""
        self.calls += 1
        if self.calls != self.k or (self.error == SHORT and call != "pwritev"):
            return 0
        if self.error == errno.EINTR and call.startswith("database"):
            return 0  # SQLite tries again by itself
        self.failed = call
        return self.error


class CrashDisk(Platter):
    """A platter every call of which may fail; a write that fails has written half of it."""

    def __init__(self, root: str, at: int = -1) -> None:
        super().__init__(root, at)
        self.where = ""
        for name in _UNSEEN:
            setattr(self, name, self._watched(name, getattr(self, name)))

    def _watched(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def watched(*arguments: Any, **options: Any) -> Any:
            if self.trouble is not None:  # a start that is not watched has no trouble
                self._fail(name)
            return call(*arguments, **options)

        return watched

    def _fail(self, call: str) -> None:
        if self.trouble is not None and (error := self.trouble.meets(self.where + call)) > 0:
            raise OSError(error, os.strerror(error))

    def touched(self, call: str) -> None:
        """See :class:`Platter`."""
        with self._in_database():
            super().touched(call)

    def synced(self, file: Any) -> None:
        """See :class:`Platter`."""
        with self._in_database():
            super().synced(file)

    @contextmanager
    def _in_database(self) -> Iterator[None]:
        self.where = "database "
        try:
            yield
        finally:
            self.where = ""

    def pwritev(self, fd: int, data: Any, offset: int) -> int:
        """See :class:`Disk`."""
        whole = b"".join(data)
        if isinstance(self.trouble, Kth) and self.trouble.calls + 1 == self.trouble.k:
            whole = whole[: max(1, len(whole) // 2)]
            self._fds[fd].changes(offset, len(whole))
            Disk.pwritev(self, fd, [whole], offset)
        return super().pwritev(fd, [whole], offset)


def blob(data: bytes) -> Fact:
    """It is there, and whole."""
    return ("blob", Digest.of(data).hex), True


def named(data: bytes, name: str) -> Fact:
    """It bears this name."""
    return ("name", Digest.of(data).hex, name), True


@define(eq=False)
class Play:
    """
    A store, and all that its outside may rely on.

    :ivar data: the data directory.
    :ivar deletion: the service, once an operation made it; it remembers what it could not finish.
    """

    data: str
    disk: Disk
    told: Told = field(factory=Told)
    deletion: Any = None
    rig: FilesystemRig = field(init=False)

    def __attrs_post_init__(self) -> None:
        sha512 = load(preadv=self.disk.preadv) if isinstance(self.disk, Platter) else SHA512
        self.rig = FilesystemRig(self.data, disk=self.disk, sha512=sha512)

    @property
    def store(self) -> Any:
        """The store under test."""
        return self.rig.store

    # -- steps that operations are made of -------------------------------------

    async def put(self, data: bytes, name: str) -> None:
        """As a PUT: refused, it leaves no blob; of one that was there it may leave the name."""
        digest = Digest.of(data)
        new = self.told.here.get(blob(data)[0]) in (None, {None})
        with self.told.change(blob(data), named(data, name), or_nothing=new):
            stored = await put(self.store, data, name)
            assert stored.info.digest == digest

    async def delete(self, data: bytes) -> None:
        """As a DELETE, of a client that asks until it hears that nothing is there."""
        with self.told.change(*self.gone(data)), suppress(BlobMissing):
            await self.store.delete(Digest.of(data))

    def gone(self, data: bytes) -> list[Fact]:
        """Neither it nor any name of it is there."""
        kinds = ("blob", "name")
        return [(key, None) for key in self.told.here if key[0] in kinds and key[1] == Digest.of(data).hex]

    def damage(self, data: bytes) -> None:
        """A bit of it flips, and the disk is not to blame for that."""
        path = Path(self.rig.layout.file(Digest.of(data), "data"))
        if isinstance(self.disk, Platter):
            self.disk.rot(str(path), len(data) // 2)
        os.utime(path, ns=(0, 0))  # so that it is noticed
        key = blob(data)[0]
        self.told.on_disk[key], self.told.here[key] = ({"damaged", None} for _ in "12")
        for each in [key for key in self.told.here if key[:2] == ("name", Digest.of(data).hex)]:
            self.told.on_disk[each] = self.told.here[each] = {True, None}

    # -- its end ---------------------------------------------------------------

    def fall(self) -> None:
        """The process is gone."""
        if isinstance(self.disk, Platter):
            self.told.dead = True
            self.disk.dead = True
        self.store._catalog.doubts += 1
        with suppress(PowerLoss):
            self.store._close()
        if isinstance(self.disk, Platter):
            self.disk.crash()

    def check(self, *, power: bool) -> None:
        """:raises AssertionError: the directory is not what its outside was told."""
        self.told.check(read(self.data), power=power)

    def left_over(self) -> list[str]:
        """Files that only an operation under way may need."""
        root = Path(self.data)
        found = [*root.glob("blobs/.*"), *root.glob("partial/*")]
        return [str(each.relative_to(root)) for each in found]

    def descriptors(self) -> list[str]:
        """Files of the data directory that are open."""
        found = []
        for fd in os.listdir("/proc/self/fd"):
            with suppress(FileNotFoundError):
                found.append(os.readlink(f"/proc/self/fd/{fd}"))
        return [path for path in found if path.startswith(self.data + "/")]

    def check_started(self, *, power: bool) -> None:
        """:raises AssertionError: as :meth:`check`; or the node counts other blobs, or keeps deleted ones."""
        truth = read(self.data)
        self.told.check(truth, power=power)
        self.told.check_buried(truth)
        sizes = {path.parent.name: path.stat().st_size for path in Path(self.data).glob("blobs/??/??/*/data")}
        usage = self.store.usage()
        assert (usage.blobs, usage.bytes) == (len(sizes), sum(sizes.values())), "counted wrongly"
        assert [digest.hex for digest in at_once(self.store.digests())] == sorted(sizes)


@contextmanager
def databases() -> Iterator[Databases]:
    """While the block runs, SQLite writes to simulated disks."""
    found = Databases()
    try:
        yield found
    finally:
        found.unregister()


@contextmanager
def prepared(operation: Any, simulated: Databases) -> Iterator[tuple[Play, CrashDisk]]:
    """A store just before the operation, with calls counted from now on."""
    with tempfile.TemporaryDirectory(prefix="swarm-crash-", dir=fast()) as top:
        disk = CrashDisk(f"{top}/data")
        os.mkdir(disk.root)
        simulated.disks[disk.root] = disk
        play = Play(disk.root, disk)
        disk.lost = play.told.die
        try:
            if not operation.starts:
                at_once(play.store.start())
                at_once(operation.before(play))
            disk.calls = 0
            disk.trace.clear()
            yield play, disk
        finally:
            play.fall()
            simulated.disks.pop(disk.root, None)
            disk.release()

"""The stores under contract: both twins, and the real one with real threads."""

from __future__ import annotations

import os
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import ParamSpec, TypeVar

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import Clock

from swarm.hashing import Sha512, load
from swarm.interfaces import RunBlocking
from swarm.model.digest import Digest
from swarm.storage.disk import Disk
from swarm.storage.filesystem import FilesystemStore
from swarm.storage.layout import Layout
from swarm.storage.ledgers import Hints, PeerBook, Tombstones
from swarm.storage.settings import StoreSettings
from swarm.testing.contracts import StoreRig
from swarm.testing.memory import MemoryHints, MemoryPeerBook, MemoryStore, MemoryTombstones

_P = ParamSpec("_P")
_T = TypeVar("_T")

SHA512 = load()


async def on_the_spot(function: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
    """``run_blocking`` without a thread: every coroutine of the store is done at once."""
    return function(*args, **kwargs)


def epoch() -> Clock:
    """A clock that stands at some ordinary moment."""
    clock = Clock()
    clock.advance(1_700_000_000)
    return clock


def fast() -> str | None:
    """A directory in memory, where there is one: thousands of fsyncs wear on a real disk."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


class MemoryRig:
    """The twin in memory."""

    def __init__(self, quota: int | None) -> None:
        self.store = MemoryStore(sha512=SHA512, quota=quota)

    @property
    def hints(self) -> MemoryHints:
        return self.store.hints

    @property
    def peers(self) -> MemoryPeerBook:
        return self.store.peers

    @property
    def tombstones(self) -> MemoryTombstones:
        return self.store.tombstones

    def damage(self, digest: Digest) -> None:
        self.store.damage(digest)

    def mark(self, digest: Digest, marker: str) -> None:
        self.store.markers.setdefault(digest, set()).add(marker)

    def switch_off(self, method: str) -> None:
        self.store.deny.add(method)

    async def restart(self) -> None:
        await self.store.stop()
        await self.store.start()


class FilesystemRig:
    """The real store, on a disk that tests may replace."""

    def __init__(
        self,
        path: str,
        quota: int | None = None,
        *,
        clock: IReactorTime | None = None,
        run_blocking: RunBlocking = on_the_spot,
        disk: Disk | None = None,
        sha512: Sha512 = SHA512,
    ) -> None:
        self.path = path
        self.layout = Layout(path)
        self.clock = clock or epoch()
        self.disk = disk or Disk()
        self._settings = StoreSettings(quota=quota, reserve=0)
        self._run_blocking = run_blocking
        self._sha512 = sha512
        self.store = self._make()

    def _make(self) -> FilesystemStore:
        return FilesystemStore(
            self.path,
            self._settings,
            clock=self.clock,
            sha512=self._sha512,
            run_blocking=self._run_blocking,
            random=Random(1),
            disk=self.disk,
        )

    @property
    def hints(self) -> Hints:
        return self.store.hints

    @property
    def peers(self) -> PeerBook:
        return self.store.peers

    @property
    def tombstones(self) -> Tombstones:
        return self.store.tombstones

    def damage(self, digest: Digest) -> None:
        path = Path(self.layout.file(digest, "data"))
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.chmod(0o640)
        path.write_bytes(data)

    def forget_midstates(self, digest: Digest) -> None:
        """Lose the stored list."""
        Path(self.layout.file(digest, "midstates")).unlink()

    def mark(self, digest: Digest, marker: str) -> None:
        path = Path(self.layout.file(digest, marker))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()

    def switch_off(self, method: str) -> None:
        Path(self.layout.deny(method)).touch()

    async def crash(self) -> None:
        """Begin again without having stopped; descriptors are closed, as the kernel does."""
        self.store._catalog.doubts += 1  # so that closing does not count as a clean stop
        self.store._close()
        self.store = self._make()
        await self.store.start()

    async def restart(self) -> None:
        await self.store.stop()
        self.store = self._make()
        await self.store.start()


@asynccontextmanager
async def memory(*, quota: int | None = None) -> AsyncIterator[StoreRig]:
    """A rig in memory."""
    yield MemoryRig(quota)


@asynccontextmanager
async def filesystem(
    *, quota: int | None = None, run_blocking: RunBlocking = on_the_spot, clock: IReactorTime | None = None
) -> AsyncIterator[FilesystemRig]:
    """A rig on the disk; without threads unless told otherwise, and then it needs a clock that goes."""
    with tempfile.TemporaryDirectory(prefix="swarm-test-", dir=fast()) as path:
        rig = FilesystemRig(path, quota, run_blocking=run_blocking, clock=clock)
        await rig.store.start()
        yield rig
        await rig.store.stop()

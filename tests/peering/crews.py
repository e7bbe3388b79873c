"""Workers for a node of these tests: all there is of them but the process, in this one."""

from __future__ import annotations

import os
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from random import Random
from typing import Any

import attrs
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessDone, ProcessExitedAlready
from twisted.internet.threads import deferToThread
from twisted.python.failure import Failure

from swarm.model.digest import Digest
from swarm.peering.credentials import Credentials
from swarm.peering.limits import PeerLimits
from swarm.peering.reads import life
from swarm.services.tasks import Tasks, sleep
from swarm.storage.disk import Disk
from swarm.testing.memory import MemoryStore
from swarm.web.limits import WebLimits
from swarm.workers.crew import Crew, Granted
from swarm.workers.messages import Entry, Orders
from swarm.workers.settings import WorkerSettings
from swarm.workers.station import Station
from swarm.workers.tally import Tally
from swarm.workers.worker import CONTROL, TALLY, Worker

#: Seconds for what is under way when they are to end; much more than anything takes.
DRAIN = 20.0


async def in_thread(function: Any, /, *args: Any, **kwargs: Any) -> Any:
    return await deferToThread(function, *args, **kwargs)


class Process:
    """What the node takes for a worker's process."""

    def __init__(self, protocol: Worker, control: int, tally: int, slot: int, files: Files | None) -> None:
        self.pid = os.getpid()
        self._protocol = protocol
        self._alive = True
        self.station = Station(
            reactor,
            socket.socket(fileno=os.dup(control)),
            Tally(tally, slot),
            run_blocking=in_thread,
            end=self.end,
        )
        if files is not None:
            blobs, opened = self.station.blobs, self.station.blobs.opened
            blobs.opened = lambda key: opened(key) if files.holds(key) else None  # type: ignore[method-assign]

    def signalProcess(self, name: str) -> None:
        if not self._alive:
            raise ProcessExitedAlready
        self.end()

    def end(self) -> None:
        if not self._alive:
            return
        self._alive = False
        for site in self.station._sites.values():
            site.disconnect()
        self.station.blobs.resize(0)
        self.station.blobs._kept.close()
        self.station._packets.close()
        reactor.callLater(0, self._gone)

    def _gone(self) -> None:
        stopping = Deferred.fromCoroutine(self.station._tasks.stop())
        stopping.addCallback(lambda _: self._protocol.processEnded(Failure(ProcessDone(0))))


class Reactor:
    """The reactor, but for processes."""

    def __init__(self, files: Files | None) -> None:
        self._files = files

    def __getattr__(self, name: str) -> Any:
        return getattr(reactor, name)

    def spawnProcess(
        self, protocol: Worker, executable: str, args: list[str], env: object, childFDs: dict[int, Any]
    ) -> None:
        control, tally = childFDs[CONTROL], childFDs[TALLY]
        process: Any = Process(protocol, control, tally, int(args[-1]), self._files)
        protocol.transport = process


class OnlyWorkers(Crew):
    """Gives everything away."""

    def choose(self, door: bytes) -> Worker | None:
        """Whoever serves."""
        return next((each for each in self._workers.values() if each.available), None)


class Files:
    """
    Grants blobs of a store in memory, each from a file.

    No directory of theirs tells when the store changed: they are asked before each answer instead.
    """

    def __init__(self, store: MemoryStore, directory: Path) -> None:
        self._store = store
        self._directory = directory
        self._disk = Disk()
        self.granted = 0
        self._seen: dict[bytes, object] = {}

    def holds(self, key: bytes) -> bool:
        """Is the blob as it was when it was granted?"""
        return self._seen.get(key) == self._look(Digest.parse(key.decode("ascii")))

    def _look(self, digest: Digest) -> object:
        store = self._store
        marked, blob = store.markers.get(digest), store.blobs.get(digest)
        return blob and blob.names, frozenset(marked or ()), frozenset(store.deny)

    async def grant(self, digest: Digest) -> Granted | None:
        self._store.check_allowed("get")
        await self._store.check_markers(digest)
        blob = self._store.blobs.get(digest)
        if blob is None:
            return None
        directory = self._directory / digest.hex
        directory.mkdir(exist_ok=True)
        (directory / "data").write_bytes(blob.data)
        files = os.open(directory / "data", os.O_RDONLY), os.open(directory, os.O_RDONLY)
        self.granted += 1
        self._seen[digest.hex.encode("ascii")] = self._look(digest)
        entry = Entry(
            len(blob.data),
            tuple(name.text for name in blob.names),
            self._disk.changed_at(files[1]),
            self._disk.changed_at(files[0]),
            0.0,
            float("inf"),
            life(self._store.tombstones, digest),
        )

        def close() -> None:
            for each in files:
                os.close(each)

        return Granted(entry, files, close)


async def nothing(digest: Digest) -> None:
    """Grants no blob: the node answers everything."""


def hire(
    grant: Callable[[Digest], Awaitable[Granted | None]],
    credentials: Credentials,
    *,
    cluster: str,
    limits: PeerLimits,
    web: WebLimits,
    tasks: Tasks,
    files: Files | None = None,
) -> Crew:
    """Two workers that serve all that comes."""

    async def verify(digest: Digest) -> None:
        raise AssertionError("every file can be read")

    def orders() -> Orders:
        return Orders(
            os.devnull + "/no", None, (), DRAIN, 10, attrs.asdict(web), cluster,
            attrs.asdict(limits), attrs.asdict(credentials.settings),
        )  # fmt: skip

    return OnlyWorkers(
        2,
        WorkerSettings(drain=DRAIN),
        orders=orders,
        grant=grant,
        verify=verify,
        credentials=credentials,
        reactor=Reactor(files),
        random=Random(1),
        tasks=tasks,
    )


async def all_serve(crew: Crew) -> None:
    while crew.serving < crew.wanted:
        await sleep(reactor, 0.001)

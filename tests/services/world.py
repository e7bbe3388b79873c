"""One node's services in memory, time that passes only when told, and peers that lie as they are told.

The store is the twin in memory, made to take time: a hash or an fsync that is done at once would hide
every race there is.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from random import Random
from typing import Any, TypeVar

from attrs import define, evolve, field
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher
from twisted.python.failure import Failure

from swarm.core.dispatch import DispatchSettings
from swarm.core.standing import Standing
from swarm.errors import BlobMissing
from swarm.hashing import Sha512, load
from swarm.hashing.sha512 import PlainSha512
from swarm.interfaces import BlobInfo, IBlobReader, ILane, Stored, Told, untold
from swarm.model.digest import Digest
from swarm.model.filenames import Filename
from swarm.model.grains import Grains
from swarm.model.midstates import Midstates
from swarm.model.peers import Peer
from swarm.model.ranges import RangeSet
from swarm.services.fetcher import Fetcher, FetchSettings, PartialView
from swarm.services.pull import PullSettings
from swarm.services.tasks import Tasks, sleep
from swarm.testing.contracts import pattern
from swarm.testing.loopback import Loopback, LoopbackClient, LoopbackLane, LoopbackNode
from swarm.testing.memory import MemoryPartial, MemoryReader, MemoryStore, _Pull

_T = TypeVar("_T")
MIB = 1 << 20
SHA512 = load()
PLAIN = PlainSha512(os.preadv)
#: Six grains, the last a short one.
BLOB = pattern(6 * MIB - 1234)
DIGEST = Digest.of(BLOB)
GRAINS = Grains.of(len(BLOB))


@define(eq=False)
class SlowPartial(MemoryPartial):
    """A pull whose every act on the disk takes a millisecond of the clock."""

    async def end_states(self, index: int, starts: Any, *, at_leisure: bool = False) -> tuple[bytes, ...]:
        await self._store.work("hash")
        self._store.disk_read()
        return await super().end_states(index, starts)

    async def hash_all(self) -> Digest:
        await self._store.work("hash all")
        self._store.disk_read()
        return await super().hash_all()

    async def checkpoint(self) -> None:
        await self._store.work("checkpoint")
        await super().checkpoint()

    async def publish(self, midstates: Midstates | None, names: Any = ()) -> Stored:
        await self._store.work("publish")
        return await super().publish(midstates, names)

    async def discard(self) -> None:
        await self._store.work("discard")
        await super().discard()


class SlowStore(MemoryStore):
    """A store in memory that takes its time."""

    def __init__(self, clock: Clock, sha512: Sha512) -> None:
        super().__init__(sha512=sha512)
        self.clock = clock
        self.pace: dict[str, float] = {}
        self.broken_reads: Callable[[], Exception] | None = None
        self.partials: list[SlowPartial] = []
        self.opened: list[MemoryReader] = []

    async def work(self, kind: str) -> None:
        await sleep(self.clock, self.pace.get(kind, 0.001))

    def disk_read(self) -> None:
        if self.broken_reads is not None:
            raise self.broken_reads()

    async def open(self, digest: Digest) -> MemoryReader:
        await self.work("open")
        reader = await super().open(digest)
        self.opened.append(reader)
        return reader

    async def partial(self, digest: Digest, size: int) -> SlowPartial:
        await self.work("partial")
        plain = await super().partial(digest, size)
        partial = SlowPartial(self, digest, plain.grains, plain._pull, plain.journaled)
        self.partials.append(partial)
        return partial


class QuickStore(MemoryStore):
    """A peer's store: it hashes each of its blobs once only."""

    def __init__(self) -> None:
        super().__init__(sha512=SHA512)
        self._verified: dict[int, bytes] = {}
        self._lists: dict[Digest, Midstates | None] = {}

    async def verify(self, digest: Digest) -> bool:
        data = self._blob(digest).data
        if id(data) in self._verified:
            return True
        good = await super().verify(digest)
        if good:
            self._verified[id(data)] = data
        return good

    async def midstates(self, digest: Digest) -> Midstates | None:
        if digest not in self.blobs:
            return None
        if digest not in self._lists:
            self._lists[digest] = await super().midstates(digest)
        return self._lists[digest]


class WatchedClient(LoopbackClient):
    """Remembers its lanes."""

    lanes: list[LoopbackLane]

    def lane(self, peer: Peer, digest: Digest, size: int, told: Told = untold) -> ILane:
        lane = super().lane(peer, digest, size, told)
        assert isinstance(lane, LoopbackLane)
        self.lanes.append(lane)
        return lane


class World:
    """A node named ``us`` that pulls, and the peers it has."""

    def __init__(
        self,
        *,
        midstates: bool = True,
        seed: int = 1,
        settings: FetchSettings | None = None,
        dispatch: DispatchSettings | None = None,
        **pull: Any,
    ) -> None:
        self.clock = Clock()
        self.clock.advance(1_700_000_000)
        self.loopback = Loopback(self.clock)
        self.midstates = midstates
        self.store = SlowStore(self.clock, SHA512 if midstates else PLAIN)
        self.us = self.loopback.add("us", self.store)
        self.client = WatchedClient(self.loopback, self.us.peer, self.us.cluster)
        self.client.lanes = []
        self.peers: list[Peer] = []
        self.meeting = 0.0  # seconds until the peers of the start are met
        self.standing = Standing()
        self.settings = settings or FetchSettings(pull=PullSettings(**pull))
        self.dispatch = dispatch or DispatchSettings()
        self.random = Random(seed)
        self.boot()

    def boot(self) -> None:
        """Start the services on what the store has."""
        self.tasks = Tasks()
        self.fetcher = Fetcher(
            self.store,
            self.store.tombstones,
            self.client,
            lambda: tuple(self.peers),
            self.standing,
            self.settings,
            self.dispatch,
            clock=self.clock,
            random=self.random,
            tasks=self.tasks,
            midstates=self.midstates,
            me=lambda: self.us.peer.id,
            acquainted=self._acquainted,
        )

    async def _acquainted(self) -> bool:
        waited = self.meeting > 0
        await sleep(self.clock, self.meeting)
        return waited

    # -- peers ------------------------------------------------------------------------

    def peer(
        self, name: str, *blobs: bytes, rate: float = 8 * MIB, latency: float = 0.002, **behavior: Any
    ) -> LoopbackNode:
        """A live peer that holds the blobs."""
        node = self.loopback.add(name, QuickStore())
        node.rate, node.latency = rate, latency
        for blob in blobs:
            node.store.put(blob)
        for key, value in behavior.items():
            setattr(node, key, value)
        self.peers.append(node.peer)
        return node

    def leave(self, node: LoopbackNode) -> None:
        """The peer dies, and soon is known to have."""
        node.up = False
        self.peers.remove(node.peer)

    # -- time ---------------------------------------------------------------------------

    def step(self) -> bool:
        """Go on to the next thing that happens; False if nothing will."""
        calls = self.clock.getDelayedCalls()
        if not calls:
            return False
        soonest = min(call.getTime() for call in calls)
        self.clock.advance(max(0.0, soonest - self.clock.seconds()))
        return True

    def spend(self, seconds: float) -> None:
        """Let time pass."""
        until = self.clock.seconds() + seconds
        while calls := [c for c in self.clock.getDelayedCalls() if c.getTime() <= until]:
            assert calls
            self.step()
        self.clock.advance(until - self.clock.seconds())

    def run(self, work: Coroutine[Any, Any, _T], limit: float = 300.0) -> _T:
        """Let time pass until ``work`` is done."""
        return self.join(self.start(work), limit)

    def start(self, work: Coroutine[Any, Any, _T]) -> Deferred[_T]:
        """Begin something and leave it under way."""
        started: Deferred[_T] = Deferred.fromCoroutine(work)
        return started

    def join(self, work: Deferred[_T], limit: float = 300.0) -> _T:
        """Let time pass until something begun is done."""
        outcome: list[Any] = []
        work.addBoth(outcome.append)
        until = self.clock.seconds() + limit
        while not outcome:
            assert self.clock.seconds() <= until, f"not done after {limit} s; running: {self.tasks.names}"
            assert self.step(), "it waits for nothing"
        if isinstance(outcome[0], Failure):
            outcome[0].raiseException()
        return outcome[0]  # type: ignore[no-any-return] # whatever the coroutine returned

    def until(self, happened: Callable[[], object], limit: float = 300.0) -> None:
        """Let time pass until something is so."""
        deadline = self.clock.seconds() + limit
        while not happened():
            assert self.clock.seconds() <= deadline, f"not so after {limit} s"
            assert self.step(), "nothing happens any more"

    # -- reading ------------------------------------------------------------------------

    async def read(self, start: int = 0, stop: int | None = None, digest: Digest = DIGEST) -> bytes:
        """What a client gets of a blob."""
        reader = await self.fetcher.open(digest)
        try:
            return await drain(reader, start, reader.info.size if stop is None else stop)
        finally:
            reader.close()

    def served(self, start: int = 0, stop: int | None = None) -> bytes:
        """The same, and time passes for it, and for the pull to end."""
        try:
            return self.run(self.read(start, stop))
        finally:
            self.settle()

    def settle(self) -> None:
        """Let time pass until no pull is running."""
        self.until(lambda: not self.fetcher._fetches)

    # -- afterwards -----------------------------------------------------------------------

    def kill(self) -> None:
        """The node dies, and starts again on what it had made durable."""
        left = SlowStore(self.clock, self.store.sha512)
        left.blobs = dict(self.store.blobs)
        for digest, pull in self.store.pulls.items():
            grains = Grains.of(len(pull.data))
            after = _Pull(bytearray(grains.size), dict(pull.records))
            for grain in pull.records:
                kept = slice(grains.start(grain), grains.stop(grain))
                after.data[kept] = pull.data[kept]
            left.pulls[digest] = after
        self.stop()  # what the dead would still have done, they do to nobody's disk
        self.store = self.us.store = left
        self.boot()

    def stop(self) -> None:
        """Stop the node; nothing of it may be left."""
        self.run(self.fetcher.stop())
        self.run(self.tasks.stop())
        assert self.tasks.names == ()
        assert all(partial.closed for partial in self.store.partials), "a partial was left open"
        assert all(reader.closed for reader in self.store.opened), "a reader was left open"
        assert all(lane._over is not None for lane in self.client.lanes), "a lane was left open"
        assert self.clock.getDelayedCalls() == [], "timers are left"


async def drain(reader: IBlobReader, start: int, stop: int) -> bytes:
    """Read as an HTTP response does."""
    parts = []
    while start < stop:
        upto = await reader.available(start, stop)
        parts.append(await reader.read(start, upto - start))
        start = upto
    return b"".join(parts)


@contextmanager
def no_surprises() -> Iterator[list[str]]:
    """Nothing may be logged that nobody expected to fail. Yields what was warned of."""
    gc.collect()  # what earlier tests left is not this one's fault
    failures: list[str] = []
    said: list[str] = []

    def observe(event: dict[str, Any]) -> None:
        if (failure := event.get("log_failure")) is not None:
            failures.append(failure.getTraceback())
        said.append(str(event.get("log_format")))

    globalLogPublisher.addObserver(observe)
    try:
        yield said
    finally:
        globalLogPublisher.removeObserver(observe)
    assert not failures, "\n".join(failures)


# -- lies -------------------------------------------------------------------------------


def flipping(*grains: int) -> Callable[[int, bytes], bytes]:
    """Tamper: a bit is wrong in each of these grains (all, if none are named)."""

    def tamper(offset: int, data: bytes) -> bytes:
        if grains and offset // MIB not in grains:
            return data
        return bytes([data[0] ^ 1]) + data[1:]

    return tamper


def wrong_after(boundary: int) -> Callable[[Midstates], Midstates]:
    """Forge: the list is wrong at one inner boundary."""

    def forge(true: Midstates) -> Midstates:
        inner = bytearray(true.inner)
        inner[64 * (boundary - 1)] ^= 1
        return evolve(true, inner=bytes(inner))

    return forge


def listing(data: bytes) -> Callable[[Midstates], Midstates]:
    """Forge: the list that fits other bytes."""
    hasher = SHA512.hasher()
    hasher.update(data)
    other = hasher.midstates()
    assert other is not None
    return lambda true: other


def replacing(data: bytes) -> Callable[[int, bytes], bytes]:
    """Tamper: other bytes altogether."""
    return lambda offset, true: data[offset : offset + len(true)]


def stalling_after(node: LoopbackNode, count: int) -> Callable[[int, bytes], bytes]:
    """Tamper: nothing wrong, but after so many bytes nothing comes any more."""

    def tamper(offset: int, data: bytes) -> bytes:
        if node.sent >= count:
            node.rate = 1.0
        return data

    return tamper


@define(eq=False)
class Growing:
    """A node that is pulling, too: it serves what it has by now."""

    data: bytes
    digest: Digest
    have: RangeSet = field(factory=RangeSet)

    def serving(self, digest: Digest) -> PartialView | None:
        if digest != self.digest:
            return None
        info = BlobInfo(self.digest, len(self.data), (Filename.parse("grown.bin"),))
        return PartialView(info, self.have.copy(), lambda: MemoryReader(info, self.data))


__all__ = [
    "BLOB",
    "DIGEST",
    "GRAINS",
    "MIB",
    "SHA512",
    "BlobMissing",
    "CancelledError",
    "Growing",
    "SlowStore",
    "World",
    "drain",
    "flipping",
    "listing",
    "no_surprises",
    "pattern",
    "replacing",
    "stalling_after",
    "wrong_after",
]

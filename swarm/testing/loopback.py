"""Peers without a network: a twin of the peer client, and the nodes it reaches, in memory.

What travels is still spelled as it is on the wire and read back, so that what cannot travel cannot be
tested by mistake. Time passes only on the clock given. How a node behaves is its attributes, for
tests to turn: it can be down, slow, lie about bytes, sizes and midstates, or break off.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

from attrs import define, field
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from swarm.errors import BlobMissing, Fault, LocalError, Malformed, PeerError
from swarm.interfaces import BlobInfo, IBlobReader, ILane, IPeerClient, Told, untold
from swarm.model.digest import Digest
from swarm.model.grains import Grains
from swarm.model.holdings import Holding
from swarm.model.midstates import Midstates
from swarm.model.peers import Address, Peer, PeerID
from swarm.model.ranges import ByteRange, RangeSet, parse_have
from swarm.peering.faults import fault_of_status
from swarm.peering.receiving import Replica
from swarm.peering.wire import encode_have, encode_names, parse_names
from swarm.services.deletion import Deletion, DeletionSettings
from swarm.services.fetcher import PartialView
from swarm.services.tasks import Signal, sleep
from swarm.testing.memory import MemoryStore
from swarm.web.errors import Refusal, trouble_of

_T = TypeVar("_T")
_PIECE = 64 << 10


@define(eq=False)
class LoopbackNode:
    """
    One node as its peers meet it.

    :ivar serving: the running pull of a blob, as ``Fetcher.serving``.
    :ivar latency: seconds before each answer; ``rate``: bytes a second of blob bytes, 0 for no limit.
    :ivar tamper: what becomes of blob bytes, given their offset.
    :ivar breaks_after: bytes of a span before the connection breaks.
    :ivar faults: what the next fetches of spans end with, None for well.
    :ivar claims_size: instead of the true one.
    :ivar forge_midstates: what is offered instead of the true list.
    :ivar sent: blob bytes sent so far.
    """

    peer: Peer
    cluster: str
    store: MemoryStore
    deletion: Deletion
    serving: Callable[[Digest], PartialView | None] = lambda _: None
    document: Callable[[], dict[str, Any]] | None = None
    up: bool = True
    latency: float = 0.0
    rate: float = 0.0
    tamper: Callable[[int, bytes], bytes] = lambda _, data: data
    breaks_after: int | None = None
    faults: deque[Fault | None] = field(factory=deque)
    claims_size: int | None = None
    forge_midstates: Callable[[Midstates], Midstates] = lambda midstates: midstates
    sent: int = 0
    reports: list[tuple[PeerID, Digest, str]] = field(factory=list)
    greetings: list[PeerID] = field(factory=list)

    def cluster_document(self) -> dict[str, Any]:
        """What it answers to a greeting."""
        if self.document is not None:
            return self.document()
        me = {"Name": self.peer.name, "ID": self.peer.id.hex, "PublicAddr": "", "LastAlive": 0}
        return {"Name": self.cluster, "Me": {**me, "MgmtAddr": str(self.peer.address)}, "Peers": {}}

    async def open(self, digest: Digest) -> tuple[IBlobReader, RangeSet | None]:
        """What it can read, and of a running pull, which bytes."""
        self.store.check_allowed("get")
        await self.store.check_markers(digest)
        try:
            return await self.store.open(digest), None
        except BlobMissing:
            view = self.serving(digest)
            if view is None:
                raise
            return view.reader(), view.have


class Loopback:
    """All nodes of a test, by address."""

    def __init__(self, clock: IReactorTime) -> None:
        self.clock = clock
        self.nodes: dict[Address, LoopbackNode] = {}

    def add(self, name: str, store: MemoryStore | None = None, *, cluster: str = "test") -> LoopbackNode:
        """A node that is up; its identity and address follow from its name."""
        store = store or MemoryStore()
        peer = Peer(PeerID(Digest.of(name.encode()).raw[:32]), name, Address(f"{name}.example", 7041))
        deletion = Deletion(
            store,
            store.tombstones,
            LoopbackClient(self, peer, cluster),
            lambda: [node.peer for node in self.nodes.values() if node.peer != peer],
            DeletionSettings(),
            name=name,
            clock=self.clock,
            forget=nothing_to_forget,
        )
        node = self.nodes[peer.address] = LoopbackNode(peer, cluster, store, deletion)
        return node

    def client(self, node: LoopbackNode) -> LoopbackClient:
        """The client ``node`` reaches the others with."""
        return LoopbackClient(self, node.peer, node.cluster)


@implementer(IPeerClient)
class LoopbackClient:
    """The twin of :class:`swarm.peering.client.PeerClient`."""

    def __init__(self, wires: Loopback, us: Peer, cluster: str) -> None:
        self._wires = wires
        self._us = us
        self._cluster = cluster

    async def _reach(self, address: Address, expected: PeerID | None) -> LoopbackNode:
        node = self._wires.nodes.get(address)
        await sleep(self._wires.clock, node.latency if node else 0.0)
        if node is None or not node.up:
            raise PeerError(expected, Fault.UNREACHABLE, "connection refused")
        if expected not in (None, node.peer.id):
            raise PeerError(expected, Fault.UNTRUSTED, f"its key is {node.peer.id.short}")
        return node

    async def _ask(self, peer: Peer, ask: Callable[[LoopbackNode], Coroutine[Any, Any, _T]]) -> _T:
        node = await self._reach(peer.address, peer.id)
        if node.cluster != self._cluster:
            raise PeerError(peer.id, Fault.FOREIGN, "421")
        try:
            return await ask(node)
        except (LocalError, Malformed) as e:
            trouble = trouble_of(e)
            retry_after = dict(trouble.fields).get("Retry-After")
            raise PeerError(
                peer.id,
                fault_of_status(trouble.status),
                f"{trouble.status} {trouble.detail}",
                retry_after=None if retry_after is None else int(retry_after),
            ) from e

    async def locate(self, peer: Peer, digest: Digest) -> Holding | None:
        """See :class:`~swarm.interfaces.IPeerClient`."""

        async def head(node: LoopbackNode) -> Holding | None:
            try:
                reader, have = await node.open(digest)
            except BlobMissing:
                return None
            info = reader.info
            reader.close()
            size = info.size if node.claims_size is None else node.claims_size
            told = None if have is None else parse_have(encode_have(have), size)
            tombstones = node.store.tombstones
            generation = 0 if tombstones.buried(digest) else tombstones.generation(digest)
            return Holding(peer, size, told, parse_names(encode_names(info.names)), generation)

        return await self._ask(peer, head)

    async def midstates(self, peer: Peer, digest: Digest, size: int) -> Midstates:
        """See :class:`~swarm.interfaces.IPeerClient`."""

        async def get(node: LoopbackNode) -> Midstates:
            await node.store.check_markers(digest)
            known = await node.store.midstates(digest)
            if known is None or known.grains.grain != Grains.of(size).grain:
                raise BlobMissing(digest)
            return Midstates.decode(node.forge_midstates(known).encode())

        midstates = await self._ask(peer, get)
        if midstates.grains.size != size:
            raise PeerError(peer.id, Fault.GARBLED, f"a midstate list for {midstates.grains.size} bytes")
        return midstates

    def lane(
        self,
        peer: Peer,
        digest: Digest,
        size: int,
        told: Told = untold,
    ) -> ILane:
        """See :class:`~swarm.interfaces.IPeerClient`."""
        return LoopbackLane(self, self._wires.clock, peer, digest, size, told)

    async def sample(self, peer: Peer, digest: Digest, size: int, span: ByteRange) -> bytes:
        """See :class:`~swarm.interfaces.IPeerClient`."""
        heard: list[RangeSet | None] = []
        node, data = await self.span(peer, digest, size, span, lambda have, _: heard.append(have))
        if heard != [None]:
            raise PeerError(peer.id, Fault.MISSING, "it has only a part")
        if node.breaks_after is not None and node.breaks_after < len(data):
            raise PeerError(peer.id, Fault.TRUNCATED, "the connection ended in the answer")
        await sleep(self._wires.clock, len(data) / node.rate if node.rate else 0.0)
        return node.tamper(span.start, data)

    async def push(
        self,
        peer: Peer,
        info: BlobInfo,
        read: Callable[[int, int], Coroutine[Any, Any, bytes]],
        generation: int = 0,
    ) -> bool:
        """See :class:`~swarm.interfaces.IPeerClient`."""
        names = parse_names(encode_names(info.names))

        async def put(node: LoopbackNode) -> Replica:
            node.store.check_allowed("put")
            try:
                node.deletion.check_generation(info.digest, generation)
            except BlobMissing as e:
                raise Refusal(410, "this copy was deleted from the swarm") from e
            node.store.check_room(info.size)
            writer = await node.store.writer(info.size, info.digest)
            return Replica(writer, info.digest, generation, names)

        replica = await self._ask(peer, put)
        try:
            for offset in range(0, info.size, 1 << 20):
                data = await read(offset, min(1 << 20, info.size - offset))
                await self._ask(peer, _writing(replica, data))
        except BaseException:  # a canceled push, too, leaves nothing behind
            replica.abort()
            raise

        async def finish(node: LoopbackNode) -> bool:
            return (await replica.finish(node.store, node.deletion, node.store.tombstones)).new

        return await self._ask(peer, finish)

    async def report_corrupt(self, peer: Peer, digest: Digest, reason: str) -> None:
        """See :class:`~swarm.interfaces.IPeerClient`."""

        async def post(node: LoopbackNode) -> None:
            if await node.store.stat(digest) is None:
                raise BlobMissing(digest)
            node.reports.append((self._us.id, digest, reason.encode()[:1024].decode(errors="ignore")))

        await self._ask(peer, post)

    async def delete(self, peer: Peer, digest: Digest, generation: int) -> bool:
        """See :class:`~swarm.interfaces.IPeerClient`."""

        async def bury(node: LoopbackNode) -> bool:
            node.store.check_allowed("delete")
            if generation < 1:
                raise Malformed("a tombstone has a Swarm-Generation")
            await node.deletion.ordered(digest, generation)
            return True

        return await self._ask(peer, bury)

    async def greet(self, address: Address, full: bool) -> tuple[PeerID, dict[str, Any]]:
        """See :class:`~swarm.interfaces.IPeerClient`."""
        node = await self._reach(address, None)
        if node.cluster != self._cluster:
            raise PeerError(node.peer.id, Fault.FOREIGN, node.cluster)
        node.greetings.append(self._us.id)
        return node.peer.id, json.loads(json.dumps(node.cluster_document()))

    async def span(
        self,
        peer: Peer,
        digest: Digest,
        size: int,
        span: ByteRange,
        told: Told,
    ) -> tuple[LoopbackNode, bytes]:
        """A lane's request: who answers, and the bytes, before anything happens to them."""

        async def get(node: LoopbackNode) -> tuple[LoopbackNode, bytes]:
            fault = node.faults.popleft() if node.faults else None
            if fault is not None:
                raise PeerError(peer.id, fault, "as the test wants it")
            reader, have = await node.open(digest)
            try:
                total = reader.info.size
                if total != size:
                    raise PeerError(peer.id, Fault.WRONG_RANGE, f"of {total} bytes, not {size}")
                told(None if have is None else parse_have(encode_have(have), size), None)
                if have is not None and not have.covers(span.start, span.stop):
                    raise PeerError(peer.id, Fault.MISSING, "not these bytes yet")
                await reader.available(span.start, span.stop)
                return node, await reader.read(span.start, len(span))
            finally:
                reader.close()

        return await self._ask(peer, get)


async def nothing_to_forget(digest: Digest) -> None:
    """What a node that never pulls does when a blob is deleted."""


def _writing(replica: Replica, data: bytes) -> Callable[[LoopbackNode], Coroutine[Any, Any, None]]:
    async def write(_: LoopbackNode) -> None:
        replica.write(data)

    return write


@implementer(ILane)
class LoopbackLane:
    """The twin of :class:`swarm.peering.lane.Lane`."""

    def __init__(
        self,
        client: LoopbackClient,
        clock: IReactorTime,
        peer: Peer,
        digest: Digest,
        size: int,
        told: Told,
    ) -> None:
        self.peer = peer
        self._told = told
        self._client = client
        self._clock = clock
        self._digest = digest
        self._size = size
        self._queue: list[object] = []
        self._moved = Signal()
        self._paused = False
        self._over: Exception | None = None
        self._waiting: Deferred[Any] | None = None

    async def fetch(self, span: ByteRange, sink: Callable[[int, Sequence[memoryview]], None]) -> None:
        """See :class:`~swarm.interfaces.ILane`."""
        self._check()
        assert len(self._queue) < 2, "one under way and one queued"
        ticket = object()
        self._queue.append(ticket)
        try:
            while self._queue[0] is not ticket:
                await self._moved.wait()
                self._check()
            await self._deliver(span, sink)
        except PeerError as e:
            if e.fault not in (Fault.MISSING, Fault.BUSY):
                self._end(e)
            raise
        finally:
            self._queue.remove(ticket)
            self._moved.fire()

    async def _deliver(self, span: ByteRange, sink: Callable[[int, Sequence[memoryview]], None]) -> None:
        node, data = await self._wait(
            Deferred.fromCoroutine(self._client.span(self.peer, self._digest, self._size, span, self._told))
        )
        limit = len(data) if node.breaks_after is None else node.breaks_after
        for at in range(0, len(data), _PIECE):
            piece = data[at : min(at + _PIECE, limit)]
            await self._wait(sleep(self._clock, len(piece) / node.rate if node.rate else 0.0))
            while self._paused:
                await self._wait(self._moved.wait())
            if piece and node.up:
                node.sent += len(piece)
                try:
                    sink(span.start + at, [memoryview(node.tamper(span.start + at, piece))])
                except BaseException:  # whatever it is, it belongs to the one who gave the sink
                    self._end(CancelledError())
                    raise
            if at + _PIECE >= limit < len(data) or not node.up:
                raise PeerError(self.peer.id, Fault.TRUNCATED, "the connection ended in the answer")
            self._check()

    async def _wait(self, waiting: Deferred[_T]) -> _T:
        self._waiting = waiting
        try:
            return await waiting
        except CancelledError:
            self._check()
            raise
        finally:
            self._waiting = None

    def pause(self) -> None:
        """See :class:`~swarm.interfaces.ILane`."""
        self._paused = True

    def resume(self) -> None:
        """See :class:`~swarm.interfaces.ILane`."""
        self._paused = False
        self._moved.fire()

    def close(self) -> None:
        """See :class:`~swarm.interfaces.ILane`."""
        self._end(CancelledError())

    def _end(self, why: Exception) -> None:
        if self._over is None:
            self._over = why
            if self._waiting is not None:
                self._waiting.cancel()
            self._moved.fire()

    def _check(self) -> None:
        if isinstance(self._over, PeerError):
            raise PeerError(self._over.peer, self._over.fault, self._over.detail)
        if self._over is not None:
            raise CancelledError

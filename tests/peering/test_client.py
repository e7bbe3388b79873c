"""Client and peer port between two nodes over real mutual TLS: what the contract suite cannot stage."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred
from zope.interface import implementer

from swarm.errors import Fault, PeerError, PullFailed
from swarm.interfaces import BlobInfo, IBlobReader
from swarm.model.digest import Digest
from swarm.model.ranges import ByteRange, RangeSet
from swarm.peering.limits import PeerLimits
from swarm.services.tasks import sleep
from swarm.testing.contracts import pattern
from swarm.testing.contracts_peers import Collector
from swarm.web.limits import WebLimits
from tests.peering.conftest import OpenSSLWorld
from tests.peering.nodes import Node, View

MIB = 1 << 20


@pytest_twisted.async_yield_fixture
async def alpha(world: OpenSSLWorld) -> AsyncIterator[Node]:
    node = Node(world, "alpha")
    await node.listen()
    yield node
    await node.stop()


@pytest_twisted.async_yield_fixture
async def beta(world: OpenSSLWorld) -> AsyncIterator[Node]:
    node = Node(world, "beta", limits=PeerLimits(uploads=1), web=WebLimits(idle=0.2, linger=0.05))
    await node.listen()
    yield node
    await node.stop()


async def eventually(holds: object) -> None:
    """Wait until a condition holds; ten seconds at most."""
    assert callable(holds)
    for _ in range(1000):
        if holds():
            return
        await sleep(reactor, 0.01)
    raise AssertionError("it never came true")


async def cancelled(running: Deferred[None]) -> bool:
    try:
        await running
    except CancelledError:
        return True
    return False


@pytest_twisted.ensureDeferred
async def test_a_lane_outlives_the_servers_idle_close(alpha: Node, beta: Node) -> None:
    data = pattern(MIB)
    lane = alpha.client.lane(beta.peer, beta.store.put(data), MIB)
    for _ in range(2):
        sink = Collector(0)
        await lane.fetch(ByteRange(0, MIB), sink)
        assert bytes(sink.data) == data
        await eventually(lambda: beta.site.connections == 0)
    lane.close()


@pytest_twisted.ensureDeferred
async def test_a_kept_connection_outlives_the_servers_idle_close(alpha: Node, beta: Node) -> None:
    digest = beta.store.put(b"x")
    for _ in range(3):
        assert await alpha.client.locate(beta.peer, digest) is not None
        await eventually(lambda: beta.site.connections == 0)


@pytest_twisted.ensureDeferred
async def test_a_lane_begins_on_the_connection_that_answered(alpha: Node, beta: Node) -> None:
    """Over TLS, records and all; several chunks of them, and the next span behind."""
    data = pattern(3 * MIB)
    digest = alpha.store.put(data)
    assert await beta.client.locate(alpha.peer, digest) is not None
    assert alpha.site.connections == 1
    lane = beta.client.lane(alpha.peer, digest, len(data))
    for span in ByteRange(0, 2 * MIB), ByteRange(2 * MIB, 3 * MIB):
        sink = Collector(span.start)
        await lane.fetch(span, sink)
        assert bytes(sink.data) == data[span.start : span.stop]
    assert alpha.site.connections == 1
    assert await beta.client.locate(alpha.peer, digest) is not None
    assert alpha.site.connections == 2, "the lane's is the lane's"
    lane.close()
    await eventually(lambda: alpha.site.connections == 1)


@pytest_twisted.ensureDeferred
async def test_a_lane_on_a_connection_that_a_restart_ended_asks_on_another(alpha: Node, beta: Node) -> None:
    data = pattern(MIB)
    digest = beta.store.put(data)
    await alpha.client.locate(beta.peer, digest)
    port = beta.peer.address.port
    await beta.stop()
    await beta.listen(port)
    lane = alpha.client.lane(beta.peer, digest, MIB)
    sink = Collector(0)
    await lane.fetch(ByteRange(0, MIB), sink)
    assert bytes(sink.data) == data
    lane.close()


@pytest_twisted.ensureDeferred
async def test_a_lane_follows_a_peer_through_its_restart(alpha: Node, beta: Node) -> None:
    data = pattern(MIB)
    lane = alpha.client.lane(beta.peer, beta.store.put(data), MIB)
    await lane.fetch(ByteRange(0, 10), Collector(0))
    port = beta.peer.address.port
    await beta.stop()
    await beta.listen(port)
    sink = Collector(0)
    await lane.fetch(ByteRange(0, MIB), sink)
    assert bytes(sink.data) == data
    lane.close()


@pytest_twisted.ensureDeferred
async def test_an_upload_given_up_makes_room_for_the_next(alpha: Node, beta: Node) -> None:
    size = 64 * MIB
    digest = beta.store.put(bytes(size))
    paused: Deferred[None] = Deferred()
    lane = alpha.client.lane(beta.peer, digest, size)

    def stop(offset: int, views: Sequence[memoryview]) -> None:
        lane.pause()
        if not paused.called:
            paused.callback(None)

    running = Deferred.fromCoroutine(lane.fetch(ByteRange(0, size), stop))
    await paused
    other = alpha.client.lane(beta.peer, digest, size)
    with pytest.raises(PeerError) as busy:
        await other.fetch(ByteRange(0, 1), Collector(0))
    assert (busy.value.fault, busy.value.retry_after) == (Fault.BUSY, 2)
    lane.close()
    assert await cancelled(running)
    await eventually(lambda: beta.server.uploads.count == 0)
    await other.fetch(ByteRange(0, 1), Collector(0))
    other.close()
    await eventually(lambda: beta.site.connections == 0)


@implementer(IBlobReader)
class Turning:
    """A pull's reader that fails in the middle."""

    def __init__(self, data: bytes) -> None:
        self.info = BlobInfo(Digest.of(data), len(data))
        self._data = data

    async def available(self, offset: int, stop: int) -> int:
        if offset >= 2 * MIB:
            raise PullFailed(self.info.digest, ("bytes already sent proved wrong",))
        return min(stop, 2 * MIB)

    def read_now(self, offset: int, length: int) -> bytes | None:
        return self._data[offset : offset + length]

    async def read(self, offset: int, length: int) -> bytes:
        return self._data[offset : offset + length]

    def fileno(self) -> int:
        return -1

    def close(self) -> None:
        pass


@pytest_twisted.ensureDeferred
async def test_bytes_that_prove_wrong_midway_end_in_a_broken_connection(alpha: Node, beta: Node) -> None:
    """Never in an answer that looks whole."""
    data = pattern(4 * MIB)
    digest, have = Digest.of(data), RangeSet([ByteRange(0, len(data))])
    beta.fetcher.pulls[digest] = View(BlobInfo(digest, len(data)), have, lambda: Turning(data))
    lane = alpha.client.lane(beta.peer, digest, len(data))
    sink = Collector(0)
    with pytest.raises(PeerError) as broken:
        await lane.fetch(ByteRange(0, len(data)), sink)
    assert broken.value.fault is Fault.TRUNCATED
    assert bytes(sink.data) == data[: len(sink.data)] and len(sink.data) <= 2 * MIB
    await eventually(lambda: beta.server.uploads.count == 0)


@pytest_twisted.ensureDeferred
async def test_a_refusal_is_heard_although_the_body_is_still_being_sent(alpha: Node, beta: Node) -> None:
    """The server stops reading and hangs up; the reason must survive that."""
    beta.store.quota = 1000
    size = 256 * MIB
    asked: list[int] = []

    async def read(offset: int, length: int) -> bytes:
        asked.append(offset)
        return bytes(length)

    with pytest.raises(PeerError) as refusal:
        await alpha.client.push(beta.peer, BlobInfo(Digest.of(b"?"), size), read)
    assert (refusal.value.fault, refusal.value.detail[:3]) == (Fault.REFUSED, "507")
    assert len(asked) < 200


@pytest_twisted.ensureDeferred
async def test_questions_at_once_leave_few_connections(alpha: Node, beta: Node) -> None:
    digest = alpha.store.put(b"x")
    asked = [Deferred.fromCoroutine(beta.client.locate(alpha.peer, digest)) for _ in range(20)]
    for each in asked:
        assert await each is not None
    await eventually(lambda: alpha.site.connections <= 2)
    beta.client.close()
    await eventually(lambda: alpha.site.connections == 0)


@pytest_twisted.ensureDeferred
async def test_a_cluster_may_have_any_visible_name(world: OpenSSLWorld) -> None:
    one, two = Node(world, "alpha", cluster="schwärm→1"), Node(world, "beta", cluster="schwärm→1")
    await two.listen()
    digest = two.store.put(b"xyz")
    assert await one.client.locate(two.peer, digest) is not None
    lane = one.client.lane(two.peer, digest, 3)
    sink = Collector(0)
    await lane.fetch(ByteRange(0, 3), sink)
    assert bytes(sink.data) == b"xyz"
    assert (await one.client.greet(two.peer.address, True))[0] == two.peer.id
    lane.close()
    one.client.close()
    await two.stop()

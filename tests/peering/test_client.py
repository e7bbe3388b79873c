"""The client against the real peer port, over real mutual TLS on loopback."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

import pytest
import pytest_twisted

from swarm.errors import Fault, PeerError
from swarm.model.digest import Digest
from swarm.model.ranges import ByteRange
from swarm.testing.contracts import pattern
from tests.peering.conftest import OpenSSLWorld
from tests.peering.nodes import Node


@pytest_twisted.async_yield_fixture
async def alpha(world: OpenSSLWorld) -> AsyncIterator[Node]:
    node = Node(world, "alpha")
    await node.listen()
    yield node
    await node.stop()


@pytest_twisted.async_yield_fixture
async def beta(world: OpenSSLWorld) -> AsyncIterator[Node]:
    node = Node(world, "beta")
    await node.listen()
    yield node
    await node.stop()


async def whole(node: Node, other: Node, digest: Digest, size: int) -> bytes:
    lane = node.client.lane(other.peer, digest, size)
    got = bytearray()

    def sink(offset: int, views: Sequence[memoryview]) -> None:
        assert offset == len(got)
        for view in views:
            got.extend(view)

    try:
        await lane.fetch(ByteRange(0, size), sink)
    finally:
        lane.close()
    return bytes(got)


@pytest_twisted.ensureDeferred
async def test_smoke(alpha: Node, beta: Node) -> None:
    data = pattern(5_000_000)
    digest = beta.store.put(data, "näme,1")
    assert await alpha.client.locate(beta.peer, Digest.of(b"")) is None
    holding = await alpha.client.locate(beta.peer, digest)
    assert holding is not None and holding.complete and holding.size == len(data)
    assert [n.text for n in holding.names] == ["näme,1"]
    m = await alpha.client.midstates(beta.peer, digest, len(data))
    assert m == await beta.store.midstates(digest)
    assert await whole(alpha, beta, digest, len(data)) == data
    info = await beta.store.stat(digest)

    async def read(offset: int, length: int) -> bytes:
        return data[offset : offset + length]

    assert await beta.client.push(alpha.peer, info, read) is True
    assert await beta.client.push(alpha.peer, info, read) is False
    assert alpha.store.blobs[digest].data == data
    assert alpha.store.blobs[digest].names[0].text == "näme,1"
    who, doc = await alpha.client.greet(beta.peer.address, True)
    assert who == beta.peer.id and doc["Name"] == "test"
    await alpha.client.report_corrupt(beta.peer, digest, "bad\ngrain")
    assert beta.custodian.reports == [(alpha.peer.id, digest, "bad grain")]
    assert await alpha.client.delete(beta.peer, digest, 1) is True
    assert await alpha.client.locate(beta.peer, digest) is None
    with pytest.raises(PeerError) as e:
        await alpha.client.push(beta.peer, info, read)
    assert e.value.fault is Fault.REFUSED and "410" in e.value.detail

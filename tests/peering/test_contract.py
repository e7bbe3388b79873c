"""Both twins of the peer client keep the same contract: in memory, and over real mutual TLS."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

import pytest
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from swarm.interfaces import BlobInfo
from swarm.model.digest import Digest
from swarm.model.filenames import Filename
from swarm.model.peers import Peer, PeerID
from swarm.model.ranges import RangeSet
from swarm.testing.contracts import at_once
from swarm.testing.contracts_peers import peerclient_contract
from swarm.testing.loopback import Loopback
from swarm.testing.memory import MemoryStore
from tests.peering.conftest import OpenSSLWorld
from tests.peering.nodes import SERVED, Node, View


class Hands:
    """What both rigs do to a store in memory."""

    def __init__(self, store: MemoryStore, pulls: dict[Digest, View]) -> None:
        self.store = store
        self.pulls = pulls

    def hold(self, data: bytes, *names: str) -> Digest:
        return self.store.keep(data, tuple(map(Filename.parse, names))).info.digest

    def hold_part(self, data: bytes, have: RangeSet) -> Digest:
        whole = MemoryStore()
        digest = whole.put(data)
        self.pulls[digest] = View(BlobInfo(digest, len(data)), have, lambda: at_once(whole.open(digest)))
        return digest

    def lose(self, digest: Digest) -> None:
        del self.store.blobs[digest]

    def held(self, digest: Digest) -> tuple[bytes, list[str]] | None:
        blob = self.store.blobs.get(digest)
        return None if blob is None else (blob.data, [name.text for name in blob.names])

    def mark(self, digest: Digest, marker: str) -> None:
        self.store.markers.setdefault(digest, set()).add(marker)

    def fill(self) -> None:
        self.store.quota = 1


class LoopbackRig(Hands):
    """The twin."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.wires = Loopback(self.clock)
        ours, theirs = self.wires.add("us"), self.wires.add("them")
        super().__init__(theirs.store, {})
        theirs.serving = self.pulls.get  # type: ignore[assignment]  # a view in a test's own words
        self.client = self.wires.client(ours)
        self.us, self.them = ours.peer.id, theirs.peer
        self.node = theirs

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        outcome: list[Any] = []
        Deferred.fromCoroutine(work).addBoth(outcome.append)
        for _ in range(1000):
            if outcome:
                break
            self.clock.advance(0.1)
        assert outcome, "it waits for ever"
        assert not self.clock.getDelayedCalls()
        if isinstance(outcome[0], Failure):
            outcome[0].raiseException()

    @property
    def reports(self) -> list[tuple[PeerID, Digest, str]]:
        return self.node.reports

    async def vanish(self) -> None:
        self.node.up = False

    def foreign(self) -> Peer:
        return self.wires.add("stranger", cluster="elsewhere").peer


class TLSRig(Hands):
    """The real client and the real peer port."""

    def __init__(self, world: OpenSSLWorld, served: str) -> None:
        self.ours, self.theirs = Node(world, "alpha"), Node(world, "beta", served=served)
        self.stranger = Node(world, "rsa", cluster="elsewhere")
        super().__init__(self.theirs.store, self.theirs.fetcher.pulls)
        self.client = self.ours.client

    async def start(self) -> None:
        for node in (self.ours, self.theirs, self.stranger):
            await node.listen()
        self.us, self.them = self.ours.peer.id, self.theirs.peer

    async def stop(self) -> None:
        for node in (self.ours, self.theirs, self.stranger):
            await node.stop()

    def run(self, work: Coroutine[Any, Any, None]) -> Deferred[None]:
        async def whole() -> None:
            await self.start()
            try:
                await work
            finally:
                await self.stop()

        return Deferred.fromCoroutine(whole()).addTimeout(30, reactor)

    @property
    def reports(self) -> list[tuple[PeerID, Digest, str]]:
        return self.theirs.custodian.reports

    async def vanish(self) -> None:
        await self.theirs.stop()

    def foreign(self) -> Peer:
        return self.stranger.peer


class _World:
    world: OpenSSLWorld


@pytest.fixture(autouse=True)
def _certificates(world: OpenSSLWorld) -> None:
    _World.world = world


TestLoopback = peerclient_contract(LoopbackRig)
TestMutualTLS = peerclient_contract(lambda: TLSRig(_World.world, SERVED[0]))
TestWorkersWithoutGrants = peerclient_contract(lambda: TLSRig(_World.world, SERVED[1]))
TestWorkers = peerclient_contract(lambda: TLSRig(_World.world, SERVED[2]))

"""A node as far as its peers see it: the real peer port over real mutual TLS, a store in memory behind it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from attrs import define, field, frozen
from twisted.internet import reactor
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.interfaces import IStreamClientEndpoint

from swarm.errors import Fault, PeerError
from swarm.interfaces import BlobInfo, IBlobReader
from swarm.model.digest import Digest
from swarm.model.peers import Address, Peer, PeerID
from swarm.model.ranges import RangeSet
from swarm.peering.client import Introduction, PeerClient
from swarm.peering.credentials import Credentials
from swarm.peering.identity import IdentityPaths
from swarm.peering.limits import PeerLimits
from swarm.peering.server import PeerServer, PeerServices
from swarm.peering.tls import client_endpoint, peer_id_of, server_endpoint
from swarm.services.deletion import Deletion, DeletionSettings
from swarm.services.tasks import Tasks
from swarm.testing.contracts import at_once
from swarm.testing.loopback import nothing_to_forget
from swarm.testing.memory import MemoryStore
from swarm.web.limits import WebLimits
from swarm.workers.crew import Crew
from swarm.workers.dealing import Dealing
from swarm.workers.messages import PEERS
from tests.peering.conftest import OpenSSLWorld
from tests.peering.crews import DRAIN, Files, all_serve, hire, nothing


@frozen
class View:
    """A running pull, as the fetcher shows it."""

    info: BlobInfo
    have: RangeSet
    reader: Callable[[], IBlobReader]


@define(eq=False)
class LocalFetcher:
    """What the peer port uses of the fetcher, for a node that pulls only what a test says it does."""

    store: MemoryStore
    pulls: dict[Digest, View] = field(factory=dict)
    noticed: list[tuple[Digest, PeerID]] = field(factory=list)

    async def open_local(self, digest: Digest) -> IBlobReader:
        await self.store.check_markers(digest)
        return await self.store.open(digest)

    def serving(self, digest: Digest) -> View | None:
        return self.pulls.get(digest)

    def notice(self, digest: Digest, peer: PeerID) -> None:
        self.noticed.append((digest, peer))


@define(eq=False)
class Membership:
    """Remembers greetings; joins nobody but port 1, which fails."""

    name: str
    cluster: str
    greetings: list[tuple[PeerID, str, str, str, str]] = field(factory=list)
    joined: list[Address] = field(factory=list)
    others: list[tuple[str, ...]] = field(factory=list)

    def document(self) -> dict[str, Any]:
        return {"Name": self.cluster, "Me": {"Name": self.name}, "Peers": {}}

    def greeted(
        self,
        peer: PeerID,
        name: str,
        public_addr: str,
        mgmt_addr: str,
        remote_host: str,
        others: tuple[str, ...] = (),
    ) -> None:
        self.greetings.append((peer, name, public_addr, mgmt_addr, remote_host))
        self.others.append(others)

    async def join(self, address: Address) -> None:
        if address.port == 1:
            raise PeerError(None, Fault.UNREACHABLE, "nobody there")
        self.joined.append(address)


@define(eq=False)
class Custodian:
    """Remembers what was reported."""

    reports: list[tuple[PeerID, Digest, str]] = field(factory=list)

    def suspect(self, digest: Digest, reporter: PeerID, reason: str) -> None:
        self.reports.append((reporter, digest, reason))


#: What stands between a node and its peers: nothing; workers that may answer nothing, or all they can.
SERVED = ("by itself", "by workers without grants", "by workers")


class Node:
    """One node on a loopback port; ``kind`` names its certificate in the world."""

    def __init__(
        self,
        world: OpenSSLWorld,
        kind: str,
        *,
        cluster: str = "test",
        limits: PeerLimits | None = None,
        web: WebLimits | None = None,
        served: str = SERVED[0],
    ) -> None:
        limits = limits or PeerLimits()
        paths = IdentityPaths(world.cert("ca"), world.cert(kind), world.key(kind))
        self.credentials = Credentials.load(paths, clock=reactor)
        self.store = MemoryStore()
        self.fetcher = LocalFetcher(self.store)
        self.membership = Membership(kind, cluster)
        self.custodian = Custodian()
        self.client = PeerClient(
            dial=self.dial,
            identify=peer_id_of,
            introduce=lambda: Introduction(kind, cluster, "localhost:1", "localhost:2"),
            clock=reactor,
            limits=limits,
        )
        self.deletion = Deletion(
            self.store,
            self.store.tombstones,
            self.client,
            lambda: (),
            DeletionSettings(),
            name=kind,
            clock=reactor,
            forget=nothing_to_forget,
        )
        self.server = PeerServer(
            PeerServices(
                self.store,
                self.store.tombstones,
                self.fetcher,
                self.deletion,
                self.membership,
                self.custodian,
            ),
            cluster=cluster,
            identify=peer_id_of,
            clock=reactor,
            limits=limits,
        )
        web = web or WebLimits(linger=0.05)
        self.site = self.server.site(web)
        self.peer: Peer
        self._tasks = Tasks()
        self._directory = TemporaryDirectory(ignore_cleanup_errors=True)
        self.files = Files(self.store, Path(self._directory.name))
        self.crew: Crew | None = None
        if served != SERVED[0]:
            self.crew = hire(
                self.files.grant if served == SERVED[2] else nothing,
                self.credentials,
                cluster=cluster,
                limits=limits,
                web=web,
                tasks=self._tasks,
                files=self.files if served == SERVED[2] else None,
            )

    def dial(self, address: Address, expected: PeerID | None) -> IStreamClientEndpoint:
        return client_endpoint(reactor, address, self.credentials, expected=expected)

    async def listen(self, port: int = 0) -> None:
        endpoint: Any = TCP4ServerEndpoint(reactor, port, interface="127.0.0.1")
        if self.crew is not None:
            endpoint = Dealing(endpoint, PEERS, self.site, self.crew, reactor)
        self._port = await server_endpoint(endpoint, self.credentials, clock=reactor).listen(self.site)
        address = Address("127.0.0.1", self._port.getHost().port)
        self.peer = Peer(self.credentials.peer_id, self.membership.name, address)
        if self.crew is not None:
            tally = self.crew.start()
            assert tally is not None
            self.server.uploads = tally.uploads
            await all_serve(self.crew)

    async def end_workers(self) -> None:
        """As a node does that stops; those it has itself go on meanwhile."""
        if self.crew is not None:
            drained = Deferred.fromCoroutine(self.site.drain(DRAIN))
            await self.crew.stop()
            await drained

    async def stop(self) -> None:
        self.client.close()
        await maybeDeferred(self._port.stopListening)
        await self.end_workers()
        self.site.disconnect()
        await self._tasks.stop()
        self._directory.cleanup()

    def pull(self, data: bytes, have: RangeSet) -> Digest:
        """Begin a pull that has so much."""
        digest = Digest.of(data)
        whole = MemoryStore()
        whole.put(data)
        self.fetcher.pulls[digest] = View(
            BlobInfo(digest, len(data)), have, lambda: at_once(whole.open(digest))
        )
        return digest

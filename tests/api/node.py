"""A public API over a store in memory, with small twins of the services behind it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from attrs import define, frozen
from prometheus_client import CollectorRegistry
from twisted.internet.task import Clock

from swarm.api.app import PublicAPI, Services
from swarm.api.media import MediaLimits, MediaProbe
from swarm.api.metalink import PieceHashes
from swarm.api.status import NodeFacts
from swarm.api.tokens import Guard, Tokens
from swarm.errors import BlobMissing, SwarmError
from swarm.interfaces import BlobInfo, IBlobReader
from swarm.model.digest import Digest
from swarm.model.peers import Address, Peer, PeerID
from swarm.services.deletion import Deleted
from swarm.services.progress import PullProgress
from swarm.testing.memory import MemoryStore
from swarm.testing.wire import CLIENT, Response, Wire
from swarm.web.limits import WebLimits

PEER = Peer(PeerID(b"p" * 32), "north", Address("north.example", 7041), "https://north.example")


@frozen
class Replication:
    holders: tuple[str, ...]
    wanted: int
    reached: bool


@frozen
class Location:
    name: str
    peer_id: PeerID
    state: str
    public_url: str = ""


@frozen
class PeerState:
    peer: Peer
    state: str
    last_alive: float | None
    detail: str = ""


class TwinFetcher:
    """Local blobs, and those a test says peers have."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store
        self.elsewhere: dict[Digest, Callable[[], IBlobReader]] = {}
        self.error: SwarmError | None = None
        self.more_sizes = False
        self.running: dict[Digest, PullProgress] = {}

    async def open(self, digest: Digest, near: int | None = None) -> IBlobReader:
        if self.error is not None:
            raise self.error
        if digest in self.elsewhere:
            return self.elsewhere[digest]()
        return await self._store.open(digest)

    async def open_local(self, digest: Digest) -> IBlobReader:
        return await self._store.open(digest)

    async def pull(self, digest: Digest) -> BlobInfo:
        return (await self.open(digest)).info

    def retries(self, digest: Digest) -> bool:
        return self.more_sizes

    def progress(self, digest: Digest) -> PullProgress | None:
        return self.running.get(digest)

    def pulls(self) -> tuple[PullProgress, ...]:
        return tuple(self.running.values())


class TwinReplicator:
    def __init__(self, store: MemoryStore) -> None:
        self._store = store
        self.reached = True
        self.where: list[Location] = []

    async def replicate(self, info: BlobInfo) -> Replication:
        return Replication(("here", "north") if self.reached else ("here",), 2, self.reached)

    async def locations(self, digest: Digest) -> tuple[Location, ...]:
        mine = [Location("here", PeerID(b"h" * 32), "complete")] if digest in self._store.blobs else []
        return (*mine, *self.where)


class TwinDeletion:
    def __init__(self, store: MemoryStore) -> None:
        self._store = store
        self.pending: tuple[str, ...] = ()

    async def here(self, digest: Digest) -> BlobInfo:
        return await self._store.delete(digest)

    async def everywhere(self, digest: Digest) -> Deleted:
        try:
            info = await self._store.delete(digest)
        except BlobMissing:
            info = None
        return Deleted(info, ("here",), self.pending)


@define
class TwinMembership:
    peers: tuple[Peer, ...] = ()

    def live(self) -> tuple[Peer, ...]:
        return self.peers

    def known(self) -> tuple[PeerState, ...]:
        return tuple(PeerState(peer, "alive", 0.0) for peer in self.peers)

    async def refresh(self) -> tuple[str, ...]:
        return tuple(str(peer.address) for peer in self.peers)


async def run_inline(function: Any, /, *args: Any, **kwargs: Any) -> Any:
    """Threads are not what these tests are about."""
    return function(*args, **kwargs)


class Node:
    """The API and everything a test may turn."""

    def __init__(
        self,
        *,
        tokens: Path | None = None,
        facts: NodeFacts | None = None,
        limits: WebLimits | None = None,
        process: Any = None,
        program: str = "ffprobe",
        store: Any = None,
        clock: Any = None,
    ) -> None:
        self.clock = clock or Clock()
        self.store: Any = store or MemoryStore()
        self.fetcher = TwinFetcher(self.store)
        self.replicator = TwinReplicator(self.store)
        self.deletion = TwinDeletion(self.store)
        self.membership = TwinMembership()
        self.registry = CollectorRegistry()
        services: Any = Services(
            self.store,
            cast(Any, self.fetcher),
            cast(Any, self.replicator),
            cast(Any, self.deletion),
            cast(Any, self.membership),
        )
        self.api = PublicAPI(
            services,
            facts or NodeFacts("here", "test", "1.2.3"),
            guard=Guard(Tokens(tokens) if tokens else None, clock=self.clock),
            media=MediaProbe(process, clock=self.clock, program=program, limits=MediaLimits()),
            pieces=PieceHashes(run_blocking=run_inline),
            registry=self.registry,
            clock=self.clock,
        )
        self.site = self.api.site(limits or WebLimits())

    def wire(self, client: Any = CLIENT, **kwargs: Any) -> Wire:
        return Wire(self.site, client, **kwargs)

    def ask(
        self, method: str, path: str, *fields: str, body: bytes | None = None, client: Any = CLIENT
    ) -> Response:
        """One request on a connection of its own."""
        wire = self.wire(client)
        wire.send(request(method, path, *fields, body=body))
        [response] = wire.responses(head=method == "HEAD")
        return response


def request(method: str, path: str, *fields: str, body: bytes | None = None) -> bytes:
    """A request's bytes."""
    lines = [f"{method} {path} HTTP/1.1", "Host: node.example", *fields]
    if body is not None:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + (body or b"")


def sha256(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


__all__ = ["PEER", "Location", "Node", "request", "sha256"]

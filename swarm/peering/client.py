"""Everything this node asks of others, as calls: the peer port of the contract seen from outside.

Decides how each question is spelled and what an answer means. Connections and budgets are
``exchange``'s and, for blob bytes, ``lane``'s.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from attrs import frozen
from twisted.internet.interfaces import IReactorTime, IStreamClientEndpoint
from zope.interface import implementer

from swarm.errors import Fault, Malformed, PeerError
from swarm.interfaces import BlobInfo, ILane, IPeerClient, Told, untold
from swarm.model.digest import Digest
from swarm.model.grains import Grains
from swarm.model.holdings import Holding
from swarm.model.messages import Greeting
from swarm.model.midstates import Midstates, encoded_length
from swarm.model.peers import Address, Peer, PeerID
from swarm.model.ranges import ByteRange, parse_content_range, parse_have
from swarm.peering.exchange import Ask, Exchanges, Reply
from swarm.peering.faults import fault_of_status
from swarm.peering.lane import Lane
from swarm.peering.limits import PeerLimits
from swarm.peering.pushing import BlobBody
from swarm.peering.wire import (
    CLUSTER,
    GENERATION,
    GIVEN,
    HAVE,
    NAMES,
    encode_names,
    parse_document,
    parse_generation,
    parse_names,
)

_REFUSAL = 4 << 10  # of an error's body, only a sentence is of use
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]+")
_MAX_SIZE = 2**63 - 1


@frozen
class Introduction:
    """What a node says of itself when it greets; see :class:`~swarm.model.messages.Greeting`."""

    name: str
    cluster: str
    public_addr: str
    mgmt_addr: str
    others: tuple[str, ...] = ()


@implementer(IPeerClient)
class PeerClient:
    """I ask other nodes."""

    def __init__(
        self,
        *,
        dial: Callable[[Address, PeerID | None], IStreamClientEndpoint],
        identify: Callable[[Any], PeerID],
        introduce: Callable[[], Introduction],
        clock: IReactorTime,
        limits: PeerLimits,
    ) -> None:
        """
        Begin with no connection.

        :param dial: an endpoint to an address that admits only the given identity (None: any of our
            CA), in mutual TLS: ``swarm.peering.tls.client_endpoint``.
        :param identify: whose connection a transport is: ``swarm.peering.tls.peer_id_of``.
        :param introduce: asked anew for each greeting.
        """
        self._dial = dial
        self._introduce = introduce
        self._clock = clock
        self._limits = limits
        self._exchanges = Exchanges(dial, identify, clock=clock, limits=limits)

    def close(self) -> None:
        """Abort all connections but those of lanes, which belong to who took them."""
        self._exchanges.close()

    def lane(
        self,
        peer: Peer,
        digest: Digest,
        size: int,
        told: Told = untold,
    ) -> ILane:
        """See :class:`~swarm.interfaces.IPeerClient`."""
        return Lane(
            peer,
            digest,
            size,
            endpoint=self._dial(peer.address, peer.id),
            take=lambda: self._exchanges.take(peer.address, peer.id),
            clock=self._clock,
            cluster=self._introduce().cluster,
            limits=self._limits,
            told=told,
        )

    async def locate(self, peer: Peer, digest: Digest) -> Holding | None:
        """See :class:`~swarm.interfaces.IPeerClient`."""
        reply = await self._ask(peer, "HEAD", _blob(digest))
        if reply.head.status == 404:
            return None
        self._expect(peer.id, reply, 200)
        head = reply.head
        try:
            if head.one("etag") not in (None, digest.etag):
                raise PeerError(peer.id, Fault.VALIDATOR, "the ETag names other bytes")
            size, have, names = head.length, head.one(HAVE.lower()), head.one(NAMES.lower())
            given = head.one(GIVEN.lower())
            if size is None or size > _MAX_SIZE:
                raise Malformed("a blob without a size")
            return Holding(
                peer,
                size,
                None if have is None else parse_have(have, size),
                () if names is None else parse_names(names),
                parse_generation(head.one(GENERATION.lower())),
                None if given is None or have is not None else parse_have(given, size),
            )
        except Malformed as e:
            raise PeerError(peer.id, Fault.GARBLED, str(e)) from e

    async def midstates(self, peer: Peer, digest: Digest, size: int) -> Midstates:
        """See :class:`~swarm.interfaces.IPeerClient`."""
        grains = Grains.of(size)
        limits = self._limits
        reply = await self._ask(
            peer,
            "GET",
            f"{_blob(digest)}/midstates?grain={grains.grain}",
            limit=max(encoded_length(size), _REFUSAL),
            silence=limits.midstates,
            total=limits.midstates,
        )
        self._expect(peer.id, reply, 200)
        try:
            midstates = Midstates.decode(reply.body)
        except Malformed as e:
            raise PeerError(peer.id, Fault.GARBLED, str(e)) from e
        if midstates.grains != grains:
            raise PeerError(peer.id, Fault.GARBLED, f"a midstate list for {midstates.grains.size} bytes")
        return midstates

    async def sample(self, peer: Peer, digest: Digest, size: int, span: ByteRange) -> bytes:
        """See :class:`~swarm.interfaces.IPeerClient`."""
        limit = max(len(span), _REFUSAL)
        reply = await self._ask(peer, "GET", _blob(digest), headers={"Range": span.header}, limit=limit)
        self._expect(peer.id, reply, 200, 206)
        head = reply.head
        try:
            if head.one(HAVE.lower()) is not None:
                raise PeerError(peer.id, Fault.MISSING, "it has only a part")
            if head.one("etag") not in (None, digest.etag):
                raise PeerError(peer.id, Fault.VALIDATOR, "the ETag names other bytes")
            whole = head.status == 200 and span == ByteRange(0, size)
            if not whole and parse_content_range(head.one("content-range") or "") != (span, size):
                raise Malformed("another range")
        except Malformed as e:
            raise PeerError(peer.id, Fault.WRONG_RANGE, str(e)) from e
        if len(reply.body) != len(span):
            raise PeerError(peer.id, Fault.WRONG_RANGE, f"{len(reply.body)} bytes for {len(span)}")
        return reply.body

    async def push(
        self,
        peer: Peer,
        info: BlobInfo,
        read: Callable[[int, int], Coroutine[Any, Any, bytes]],
        generation: int = 0,
    ) -> bool:
        """See :class:`~swarm.interfaces.IPeerClient`."""
        limits = self._limits
        headers = {"Repr-Digest": info.digest.repr_digest, GENERATION: str(generation)}
        if info.names:
            headers[NAMES] = encode_names(info.names)
        reply = await self._ask(
            peer,
            "PUT",
            _blob(info.digest),
            headers=headers,
            data=BlobBody(read, info.size) if info.size else b"",
            silence=limits.push_stall,
            verdict=limits.verdict,
            total=None,
        )
        self._expect(peer.id, reply, 200, 201)
        return reply.head.status == 201

    async def report_corrupt(self, peer: Peer, digest: Digest, reason: str) -> None:
        """See :class:`~swarm.interfaces.IPeerClient`."""
        told = reason.encode()[: self._limits.reason].decode(errors="ignore")
        reply = await self._ask(peer, "POST", f"{_blob(digest)}/corrupt", data=told.encode())
        self._expect(peer.id, reply, 202)

    async def delete(self, peer: Peer, digest: Digest, generation: int) -> bool:
        """See :class:`~swarm.interfaces.IPeerClient`."""
        reply = await self._ask(peer, "DELETE", _blob(digest), headers={GENERATION: str(generation)})
        self._expect(peer.id, reply, 200)
        return True

    async def greet(self, address: Address, full: bool) -> tuple[PeerID, dict[str, Any]]:
        """See :class:`~swarm.interfaces.IPeerClient`."""
        us = self._introduce()
        limits = self._limits
        ask = Ask(
            "POST",
            "/cluster/",
            {CLUSTER: us.cluster, "Content-Type": "application/x-www-form-urlencoded"},
            Greeting(us.name, us.public_addr, us.mgmt_addr, full, us.others).encode(),
            limit=limits.document,
            silence=limits.silence,
            total=limits.answer,
        )
        reply = await self._exchanges.ask(address, None, ask)
        self._expect(reply.who, reply, 200)
        try:
            document = parse_document(reply.body)
        except Malformed as e:
            raise PeerError(reply.who, Fault.GARBLED, str(e)) from e
        if document.get("Name") != us.cluster:
            raise PeerError(reply.who, Fault.FOREIGN, str(document.get("Name"))[:80])
        return reply.who, document

    async def _ask(
        self,
        peer: Peer,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        data: bytes | BlobBody = b"",
        limit: int = _REFUSAL,
        silence: float | None = None,
        total: float | None = -1.0,
        verdict: float = 0.0,
    ) -> Reply:
        limits = self._limits
        ask = Ask(
            method,
            path,
            {CLUSTER: self._introduce().cluster, **(headers or {})},
            data,
            limit=limit,
            silence=limits.silence if silence is None else silence,
            total=limits.answer if total == -1.0 else total,
            verdict=verdict,
        )
        return await self._exchanges.ask(peer.address, peer.id, ask)

    def _expect(self, peer: PeerID, reply: Reply, *statuses: int) -> None:
        """:raises PeerError: another status, as the fault it is."""
        status = reply.head.status
        if status not in statuses:
            fault = fault_of_status(status)
            raise PeerError(peer, fault, _detail(reply), retry_after=reply.head.retry_after)


def _blob(digest: Digest) -> str:
    return f"/blobs/{digest.hex}"


def _detail(reply: Reply) -> str:
    """The status and, from our kind of error body, the sentence that came with it."""
    try:
        detail = parse_document(reply.body).get("detail", "")
    except Malformed:
        detail = ""
    said = _CONTROL.sub(" ", detail)[:200] if isinstance(detail, str) else ""
    return f"{reply.head.status} {said}".strip()

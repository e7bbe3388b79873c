"""What other nodes may ask of this one: the peer port of the contract.

Decides what a request means. Who asks is the TLS identity and nothing else; that somebody without one
is never heard is ``tls``'s doing. No answer ever causes a pull, and nothing pushed here is pushed on.

``POST /update/`` belongs to the tree of paths; while there is none, it is 404 like any unknown path.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from attrs import frozen
from klein import Klein
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from swarm.errors import BlobMissing, Malformed, Overloaded
from swarm.interfaces import BlobInfo, IBlobReader, IBlobStore, ITombstones
from swarm.model.digest import Digest
from swarm.model.messages import Greeting
from swarm.model.peers import Address, PeerID
from swarm.peering.limits import PeerLimits
from swarm.peering.reads import Uploads, check_cluster, describe, life, send_blob
from swarm.peering.receiving import Replica, admit_replica
from swarm.peering.serving import Serving
from swarm.peering.telling import Part, Telling
from swarm.peering.wire import GENERATION, HAVE, parse_generation
from swarm.web.errors import Refusal, answer_error
from swarm.web.limits import WebLimits
from swarm.web.routes import DigestConverter
from swarm.web.site import Observer, StreamingSite

if TYPE_CHECKING:
    from swarm.services.custodian import Custodian
    from swarm.services.deletion import Deletion
    from swarm.services.fetcher import Fetcher
    from swarm.services.membership import Membership
    from swarm.web.request import StreamingRequest

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]+")
_GRAIN = re.compile(r"\d{1,12}", re.ASCII)
#: Which node-wide switch refuses each route; None: nothing does.
SWITCHES: dict[str, str | None] = {
    "blob": "get",
    "midstates": "get",
    "push": "put",
    "bury": "delete",
    "corrupt": None,
    "cluster": None,
    "greeting": None,
    "join": None,
}


@frozen
class PeerServices:
    """Who does the work."""

    store: IBlobStore
    tombstones: ITombstones
    fetcher: Fetcher
    deletion: Deletion
    membership: Membership
    custodian: Custodian


class PeerServer:
    """
    I answer peers.

    :ivar uploads: another one counts those of other processes, too.
    """

    app = Klein()
    app.url_map.converters["id"] = DigestConverter
    app.url_map.merge_slashes = False

    def __init__(
        self,
        services: PeerServices,
        *,
        cluster: str,
        identify: Callable[[Any], PeerID],
        clock: IReactorTime,
        limits: PeerLimits,
    ) -> None:
        """
        Begin.

        :param identify: whose connection a transport is: ``swarm.peering.tls.peer_id_of``.
        """
        self._store = services.store
        self._tombstones = services.tombstones
        self._fetcher = services.fetcher
        self._deletion = services.deletion
        self._membership = services.membership
        self._custodian = services.custodian
        self._cluster = cluster
        self._identify = identify
        self._clock = clock
        self._limits = limits
        self._app = self.app  # Klein keeps only a weak reference to what it bound
        self._routes = self._app.url_map.bind("node")
        self.uploads = Uploads()
        self._telling = Telling()
        self._serving = Serving(clock, limits)

    def site(self, limits: WebLimits, observer: Observer | None = None) -> StreamingSite:
        """The factory to listen with, behind ``swarm.peering.tls.server_endpoint``."""
        return StreamingSite(
            self._app.resource(), admit=self.admit, clock=self._clock, limits=limits, observer=observer
        )

    async def admit(self, request: StreamingRequest) -> Replica | None:
        """
        Judge a request by its head.

        :raises HTTPException: no such path, or none with this method.
        :raises SwarmError: it is refused.
        """
        self._sender(request)
        check_cluster(request, self._cluster)
        route, arguments = self._routes.match(request.path.decode("ascii"), request.method.decode("ascii"))
        switch = SWITCHES[route]
        if switch is not None:
            self._store.check_allowed(switch)
        # Klein would look for the same route again.
        request.answering = partial(self._app.execute_endpoint, route, request, **arguments)
        if route == "push":
            return await admit_replica(self._store, self._deletion, request, arguments["digest"])
        return None

    # -- blobs ----------------------------------------------------------------------

    @app.route("/blobs/<id:digest>", methods=["GET"])
    async def blob(self, request: StreamingRequest, digest: Digest) -> None:
        """Bytes of a blob, or of what a pull has verified of it so far; HEAD: what there is."""
        known = self._store.opened(
            digest.hex.encode("ascii")
        )  # if so, it is unmarked, and no thread is asked
        if known is None:
            await self._store.check_markers(digest)
        self._fetcher.notice(digest, peer := self._sender(request))
        if request.method == b"HEAD":
            await self._describe(request, digest, known.info if known is not None else None)
            return
        try:
            with self.uploads.another(self._limits):
                reader, part = await self._open(digest)
                generation = life(self._tombstones, digest)
                await send_blob(request, reader, generation, part, serving=self._serving, peer=peer)
        except Overloaded as e:
            view = self._fetcher.serving(digest)
            if view is None:
                raise
            told = self._telling.part(digest, view.have).field
            raise Refusal(503, str(e), ("Retry-After", str(e.retry_after)), (HAVE, told)) from e

    async def _open(self, digest: Digest) -> tuple[IBlobReader, Part | None]:
        try:
            return await self._fetcher.open_local(digest), None
        except BlobMissing:
            view = self._fetcher.serving(digest)
            if view is None:
                raise
            return view.reader(), self._telling.part(digest, view.have)

    async def _describe(self, request: StreamingRequest, digest: Digest, info: BlobInfo | None) -> None:
        info, part = info or await self._store.stat(digest), None
        if info is None:
            view = self._fetcher.serving(digest)
            if view is None:
                raise BlobMissing(digest)
            info, part = view.info, self._telling.part(digest, view.have)
        describe(request, info, life(self._tombstones, digest), part, self._serving.given(digest))

    @app.route("/blobs/<id:digest>/midstates", methods=["GET"])
    async def midstates(self, request: StreamingRequest, digest: Digest) -> bytes:
        """The chaining values; ``grain`` says which cut the peer expects."""
        if self._store.opened(digest.hex.encode("ascii")) is None:
            await self._store.check_markers(digest)
        wanted = [value.decode("latin-1") for value in request.args.get(b"grain", [])]
        if len(wanted) > 1 or not all(_GRAIN.fullmatch(value) for value in wanted):
            raise Malformed("grain is one number")
        midstates = await self._store.midstates(digest)
        if midstates is None or wanted not in ([], [str(midstates.grains.grain)]):
            raise BlobMissing(digest, "no midstates at this grain")
        return self._answer(request, "application/octet-stream", midstates.encode())

    @app.route("/blobs/<id:digest>", methods=["PUT"])
    async def push(self, request: StreamingRequest, digest: Digest) -> bytes:
        """Keep a replica."""
        replica = request.take_sink()
        assert isinstance(replica, Replica), "admit() made one"
        stored = await replica.finish(self._store, self._deletion, self._tombstones)
        return self._json(
            request,
            {"sha512": digest.hex, "length": stored.info.size},
            201 if stored.new else 200,
        )

    @app.route("/blobs/<id:digest>", methods=["DELETE"])
    async def bury(self, request: StreamingRequest, digest: Digest) -> bytes:
        """Take a tombstone."""
        generation = parse_generation(request.getHeader(GENERATION))
        if generation < 1:
            raise Malformed(f"a tombstone has a {GENERATION}")
        removed = await self._deletion.ordered(digest, generation)
        return self._json(request, {"deleted": removed, "sha512": digest.hex})

    @app.route("/blobs/<id:digest>/corrupt", methods=["POST"])
    async def corrupt(self, request: StreamingRequest, digest: Digest) -> bytes:
        """A peer got bad bytes from us, or says so: advice to look."""
        reason = request.content.read()
        if len(reason) > self._limits.reason:
            raise Refusal(413, f"a reason has at most {self._limits.reason} bytes")
        if await self._store.stat(digest) is None:
            raise BlobMissing(digest)
        text = _CONTROL.sub(" ", reason.decode("utf-8", "replace"))
        self._custodian.suspect(digest, self._sender(request), text)
        return self._json(request, {"sha512": digest.hex}, 202)

    # -- the cluster ------------------------------------------------------------------

    @app.route("/cluster/", methods=["GET"])
    async def cluster(self, request: StreamingRequest) -> bytes:
        """Who this node knows."""
        return self._json(request, self._membership.document())

    @app.route("/cluster/", methods=["POST"])
    async def greeting(self, request: StreamingRequest) -> bytes:
        """A peer introduces itself; whatever it calls itself, it is who TLS says it is."""
        greeting = Greeting.decode(request.content.read())
        remote_host = str(getattr(request.client, "host", ""))
        self._membership.greeted(
            self._sender(request),
            greeting.name,
            greeting.public_addr,
            greeting.mgmt_addr,
            remote_host,
            greeting.others,
        )
        return self._json(request, self._membership.document())

    @app.route("/join/", methods=["POST"])
    async def join(self, request: StreamingRequest) -> bytes:
        """Greet the node at an address."""
        try:
            form = parse_qs(request.content.read().decode("ascii"), strict_parsing=True, max_num_fields=1)
        except ValueError as e:
            raise Malformed("not a form") from e
        await self._membership.join(Address.parse("".join(form.get("peer", ()))))
        return self._json(request, self._membership.document())

    # -- reading and answering ----------------------------------------------------------

    def _sender(self, request: StreamingRequest) -> PeerID:
        try:
            return self._identify(request.transport)
        except LookupError as e:
            raise Refusal(403, "a peer shows a certificate") from e

    def _json(self, request: StreamingRequest, document: dict[str, Any], status: int = 200) -> bytes:
        return self._answer(request, "application/json", json.dumps(document).encode() + b"\n", status)

    def _answer(self, request: StreamingRequest, kind: str, body: bytes, status: int = 200) -> bytes:
        request.setResponseCode(status)
        request.setHeader("Content-Type", kind)
        request.setHeader("Content-Length", str(len(body)))
        return body

    @app.handle_errors(Exception)
    def failed(self, request: Any, failure: Failure) -> Deferred[None] | None:
        """The one place where errors become answers."""
        answer_error(request, failure)
        # Aborted: wait to be canceled with the connection, so that nothing ends as if whole.
        return None if request.finished else Deferred()

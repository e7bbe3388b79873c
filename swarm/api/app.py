"""The public HTTP API: one route a line of CONTRACT's table.

Decides what a request means and in which order it is judged: path and method, authority, switches,
and for a PUT all else that can be known, before its body; then an operator's markers, before existence.
How bytes travel is ``swarm.web``'s.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from attrs import frozen
from klein import Klein
from prometheus_client import CollectorRegistry
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure
from twisted.web.iweb import IRequest
from werkzeug.exceptions import MethodNotAllowed

from swarm.api.fields import content_type, set_blob_fields
from swarm.api.media import MediaProbe
from swarm.api.metalink import CONTENT_TYPE as METALINK
from swarm.api.metalink import PieceHashes, metalink
from swarm.api.metrics import CONTENT_TYPE as PROMETHEUS
from swarm.api.metrics import Elsewhere, WebMetrics, exposition
from swarm.api.plain import PlainReads
from swarm.api.status import NodeFacts, locations_document, readiness
from swarm.api.tokens import Guard
from swarm.api.uploads import Upload, admit_upload
from swarm.errors import BlobMissing, PullFailed
from swarm.interfaces import BlobInfo, IBlobReader, IBlobStore
from swarm.model.digest import Digest
from swarm.model.filenames import RESERVED
from swarm.web.bodies import conditions_of, send
from swarm.web.errors import Refusal, answer_error
from swarm.web.limits import WebLimits
from swarm.web.ranges import begins_at, select
from swarm.web.request import StreamingRequest
from swarm.web.routes import DigestConverter
from swarm.web.site import StreamingSite

if TYPE_CHECKING:
    from swarm.services.deletion import Deletion
    from swarm.services.fetcher import Fetcher
    from swarm.services.membership import Membership
    from swarm.services.replicator import Replicator

_MIRRORS = 8
#: What each route asks of a client; None: nothing. A route that is not named here answers 500.
SCOPES: dict[str, str | None] = {
    "blob": "get",
    "blob_here": "get",
    "media": "get",
    "locations": "get",
    "metalink": "get",
    "named_information": None,
    "put_blob": "put",
    "put_file": "put",
    "delete_here": "delete",
    "delete_everywhere": "delete",
    "refresh_peers": "admin",
    "health": None,
    "ready": None,
    "metrics": None,
    "nothing": None,
}


@frozen
class Services:
    """Who does the work."""

    store: IBlobStore
    fetcher: Fetcher
    replicator: Replicator
    deletion: Deletion
    membership: Membership


class PublicAPI:
    """
    The routes.

    :param guard: who may do what.
    :param media: runs ffprobe.
    :param pieces: hashes pieces for Metalink.
    :param registry: what ``/metrics`` shows; the API adds its own counts to it.
    :param elsewhere: what other processes answered on its behalf.
    """

    app = Klein()
    app.url_map.converters["id"] = DigestConverter
    app.url_map.merge_slashes = False

    def __init__(
        self,
        services: Services,
        facts: NodeFacts,
        *,
        guard: Guard,
        media: MediaProbe,
        pieces: PieceHashes,
        registry: CollectorRegistry,
        clock: IReactorTime,
        elsewhere: Elsewhere = tuple,
    ) -> None:
        self._store = services.store
        self._fetcher = services.fetcher
        self._replicator = services.replicator
        self._deletion = services.deletion
        self._membership = services.membership
        self._facts = facts
        self._guard = guard
        self._media = media
        self._pieces = pieces
        self._registry = registry
        self._clock = clock
        self._metrics = WebMetrics(registry, elsewhere=elsewhere)
        self._app = self.app  # Klein keeps only a weak reference to what it bound
        self._routes = self._app.url_map.bind("node")

    def site(self, limits: WebLimits) -> StreamingSite:
        """The factory to listen with."""
        return StreamingSite(
            self._app.resource(),
            admit=self.admit,
            clock=self._clock,
            limits=limits,
            observer=self._metrics,
            blobs=self._store,
            answers=PlainReads(self._store, self._guard, self.mirrors),
        )

    # -- before the body ----------------------------------------------------------

    async def admit(self, request: StreamingRequest) -> Upload | None:
        """
        Judge a request by its head.

        :raises HTTPException: no such path, or none with this method.
        :raises SwarmError: it is refused.
        """
        path, method = request.path.decode("ascii"), request.method.decode("ascii")
        if path.startswith("//"):
            raise Refusal(404, "no such path")  # werkzeug would strip them
        try:
            route, arguments = self._routes.match(path, method)
        except MethodNotAllowed as e:
            raise MethodNotAllowed(_methods(path, e.valid_methods or ())) from e
        scope = SCOPES[route]
        if scope is not None:
            authorization, origin = request.getHeader("Authorization"), request.getHeader("Origin")
            self._guard.check(scope, request.client, authorization, origin)
            if scope != "admin":
                self._store.check_allowed(scope)
        # Klein would look for the same route again: an eighth of what a small PUT costs.
        request.answering = partial(self._app.execute_endpoint, route, request, **arguments)
        if route in ("put_blob", "put_file"):
            return await admit_upload(self._store, request, arguments.get("digest"))
        return None

    # -- bytes --------------------------------------------------------------------

    @app.route("/<id:digest>", methods=["GET"])
    async def blob(self, request: StreamingRequest, digest: Digest) -> None:
        """Local bytes, or a pull's as they arrive."""
        near = begins_at(request.getHeader("Range")) if request.method == b"GET" else None
        await self._send(request, digest, partial(self._fetcher.open, near=near))

    @app.route("/<id:digest>/nopeerload", methods=["GET"])
    async def blob_here(self, request: StreamingRequest, digest: Digest) -> None:
        """Local bytes only."""
        await self._send(request, digest, self._fetcher.open_local)

    async def _send(
        self, request: StreamingRequest, digest: Digest, open_: Callable[[Digest], Awaitable[IBlobReader]]
    ) -> None:
        method = request.method.decode("ascii")
        damaged = False
        while True:
            reader = await open_(digest)
            set_blob_fields(request, reader.info, self.mirrors())
            chosen = select(method, conditions_of(request), digest.etag, reader.info.size)
            try:
                await send(request, reader, chosen)
            except PullFailed:
                # Perhaps only the size was a lie, and nothing of it was told yet.
                if request.startedWriting or not self._fetcher.retries(digest):
                    raise
            except BlobMissing:
                # Our copy proved damaged before anything of it was told; perhaps a peer has a good one.
                if request.startedWriting or damaged:
                    raise
                damaged = True
            else:
                return

    def mirrors(self) -> list[str]:
        """Public URLs of other nodes, told with every blob."""
        urls = (peer.public_url.rstrip("/") for peer in self._membership.live())
        return [url for url in urls if url][:_MIRRORS]

    @app.route("/<name>", methods=["PUT"])
    async def put_file(self, request: StreamingRequest, name: str) -> bytes:
        """Store a body under the name in the path."""
        return await self._put(request)

    @app.route("/<id:digest>", methods=["PUT"])
    async def put_blob(self, request: StreamingRequest, digest: Digest) -> bytes:
        """Store a body that hashes to the id in the path."""
        return await self._put(request)

    async def _put(self, request: StreamingRequest) -> bytes:
        upload = request.take_sink()
        assert isinstance(upload, Upload), "admit() made one"
        stored = await upload.finish()
        replication = await self._replicator.replicate(stored.info)
        request.setHeader("Location", f"/{stored.info.digest.hex}")
        status = 202 if not replication.reached else 201 if stored.new else 200
        return self._json(
            request,
            {
                **_described(stored.info),
                "content_type": content_type(stored.info.filename),
                "holders": list(replication.holders),
            },
            status,
        )

    @app.route("/<id:digest>", methods=["DELETE"])
    async def delete_here(self, request: StreamingRequest, digest: Digest) -> bytes:
        """Remove this node's copy."""
        info = await self._deletion.here(digest)
        return self._json(request, {"deleted": True, **_described(info)})

    @app.route("/<id:digest>/allpeers", methods=["DELETE"])
    async def delete_everywhere(self, request: StreamingRequest, digest: Digest) -> bytes:
        """Remove every node's copy."""
        deleted = await self._deletion.everywhere(digest)
        known = _described(deleted.info) if deleted.info is not None else {"sha512": digest.hex}
        answer = {
            "deleted": True,
            **known,
            "confirmed": list(deleted.confirmed),
            "pending": list(deleted.pending),
        }
        return self._json(request, answer, 202 if deleted.pending else 200)

    # -- about a blob -----------------------------------------------------------------

    @app.route("/<id:digest>/ffmetadata", methods=["GET"])
    async def media(self, request: StreamingRequest, digest: Digest) -> bytes:
        """What ffprobe says of it."""
        await self._store.check_markers(digest)
        reader = await self._whole(digest)
        try:
            return self._json(request, await self._media.probe(reader))
        finally:
            reader.close()

    async def _whole(self, digest: Digest) -> IBlobReader:
        """A reader of a complete local copy, all of it proven; pulled first if need be."""
        try:
            return await self._proven(digest)
        except BlobMissing:
            await self._fetcher.pull(digest)
        return await self._proven(digest)

    async def _proven(self, digest: Digest) -> IBlobReader:
        reader = await self._fetcher.open_local(digest)
        try:
            offset = 0
            while offset < reader.info.size:
                offset = await reader.available(offset, reader.info.size)
        except BaseException:
            reader.close()
            raise
        return reader

    @app.route("/<id:digest>/locations", methods=["GET"])
    async def locations(self, request: StreamingRequest, digest: Digest) -> bytes:
        """Who holds it, and how a pull of it goes."""
        await self._store.check_markers(digest)
        found = await self._replicator.locations(digest)
        pull = self._fetcher.progress(digest)
        if not found and pull is None:
            raise BlobMissing(digest)
        info = await self._store.stat(digest)
        length = info.size if info is not None else pull.size if pull is not None else None
        now = self._clock.seconds()
        return self._json(request, locations_document(digest, length, found, pull, now))

    @app.route("/<id:digest>.meta4", methods=["GET"])
    async def metalink(self, request: StreamingRequest, digest: Digest) -> bytes:
        """A Metalink; with piece hashes where this node holds the blob."""
        await self._store.check_markers(digest)
        local = True
        try:
            reader = await self._fetcher.open_local(digest)
        except BlobMissing:
            reader, local = await self._fetcher.open(digest), False
        try:
            pieces = await self._pieces.of(reader) if local else ()
        finally:
            reader.close()
        urls = [f"{url}/{digest.hex}" for url in (self._own_url(request), *self.mirrors())]
        request.setHeader("Content-Disposition", f'attachment; filename="{digest.short}.meta4"')
        return self._answer(request, METALINK, metalink(reader.info, pieces, urls))

    def _own_url(self, request: StreamingRequest) -> str:
        if self._facts.public_url:
            return self._facts.public_url.rstrip("/")
        scheme = "https" if request.isSecure() else "http"
        return f"{scheme}://{request.getHeader('Host') or 'localhost'}"

    @app.route("/.well-known/ni/sha-512/<value>", methods=["GET"])
    async def named_information(self, request: StreamingRequest, value: str) -> bytes:
        """RFC 6920."""
        digest = Digest.from_base64url(unquote(value))
        request.setHeader("Location", f"/{digest.hex}")
        return self._answer(request, "text/plain; charset=utf-8", b"", 307)

    # -- about the node -----------------------------------------------------------------

    @app.route("/health", methods=["GET"])
    @app.route("/health.html", methods=["GET"])
    async def health(self, request: StreamingRequest) -> bytes:
        """The process serves."""
        return self._answer(request, "text/plain; charset=utf-8", b"All systems go.\n")

    @app.route("/ready", methods=["GET"])
    async def ready(self, request: StreamingRequest) -> bytes:
        """Should this node get traffic?"""
        now = self._clock.seconds()
        known, pulls = self._membership.known(), self._fetcher.pulls()
        good, document = readiness(self._facts, self._store.usage(), known, pulls, now)
        return self._json(request, document, 200 if good else 503)

    @app.route("/metrics", methods=["GET"])
    async def metrics(self, request: StreamingRequest) -> bytes:
        """For Prometheus."""
        return self._answer(request, PROMETHEUS, exposition(self._registry))

    @app.route("/refreshpeers.html", methods=["PUT"])
    async def refresh_peers(self, request: StreamingRequest) -> bytes:
        """Read the peer list again."""
        return self._json(request, {"peers": list(await self._membership.refresh())})

    @app.route("/<name>", methods=["GET"])
    async def nothing(self, request: StreamingRequest, name: str) -> bytes:
        """A name is for PUT; what it stored is found by its id."""
        if unquote(name) == "refreshpeers.html":
            raise MethodNotAllowed(["PUT"])
        raise Refusal(404, "no such path")

    # -- answering -----------------------------------------------------------------------

    def _json(self, request: StreamingRequest, document: dict[str, Any], status: int = 200) -> bytes:
        return self._answer(request, "application/json", json.dumps(document).encode() + b"\n", status)

    def _answer(self, request: StreamingRequest, kind: str, body: bytes, status: int = 200) -> bytes:
        request.setResponseCode(status)
        for name, value in (
            ("Content-Type", kind),
            ("Content-Length", str(len(body))),
            ("X-Content-Type-Options", "nosniff"),
            ("Cache-Control", "no-store"),
        ):
            request.setHeader(name, value)
        return body

    @app.handle_errors(Exception)
    def failed(self, request: IRequest, failure: Failure) -> Deferred[None] | None:
        """The one place where errors become answers."""
        assert isinstance(request, StreamingRequest), "the site makes these"
        return answer_error(request, failure)


def _described(info: BlobInfo) -> dict[str, Any]:
    name = info.filename.text if info.filename is not None else None
    return {"sha512": info.digest.hex, "filename": name, "length": info.size}


def _methods(path: str, valid: Any) -> list[str]:
    """Methods of a path; the route for file names also matches our own."""
    methods = set(valid)
    if unquote(path[1:]) in RESERVED:
        methods = {"PUT"} if path == "/refreshpeers.html" else methods - {"PUT"}
    return sorted(methods)

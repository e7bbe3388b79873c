"""Reads of blobs on the peer port, as the node and each of its workers answer them.

Decides how an answer looks and how many are given at once. Whether this process may serve a blob, and
from where, was decided by who calls: ``swarm.peering.server``, or ``swarm.workers.peers``.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING

from swarm.errors import BlobMissing, Overloaded
from swarm.interfaces import BlobInfo, IBlobReader, ITombstones
from swarm.model.digest import Digest
from swarm.model.peers import PeerID
from swarm.model.ranges import ByteRange
from swarm.peering.limits import PeerLimits
from swarm.peering.serving import Serving
from swarm.peering.telling import Part
from swarm.peering.wire import CLUSTER, GENERATION, GIVEN, GIVEN_HEEDED, HAVE, NAMES, encode_names
from swarm.web.bodies import conditions_of, send
from swarm.web.errors import Refusal
from swarm.web.ranges import select

if TYPE_CHECKING:
    from swarm.web.request import StreamingRequest


class Uploads:
    """
    Answers with blob bytes that are under way.

    :ivar count: in this process.
    """

    count = 0

    @property
    def everywhere(self) -> int:
        """In all processes of this node."""
        return self.count

    @contextmanager
    def another(self, limits: PeerLimits) -> Iterator[None]:
        """
        While it is under way.

        :raises Overloaded: there are enough.
        """
        if self.everywhere >= limits.uploads:
            raise Overloaded("enough peers are served", limits.busy)
        self.count += 1
        try:
            yield
        finally:
            self.count -= 1


def check_cluster(request: StreamingRequest, cluster: str) -> None:
    """:raises Refusal: it is meant for another cluster."""
    named = request.getHeader(CLUSTER)
    if named is not None and named != cluster:
        raise Refusal(421, "this node belongs to another cluster")


def life(tombstones: ITombstones, digest: Digest) -> int:
    """Which life of the id a copy that is here is of; 0: its first, or it is no more."""
    return 0 if tombstones.buried(digest) else tombstones.generation(digest)


def describe(
    request: StreamingRequest,
    info: BlobInfo,
    generation: int,
    part: Part | None = None,
    given: str | None = None,
) -> None:
    """
    Answer HEAD.

    :param generation: see :func:`life`; 0 is not told.
    :param part: what there is of the blob; None: all.
    :param given: and what of that others were given, as it is spelled.
    """
    _set_fields(request, info, generation, part, given)
    request.setHeader("Content-Length", str(info.size))
    request.write(b"")
    request.finish()


async def send_blob(
    request: StreamingRequest,
    reader: IBlobReader,
    generation: int,
    part: Part | None = None,
    *,
    serving: Serving,
    peer: PeerID,
) -> None:
    """
    Answer GET, of a pull when it is its turn; closes ``reader``. Who has only a part always says so.

    :raises BlobMissing: all of it is asked for, and there is not all.
    :raises Refusal: 503, see :meth:`swarm.peering.serving.Serving.turn`.
    :raises SwarmError: as :func:`swarm.web.bodies.send`.
    """
    info = reader.info
    selection = select("GET", conditions_of(request), info.digest.etag, info.size)
    if part is not None and not all(part.have.covers(each.start, each.stop) for each in selection.parts):
        reader.close()
        if selection.status == 200:
            raise BlobMissing(info.digest)
        raise Refusal(
            416, "not these bytes yet", ("Content-Range", f"bytes */{info.size}"), (HAVE, part.field)
        )
    if not selection.parts:
        _set_fields(request, info, generation, part)
        await send(request, reader, selection)
        return
    wanted = ByteRange(selection.parts[0].start, selection.parts[-1].stop)
    turn: AbstractAsyncContextManager[None] = nullcontext()
    if request.getHeader(GIVEN) == GIVEN_HEEDED:  # else it is curl, or a challenge: nothing else will do
        turn = serving.turn(info.digest, info.size, peer, wanted, whole=part is None)
    try:
        async with turn:
            _set_fields(request, info, generation, part, serving.given(info.digest))
            await send(request, reader, selection)
    except Refusal as e:
        reader.close()
        if part is not None:
            e.fields = (*e.fields, (HAVE, part.field))
        raise


def _set_fields(
    request: StreamingRequest, info: BlobInfo, generation: int, part: Part | None, given: str | None = None
) -> None:
    if part is not None:
        request.setHeader(HAVE, part.field)
    elif given is not None:
        request.setHeader(GIVEN, given)
    for name, value in (
        ("ETag", info.digest.etag),
        ("Accept-Ranges", "bytes"),
        ("Repr-Digest", info.digest.repr_digest),
        ("Content-Type", "application/octet-stream"),
    ):
        request.setHeader(name, value)
    if info.names:
        request.setHeader(NAMES, encode_names(info.names))
    if generation:
        request.setHeader(GENERATION, str(generation))

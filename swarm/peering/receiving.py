"""A replica that a peer pushes: what is asked before its body, and its way into the store.

Decides that a copy older than a known deletion is refused, also if the deletion came while the
bytes did. Nothing that arrives here is pushed on: only the node that took the PUT replicates.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from swarm.errors import BlobMissing, DigestMismatch, Malformed
from swarm.interfaces import IBlobStore, IBlobWriter, ITombstones, Stored
from swarm.model.digest import Digest
from swarm.model.filenames import Filename
from swarm.peering.wire import GENERATION, NAMES, parse_generation, parse_names
from swarm.web.errors import Refusal
from swarm.web.routes import WriterSink

if TYPE_CHECKING:
    from swarm.services.deletion import Deletion
    from swarm.web.request import StreamingRequest


class Replica(WriterSink):
    """The body of a push."""

    def __init__(
        self, writer: IBlobWriter, digest: Digest, generation: int, names: tuple[Filename, ...]
    ) -> None:
        super().__init__(writer)
        self._digest = digest
        self._generation = generation
        self._names = names

    async def finish(self, store: IBlobStore, deletion: Deletion, tombstones: ITombstones) -> Stored:
        """
        Prove and publish, with its names; durable when this returns.

        :raises DigestMismatch, LengthMismatch, StorageFull, VolumeReadOnly, StoreFailed: nothing was kept.
        :raises Refusal: 410, it was deleted meanwhile.
        """
        try:
            _check_generation(deletion, self._digest, self._generation)
            only = self._names[0] if len(self._names) == 1 else None
            stored = await self._writer.finish(only)
        except BaseException:  # a canceled request, too, must not leave bytes behind
            self._writer.abort()
            raise
        try:
            _check_generation(deletion, self._digest, self._generation)
        except Refusal:
            if stored.new:
                await deletion.here(self._digest)
            raise
        await tombstones.revive(self._digest, self._generation)
        if len(self._names) > 1:
            for name in self._names if stored.new else self._names[-1:]:
                await store.add_name(self._digest, name)
        return stored


async def admit_replica(
    store: IBlobStore, deletion: Deletion, request: StreamingRequest, digest: Digest
) -> Replica:
    """
    Decide on a push before its body.

    :raises Malformed, Refusal, DigestMismatch, StorageFull, VolumeReadOnly: it is refused.
    """
    fields = request.requestHeaders
    if fields.hasHeader("Content-Range"):
        raise Malformed("a blob is put whole: no Content-Range")  # RFC 9110 section 14.5
    if fields.hasHeader("Content-Encoding"):
        raise Refusal(415, "a blob is put as it is: no Content-Encoding", ("Accept-Encoding", "identity"))
    if request.length == 0 and not fields.hasHeader("Content-Length"):
        raise Refusal(411, "Content-Length or Transfer-Encoding is needed")
    for value in fields.getRawHeaders("Repr-Digest") or []:
        if (claimed := Digest.from_digest_field(value)) not in (None, digest):
            raise DigestMismatch(digest.hex, claimed.hex if claimed else "")
    generation = parse_generation(request.getHeader(GENERATION))
    names = parse_names(request.getHeader(NAMES) or "")
    _check_generation(deletion, digest, generation)
    store.check_room(request.length or 0)
    return Replica(await store.writer(request.length, digest), digest, generation, names)


def _check_generation(deletion: Deletion, digest: Digest, generation: int) -> None:
    try:
        deletion.check_generation(digest, generation)
    except BlobMissing as e:
        raise Refusal(410, "this copy was deleted from the swarm") from e

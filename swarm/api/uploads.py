"""A PUT from its head to its last byte: what is asked of the store before the body, and the sink for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from swarm.errors import DigestMismatch, Malformed
from swarm.interfaces import IBlobStore, IBlobWriter, Stored
from swarm.model.digest import Digest
from swarm.model.filenames import Filename
from swarm.web.errors import Refusal
from swarm.web.routes import WriterSink

if TYPE_CHECKING:
    from swarm.web.request import StreamingRequest


class Upload(WriterSink):
    """A body on its way to the store, and the name it goes under."""

    def __init__(self, writer: IBlobWriter, name: Filename | None) -> None:
        super().__init__(writer)
        self._name = name

    async def finish(self) -> Stored:
        """Prove and publish; what fails keeps nothing."""
        try:
            return await self._writer.finish(self._name)
        except BaseException:  # a canceled request, too, must not leave bytes behind
            self._writer.abort()
            raise


async def admit_upload(store: IBlobStore, request: StreamingRequest, digest: Digest | None) -> Upload:
    """
    Decide on a PUT before its body.

    :param digest: the id in the path; None where the path is a file name.
    :raises Malformed, Refusal, DigestMismatch, StorageFull, VolumeReadOnly: it is refused.
    """
    name = None
    if digest is None:
        name = Filename.from_path(request.path)
        if name.reserved:
            raise Refusal(409, f"{name.text} is one of this node's own names")
    if request.requestHeaders.hasHeader("Content-Range"):
        raise Malformed("a blob is put whole: no Content-Range")  # RFC 9110 section 14.5
    coding = request.getHeader("Content-Encoding")
    if coding is not None and coding.lower() != "identity":
        raise Refusal(415, "a blob is put as it is: no Content-Encoding", ("Accept-Encoding", "identity"))
    if request.length == 0 and not request.requestHeaders.hasHeader("Content-Length"):
        raise Refusal(411, "Content-Length or Transfer-Encoding is needed")
    expect = expected_digest(request, digest)
    store.check_room(request.length or 0)
    return Upload(await store.writer(request.length, expect), name)


def expected_digest(request: StreamingRequest, digest: Digest | None) -> Digest | None:
    """
    What the body must hash to, by the path and by ``Repr-Digest`` and ``Content-Digest``.

    :raises DigestMismatch: they contradict each other.
    :raises Malformed: a digest field that cannot be read.
    """
    for field in ("Repr-Digest", "Content-Digest"):
        for value in request.requestHeaders.getRawHeaders(field) or []:
            claimed = Digest.from_digest_field(value)
            if claimed is None:
                continue
            if digest is not None and claimed != digest:
                raise DigestMismatch(digest.hex, claimed.hex)
            digest = claimed
    return digest

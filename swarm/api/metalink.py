"""Metalink (RFC 5854): size, hash, piece hashes and where else to get a blob.

Pieces are the blob's grains hashed with SHA-256, which Metalink clients know; only the node that
holds a blob can name them, once, and remembers.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from xml.sax.saxutils import escape, quoteattr

from twisted.internet.defer import DeferredLock

from swarm.interfaces import BlobInfo, IBlobReader, RunBlocking
from swarm.model.digest import Digest
from swarm.model.grains import Grains
from swarm.model.ranges import ByteRange

CONTENT_TYPE = "application/metalink4+xml"
_REMEMBERED = 256
_READ = 1 << 20


class PieceHashes:
    """SHA-256 of each grain of blobs asked for lately. One blob is hashed at a time."""

    def __init__(self, *, run_blocking: RunBlocking) -> None:
        self._run_blocking = run_blocking
        self._known: OrderedDict[Digest, tuple[str, ...]] = OrderedDict()
        self._lock = DeferredLock()

    async def of(self, reader: IBlobReader) -> tuple[str, ...]:
        """
        Hex digests, in order.

        :param reader: of a complete local blob; stays open.
        :raises StoreFailed: it cannot be read.
        """
        digest = reader.info.digest
        await self._lock.acquire()
        try:
            if digest not in self._known:
                self._known[digest] = await self._hash(reader)
                if len(self._known) > _REMEMBERED:
                    self._known.popitem(last=False)
            self._known.move_to_end(digest)
            return self._known[digest]
        finally:
            self._lock.release()

    async def _hash(self, reader: IBlobReader) -> tuple[str, ...]:
        grains = Grains.of(reader.info.size)
        pieces = []
        for index in range(grains.count):
            piece = hashlib.sha256()
            for span in _cut(grains.start(index), grains.stop(index)):
                await self._run_blocking(piece.update, await reader.read(span.start, len(span)))
            pieces.append(piece.hexdigest())
        return tuple(pieces)


def _cut(start: int, stop: int) -> Sequence[ByteRange]:
    return [ByteRange(at, min(stop, at + _READ)) for at in range(start, stop, _READ)]


def metalink(info: BlobInfo, pieces: Sequence[str], urls: Sequence[str]) -> bytes:
    """
    The document.

    :param pieces: SHA-256 of each grain in hex; empty where unknown.
    :param urls: where the blob is served, best first.
    """
    name = info.filename.text if info.filename is not None else info.digest.hex
    lines = [
        '<?xml version="1.0" encoding="UTF-8"?>',
        '<metalink xmlns="urn:ietf:params:xml:ns:metalink">',
        f"<file name={quoteattr(name)}>",
        f"<size>{info.size}</size>",
        f'<hash type="sha-512">{info.digest.hex}</hash>',
    ]
    if pieces and info.size:
        lines.append(f'<pieces length="{Grains.of(info.size).grain}" type="sha-256">')
        lines += [f"<hash>{piece}</hash>" for piece in pieces]
        lines.append("</pieces>")
    lines += [f'<url priority="{n}">{escape(url)}</url>' for n, url in enumerate(urls, 1)]
    lines += ["</file>", "</metalink>", ""]
    return "\n".join(lines).encode()

"""Store one file or stream on a node, and make sure the node stored these very bytes.

Decides how the body is produced and checked: it is hashed while it is sent, so a file is read once,
and the id the node answers must be the hash of what was read.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from typing import IO, Any
from urllib.parse import quote

from swarm.cli.connection import PIECE, Connection, read_document
from swarm.cli.meter import Meter
from swarm.cli.session import Failure
from swarm.model.digest import Digest


class _Pieces:
    """The body of a PUT, hashed as it goes out."""

    def __init__(self, file: IO[bytes], length: int | None, meter: Meter) -> None:
        self._file = file
        self._left = length
        self._meter = meter
        self.hash = hashlib.sha512()

    def __iter__(self) -> Iterator[bytes]:
        while self._left is None or self._left > 0:
            try:
                piece = self._file.read(PIECE if self._left is None else min(PIECE, self._left))
            except OSError as e:
                raise Failure(f"cannot read on: {e.strerror}") from e
            if not piece and self._left:
                raise Failure("the file became shorter while it was read")
            if not piece:
                return
            if self._left is not None:
                self._left -= len(piece)
            self.hash.update(piece)
            yield piece
            self._meter.advance(len(piece))
        self._meter.rename("until it is safe")


def upload(
    connection: Connection,
    file: IO[bytes],
    name: str,
    length: int | None,
    meter: Meter,
    expected: Digest | None = None,
) -> dict[str, Any]:
    """
    PUT ``length`` bytes of ``file`` (None: to its end) under ``name``.

    :param expected: refuse, here and at the node, anything but this blob.
    :return: the node's document (``sha512``, ``filename``, ``length``, ``holders``) and its ``status``.
    :raises Failure: refused, unreachable, or the node's id is not the hash of what was sent.
    """
    pieces = _Pieces(file, length, meter)
    headers = {"Accept": "application/json"}
    if expected is not None:
        headers["Repr-Digest"] = expected.repr_digest
    try:
        answer = connection.upload("/" + quote(name, safe=""), iter(pieces), length, headers)
        document = read_document(answer)
    except Failure:
        # A body that was begun and not ended leaves nothing usable on the connection.
        connection.close()
        raise
    if document.get("sha512") != pieces.hash.hexdigest():
        raise Failure(
            f"{name}: the node stored other bytes than were sent; it calls them {document.get('sha512')}"
        )
    return {**document, "status": answer.status}


def length_of(file: IO[bytes]) -> int | None:
    """How many bytes a regular file has left to read; None for a pipe."""
    status = os.fstat(file.fileno())
    return status.st_size - file.tell() if stat.S_ISREG(status.st_mode) else None

"""Which bytes to ask of a peer that says it has a blob which is here, too, before its word counts.

Decides positions and lengths only. Nobody can foretell them, so whoever lacks a share *s* of the bytes
is caught with 1 - (1 - s)^8; small blobs are asked for whole.
"""

from __future__ import annotations

from random import Random
from typing import Final

from swarm.model.ranges import ByteRange

PIECES: Final = 8
PIECE: Final = 32 << 10
"""Bytes of each; together 256 KiB."""


def probes(size: int, random: Random) -> tuple[ByteRange, ...]:
    """The ranges to ask for; none of an empty blob, of which there is nothing to lack."""
    if size <= PIECES * PIECE:
        return (ByteRange(0, size),) if size else ()
    starts = (random.randrange(size - PIECE + 1) for _ in range(PIECES))
    return tuple(ByteRange(start, start + PIECE) for start in starts)

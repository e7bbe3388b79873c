"""Large files to move: no two pieces of them are equal, and nothing compresses them."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from bench.measure import MIB


def make_file(path: Path, size: int) -> str:
    """
    Write one; its SHA-512 in hex.

    Random bytes once, then the same with a counter in every 4 KiB: fast enough for 10 GiB.
    """
    digest, piece, count = hashlib.sha512(), bytearray(os.urandom(4 * MIB)), 0
    with path.open("wb") as out:
        while left := size - out.tell():
            for at in range(0, len(piece), 4096):
                piece[at : at + 8] = count.to_bytes(8, "big")
                count += 1
            view = memoryview(piece)[: min(left, len(piece))]
            digest.update(view)
            out.write(view)
    return digest.hexdigest()


def sha512_of(path: Path) -> str:
    """Of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha512").hexdigest()

"""Blobs as files, for real nodes to be given. Decides nothing; the same random gives the same bytes."""

from __future__ import annotations

import hashlib
from pathlib import Path
from random import Random

_PIECE = 4 << 20


def make_file(path: Path, size: int, random: Random) -> str:
    """Write so many random bytes to ``path``, a few at a time; their id, 128 hex digits."""
    sha = hashlib.sha512()
    with path.open("wb") as file:
        for at in range(0, size, _PIECE):
            data = random.randbytes(min(_PIECE, size - at))
            sha.update(data)
            file.write(data)
    return sha.hexdigest()

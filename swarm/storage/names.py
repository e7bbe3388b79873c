"""The ``names`` file of a blob: one name a line, the newest last. Bytes only, no I/O."""

from __future__ import annotations

from collections.abc import Iterable

from swarm.errors import Malformed
from swarm.model.filenames import Filename

#: Of more names than this, the oldest are forgotten.
MOST = 100

#: Enough for :data:`MOST` names of 255 bytes; a longer file is read up to here.
LIMIT = 1 << 16


def decode(data: bytes) -> tuple[Filename, ...]:
    """The names in a file. Lines that are no names, and a last line without its end, are left out."""
    names: list[Filename] = []
    for line in data.split(b"\n")[:-1]:
        try:
            names.append(Filename.parse(line.decode("utf-8")))
        except (Malformed, UnicodeDecodeError):
            continue
    return merge((), names)


def encode(names: Iterable[Filename]) -> bytes:
    """The file that :func:`decode` reads."""
    return b"".join(name.text.encode() + b"\n" for name in names)


def merge(old: Iterable[Filename], new: Iterable[Filename]) -> tuple[Filename, ...]:
    """Old names, then new ones; each once, where it came last; at most :data:`MOST`."""
    last: dict[Filename, None] = {}
    for name in (*old, *new):
        last.pop(name, None)
        last[name] = None
    return tuple(last)[-MOST:]

"""What the node and its workers tell each other: a letter, then the letter's own form.

Both ends are of one version: a worker is started by the node that talks to it, from the same files.
"""

from __future__ import annotations

import json
import struct
from typing import Any

import attrs
from attrs import frozen

from swarm.interfaces import BlobInfo
from swarm.model.digest import Digest
from swarm.model.filenames import Filename

_SERIAL = struct.Struct("!cQ")

# From the node.
ORDERS = b"O"  # JSON: how to work, from now on; the first message, and whenever it changes
TAKE = b"C"  # serial, with a client's connection: serve it
GRANTED = b"G"  # digest and JSON, with the blob's file and directory: what to answer with
REFUSED = b"N"  # digest: bring me whoever asks for it
LEAVE = b"L"  # take nothing more, finish what is under way, end

# From a worker.
READY = b"R"  # I serve
TAKEN = b"T"  # serial: the connection is mine
CLOSED = b"B"  # serial: it is gone
BACK = b"H"  # serial and bytes, with the connection: serve it from these bytes on
WANTED = b"W"  # digest: may I serve it?
LEAVING = b"X"  # give me nothing more
SUSPECT = b"S"  # digest: its file could not be read


@frozen
class Orders:
    """
    How a worker works.

    :ivar deny: the switch that refuses reads, a path; empty: reads are refused anyway.
    :ivar tokens: the tokens file, or None.
    :ivar mirrors: public URLs of peers.
    :ivar drain: seconds that responses under way may take once it is to leave.
    :ivar blobs: how many it keeps open.
    :ivar limits: :class:`~swarm.web.limits.WebLimits` by name.
    """

    deny: str
    tokens: str | None
    mirrors: tuple[str, ...]
    drain: float
    blobs: int
    limits: dict[str, Any]


@frozen
class Entry:
    """
    A blob as a worker may serve it: while nothing dates its directory or its file later than this.

    :ivar directory_at, file_at: nanoseconds, see :meth:`swarm.storage.disk.Disk.changed_at`.
    :ivar since, until: between these it may; seconds since the epoch.
    """

    size: int
    names: tuple[str, ...]
    directory_at: int
    file_at: int
    since: float
    until: float

    def info(self, digest: Digest) -> BlobInfo:
        """The blob."""
        return BlobInfo(digest, self.size, tuple(Filename.parse(name) for name in self.names))


def kind(message: bytes) -> bytes:
    """The letter."""
    return message[:1]


def numbered(letter: bytes, serial: int, rest: bytes = b"") -> bytes:
    """A message about a connection."""
    return _SERIAL.pack(letter, serial) + rest


def number(message: bytes) -> tuple[int, bytes]:
    """Serial and rest of a message about a connection."""
    serial: int = _SERIAL.unpack_from(message)[1]
    return serial, message[_SERIAL.size :]


def about(letter: bytes, digest: Digest, rest: bytes = b"") -> bytes:
    """A message about a blob."""
    return letter + digest.raw + rest


def subject(message: bytes) -> tuple[Digest, bytes]:
    """Digest and rest of a message about a blob."""
    return Digest(message[1:65]), message[65:]


def encode(value: Orders | Entry) -> bytes:
    """As JSON."""
    return json.dumps(attrs.asdict(value)).encode()


def decode_orders(data: bytes) -> Orders:
    """What :func:`encode` made of it."""
    read: dict[str, Any] = json.loads(data)
    return Orders(**{**read, "mirrors": tuple(read["mirrors"])})


def decode_entry(data: bytes) -> Entry:
    """What :func:`encode` made of it."""
    read: dict[str, Any] = json.loads(data)
    return Entry(**{**read, "names": tuple(read["names"])})

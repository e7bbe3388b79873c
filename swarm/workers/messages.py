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
from swarm.model.peers import PeerID

_SERIAL = struct.Struct("!cQ")

#: The doors a client may have come in by; a byte.
PUBLIC, PEERS = b"w", b"p"
DOORS = (PUBLIC, PEERS)

# From the node.
IDENTITY = b"I"  # with a file: show peers this, and judge them by it; where there are any, the first message
ORDERS = b"O"  # JSON: how to work, from now on; before anything else, and whenever it changes
TAKE = b"C"  # serial and door, with a client's connection: serve it
GRANTED = b"G"  # digest and JSON, with the blob's file and directory: what to answer with
REFUSED = b"N"  # digest: bring me whoever asks for it
ENDED = b"E"  # serial and how: the answer to its errand was written to its stream, or never will be
LEAVE = b"L"  # take nothing more, finish what is under way, end

# From a worker.
READY = b"R"  # I serve
TAKEN = b"T"  # serial: the connection is mine
CLOSED = b"B"  # serial: it is gone
BACK = b"H"  # serial and bytes, with the connection: serve it from these bytes on
ERRAND = b"F"  # serial and an errand, with a stream: answer there, I cannot
WANTED = b"W"  # digest: may I serve it?
LEAVING = b"X"  # give me nothing more
SUSPECT = b"S"  # digest: its file could not be read

#: How an errand ends: the connection goes on, is to be closed, or broken off in the middle of an answer.
GOES_ON, CLOSES, BREAKS = b"+", b".", b"!"


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
    :ivar cluster: what the swarm is called that peers must mean.
    :ivar peering: :class:`~swarm.peering.limits.PeerLimits` by name.
    :ivar tls: :class:`~swarm.peering.credentials.TLSSettings` by name.
    """

    deny: str
    tokens: str | None
    mirrors: tuple[str, ...]
    drain: float
    blobs: int
    limits: dict[str, Any]
    cluster: str
    peering: dict[str, Any]
    tls: dict[str, Any]


@frozen
class Entry:
    """
    A blob as a worker may serve it: while nothing dates its directory or its file later than this.

    :ivar directory_at, file_at: nanoseconds, see :meth:`swarm.storage.disk.Disk.changed_at`.
    :ivar since, until: between these it may; seconds since the epoch.
    :ivar life: which life of the id it is, for peers; see :func:`swarm.peering.reads.life`.
    """

    size: int
    names: tuple[str, ...]
    directory_at: int
    file_at: int
    since: float
    until: float
    life: int

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


@frozen
class ErrandSaid:
    """
    What a worker says of a request it cannot answer.

    :ivar alone: the stream is for this request; otherwise for all that ever comes from this client.
    :ivar peer: whose it is.
    :ivar head: its head; what is behind it comes by the stream.
    """

    alone: bool
    peer: PeerID
    head: bytes

    def encode(self) -> bytes:
        """As the rest of a message about a connection."""
        return bytes([self.alone]) + self.peer.raw + self.head

    @classmethod
    def decode(cls, data: bytes) -> ErrandSaid:
        """What :meth:`encode` made of it."""
        return cls(bool(data[0]), PeerID(data[1:33]), data[33:])


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

"""What a pull's journal says: which grains of a partial file were verified, from and to what state.

The codec alone: bytes to values and back. When a record may be written, and that a replayed one is
re-verified before it is believed, is :mod:`swarm.storage.partial`'s business.

Big endian, one header and then records of one length, only ever appended::

    "SWPJ" 0x01 0x00 0x00 0x00 | digest 64 | size u64 | grain u32 | salt 16 | check 8
    kind u8 | index u32 | start 64 | end 64 | check 8

Each check is BLAKE2b over what precedes it, a record's also over its number and keyed with the salt:
left-over bytes of another journal, or of another place in this one, are not records. A crash may
tear the tail off; replay ends before the first record that is not whole.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from collections.abc import Mapping

from attrs import field, frozen

from swarm.errors import Malformed
from swarm.model.digest import Digest
from swarm.model.grains import Grains

MAGIC = b"SWPJ\x01\x00\x00\x00"
SALT_LENGTH = 16
_CHECK = 8
_HEAD = struct.Struct(f">8s64sQI{SALT_LENGTH}s")
_BODY = struct.Struct(">BI64s64s")
_NUMBER = struct.Struct(">Q")
_UNMARK, _MARK = 0, 1
_NOTHING = bytes(64)

HEADER_LENGTH = _HEAD.size + _CHECK
RECORD_LENGTH = _BODY.size + _CHECK


@frozen
class Mark:
    """A grain verified: hashing it from ``start`` ends in ``end``; no start means its plain SHA-512."""

    start: bytes | None = field(repr=False)
    end: bytes = field(repr=False)


@frozen
class Header:
    """Whose journal it is."""

    digest: Digest
    grains: Grains
    salt: bytes = field(repr=False)

    def encode(self) -> bytes:
        """The first :data:`HEADER_LENGTH` bytes of the file."""
        head = _HEAD.pack(MAGIC, self.digest.raw, self.grains.size, self.grains.grain, self.salt)
        return head + _check(b"", head)

    @classmethod
    def decode(cls, data: bytes) -> Header:
        """
        Read a journal's beginning; what follows the header is ignored.

        :raises Malformed: torn, damaged, another version, or a grain that does not follow from the size.
        """
        head, check = data[: _HEAD.size], data[_HEAD.size : HEADER_LENGTH]
        if not hmac.compare_digest(check, _check(b"", head)):
            raise Malformed("a torn or damaged journal header")
        magic, digest, size, grain, salt = _HEAD.unpack(head)
        if magic != MAGIC:
            raise Malformed("not a journal of version 1")
        grains = Grains.of(size)
        if grain != grains.grain:
            raise Malformed("a journal whose grain does not follow from its size")
        return cls(Digest(digest), grains, salt)

    def record(self, number: int, index: int, mark: Mark | None) -> bytes:
        """
        Encode the journal's ``number``-th record, counted from 0.

        :param mark: None takes an earlier mark of grain ``index`` back.
        """
        if mark is None:
            body = _BODY.pack(_UNMARK, index, _NOTHING, _NOTHING)
        else:
            body = _BODY.pack(_MARK, index, mark.start or _NOTHING, mark.end)
        return body + _check(self.salt, _NUMBER.pack(number) + body)

    def replay(self, data: bytes) -> Replay:
        """Read the records that follow the header, up to the first that is not whole. Never fails."""
        marks: dict[int, Mark] = {}
        number = 0
        for at in range(0, len(data) - RECORD_LENGTH + 1, RECORD_LENGTH):
            body = data[at : at + _BODY.size]
            check = data[at + _BODY.size : at + RECORD_LENGTH]
            if not hmac.compare_digest(check, _check(self.salt, _NUMBER.pack(number) + body)):
                break
            kind, index, start, end = _BODY.unpack(body)
            if kind == _MARK:
                marks[index] = Mark(None if start == _NOTHING else start, end)
            else:
                marks.pop(index, None)
            number += 1
        return Replay(marks, number)


@frozen
class Replay:
    """What a journal still says: the marks in force, and how many records they came from."""

    marks: Mapping[int, Mark]
    records: int


def _check(key: bytes, data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=_CHECK, key=key).digest()

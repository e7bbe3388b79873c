"""SHA-512's chaining values at grain boundaries: what lets one grain be verified alone.

The list holds the values at the *inner* boundaries only. The value before the first
grain is SHA-512's IV and the one after the last is the blob's id, so neither is stored.
Whether a list is to be believed is ``swarm.core.trust``'s decision.

Bytes, on disk and on the wire, the same on every honest node::

    "SWMS" 0x01 0x00 0x00 0x00 | size u64 | grain u32 | count u32 | count x 64 bytes    (big endian)
"""

from __future__ import annotations

import struct

from attrs import field, frozen

from swarm.errors import Malformed
from swarm.model.grains import Grains

MAGIC = b"SWMS\x01\x00\x00\x00"
_HEAD = struct.Struct(">8sQII")

#: SHA-512's initial hash value (FIPS 180-4 section 5.3.5), big endian words.
IV = bytes.fromhex(
    "6a09e667f3bcc908bb67ae8584caa73b3c6ef372fe94f82ba54ff53a5f1d36f1"
    "510e527fade682d19b05688c2b3e6c1f1f83d9abfb41bd6b5be0cd19137e2179"
)


@frozen
class Midstates:
    """The claimed chaining values of one blob, at the grain all nodes use for its size."""

    grains: Grains
    inner: bytes = field(repr=False)

    def __attrs_post_init__(self) -> None:
        assert len(self.inner) == 64 * (self.grains.count - 1)

    def before(self, index: int) -> bytes:
        """The chaining value that grain ``index`` starts from."""
        return IV if index == 0 else self.inner[64 * (index - 1) : 64 * index]

    def after(self, index: int, final: bytes) -> bytes:
        """What grain ``index`` must end in; ``final`` (the blob's id) after the last one."""
        return final if index == self.grains.last else self.inner[64 * index : 64 * (index + 1)]

    def encode(self) -> bytes:
        """The bytes to store or send."""
        grains = self.grains
        return _HEAD.pack(MAGIC, grains.size, grains.grain, grains.count - 1) + self.inner

    @classmethod
    def decode(cls, data: bytes) -> Midstates:
        """
        Read what :meth:`encode` wrote.

        :raises Malformed: another format, a grain that does not follow from the size, a
            list of the wrong length.
        """
        if len(data) < _HEAD.size:
            raise Malformed("a midstate list of fewer than 24 bytes")
        magic, size, grain, count = _HEAD.unpack_from(data)
        if magic != MAGIC:
            raise Malformed("not a midstate list of version 1")
        grains = Grains.of(size)
        if grain != grains.grain or count != grains.count - 1:
            raise Malformed("a midstate list whose grain does not follow from its size")
        if len(data) != _HEAD.size + 64 * count:
            raise Malformed("a midstate list of the wrong length")
        return cls(grains, data[_HEAD.size :])


def encoded_length(size: int) -> int:
    """Bytes of the encoded list for a blob of ``size`` bytes: a reader's exact limit."""
    return _HEAD.size + 64 * (Grains.of(size).count - 1)

"""The name of a blob: its SHA-512.

Parsed once at the edge; below it no bare string is ever taken for an id.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re

from attrs import field, frozen

from swarm.errors import Malformed

_HEX = re.compile(r"[0-9a-fA-F]{128}", re.ASCII)
_FIELD_MEMBER = re.compile(r"sha-512=:([A-Za-z0-9+/=]+):", re.ASCII)


@frozen(order=True)
class Digest:
    """64 bytes: the SHA-512 of a blob."""

    raw: bytes = field(repr=lambda raw: raw.hex()[:12])

    def __attrs_post_init__(self) -> None:
        assert len(self.raw) == 64, "a SHA-512 has 64 bytes"

    @classmethod
    def parse(cls, text: str) -> Digest:
        """
        Read 128 hex digits, upper or lower case.

        :raises Malformed: anything else.
        """
        if not _HEX.fullmatch(text):
            raise Malformed("an id is 128 hexadecimal digits")
        return cls(bytes.fromhex(text))

    @classmethod
    def of(cls, data: bytes) -> Digest:
        """Hash bytes in memory."""
        return cls(hashlib.sha512(data).digest())

    @classmethod
    def from_base64url(cls, text: str) -> Digest:
        """
        Read the digest of an RFC 6920 name: base64url without padding.

        :raises Malformed: anything else.
        """
        try:
            raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError) as e:
            raise Malformed("not base64url") from e
        if len(raw) != 64:
            raise Malformed("a SHA-512 has 64 bytes")
        return cls(raw)

    @classmethod
    def from_digest_field(cls, value: str) -> Digest | None:
        """
        Find ``sha-512`` in a ``Repr-Digest`` or ``Content-Digest`` field (RFC 9530).

        :return: None when the field names only other algorithms, which RFC 9530 section 2
            lets a recipient ignore.
        :raises Malformed: a ``sha-512`` member that is not a byte sequence of 64 bytes.
        """
        for member in value.split(","):
            name, _, _ = member.strip().partition("=")
            if name.lower() != "sha-512":
                continue
            match = _FIELD_MEMBER.fullmatch(member.strip().replace("SHA-512", "sha-512", 1))
            if match is None:
                raise Malformed("sha-512 in a digest field must be :base64:")
            try:
                raw = base64.b64decode(match[1], validate=True)
            except (binascii.Error, ValueError) as e:
                raise Malformed("sha-512 in a digest field is not base64") from e
            if len(raw) != 64:
                raise Malformed("sha-512 in a digest field must have 64 bytes")
            return cls(raw)
        return None

    @property
    def hex(self) -> str:
        """128 lower-case hex digits."""
        return self.raw.hex()

    @property
    def short(self) -> str:
        """Twelve hex digits, for logs and people."""
        return self.raw.hex()[:12]

    @property
    def etag(self) -> str:
        """The strong entity tag of the blob."""
        return f'"{self.hex}"'

    @property
    def repr_digest(self) -> str:
        """The value of ``Repr-Digest`` (RFC 9530)."""
        return f"sha-512=:{base64.b64encode(self.raw).decode()}:"

    @property
    def base64url(self) -> str:
        """The digest part of an RFC 6920 name."""
        return base64.urlsafe_b64encode(self.raw).rstrip(b"=").decode()

    def __str__(self) -> str:
        return self.hex

"""Who a node is and where it may be found.

An identity is the SHA-256 of a key (SPKI): it survives the renewal of a certificate.
An address is only a hint; who answers there is checked by ``swarm.peering``.
"""

from __future__ import annotations

import ipaddress
import re
import unicodedata

from attrs import field, frozen

from swarm.errors import Malformed

_PORT = re.compile(r"\d{1,9}", re.ASCII)
_SCOPE = re.compile(r"[A-Za-z0-9_.~-]{1,32}", re.ASCII)
_HEX = re.compile(r"[0-9a-fA-F]{64}", re.ASCII)
_HOST = re.compile(
    r"(?=.{1,253}\Z)[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?(\.[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?)*",
    re.ASCII,
)
_NAME = re.compile(r"[^\x00-\x20\x7f/\\\"'<>&,;]{1,64}")


@frozen(order=True, cache_hash=True)
class PeerID:
    """SHA-256 of a node's public key (SubjectPublicKeyInfo, DER)."""

    raw: bytes = field(repr=lambda raw: raw.hex()[:12])

    def __attrs_post_init__(self) -> None:
        assert len(self.raw) == 32, "a SHA-256 has 32 bytes"

    @classmethod
    def parse(cls, text: str) -> PeerID:
        """
        Read 64 hex digits.

        :raises Malformed: anything else.
        """
        if not _HEX.fullmatch(text):
            raise Malformed("a key's SHA-256 is 64 hexadecimal digits")
        return cls(bytes.fromhex(text))

    @property
    def hex(self) -> str:
        """64 lower-case hex digits."""
        return self.raw.hex()

    @property
    def short(self) -> str:
        """Twelve hex digits, for logs and people."""
        return self.raw.hex()[:12]

    def __str__(self) -> str:
        return self.hex


@frozen(order=True, cache_hash=True)  # a key of nearly every table of peers
class Address:
    """``host:port`` of a node; ``[v6]:port`` for IPv6."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Address:
        """
        Read ``host:port`` or ``[v6]:port``.

        :raises Malformed: no port, a port out of 1–65535, a host that is neither a name nor an IP.
        """
        host, colon, port = text.strip().rpartition(":")
        if not colon or not _PORT.fullmatch(port) or not 1 <= int(port) <= 65535:
            raise Malformed(f"an address is HOST:PORT, not {text[:80]!r}")
        if host.startswith("[") and host.endswith("]"):
            try:
                ip = ipaddress.IPv6Address(host[1:-1])
                if ip.scope_id is not None and not _SCOPE.fullmatch(ip.scope_id):
                    raise ValueError("a zone is the name of a network interface")  # ipaddress takes any text
                return cls(str(ip), int(port))
            except ValueError as e:
                raise Malformed(f"not an IPv6 address: {text[:80]!r}") from e
        if not _HOST.fullmatch(host):
            raise Malformed(f"not a host name: {host[:80]!r}")
        return cls(host.lower(), int(port))

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@frozen(order=True)
class Peer:
    """A node as others know it: proven identity, claimed name, where to dial it."""

    id: PeerID
    name: str
    address: Address
    public_url: str = ""


def parse_node_name(text: str) -> str:
    """
    Check a node's name: 1–64 visible characters that need no quoting anywhere.

    :raises Malformed: anything else.
    """
    # Categories C and Z: control, invisible, direction-changing, and every kind of blank.
    if not _NAME.fullmatch(text) or any(unicodedata.category(char)[0] in "CZ" for char in text):
        raise Malformed("a node's name is 1–64 visible characters without quotes, commas, slashes or blanks")
    return text

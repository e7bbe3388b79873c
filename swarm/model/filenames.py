"""Names that people give to blobs: safe by construction.

CONTRACT: the last path segment after one percent-decoding, NFC, no control characters,
no ``/``, not ``.``/``..``, at most 255 bytes; stored as given, never lower-cased.
"""

from __future__ import annotations

import re
import unicodedata
from urllib.parse import quote, unquote_to_bytes

from attrs import frozen

from swarm.errors import Malformed

#: The categories Cc, Cs, Zl and Zp, all of them; Unicode gives no further characters to any.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")

RESERVED = frozenset(
    ["health", "health.html", "ready", "metrics", "refreshpeers.html", "fs", "find", ".well-known"]
)


@frozen(order=True)
class Filename:
    """One path segment a file may be called by."""

    text: str

    @classmethod
    def parse(cls, text: str) -> Filename:
        """
        Check a decoded name.

        :raises Malformed: see the module's docstring.
        """
        name = unicodedata.normalize("NFC", text)
        if name in ("", ".", ".."):
            raise Malformed("a file needs a name")
        if "/" in name:
            raise Malformed("a file name holds no slash")
        if _CONTROL.search(name):
            raise Malformed("a file name holds no control characters")
        if len(name.encode()) > 255:
            raise Malformed("a file name has at most 255 bytes")
        return cls(name)

    @classmethod
    def from_path(cls, path: bytes) -> Filename:
        """
        Take the last segment of a request path as it came over the wire.

        :raises Malformed: not UTF-8, or see the module's docstring.
        """
        segment = path.rpartition(b"/")[2]
        try:
            return cls.parse(unquote_to_bytes(segment).decode("utf-8"))
        except UnicodeDecodeError as e:
            raise Malformed("a file name is UTF-8") from e

    @property
    def reserved(self) -> bool:
        """Is this the first segment of one of our own routes?"""
        return self.text in RESERVED

    @property
    def content_disposition(self) -> str:
        """The value of ``Content-Disposition``: RFC 6266 with RFC 8187 for what ASCII cannot say."""
        plain = "".join(c if " " <= c < "\x7f" and c not in '"\\%' else "_" for c in self.text)
        head = f'attachment; filename="{plain}"'
        return head if plain == self.text else f"{head}; filename*=UTF-8''{quote(self.text, safe='')}"

"""What peers were sent of blobs, as the network sees it: which bytes of which blob came when, and to whom.

Listens on connections to peer ports, not on TLS. Shares no code with the node's own client: a node that
counts wrongly is found out.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable

from attrs import define, field

_ASKED = re.compile(rb"([A-Z]+) (?:/blobs/([0-9a-f]{128}))?(\S*) HTTP/1.1\r\n")
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_FROM = re.compile(rb"\r\ncontent-range: *bytes (\d+)-", re.IGNORECASE)


@define(eq=False)
class Wiretap:
    """
    I listen on one connection, from the end that asks.

    :ivar came: told of bytes of a blob: its id, from where, to where.
    """

    came: Callable[[str, int, int], None]
    _asked: deque[tuple[bytes, str | None]] = field(factory=deque, init=False)
    _out: bytes = field(default=b"", init=False)
    _out_body: int = field(default=0, init=False)
    _in: bytes = field(default=b"", init=False)
    _in_body: int = field(default=0, init=False)
    _of: str | None = field(default=None, init=False)
    _at: int = field(default=0, init=False)
    _deaf: bool = field(default=False, init=False)

    def sent(self, data: bytes) -> None:
        """The asking end wrote this."""
        while data or self._out:
            if self._out_body:
                skipped = min(len(data), self._out_body)
                self._out_body -= skipped
                data = data[skipped:]
                if not data:
                    return
            head, end, rest = (self._out + data).partition(b"\r\n\r\n")
            if not end:
                self._out = head
                return
            self._out, data = b"", rest
            match, length = _ASKED.match(head + b"\r\n"), _LENGTH.search(head)
            plain = match is not None and match[2] is not None and not match[3]
            digest = match[2].decode() if match is not None and plain else None
            self._asked.append((match[1] if match is not None else b"", digest))
            self._out_body = int(length[1]) if length is not None else 0

    def received(self, data: bytes) -> None:
        """The other end's bytes, as they are read."""
        while data and not self._deaf:
            if self._in_body:
                count = min(len(data), self._in_body)
                if self._of is not None:
                    self.came(self._of, self._at, self._at + count)
                self._at += count
                self._in_body -= count
                data = data[count:]
                continue
            head, end, rest = (self._in + data).partition(b"\r\n\r\n")
            if not end:
                self._in = head
                return
            self._in, data = b"", rest
            self._head(head)

    def _head(self, head: bytes) -> None:
        status = head[9:12]
        if status.startswith(b"1"):
            return
        method, digest = self._asked.popleft() if self._asked else (b"", None)
        length, start = _LENGTH.search(head), _FROM.search(head)
        if method == b"HEAD" or status in (b"204", b"304"):
            return
        self._deaf = length is None  # until it ends, or in chunks: no peer sends blobs so
        self._in_body = int(length[1]) if length is not None else 0
        self._of = digest if method == b"GET" and status in (b"200", b"206") else None
        self._at = int(start[1]) if start is not None else 0

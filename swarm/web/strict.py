"""Which request heads are believed: the request-smuggling corpus decided (RELIABILITY C.1).

Twisted checks header syntax; what it lets through and two parsers might read differently is
refused here. Every refusal is 400 and ends the connection. Nothing here does I/O.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from attrs import frozen
from twisted.web.http_headers import Headers

from swarm.errors import Malformed

_HOST = re.compile(rb"[A-Za-z0-9._~%!$&'()*+,;=:\[\]-]+")
_TRAILER = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t\x20-\x7e\x80-\xff]*")
_CONTROL = re.compile(rb"[\x00-\x1f\x7f]")
_ABSOLUTE = re.compile(rb"https?://([^/?#]*)(.*)", re.IGNORECASE)
_MAX_LENGTH = 2**63 - 1


@frozen
class RequestLine:
    """A request line whose parts are safe to act on; ``path`` and ``query`` as they came, undecoded."""

    method: bytes
    path: bytes
    query: bytes
    version: bytes

    @property
    def uri(self) -> bytes:
        """Path and query as one."""
        return self.path + b"?" + self.query if self.query else self.path


def check_head(line: bytes, headers: Headers, length: int | None) -> RequestLine:
    """
    Judge a whole head.

    :param line: the request line without its CRLF.
    :param length: the declared length of the body, None when it is chunked.
    :raises Malformed: it is ambiguous or not HTTP/1.0 or 1.1.
    """
    try:
        method, target, version = line.split(b" ")
    except ValueError as e:
        raise Malformed("a request line has three parts") from e
    if version not in (b"HTTP/1.0", b"HTTP/1.1"):
        raise Malformed("HTTP/1.0 or HTTP/1.1 is spoken here")
    if length is not None and length > _MAX_LENGTH:
        raise Malformed("an impossible Content-Length")
    _check_coding(headers, version)
    target = _origin_form(method, target, _check_host(headers, version))
    path, _, query = target.partition(b"?")
    return RequestLine(method, path, query, version)


def _check_coding(headers: Headers, version: bytes) -> None:
    codings = headers.getRawHeaders(b"Transfer-Encoding")
    if codings is None:
        return
    if version != b"HTTP/1.1":
        raise Malformed("HTTP/1.0 has no Transfer-Encoding")
    if headers.hasHeader(b"Content-Length"):
        raise Malformed("Content-Length beside Transfer-Encoding")
    if len(codings) != 1 or codings[0].lower() != b"chunked":
        raise Malformed("the only Transfer-Encoding is chunked")


def check_trailers(lines: Iterable[bytes]) -> None:
    """
    Judge what follows the last chunk of a body. It is thrown away, but must be fields: who takes LF for the
    end of a line would see another end of the body, and a request in the rest.

    :raises Malformed: a line that is no field.
    """
    if not all(map(_TRAILER.fullmatch, lines)):
        raise Malformed("a trailer is a field")


def is_host(value: bytes) -> bool:
    """Is this a ``Host`` that names something?"""
    return _HOST.fullmatch(value) is not None


def _check_host(headers: Headers, version: bytes) -> bytes:
    hosts = headers.getRawHeaders(b"Host") or []
    if len(hosts) > 1 or (not hosts and version == b"HTTP/1.1"):
        raise Malformed("a request names exactly one Host")
    host = hosts[0] if hosts else b""
    if host and not is_host(host):
        raise Malformed("not a Host")
    return host


def _origin_form(method: bytes, target: bytes, host: bytes) -> bytes:
    if _CONTROL.search(target):
        raise Malformed("a request target has no control characters")
    if b"#" in target:
        raise Malformed("a request target has no fragment")
    if target.startswith(b"/") or (target == b"*" and method == b"OPTIONS"):
        return target
    absolute = _ABSOLUTE.fullmatch(target)
    if absolute is None:
        raise Malformed("not a request target")
    if absolute[1].lower() != host.lower():
        raise Malformed("a request target at another authority than Host")
    rest = absolute[2]
    return rest if rest.startswith(b"/") else b"/" + rest

"""The response fields of a blob, and what a browser may do with it."""

from __future__ import annotations

import mimetypes
from typing import TYPE_CHECKING
from urllib.parse import quote

from swarm.interfaces import BlobInfo
from swarm.model.filenames import Filename

if TYPE_CHECKING:
    from collections.abc import Sequence

    from swarm.web.request import StreamingRequest

UNKNOWN = "application/octet-stream"
IMMUTABLE = "public, max-age=31536000, immutable"

# Python's own table, not the machine's: every node answers the same.
_TYPES = mimetypes.MimeTypes()
for _suffix, _type in {
    ".flac": "audio/flac",
    ".js": "text/javascript",
    ".mjs": "text/javascript",
    ".ico": "image/vnd.microsoft.icon",
    ".mkv": "video/x-matroska",
    ".md": "text/markdown",
    ".meta4": "application/metalink4+xml",
    ".ogg": "audio/ogg",
    ".opus": "audio/ogg",
    ".webp": "image/webp",
    ".woff2": "font/woff2",
    ".xhtml": "application/xhtml+xml",
}.items():
    _TYPES.add_type(_type, _suffix)
_CODED = {"gzip": "application/gzip", "bzip2": "application/x-bzip2", "xz": "application/x-xz"}
#: Types a browser runs script from.
_ACTIVE = frozenset(["text/html", "text/xml", "application/xml", "text/javascript"])


def content_type(name: Filename | None) -> str:
    """The media type of a name's extension."""
    if name is None:
        return UNKNOWN
    kind, coding = _TYPES.guess_type("x." + name.text.rpartition(".")[2] if "." in name.text else "x")
    if coding is not None:
        return _CODED.get(coding, UNKNOWN)
    return kind or UNKNOWN


def is_active(kind: str) -> bool:
    """May a document of this type run script in the origin it came from?"""
    return kind in _ACTIVE or kind.endswith("+xml")


def blob_fields(info: BlobInfo, mirrors: Sequence[str]) -> list[tuple[str, str]]:
    """
    Say what every answer with a blob's bytes carries, in this order.

    :param mirrors: public URLs of other nodes; each serves every blob of the swarm, so each is a
        duplicate in the sense of RFC 6249 whether or not it holds a copy now.
    """
    kind = content_type(info.filename)
    fields = [
        ("ETag", info.digest.etag),
        ("Accept-Ranges", "bytes"),
        ("Repr-Digest", info.digest.repr_digest),
        ("Cache-Control", IMMUTABLE),
        ("X-Content-Type-Options", "nosniff"),
        ("Referrer-Policy", "no-referrer"),  # an id in a Referer would give the blob away
        ("Content-Type", kind),
    ]
    if info.filename is not None:
        fields.append(("Content-Disposition", info.filename.content_disposition))
    if is_active(kind):
        fields.append(("Content-Security-Policy", "sandbox"))
    for priority, url in enumerate(mirrors, 1):
        fields.append(("Link", f"<{url}/{info.digest.hex}>; rel=duplicate; pri={priority}"))
    if mirrors:
        link = f'</{quote(info.digest.hex)}.meta4>; rel=describedby; type="application/metalink4+xml"'
        fields.append(("Link", link))
    return fields


def set_blob_fields(request: StreamingRequest, info: BlobInfo, mirrors: Sequence[str]) -> None:
    """Set :func:`blob_fields` on an answer, which may have those of an earlier try."""
    fields = blob_fields(info, mirrors)
    for name, _ in fields:
        request.responseHeaders.removeHeader(name)
    for name, value in fields:
        request.responseHeaders.addRawHeader(name, value)

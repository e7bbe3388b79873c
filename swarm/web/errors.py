"""The one table from what went wrong to an HTTP status, and the body that says so.

An error nobody foresaw is 500: logged whole here, told to the client as nothing but "internal error". A disk
that failed is 500, too, and foreseen: that is one line.
"""

from __future__ import annotations

import html
import json
import re
from http import HTTPStatus
from typing import TYPE_CHECKING

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http_headers import Headers
from werkzeug.exceptions import HTTPException, MethodNotAllowed

from swarm import errors

if TYPE_CHECKING:
    from swarm.web.request import StreamingRequest

log = Logger()
_SHOWN = 32  # an id is a capability: never whole in a log


class Refusal(errors.LocalError):
    """A refusal that only HTTP knows (401, 405, 413…); everything else is raised as what it is."""

    def __init__(self, status: int, detail: str, *fields: tuple[str, str]) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.fields = fields


@frozen
class Trouble:
    """What the client is told."""

    status: int
    detail: str
    fields: tuple[tuple[str, str], ...] = ()

    @property
    def title(self) -> str:
        """The status in words."""
        return HTTPStatus(self.status).phrase


#: The first class that matches decides.
_STATUS: tuple[tuple[type[Exception], int], ...] = (
    (errors.BlobMissing, 404),
    (errors.BlobForbidden, 403),
    (errors.MethodDenied, 403),
    (errors.DigestMismatch, 422),
    (errors.LengthMismatch, 400),
    (errors.StorageFull, 507),
    (errors.VolumeReadOnly, 503),
    (errors.StoreFailed, 500),
    (errors.Overloaded, 503),
    (errors.PullFailed, 502),
    (errors.PeerError, 502),
    (errors.Malformed, 400),
)


def trouble_of(error: BaseException | None) -> Trouble:
    """Look an error up; what is not in the table is 500 with no detail."""
    if isinstance(error, Refusal):
        return Trouble(error.status, error.detail, error.fields)
    if isinstance(error, errors.BlobMissing):
        # Not its own text: an operator's 404 marker must read like any other absence.
        return Trouble(404, "no such blob")
    if isinstance(error, errors.Overloaded):
        return Trouble(503, str(error), (("Retry-After", str(error.retry_after)),))
    if isinstance(error, errors.VolumeReadOnly):
        return Trouble(503, str(error), (("Retry-After", "300"),))
    for kind, status in _STATUS:
        if isinstance(error, kind):
            return Trouble(status, str(error))
    if isinstance(error, MethodNotAllowed):
        allow = ", ".join(sorted(error.valid_methods or ()))
        return Trouble(405, "this path has other methods", (("Allow", allow),))
    if isinstance(error, HTTPException):
        return Trouble(404, "no such path")  # routing knows nothing but this and 405
    return Trouble(500, "internal error")


def prefers_html(accept: str) -> bool:
    """Does an ``Accept`` field like HTML better than JSON? Browsers' do; ``*/*`` does not."""
    return _quality(accept, "text", "html") > _quality(accept, "application", "json")


def _quality(accept: str, kind: str, subtype: str) -> float:
    best, exact = 0.0, -1
    for item in accept.split(","):
        media, _, parameters = item.strip().partition(";")
        media = media.strip().lower()
        names = (f"{kind}/{subtype}", f"{kind}/*", "*/*")
        if media not in names:
            continue
        match = re.search(r"(?:^|;)\s*q=([01](?:\.\d{0,3})?)\s*(?:;|$)", parameters)
        rank = len(names) - names.index(media)
        if rank > exact:
            best, exact = float(match[1]) if match else 1.0, rank
    return best


def error_body(trouble: Trouble, as_html: bool) -> tuple[str, bytes]:
    """``(content type, bytes)`` of an answer that says what is wrong."""
    if as_html:
        title, detail = html.escape(trouble.title), html.escape(trouble.detail)
        page = f"<!doctype html><title>{trouble.status} {title}</title><h1>{title}</h1><p>{detail}</p>\n"
        return "text/html; charset=utf-8", page.encode()
    return "application/json", (
        json.dumps({"error": trouble.title, "detail": trouble.detail}) + "\n"
    ).encode()


def answer_error(request: StreamingRequest, failure: Failure) -> Deferred[None] | None:
    """
    End ``request`` with what ``failure`` becomes.

    A response already begun cannot be taken back: its connection is aborted.

    :return: None once answered. After an abort, something to await or to return from a Klein
        handler, canceled with the connection, so that nobody finishes the response as if it were whole.
    """
    trouble = trouble_of(failure.value)
    if request.startedWriting:
        path = request.path[:_SHOWN].decode("ascii", "replace")
        if isinstance(failure.value, errors.SwarmError):
            log.warn("{path} broke off: {error}", path=path, error=failure.value)
        else:
            log.failure("{path} broke off", failure, path=path)
        if request.channel is not None:
            request.transport.abortConnection()
        return Deferred()
    if trouble.status == 500:
        _log(request, failure)
    keep = {name: request.responseHeaders.getRawHeaders(name) for name in (b"Connection", b"Date")}
    request.responseHeaders = Headers({name: values for name, values in keep.items() if values})
    accept = ",".join(request.requestHeaders.getRawHeaders("Accept") or [])
    content_type, body = error_body(trouble, prefers_html(accept))
    request.setResponseCode(trouble.status, trouble.title.encode())
    for name, value in trouble.fields:
        request.setHeader(name, value)
    request.setHeader("Content-Type", content_type)
    request.setHeader("Content-Length", str(len(body)))
    request.setHeader("X-Content-Type-Options", "nosniff")
    request.setHeader("Content-Security-Policy", "default-src 'none'; sandbox")
    request.setHeader("Cache-Control", "no-store")
    request.write(body)
    request.finish()
    return None


def _log(request: StreamingRequest, failure: Failure) -> None:
    method, path = (each[:_SHOWN].decode("ascii", "replace") for each in (request.method, request.path))
    if isinstance(failure.value, errors.SwarmError):
        log.error("answering {method} {path}: {error}", method=method, path=path, error=failure.value)
    else:
        log.failure("answering {method} {path}", failure, method=method, path=path)

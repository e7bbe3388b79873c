"""The table from errors to statuses, and who gets HTML."""

from __future__ import annotations

import inspect
import json

import pytest

from swarm import errors
from swarm.errors import Fault
from swarm.model.digest import Digest
from swarm.web.errors import Refusal, Trouble, error_body, prefers_html, trouble_of

ID = Digest.of(b"x")

TABLE = [
    (errors.BlobMissing(ID), 404),
    (errors.BlobForbidden(ID), 403),
    (errors.MethodDenied("put"), 403),
    (errors.Malformed("no"), 400),
    (errors.DigestMismatch(ID.hex, ID.hex), 422),
    (errors.LengthMismatch("short"), 400),
    (errors.StorageFull("full"), 507),
    (errors.VolumeReadOnly("EIO"), 503),
    (errors.StoreFailed("EIO"), 500),
    (errors.Overloaded("busy"), 503),
    (errors.PullFailed(ID, ()), 502),
    (errors.PeerError(None, Fault.SILENT), 502),
    (errors.IdentityError("/etc/key", "unreadable"), 500),
    (errors.LocalError("other"), 500),
    (Refusal(418, "teapot"), 418),
    (RuntimeError("bug"), 500),
]


@pytest.mark.parametrize("error, status", TABLE, ids=lambda each: type(each).__name__)
def test_every_error_has_its_status(error: Exception, status: int) -> None:
    assert trouble_of(error).status == status


def test_every_error_of_ours_is_in_this_test() -> None:
    ours = {
        cls for _, cls in inspect.getmembers(errors, inspect.isclass) if issubclass(cls, errors.SwarmError)
    }
    assert ours - {errors.SwarmError} <= {type(error) for error, _ in TABLE}


@pytest.mark.parametrize("error", [RuntimeError("/etc/key"), errors.IdentityError("/etc/key", "unreadable")])
def test_what_nobody_foresaw_is_not_told(error: Exception) -> None:
    assert trouble_of(error) == Trouble(500, "internal error")


def test_reasons_for_absence_read_alike() -> None:
    assert trouble_of(errors.BlobMissing(ID, "marked missing")) == trouble_of(errors.BlobMissing(ID))


@pytest.mark.parametrize(
    "accept, html",
    [
        ("", False),
        ("*/*", False),
        ("text/html", True),
        ("text/html;q=0.5, application/json", False),
        ("text/html, application/json;q=0.9", True),
        ("application/json", False),
        ("text/*", True),
        ("text/html;level=1;q=0.2, */*;q=0.1", True),
        ("text/html;q=0, */*", False),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", True),
        ("TEXT/HTML", True),
        ("nonsense;;;q=", False),
    ],
)
def test_html_is_for_who_likes_it_better(accept: str, html: bool) -> None:
    assert prefers_html(accept) is html


def test_details_are_escaped_in_html_and_json() -> None:
    trouble = Trouble(404, '<img onerror="x">&')
    kind, page = error_body(trouble, as_html=True)
    assert kind.startswith("text/html") and b"<img" not in page and b"&lt;img" in page
    kind, document = error_body(trouble, as_html=False)
    assert json.loads(document) == {"error": "Not Found", "detail": '<img onerror="x">&'}

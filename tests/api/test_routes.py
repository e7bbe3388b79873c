"""The route inventory: every route with every method, and what CONTRACT's table says it answers."""

from __future__ import annotations

import json

import pytest

from swarm.api.app import SCOPES, PublicAPI
from swarm.model.digest import Digest

from .node import Node

BLOB = b"the quick brown fox" * 1000
ID = Digest.of(BLOB)
OTHER = Digest.of(b"another")
METHODS = ("GET", "HEAD", "PUT", "POST", "DELETE", "PATCH", "OPTIONS")

# path: (expected status per method in METHODS, Allow of the 405s)
INVENTORY = {
    f"/{ID}": ((200, 200, 422, 405, 200, 405, 405), "DELETE, GET, HEAD, PUT"),
    f"/{ID.hex.upper()}": ((200, 200, 422, 405, 200, 405, 405), "DELETE, GET, HEAD, PUT"),
    f"/{OTHER}": ((404, 404, 422, 405, 404, 405, 405), "DELETE, GET, HEAD, PUT"),
    f"/{ID}/nopeerload": ((200, 200, 405, 405, 405, 405, 405), "GET, HEAD"),
    f"/{OTHER}/nopeerload": ((404, 404, 405, 405, 405, 405, 405), "GET, HEAD"),
    f"/{ID}/allpeers": ((405, 405, 405, 405, 200, 405, 405), "DELETE"),
    f"/{ID}/ffmetadata": ((501, 501, 405, 405, 405, 405, 405), "GET, HEAD"),
    f"/{ID}/locations": ((200, 200, 405, 405, 405, 405, 405), "GET, HEAD"),
    f"/{OTHER}/locations": ((404, 404, 405, 405, 405, 405, 405), "GET, HEAD"),
    f"/{ID}.meta4": ((200, 200, 201, 405, 405, 405, 405), "GET, HEAD, PUT"),
    f"/.well-known/ni/sha-512/{ID.base64url}": ((307, 307, 405, 405, 405, 405, 405), "GET, HEAD"),
    "/.well-known/ni/sha-512/nonsense": ((400, 400, 405, 405, 405, 405, 405), "GET, HEAD"),
    "/.well-known/ni/sha-256/nonsense": ((404,) * 7, ""),
    "/.well-known": ((404, 404, 409, 405, 405, 405, 405), "GET, HEAD"),
    "/health": ((200, 200, 409, 405, 405, 405, 405), "GET, HEAD"),
    "/%68ealth": ((404, 404, 409, 405, 405, 405, 405), "GET, HEAD"),
    "/health.html": ((200, 200, 409, 405, 405, 405, 405), "GET, HEAD"),
    "/health/": ((404,) * 7, ""),
    "/ready": ((200, 200, 409, 405, 405, 405, 405), "GET, HEAD"),
    "/metrics": ((200, 200, 409, 405, 405, 405, 405), "GET, HEAD"),
    "/refreshpeers.html": ((405, 405, 200, 405, 405, 405, 405), "PUT"),
    "/fs": ((404, 404, 409, 405, 405, 405, 405), "GET, HEAD"),
    "/find": ((404, 404, 409, 405, 405, 405, 405), "GET, HEAD"),
    "/photo.jpg": ((404, 404, 201, 405, 405, 405, 405), "GET, HEAD, PUT"),
    "/a%2Fb": ((404, 404, 400, 405, 405, 405, 405), "GET, HEAD, PUT"),
    "/..": ((404, 404, 400, 405, 405, 405, 405), "GET, HEAD, PUT"),
    "/%2e%2e": ((404, 404, 400, 405, 405, 405, 405), "GET, HEAD, PUT"),
    "/%00": ((404, 404, 400, 405, 405, 405, 405), "GET, HEAD, PUT"),
    "/%FF": ((404, 404, 400, 405, 405, 405, 405), "GET, HEAD, PUT"),
    "/" + "x" * 256: ((404, 404, 400, 405, 405, 405, 405), "GET, HEAD, PUT"),
    "/": ((404,) * 7, ""),
    "//health": ((404,) * 7, ""),
    "/a/b": ((404,) * 7, ""),
    f"/{ID}/": ((404,) * 7, ""),
    f"/{ID}/nopeerload/x": ((404,) * 7, ""),
}


@pytest.mark.parametrize("path", INVENTORY)
def test_every_route_answers_every_method_as_written(path: str) -> None:
    expected, allow = INVENTORY[path]
    found = []
    for method in METHODS:
        node = Node(program="no-such-program")
        node.store.put(BLOB, "fox.txt")
        body = b"some bytes" if method in ("PUT", "POST", "PATCH") else None
        response = node.ask(method, path, body=body)
        found.append(response.status)
        assert response.fields["x-content-type-options"] == "nosniff"
        if response.status == 405:
            assert response.fields["allow"] == allow
        if response.status >= 400 and method != "HEAD":
            assert set(json.loads(response.body)) == {"error", "detail"}
    assert dict(zip(METHODS, found, strict=True)) == dict(zip(METHODS, expected, strict=True))


def test_every_route_says_what_it_asks_of_a_client() -> None:
    assert {rule.endpoint for rule in PublicAPI.app.url_map.iter_rules()} == set(SCOPES)


@pytest.mark.parametrize("path", ["/nothing/at/all", f"/{OTHER}", "/photo.jpg"])
def test_errors_are_html_for_who_prefers_it(path: str) -> None:
    browser = "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
    response = Node().ask("GET", path, browser)
    assert response.status == 404
    assert response.fields["content-type"].startswith("text/html")
    assert b"<h1>Not Found</h1>" in response.body


def test_health_is_a_sentence() -> None:
    response = Node().ask("GET", "/health.html")
    assert response.body == b"All systems go.\n"
    assert response.fields["cache-control"] == "no-store"


def test_no_answer_tells_the_software() -> None:
    for path in ("/health", "/nothing/here"):
        assert "server" not in Node().ask("GET", path).fields

"""Who may do what, with and without a tokens file."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress

from swarm.api.tokens import Grant, parse_tokens
from swarm.errors import Malformed
from swarm.model.digest import Digest
from swarm.testing.wire import CLIENT, STRANGER
from swarm.web.clients import client_key, is_local

from .node import Node, request, sha256

BLOB = b"blob"
ID = Digest.of(BLOB)
READ = ("GET", f"/{ID}")
WRITES = [("PUT", "/f"), ("DELETE", f"/{ID}"), ("DELETE", f"/{ID}/allpeers"), ("PUT", "/refreshpeers.html")]


def ask(node: Node, method: str, path: str, token: str | None = None, client: Any = STRANGER) -> Any:
    if ID not in node.store.blobs:
        node.store.put(BLOB)
    fields = [] if token is None else [f"Authorization: Bearer {token}"]
    return node.ask(method, path, *fields, body=b"x" if method == "PUT" else None, client=client)


def tokens(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "tokens"
    path.write_text(text)
    return path


def test_without_a_file_anybody_reads_and_only_locals_write() -> None:
    node = Node()
    assert ask(node, *READ).status == 200
    for method, path in WRITES:
        assert ask(node, method, path).status == 403
        assert ask(node, method, path, client=CLIENT).status < 300


@pytest.mark.parametrize(
    "origin, status",
    [
        ("http://127.0.0.1:7040", 201),
        ("http://localhost:7040", 201),
        ("https://[::1]", 201),
        ("http://evil.example:7040", 403),
        ("http://localhost.evil.example", 403),
        ("http://127.0.0.1.evil.example", 403),
        ("null", 403),
    ],
)
def test_a_page_from_elsewhere_cannot_write_through_a_local_browser(origin: str, status: int) -> None:
    """DNS rebinding: the page's own host name points to us, so for the browser it is one origin."""
    assert Node().ask("PUT", "/f", f"Origin: {origin}", body=b"x").status == status


@pytest.mark.parametrize(
    "scope, allowed",
    [
        ("get", [READ]),
        ("put", [("PUT", "/f")]),
        ("delete", [("DELETE", f"/{ID}"), ("DELETE", f"/{ID}/allpeers")]),
        ("admin", [("PUT", "/refreshpeers.html")]),
    ],
)
def test_a_scope_allows_its_requests_and_no_others(
    tmp_path: Path, scope: str, allowed: list[tuple[str, str]]
) -> None:
    node = Node(tokens=tokens(tmp_path, f"{sha256('secret')} {scope}"))
    for method, path in [READ, *WRITES]:
        response = ask(node, method, path, "secret")
        assert (response.status < 300) == ((method, path) in allowed)
        if (method, path) not in allowed:
            assert response.status == 403
            assert 'error="insufficient_scope"' in response.fields["www-authenticate"]


def test_with_a_file_locals_need_a_token_too(tmp_path: Path) -> None:
    node = Node(tokens=tokens(tmp_path, f"{sha256('secret')} get,put"))
    for method, path in [READ, *WRITES]:
        response = ask(node, method, path, client=CLIENT)
        assert (response.status, response.fields["www-authenticate"]) == (401, 'Bearer realm="swarm"')


@pytest.mark.parametrize(
    "authorization",
    ["Bearer wrong", "Bearer ", "Bearer", "Basic c2VjcmV0", "secret", "Bearer secret extra", "Bearer sécret"],
)
def test_what_is_no_valid_token_is_401(tmp_path: Path, authorization: str) -> None:
    node = Node(tokens=tokens(tmp_path, f"{sha256('secret')} get"))
    wire = node.wire(STRANGER)
    wire.send(request(*READ, f"Authorization: {authorization}"))
    assert [each.status for each in wire.responses()] == [401]


def test_health_needs_no_token(tmp_path: Path) -> None:
    node = Node(tokens=tokens(tmp_path, ""))
    for path in ("/health", "/ready", "/metrics"):
        assert node.ask("GET", path, client=STRANGER).status == 200


def test_authority_comes_before_existence_and_length(tmp_path: Path) -> None:
    node = Node(tokens=tokens(tmp_path, ""))
    assert node.ask("GET", f"/{Digest.of(b'absent')}", client=STRANGER).status == 401
    wire = node.wire(STRANGER)
    wire.send(request("PUT", "/f", f"Content-Length: {1 << 50}", "Expect: 100-continue"))
    assert [each.status for each in wire.responses()] == [401]


def test_anonymous_grants_what_needs_no_token(tmp_path: Path) -> None:
    node = Node(tokens=tokens(tmp_path, f"anonymous get\n{sha256('secret')} put\n"))
    assert ask(node, *READ).status == 200
    assert ask(node, "PUT", "/f").status == 401
    assert ask(node, "PUT", "/f", "secret").status == 201


def test_a_token_ends(tmp_path: Path) -> None:
    node = Node(tokens=tokens(tmp_path, f"{sha256('secret')} get until=1970-01-01T00:01:00Z"))
    node.clock.advance(59)
    assert ask(node, *READ, token="secret").status == 200
    node.clock.advance(1)
    assert ask(node, *READ, token="secret").status == 401


def test_a_changed_file_is_in_force_at_once_and_a_broken_one_is_not(tmp_path: Path) -> None:
    path = tokens(tmp_path, f"{sha256('old')} get")
    node = Node(tokens=path)
    assert ask(node, *READ, token="old").status == 200
    path.write_text(f"# rotated\n{sha256('newer')} get\n")
    assert ask(node, *READ, token="old").status == 401
    assert ask(node, *READ, token="newer").status == 200
    path.write_text("nonsense")
    assert ask(node, *READ, token="newer").status == 200
    path.unlink()
    assert ask(node, *READ, token="newer").status == 200


def test_a_file_is_read_line_by_line() -> None:
    digest = sha256("t")
    text = f"# all\n\n{digest} get,put until=2027-01-31T00:00:00Z # mine\nanonymous get\n"
    assert parse_tokens(text) == (
        Grant(bytes.fromhex(digest), frozenset(["get", "put"]), 1801353600.0),
        Grant(None, frozenset(["get"])),
    )


@pytest.mark.parametrize(
    "line",
    [
        "secret get",
        f"{sha256('t')}",
        f"{sha256('t')} fly",
        f"{sha256('t')} get until=soon",
        f"{sha256('t')} ,",
    ],
)
def test_a_bad_line_is_named_by_its_number_only(line: str) -> None:
    with pytest.raises(Malformed, match="line 2") as caught:
        parse_tokens(f"\n{line}")
    assert sha256("t") not in str(caught.value) and "secret" not in str(caught.value)


@given(st.text(max_size=200))
def test_any_text_is_read_or_malformed(text: str) -> None:
    with contextlib.suppress(Malformed):
        parse_tokens(text)


@pytest.mark.parametrize(
    "address, local, key",
    [
        (IPv4Address("TCP", "127.0.0.1", 1), True, None),
        (IPv4Address("TCP", "127.9.9.9", 1), True, None),
        (IPv6Address("TCP", "::1", 1), True, None),
        (IPv6Address("TCP", "::ffff:127.0.0.1", 1), True, None),
        (UNIXAddress(b"/run/swarm"), True, None),
        (UNIXAddress(None), True, None),
        (IPv4Address("TCP", "192.0.2.1", 1), False, "192.0.2.1"),
        (IPv6Address("TCP", "::ffff:192.0.2.1", 1), False, "192.0.2.1"),
        (IPv6Address("TCP", "2001:db8::1:2:3:4", 1), False, "2001:db8::/64"),
        (IPv6Address("TCP", "fe80::1%eth0", 1), False, "fe80::/64"),
        (None, False, None),
    ],
)
def test_who_is_local_and_who_counts_as_one(address: Any, local: bool, key: str | None) -> None:
    assert (is_local(address), client_key(address)) == (local, key)

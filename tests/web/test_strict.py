"""The judgment of heads on its own; with the parser before it, it is tested in test_channel."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.web.http_headers import Headers

from swarm.errors import Malformed
from swarm.web.strict import RequestLine, check_head


def headers(*pairs: tuple[str, str]) -> Headers:
    found = Headers()
    for name, value in pairs:
        found.addRawHeader(name, value)
    return found


HOST = ("Host", "h")


@pytest.mark.parametrize(
    "line, expected",
    [
        (b"GET / HTTP/1.1", RequestLine(b"GET", b"/", b"", b"HTTP/1.1")),
        (b"GET /a%2Fb?c=d?e HTTP/1.1", RequestLine(b"GET", b"/a%2Fb", b"c=d?e", b"HTTP/1.1")),
        (b"GET http://H/a?b HTTP/1.1", RequestLine(b"GET", b"/a", b"b", b"HTTP/1.1")),
        (b"GET HTTPS://h?b HTTP/1.0", RequestLine(b"GET", b"/", b"b", b"HTTP/1.0")),
        (b"OPTIONS * HTTP/1.1", RequestLine(b"OPTIONS", b"*", b"", b"HTTP/1.1")),
    ],
)
def test_a_line_falls_into_its_parts(line: bytes, expected: RequestLine) -> None:
    assert check_head(line, headers(HOST), 0) == expected


def test_a_uri_is_put_together_again() -> None:
    assert RequestLine(b"GET", b"/a", b"b", b"HTTP/1.1").uri == b"/a?b"
    assert RequestLine(b"GET", b"/a", b"", b"HTTP/1.1").uri == b"/a"


@pytest.mark.parametrize(
    "line", [b"GET /", b"GET  / HTTP/1.1", b"GET / HTTP/1.2", b"GET / http/1.1", b"GET a HTTP/1.1", b""]
)
def test_other_lines_are_malformed(line: bytes) -> None:
    with pytest.raises(Malformed):
        check_head(line, headers(HOST), 0)


def test_an_impossible_length_is_malformed() -> None:
    check_head(b"PUT / HTTP/1.1", headers(HOST), 2**63 - 1)
    with pytest.raises(Malformed):
        check_head(b"PUT / HTTP/1.1", headers(HOST), 2**63)


def test_cl_beside_te_is_malformed() -> None:
    both = headers(HOST, ("Transfer-Encoding", "chunked"), ("Content-Length", "0"))
    with pytest.raises(Malformed):
        check_head(b"PUT / HTTP/1.1", both, None)


@given(st.binary(max_size=60), st.lists(st.tuples(st.sampled_from(["Host", "Transfer-Encoding"]), st.text())))
def test_any_line_is_judged(line: bytes, fields: list[tuple[str, str]]) -> None:
    try:
        judged = check_head(line, headers(*fields), None)
    except Malformed:
        return
    assert judged.path.startswith(b"/") or judged.path == b"*"

"""Short texts: header fields, path segments, addresses, lines of a file."""

from __future__ import annotations

import re

from swarm.api.tokens import SCOPES, parse_tokens
from swarm.core.addresses import AddressPolicy
from swarm.model.digest import Digest
from swarm.model.filenames import Filename
from swarm.model.messages import advertised_address, parse_advertised
from swarm.model.peers import Address, PeerID, parse_node_name
from swarm.model.ranges import ByteRange, parse_content_range, parse_have
from swarm.peering.wire import encode_have, encode_names, parse_generation, parse_names
from swarm.testing.fuzzing.target import Target, field_of, or_malformed, text_of
from swarm.web.ranges import MAX_RANGES, Conditions, parse_range, select

_DIGEST = Digest(bytes(range(64)))
_PLAIN_RANGE = re.compile(r"bytes=(\d{1,18})-(\d{1,18})", re.ASCII)
_CONDITIONS = ("range", "if_range", "if_match", "if_none_match")
_SIZES = (0, 1, 1000, 1 << 40)


def _ranges(data: bytes) -> None:
    value = field_of(data)
    for size in _SIZES:
        ranges = parse_range(value, size)
        if ranges:
            assert len(ranges) <= MAX_RANGES
            assert all(each.stop <= size for each in ranges)
            assert sum(map(len, ranges)) <= size, "more than there is"
        if (plain := _PLAIN_RANGE.fullmatch(value)) and int(plain[1]) <= int(plain[2]):
            first, last = int(plain[1]), int(plain[2])
            assert ranges == ((ByteRange(first, min(last + 1, size)),) if first < size else ())
        chosen = select("GET", Conditions(range=value), _DIGEST.etag, size)
        assert (chosen.status, chosen.total <= size) in ((200, True), (206, True), (416, True))


def _conditions(data: bytes) -> None:
    parts = [field_of(part) for part in data.split(b"\n")[:4]]
    conditions = Conditions(**dict(zip(_CONDITIONS, parts, strict=False)))
    for method in ("GET", "HEAD"):
        chosen = select(method, conditions, _DIGEST.etag, 1000)
        assert chosen.status in (200, 206, 304, 412, 416)
        assert chosen.total <= 1000
        assert method == "GET" or chosen.status not in (206, 416)


def _content_range(data: bytes) -> None:
    read = or_malformed(lambda: parse_content_range(field_of(data)))
    if read is not None:
        span, total = read
        assert span.stop <= total
        assert parse_content_range(span.content_range(total)) == read


def _have(data: bytes) -> None:
    for total in (1, 1000, 1 << 62):
        have = or_malformed(lambda total=total: parse_have(field_of(data), total))  # type: ignore[misc]  # bound now
        if have is not None:
            assert have.total <= total
            told = parse_have(encode_have(have), total)
            assert told & have == told, "what it has not is told"
            assert len(told.have_header()) < len(have.have_header()) or told == have


def _addresses(data: bytes) -> None:
    text = text_of(data)
    address = or_malformed(lambda: Address.parse(text))
    if address is not None:
        assert 1 <= address.port <= 65535
        assert str(address).isprintable() and " " not in str(address)
        assert Address.parse(str(address)) == address
        AddressPolicy().refuse(address)
    told = or_malformed(lambda: parse_advertised(text))
    if told is not None:
        assert parse_advertised(told) == told
        for seen in ("192.0.2.1", "2001:db8::1"):
            assert advertised_address(told, seen).host not in ("0.0.0.0", "::", "")
    name = or_malformed(lambda: parse_node_name(text))
    if name is not None:
        assert name == text and name.isprintable() and not {*name} & {*" ,;\"'<>&/\\"}
        name.encode()
    peer = or_malformed(lambda: PeerID.parse(text))
    assert peer is None or PeerID.parse(peer.hex) == peer


def _filenames(data: bytes) -> None:
    for name in (
        or_malformed(lambda: Filename.parse(text_of(data))),
        or_malformed(lambda: Filename.from_path(data)),
    ):
        if name is None:
            continue
        assert "/" not in name.text and "\0" not in name.text and name.text not in ("", ".", "..")
        assert len(name.text.encode()) <= 255
        assert Filename.parse(name.text) == name
        disposition = name.content_disposition
        assert disposition.isascii() and disposition.isprintable()
        assert parse_names(encode_names([name])) == (name,)


def _names(data: bytes) -> None:
    names = or_malformed(lambda: parse_names(field_of(data)))
    if names is not None:
        told = encode_names(names)
        assert len(told) <= 6 << 10
        kept = parse_names(told)
        assert kept == names[len(names) - len(kept) :]
    generation = or_malformed(lambda: parse_generation(field_of(data)))
    assert generation is None or 0 <= generation < 10**18


def _digests(data: bytes) -> None:
    for read in (Digest.parse, Digest.from_base64url, Digest.from_digest_field):
        digest = or_malformed(lambda read=read: read(text_of(data)))  # type: ignore[misc]  # bound now
        if digest is not None:
            assert Digest.parse(digest.hex) == digest
            assert Digest.from_base64url(digest.base64url) == digest
            assert Digest.from_digest_field(digest.repr_digest) == digest


def _tokens(data: bytes) -> None:
    for grant in or_malformed(lambda: parse_tokens(text_of(data))) or ():
        assert grant.scopes and grant.scopes <= SCOPES
        assert grant.digest is None or len(grant.digest) == 32
        assert grant.until is None or abs(grant.until) < 1e12


_TOKEN = b"ab" * 32 + b" get,put until=2027-01-31T00:00:00Z # x\nanonymous get\n"

_ALL = (
    Target(
        "range",
        "a Range field is ranges within the blob, no more bytes than it has; plain ones are the arithmetic's",
        _ranges,
        [
            b"bytes=0-0",
            b"bytes=-5",
            b"bytes=5-",
            b"bytes=0-1, 4-5,-1",
            b"bytes=0-99999999999999999999",
            b"bytes=0-0,0-0,0-999",
        ],
        512,
    ),
    Target(
        "conditions",
        "whatever Range, If-Range, If-Match and If-None-Match say: a status there is, within the blob",
        _conditions,
        [
            b"bytes=0-4\n" + _DIGEST.etag.encode(),
            b'bytes=0-4\n\n*\nW/"x", ' + _DIGEST.etag.encode(),
            b"x\ny\n" + _DIGEST.etag.encode() + b",\n*",
        ],
        1024,
    ),
    Target(
        "content-range",
        "a Content-Range is Malformed or within its total, and says the same when written again",
        _content_range,
        [b"bytes 0-0/1", b"bytes 5-9/10", b"bytes */10", b"bytes 0-4/*"],
        128,
    ),
    Target(
        "have",
        "Swarm-Have is Malformed or within the blob; what is told on is had",
        _have,
        [b"bytes=", b"bytes=0-0", b"bytes=0-1,4-5, 7-7", b"bytes=5-6,0-9"],
        16384,
    ),
    Target(
        "addresses",
        "addresses, names and ids of peers are Malformed, or printable and read back as themselves",
        _addresses,
        [
            *(
                b"host:7041",
                b"10.0.0.1:1",
                b"[2001:db8::1]:7041",
                b"[fe80::1%eth0]:1",
                b":7041",
                b"0.0.0.0:7041",
            ),
            *(b"[::]:80", b"n1.example.org:65535", "knoten-\u00e4".encode(), b"0f" * 32, b"0x7f.1:80"),
        ],
        512,
    ),
    Target(
        "filenames",
        "a file name is Malformed or one safe segment in NFC that survives its field and its header",
        _filenames,
        [
            b"a.txt",
            b"%2e%2e",
            b"a%2Fb",
            "e\u0301.txt".encode(),
            b"%C3%A9",
            b"x" * 256,
            b'"\\%',
            b"\xed\xa0\x80",
        ],
        1024,
    ),
    Target(
        "names",
        "Swarm-Names and Swarm-Generation are Malformed, or the newest names that fit come back",
        _names,
        [b"a,b,c", b"%C3%A9.txt, b", b"", b"0", b"123456789012345678", b"a," * 40],
        16384,
    ),
    Target(
        "digests",
        "an id, a ni name or a digest field is Malformed or the same 64 bytes in every spelling",
        _digests,
        [
            _DIGEST.hex.encode(),
            _DIGEST.base64url.encode(),
            _DIGEST.repr_digest.encode(),
            b"md5=:AA==:, SHA-512=:AA==:",
        ],
        512,
    ),
    Target(
        "tokens",
        "a tokens file is Malformed or grants known scopes until a time there is",
        _tokens,
        [_TOKEN, b"anonymous get,get", b"anonymous put until=0001-01-01T00:00:00+23:59", b"# only this\n\n"],
        1024,
    ),
)
BY_NAME = {each.name: each for each in _ALL}

"""Whole messages and files: what peers say of themselves, midstates, journals, names, workers' messages."""

from __future__ import annotations

from contextlib import suppress

from swarm.errors import Malformed
from swarm.model.digest import Digest
from swarm.model.filenames import Filename
from swarm.model.grains import Grains
from swarm.model.messages import ClusterDocument, Greeting, Node
from swarm.model.midstates import Midstates, encoded_length
from swarm.model.peers import PeerID
from swarm.peering.wire import parse_document
from swarm.storage import names
from swarm.storage.journal import HEADER_LENGTH, RECORD_LENGTH, Header, Mark
from swarm.testing.fuzzing.target import Target, or_malformed
from swarm.workers import messages

_DIGEST = Digest(bytes(range(64)))


def _greetings(data: bytes) -> None:
    greeting = or_malformed(lambda: Greeting.decode(data))
    if greeting is not None:
        assert Greeting.decode(greeting.encode()) == greeting


def _clusters(data: bytes) -> None:
    document = or_malformed(lambda: ClusterDocument.decode(data))
    if document is not None:
        assert ClusterDocument.decode(document.encode()) == document
        assert len({peer.name for peer in document.peers}) == len(document.peers)


def _documents(data: bytes) -> None:
    document = or_malformed(lambda: parse_document(data))
    if document is not None:
        with suppress(Malformed):
            ClusterDocument.from_json(document)


def _midstates(data: bytes) -> None:
    read = or_malformed(lambda: Midstates.decode(data))
    if read is not None:
        assert read.encode() == data
        assert len(data) == encoded_length(read.grains.size)
        assert len(read.after(read.grains.last, _DIGEST.raw)) == len(read.before(read.grains.last)) == 64


def _journals(data: bytes) -> None:
    """The checksums are made right, or chance would never get past them."""
    header = or_malformed(lambda: Header.decode(data)) or _HEADER
    rest = data[HEADER_LENGTH:]
    replay = header.replay(rest)
    assert replay.records <= len(rest) // RECORD_LENGTH
    assert len(replay.marks) <= replay.records
    written = b""
    marks: dict[int, Mark] = {}
    for number, at in enumerate(range(0, len(data) - 6, 7)):
        index = int.from_bytes(data[at + 1 : at + 5], "big")
        start = data[at + 5 : at + 6] * 64
        mark = (
            None
            if data[at] % 4 == 0
            else Mark(None if start == bytes(64) else start, data[at + 6 : at + 7] * 64)
        )
        written += header.record(number, index, mark)
        marks.pop(index, None)
        if mark is not None:
            marks[index] = mark
    torn = written + data[: RECORD_LENGTH - 1]
    again = header.replay(torn)
    assert again.marks == marks and again.records == len(written) // RECORD_LENGTH
    if written:
        flipped = len(data) * 31 % len(written)
        damaged = written[:flipped] + bytes([written[flipped] ^ 1 << len(data) % 8]) + written[flipped + 1 :]
        assert header.replay(damaged).records == flipped // RECORD_LENGTH, "a damaged record is believed"


def _stored_names(data: bytes) -> None:
    read = names.decode(data)
    assert len(read) <= names.MOST and len(set(read)) == len(read)
    assert names.decode(names.encode(read)) == read


def _workers(data: bytes) -> None:
    serial, letter, rest = int.from_bytes(data[:8], "big"), data[8:9] or b"R", data[9:]
    assert messages.number(messages.numbered(letter, serial, rest)) == (serial, rest)
    assert messages.subject(messages.about(letter, _DIGEST, rest)) == (_DIGEST, rest)
    assert messages.kind(messages.about(letter, _DIGEST)) == letter
    name = or_malformed(lambda: Filename.from_path(rest))
    names_ = (name.text,) if name else ()
    entry = messages.Entry(serial, names_, serial, -serial, serial / 3, float("inf"), serial)
    assert messages.decode_entry(messages.encode(entry)) == entry
    text = rest.decode("utf-8", "surrogateescape")  # paths are
    limits = {text: serial}
    orders = messages.Orders(text, text or None, (text,), serial / 7, serial, limits, text, limits, limits)
    assert messages.decode_orders(messages.encode(orders)) == orders
    errand = messages.ErrandSaid(bool(serial % 2), PeerID((data * 32 + bytes(32))[:32]), rest)
    assert messages.ErrandSaid.decode(errand.encode()) == errand


_NODE = Node("n0", PeerID(bytes(32)), "10.0.0.1:7040", ":7041", 5)
_OTHER = Node("n1", PeerID(b"\x01" * 32), "", "[2001:db8::1]:7041")
_HEADER = Header(_DIGEST, Grains.of(5 << 20), bytes(16))

_ALL = (
    Target(
        "greetings",
        "a greeting is Malformed or says the same when written again",
        _greetings,
        [
            Greeting("n0", "", ":7041", True).encode(),
            Greeting("n\u00e9", "h:1", "[::1]:7041").encode(),
            Greeting("n0", "", ":7041", False, ("10.0.0.1:7041", "h:1")).encode(),
            b"a=b&a=b",
        ],
    ),
    Target(
        "clusters",
        "a cluster document is Malformed or says the same when written again; no name twice",
        _clusters,
        [
            ClusterDocument("swarm", _NODE, (_OTHER,)).encode(),
            ClusterDocument("swarm", Node("n2", PeerID(bytes(32)), "", "h:1", 0, (":2", "h:3"))).encode(),
            b"[" * 2000,
            b'{"Name":1e999}',
            b'{"a":1,"a":2}',
        ],
    ),
    Target(
        "documents",
        "JSON from a peer is Malformed or an object, however deep, and so is what is made of it",
        _documents,
        [
            ClusterDocument("swarm", _NODE, (_OTHER,)).encode(),
            b"{}",
            b'{"a":' * 1500,
            b"1" * 4000,
            b'{"a":"\\ud800"}',
        ],
        1 << 16,
    ),
    Target(
        "midstates",
        "a midstate list is Malformed or what is written again, of exactly the length asked for",
        _midstates,
        [
            Midstates(Grains.of(0), b"").encode(),
            Midstates(Grains.of(1 << 20), b"").encode(),
            Midstates(Grains.of((3 << 20) + 1), bytes(192)).encode(),
        ],
        1 << 13,
    ),
    Target(
        "journals",
        "a journal is replayed up to the first record that is not whole; no damage is believed",
        _journals,
        [
            _HEADER.encode() + _HEADER.record(0, 3, Mark(None, b"e" * 64)) + _HEADER.record(1, 3, None),
            _HEADER.encode(),
            b"",
            bytes(range(1, 71)),
        ],
        2048,
    ),
    Target(
        "stored-names",
        "a stored list of names is read whatever it holds, and the same when stored again",
        _stored_names,
        [names.encode([Filename("a"), Filename("b.txt")]), b"a\n..\n\xff\na\nb", b"x\n" * 101],
    ),
    Target(
        "workers",
        "node and workers understand each other, whatever serials, names and paths there are",
        _workers,
        [bytes(8) + b"H" + b"GET / HTTP/1.1", b"\xff" * 8 + b"C\xff\xfe", b"12345678Ga%20b"],
    ),
)
BY_NAME = {each.name: each for each in _ALL}

"""The short path answers as the full way does, whatever is asked, however it is cut, whoever meddles.

Two nodes on one data directory: one with the short path and files kept open, one with neither. Both get
the same bytes in the same pieces, and must give the same bytes, count the same and hang up alike.
"""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client.exposition import generate_latest
from twisted.internet.task import Clock

from swarm.hashing import load
from swarm.model.digest import Digest
from swarm.model.filenames import Filename
from swarm.model.peers import Peer
from swarm.storage.disk import Disk
from swarm.storage.filesystem import FilesystemStore
from swarm.storage.layout import Layout
from swarm.storage.settings import StoreSettings
from swarm.testing.contracts import at_once, pattern
from swarm.web.limits import WebLimits
from tests.contracts.rigs import epoch, fast

from .node import PEER, Node, run_inline

SHA512 = load()
DAY = 86400.0
LIMITS = WebLimits(chunk=8 << 10)
SIZES = (0, 1, 1000, 8 << 10, (8 << 10) + 1, 50_000)
NAMES = (None, "a.txt", "page.html", 'q"uote.bin', "ünï.svg", "film.mkv")


class Hasty(Disk):
    """
    Keeps open at once what was stored a moment ago; these tests see to it that dates differ.

    And reads on any file system what is in memory: not each can tell.
    """

    def settled_at(self, fd: int) -> int:
        return self.changed_at(fd)

    def fill_nowait(self, fd: int, buffer: Any, offset: int) -> int:
        return os.preadv(fd, [buffer], offset)


class Pair:
    """The two nodes, and an operator."""

    def __init__(self, path: str, tokens: Any = None) -> None:
        self.clock: Clock = epoch()
        self.layout = Layout(path)
        self.short = self._node(path, 100, tokens)
        self.full = self._node(path, 0, tokens)
        self.full.site.short_path = None
        self.ids = [self.put(pattern(size, seed), NAMES[seed]) for seed, size in enumerate(SIZES)]
        self.taken = Counter[str]()
        path_ = self.short.site.short_path
        assert path_ is not None
        count = path_._count

        def taken(method: str, size: int) -> None:
            self.taken[method] += 1
            count(method, size)

        path_._count = taken

    def _node(self, path: str, open_files: int, tokens: Any) -> Node:
        store = FilesystemStore(
            path,
            StoreSettings(reserve=0, open_files=open_files),
            clock=self.clock,
            sha512=SHA512,
            run_blocking=run_inline,
            random=Random(1),
            disk=Hasty(),
        )
        at_once(store.start())
        return Node(store=store, clock=self.clock, limits=LIMITS, tokens=tokens)

    def close(self) -> None:
        for node in (self.short, self.full):
            at_once(node.store.stop())

    def put(self, data: bytes, name: str | None = None) -> Digest:
        writer = at_once(self.short.store.writer(len(data)))
        writer.write(data)
        stored = at_once(writer.finish(None if name is None else Filename.parse(name)))
        digest: Digest = stored.info.digest
        return digest

    # -- asking -----------------------------------------------------------------------

    def ask(self, stream: bytes, cuts: tuple[int, ...] = ()) -> bytes:
        """The same bytes to both; what they say, once it is the same."""
        said = [self._talk(node, stream, cuts) for node in (self.short, self.full)]
        assert said[0] == said[1]
        assert counted(self.short) == counted(self.full)
        return said[0][0]

    def _talk(self, node: Node, stream: bytes, cuts: tuple[int, ...]) -> tuple[bytes, bool, bool]:
        wire = node.wire()
        edges = sorted({0, len(stream), *(cut % (len(stream) + 1) for cut in cuts)})
        for start, stop in itertools.pairwise(edges):
            wire.send(stream[start:stop])
            if start % 3:
                self.clock.advance(0)
        while any(call.getTime() <= self.clock.seconds() for call in self.clock.getDelayedCalls()):
            self.clock.advance(0)
        ended = wire.disconnected, wire.aborted
        said = bytes(wire.received)
        wire.hang_up()
        left = [call for call in self.clock.getDelayedCalls() if call.func.__qualname__ != "Kept._sweep"]
        assert left == [] and node.site.connections == 0
        return said, *ended

    def warm(self) -> None:
        """Have everything read that can be."""
        for digest in self.ids:
            self.ask(get(digest))

    # -- meddling -----------------------------------------------------------------------

    def path(self, digest: Digest, name: str) -> str:
        return self.layout.file(digest, name)

    def change(self, watched: str, act: Callable[[], object], undo: Callable[[], object]) -> None:
        """Act until the kernel's clock shows it: before Linux 6.13 it stands still for milliseconds."""
        before = os.stat(watched).st_ctime_ns
        act()
        while os.path.exists(watched) and os.stat(watched).st_ctime_ns == before:
            time.sleep(0.002)
            undo()
            act()

    def mark(self, digest: Digest, marker: str) -> None:
        path = self.path(digest, marker)
        if os.path.isdir(os.path.dirname(path)):
            if os.path.exists(path):
                self.change(os.path.dirname(path), lambda: os.unlink(path), lambda: touch(path))
            else:
                self.change(os.path.dirname(path), lambda: touch(path), lambda: os.unlink(path))

    def pardon(self, digest: Digest) -> None:
        """Take away what forbids it."""
        for marker in ("403", "404"):
            if os.path.exists(self.path(digest, marker)):
                self.mark(digest, marker)
        if os.path.exists(self.layout.deny("get")):
            self.deny()

    def overwrite(self, digest: Digest) -> None:
        path = self.path(digest, "data")
        if os.path.exists(path) and (size := os.path.getsize(path)):
            os.chmod(path, 0o600)

            def scribble() -> None:
                fd = os.open(path, os.O_WRONLY)
                os.pwrite(fd, b"\xff" * 10, size // 2)
                os.close(fd)

            self.change(path, scribble, lambda: None)

    def replace(self, digest: Digest) -> None:
        """Another file takes the name, as an editor or rsync does it."""
        path = self.path(digest, "data")
        if os.path.exists(path):
            touch(path + "~")
            with open(path + "~", "wb") as file:
                file.write(b"?" * os.path.getsize(path))
            self.change(
                os.path.dirname(path), lambda: os.replace(path + "~", path), lambda: touch(path + "~")
            )

    def unlink(self, digest: Digest) -> None:
        path = self.path(digest, "data")
        if os.path.exists(path):
            os.unlink(path)

    def remove_directory(self, digest: Digest) -> None:
        shutil.rmtree(self.layout.blob(digest), ignore_errors=True)

    def deny(self) -> None:
        path = self.layout.deny("get")
        os.unlink(path) if os.path.exists(path) else touch(path)

    def delete(self, digest: Digest) -> None:
        if at_once(self.short.store.stat(digest)) is not None:
            at_once(self.short.store.delete(digest))

    def meet(self, peers: tuple[Peer, ...]) -> None:
        for node in (self.short, self.full):
            node.membership.peers = peers

    def put_again(self, number: int, name: str) -> None:
        self.put(pattern(SIZES[number], number), name)


def counted(node: Node) -> list[bytes]:
    """What its metrics say, in any order, but for when each began to be counted."""
    return sorted(line for line in generate_latest(node.registry).splitlines() if b"_created" not in line)


def touch(path: str) -> None:
    with open(path, "ab"):
        pass


def get(digest: Digest, method: str = "GET") -> bytes:
    return f"{method} /{digest} HTTP/1.1\r\nHost: h\r\n\r\n".encode()


@pytest.fixture
def pair() -> Iterator[Pair]:
    with tempfile.TemporaryDirectory(dir=fast()) as path:
        pair = Pair(path)
        yield pair
        pair.close()


# -- generated requests -------------------------------------------------------------------

USUAL = (
    b"User-Agent: curl/8.0", b"Accept: */*", b"accept: text/html;q=0.9", b"ACCEPT-ENCODING: gzip, br",
    b"Connection: keep-alive", b"connection:  Keep-Alive \t", b"Referer: http://x/", b"Pragma: no-cache",
    b"Cache-Control: max-age=0", b"X-Forwarded-For: 10.0.0.1, 10.0.0.2", b"Sec-Fetch-Mode: cors", b"DNT:1",
    b"Origin: http://evil.example", b"Accept-Language:",
)  # fmt: skip
ODD = (
    b"Range: bytes=0-9", b"Range: bytes=5-", b"Range: bytes=999999-", b"rAnGe: bytes=0-0,2-3",
    b"Range: lines=1",
    b'If-None-Match: "%(id)s"', b"If-None-Match: *", b'If-Match: "nope"', b'If-Range: "%(id)s"', b"Expect: x",
    b"Connection: close", b"Connection: keep-alive, close", b"Connection: upgrade", b"Upgrade: h2c",
    b"Content-Length: 0", b"Content-Length: 3", b"Content-Length: -1", b"Content-Length: 1" * 70,
    b"Transfer-Encoding: chunked", b"Expect: 100-continue", b"Cookie: a=b", b"Authorization: Bearer secret",
    b"X-Unknown: 1", b"Accept : x", b" folded", b"Nocolon", b": empty", b"X: " + b"y" * 2000, b"X: a\x00b",
    b"Accept: \xff", b"Accept: \xc3\xa9", b"Accept: a\tb", b"Accept: a\nHost: i", b"Host: i", b"Host: h",
    b"If-Modified-Since: Thu, 01 Jan 1970 00:00:00 GMT", b"Accept_Encoding: x", b"\x0bAccept: x",
    b"TE: trailers",
)  # fmt: skip
HOSTS = (
    b"host:h:7040",
    b"HOST:  [::1]:7040 ",
    b"Host:",
    b"Host: a b",
    b"Host: a/b",
    b"",
    b"Host: \xff",
    b"Host : h",
)
TARGETS = (
    b"/%(ID)s", b"/%(Id)s", b"//%(id)s", b"/%(id)s/", b"/%(id)s?", b"/%(id)s?a=b", b"/%(id)s#f",
    b"http://h/%(id)s", b"http://other/%(id)s", b"/%(id)s/nopeerload", b"/%(id)sa", b"/%(short)s",
    b"/%%%(first)02x%(rest)s", b"/%(absent)s", b"/health", b"/", b"*", b"/name.txt", b"%(id)s", b"/./%(id)s",
    b"/%(id)s.meta4", b"/%(id)s ",
)  # fmt: skip
METHODS = (b"POST", b"OPTIONS", b"get", b"GETT", b"", b" GET", b"GET /")
VERSIONS = (b"HTTP/1.0", b"HTTP/1.2", b"http/1.1", b"HTTP/1.1 ", b"HTTP/2.0", b"")
ENDS = (b"\n", b"\r\r\n", b"\r", b" \r\n")
BEFORE = (b"\r\n", b"\r\n\r\n", b"\n", b" ", b"\x00")


def compose(pick: Callable[[Any], Any], chance: Callable[[float], bool], ids: list[Digest]) -> bytes:
    """One request: four of five plain, in the others something or other odd."""
    digest = pick(ids)
    hexes = digest.hex.encode()
    mixed = bytes(c - 32 if i % 5 == 0 and c >= 97 else c for i, c in enumerate(hexes))
    known = {
        b"id": hexes, b"ID": hexes.upper(), b"Id": mixed, b"short": hexes[:-1], b"first": hexes[0],
        b"rest": hexes[1:], b"absent": b"ab" * 64,
    }  # fmt: skip
    strange = chance(0.2)

    def usually(plain: bytes, odd: tuple[bytes, ...], how_odd: float = 0.15) -> bytes:
        return bytes(pick(odd)) if strange and chance(how_odd) else plain

    fields = [field for field in (usually(b"Host: h", HOSTS),) if field]
    while chance(0.5):
        fields.append(pick(USUAL))
    if odd := usually(b"", ODD, 0.5):
        fields.append(odd % known if b"%(" in odd else odd)
    if chance(0.3):
        fields.reverse()
    method = pick((b"GET", b"GET", b"HEAD"))
    line = b" ".join(
        (usually(method, METHODS), usually(b"/%(id)s", TARGETS, 0.3) % known, usually(b"HTTP/1.1", VERSIONS))
    )
    body = b"abc" if any(b"Content-Length: 3" in field for field in fields) else b""
    if any(b"chunked" in field for field in fields):
        body = b"3\r\nabc\r\n0\r\n\r\n"
    lines = b"".join(each + usually(b"\r\n", ENDS, 0.03) for each in (line, *fields, b""))
    return usually(b"", BEFORE) + lines + body


def composed(random: Random, ids: list[Digest]) -> bytes:
    return compose(random.choice, lambda p: random.random() < p, ids)


def test_some_thousand_requests_get_the_same_answers(pair: Pair) -> None:
    """A seeded generator, in streams of one to forty requests, cut anywhere."""
    random = Random(20261120)
    asked = 0
    while asked < 4000:
        if asked % 500 < 20:
            pair.warm()
        count = random.choice((1, 1, 1, 2, 3, 5, 40))
        stream = b"".join(composed(random, pair.ids) for _ in range(count))
        asked += count
        cuts = tuple(random.randrange(1 << 20) for _ in range(random.choice((0, 0, 0, 1, 2, 7))))
        pair.ask(stream, cuts)
    assert pair.taken["GET"] > 300 and pair.taken["HEAD"] > 80, "the short path was hardly taken"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(data=st.data())
def test_any_stream_gets_the_same_answers(pair: Pair, data: st.DataObject) -> None:
    """The same from hypothesis, which makes a failing stream small."""
    pair.warm()

    def pick(options: Any) -> Any:
        return data.draw(st.sampled_from(options))

    def chance(_: float) -> bool:
        return data.draw(st.booleans())

    count = data.draw(st.integers(1, 4))
    stream = b"".join(compose(pick, chance, pair.ids) for _ in range(count))
    pair.ask(stream, tuple(data.draw(st.lists(st.integers(0, 10_000), max_size=5))))


def test_every_cut_of_a_plain_request_gets_the_same_answer(pair: Pair) -> None:
    pair.warm()
    stream = get(pair.ids[2]) + get(pair.ids[3], "HEAD") + get(pair.ids[1])
    for at in range(len(stream) + 1):
        pair.ask(stream, (at,))
    said = [pair.ask(stream, tuple(range(len(stream)))), pair.ask(stream)]
    assert said[0] == said[1] and said[0].count(b"HTTP/1.1 200 OK\r\n") == 3


def test_an_empty_line_before_each_request_is_forgiven_once_on_both_ways(pair: Pair) -> None:
    """Twisted's parser remembers one across a request that it never saw."""
    pair.warm()
    plain, edges = get(pair.ids[2]), [0]
    for piece in (b"\r\n", plain, b"\r\n", plain, plain, b"\r\n", b"\r\n"):
        edges.append(edges[-1] + len(piece))
    stream = b"\r\n" + plain + b"\r\n" + plain + plain + b"\r\n\r\n"
    said = pair.ask(stream, tuple(edges))
    assert said.count(b"HTTP/1.1 200 OK\r\n") == 3 and said.count(b"HTTP/1.1 400 ") == 1


# -- meddling between requests ----------------------------------------------------------------


def test_whatever_is_done_between_requests_both_see_it_at_once(pair: Pair) -> None:
    random = Random(7)
    acts: list[Callable[[Digest], object]] = [
        lambda digest: pair.mark(digest, "403"),
        lambda digest: pair.mark(digest, "404"),
        lambda digest: pair.mark(digest, "other"),
        pair.overwrite,
        pair.replace,
        pair.unlink,
        pair.remove_directory,
        pair.delete,
        lambda digest: pair.deny(),
        lambda digest: pair.put_again(pair.ids.index(digest), random.choice(["x.txt", "y.html", "z"])),
        lambda digest: pair.clock.advance(random.choice([1, 100, 5 * DAY, 8 * DAY])),
        lambda digest: pair.meet(random.choice([(), (PEER,)])),
    ]
    for _ in range(120):
        digest = random.choice(pair.ids[:4])
        pair.put_again(pair.ids.index(digest), "again.txt")
        pair.ask(get(digest))
        assert pair.ask(get(digest)).startswith(b"HTTP/1.1 200 OK\r\n")
        random.choice(acts)(digest)
        pair.clock.advance(1)  # the mirrors of an answer are a second old at most
        pair.ask(get(digest, random.choice(["GET", "HEAD"])))
        pair.pardon(digest)
        pair.ask(get(digest))
    assert sum(pair.taken.values()) > 120

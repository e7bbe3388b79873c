"""The peer port behind workers: what nobody outside may notice, and what each process did."""

from __future__ import annotations

import re
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_twisted
from attrs import define, field
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import Factory, Protocol
from twisted.python.failure import Failure

from swarm.errors import StoreFailed
from swarm.model.digest import Digest
from swarm.model.ranges import RangeSet
from swarm.peering.identity import IdentityPaths, load
from swarm.testing.contracts import pattern
from swarm.testing.memory import MemoryStore
from swarm.web.limits import WebLimits
from swarm.workers.messages import PEERS
from tests.peering.conftest import OpenSSLWorld
from tests.peering.nodes import SERVED, Node, View
from tests.web.test_straight import until

DATA = pattern(700_000)
ID = Digest.of(DATA)
PATH = f"/blobs/{ID.hex}"
_DATE = re.compile(rb"Date: [^\r]*\r\n")


@define(eq=False)
class Talk(Protocol):
    """A connection; what is sent goes out in pieces."""

    heard: bytearray = field(factory=bytearray)
    gone: Failure | None = None
    transport: Any = None

    def dataReceived(self, data: bytes) -> None:
        self.heard += data

    def connectionLost(self, reason: Failure = None) -> None:  # type: ignore[assignment]  # Twisted's default
        self.gone = reason

    async def send(self, data: bytes, piece: int) -> None:
        for at in range(0, len(data), piece):
            self.transport.write(data[at : at + piece])
            if len(data) / piece < 2000:  # else there would be no end of turns
                await turn()


def turn() -> Deferred[None]:
    waiting: Deferred[None] = Deferred()
    reactor.callLater(0, waiting.callback, None)
    return waiting


@pytest_twisted.async_yield_fixture
async def make(world: OpenSSLWorld) -> AsyncIterator[Callable[..., Any]]:
    made: list[Node] = []

    async def make(served: str = SERVED[2], **options: Any) -> Node:
        node = Node(world, "beta", served=served, **options)
        made.append(node)
        await node.listen()
        node.store.put(DATA, "three")
        return node

    yield make
    for node in made:
        await node.stop()


@pytest.fixture
def asker(world: OpenSSLWorld) -> Node:
    return Node(world, "alpha")


async def connect(asker: Node, node: Node) -> Talk:
    talk = Talk()
    await asker.dial(node.peer.address, None).connect(Factory.forProtocol(lambda: talk))
    return talk


def served_by_workers(node: Node) -> int:
    """Answers workers gave."""
    assert node.crew is not None
    return sum(count for _, _, count, _ in node.crew.take_counts(PEERS))


def get(path: str = PATH, *fields: str) -> bytes:
    return "\r\n".join([f"GET {path} HTTP/1.1", "Host: x", *fields, "", ""]).encode()


PUSHED = pattern(300_000, 5)
PUSH = b"PUT /blobs/%s HTTP/1.1\r\nHost: x\r\nContent-Length: 300000\r\n\r\n" % Digest.of(PUSHED).hex.encode()
GREETING = b"name=n&public-addr=&mgmt-addr=:7041"
GREET = b"POST /cluster/ HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (len(GREETING), GREETING)
CHUNKED = b"POST /cluster/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (
    len(GREETING),
    GREETING,
)
ONCE = b"Connection: close"
TALKS = {
    "reads": get() + get(PATH, "Range: bytes=5-9") + get(PATH, "Range: bytes=0-0,5-9", "Connection: close"),
    "reads between": get() + get("/cluster/") + get() + GREET + get(PATH, "Connection: close"),
    "a push between": get(PATH, "Range: bytes=1-") + PUSH + PUSHED + get() + get("/x", "Connection: close"),
    "a chunked body": get() + CHUNKED + get() + GREET + get(PATH, "Connection: close"),
    "midstates": get(f"{PATH}/midstates") + get() + get(f"{PATH}/midstates?grain=7", "Connection: close"),
    "an empty line first": b"\r\n" + get() + b"\r\n" + get("/cluster/") + get(PATH, "Connection: close"),
    "heads": get().replace(b"GET", b"HEAD") * 3 + get(f"/blobs/{'0' * 128}") + get(PATH, "Connection: close"),
    "another cluster": get(PATH, "Swarm-Cluster: other") + get(PATH, "Connection: close"),
    "HTTP/1.0": get().replace(b"1.1", b"1.0") + get(),
    "no host": get() + b"GET " + PATH.encode() + b" HTTP/1.1\r\n\r\n" + get(),
    "two lengths": get() + GREET.replace(b"Host: x", b"Host: x\r\nContent-Length: 1") + get(),
    "bare line ends": get() + b"GET /cluster/ HTTP/1.1\nHost: x\n\n" + get(),
    "a folded field": get() + get(PATH, "A: b", " c") + get(),
    "a head without end": get() + b"GET /" + b"x" * 20_000 + get(),
    "fields without end": get() + get(PATH, *["A: " + "b" * 1000] * 20) + get(),
    "a refused body": get() + PUSH.replace(b"PUT", b"POST") + PUSHED,
    "a body refused unasked": PUSH.replace(
        b"Host: x", b"Host: x\r\nExpect: 100-continue\r\nContent-Encoding: a"
    ),
    "another expectation": get(PATH, "Expect: something", "Connection: close"),
    "a body to a read": get(PATH, "Content-Length: 5") + b"hello" + get(PATH, "Connection: close"),
    "an upgrade": get(PATH, "Upgrade: h2c") + get() + get(PATH, "Connection: close"),
}


@pytest.mark.parametrize("piece", [1 << 20, 11])
@pytest.mark.parametrize("said", sorted(TALKS))
@pytest_twisted.ensureDeferred
async def test_nobody_outside_notices(make: Callable[..., Any], asker: Node, said: str, piece: int) -> None:
    answers = []
    for served in SERVED:
        node = await make(served, web=WebLimits(linger=1.0, progress=600.0))
        talk = await connect(asker, node)
        await talk.send(TALKS[said], piece)
        await until(lambda: talk.gone is not None)  # noqa: B023 - used at once
        answers.append(_DATE.sub(b"", bytes(talk.heard)))
        assert talk.heard.startswith(b"HTTP/1.")
        await until(lambda: not node.site.connections and not node.site._lent)  # noqa: B023 - used at once
        assert not node.store.writing and not node.server.uploads.everywhere
        assert bool(node.membership.greetings) == (GREETING in TALKS[said] and said != "two lengths")
        assert all(peer == asker.credentials.peer_id for peer, *_ in node.membership.greetings)
        node.membership.greetings.clear()
    assert answers[0] == answers[1] == answers[2]


@pytest_twisted.ensureDeferred
async def test_reads_of_what_was_granted_stay_with_the_worker(make: Callable[..., Any], asker: Node) -> None:
    node = await make()
    assert node.crew is not None
    talk = await connect(asker, node)
    talk.transport.write(
        get(PATH, "Range: bytes=0-9") * 20 + get("/cluster/") + get(PATH, "Connection: close")
    )
    await until(lambda: talk.gone is not None)
    assert talk.gone.check(ConnectionDone)
    assert served_by_workers(node) == 21 and node.files.granted >= 1
    assert talk.heard.count(b"HTTP/1.1 206 ") == 20 and talk.heard.endswith(DATA)
    await until(lambda: not node.site.connections and not node.site._lent)


@pytest_twisted.ensureDeferred
async def test_without_grants_the_node_answers_it_all(make: Callable[..., Any], asker: Node) -> None:
    node = await make(SERVED[1])
    talk = await connect(asker, node)
    talk.transport.write(get() * 3 + get(PATH, "Connection: close"))
    await until(lambda: talk.gone is not None)
    assert served_by_workers(node) == 0 and bytes(talk.heard).count(DATA) == 4


@pytest_twisted.ensureDeferred
async def test_a_peer_that_reads_slowly_holds_up_the_node(make: Callable[..., Any], asker: Node) -> None:
    """An answer that passes through a worker is as long as the buffers between, wherever it is now."""
    node = await make(SERVED[1])
    big = pattern(64 << 20, 3)
    digest = node.store.put(big)
    talk = await connect(asker, node)
    talk.transport.transport.getHandle().setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
    talk.transport.write(get(f"/blobs/{digest.hex}", "Connection: close"))
    await until(lambda: len(talk.heard) > 1_000_000)
    talk.transport.pauseProducing()
    [channel] = node.site._channels
    sent = -1
    while sent != channel.requests[0].sentLength:
        sent = channel.requests[0].sentLength
        for _ in range(200):
            await turn()
    assert sent - len(talk.heard) < 24 << 20  # mostly what the kernel holds of the peer's connection
    talk.transport.resumeProducing()
    await until(lambda: talk.gone is not None)
    assert talk.heard.endswith(big[-1_000_000:]) and len(talk.heard) > len(big)


@pytest.mark.parametrize("served", SERVED)
@pytest_twisted.ensureDeferred
async def test_a_push_whose_peer_goes_leaves_nothing(
    make: Callable[..., Any], asker: Node, served: str
) -> None:
    node = await make(served)
    talk = await connect(asker, node)
    talk.transport.write(PUSH + PUSHED[:-1])
    await until(lambda: node.store.writing)
    talk.transport.abortConnection()
    await until(lambda: not node.store.writing)
    await until(lambda: not node.site.connections and not node.site._lent)
    assert Digest.of(PUSHED) not in node.store.blobs


@pytest.mark.parametrize("served", SERVED)
@pytest_twisted.ensureDeferred
async def test_a_body_that_does_not_come_is_waited_for_so_long(
    make: Callable[..., Any], asker: Node, served: str
) -> None:
    node = await make(served, web=WebLimits(body_grace=0.3, linger=0.1))
    talk = await connect(asker, node)
    talk.transport.write(PUSH + PUSHED[:10])
    await until(lambda: talk.gone is not None)
    assert talk.heard.startswith(b"HTTP/1.1 408 ") and not node.store.writing


@pytest.mark.parametrize("served", SERVED[::2])
@pytest.mark.parametrize("begun", [b"GET /cluster/ HTTP/1.1\r\nHost:", b""])
@pytest_twisted.ensureDeferred
async def test_so_is_a_head(make: Callable[..., Any], asker: Node, served: str, begun: bytes) -> None:
    node = await make(served, web=WebLimits(head=4.0, idle=4.0))
    talk = await connect(asker, node)
    talk.transport.write(get("/cluster/"))
    await until(lambda: talk.heard)
    talk.transport.write(begun)
    await until(lambda: talk.gone is not None)
    assert talk.heard.startswith(b"HTTP/1.1 200 ")
    assert (b"HTTP/1.1 408 " in talk.heard) == bool(begun)


@pytest.mark.parametrize("served", SERVED[:2])
@pytest_twisted.ensureDeferred
async def test_an_answer_that_breaks_off_does_not_end_as_if_whole(
    make: Callable[..., Any], asker: Node, served: str
) -> None:
    node = await make(served)
    whole = MemoryStore()
    digest = whole.put(pattern(2_000_000, 9))
    have = RangeSet()
    have.add(0, 2_000_000)

    class Broken:
        def __init__(self, reader: Any) -> None:
            self._reader = reader

        def __getattr__(self, name: str) -> Any:
            return getattr(self._reader, name)

        def read_now(self, offset: int, length: int) -> bytes | None:
            return self._reader.read_now(offset, length) if offset < 1_000_000 else None

        async def read(self, offset: int, length: int) -> bytes:
            raise StoreFailed("bad bytes")

        def fileno(self) -> int:
            return -1

    reader = await whole.open(digest)
    broken: Any = Broken(reader)
    node.fetcher.pulls[digest] = View(reader.info, have, lambda: broken)
    talk = await connect(asker, node)
    talk.transport.write(get(f"/blobs/{digest.hex}"))
    await until(lambda: talk.gone is not None)
    assert b"Content-Length: 2000000" in talk.heard and 1000 < len(talk.heard) < 2_000_000
    assert talk.gone is not None and not talk.gone.check(ConnectionDone)


@pytest.mark.parametrize("served", SERVED)
@pytest_twisted.ensureDeferred
async def test_who_is_revoked_is_cut_off_at_once_and_others_go_on(
    make: Callable[..., Any], world: OpenSSLWorld, asker: Node, served: str
) -> None:
    node = await make(served)
    revoked = await connect(Node(world, "revoked"), node)
    good = await connect(asker, node)
    for talk in (revoked, good):
        talk.transport.write(get("/cluster/"))
        await until(lambda: talk.heard)  # noqa: B023 - used at once
    paths = IdentityPaths(world.cert("ca"), world.cert("beta"), world.key("beta"))
    assert node.credentials.adopt(load(paths.requiring(crl=world.path / "crl.pem"))) is None
    await until(lambda: revoked.gone is not None)
    before = len(good.heard)
    good.transport.write(get())
    await until(lambda: len(good.heard) > before + len(DATA))
    again = await connect(Node(world, "revoked"), node)
    again.transport.write(get())
    await until(lambda: again.gone is not None)
    assert not again.heard
    refused = node.credentials.refusals + (0 if node.crew is None else node.crew.refusals)
    assert refused == 1


@pytest.mark.parametrize("served", SERVED[1:])
@pytest_twisted.ensureDeferred
async def test_a_stop_lets_an_answer_end(make: Callable[..., Any], asker: Node, served: str) -> None:
    node = await make(served)
    talks = [await connect(asker, node) for _ in range(3)]
    for talk in talks[:2]:
        talk.transport.write(get())
    await until(lambda: all(talk.heard for talk in talks[:2]))
    await node.end_workers()
    await until(lambda: all(talk.gone is not None for talk in talks))
    assert all(talk.heard.endswith(DATA[-100_000:]) for talk in talks[:2])

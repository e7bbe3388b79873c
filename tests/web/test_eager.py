"""Writing at once, over real sockets: all bytes come in order, and what cannot be had ends the connection."""

from __future__ import annotations

import os
import socket
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
import pytest_twisted
from attrs import define, field
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint
from twisted.internet.error import ConnectionLost
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from zope.interface import implementer

from swarm.interfaces import BlobInfo, IOpenBlob
from swarm.model.digest import Digest
from swarm.web.eager import IGathers, eager_file, eager_send, urge
from swarm.web.request import StreamingRequest
from swarm.web.site import StreamingSite

HEAD = b"head\r\n\r\n"
DATA = Random(2).randbytes(8 << 20)  # more than sockets take


@define(eq=False)
class End(Protocol):
    """One end of a connection."""

    heard: bytearray = field(factory=bytearray)
    lost: Deferred[Any] = field(factory=Deferred)
    awaited: int = 1 << 62
    complete: Deferred[None] = field(factory=Deferred)

    def dataReceived(self, data: bytes) -> None:
        self.heard += data
        if len(self.heard) >= self.awaited and not self.complete.called:
            self.complete.callback(None)

    def connectionLost(self, reason: Failure = None) -> None:  # type: ignore[assignment]  # Twisted's default
        self.lost.callback(reason.value)

    def expect(self, size: int) -> Deferred[None]:
        """Fires when so many bytes are here."""
        self.awaited = size
        self.dataReceived(b"")
        return self.complete


Dial = Callable[[], Awaitable[tuple[Any, End]]]


@pytest.fixture
def dial() -> Iterator[Dial]:
    """Gives a server's transport and the client, which reads nothing until it is resumed."""
    accepted: list[End] = []

    class Accepting(Factory):
        noisy = False

        def buildProtocol(self, addr: Any) -> End:
            accepted.append(End())
            return accepted[-1]

    port = pytest_twisted.blockon(TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(Accepting()))
    clients: list[End] = []

    async def dial() -> tuple[Any, End]:
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port)
        client = await endpoint.connect(Factory.forProtocol(End))
        clients.append(client)
        client.transport.pauseProducing()
        client.transport.getHandle().setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        while len(accepted) < len(clients):
            turn: Deferred[None] = Deferred()
            reactor.callLater(0.01, turn.callback, None)
            await turn
        return accepted[-1].transport, client

    yield dial
    for end in clients + accepted:
        if not end.lost.called:
            assert end.transport is not None
            end.transport.abortConnection()
            pytest_twisted.blockon(end.lost)
    pytest_twisted.blockon(port.stopListening())


@pytest.fixture
def file(tmp_path: Path) -> Iterator[int]:
    (tmp_path / "data").write_bytes(DATA)
    number = os.open(tmp_path / "data", os.O_RDWR)
    yield number
    os.close(number)


@pytest_twisted.ensureDeferred
async def test_head_and_file_are_on_their_way_at_once(dial: Dial, file: int) -> None:
    transport, client = await dial()
    assert eager_file(transport)(HEAD, file, 20_000)
    assert not transport.dataBuffer and not transport._tempDataLen
    assert client.transport is not None
    client.transport.resumeProducing()
    await client.expect(len(HEAD) + 20_000)
    assert client.heard == HEAD + DATA[:20_000]


@pytest_twisted.ensureDeferred
async def test_what_the_socket_does_not_take_follows_in_order(dial: Dial, file: int) -> None:
    transport, client = await dial()
    write = eager_file(transport)
    assert write(HEAD, file, len(DATA))
    assert not write(HEAD, file, len(DATA)), "something waits already: the usual way keeps the order"
    eager_send(transport)(memoryview(b"more"))
    assert client.transport is not None
    client.transport.resumeProducing()
    await client.expect(len(HEAD) + len(DATA) + 4)
    assert client.heard == HEAD + DATA + b"more"


@pytest_twisted.ensureDeferred
async def test_a_file_that_is_too_short_ends_the_connection(dial: Dial, file: int) -> None:
    transport, client = await dial()
    os.ftruncate(file, 10_000)
    assert eager_file(transport)(HEAD, file, 20_000)
    assert client.transport is not None
    client.transport.resumeProducing()
    assert isinstance(await client.lost, ConnectionLost) and len(client.heard) < len(HEAD) + 20_000


@pytest_twisted.ensureDeferred
async def test_nothing_is_written_to_a_connection_that_is_over(dial: Dial, file: int) -> None:
    transport, client = await dial()
    write = eager_file(transport)
    over = transport.protocol.lost
    transport.abortConnection()
    await over
    assert not write(HEAD, file, 20_000)
    assert client.transport is not None
    client.transport.resumeProducing()
    await client.lost
    assert not client.heard


@implementer(IOpenBlob)
class Open:
    """A blob of 100,000 bytes."""

    size = 100_000
    info = BlobInfo(Digest.of(DATA[:size]), size)
    fields = b""
    fields_of: object = None
    doubted = False

    def __init__(self, file: int) -> None:
        self.file = file

    def current(self) -> bool:
        return True

    def fill(self, buffer: memoryview) -> bool:
        raise AssertionError("it is in memory")

    def in_memory(self) -> int:
        return self.file


class Shelf:
    """The one blob there is, read by everybody."""

    def __init__(self, blob: Open) -> None:
        self.blob = blob
        self.asked = 0
        self.head = len(
            b"HTTP/1.1 200 OK\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\nContent-Length: 100000\r\n\r\n"
        )

    def opened(self, key: bytes) -> Open | None:
        self.asked += 1
        return self.blob

    def readable(self) -> bool:
        return True

    def basis(self) -> object:
        return self

    def fields(self, info: BlobInfo) -> bytes:
        return b"Content-Length: %d\r\n\r\n" % info.size


async def _admit(request: StreamingRequest) -> None:
    raise AssertionError("the short path has it")


@pytest_twisted.ensureDeferred
async def test_many_who_ask_at_once_for_a_file_get_it(file: int) -> None:
    shelf = Shelf(Open(file))
    site = StreamingSite(Resource(), admit=_admit, clock=reactor, blobs=shelf, answers=shelf)
    port = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(site)
    endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port)
    clients: list[End] = [await endpoint.connect(Factory.forProtocol(End)) for _ in range(20)]
    for client in clients:
        assert client.transport is not None
        client.transport.write(b"GET /%s HTTP/1.1\r\nHost: h\r\n\r\n" % shelf.blob.info.digest.hex.encode())
    for client in clients:
        await client.expect(shelf.head + shelf.blob.size)
        head, _, body = bytes(client.heard).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 OK\r\n")
        assert body == DATA[: shelf.blob.size]
    assert 1 <= shelf.asked <= 20
    for client in clients:
        assert client.transport is not None
        client.transport.loseConnection()
        await client.lost
    await port.stopListening()


def test_only_plain_tcp_has_such_a_way(file: int) -> None:
    transport = StringTransport()
    assert not eager_file(transport)(HEAD, file, 20_000)
    assert transport.value() == b""


@implementer(IGathers)
class Gathering:
    """A transport above another that keeps what is written until it is told."""

    def __init__(self, transport: Any) -> None:
        self.transport = transport
        self._kept = b""

    def write(self, data: bytes) -> None:
        self._kept += data

    def gatheredOut(self) -> None:
        kept, self._kept = self._kept, b""
        self.transport.write(kept)


@pytest_twisted.ensureDeferred
async def test_what_was_written_is_sent_before_the_turn_is_over(dial: Dial) -> None:
    transport, client = await dial()
    above = Gathering(transport)
    transport.write(b"one ")
    above.write(b"two")
    urge(above)
    assert not transport.dataBuffer and not transport._tempDataLen
    urge(above)  # there is nothing
    transport.write(DATA)
    urge(above)
    assert transport.dataBuffer, "more than the socket takes: the rest goes the usual way"
    assert client.transport is not None
    client.transport.resumeProducing()
    await client.expect(7 + len(DATA))
    assert client.heard == b"one two" + DATA
    transport.loseConnection()
    urge(above)
    await client.lost


def test_what_is_no_socket_is_left_alone() -> None:
    transport = StringTransport()
    transport.write(b"x")
    urge(transport)
    assert transport.value() == b"x"

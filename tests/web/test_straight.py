"""Blob bytes on the straight way, over real sockets: the same bytes, pace, end and count as on the other."""

from __future__ import annotations

import gc
import os
import socket
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from attrs import define, field
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import (
    TCP4ClientEndpoint,
    TCP4ServerEndpoint,
    UNIXClientEndpoint,
    UNIXServerEndpoint,
)
from twisted.internet.protocol import Factory, Protocol
from twisted.python.failure import Failure

from swarm.web.limits import WebLimits
from swarm.web.straight import SENDFILE

from .opened import BLOB, Files

SIZE = len(BLOB)
LIMITS = WebLimits()


@define(eq=False)
class Client(Protocol):
    """Asks, and remembers what came."""

    heard: bytearray = field(factory=bytearray)
    lost: Deferred[Any] = field(factory=Deferred)
    gone: bool = False

    def dataReceived(self, data: bytes) -> None:
        self.heard += data

    def connectionLost(self, reason: Failure = None) -> None:  # type: ignore[assignment]  # Twisted's default
        self.gone = True
        self.lost.callback(reason.value)

    def ask(self, *fields: str, method: str = "GET") -> None:
        assert self.transport is not None
        lines = [f"{method} / HTTP/1.1", "Host: h", *fields, "", ""]
        self.transport.write("\r\n".join(lines).encode())

    def whole(self) -> bool:
        """Has one whole blob come, and no more?"""
        return self.heard[-100:] == BLOB[-100:]

    def bodies(self) -> list[bytes]:
        """The bodies of the responses that are whole."""
        data, found = bytes(self.heard), list[bytes]()
        while b"\r\n\r\n" in data:
            head, _, rest = data.partition(b"\r\n\r\n")
            length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            if len(rest) < length:
                break
            found.append(rest[:length])
            data = rest[length:]
        return found


Dial = Callable[[], Awaitable[Client]]


async def until(condition: Callable[[], object]) -> None:
    for _ in range(6000):
        if condition():
            return
        waiting: Deferred[None] = Deferred()
        reactor.callLater(0.01, waiting.callback, None)
        await waiting
    raise AssertionError("it never came to that")


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path / "blob")


@pytest.fixture
def dial(files: Files) -> Iterator[Dial]:
    port = pytest_twisted.blockon(TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(files.site))
    clients: list[Client] = []

    async def dial() -> Client:
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port)
        client = await endpoint.connect(Factory.forProtocol(Client))
        assert isinstance(client, Client) and client.transport is not None
        # Small buffers, so that much is still to be sent when a test looks.
        client.transport.getHandle().setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        clients.append(client)
        return client

    yield dial
    for client in clients:
        if not client.gone:
            assert client.transport is not None
            client.transport.abortConnection()
            pytest_twisted.blockon(client.lost)
    pytest_twisted.blockon(Deferred.fromCoroutine(until(lambda: not files.site.connections)))
    pytest_twisted.blockon(port.stopListening())


@pytest_twisted.ensureDeferred
async def test_a_whole_blob_comes_from_its_file(files: Files, dial: Dial) -> None:
    client = await dial()
    client.ask()
    await until(client.bodies)
    assert client.bodies() == [BLOB]
    assert files.sent == [SIZE] and files.readers[0].closed
    assert files.readers[0].aside < SIZE


@pytest.mark.parametrize(
    ("start", "stop"), [(0, SIZE), (1, SIZE - 1), (5000, 5000 + SENDFILE + 1), (SIZE - 700_001, SIZE)]
)
@pytest_twisted.ensureDeferred
async def test_a_range_is_what_was_asked_for(files: Files, dial: Dial, start: int, stop: int) -> None:
    client = await dial()
    client.ask(f"Range: bytes={start}-{stop - 1}")
    await until(client.bodies)
    assert client.bodies() == [BLOB[start:stop]] and files.sent == [stop - start]


@pytest_twisted.ensureDeferred
async def test_what_is_short_takes_the_other_way(files: Files, dial: Dial) -> None:
    client = await dial()
    client.ask(f"Range: bytes=0-{LIMITS.chunk - 1}")
    await until(client.bodies)
    assert client.bodies() == [BLOB[: LIMITS.chunk]]
    assert files.readers[0].aside == LIMITS.chunk


@pytest_twisted.ensureDeferred
async def test_parts_of_a_multipart_answer_may_go_either_way(files: Files, dial: Dial) -> None:
    client = await dial()
    client.ask("Range: bytes=0-9,1000-999999,2000000-4999999")
    await until(client.bodies)
    [body] = client.bodies()
    assert b"\r\n\r\n" + BLOB[:10] + b"\r\n--" in body
    assert b"\r\n\r\n" + BLOB[1000:1_000_000] + b"\r\n--" in body
    assert b"\r\n\r\n" + BLOB[2_000_000:5_000_000] + b"\r\n--" in body
    assert files.sent == [len(body)]


@pytest_twisted.ensureDeferred
async def test_the_connection_serves_on_and_requests_that_waited_are_answered(
    files: Files, dial: Dial
) -> None:
    client = await dial()
    for _ in range(3):
        client.ask()
    await until(lambda: len(files.sent) == 3 and client.whole())
    client.ask("Range: bytes=7-8")
    await until(lambda: len(client.bodies()) == 4)
    assert client.bodies() == [BLOB, BLOB, BLOB, BLOB[7:9]]
    assert all(reader.closed for reader in files.readers) and not client.gone


@pytest_twisted.ensureDeferred
async def test_over_a_unix_socket_nothing_is_sent_straight(files: Files, tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    port = await UNIXServerEndpoint(reactor, path).listen(files.site)
    client: Any = await UNIXClientEndpoint(reactor, path).connect(Factory.forProtocol(Client))
    client.ask()
    await until(client.bodies)
    assert client.bodies() == [BLOB] and files.readers[0].aside == SIZE
    client.transport.abortConnection()
    await client.lost
    await port.stopListening()


async def stalled(files: Files, client: Client) -> None:
    """Have the client stop reading, and wait until its response is under way."""
    assert client.transport is not None
    client.transport.pauseProducing()
    client.ask()
    await until(lambda: files.requests and files.requests[-1].sentLength > 0)


@pytest_twisted.ensureDeferred
async def test_bytes_that_are_no_longer_free_to_go_take_the_other_way(files: Files, dial: Dial) -> None:
    client = await dial()
    await stalled(files, client)
    files.readers[0].straight = False
    client.transport.resumeProducing()
    await until(client.bodies)
    assert client.bodies() == [BLOB] and files.sent == [SIZE]
    assert 0 < files.readers[0].aside < SIZE


@pytest_twisted.ensureDeferred
async def test_a_file_that_gets_shorter_breaks_the_connection(files: Files, dial: Dial) -> None:
    """Promise 3: a response that ends is correct."""
    client = await dial()
    await stalled(files, client)
    files.readers[0].truncate(SIZE - 1)
    client.transport.resumeProducing()
    await until(lambda: client.gone)
    assert not client.bodies() and client.heard and files.readers[0].closed


@pytest.mark.parametrize("politely", [True, False])
@pytest_twisted.ensureDeferred
async def test_a_client_that_leaves_closes_the_reader(files: Files, dial: Dial, politely: bool) -> None:
    gc.collect()  # what earlier tests left open is not counted
    before = len(os.listdir("/proc/self/fd"))
    client = await dial()
    await stalled(files, client)
    if politely:
        client.transport.loseConnection()
    else:
        client.transport.abortConnection()
    await client.lost
    await until(lambda: files.readers[0].closed)
    await until(lambda: not files.site.connections)
    assert len(os.listdir("/proc/self/fd")) <= before


@pytest_twisted.ensureDeferred
async def test_a_client_that_takes_nothing_is_dropped(files: Files, dial: Dial) -> None:
    client = await dial()
    await stalled(files, client)

    def dropped() -> bool:
        files.clock.advance(LIMITS.progress)
        return files.readers[0].closed

    await until(dropped)
    await until(lambda: not files.site.connections)


@pytest_twisted.ensureDeferred
async def test_a_client_that_takes_its_time_is_served(files: Files, dial: Dial) -> None:
    client = await dial()
    await stalled(files, client)
    request = files.requests[0]
    while not client.whole():
        sent = request.sentLength
        files.clock.advance(LIMITS.progress * 0.9)
        client.transport.resumeProducing()
        await until(lambda: request.sentLength > sent or client.whole())  # noqa: B023 - used at once
        client.transport.pauseProducing()
        files.clock.advance(LIMITS.progress * 0.2)
    assert client.bodies() == [BLOB]


@pytest_twisted.ensureDeferred
async def test_many_who_wait_hold_a_reader_each_and_nothing_after(files: Files, dial: Dial) -> None:
    gc.collect()  # what earlier tests left open is not counted
    before = len(os.listdir("/proc/self/fd"))
    clients = [await dial() for _ in range(40)]
    for client in clients:
        await stalled(files, client)
    for client in clients[::2]:
        client.transport.abortConnection()
    for client in clients[1::2]:
        client.transport.resumeProducing()
    await until(lambda: all(client.gone or client.whole() for client in clients))
    assert all(client.bodies() == [BLOB] for client in clients[1::2])
    for client in clients[1::2]:
        client.transport.loseConnection()
    await until(lambda: all(reader.closed for reader in files.readers) and not files.site.connections)
    await until(lambda: len(os.listdir("/proc/self/fd")) <= before)

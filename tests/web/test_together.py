"""Connections read together, over real sockets: each is as if the reactor read it, whatever becomes of it."""

from __future__ import annotations

import socket
import struct
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
import pytest_twisted
from attrs import define, field
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import StringTransport
from twisted.logger import capturedLogs
from twisted.python.failure import Failure

from swarm.web.together import Together


@define(eq=False)
class Joined(Protocol):
    """A server's end that joins, and leaves with its connection, as the site's channels do."""

    together: Together
    heard: list[bytes] = field(factory=list)
    lost: Deferred[Any] = field(factory=Deferred)
    then: Callable[[Joined], object] = lambda self: None

    def connectionMade(self) -> None:
        self.together.join(self.transport)

    def dataReceived(self, data: bytes) -> None:
        self.heard.append(data)
        self.then(self)

    def connectionLost(self, reason: Failure = None) -> None:  # type: ignore[assignment]  # Twisted's default
        self.together.leave(self.transport)
        self.lost.callback(reason.value)


@define(eq=False)
class House:
    """The connections, and how often it was found out who has something to read."""

    looks: int = 0
    ends: list[Joined] = field(factory=list)
    clients: list[socket.socket] = field(factory=list)
    together: Together = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.together = Together(reactor, self._look)

    def _look(self) -> None:
        self.looks += 1


Dial = Callable[[], Awaitable[tuple[Joined, socket.socket]]]


async def until(condition: Callable[[], object]) -> None:
    for _ in range(6000):
        if condition():
            return
        waiting: Deferred[None] = Deferred()
        reactor.callLater(0.01, waiting.callback, None)
        await waiting
    raise AssertionError("it never came to that")


@pytest.fixture
def house() -> House:
    return House()


@pytest.fixture
def dial(house: House) -> Iterator[Dial]:
    class Accepting(Factory):
        noisy = False

        def buildProtocol(self, addr: Any) -> Joined:
            house.ends.append(Joined(house.together))
            return house.ends[-1]

    port = pytest_twisted.blockon(TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(Accepting()))

    async def dial() -> tuple[Joined, socket.socket]:
        client = socket.create_connection(("127.0.0.1", port.getHost().port))
        house.clients.append(client)
        await until(lambda: len(house.ends) == len(house.clients))
        return house.ends[-1], client

    yield dial
    for client in house.clients:
        client.close()
    for end in house.ends:
        pytest_twisted.blockon(Deferred.fromCoroutine(until(lambda: end.lost.called)))  # noqa: B023 - used at once
    pytest_twisted.blockon(port.stopListening())
    assert house.together not in reactor.getReaders()
    assert house.together.fileno() == -1, "nothing is left open"


@pytest_twisted.ensureDeferred
async def test_who_speaks_at_the_same_time_is_read_in_one_look(house: House, dial: Dial) -> None:
    pairs = [await dial() for _ in range(20)]
    assert not {end.transport for end in house.ends} & set(reactor.getReaders())
    for number, (_, client) in enumerate(pairs):
        client.sendall(b"%d" % number)
    await until(lambda: all(end.heard for end in house.ends))
    assert [end.heard for end, _ in pairs] == [[b"%d" % number] for number in range(20)]
    assert house.looks == 1


@pytest_twisted.ensureDeferred
async def test_who_is_paused_is_not_read(house: House, dial: Dial) -> None:
    end, client = await dial()
    other, spoken = await dial()
    end.transport.pauseProducing()  # type: ignore[union-attr]
    end.transport.pauseProducing()  # type: ignore[union-attr]
    client.sendall(b"not yet")
    spoken.sendall(b"now")
    await until(lambda: other.heard)
    assert not end.heard
    end.transport.resumeProducing()  # type: ignore[union-attr]
    end.transport.resumeProducing()  # type: ignore[union-attr]
    await until(lambda: end.heard == [b"not yet"])


@pytest_twisted.ensureDeferred
async def test_the_end_comes_after_all_that_was_sent(dial: Dial) -> None:
    end, client = await dial()
    client.sendall(b"last words")
    client.shutdown(socket.SHUT_WR)
    await until(lambda: end.lost.called)
    assert end.heard == [b"last words"]
    assert isinstance(end.lost.result, ConnectionDone)


@pytest_twisted.ensureDeferred
async def test_a_reset_is_a_loss(dial: Dial) -> None:
    end, client = await dial()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()
    await until(lambda: end.lost.called)
    assert isinstance(end.lost.result, ConnectionLost)


@pytest_twisted.ensureDeferred
async def test_a_protocol_that_raises_loses_its_connection_and_no_other(house: House, dial: Dial) -> None:
    def fail(end: Joined) -> None:
        raise ZeroDivisionError

    pairs = [await dial() for _ in range(3)]
    pairs[0][0].then = fail
    with capturedLogs() as logged:
        for _, client in pairs:
            client.sendall(b"x")
        await until(lambda: all(end.heard for end in house.ends) and pairs[0][0].lost.called)
    assert isinstance(pairs[0][0].lost.result, ZeroDivisionError)
    assert not pairs[1][0].lost.called and not pairs[2][0].lost.called
    assert [event["log_failure"].type for event in logged if "log_failure" in event] == [ZeroDivisionError]


@pytest_twisted.ensureDeferred
async def test_who_is_sent_away_by_another_is_not_read_any_more(house: House, dial: Dial) -> None:
    pairs = [await dial() for _ in range(3)]

    def send_away(end: Joined) -> None:
        for each in house.ends:
            if each is not end:
                each.transport.abortConnection()  # type: ignore[union-attr]

    for end, client in pairs:
        end.then = send_away
        client.sendall(b"x")
    await until(lambda: sum(end.lost.called for end in house.ends) == 2)
    assert sum(bool(end.heard) for end in house.ends) == 1


@pytest_twisted.ensureDeferred
async def test_when_the_reactor_ends_all_are_told(house: House, dial: Dial) -> None:
    ends = [(await dial())[0] for _ in range(3)]
    house.together.connectionLost(Failure(ConnectionDone()))
    assert all(end.lost.called for end in ends)


def test_only_plain_tcp_joins(house: House) -> None:
    transport = StringTransport()
    house.together.join(transport)
    house.together.leave(transport)
    assert house.together not in reactor.getReaders()

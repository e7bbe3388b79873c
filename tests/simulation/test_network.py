"""The simulated network does what TCP does, and nothing else."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from twisted.internet.error import ConnectionDone, ConnectionLost, ConnectionRefusedError, TimeoutError
from twisted.internet.interfaces import ITCPTransport
from twisted.internet.protocol import ClientFactory, Factory, Protocol
from zope.interface.verify import verifyObject

from swarm.testing.simulation.network import Network
from swarm.testing.simulation.reactor import SimReactor
from swarm.testing.simulation.timeline import Timeline


class End(Protocol):
    """Notes what happens to it."""

    transport: Any

    def __init__(self, log: list[End]) -> None:
        self.received = b""
        self.over: Any = None
        log.append(self)

    def dataReceived(self, data: bytes) -> None:
        self.received += data

    def connectionLost(self, reason: Any = None) -> None:
        self.over = reason.type


class Dialing(ClientFactory):
    noisy = False
    failed: Any = None

    def __init__(self, log: list[End]) -> None:
        self.log = log

    def buildProtocol(self, addr: Any) -> Protocol:
        return End(self.log)

    def clientConnectionFailed(self, connector: Any, reason: Any) -> None:
        self.failed = reason.type


class Pair:
    """Two hosts, ``here`` and ``there``, and what connects them."""

    def __init__(self, seed: int) -> None:
        Factory.noisy = False
        self.timeline = Timeline(seed)
        self.network = Network(self.timeline, Random(seed))
        self.here, self.there = (
            SimReactor(name, self.network, self.network.add(name), random=Random(seed))
            for name in ("here", "there")
        )
        self.servers: list[End] = []
        self.clients: list[End] = []
        self.dialing = Dialing(self.clients)

    def connect(self) -> tuple[End, End]:
        self.there.listenTCP(80, Factory.forProtocol(lambda: End(self.servers)))
        self.dial()
        self.timeline.until(lambda: bool(self.clients and self.servers), most=5.0)
        return self.clients[0], self.servers[0]

    def dial(self) -> None:
        self.here.connectTCP(self.there.host.ip, 80, self.dialing, timeout=10.0)

    def wait(self, seconds: float) -> None:
        self.timeline.until(most=seconds)


@pytest.fixture(params=range(5))
def pair(request: pytest.FixtureRequest) -> Pair:
    return Pair(request.param)


def test_bytes_arrive_once_and_in_order(pair: Pair) -> None:
    client, server = pair.connect()
    sent = [Random(size).randbytes(size) for size in (1, 100_000, 70_000, 3, 500_000)]
    for each in sent:
        client.transport.write(each)
    pair.wait(5.0)
    assert server.received == b"".join(sent)
    verifyObject(ITCPTransport, client.transport)


def test_what_was_written_before_the_end_arrives_before_it(pair: Pair) -> None:
    client, server = pair.connect()
    client.transport.write(bytes(300_000))
    client.transport.loseConnection()
    pair.wait(5.0)
    assert len(server.received) == 300_000
    assert server.over is client.over is ConnectionDone


def test_an_aborted_connection_is_lost_at_the_other_end(pair: Pair) -> None:
    client, server = pair.connect()
    client.transport.abortConnection()
    pair.wait(5.0)
    assert server.over is ConnectionLost


def test_a_reader_that_pauses_holds_up_the_writers_producer(pair: Pair) -> None:
    client, server = pair.connect()
    server.transport.pauseProducing()
    said: list[str] = []

    class Producer:
        def pauseProducing(self) -> None:
            said.append("pause")

        def resumeProducing(self) -> None:
            said.append("resume")

        def stopProducing(self) -> None:
            said.append("stop")

    client.transport.registerProducer(Producer(), True)
    client.transport.write(bytes(4 << 20))
    pair.wait(60.0)
    assert said == ["pause"]
    assert server.received == b""
    server.transport.resumeProducing()
    pair.wait(60.0)
    assert said == ["pause", "resume"]
    assert len(server.received) == 4 << 20


def test_a_cut_holds_bytes_back_until_it_is_healed(pair: Pair) -> None:
    client, server = pair.connect()
    pair.network.cut(["here"], ["there"])
    client.transport.write(b"late")
    server.transport.write(b"not cut this way")
    pair.wait(30.0)
    assert (server.received, client.received) == (b"", b"not cut this way")
    pair.network.heal()
    pair.wait(5.0)
    assert server.received == b"late"


def test_a_sender_gives_up_in_the_end(pair: Pair) -> None:
    client, server = pair.connect()
    pair.network.cut(["here"], ["there"])
    client.transport.write(b"never")
    pair.wait(200.0)
    assert client.over is TimeoutError
    assert server.over is None  # nobody told it


def test_a_killed_process_resets_its_connections_one_without_power_does_not(pair: Pair) -> None:
    client, server = pair.connect()
    pair.network.end(pair.there, power=False)
    pair.wait(5.0)
    assert client.over is ConnectionLost
    assert server.over is None  # it is dead

    other = Pair(1)
    client, _ = other.connect()
    other.network.end(other.there, power=True)
    other.wait(5.0)
    assert client.over is None
    client.transport.write(b"hello?")
    other.wait(5.0)
    assert client.over is None
    other.network.boot(other.there.host)
    other.wait(5.0)
    assert client.over is ConnectionLost


def test_a_death_takes_the_timers_and_threads_of_that_process_only(pair: Pair) -> None:
    rang: list[str] = []
    pair.here.callLater(1.0, rang.append, "here")
    pair.there.callLater(1.0, rang.append, "there")
    pair.network.end(pair.there, power=True)
    pair.wait(2.0)
    assert rang == ["here"]
    assert pair.there.getDelayedCalls() == []


def test_nobody_listening_refuses_no_power_says_nothing(pair: Pair) -> None:
    pair.dial()
    pair.wait(5.0)
    assert pair.dialing.failed is ConnectionRefusedError
    pair.dialing.failed = None
    pair.there.host.up = False
    pair.dial()
    pair.wait(9.0)
    assert pair.dialing.failed is None
    pair.wait(2.0)
    assert pair.dialing.failed is TimeoutError


def test_timers_can_be_moved(pair: Pair) -> None:
    rang: list[tuple[str, float]] = []

    def ring(name: str) -> None:
        rang.append((name, round(pair.timeline.now, 3)))

    put_off, brought_forward, cancelled = (
        pair.here.callLater(5.0, ring, name) for name in ("put off", "forward", "cancelled")
    )
    put_off.reset(7.0)
    brought_forward.reset(1.0)
    cancelled.cancel()
    pair.wait(10.0)
    assert rang == [("forward", 1.0), ("put off", 7.0)]
    assert pair.here.getDelayedCalls() == []

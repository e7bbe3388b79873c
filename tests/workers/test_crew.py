"""Workers as the node sees them: who gets what, and what becomes of it when one dies, hangs or leaves."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator, Sequence
from random import Random
from typing import Any

import attrs
import pytest
from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessDone, ProcessExitedAlready
from twisted.internet.interfaces import IAddress
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from swarm.core.backoff import Backoff
from swarm.errors import BlobMissing
from swarm.model.digest import Digest
from swarm.model.peers import PeerID
from swarm.services.tasks import Tasks
from swarm.workers import messages
from swarm.workers.crew import Crew, Granted
from swarm.workers.messages import PUBLIC, Entry, ErrandSaid, Orders
from swarm.workers.packets import Packets
from swarm.workers.settings import WorkerSettings
from swarm.workers.visits import Visit
from swarm.workers.worker import CONTROL, Worker

SETTINGS = WorkerSettings(start=10.0, silence=5.0, drain=3.0, settled=60.0, restart=Backoff(0.5, 60.0, 0.1))
ENTRY = Entry(5, ("a",), 1, 2, 0.0, 100.0, 3)
BLOB, ABSENT = Digest.of(b"blob"), Digest.of(b"absent")


class Process:
    """The other end of what a worker's process would hold."""

    def __init__(self, world: World, protocol: Worker, control: int) -> None:
        self.world = world
        self.protocol = protocol
        self.pid = 100 + len(world.processes)
        self.killed = self.alive = False
        self.heard: list[tuple[bytes, Sequence[int]]] = []
        self.packets = Packets(
            socket.socket(fileno=os.dup(control)),
            world,
            lambda *heard: self.heard.append(heard),
            lambda: None,
        )
        self.alive = True

    def signalProcess(self, name: str) -> None:
        if not self.alive:
            raise ProcessExitedAlready
        self.killed = True
        self.end()

    def end(self) -> None:
        self.alive = False
        self.packets.close()
        self.world.callLater(0, self.protocol.processEnded, Failure(ProcessDone(0)))

    def ready(self) -> None:
        self.packets.send(messages.READY)
        self.world.turn()

    def kinds(self) -> bytes:
        return b"".join(messages.kind(message) for message, _ in self.heard)

    def of(self, kind: bytes) -> list[tuple[bytes, Sequence[int]]]:
        return [each for each in self.heard if messages.kind(each[0]) == kind]

    def tell(self, kind: bytes, serial: int, rest: bytes = b"", descriptors: Sequence[int] = ()) -> None:
        self.packets.send(messages.numbered(kind, serial, rest), descriptors)
        self.world.turn()


class World(Clock):
    """A reactor whose processes are puppets."""

    def __init__(self) -> None:
        super().__init__()
        self.readers: dict[Packets, None] = {}
        self.processes: list[Process] = []
        self.broken = False

    def addReader(self, reader: Packets) -> None:
        self.readers[reader] = None

    def removeReader(self, reader: Packets) -> None:
        self.readers.pop(reader, None)

    def addWriter(self, writer: Packets) -> None:
        raise AssertionError("a socket pair takes what these tests send")

    def removeWriter(self, writer: Packets) -> None:
        pass

    def spawnProcess(
        self, protocol: Worker, executable: str, args: list[str], env: object, childFDs: dict[int, Any]
    ) -> None:
        if self.broken:
            raise OSError("no more processes")
        process = Process(self, protocol, childFDs[CONTROL])
        self.processes.append(process)
        protocol.transport = process

    def turn(self) -> None:
        for _ in range(4):
            for reader in list(self.readers):
                reason = reader.doRead() if reader in self.readers else None
                if reason is not None:
                    reader.connectionLost(Failure(reason))
            self.advance(0)

    def pass_time(self, seconds: float) -> None:
        for _ in range(int(seconds * 10)):
            self.advance(0.1)
            self.turn()


class Door:
    """Where clients come in."""

    def __init__(self) -> None:
        self.connections = 0
        self.gone: list[object] = []
        self.served: list[tuple[socket.socket, bytes]] = []
        self.again: list[object] = []
        self.visits: list[Visit] = []

    def left(self, client: IAddress | None) -> None:
        self.gone.append(client)

    def serve(self, connection: socket.socket, received: bytes) -> None:
        self.served.append((connection, received))

    def taken_again(self, client: IAddress | None) -> None:
        self.again.append(client)

    def visit(self, visit: Visit) -> None:
        self.visits.append(visit)


@attrs.define
class Node:
    world: World
    door: Door
    crew: Crew
    orders: list[Orders]
    closed: list[int]
    verified: list[Digest]
    clients: list[socket.socket]

    def deal(self, name: Any) -> socket.socket:
        """A connection comes; the client's end of it."""
        ours, theirs = socket.socketpair()
        self.clients += [theirs]
        worker = self.crew.choose(PUBLIC)
        assert worker is not None
        worker.deal(PUBLIC, ours, name)
        self.world.turn()
        return theirs


@pytest.fixture
def make() -> Iterator[Callable[[int], Node]]:
    made: list[Node] = []

    def make(count: int) -> Node:
        world, door = World(), Door()
        orders = [Orders("deny", None, (), 3.0, 10, {}, "swarm", {}, {})]
        closed, verified = list[int](), list[Digest]()

        async def grant(digest: Digest) -> Granted | None:
            if digest == ABSENT:
                raise BlobMissing(digest)
            if digest != BLOB:
                return None
            files = os.open(os.devnull, os.O_RDONLY), os.open("/", os.O_RDONLY)

            def close() -> None:
                closed.append(1)
                for each in files:
                    os.close(each)

            return Granted(ENTRY, files, close)

        async def verify(digest: Digest) -> None:
            verified.append(digest)

        crew = Crew(
            count,
            SETTINGS,
            orders=lambda: orders[-1],
            grant=grant,
            verify=verify,
            reactor=world,
            random=Random(1),
            tasks=Tasks(),
        )
        crew.open(PUBLIC, door)
        crew.start()
        world.turn()
        node = Node(world, door, crew, orders, closed, verified, [])
        made.append(node)
        return node

    yield make
    for node in made:
        for client in node.clients:
            client.close()
        for connection, _ in node.door.served:
            connection.close()


def test_orders_come_first_and_nothing_is_dealt_before_a_worker_is_ready(make: Callable[[int], Node]) -> None:
    node = make(2)
    assert [process.kinds() for process in node.world.processes] == [b"O", b"O"]
    assert messages.decode_orders(node.world.processes[0].heard[0][0][1:]) == node.orders[0]
    assert node.crew.choose(PUBLIC) is None and node.crew.serving == 0 and node.crew.wanted == 2
    node.world.processes[1].ready()
    assert node.crew.serving == 1
    chosen = node.crew.choose(PUBLIC)
    assert chosen is not None and chosen.slot == 2


def test_whoever_has_the_fewest_gets_the_next(make: Callable[[int], Node]) -> None:
    node = make(2)
    for process in node.world.processes:
        process.ready()
    node.door.connections = 3
    for name in range(6):
        node.deal(name)
    assert [len(process.of(messages.TAKE)) for process in node.world.processes] == [3, 3]
    node.door.connections = 2
    assert node.crew.choose(PUBLIC) is None
    node.world.processes[1].tell(messages.TAKEN, 2)
    node.world.processes[1].tell(messages.CLOSED, 2)
    chosen = node.crew.choose(PUBLIC)
    assert chosen is not None and chosen.slot == 2


def test_a_connection_is_the_nodes_too_until_it_is_confirmed(make: Callable[[int], Node]) -> None:
    node = make(1)
    node.door.connections = 10
    [process] = node.world.processes
    process.ready()
    for name in ("confirmed", "unconfirmed", "closed"):
        node.deal(name)
    assert len(process.of(messages.TAKE)) == 3
    process.tell(messages.TAKEN, 1)
    process.tell(messages.TAKEN, 3)
    process.tell(messages.CLOSED, 3)
    assert node.door.gone == ["closed"]
    process.end()
    node.world.turn()
    assert sorted(map(str, node.door.gone)) == ["closed", "confirmed", "unconfirmed"]
    [(connection, received)] = node.door.served
    assert received == b""
    connection.sendall(b"still there")
    assert node.clients[1].recv(100) == b"still there"


def test_what_comes_back_is_served_from_its_bytes_on(make: Callable[[int], Node]) -> None:
    node = make(1)
    [process] = node.world.processes
    process.ready()
    client = node.deal("client")
    [descriptor] = process.of(messages.TAKE)[0][1]
    process.tell(messages.TAKEN, 1)
    process.tell(messages.BACK, 1, b"PUT /x", [descriptor])
    os.close(descriptor)
    [(connection, received)] = node.door.served
    assert received == b"PUT /x" and node.door.gone == ["client"]
    connection.sendall(b"hello")
    assert client.recv(100) == b"hello"


def test_an_errand_is_a_visit_that_counts_as_the_nodes_until_it_ends(make: Callable[[int], Node]) -> None:
    node = make(1)
    [process] = node.world.processes
    process.ready()
    node.deal("client")
    process.tell(messages.TAKEN, 1)
    said = ErrandSaid(True, PeerID(b"p" * 32), b"GET /cluster/ HTTP/1.1")
    for how in (messages.GOES_ON, messages.CLOSES):
        ours, theirs = socket.socketpair()
        process.tell(messages.ERRAND, 1, said.encode(), [theirs.fileno()])
        visit = node.door.visits.pop()
        assert (visit.client, visit.peer, visit.received, visit.alone) == (
            "client",
            said.peer,
            said.head,
            True,
        )
        assert node.door.gone.pop() == "client" and not node.door.again
        visit.stream.sendall(b"answer")
        assert ours.recv(100) == b"answer"
        visit.ended(how)
        node.world.turn()
        assert messages.number(process.of(messages.ENDED)[-1][0]) == (1, how)
        assert node.door.again.pop() == "client" and not node.door.gone
        for each in (ours, theirs, visit.stream):
            each.close()
    process.tell(messages.CLOSED, 1)
    assert node.door.gone == ["client"]


@pytest.mark.parametrize("how", ["the client goes", "the worker dies"])
def test_a_visit_that_outlives_its_client_is_counted_once(make: Callable[[int], Node], how: str) -> None:
    node = make(1)
    [process] = node.world.processes
    process.ready()
    node.deal("client")
    process.tell(messages.TAKEN, 1)
    ours, theirs = socket.socketpair()
    process.tell(messages.ERRAND, 1, ErrandSaid(True, PeerID(bytes(32)), b"").encode(), [theirs.fileno()])
    visit = node.door.visits.pop()
    assert node.door.gone == ["client"]
    if how == "the client goes":
        process.tell(messages.CLOSED, 1)
    else:
        process.end()
        node.world.turn()
    visit.ended(messages.BREAKS)
    node.world.turn()
    assert node.door.gone == ["client"] and not node.door.again and not process.of(messages.ENDED)
    for each in (ours, theirs, visit.stream):
        each.close()


def test_an_errand_whose_stream_was_lost_on_the_way_ends(make: Callable[[int], Node]) -> None:
    node = make(1)
    [process] = node.world.processes
    process.ready()
    node.deal("client")
    process.tell(messages.TAKEN, 1)
    process.tell(messages.ERRAND, 1, ErrandSaid(True, PeerID(bytes(32)), b"").encode())
    assert messages.number(process.of(messages.ENDED)[0][0]) == (1, messages.BREAKS)
    assert not node.door.visits and node.door.gone == node.door.again == ["client"]


def test_a_silent_worker_is_killed_and_a_busy_one_is_not(make: Callable[[int], Node]) -> None:
    node = make(1)
    [process] = node.world.processes
    process.ready()
    node.door.connections = 10
    node.world.pass_time(30)
    node.deal("first")
    node.world.pass_time(4)
    process.tell(messages.TAKEN, 1)
    node.deal("second")
    node.world.pass_time(4.5)
    assert not process.killed
    node.world.pass_time(1)
    assert process.killed
    assert len(node.door.served) == 1  # the second; the first was begun


def test_a_worker_that_does_not_start_is_killed(make: Callable[[int], Node]) -> None:
    node = make(1)
    node.world.pass_time(9)
    assert not node.world.processes[0].killed
    node.world.pass_time(2)
    assert node.world.processes[0].killed
    node.world.pass_time(1)
    assert len(node.world.processes) == 2 and node.crew.restarts == 1


def test_a_crash_loop_slows_down(make: Callable[[int], Node]) -> None:
    node = make(1)
    for _ in range(900):
        node.world.pass_time(1)
        if node.world.processes[-1].alive:
            node.world.processes[-1].ready()
            node.world.processes[-1].end()
    assert 10 < len(node.world.processes) < 100  # half a minute apart in the end, on average


def test_so_it_does_when_there_can_be_no_process(make: Callable[[int], Node]) -> None:
    node = make(1)
    node.world.broken = True
    node.world.processes[0].end()
    node.world.pass_time(600)
    assert 8 < node.crew.restarts < 60
    node.world.broken = False
    node.world.pass_time(61)
    assert len(node.world.processes) >= 2


def test_one_that_served_well_is_back_at_once(make: Callable[[int], Node]) -> None:
    node = make(1)
    for round in range(1, 6):
        node.world.processes[-1].ready()
        node.world.pass_time(61)
        node.world.processes[-1].end()
        node.world.pass_time(0.7)
        assert len(node.world.processes) == round + 1


def test_blobs_are_granted_or_refused(make: Callable[[int], Node]) -> None:
    node = make(1)
    [process] = node.world.processes
    process.ready()
    for digest in (BLOB, ABSENT, Digest.of(b"another")):
        process.packets.send(messages.about(messages.WANTED, digest))
    node.world.turn()
    [(message, files)] = process.of(messages.GRANTED)
    digest, rest = messages.subject(message)
    assert digest == BLOB and messages.decode_entry(rest) == ENTRY and len(files) == 2
    assert node.closed == [1]
    for each in files:
        os.close(each)
    refused = [messages.subject(message)[0] for message, _ in process.of(messages.REFUSED)]
    assert refused == [ABSENT, Digest.of(b"another")]


def test_what_a_worker_cannot_read_is_verified(make: Callable[[int], Node]) -> None:
    node = make(1)
    [process] = node.world.processes
    process.ready()
    process.packets.send(messages.about(messages.SUSPECT, BLOB))
    node.world.turn()
    assert node.verified == [BLOB]


def test_new_orders_are_told(make: Callable[[int], Node]) -> None:
    node = make(2)
    node.world.pass_time(3)
    assert node.world.processes[0].kinds() == b"O"
    node.orders.append(attrs.evolve(node.orders[-1], mirrors=("http://other",)))
    node.world.pass_time(1.2)
    assert [process.kinds() for process in node.world.processes] == [b"OO", b"OO"]


def test_a_stop_waits_for_workers_and_not_for_ever(make: Callable[[int], Node]) -> None:
    node = make(3)
    good, late, starting = node.world.processes
    good.ready()
    late.ready()
    stopped: list[None] = []
    Deferred.fromCoroutine(node.crew.stop()).addCallback(stopped.append)
    node.world.turn()
    assert all(process.kinds()[-1:] == messages.LEAVE for process in node.world.processes)
    assert node.crew.choose(PUBLIC) is None
    good.end()
    starting.end()
    node.world.pass_time(3)
    assert not stopped and not late.killed
    node.world.pass_time(2)
    assert stopped == [None] and late.killed
    node.world.pass_time(100)
    assert len(node.world.processes) == 3


def test_a_worker_that_leaves_by_itself_gets_nothing_more_and_is_replaced(
    make: Callable[[int], Node],
) -> None:
    node = make(1)
    [process] = node.world.processes
    process.ready()
    process.packets.send(messages.LEAVING)
    node.world.turn()
    assert node.crew.choose(PUBLIC) is None and node.crew.serving == 0
    process.end()
    node.world.pass_time(1)
    assert len(node.world.processes) == 2

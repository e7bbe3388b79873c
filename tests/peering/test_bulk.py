"""Many bytes through mutual TLS, lean and stock: order, back-pressure, every kind of end, key updates."""

from __future__ import annotations

import gc
import os
import socket
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from inspect import isframe
from pathlib import Path
from random import Random
from typing import Any

import pytest
import pytest_twisted
from attrs import define, field
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.interfaces import IPushProducer
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.threads import deferToThread
from twisted.python.failure import Failure
from zope.interface import implementer

from swarm.model.peers import Address
from swarm.peering import lean, records
from swarm.peering.credentials import Credentials, TLSSettings
from swarm.peering.identity import IdentityPaths
from swarm.peering.lean import CHUNK, RECORD, IRecordsReceiver
from swarm.peering.tls import client_endpoint, server_endpoint
from tests.peering.conftest import OpenSSLWorld
from tests.web.opened import BLOB, Files
from tests.web.test_straight import Client, until

MIB = 1 << 20
NOISE = Random(7).randbytes(4 * MIB)
SIZES = [1, 100, 16_384, 16_385, 0, 63_999, 64_001, CHUNK, 3, CHUNK + 1, MIB, 7, 3 * MIB + 5, 1]


@define(eq=False)
class End(Protocol):
    """One end of a connection."""

    heard: bytearray = field(factory=bytearray)
    lost: Deferred[Any] = field(factory=Deferred)
    gone: bool = False

    def dataReceived(self, data: bytes) -> None:
        self.heard += data

    def connectionLost(self, reason: Failure = None) -> None:  # type: ignore[assignment]  # Twisted's default
        self.gone = True
        self.lost.callback(reason.value)


@implementer(IRecordsReceiver)
class Recorder(End):
    """Takes records."""

    def connectionMade(self) -> None:
        self.given: list[Sequence[bytes]] = []

    def recordsReceived(self, records: Sequence[bytes]) -> None:
        self.given.append(records)
        self.heard += b"".join(records)


@implementer(IPushProducer)
class Spring:
    """Writes without end while it may."""

    def __init__(self, end: End, chunk: int = CHUNK) -> None:
        self.transport: Any = end.transport
        self.chunk = NOISE[:chunk]
        self.written = 0
        self.flowing = True
        self.stopped = False
        self.transport.registerProducer(self, True)
        self.resumeProducing()

    def pauseProducing(self) -> None:
        self.flowing = False

    def resumeProducing(self) -> None:
        self.flowing = True
        while self.flowing and self.written < 1 << 30:  # what nobody stops fills the memory, not the test
            self.written += len(self.chunk)
            self.transport.write(self.chunk)

    def stopProducing(self) -> None:
        self.flowing = False
        self.stopped = True


class Line:
    """A port with two identities: connections through it, and both their ends."""

    def __init__(self, world: OpenSSLWorld, *, lean: bool) -> None:
        def credentials(kind: str) -> Credentials:
            paths = IdentityPaths(world.cert("ca"), world.cert(kind), world.key(kind))
            return Credentials.load(paths, clock=reactor, settings=TLSSettings(lean=lean))

        self.ours, self.theirs = credentials("alpha"), credentials("beta")
        self.accepted: list[End] = []
        self.dialed: list[End] = []
        self.ports: list[Any] = []

    async def listen(self, factory: Any = None) -> int:
        plain = TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1")
        factory = factory or Factory.forProtocol(self._accept)  # type: ignore[arg-type]  # any callable does
        port = await server_endpoint(plain, self.ours, clock=reactor).listen(factory)
        self.ports.append(port)
        return int(port.getHost().port)

    def _accept(self) -> End:
        self.accepted.append(End())
        return self.accepted[-1]

    async def dial(self, port: int, kind: type[Any] = End) -> Any:
        endpoint = client_endpoint(reactor, Address("127.0.0.1", port), self.theirs)
        end: Any = await endpoint.connect(Factory.forProtocol(kind))
        socket_ = end.transport.transport.getHandle()
        socket_.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        self.dialed.append(end)
        return end

    async def pair(self, kind: type[Any] = End) -> tuple[Any, Any]:
        dialed = await self.dial(await self.listen(), kind)
        await until(lambda: self.accepted)
        return dialed, self.accepted[-1]

    async def close(self) -> None:
        for end in (*self.dialed, *self.accepted):
            if not end.gone:
                end.transport.abortConnection()
        await until(lambda: all(end.gone for end in (*self.dialed, *self.accepted)))
        for port in self.ports:
            await port.stopListening()


@contextmanager
def opened(world: OpenSSLWorld, kind: str) -> Iterator[Line]:
    with pytest.MonkeyPatch.context() as patch:
        if kind != "lean, in C":  # as where there is no compiler
            patch.setattr(records, "RECEIVE", None)
        if kind == "lean, by recv":  # as with a pyOpenSSL that has what we call elsewhere
            patch.setattr(lean, "OPENSSL", None)
            patch.setattr(lean, "SENDING", None)
        line = Line(world, lean=kind != "stock")
        yield line
        pytest_twisted.blockon(Deferred.fromCoroutine(line.close()))


@pytest.fixture(params=["lean, in C", "lean", "lean, by recv", "stock"])
def line(
    request: pytest.FixtureRequest, world: OpenSSLWorld, monkeypatch: pytest.MonkeyPatch, in_c: object
) -> Iterator[Line]:
    monkeypatch.setattr(records, "RECEIVE", in_c)
    with opened(world, request.param) as line:
        yield line


@pytest.fixture(params=["lean, in C", "lean", "lean, by recv"])
def lean_line(
    request: pytest.FixtureRequest, world: OpenSSLWorld, monkeypatch: pytest.MonkeyPatch, in_c: object
) -> Iterator[Line]:
    monkeypatch.setattr(records, "RECEIVE", in_c)
    with opened(world, request.param) as line:
        yield line


@pytest.fixture(scope="module")
def in_c(need_program: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory) -> object:
    """From its source: what is installed may be older, or missing."""
    out = tmp_path_factory.mktemp("records") / "_records.so"
    source = Path(__file__).parents[2] / "swarm/peering/records.c"
    command = [
        need_program("gcc"),
        "-O3",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-fPIC",
        "-shared",
        "-o",
        out,
        source,
    ]
    subprocess.run(command, check=True, timeout=240)
    return records.load(str(out))


def test_this_pyopenssl_is_one_to_call_straight() -> None:
    assert lean.OPENSSL is not None
    assert records.FUNCTIONS is not None


def pieces() -> list[bytes]:
    return [NOISE[:size] for size in SIZES]


WHOLE = b"".join(pieces())


@pytest_twisted.ensureDeferred
async def test_writes_of_every_size_arrive_in_order_both_ways(line: Line) -> None:
    dialed, accepted = await line.pair()
    for piece in pieces():
        dialed.transport.write(piece)
        accepted.transport.write(piece)
    await until(lambda: len(dialed.heard) >= len(WHOLE) and len(accepted.heard) >= len(WHOLE))
    assert dialed.heard == WHOLE == accepted.heard


@pytest_twisted.ensureDeferred
async def test_what_is_written_before_the_handshake_arrives_and_then_the_end(line: Line) -> None:
    class Early(End):
        def connectionMade(self) -> None:
            for piece in pieces():
                self.transport.write(piece)
            self.transport.loseConnection()

    dialed, accepted = await line.pair(Early)
    await until(lambda: accepted.gone and dialed.gone)
    assert accepted.heard == WHOLE


@pytest_twisted.ensureDeferred
async def test_all_that_was_written_before_a_polite_end_arrives(line: Line) -> None:
    dialed, accepted = await line.pair()
    accepted.transport.write(b"hello")
    await until(lambda: dialed.heard)
    accepted.transport.write(NOISE)
    accepted.transport.loseConnection()
    accepted.transport.write(b"too late")
    await until(lambda: dialed.gone and accepted.gone)
    assert dialed.heard == b"hello" + NOISE


@pytest_twisted.ensureDeferred
async def test_who_reads_slowly_slows_the_writer_down(line: Line) -> None:
    """A chunk and what the kernel holds, no more; and all of it arrives once it is read."""
    dialed, accepted = await line.pair()
    dialed.transport.pauseProducing()
    spring = Spring(accepted)
    await until(lambda: not spring.flowing)
    for _ in range(3):
        written = spring.written
        assert spring.written <= 64 * MIB
        dialed.transport.resumeProducing()
        await until(lambda: spring.written > written)  # noqa: B023 - used at once
        dialed.transport.pauseProducing()
    accepted.transport.unregisterProducer()
    dialed.transport.resumeProducing()
    await until(lambda: len(dialed.heard) >= spring.written)
    assert dialed.heard == spring.chunk * (spring.written // CHUNK)


@pytest.mark.parametrize("who", ["reader", "writer"])
@pytest_twisted.ensureDeferred
async def test_an_abort_ends_both_ends_and_the_writing(line: Line, who: str) -> None:
    dialed, accepted = await line.pair()
    spring = Spring(accepted)
    await until(lambda: len(dialed.heard) > MIB)
    (dialed if who == "reader" else accepted).transport.abortConnection()
    await until(lambda: dialed.gone and accepted.gone)
    assert spring.stopped
    heard = len(dialed.heard)
    assert dialed.heard == (spring.chunk * (heard // CHUNK + 1))[:heard]


@pytest_twisted.ensureDeferred
async def test_an_abort_says_no_good_bye(line: Line) -> None:
    """What ends in the middle shall not look as if it had ended well."""
    dialed, accepted = await line.pair()
    accepted.transport.write(b"begun")
    await until(lambda: dialed.heard == b"begun")
    came: list[bytes] = []
    dialed.transport.dataReceived = came.append
    accepted.transport.abortConnection()
    await until(lambda: dialed.gone and accepted.gone)
    assert not came


@pytest_twisted.ensureDeferred
async def test_a_reader_that_ends_it_politely_stops_the_writing_at_once(lean_line: Line) -> None:
    """Stock Twisted has the producer go on to its own end, all in one turn, and throws it away."""
    dialed, accepted = await lean_line.pair()
    spring = Spring(accepted)
    await until(lambda: len(dialed.heard) > MIB)
    dialed.transport.loseConnection()
    await until(lambda: dialed.gone and accepted.gone)
    assert spring.stopped and spring.written < 1 << 30


def held_by_frames(objects: Sequence[object]) -> list[Any]:
    """The frames that outlived their call and hold these: only a collection of garbage would end that."""
    return [
        each for one in objects for each in gc.get_referrers(one) if isframe(each) and "_decrypt" in str(each)
    ]


@pytest_twisted.ensureDeferred
async def test_records_are_given_as_they_are_to_who_wants_them(lean_line: Line) -> None:
    dialed, accepted = await lean_line.pair(Recorder)
    for piece in pieces():
        accepted.transport.write(piece)
    await until(lambda: len(dialed.heard) >= len(WHOLE))
    assert dialed.heard == WHOLE
    for given in dialed.given:
        assert given and all(given) and sum(map(len, given)) <= CHUNK + RECORD
    assert max(sum(map(len, given)) for given in dialed.given) > RECORD
    assert not held_by_frames(dialed.given)


@pytest_twisted.ensureDeferred
async def test_a_receiver_that_aborts_hears_no_more(line: Line) -> None:
    class Curt(End):
        def dataReceived(self, data: bytes) -> None:
            assert not self.heard, "it had enough"
            self.heard += data
            self.transport.abortConnection()

    dialed, accepted = await line.pair(Curt)
    Spring(accepted)
    await until(lambda: dialed.gone and accepted.gone)
    assert dialed.heard


@pytest_twisted.ensureDeferred
async def test_a_view_is_taken_before_its_buffer_changes(lean_line: Line) -> None:
    dialed, accepted = await lean_line.pair()
    accepted.transport.write(b"small first")
    buffer = bytearray(NOISE[:MIB])
    accepted.transport.writeView(memoryview(buffer))
    buffer[:] = bytes(MIB)
    accepted.transport.write(b"small last")
    await until(lambda: dialed.heard.endswith(b"small last"))
    assert dialed.heard == b"small first" + NOISE[:MIB] + b"small last"


@pytest.mark.parametrize("letter", ["k", "K"], ids=["theirs alone", "both"])
@pytest_twisted.ensureDeferred
async def test_keys_are_updated_under_a_transfer(
    line: Line, world: OpenSSLWorld, letter: str, need_program: Callable[[str], str]
) -> None:
    """RFC 8446, 4.6.3, asked for by openssl's s_client while bytes flow both ways."""
    port = await line.listen()
    command = [need_program("openssl"), "s_client", "-connect", f"127.0.0.1:{port}"]
    command += ["-CAfile", str(world.cert("ca")), "-cert", str(world.cert("beta"))]
    command += ["-key", str(world.key("beta"))]
    out, messages = world.path / "s_client.out", world.path / "s_client.messages"
    with out.open("wb") as stdout, messages.open("wb") as stderr:
        # Not by the reactor: the test speaks to it by the line.
        program = subprocess.Popen(  # noqa: ASYNC220 - starting it takes no time
            command, stdin=subprocess.PIPE, stdout=stdout, stderr=stderr
        )
    try:
        assert program.stdin is not None
        await until(lambda: line.accepted)
        accepted: Any = line.accepted[-1]
        sent = 0
        for turn in range(1, 4):
            for _ in range(4):
                accepted.transport.write(b"\xf7" * MIB)
                sent += MIB
            program.stdin.write(letter.encode() + b"\n")
            program.stdin.flush()
            await until(lambda: messages.read_bytes().count(b"KEYUPDATE") == turn)  # noqa: B023 - used at once
            program.stdin.write(b"after %d\n" % turn)
            program.stdin.flush()
            await until(lambda: accepted.heard.endswith(b"after %d\n" % turn))  # noqa: B023 - used at once
        await until(lambda: out.read_bytes().count(b"\xf7") == sent)
        assert not accepted.gone
    finally:
        program.kill()
        await deferToThread(program.wait)
        program.stdin.close()  # type: ignore[union-attr]  # it is a pipe


@pytest_twisted.ensureDeferred
async def test_a_blob_leaves_straight_and_whole(line: Line, tmp_path: Path) -> None:
    files = Files(tmp_path / "blob")
    client = await line.dial(await line.listen(files.site), Client)
    client.ask()
    client.ask(f"Range: bytes=5-{len(BLOB) - 5}")
    await until(lambda: len(client.bodies()) == 2)
    assert client.bodies() == [BLOB, BLOB[5:-4]]
    assert files.sent == [len(BLOB), len(BLOB) - 9]
    assert all(reader.closed for reader in files.readers)
    lean = line.ours.settings.lean
    assert all((reader.aside < reader.info.size - 100) == lean for reader in files.readers)


@pytest_twisted.ensureDeferred
async def test_many_slow_readers_of_a_blob_hold_a_chunk_each_and_leave_nothing(
    line: Line, tmp_path: Path
) -> None:
    files = Files(tmp_path / "blob")
    port = await line.listen(files.site)
    before = len(os.listdir("/proc/self/fd"))
    clients = [await line.dial(port, Client) for _ in range(20)]
    for client in clients:
        client.ask()
    await until(lambda: all(len(client.heard) > 100_000 for client in clients))
    for client in clients:
        client.transport.pauseProducing()
    for request in files.requests:
        transport = request.channel.transport.transport
        assert len(transport.dataBuffer) + sum(map(len, transport._tempDataBuffer)) <= 3 * CHUNK
    for index, client in enumerate(clients):
        if index % 3 == 0:
            client.transport.abortConnection()
        elif index % 3 == 1 and line.ours.settings.lean:  # over stock TLS, the site's idle time ends these
            client.transport.loseConnection()
        client.transport.resumeProducing()
    staying = clients[2::3] if line.ours.settings.lean else [c for i, c in enumerate(clients) if i % 3]
    await until(lambda: all(client.whole() for client in staying))
    assert all(client.bodies() == [BLOB] for client in staying)
    for client in staying:
        client.transport.loseConnection()
    await until(lambda: all(reader.closed for reader in files.readers) and not files.site.connections)
    await until(lambda: len(os.listdir("/proc/self/fd")) <= before)


@pytest_twisted.ensureDeferred
async def test_a_file_cut_short_under_a_reader_breaks_the_connection(line: Line, tmp_path: Path) -> None:
    files = Files(tmp_path / "blob")
    client = await line.dial(await line.listen(files.site), Client)
    client.ask()
    await until(lambda: len(client.heard) > 100_000)
    client.transport.pauseProducing()
    files.readers[0].truncate(100)
    client.transport.resumeProducing()
    await until(lambda: client.gone)
    assert not client.bodies() and files.readers[0].closed


@pytest_twisted.ensureDeferred
async def test_a_reader_that_takes_nothing_is_dropped(line: Line, tmp_path: Path) -> None:
    files = Files(tmp_path / "blob")
    client = await line.dial(await line.listen(files.site), Client)
    client.ask()
    await until(lambda: len(client.heard) > 100_000)
    client.transport.pauseProducing()

    def dropped() -> bool:
        files.clock.advance(files.site.limits.progress)
        return files.readers[0].closed

    await until(dropped)

"""Real TLS on loopback between our endpoints and strangers of every kind: who gets in, who is told what."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from attrs import define, field
from OpenSSL import SSL
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import (
    TCP4ClientEndpoint,
    TCP4ServerEndpoint,
    TCP6ServerEndpoint,
    wrapClientTLS,
    wrapServerTLS,
)
from twisted.internet.interfaces import (
    IListeningPort,
    IOpenSSLClientConnectionCreator,
    IOpenSSLServerConnectionCreator,
)
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.threads import deferToThread
from twisted.internet.utils import getProcessOutputAndValue
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import Site
from zope.interface import implementer

from swarm.model.peers import Address, PeerID
from swarm.peering.credentials import Credentials, TLSSettings
from swarm.peering.identity import IdentityPaths
from swarm.peering.tls import (
    certificate_of,
    client_endpoint,
    peer_id_of,
    server_endpoint,
    tls_fault,
)
from swarm.pki import peer_id, read_certificates

pytestmark = pytest.mark.filterwarnings("error::DeprecationWarning")

MIB = 1024 * 1024


@define(eq=False)
class Talker(Protocol):
    """Greets, remembers what it heard and how it ended."""

    greeting: bytes = b"hello"
    heard: bytearray = field(factory=bytearray)
    peer: PeerID | None = None
    serial: int | None = None
    first: Deferred[None] = field(factory=Deferred)
    lost: Deferred[Failure] = field(factory=Deferred)

    def connectionMade(self) -> None:
        assert self.transport is not None
        if self.greeting:
            self.transport.write(self.greeting)

    def dataReceived(self, data: bytes) -> None:
        if not self.heard and not isinstance(self, Foreign):
            self.peer = peer_id_of(self.transport)
            self.serial = certificate_of(self.transport).serial_number
        self.heard += data
        if not self.first.called:
            self.first.callback(None)

    def connectionLost(self, reason: Failure = None) -> None:  # type: ignore[assignment]  # Twisted's default is a Failure too
        self.lost.callback(reason.value)

    def close(self) -> None:
        assert self.transport is not None
        self.transport.loseConnection()


class Foreign(Talker):
    """The same, at an end that is not ours."""


@implementer(IOpenSSLServerConnectionCreator, IOpenSSLClientConnectionCreator)
class Stranger:
    """TLS as anybody may configure it: any certificate or none, no checks of the other side."""

    def __init__(self, cert: Path | None = None, key: Path | None = None, newest: int | None = None) -> None:
        self.context = SSL.Context(SSL.TLS_METHOD)
        if newest is not None:
            self.context.set_max_proto_version(newest)
        if cert is not None and key is not None:
            self.context.use_certificate_chain_file(str(cert))
            self.context.use_privatekey_file(str(key))
        self.connection: Any = None

    def serverConnectionForTLS(self, tlsProtocol: Any) -> SSL.Connection:
        self.connection = SSL.Connection(self.context, None)
        return self.connection

    def clientConnectionForTLS(self, tlsProtocol: Any) -> SSL.Connection:
        return self.serverConnectionForTLS(tlsProtocol)


class Room:
    """Ports opened in a test, closed after it."""

    def __init__(self) -> None:
        self.ports: list[IListeningPort] = []
        self.accepted: list[Talker] = []

    async def listen(
        self, credentials: Credentials | Stranger, kind: type[Talker] = Talker, plain: Any = None
    ) -> int:
        plain = plain or TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1")
        if isinstance(credentials, Credentials):
            endpoint = server_endpoint(plain, credentials, clock=reactor)
        else:
            endpoint = wrapServerTLS(credentials, plain, clock=reactor)

        def build() -> Talker:
            self.accepted.append(kind())
            return self.accepted[-1]

        port = await endpoint.listen(Factory.forProtocol(build))  # type: ignore[arg-type]  # any callable does
        self.ports.append(port)
        return int(port.getHost().port)

    async def strange_dial(self, port: int, stranger: Stranger) -> Foreign:
        plain = TCP4ClientEndpoint(reactor, "127.0.0.1", port, timeout=5)
        endpoint = wrapClientTLS(stranger, plain, clock=reactor)
        protocol = await endpoint.connect(Factory.forProtocol(Foreign))
        assert isinstance(protocol, Foreign)
        return protocol

    async def dial(
        self,
        port: int,
        credentials: Credentials,
        host: str = "127.0.0.1",
        expected: PeerID | None = None,
        kind: type[Talker] = Talker,
    ) -> Talker:
        endpoint = client_endpoint(reactor, Address(host, port), credentials, expected=expected, timeout=5)
        protocol = await endpoint.connect(Factory.forProtocol(kind))
        assert isinstance(protocol, Talker)
        return protocol


@pytest.fixture(params=[True, False], ids=["lean", "stock"])
def lean(request: pytest.FixtureRequest) -> bool:
    """Everything runs over both ways to move bytes: they must not differ in who is admitted."""
    return bool(request.param)


@pytest.fixture
def world(world: Any, lean: bool) -> Any:
    """One for all: with parameters of its own this fixture would have it made anew for each test."""
    world.settings = TLSSettings(lean=lean)
    return world


@pytest.fixture
def room() -> Iterator[Room]:
    room = Room()
    yield room
    for port in room.ports:
        pytest_twisted.blockon(port.stopListening())


def paths(world: Any, kind: str, **changed: Any) -> IdentityPaths:
    files = {"ca": world.cert("ca"), "cert": world.cert(kind), "key": world.key(kind)}
    return IdentityPaths(**{**files, **changed})


def credentials_of(world: Any, kind: str = "alpha", **changed: Any) -> Credentials:
    return Credentials.load(paths(world, kind, **changed), clock=reactor, settings=world.settings)


async def in_thread(function: Any, /, *args: Any, **kwargs: Any) -> Any:
    return await deferToThread(function, *args, **kwargs)


def soon(waiting: Deferred[Any]) -> Deferred[Any]:
    return waiting.addTimeout(20, reactor)


async def talked(one: Talker, other: Talker) -> None:
    await soon(one.first)
    await soon(other.first)
    one.close()
    other.close()
    await soon(one.lost)
    await soon(other.lost)


# -- admitted ------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["alpha", "rsa", "ed25519"])
@pytest_twisted.ensureDeferred
async def test_certificates_made_by_plain_openssl_are_admitted_both_ways(
    world: Any, room: Room, kind: str
) -> None:
    port = await room.listen(credentials_of(world, "beta"))
    dialer = await room.dial(port, credentials_of(world, kind))
    await soon(dialer.first)
    acceptor = room.accepted[0]
    await talked(dialer, acceptor)
    assert dialer.peer == peer_id(read_certificates(world.cert("beta"))[0])
    assert acceptor.peer == peer_id(read_certificates(world.cert(kind))[0])
    assert acceptor.heard == dialer.heard == b"hello"


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
@pytest_twisted.ensureDeferred
async def test_the_san_may_name_a_host_or_an_address(world: Any, room: Room, host: str) -> None:
    port = await room.listen(credentials_of(world))
    dialer = await room.dial(port, credentials_of(world, "beta"), host)
    await soon(dialer.first)
    await talked(dialer, room.accepted[0])


@pytest_twisted.ensureDeferred
async def test_addresses_may_be_ipv6(world: Any, room: Room) -> None:
    plain = TCP6ServerEndpoint(reactor, 0, interface="::1")
    port = await room.listen(credentials_of(world), plain=plain)
    dialer = await room.dial(port, credentials_of(world, "beta"), "::1")
    await soon(dialer.first)
    await talked(dialer, room.accepted[0])


@pytest_twisted.ensureDeferred
async def test_a_chain_over_an_intermediate_ca_is_admitted(world: Any, room: Room) -> None:
    chained = credentials_of(world, "below", cert=world.path / "chained.pem")
    port = await room.listen(chained)
    dialer = await room.dial(port, chained)
    await soon(dialer.first)
    await talked(dialer, room.accepted[0])


@pytest_twisted.ensureDeferred
async def test_an_intermediate_ca_alone_may_be_the_anchor(world: Any, room: Room) -> None:
    below = credentials_of(world, "below", ca=world.cert("middle"))
    port = await room.listen(below)
    dialer = await room.dial(port, below)
    await soon(dialer.first)
    await talked(dialer, room.accepted[0])
    refused = await room.strange_dial(port, Stranger(world.cert("alpha"), world.key("alpha")))
    await soon(refused.lost)
    assert not room.accepted[1].heard


@pytest_twisted.ensureDeferred
async def test_the_connection_is_what_was_asked_for(world: Any, room: Room) -> None:
    port = await room.listen(credentials_of(world))
    dialer = await room.dial(port, credentials_of(world, "beta"))
    await soon(dialer.first)
    handle = dialer.transport.getHandle()
    assert handle.get_protocol_version_name() == "TLSv1.3"
    assert handle.get_cipher_name() == "TLS_AES_128_GCM_SHA256"
    assert dialer.transport.negotiatedProtocol == b"http/1.1"
    await talked(dialer, room.accepted[0])


@pytest_twisted.ensureDeferred
async def test_a_current_revocation_list_and_an_allow_list_let_the_named_in(
    world: Any, room: Room, tmp_path: Path
) -> None:
    allow = tmp_path / "allow"
    allow.write_text(f"# ours\n{peer_id(read_certificates(world.cert('beta'))[0])}  # beta\n")
    port = await room.listen(credentials_of(world, crl=world.path / "crl.pem", allow=allow))
    dialer = await room.dial(port, credentials_of(world, "beta"))
    await soon(dialer.first)
    await talked(dialer, room.accepted[0])


# -- refused -------------------------------------------------------------------

REFUSED = {
    "rogue": "CA we do not know",
    "expired": "expired",
    "not yet": "not valid yet",
    "client only": "serverAuth",
    "server only": "key usages do not allow",
    "any purpose": "key usages do not allow",
    "no purpose": "clientAuth and serverAuth",
    "self-signed": "self-signed",
    "below": "CA we do not know",
}


@pytest.mark.parametrize("kind", sorted(REFUSED))
@pytest_twisted.ensureDeferred
async def test_a_dialer_with_a_wrong_certificate_gets_no_byte_through(
    world: Any, room: Room, kind: str
) -> None:
    ours = credentials_of(world)
    port = await room.listen(ours)
    stranger = await room.strange_dial(port, Stranger(world.cert(kind), world.key(kind)))
    await soon(stranger.lost)
    acceptor = room.accepted[0]
    assert REFUSED[kind] in str(tls_fault(await soon(acceptor.lost)))
    assert not acceptor.heard and not stranger.heard
    assert ours.refusals == 1


ANSWERING = {
    **REFUSED,
    "client only": "key usages do not allow",
    "server only": "clientAuth",
    "other name": "not for 127.0.0.1 but for other.example",
    "other address": "not for 127.0.0.1 but for 127.0.0.2",
    "address as name": "not for 127.0.0.1",
    "no name": "no host at all",
}


@pytest.mark.parametrize("kind", sorted(ANSWERING))
@pytest_twisted.ensureDeferred
async def test_a_listener_with_a_wrong_certificate_learns_nothing(world: Any, room: Room, kind: str) -> None:
    """We refuse it before our own certificate, let alone a request, is sent."""
    stranger = Stranger(world.cert(kind), world.key(kind))
    stranger.context.set_verify(SSL.VERIFY_PEER, lambda *_: True)
    port = await room.listen(stranger, Foreign)
    dialer = await room.dial(port, credentials_of(world))
    assert ANSWERING[kind] in str(tls_fault(await soon(dialer.lost)))
    await soon(room.accepted[0].lost)
    assert not room.accepted[0].heard and not dialer.heard
    assert stranger.connection.get_peer_certificate(as_cryptography=True) is None


@pytest_twisted.ensureDeferred
async def test_names_are_checked_as_dialled(world: Any, room: Room) -> None:
    port = await room.listen(Stranger(world.cert("other address"), world.key("other address")), Foreign)
    dialer = await room.dial(port, credentials_of(world), "localhost")
    assert "not for localhost" in str(tls_fault(await soon(dialer.lost)))


@pytest_twisted.ensureDeferred
async def test_another_key_than_expected_is_refused(world: Any, room: Room) -> None:
    alpha, beta = credentials_of(world), credentials_of(world, "beta")
    port = await room.listen(alpha)
    dialer = await room.dial(port, beta, expected=alpha.peer_id)
    await soon(dialer.first)
    await talked(dialer, room.accepted[0])
    dialer = await room.dial(port, beta, expected=beta.peer_id)
    assert f"not the expected {beta.peer_id.short}" in str(tls_fault(await soon(dialer.lost)))
    assert "refuses us" in str(tls_fault(await soon(room.accepted[1].lost)))


@pytest.mark.parametrize(
    ("stranger", "reason"),
    [(Stranger(), "did not return a certificate"), (Stranger(newest=SSL.TLS1_2_VERSION), "protocol")],
    ids=["no certificate", "TLS 1.2"],
)
@pytest_twisted.ensureDeferred
async def test_neither_strangers_nor_old_tls_get_in(
    world: Any, room: Room, stranger: Stranger, reason: str
) -> None:
    ours = credentials_of(world)
    port = await room.listen(ours)
    dialer = await room.strange_dial(port, stranger)
    told = tls_fault(await soon(dialer.lost))
    assert told and "refuses us" in told
    assert reason in str(tls_fault(await soon(room.accepted[0].lost)))
    assert not room.accepted[0].heard and ours.refusals == 1


@pytest_twisted.ensureDeferred
async def test_old_tls_is_not_dialled(world: Any, room: Room) -> None:
    old = Stranger(world.cert("alpha"), world.key("alpha"), newest=SSL.TLS1_2_VERSION)
    port = await room.listen(old, Foreign)
    dialer = await room.dial(port, credentials_of(world, "beta"))
    assert tls_fault(await soon(dialer.lost))
    assert not room.accepted[0].heard


@pytest.mark.parametrize(
    ("crl", "kind", "reason"),
    [
        ("crl.pem", "revoked", "revoked"),
        ("short-crl.pem", "beta", "revocation list has expired"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_revocation_fails_closed(world: Any, room: Room, crl: str, kind: str, reason: str) -> None:
    """An expired list clears nobody."""
    if crl == "short-crl.pem":
        await deferToThread(_wait_until_expired, world.path / crl)
    ours = credentials_of(world, crl=world.path / crl)
    port = await room.listen(ours)
    stranger = await room.strange_dial(port, Stranger(world.cert(kind), world.key(kind)))
    await soon(stranger.lost)
    assert reason in str(tls_fault(await soon(room.accepted[0].lost)))

    port = await room.listen(Stranger(world.cert(kind), world.key(kind)), Foreign)
    dialer = await room.dial(port, ours)
    assert reason in str(tls_fault(await soon(dialer.lost)))


@pytest_twisted.ensureDeferred
async def test_a_key_that_is_not_on_the_allow_list_is_refused_both_ways(
    world: Any, room: Room, tmp_path: Path
) -> None:
    (tmp_path / "allow").write_text("ab" * 32)
    ours = credentials_of(world, allow=tmp_path / "allow")
    port = await room.listen(ours)
    dialer = await room.dial(port, credentials_of(world, "beta"))
    await soon(dialer.lost)
    assert "not on the allow-list" in str(tls_fault(await soon(room.accepted[0].lost)))
    port = await room.listen(credentials_of(world, "beta"))
    dialer = await room.dial(port, ours)
    assert "not on the allow-list" in str(tls_fault(await soon(dialer.lost)))


# -- TLS 1.3's late refusal, sessions, strangers who dawdle ----------------------


@pytest_twisted.ensureDeferred
async def test_a_dialer_that_is_refused_late_is_told_why(world: Any, room: Room) -> None:
    """It is connected and has written; only then it hears that the other side does not want it."""
    port = await room.listen(credentials_of(world, crl=world.path / "crl.pem"))
    dialer = await room.dial(port, credentials_of(world, "revoked"))
    error = await soon(dialer.lost)
    assert tls_fault(error) == "it refuses us: certificate revoked"
    assert not dialer.heard


@pytest_twisted.ensureDeferred
async def test_no_session_is_resumed(
    world: Any, room: Room, tmp_path: Path, need_program: Callable[[str], str]
) -> None:
    """A resumed session would skip the judgement of the certificate."""
    port = await room.listen(credentials_of(world))
    session = tmp_path / "session"
    command = ["s_client", "-connect", f"127.0.0.1:{port}", "-CAfile", str(world.cert("ca")), "-ign_eof"]
    command += ["-cert", str(world.cert("beta")), "-key", str(world.key("beta")), "-nocommands"]

    async def connect(*more: str) -> str:
        before = len(room.accepted)
        running = getProcessOutputAndValue(need_program("openssl"), [*command, *more], env=dict(os.environ))
        while len(room.accepted) == before:
            await _pause()
        await _pause(0.3)
        room.accepted[-1].close()
        out, _err, _code = await soon(running)
        return str(out.decode("utf-8", "replace"))

    await connect("-sess_out", str(session))
    assert session.exists(), "a ticket came; OpenSSL cannot be told to send none through pyOpenSSL"
    assert "New, TLSv1.3" in await connect("-sess_in", str(session))


@pytest_twisted.ensureDeferred
async def test_nobody_is_authenticated_before_the_handshake_is_done(world: Any, room: Room) -> None:
    port = await room.listen(credentials_of(world))
    plain = await TCP4ClientEndpoint(reactor, "127.0.0.1", port).connect(Factory.forProtocol(Foreign))
    assert isinstance(plain, Foreign)
    while not room.accepted:
        await _pause()
    with pytest.raises(LookupError):
        peer_id_of(room.accepted[0].transport)
    plain.close()
    await soon(plain.lost)
    await soon(room.accepted[0].lost)
    with pytest.raises(LookupError):
        peer_id_of(room.accepted[0].transport)


# -- changes while running -------------------------------------------------------


class Flood(Talker):
    """Sends 24 MiB, a chunk whenever the other side took the last one."""

    SIZE = 24 * MIB

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.left = self.SIZE
        self.transport.registerProducer(self, True)  # type: ignore[arg-type]  # it is a push producer
        self.flowing = True
        reactor.callLater(0, self.pour)

    def pour(self) -> None:
        while self.flowing and self.left and self.transport is not None:
            self.left -= 65536
            self.transport.write(b"x" * 65536)
            if self.left % (8 * MIB) == 0:
                break
        if self.left and self.flowing:
            reactor.callLater(0.02, self.pour)
        if not self.left:
            self.transport.unregisterProducer()

    def pauseProducing(self) -> None:
        self.flowing = False

    def resumeProducing(self) -> None:
        self.flowing = True
        reactor.callLater(0, self.pour)

    def stopProducing(self) -> None:
        self.left = 0


def installed(world: Any, directory: Path, kind: str = "alpha") -> IdentityPaths:
    directory.mkdir()
    shutil.copy(world.cert("ca"), directory / "ca.pem")
    shutil.copy(world.cert(kind), directory / "cert.pem")
    shutil.copy(world.key(kind), directory / "key.pem")
    return IdentityPaths.in_directory(directory)


def renewed(world: Any, kind: str, out: Path) -> int:
    """A second certificate for the same key; its serial number."""
    request, extensions = world.path / f"{kind}.csr", f"{kind}.ext"
    world.ca("ca", "-in", request, "-out", out, "-extfile", extensions, "-days", "9", "-notext")
    return _serial(out)


@pytest_twisted.ensureDeferred
async def test_a_transfer_survives_a_change_of_certificate_and_the_next_connection_shows_it(
    world: Any, room: Room, tmp_path: Path
) -> None:
    files = installed(world, tmp_path / "identity")
    listening = Credentials.load(files, clock=reactor, settings=world.settings)
    port = await room.listen(listening, Flood)
    dialing = credentials_of(world, "beta")
    first = await room.dial(port, dialing)
    await soon(first.first)

    serial = renewed(world, "alpha", files.cert)
    assert await listening.reload(run_blocking=in_thread) is None
    assert len(first.heard) < Flood.SIZE, "the transfer is under way"

    second = await room.dial(port, dialing)
    await soon(second.first)
    assert second.serial == serial != first.serial
    assert second.peer == first.peer, "the key, hence the identity, is the same"

    files.cert.write_text("garbage")
    assert "cert.pem" in str(await listening.reload(run_blocking=in_thread))
    third = await room.dial(port, dialing)
    await soon(third.first)
    assert third.serial == serial, "the last good one stays"

    while len(first.heard) < Flood.SIZE:
        await _pause()
    for talker in (first, second, third):
        talker.close()
        await soon(talker.lost)
    for acceptor in room.accepted:
        await soon(acceptor.lost)


@pytest_twisted.ensureDeferred
async def test_a_dialer_shows_its_new_certificate_too(world: Any, room: Room, tmp_path: Path) -> None:
    files = installed(world, tmp_path / "identity", "beta")
    dialing = Credentials.load(files, clock=reactor, settings=world.settings)
    port = await room.listen(credentials_of(world))
    for renewing in (False, True):
        serial = renewed(world, "beta", files.cert) if renewing else _serial(files.cert)
        assert await dialing.reload(run_blocking=in_thread) is None
        dialer = await room.dial(port, dialing)
        await soon(dialer.first)
        await soon(room.accepted[-1].first)
        assert room.accepted[-1].serial == serial
        await talked(dialer, room.accepted[-1])


@pytest_twisted.ensureDeferred
async def test_who_is_revoked_or_delisted_is_cut_off_and_others_go_on(
    world: Any, room: Room, tmp_path: Path
) -> None:
    files = installed(world, tmp_path / "identity")
    ours = Credentials.load(files, clock=reactor, settings=world.settings)
    port = await room.listen(ours)
    bad, good = [await room.dial(port, credentials_of(world, kind)) for kind in ("revoked", "beta")]
    for talker in (bad, good):
        await soon(talker.first)
    for acceptor in room.accepted:
        await soon(acceptor.first)

    assert files.crl and files.allow
    shutil.copy(world.path / "crl.pem", files.crl)
    assert await ours.reload(run_blocking=in_thread) is None
    await soon(bad.lost)
    good_acceptor = next(each for each in room.accepted if each.peer == _id(world, "beta"))
    assert not good.lost.called
    assert not ours.still_admitted(read_certificates(world.cert("revoked"))[0])
    assert ours.still_admitted(read_certificates(world.cert("beta"))[0])

    files.allow.write_text(str(_id(world, "alpha")))
    assert await ours.reload(run_blocking=in_thread) is None
    await soon(good.lost)
    await soon(good_acceptor.lost)

    files.crl.unlink()
    assert "revocation list is gone" in str(await ours.reload(run_blocking=in_thread))


# -- other people's programs -----------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_curl_with_a_certificate_speaks_to_the_peer_port(
    world: Any, room: Room, need_program: Callable[[str], str]
) -> None:
    class Who(Resource):
        isLeaf = True

        def render_GET(self, request: Any) -> bytes:
            return peer_id_of(request.transport).hex.encode()

    site = Site(Who(), reactor=reactor)
    plain = TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1")
    port = await server_endpoint(plain, credentials_of(world), clock=reactor).listen(site)
    room.ports.append(port)
    url = f"https://localhost:{port.getHost().port}/"
    trusting = ["-sS", "--max-time", "20", "--cacert", str(world.cert("ca")), url]
    identity = ["--cert", str(world.cert("beta")), "--key", str(world.key("beta"))]

    out, err, code = await soon(getProcessOutputAndValue(need_program("curl"), [*identity, *trusting]))
    assert (code, out.decode()) == (0, _id(world, "beta").hex), err
    _out, _err, code = await soon(getProcessOutputAndValue(need_program("curl"), trusting))
    assert code != 0
    old = ["--tls-max", "1.2", *identity, *trusting]
    _out, _err, code = await soon(getProcessOutputAndValue(need_program("curl"), old))
    assert code != 0


def _id(world: Any, kind: str) -> PeerID:
    return peer_id(read_certificates(world.cert(kind))[0])


def _serial(file: Path) -> int:
    return read_certificates(file)[0].serial_number


def _pause(seconds: float = 0.01) -> Deferred[None]:
    waiting: Deferred[None] = Deferred()
    reactor.callLater(seconds, waiting.callback, None)
    return waiting


def _wait_until_expired(crl: Path) -> None:
    import datetime
    import time

    from swarm.pki import read_crls

    end = read_crls(crl)[0].next_update_utc
    assert end is not None
    while datetime.datetime.now(datetime.UTC) <= end + datetime.timedelta(seconds=1):
        time.sleep(0.1)

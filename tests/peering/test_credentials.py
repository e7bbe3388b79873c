"""Credentials on a clock of our own and TLS over memory: no reactor, no sockets."""

from __future__ import annotations

import datetime
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from OpenSSL import SSL
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionAborted
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransportWithDisconnection
from twisted.logger import globalLogPublisher
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure

from swarm.errors import IdentityError
from swarm.peering.connection import Refused
from swarm.peering.credentials import Credentials, TLSSettings
from swarm.peering.identity import IdentityPaths
from swarm.peering.tls import Acceptor, Dialer, peer_id_of, tls_fault
from swarm.pki import AuthorityDirectory

pytestmark = pytest.mark.filterwarnings("error::DeprecationWarning")

NOW = datetime.datetime.now(datetime.UTC)


class Wire(StringTransportWithDisconnection):
    """A transport whose bytes a test carries to the other end."""

    def __init__(self, host: str) -> None:
        super().__init__()
        self.host = host
        self.gone = False

    def getPeer(self) -> Any:
        return self

    def loseConnection(self) -> None:
        self.gone = True

    def abortConnection(self) -> None:
        self.gone = True
        self.protocol.connectionLost(Failure(ConnectionAborted()))


class End(Protocol):
    """Greets, and remembers."""

    heard = b""
    lost: BaseException | None = None

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.write(b"hello")

    def dataReceived(self, data: bytes) -> None:
        self.heard += data

    def connectionLost(self, reason: Failure = None) -> None:  # type: ignore[assignment]  # Twisted's default
        self.lost = reason.value


class Pair:
    """Two ends of one connection over memory."""

    def __init__(self, clock: Clock, listening: Credentials, dialing: Credentials, host: str = "n") -> None:
        self.clock = clock
        self.wires = [Wire("10.0.0.9"), Wire("10.0.0.1")]
        self.ends: list[End] = []
        for wire, creator, client in (
            (self.wires[0], Acceptor(listening), False),
            (self.wires[1], Dialer(dialing, host), True),
        ):
            factory = TLSMemoryBIOFactory(creator, client, Factory.forProtocol(End), clock)
            protocol = factory.buildProtocol(None)  # type: ignore[arg-type]  # nobody looks at the address
            assert protocol is not None
            wire.protocol = protocol
            protocol.makeConnection(wire)
            self.ends.append(protocol.wrappedProtocol)

    def pump(self) -> None:
        """Carry bytes until nobody has any."""
        for _ in range(20):
            self.clock.advance(0)
            for here, there in (self.wires, self.wires[::-1]):
                data = here.value()
                here.clear()
                if data and not there.gone:
                    there.protocol.dataReceived(data)
        for wire in self.wires:
            if wire.gone and wire.protocol.connected:
                wire.protocol.connectionLost(Failure(ConnectionAborted()))


@pytest.fixture
def clock() -> Clock:
    clock = Clock()
    clock.advance(NOW.timestamp())
    return clock


@pytest.fixture
def authority(tmp_path: Path) -> AuthorityDirectory:
    return AuthorityDirectory.create(tmp_path / "ca", now=NOW)


@pytest.fixture
def said() -> Iterator[Callable[[], list[str]]]:
    """What was logged so far."""
    events: list[Any] = []
    globalLogPublisher.addObserver(events.append)

    def texts() -> list[str]:
        return [event["log_format"].format_map(event) for event in events if event.get("log_format")]

    yield texts
    globalLogPublisher.removeObserver(events.append)


@pytest.fixture
def credentials(clock: Clock, authority: AuthorityDirectory) -> Credentials:
    return Credentials.load(node(authority), clock=clock)


def node(authority: AuthorityDirectory, name: str = "n", days: float = 60) -> IdentityPaths:
    return IdentityPaths.in_directory(authority.issue(name, [name], now=NOW, days=days))


async def inline(function: Any, /, *args: Any, **kwargs: Any) -> Any:
    return function(*args, **kwargs)


def reload(credentials: Credentials) -> str | None:
    done: Deferred[str | None] = Deferred.fromCoroutine(credentials.reload(run_blocking=inline))
    outcome: list[str | None] = []
    done.addCallback(outcome.append)
    return outcome[0]


def watching(credentials: Credentials) -> Deferred[Any]:
    watching: Deferred[Any] = Deferred.fromCoroutine(credentials.watch(run_blocking=inline))
    watching.addErrback(lambda failure: failure.trap(CancelledError) and None)
    return watching


def later(path: Path) -> None:
    """Make sure a change shows, however coarse the file system's clock."""
    os.utime(path, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns + 1_000_000_000))


def serial(credentials: Credentials) -> int:
    return credentials.identity.certificate.serial_number


# -- connections over memory -------------------------------------------------------


def test_tls_runs_on_the_clock_it_is_given(clock: Clock, authority: AuthorityDirectory) -> None:
    one, two = (Credentials.load(node(authority, name), clock=clock) for name in "nm")
    pair = Pair(clock, one, two)
    pair.pump()
    acceptor, dialer = pair.ends
    assert acceptor.heard == dialer.heard == b"hello"
    assert peer_id_of(acceptor.transport) == two.peer_id
    assert peer_id_of(dialer.transport) == one.peer_id
    assert not clock.getDelayedCalls()


def test_a_certificate_alone_proves_nothing(clock: Clock, authority: AuthorityDirectory) -> None:
    """It is shown before its key is proven: an id is given out only when the handshake is done."""
    one, two = (Credentials.load(node(authority, name), clock=clock) for name in "nm")
    pair = Pair(clock, one, two)
    acceptor, _dialer = pair.ends
    here, there = pair.wires
    here.protocol.dataReceived(there.value())
    there.clear()
    there.protocol.dataReceived(here.value())
    shown = 0
    for byte in there.value():
        here.protocol.dataReceived(bytes([byte]))
        connection = acceptor.transport.getHandle()  # type: ignore[union-attr]  # it is connected
        if (
            connection.certificate is not None
            and connection.get_state_string() != b"SSL negotiation finished successfully"
        ):
            shown += 1
            with pytest.raises(LookupError):
                peer_id_of(acceptor.transport)
    assert shown and peer_id_of(acceptor.transport) == two.peer_id


def test_a_refusal_reaches_both_ends_in_words(clock: Clock, authority: AuthorityDirectory) -> None:
    one, two = (Credentials.load(node(authority, name), clock=clock) for name in "nm")
    pair = Pair(clock, one, two, host="other.example")
    pair.pump()
    acceptor, dialer = pair.ends
    assert isinstance(dialer.lost, Refused)
    assert str(dialer.lost) == "its certificate is not for other.example but for n"
    assert acceptor.lost is not None
    assert tls_fault(acceptor.lost) == "it refuses us: not admitted"
    assert not acceptor.heard and not dialer.heard


def test_a_stranger_who_dawdles_is_cut_off(clock: Clock, authority: AuthorityDirectory) -> None:
    one, two = (Credentials.load(node(authority, name), clock=clock) for name in "nm")
    done, dawdling = Pair(clock, one, two), Pair(clock, one, two)
    done.pump()
    clock.advance(one.settings.handshake_timeout)
    assert one.sweep() == 0
    clock.advance(1)
    assert one.sweep() == 1
    assert dawdling.ends[0].lost is not None and done.ends[0].lost is None
    assert one.sweep() == 0


def test_a_connection_judged_by_old_rules_while_they_changed_is_judged_again(
    clock: Clock, authority: AuthorityDirectory
) -> None:
    files = node(authority)
    one = Credentials.load(files, clock=clock)
    two = Credentials.load(node(authority, "m"), clock=clock)
    pair = Pair(clock, one, two)
    assert files.allow
    files.allow.write_text("# nobody\n")
    assert reload(one) is None
    pair.pump()
    assert pair.ends[0].heard, "the handshake had begun"
    assert one.sweep() == 1
    assert pair.ends[0].lost is not None


def test_strangers_do_not_fill_the_log(
    clock: Clock, authority: AuthorityDirectory, said: Callable[[], list[str]], tmp_path: Path
) -> None:
    one = Credentials.load(node(authority), clock=clock)
    rogue = AuthorityDirectory.create(tmp_path / "rogue", now=NOW)
    other = Credentials.load(node(rogue), clock=clock)
    for _ in range(5):
        Pair(clock, one, other).pump()
    clock.advance(1)
    Pair(clock, one, other).pump()
    lines = [text for text in said() if text.startswith("no connection")]
    assert lines == [
        "no connection with 10.0.0.9: it refuses us: unknown CA",
        "no connection with 10.0.0.9: it refuses us: unknown CA (and 4 more)",
    ]
    assert one.refusals == other.refusals == 6


@given(st.lists(st.binary(min_size=1, max_size=300), max_size=4), st.booleans())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_garbage_never_gets_past_tls(
    clock: Clock, credentials: Credentials, chunks: list[bytes], plausible: bool
) -> None:
    pair = Pair(clock, credentials, credentials)
    wire = pair.wires[0]
    hello = pair.wires[1].value()
    if plausible:
        chunks = [hello[: len(hello) // 2], *chunks, hello]
    for chunk in chunks:
        if not wire.gone:
            wire.protocol.dataReceived(chunk)
    assert not pair.ends[0].heard
    with pytest.raises(LookupError):
        peer_id_of(pair.ends[0].transport)


# -- files that change -------------------------------------------------------------


@pytest.mark.parametrize("which", ["cert", "key", "ca", "crl", "allow"])
def test_every_file_is_watched(clock: Clock, authority: AuthorityDirectory, which: str) -> None:
    files = node(authority)
    credentials = Credentials.load(files, clock=clock, settings=TLSSettings(poll_interval=5))
    running = watching(credentials)
    before = credentials.identity
    clock.advance(5)
    assert credentials.identity is before, "nothing changed"

    if which == "crl":
        authority.revoke([], now=NOW)
        shutil.copy(authority.path / "crl.pem", files.crl or "")
    elif which == "allow":
        (files.allow or Path()).write_text(str(credentials.peer_id))
    else:
        later(getattr(files, which))
    clock.advance(4)
    assert credentials.identity is before
    clock.advance(1)
    assert credentials.identity is not before
    assert bool(credentials.identity.crls) == (which == "crl")
    running.cancel()
    assert not clock.getDelayedCalls()


def test_a_renewal_takes_effect_by_itself(clock: Clock, authority: AuthorityDirectory) -> None:
    files = node(authority, days=10)
    credentials = Credentials.load(files, clock=clock)
    running = watching(credentials)
    key, old = credentials.peer_id, serial(credentials)
    authority.renew(files.cert, now=NOW, days=90)
    clock.advance(1)
    assert serial(credentials) != old and credentials.peer_id == key
    assert round(credentials.days_left()) == 90
    running.cancel()


def test_what_is_wrong_is_said_once_and_the_last_good_stays(
    clock: Clock, authority: AuthorityDirectory, said: Callable[[], list[str]]
) -> None:
    """A key that arrives a moment after its certificate, as a script may copy them."""
    files, other = node(authority), node(authority, "m")
    credentials = Credentials.load(files, clock=clock)
    running = watching(credentials)
    before = credentials.identity
    shutil.copy(other.cert, files.cert)
    for _ in range(3):
        clock.advance(1)
    assert credentials.identity is before
    assert len([text for text in said() if "keeping the last good" in text]) == 1
    shutil.copy(other.key, files.key)
    clock.advance(1)
    assert credentials.identity.name == "m"
    running.cancel()


def test_a_failure_is_tried_again_even_if_nothing_seems_to_have_changed(
    clock: Clock, authority: AuthorityDirectory
) -> None:
    """A file may be read half written, and be complete within the same tick of the file system's clock."""
    files = node(authority)
    credentials = Credentials.load(files, clock=clock)
    running = watching(credentials)
    before, good = credentials.identity, files.cert.read_bytes()
    files.cert.write_bytes(b"x" * len(good))
    later(files.cert)
    stamp = files.cert.stat().st_mtime_ns
    clock.advance(1)
    assert credentials.identity is before
    files.cert.write_bytes(good)
    os.utime(files.cert, ns=(stamp, stamp))
    clock.advance(1)
    assert credentials.identity is not before
    running.cancel()


def test_neither_revocation_list_nor_allow_list_may_vanish(
    clock: Clock, authority: AuthorityDirectory
) -> None:
    authority.revoke([], now=NOW)
    files = node(authority)
    assert files.allow and files.crl
    credentials = Credentials.load(files, clock=clock)
    files.allow.write_text("")
    assert reload(credentials) is None
    files.allow.unlink()
    assert "allow-list is gone" in str(reload(credentials))
    files.crl.unlink()
    assert "revocation list is gone" in str(reload(credentials))
    assert credentials.identity.crls and credentials.identity.allowed == frozenset()


def test_an_outdated_file_does_not_replace_a_good_one(
    clock: Clock, authority: AuthorityDirectory, tmp_path: Path
) -> None:
    files = node(authority)
    credentials = Credentials.load(files, clock=clock)
    old = NOW - datetime.timedelta(days=100)
    authority.renew(files.cert, now=old, days=50)
    assert "expired" in str(reload(credentials))
    authority.renew(files.cert, now=NOW, days=50)
    assert reload(credentials) is None
    rogue = AuthorityDirectory.create(tmp_path / "rogue", now=NOW)
    shutil.copy(rogue.path / "ca.pem", files.ca)
    assert "no peer would admit it" in str(reload(credentials))


def test_a_node_starts_with_an_expired_certificate_but_says_so_every_day(
    clock: Clock, authority: AuthorityDirectory, said: Callable[[], list[str]]
) -> None:
    files = node(authority)
    authority.renew(files.cert, now=NOW - datetime.timedelta(days=100), days=50)
    running = watching(Credentials.load(files, clock=clock))
    for _ in range(3 * 24):
        clock.pump([3600.0])
    assert len([text for text in said() if "peers cannot be reached" in text]) == 4
    running.cancel()


def test_a_certificate_about_to_expire_is_warned_of(
    clock: Clock, authority: AuthorityDirectory, said: Callable[[], list[str]]
) -> None:
    authority.revoke([], now=NOW, days=5)
    Credentials.load(node(authority, days=13), clock=clock)
    assert "the certificate expires in 13.0 days" in said()
    assert "the revocation list expires in 5.0 days" in said()


def test_an_identity_its_own_ca_did_not_sign_is_no_start(
    clock: Clock, authority: AuthorityDirectory, tmp_path: Path
) -> None:
    files = node(authority)
    shutil.copy(AuthorityDirectory.create(tmp_path / "rogue", now=NOW).path / "ca.pem", files.ca)
    with pytest.raises(IdentityError, match="no peer would admit it"):
        Credentials.load(files, clock=clock)


def test_a_key_too_weak_for_openssl_is_no_start(clock: Clock, world: Any) -> None:
    files = IdentityPaths(world.cert("ca"), world.cert("weak"), world.key("weak"))
    with pytest.raises(IdentityError, match=r"OpenSSL cannot use it.*too small"):
        Credentials.load(files, clock=clock)


def test_without_files_only_adopt_changes_anything(clock: Clock, authority: AuthorityDirectory) -> None:
    loaded = Credentials.load(node(authority), clock=clock).identity
    other = Credentials.load(node(authority, "m"), clock=clock).identity
    credentials = Credentials(loaded, clock=clock)
    running = watching(credentials)
    clock.advance(3)
    assert reload(credentials) is None and credentials.identity is loaded
    assert credentials.adopt(other) is None and credentials.identity is other
    running.cancel()


# -- words -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (Refused("why"), "why"),
        (SSL.Error([("SSL routines", "", "tlsv1 alert unknown ca")]), "it refuses us: unknown ca"),
        (SSL.Error([("SSL routines", "", "unsupported protocol")]), "no TLS with it: unsupported protocol"),
        (SSL.Error([]), None),
        (SSL.SysCallError(-1, "Unexpected EOF"), None),
        (SSL.ZeroReturnError(), None),
        (ConnectionAborted(), None),
        (ValueError(), None),
    ],
)
def test_only_what_tls_is_to_blame_for_is_put_in_words(error: Exception, words: str | None) -> None:
    assert tls_fault(error) == words

    class Nested(Exception):
        reasons = (Failure(ConnectionAborted()), Failure(error))

    assert tls_fault(Nested()) == words

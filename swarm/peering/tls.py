"""Mutual TLS 1.3 between nodes: contexts, endpoints, and credentials that change while we run.

Decides how connections are made and when a changed file takes effect. Who is admitted is
decided in ``swarm.peering.admission``.

Connections are made by creators of our own over ``OpenSSL.SSL.Context``, because Twisted's
``CertificateOptions`` goes through pyOpenSSL's deprecated X509 and PKey (Twisted #12664, #12666) and
checks neither EKU nor key. No sessions are resumed: every connection is judged anew.

TLS 1.3 refuses late: a dialer is connected, and may have written its request, before the
listener has seen its certificate. So a peer that was dialled is authenticated before its first byte
reaches us, but *we* are admitted only when its first valid response arrives; until then the
connection may end with an alert (:func:`tls_fault`).
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from itertools import count
from typing import Any, Final

from attrs import define, frozen
from cryptography import x509
from OpenSSL import SSL, crypto
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.endpoints import (
    HostnameEndpoint,
    TCP4ClientEndpoint,
    TCP6ClientEndpoint,
    wrapClientTLS,
    wrapServerTLS,
)
from twisted.internet.interfaces import (
    IOpenSSLClientConnectionCreator,
    IOpenSSLServerConnectionCreator,
    IReactorTime,
    IStreamClientEndpoint,
    IStreamServerEndpoint,
)
from twisted.logger import Logger
from twisted.protocols.tls import TLSMemoryBIOProtocol
from zope.interface import implementer

from swarm import pki
from swarm.errors import IdentityError
from swarm.model.peers import Address, PeerID
from swarm.peering.admission import Admission, chain_fault, trust
from swarm.peering.identity import Identity, IdentityPaths, load

CIPHERS: Final = b"TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256"
"""AES-128 first: two percent less CPU than AES-256 (PERFORMANCE 2b), and nobody breaks either."""

PROTOCOLS: Final = [b"http/1.1"]

ALERTS: Final = {
    40: "no common parameters",
    42: "bad certificate",
    43: "unsupported certificate",
    44: "certificate revoked",
    45: "certificate expired",
    46: "certificate not acceptable",
    48: "unknown CA",
    49: "access denied",
    51: "false signature",
    70: "TLS older than 1.3",
    116: "no certificate shown",
    120: "no common protocol",
}
"""Fatal TLS alerts (RFC 8446, 6.2) that tell people something."""

_CERTIFICATE_REFUSED: Final = frozenset({42, 43, 44, 45, 46, 48, 49})


class Refused(SSL.Error):
    """We refused the other side's certificate; the connection ends with an alert and this reason."""

    def __init__(self, reason: str) -> None:
        super().__init__([("swarm", "admission", reason)])  # the shape of OpenSSL's own error queue
        self.reason = reason

    def __str__(self) -> str:
        return self.reason


def tls_fault(error: BaseException) -> str | None:
    """
    Say in words why TLS ended a connection: we refused them, they refused us, or no TLS 1.3 was agreed on.

    :param error: what a protocol's ``connectionLost`` or an Agent's errback gave; failures nested in
        ``reasons`` are searched too.
    :return: None where TLS is not to blame.
    """
    if isinstance(error, Refused):
        return error.reason
    if isinstance(error, SSL.SysCallError | SSL.ZeroReturnError):
        return None
    if isinstance(error, SSL.Error):
        queue = error.args[0] if error.args else ()
        text = queue[-1][2] if queue else ""
        if "alert" in text:
            return f"it refuses us: {text}"
        return f"no TLS with it: {text}" if text else None
    for nested in getattr(error, "reasons", None) or ():
        if found := tls_fault(nested.value):
            return found
    return None


# -- one connection ------------------------------------------------------------


class PeerConnection(SSL.Connection):
    """
    One TLS connection, with what we know of its other side.

    A subclass, since Twisted keeps the ``app_data`` of a connection for itself.

    :ivar admission: the rules it was judged by.
    :ivar host: what we dialled; None if it dialled us.
    :ivar expected: whose key it must have, if known.
    :ivar certificate: shown and admitted, but not proven to be theirs before the handshake is done.
    :ivar peer_id: proven; None until the handshake is done.
    """

    def __init__(
        self,
        context: SSL.Context,
        transport: TLSMemoryBIOProtocol,
        *,
        opened: float,
        admission: Admission,
        host: str | None,
        expected: PeerID | None,
    ) -> None:
        super().__init__(context, None)
        self.transport = transport
        self.opened = opened
        self.admission = admission
        self.host = host
        self.expected = expected
        self.certificate: x509.Certificate | None = None
        self.peer_id: PeerID | None = None
        self.refused = False

    @property
    def address(self) -> str:
        """For logs."""
        return self.host or str(getattr(self.transport.getPeer(), "host", "a local socket"))


def _authenticated(transport: Any) -> tuple[PeerID, x509.Certificate]:
    connection = transport.getHandle()
    if isinstance(connection, PeerConnection) and connection.peer_id and connection.certificate:
        return connection.peer_id, connection.certificate
    raise LookupError("no authenticated peer on this connection")


def peer_id_of(transport: Any) -> PeerID:
    """
    Tell whose key the other side of a connection proved to have. Cheap: worked out once a connection.

    :param transport: what a protocol over our endpoints has as ``transport`` (for a web request,
        ``request.transport``).
    :raises LookupError: the handshake is not done, the connection is gone, or it was never ours.
    """
    return _authenticated(transport)[0]


def certificate_of(transport: Any) -> x509.Certificate:
    """
    Give the certificate of the other side, e.g. for ``pki.common_name``.

    :raises LookupError: as :func:`peer_id_of`.
    """
    return _authenticated(transport)[1]


# -- credentials ---------------------------------------------------------------


@frozen
class TLSSettings:
    """Times in seconds."""

    handshake_timeout: float = 10.0
    """A connection that is not authenticated by then is cut."""
    poll_interval: float = 1.0
    """How often files are looked at for changes, and stale connections swept."""
    warn_days: float = 14.0
    """Days left at which every check of the day warns."""


@define(eq=False)
class _Material:
    """An identity ready for use."""

    admission: Admission
    context: SSL.Context


class Credentials:
    """
    The identity in force. New connections use what is current; established ones go on,
    unless their peer is no longer admitted.

    :ivar refusals: connections refused since the start, for the metrics.
    """

    log = Logger()

    def __init__(
        self,
        identity: Identity,
        *,
        clock: IReactorTime,
        paths: IdentityPaths | None = None,
        settings: TLSSettings | None = None,
    ) -> None:
        """
        Begin with an identity.

        :param paths: where :meth:`reload` reads; None: it never changes.
        :raises IdentityError: OpenSSL cannot use it, or its own CA bundle does not vouch for it.
        """
        self.settings = settings or TLSSettings()
        self.paths = paths
        self.refusals = 0
        self._clock = clock
        self._open: weakref.WeakValueDictionary[int, PeerConnection] = weakref.WeakValueDictionary()
        self._serials = count()
        self._said = float("-inf")
        self._unsaid = 0
        self._material = self._prepare(identity)
        self._complain(identity.complaints(clock.seconds()))

    @classmethod
    def load(
        cls, paths: IdentityPaths, *, clock: IReactorTime, settings: TLSSettings | None = None
    ) -> Credentials:
        """
        Read the files and begin. Blocks on the disk.

        :raises IdentityError: a file is missing or wrong.
        """
        return cls(load(paths), clock=clock, paths=paths, settings=settings)

    @property
    def identity(self) -> Identity:
        """The one in force."""
        return self._material.admission.identity

    @property
    def peer_id(self) -> PeerID:
        """Our own, in force."""
        return self.identity.peer_id

    def days_left(self) -> float:
        """Days until our certificate, or one above it, expires; negative after it."""
        return self.identity.days_left(self._clock.seconds())

    def still_admitted(self, certificate: x509.Certificate, chain: Sequence[x509.Certificate] = ()) -> bool:
        """Would a peer with this certificate be admitted now?"""
        return self._material.admission.refusal(certificate, chain) is None

    # -- changes ---------------------------------------------------------------

    def reload(self) -> str | None:
        """
        Read the files again and use what they hold from now on. Blocks on the disk for some milliseconds.

        :return: None on success; otherwise what is wrong, and the last good identity stays in force.
        """
        if self.paths is None:
            return None
        try:
            return self.adopt(load(self.paths))
        except IdentityError as e:
            return str(e)

    def adopt(self, identity: Identity) -> str | None:
        """
        Use another identity from now on; connections of peers it does not admit are cut.

        :return: None on success; otherwise what is wrong, and the last good identity stays in force.
        """
        now = self._clock.seconds()
        try:
            material = self._prepare(identity)
        except IdentityError as e:
            return str(e)
        current = self.identity
        if current.crls and not identity.crls:
            return "the revocation list is gone; a restart would do without it"
        if current.allowed is not None and identity.allowed is None:
            return "the allow-list is gone; a restart would do without it"
        complaints = identity.complaints(now)
        if complaints and not current.complaints(now):
            return "; ".join(complaints)
        self._material = material
        self.log.info(
            "using certificate {name} with key {peer}, {days:.1f} days left",
            name=identity.name,
            peer=identity.peer_id.short,
            days=identity.days_left(now),
        )
        self._complain(complaints)
        self.sweep()
        return None

    def sweep(self) -> int:
        """
        Cut connections that are not authenticated in time, or whose peer is admitted no more.

        :return: how many were cut.
        """
        cut = 0
        now = self._clock.seconds()
        for connection in list(self._open.values()):
            reason = self._outdated(connection, now)
            if reason is not None:
                self.log.info("cutting {address}: {reason}", address=connection.address, reason=reason)
                connection.transport.abortConnection()
                cut += 1
        return cut

    def _outdated(self, connection: PeerConnection, now: float) -> str | None:
        if connection.transport.getHandle() is not connection:
            return None  # it is over
        if connection.peer_id is None or connection.certificate is None:
            late = now - connection.opened > self.settings.handshake_timeout
            return "no TLS handshake in time" if late else None
        admission = self._material.admission
        if connection.admission is admission:
            return None
        connection.admission = admission
        chain = connection.get_peer_cert_chain(as_cryptography=True) or ()
        return admission.refusal(connection.certificate, chain)

    def _complain(self, complaints: Sequence[str]) -> None:
        for complaint in complaints:
            self.log.critical("no peer can be reached: {complaint}", complaint=complaint)

    # -- connections -------------------------------------------------------------

    def acceptor(self) -> IOpenSSLServerConnectionCreator:
        """Make connections of those who dial us."""
        return _Acceptor(self)

    def dialer(self, host: str, expected: PeerID | None = None) -> IOpenSSLClientConnectionCreator:
        """
        Make connections to a host.

        :param host: the DNS name or IP address its SAN must name.
        :param expected: the key it must have, if known.
        """
        return _Dialer(self, host, expected)

    def connection(
        self, transport: TLSMemoryBIOProtocol, host: str | None, expected: PeerID | None
    ) -> SSL.Connection:
        """Make one connection under the identity in force."""
        material = self._material
        connection = PeerConnection(
            material.context,
            transport,
            opened=self._clock.seconds(),
            admission=material.admission,
            host=host,
            expected=expected,
        )
        if host is not None and not _is_ip(host):
            connection.set_tlsext_host_name(host.encode("ascii"))
        self._open[next(self._serials)] = connection
        return connection

    def _prepare(self, identity: Identity) -> _Material:
        file: object = self.paths.cert if self.paths else "the identity"
        try:
            admission = Admission(identity)
            material = _Material(admission, self._context(identity))
        except (SSL.Error, crypto.Error) as e:
            raise IdentityError(file, f"OpenSSL cannot use it ({e})") from e
        if fault := admission.own_fault():
            raise IdentityError(file, f"no peer would admit it: {fault}")
        return material

    def _context(self, identity: Identity) -> SSL.Context:
        context = SSL.Context(SSL.TLS_METHOD)
        context.set_min_proto_version(SSL.TLS1_3_VERSION)
        context.set_tls13_ciphersuites(CIPHERS)
        context.set_options(SSL.OP_NO_TICKET | SSL.OP_CIPHER_SERVER_PREFERENCE)
        context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
        context.set_mode(SSL.MODE_RELEASE_BUFFERS)
        context.use_certificate(identity.certificate)
        context.use_privatekey(identity.key)  # type: ignore[arg-type]  # a narrower union of the same keys
        context.check_privatekey()
        for certificate in identity.intermediates:
            context.add_extra_chain_cert(certificate)
        store = context.get_cert_store()
        assert store is not None, "a context has a store"
        trust(store, identity)
        context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, self._verify)
        context.set_info_callback(self._noticed)
        context.set_alpn_protos(PROTOCOLS)
        context.set_alpn_select_callback(_choose_protocol)
        return context

    # -- called by OpenSSL ---------------------------------------------------------

    def _verify(self, connection: SSL.Connection, shown: crypto.X509, code: int, depth: int, ok: int) -> bool:
        """
        Judge one certificate of the chain; the peer's own, depth 0, comes last.

        :raises Refused: it ends the handshake, and becomes the reason the connection was lost.
        """
        assert isinstance(connection, PeerConnection), "our contexts make our connections"
        refusal = None if ok else chain_fault(code)
        if refusal is None and depth == 0:
            certificate = shown.to_cryptography()
            refusal = connection.admission.leaf_refusal(
                certificate, host=connection.host, expected=connection.expected
            )
            if refusal is None:
                connection.certificate = certificate
        if refusal is not None:
            self._refuse(connection, refusal)
            raise Refused(refusal)
        return True

    def _noticed(self, connection: SSL.Connection, where: int, value: int) -> None:
        assert isinstance(connection, PeerConnection), "our contexts make our connections"
        if where & SSL.SSL_CB_HANDSHAKE_DONE:
            if connection.certificate is not None:
                connection.peer_id = pki.peer_id(connection.certificate)
        elif where & SSL.SSL_CB_ALERT and value >> 8 == 2:  # fatal
            alert = value & 0xFF
            words = ALERTS.get(alert, f"TLS alert {alert}")
            if where & SSL.SSL_CB_WRITE:
                self._refuse(connection, words)
            elif connection.host is None and alert in _CERTIFICATE_REFUSED:
                self._say(connection, f"it refuses our certificate: {words}")

    def _refuse(self, connection: PeerConnection, reason: str) -> None:
        if connection.refused:  # the alert that follows our own refusal
            return
        connection.refused = True
        self.refusals += 1
        if connection.host is None:  # a dialer is told by the exception
            self._say(connection, reason)

    def _say(self, connection: PeerConnection, reason: str) -> None:
        """Log what a stranger caused, at most once a second."""
        now = self._clock.seconds()
        if now - self._said < 1.0:
            self._unsaid += 1
            return
        self.log.info(
            "refused the peer at {address}: {reason} ({more} more before)",
            address=connection.address,
            reason=reason,
            more=self._unsaid,
        )
        self._said, self._unsaid = now, 0


@implementer(IOpenSSLServerConnectionCreator)
@frozen
class _Acceptor:
    credentials: Credentials

    def serverConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        return self.credentials.connection(tlsProtocol, None, None)


@implementer(IOpenSSLClientConnectionCreator)
@frozen
class _Dialer:
    credentials: Credentials
    host: str
    expected: PeerID | None

    def clientConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        return self.credentials.connection(tlsProtocol, self.host, self.expected)


# -- endpoints -----------------------------------------------------------------


def server_endpoint(
    endpoint: IStreamServerEndpoint, credentials: Credentials, *, clock: IReactorTime
) -> IStreamServerEndpoint:
    """Listen where ``endpoint`` does, admitting peers only."""
    return wrapServerTLS(credentials.acceptor(), endpoint, clock=clock)


def client_endpoint(
    reactor: Any,
    address: Address,
    credentials: Credentials,
    *,
    expected: PeerID | None = None,
    timeout: float = 10.0,
) -> IStreamClientEndpoint:
    """
    Dial a peer. The connection is made when TCP is; who answers is known at the first byte received.

    :param reactor: anything with ``connectTCP``, a clock, and for names a resolver.
    :param expected: whose key it must be, if known.
    :param timeout: seconds for name and TCP connection.
    """
    host, port = address.host, address.port
    inner: IStreamClientEndpoint
    if isIPAddress(host):
        inner = TCP4ClientEndpoint(reactor, host, port, timeout)
    elif isIPv6Address(host):
        inner = TCP6ClientEndpoint(reactor, host, port, timeout)
    else:
        inner = HostnameEndpoint(reactor, host.encode("ascii"), port, timeout)
    return wrapClientTLS(credentials.dialer(host, expected), inner, clock=reactor)


def _choose_protocol(connection: SSL.Connection, offered: list[bytes]) -> Any:
    for protocol in PROTOCOLS:
        if protocol in offered:
            return protocol
    return SSL.NO_OVERLAPPING_PROTOCOLS


def _is_ip(host: str) -> bool:
    return isIPAddress(host) or isIPv6Address(host)


__all__ = [
    "Credentials",
    "PeerConnection",
    "Refused",
    "TLSSettings",
    "certificate_of",
    "client_endpoint",
    "peer_id_of",
    "server_endpoint",
    "tls_fault",
]

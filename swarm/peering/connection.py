"""One mutual TLS 1.3 connection: how it is set up, judged while it is made, and who is at its other end.

Connections are of our own making over ``OpenSSL.SSL.Context``, because Twisted's ``CertificateOptions``
goes through pyOpenSSL's deprecated X509 and PKey (Twisted #12664, #12666) and checks neither EKU nor
key. No session is resumed: every connection is judged anew. The rules are in ``swarm.peering.admission``.

TLS 1.3 refuses late: a dialer is connected, and may have written its request, before the listener
has seen its certificate. So a peer we dialled is authenticated before its first byte reaches us,
but *we* are admitted only when its first valid response arrives; until then the connection may end
with an alert (:func:`tls_fault`) or, when the alert was overtaken by a reset, with less.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from attrs import frozen
from cryptography import x509
from OpenSSL import SSL, crypto
from twisted.protocols.tls import TLSMemoryBIOProtocol

from swarm import pki
from swarm.model.peers import PeerID
from swarm.peering.admission import Admission, chain_fault, trust

CIPHERS: Final = b"TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256"
"""AES-128 first: two percent less CPU than AES-256 (PERFORMANCE 2b)."""

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
    80: "not admitted",  # what OpenSSL sends when a verify callback refuses a sound chain
    116: "no certificate shown",
    120: "no common protocol",
}
"""Fatal TLS alerts (RFC 8446, 6.2) that tell people something."""

_CERTIFICATE_REFUSED: Final = frozenset({42, 43, 44, 45, 46, 48, 49, 80, 116})
_FATAL: Final = 2
_ENABLE_PARTIAL_WRITE: Final = 0x1  # SSL_MODE_ENABLE_PARTIAL_WRITE in openssl/ssl.h; unnamed in pyOpenSSL

Noted = Callable[["PeerConnection", str], None]
"""Told of each connection that TLS ends and why, once, at whichever end the refusal was made."""


class Refused(SSL.Error):
    """We refused the other side's certificate; the connection ends with an alert and this reason."""

    def __init__(self, reason: str) -> None:
        super().__init__([("swarm", "admission", reason)])  # the shape of OpenSSL's own error queue
        self.reason = reason

    def __str__(self) -> str:
        return self.reason


class PeerConnection(SSL.Connection):
    """
    One TLS connection, with what we know of its other side.

    A subclass, since Twisted keeps the ``app_data`` of a connection for itself.

    :ivar admission: the rules it was judged by last.
    :ivar host: what we dialled; None if it dialled us.
    :ivar expected: whose key it must have, if known.
    :ivar certificate: shown and admitted, but not proven to be theirs before the handshake is done.
    :ivar peer_id: proven; None until the handshake is done.
    :ivar over: TLS has ended it, and that was noted.
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
        self.over = False

    @property
    def address(self) -> str:
        """For logs."""
        return self.host or str(getattr(self.transport.getPeer(), "host", "a local socket"))


@frozen
class Vouched:
    """
    Stands where a connection would whose TLS another process of this node ends.

    :ivar peer_id: proven there, told over a socket that nobody else has.
    """

    peer_id: PeerID


def peer_context(admission: Admission, noted: Noted) -> SSL.Context:
    """
    Make a context for both directions: TLS 1.3 only, both sides show certificates, ``http/1.1``.

    :raises OpenSSL.SSL.Error: OpenSSL cannot use the identity.
    """
    identity = admission.identity
    context = SSL.Context(SSL.TLS_METHOD)
    context.set_min_proto_version(SSL.TLS1_3_VERSION)
    context.set_tls13_ciphersuites(CIPHERS)
    context.set_options(SSL.OP_NO_TICKET | SSL.OP_CIPHER_SERVER_PREFERENCE)
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)
    # pyOpenSSL sets it: one send() would take 16 KiB at most. Memory BIOs take everything; see lean.
    context.clear_mode(_ENABLE_PARTIAL_WRITE)
    context.use_certificate(identity.certificate)
    context.use_privatekey(identity.key)  # type: ignore[arg-type]  # a narrower union of the same keys
    context.check_privatekey()
    for certificate in identity.intermediates:
        context.add_extra_chain_cert(certificate)
    store = context.get_cert_store()
    assert store is not None, "a context has a store"
    trust(store, identity)

    def verify(connection: SSL.Connection, shown: crypto.X509, code: int, depth: int, ok: int) -> bool:
        # Called for each certificate of the chain; the peer's own, depth 0, comes last. What is raised
        # here ends the handshake and becomes the reason the connection was lost.
        assert isinstance(connection, PeerConnection), "our contexts make our connections"
        refusal = None if ok else chain_fault(code)
        if refusal is None and depth == 0:
            refusal = _judge(connection, shown)
        if refusal is not None:
            _note(connection, refusal, noted)
            raise Refused(refusal)
        return True

    def informed(connection: SSL.Connection, where: int, value: int) -> None:
        assert isinstance(connection, PeerConnection), "our contexts make our connections"
        if where & SSL.SSL_CB_HANDSHAKE_DONE and connection.certificate is not None:
            connection.peer_id = pki.peer_id(connection.certificate)
        elif where & SSL.SSL_CB_ALERT and value >> 8 == _FATAL:
            ours = bool(where & SSL.SSL_CB_WRITE)
            if ours and connection.peer_id is not None:
                return  # it hung up without a goodbye, as a process that is killed does
            alert = value & 0xFF
            words = ALERTS.get(alert, f"TLS alert {alert}")
            if not ours:
                words = f"it refuses {'us' if alert in _CERTIFICATE_REFUSED else 'to go on'}: {words}"
            _note(connection, words, noted)

    context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, verify)
    context.set_info_callback(informed)
    context.set_alpn_protos(PROTOCOLS)
    context.set_alpn_select_callback(_choose_protocol)
    return context


def peer_id_of(transport: Any) -> PeerID:
    """
    Tell whose key the other side of a connection proved to have. Cheap: worked out once a connection.

    :param transport: what a protocol over our endpoints has as ``transport`` (for a web request,
        ``request.transport``).
    :raises LookupError: the handshake is not done, the connection is gone, or it was never ours.
    """
    connection = transport.getHandle()
    return connection.peer_id if isinstance(connection, Vouched) else _authenticated(transport)[0]


def certificate_of(transport: Any) -> x509.Certificate:
    """
    Give the certificate of the other side, e.g. for ``pki.common_name``.

    :raises LookupError: as :func:`peer_id_of`.
    """
    return _authenticated(transport)[1]


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
        alert = text.partition(" alert ")[2]  # "tlsv1 alert unknown ca"; the version means nothing
        if alert:
            return f"it refuses us: {alert.replace('internal error', 'not admitted')}"
        return f"no TLS with it: {text}" if text else None
    for nested in getattr(error, "reasons", None) or ():
        if found := tls_fault(nested.value):
            return found
    return None


def _judge(connection: PeerConnection, shown: crypto.X509) -> str | None:
    try:
        certificate = shown.to_cryptography()
    except ValueError:  # cryptography is stricter than OpenSSL
        return "its certificate cannot be read"
    refusal = connection.admission.leaf_refusal(
        certificate, host=connection.host, expected=connection.expected
    )
    if refusal is None:
        connection.certificate = certificate
    return refusal


def _note(connection: PeerConnection, reason: str, noted: Noted) -> None:
    if not connection.over:  # our alert follows our refusal
        connection.over = True
        noted(connection, reason)


def _authenticated(transport: Any) -> tuple[PeerID, x509.Certificate]:
    connection = transport.getHandle()
    if isinstance(connection, PeerConnection) and connection.peer_id and connection.certificate:
        return connection.peer_id, connection.certificate
    raise LookupError("no authenticated peer on this connection")


def _choose_protocol(connection: SSL.Connection, offered: list[bytes]) -> Any:
    for protocol in PROTOCOLS:
        if protocol in offered:
            return protocol
    return SSL.NO_OVERLAPPING_PROTOCOLS

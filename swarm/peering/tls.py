"""Listening and dialling with mutual TLS: the front of what peers are connected through.

Decides how a plain endpoint becomes one of ours, on the clock it is given, so that it also runs in a
simulated reactor. ``swarm.peering.connection`` says how a connection is set up and judged,
``swarm.peering.credentials`` with which certificate.
"""

from __future__ import annotations

from typing import Any

from attrs import frozen
from OpenSSL import SSL
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint, TCP4ClientEndpoint, TCP6ClientEndpoint
from twisted.internet.interfaces import (
    IListeningPort,
    IOpenSSLClientConnectionCreator,
    IOpenSSLServerConnectionCreator,
    IProtocol,
    IProtocolFactory,
    IReactorTime,
    IStreamClientEndpoint,
    IStreamServerEndpoint,
)
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol
from zope.interface import implementer

from swarm.model.peers import Address, PeerID
from swarm.peering.connection import PeerConnection, Refused, certificate_of, peer_id_of, tls_fault
from swarm.peering.credentials import Credentials, TLSSettings
from swarm.peering.lean import LeanTLSFactory


@implementer(IOpenSSLServerConnectionCreator)
@frozen
class Acceptor:
    """Makes the TLS connections of those who dial us."""

    credentials: Credentials

    def serverConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        """Part of Twisted's interface."""
        return self.credentials.connection(tlsProtocol)


@implementer(IOpenSSLClientConnectionCreator)
@frozen
class Dialer:
    """Makes TLS connections to one host, which its SAN must name, and to one key, where it is known."""

    credentials: Credentials
    host: str
    expected: PeerID | None = None

    def clientConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        """Part of Twisted's interface."""
        return self.credentials.connection(tlsProtocol, self.host, self.expected)


def server_endpoint(
    endpoint: IStreamServerEndpoint, credentials: Credentials, *, clock: IReactorTime
) -> IStreamServerEndpoint:
    """Listen where ``endpoint`` does, and admit peers only."""
    return _Listening(endpoint, credentials, clock)


def secured(
    factory: IProtocolFactory, credentials: Credentials, *, clock: IReactorTime
) -> TLSMemoryBIOFactory:
    """What listens for ``factory``, and admits peers only."""
    return _factory(credentials)(Acceptor(credentials), False, factory, clock)


def client_endpoint(
    reactor: Any,
    address: Address,
    credentials: Credentials,
    *,
    expected: PeerID | None = None,
    timeout: float = 10.0,
) -> IStreamClientEndpoint:
    """
    Dial a peer.

    ``connect()`` fires once TCP is connected, before the TLS handshake; the peer is authenticated when
    the protocol receives its first byte, and a refused one shows as the reason of ``connectionLost``.

    :param reactor: anything with a clock, ``connectTCP`` and, for names, a resolver.
    :param expected: whose key it must be, if known.
    :param timeout: seconds for the name and TCP.
    """
    host, port = address.host, address.port
    inner: IStreamClientEndpoint
    if isIPAddress(host):
        inner = TCP4ClientEndpoint(reactor, host, port, timeout)
    elif isIPv6Address(host):
        inner = TCP6ClientEndpoint(reactor, host, port, timeout)
    else:
        inner = HostnameEndpoint(reactor, host.encode("ascii"), port, timeout)
    return _Dialing(inner, Dialer(credentials, host, expected), reactor)


@implementer(IStreamServerEndpoint)
@frozen
class _Listening:
    """Not Twisted's own wrapper, which knows no other factory than the stock one."""

    endpoint: IStreamServerEndpoint
    credentials: Credentials
    clock: IReactorTime

    def listen(self, protocolFactory: IProtocolFactory) -> Deferred[IListeningPort]:
        """Part of Twisted's interface."""
        return self.endpoint.listen(secured(protocolFactory, self.credentials, clock=self.clock))


@implementer(IStreamClientEndpoint)
@frozen
class _Dialing:
    endpoint: IStreamClientEndpoint
    dialer: Dialer
    clock: IReactorTime

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """Part of Twisted's interface."""
        factory = _factory(self.dialer.credentials)
        connecting: Deferred[Any] = self.endpoint.connect(
            factory(self.dialer, True, protocolFactory, self.clock)
        )
        return connecting.addCallback(lambda protocol: protocol.wrappedProtocol)


def _factory(credentials: Credentials) -> type[TLSMemoryBIOFactory]:
    return LeanTLSFactory if credentials.settings.lean else TLSMemoryBIOFactory


__all__ = [
    "Acceptor",
    "Credentials",
    "Dialer",
    "PeerConnection",
    "Refused",
    "TLSSettings",
    "certificate_of",
    "client_endpoint",
    "peer_id_of",
    "secured",
    "server_endpoint",
    "tls_fault",
]

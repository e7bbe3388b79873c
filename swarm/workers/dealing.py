"""A door of the node when it has workers: every connection is accepted here, and most are given away.

A listening port of Twisted's makes a transport for what it accepted by calling its ``transport``, which
may be replaced (``twisted.internet.tcp.Port``). Here it is given the bare socket instead where a worker is
to have it, so that nothing of it is read, and nothing shuts it down, before it is gone. This has to lie
below TLS, since TLS cannot change hands: so it is an endpoint, to be wrapped by the one that adds TLS.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

from attrs import frozen
from twisted.internet import tcp
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IAddress,
    IListeningPort,
    IProtocolFactory,
    IProtocolNegotiationFactory,
    IStreamServerEndpoint,
)
from twisted.internet.protocol import Factory, Protocol
from twisted.logger import Logger
from zope.interface import implementer

from swarm.workers.visits import Visit, receive

if TYPE_CHECKING:
    from swarm.web.site import StreamingSite
    from swarm.workers.crew import Crew
    from swarm.workers.worker import Worker


@implementer(IStreamServerEndpoint)
@frozen(eq=False)
class Dealing:
    """
    Listens where ``endpoint`` does, for workers too where that can be.

    :ivar door: which one this is, see :mod:`swarm.workers.messages`.
    :ivar site: whose clients come in here: it counts those of the workers, and serves what they cannot.
    """

    endpoint: IStreamServerEndpoint
    door: bytes
    site: StreamingSite
    crew: Crew
    reactor: Any

    def listen(self, protocolFactory: IProtocolFactory) -> Deferred[IListeningPort]:
        """Part of Twisted's interface."""
        dealer = Dealer(self, protocolFactory)
        listening: Deferred[IListeningPort] = self.endpoint.listen(dealer)
        return listening.addCallback(dealer.attach)


class _Given(Protocol):
    """Stands where a protocol would for a connection that goes to a worker."""

    def __init__(self, door: bytes, worker: Worker, client: IAddress | None) -> None:
        self._door = door
        self._worker = worker
        self._client = client

    def makeConnection(self, transport: Any) -> None:
        """Give the bare socket to the worker."""
        self._worker.deal(self._door, transport, self._client)


@implementer(IProtocolNegotiationFactory)
class Dealer(Factory):
    """
    The factory to listen with instead of ``factory``; a :class:`~swarm.workers.crew.Door`.

    Until :meth:`attach` finds that the port's connections can be given away, none is.
    """

    noisy = False
    log = Logger()

    def __init__(self, dealing: Dealing, factory: Any) -> None:
        self._factory = factory
        self._door = dealing.door
        self._site = dealing.site
        self._crew = dealing.crew
        self._reactor = dealing.reactor
        self._transport: Any = None

    def attach(self, port: IListeningPort) -> IListeningPort:
        """Give away what ``port`` accepts. Not where TLS comes before this: it can't change hands."""
        if isinstance(port, tcp.Port) and port.factory is self:
            self._transport = port.transport
            port.transport = self._accepted  # type: ignore[assignment] # called like one, says its docstring
            self._crew.open(self._door, self)
        else:
            self.log.warn("workers: they can't serve {port}", port=port)
        return port

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """Who serves this client? None, which hangs up, when it or everybody has too many."""
        worker = self._crew.choose(self._door) if self._transport is not None else None
        if worker is None:
            return self._factory.buildProtocol(addr)
        return _Given(self._door, worker, addr) if self._site.lend(addr) else None

    def acceptableProtocols(self) -> list[bytes]:
        """What ALPN may choose, where TLS comes first."""
        return self._site.acceptableProtocols()

    def _accepted(self, connection: socket.socket, protocol: Any, *rest: Any) -> Any:
        return connection if isinstance(protocol, _Given) else self._transport(connection, protocol, *rest)

    # -- see Door ---------------------------------------------------------------------

    @property
    def connections(self) -> int:
        """Open connections the node itself serves."""
        return self._site.connections

    def left(self, client: IAddress | None) -> None:
        """It is no longer with a worker."""
        self._site.unlend(client)

    def taken_again(self, client: IAddress | None) -> None:
        """It is again."""
        self._site.lend_again(client)

    def serve(self, connection: socket.socket, received: bytes) -> None:
        """Go on with a connection as if it had just been accepted, and ``received`` just read."""
        with connection:
            try:
                transport = self._reactor.adoptStreamConnection(
                    connection.fileno(), connection.family, self._factory
                )
            except OSError:
                return  # the client is gone: it has no address any more
        if transport is None or not received:
            return
        try:
            transport.protocol.dataReceived(received)
        except Exception:  # as the reactor does with what a protocol raises
            self.log.failure("reading what a worker read")
            transport.abortConnection()

    def visit(self, visit: Visit) -> None:
        """Answer what a worker cannot."""
        receive(visit, self._site, self._reactor)

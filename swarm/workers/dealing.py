"""The node's door when it has workers: every connection is accepted here, and most are given away.

A listening port of Twisted's makes a transport for what it accepted by calling its ``transport``, which
may be replaced (``twisted.internet.tcp.Port``). Here it is given the bare socket instead where a worker is
to have it, so that nothing of it is read, and nothing shuts it down, before it is gone.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

from twisted.internet import tcp
from twisted.internet.interfaces import IAddress, IListeningPort, IProtocolNegotiationFactory
from twisted.internet.protocol import Factory, Protocol
from twisted.logger import Logger
from zope.interface import implementer

if TYPE_CHECKING:
    from swarm.web.site import StreamingSite
    from swarm.workers.crew import Crew
    from swarm.workers.worker import Worker


class _Given(Protocol):
    """Stands where a protocol would for a connection that goes to a worker."""

    def __init__(self, worker: Worker, client: IAddress | None) -> None:
        self._worker = worker
        self._client = client

    def makeConnection(self, transport: Any) -> None:
        """Give the bare socket to the worker."""
        self._worker.deal(transport, self._client)


@implementer(IProtocolNegotiationFactory)
class Dealer(Factory):
    """
    The factory to listen with instead of ``site``'s; a :class:`~swarm.workers.crew.Door`.

    Until :meth:`attach` finds that the port's connections can be given away, none is.
    """

    noisy = False
    log = Logger()

    def __init__(self, site: StreamingSite, crew: Crew, reactor: Any) -> None:
        self._site = site
        self._crew = crew
        self._reactor = reactor
        self._transport: Any = None

    def attach(self, port: IListeningPort) -> bool:
        """Give away what ``port`` accepts. Not where TLS comes before HTTP: it can't change hands."""
        if not isinstance(port, tcp.Port) or port.factory is not self:
            return False
        self._transport = port.transport
        port.transport = self._accepted  # type: ignore[assignment] # called like one, says its docstring
        return True

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """Who serves this client? None, which hangs up, when it or everybody has too many."""
        worker = self._crew.choose() if self._transport is not None else None
        if worker is None:
            return self._site.buildProtocol(addr)
        return _Given(worker, addr) if self._site.lend(addr) else None

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

    def serve(self, connection: socket.socket, received: bytes) -> None:
        """Go on with a connection as if it had just been accepted, and ``received`` just read."""
        with connection:
            try:
                transport = self._reactor.adoptStreamConnection(
                    connection.fileno(), connection.family, self._site
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

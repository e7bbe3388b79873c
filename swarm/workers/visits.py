"""Requests that workers cannot answer, at the node: a stream in place of the connection they came by.

The door's own site answers, with its limits and deadlines, as if the peer had connected here: it sees the
peer's address and the identity the worker vouches for. Decides when the stream ends: with the answer to
one request, where it is for one; and whether the peer's connection, elsewhere, may go on after it.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

from attrs import frozen
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.python.failure import Failure

from swarm.model.peers import PeerID
from swarm.peering.connection import Vouched
from swarm.web.channel import Channel
from swarm.web.site import StreamingSite
from swarm.workers.messages import BREAKS, CLOSES, GOES_ON

_log = Logger()


@frozen(eq=False)
class Visit:
    """
    One stream.

    :ivar client: where the peer connected from.
    :ivar peer: who it is.
    :ivar received: the first bytes; more come by the stream.
    :ivar alone: it is for one request; otherwise for all there will be.
    :ivar ended: to be told how the answer ended, once, see :mod:`swarm.workers.messages`.
    """

    stream: socket.socket
    client: IAddress | None
    peer: PeerID
    received: bytes
    alone: bool
    ended: Callable[[bytes], None]


def receive(visit: Visit, site: StreamingSite, reactor: Any) -> None:
    """Have ``site`` answer, as it answers who connects to it; closes the stream in the end."""
    with visit.stream as stream:
        try:
            transport = reactor.adoptStreamConnection(stream.fileno(), stream.family, _Reception(site, visit))
        except OSError:  # too many are open here
            visit.ended(BREAKS)
            return
    try:
        transport.protocol.dataReceived(visit.received)
    except Exception:  # as the reactor does with what a protocol raises
        _log.failure("reading what a worker read")
        transport.abortConnection()


class _One(Channel):
    """
    A channel for one request.

    :ivar goes_on: it was answered, and nothing says that the connection has to end.
    """

    goes_on = False

    def requestDone(self, request: Any) -> None:
        """The response is written."""
        self.goes_on = bool(self.persistent)
        super().requestDone(request)
        if self.goes_on:
            self.loseConnection()


class _Reception(WrappingFactory["_Visitor"]):
    """Makes the protocol of one stream, as reactors want it."""

    noisy = False

    def __init__(self, site: StreamingSite, visit: Visit) -> None:
        super().__init__(site)
        self._site = site
        self._visit = visit

    def buildProtocol(self, addr: IAddress | None) -> _Visitor:
        """Part of Twisted's interface."""
        channel = _One() if self._visit.alone else Channel()
        channel.factory = channel.site = self._site
        channel.requestFactory = self._site.requestFactory
        return _Visitor(self, channel, self._visit)


class _Visitor(ProtocolWrapper):
    """The stream, as the site sees it: the peer's own connection."""

    def __init__(self, factory: _Reception, channel: Channel, visit: Visit) -> None:
        super().__init__(factory, channel)
        self._channel = channel
        self._visit = visit

    def getPeer(self) -> IAddress:
        """Where the peer is."""
        return self._visit.client or super().getPeer()

    def getHandle(self) -> Vouched:
        """Who it is."""
        return Vouched(self._visit.peer)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The answer ended, or the worker gave up."""
        super().connectionLost(reason)
        if isinstance(self._channel, _One) and self._channel.goes_on:
            self._visit.ended(GOES_ON)
        else:
            self._visit.ended(CLOSES if reason.check(ConnectionDone) else BREAKS)

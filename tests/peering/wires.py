"""Connections in memory on which a test plays the server's part, byte by byte."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionAborted, ConnectionDone
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IStreamClientEndpoint
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from zope.interface import implementer


class Transport(StringTransport):
    """Notes an abort; :class:`Wires` tells the protocol, as a reactor would: later."""

    aborted = False
    producer: Any = None

    def abortConnection(self) -> None:
        self.aborted = True
        super().abortConnection()


@implementer(IStreamClientEndpoint)
class Wires:
    """An endpoint, and all connections made through it."""

    def __init__(self) -> None:
        self.transports: list[Transport] = []
        self.protocols: list[IProtocol] = []
        self.pending: list[tuple[Deferred[IProtocol], IProtocolFactory]] = []
        self.later = False
        self._lost: set[int] = set()

    def connect(self, factory: IProtocolFactory) -> Deferred[IProtocol]:
        done: Deferred[IProtocol] = Deferred()
        self.pending.append((done, factory))
        if not self.later:
            self.accept()
        return done

    def accept(self) -> None:
        done, factory = self.pending.pop()
        protocol = factory.buildProtocol(None)  # type: ignore[arg-type]  # nobody asks for the address
        assert protocol is not None
        self.protocols.append(protocol)
        self.transports.append(Transport())
        protocol.makeConnection(self.transports[-1])
        done.callback(protocol)

    def send(self, data: bytes, on: int = -1) -> None:
        """The peer says something."""
        if not self.transports[on].aborted:
            self.protocols[on].dataReceived(data)
        self.settle()

    def end(self, reason: Exception | None = None, on: int = -1) -> None:
        """The connection is over."""
        index = on % len(self.transports)
        if index not in self._lost:
            self._lost.add(index)
            self.protocols[index].connectionLost(Failure(reason or ConnectionDone()))

    def settle(self) -> None:
        """What was aborted is over."""
        for index, transport in enumerate(self.transports):
            if transport.disconnecting:
                self.end(ConnectionAborted(), index)

    def dropped(self, on: int = -1) -> bool:
        """Did our side hang up?"""
        return bool(self.transports[on].disconnecting)

    def said(self, on: int = -1) -> bytes:
        """All our side sent on a connection."""
        return self.transports[on].value()

    def asked(self, on: int = -1) -> list[str]:
        """The ranges asked for on a connection."""
        lines = self.said(on).decode().split("\r\n")
        return [line.removeprefix("Range: ") for line in lines if line.startswith("Range: ")]

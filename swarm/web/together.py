"""Connections that are read together: one reader for the reactor, many sockets for the kernel.

For each socket that has something to read the reactor of Twisted prepares a log context, tells a log prefix
and catches what may go wrong, which together costs more than a small answer does (measured:
``docs/performance.md``). Here it does so once for all of them: their sockets are in a set of our own
(``epoll``, which can itself be waited for), and the reactor watches that.

A transport knows its reactor as whom to ask to be watched, and for reading that is :class:`Together`; all
else is the reactor's as ever. So is whatever is no plain "there is something to read": a socket that breaks
goes back to the reactor, which sees the same again. An end is told at once: who is gone counts with nobody.

Decides nothing about what is read. Only for :class:`~twisted.internet.tcp.Server` itself, where there is
``epoll``; all others are watched as ever.
"""

from __future__ import annotations

import select
from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IReactorFDSet, IReadDescriptor
from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST
from twisted.internet.tcp import Server
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

_READABLE = getattr(select, "EPOLLIN", 0)
#: Sockets that are read before the reactor sees to others.
_MOST = 256


@implementer(IReadDescriptor)
class Together:
    """
    One for each door.

    :param reactor: the real one.
    :param looks: called before it is found out who has something to read.
    """

    log = Logger()

    def __init__(self, reactor: Any, looks: Callable[[], object]) -> None:
        self._reactor = reactor
        self._looks = looks
        self._epoll: Any = None
        self._joined: set[Any] = set()
        self._numbers: dict[Any, int] = {}
        self._watched: dict[int, Any] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)

    # -- who is here ------------------------------------------------------------------

    def join(self, transport: Any) -> None:
        """Read this one here from now on, if it is one that can be, until :meth:`leave`."""
        if type(transport) is not Server or transport.reactor is not self._reactor or not _READABLE:
            return
        if not self._joined:
            if not IReactorFDSet.providedBy(self._reactor):
                return
            self._epoll = select.epoll()
            self._reactor.addReader(self)
        self._joined.add(transport)
        transport.stopReading()
        as_reactor: Any = self
        transport.reactor = as_reactor
        transport.startReading()

    def leave(self, transport: Any) -> None:
        """The reactor's again. Does nothing for who never joined."""
        if transport not in self._joined:
            return
        reads = transport in self._numbers
        self.removeReader(transport)
        transport.reactor = self._reactor
        if reads:
            transport.startReading()
        self._joined.remove(transport)
        if not self._joined:
            self._reactor.removeReader(self)
            self._epoll.close()
            self._epoll = None

    # -- a reactor, for transports ------------------------------------------------------

    def addReader(self, transport: Any) -> None:
        """See :class:`IReactorFDSet`."""
        if transport not in self._numbers:
            number = transport.fileno()
            self._epoll.register(number, _READABLE)
            self._numbers[transport] = number
            self._watched[number] = transport

    def removeReader(self, transport: Any) -> None:
        """See :class:`IReactorFDSet`; before its socket is closed."""
        number = self._numbers.pop(transport, None)
        if number is not None:
            del self._watched[number]
            self._epoll.unregister(number)

    # -- a reader, for the reactor --------------------------------------------------------

    def fileno(self) -> int:
        """Of all of them; -1: there are none."""
        return -1 if self._epoll is None else int(self._epoll.fileno())

    def logPrefix(self) -> str:
        """See :class:`twisted.internet.interfaces.ILoggingContext`."""
        return type(self).__name__

    def doRead(self) -> None:
        """Read from each that has something."""
        self._looks()
        watched = self._watched
        for number, event in self._epoll.poll(0, _MOST):
            transport = watched.get(number)
            if transport is None:  # since a moment ago
                continue
            try:
                why = transport.doRead() if event == _READABLE else CONNECTION_LOST
            except Exception:  # as the reactor does with what a protocol raises
                self.log.failure("reading")
                transport.connectionLost(Failure())
                continue
            if why is CONNECTION_DONE:
                self.removeReader(transport)
                transport.readConnectionLost(Failure(CONNECTION_DONE))
            elif why is not None:
                self.leave(transport)

    def connectionLost(self, reason: Failure) -> None:
        """The reactor ends: tell all of them, as it would have."""
        for transport in tuple(self._numbers):
            transport.connectionLost(reason)

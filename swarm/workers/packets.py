"""Whole messages between the node and a worker, with open files attached.

One end of a ``SOCK_SEQPACKET`` pair: the kernel keeps order and boundaries, a descriptor arrives with
the very message it belongs to, and the end of either process is an end of file at the other. What the
messages say is :mod:`swarm.workers.messages`'s.
"""

from __future__ import annotations

import socket
from array import array
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IReadWriteDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

#: The longest message: the head of a request, and what a client sent behind it.
LONGEST = 160 << 10
_ROOM = socket.CMSG_SPACE(2 * array("i").itemsize)
_AT_ONCE = 64
_QUEUED = 256


def _nothing() -> None:
    pass


def _both(first: Callable[[], None], second: Callable[[], None]) -> Callable[[], None]:
    def call() -> None:
        first()
        second()

    return call


@implementer(IReadWriteDescriptor)
class Packets:
    """
    One end.

    :param received: called with each message and the descriptors that came with it, which are then its
        own; some are missing when this process has too many already.
    :param lost: called once, when the other end is gone. Not after :meth:`close`.
    """

    def __init__(
        self,
        end: socket.socket,
        reactor: Any,
        received: Callable[[bytes, Sequence[int]], None],
        lost: Callable[[], None],
    ) -> None:
        end.setblocking(False)
        for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            end.setsockopt(socket.SOL_SOCKET, option, 4 * LONGEST)
        self._socket = end
        self._reactor = reactor
        self._received = received
        self._lost = lost
        self._unsent: deque[tuple[bytes, Sequence[int], Callable[[], None]]] = deque()
        self._open = True
        reactor.addReader(self)

    @property
    def crowded(self) -> bool:
        """Does so much wait for the other end that no more should?"""
        return len(self._unsent) > _QUEUED

    def send(
        self, message: bytes, descriptors: Sequence[int] = (), sent: Callable[[], None] = _nothing
    ) -> None:
        """
        Send, now or as soon as there is room.

        :param sent: called when ``descriptors`` are the other end's too, or never will be.
        """
        assert message and len(message) <= LONGEST
        if not self._open:
            sent()
            return
        self._unsent.append((message, descriptors, sent))
        if len(self._unsent) == 1 and not self._flush():
            self._reactor.addWriter(self)

    def when_empty(self, then: Callable[[], None]) -> None:
        """Call ``then`` once the kernel has all there was to send, but not before this returns."""
        if self._unsent:
            self._unsent[-1] = (*self._unsent[-1][:2], _both(self._unsent[-1][2], then))
        else:
            self._reactor.callLater(0, then)

    def close(self) -> None:
        """Send nothing more and hear nothing more."""
        if not self._open:
            return
        self._open = False
        self._reactor.removeReader(self)
        self._reactor.removeWriter(self)
        self._socket.close()
        unsent, self._unsent = self._unsent, deque()
        for _, _, sent in unsent:
            sent()

    def _flush(self) -> bool:
        """Is everything sent, or nobody there to take it?"""
        while self._unsent:
            message, descriptors, sent = self._unsent[0]
            try:
                if descriptors:
                    socket.send_fds(self._socket, [message], descriptors)
                else:
                    self._socket.send(message)
            except BlockingIOError:
                return False
            except OSError:
                return True  # the reader hears of it
            self._unsent.popleft()
            sent()
        return True

    # -- called by the reactor ------------------------------------------------------

    def doRead(self) -> Any:
        """Messages came."""
        for _ in range(_AT_ONCE):
            try:
                # Not recv_fds(): it forgets its flags (Python 3.11), and what comes could be inherited.
                message, ancillary, _, _ = self._socket.recvmsg(LONGEST, _ROOM, socket.MSG_CMSG_CLOEXEC)
            except BlockingIOError:
                return None
            except OSError:
                return ConnectionLost()
            if not message:
                return ConnectionDone()
            descriptors = array("i")
            for _, _, data in ancillary:
                descriptors.frombytes(data)
            self._received(message, descriptors)
            if not self._open:
                return None
        return None

    def doWrite(self) -> None:
        """There is room."""
        if self._flush():
            self._reactor.removeWriter(self)

    def fileno(self) -> int:
        """For the reactor."""
        return self._socket.fileno()

    def logPrefix(self) -> str:
        """For the reactor's log."""
        return "workers"

    def connectionLost(self, reason: Failure) -> None:
        """The other end is gone, or the reactor stops."""
        if self._open:
            self.close()
            self._lost()


def pair() -> tuple[socket.socket, socket.socket]:
    """Both ends, neither inherited by accident."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

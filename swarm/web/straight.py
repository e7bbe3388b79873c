"""Blob bytes straight from their file to the connection, past everything that need not see them.

Decides when that is possible and how the connection's flow is lent for it; where it is not, or no
longer, :mod:`swarm.web.bodies` goes on by its own way, which also finds out and says what is wrong. Two ways:

* Over plain TCP ``sendfile``: the kernel copies from the page cache. 1.0-1.3 times the CPU of nginx for a
  blob of 1 GiB where chunks through Python took 2.7 (PERFORMANCE 1). A *pull* producer on the transport
  itself: it is asked for more exactly when nothing is buffered and the socket takes more.
* Over a transport that takes views (TLS, :class:`ITakesViews`): through one buffer that is kept, one
  call for a chunk. It spares two thirds of what Python does between two chunks.

Only for bytes that lie proven in a plain file (``IBlobReader.fileno``) and in memory: what the disk
would have to be asked for is read in a thread.
"""

from __future__ import annotations

import errno
import os
import socket
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IPullProducer, IPushProducer, ISSLTransport
from twisted.internet.tcp import Connection
from zope.interface import Interface, implementer

from swarm.errors import StoreFailed
from swarm.interfaces import IBlobReader
from swarm.model.ranges import ByteRange
from swarm.web.deadlines import Phase

if TYPE_CHECKING:
    from swarm.web.request import StreamingRequest

SENDFILE: Final = 1 << 21
"""Bytes given to ``sendfile`` at a time: what a socket's buffer takes at once, and fair to others."""

_AHEAD: Final = 1 << 23
"""Bytes that are taken to be in memory when the last of them is: the kernel reads ahead in order."""

_MOMENT: Final = 1.0
"""Seconds between two looks at what the client took, while it takes more than a window in them."""

_VIEW = memoryview(bytearray(1 << 18))
_VIEWS: Final = 2
"""How often it is filled for one connection before the others have their turn."""


class ITakesViews(Interface):
    """A transport that may be given bytes in a buffer that changes afterwards."""

    def writeView(view: memoryview) -> None:
        """As ``write``; nothing of ``view`` is needed any more when it returns."""


async def send_straight(request: StreamingRequest, reader: IBlobReader, span: ByteRange) -> int:
    """
    Send bytes of ``span``, as far as it goes without waiting for a disk; every header was written.

    :return: the offset reached: ``span.start`` where there is no straight way, ``span.stop`` when the
        transport took all of it.
    """
    transport = request.channel.transport
    way: _Loan
    if ITakesViews.providedBy(transport):
        way = _Views(request, reader, span)
    elif _is_tcp(transport):
        way = _Sendfile(request, reader, span)
    else:
        return span.start
    if way.ready(span.start):
        try:
            await way.begin()
        finally:
            way.give_back()
    return way.offset


def _is_tcp(transport: Any) -> bool:
    return (
        isinstance(transport, Connection)
        and not ISSLTransport.providedBy(transport)
        and transport.getHandle().family in (socket.AF_INET, socket.AF_INET6)
    )


class _Loan:
    """
    The transport's flow, lent to one span of one response.

    :ivar offset: of the next byte to send.
    """

    streaming: bool
    _look_at = 0.0

    def __init__(self, request: StreamingRequest, reader: IBlobReader, span: ByteRange) -> None:
        self.offset = span.start
        self._stop = span.stop
        self._request = request
        self._reader = reader
        self._channel = request.channel
        self._transport = request.channel.transport
        self._done: Deferred[None] = Deferred()
        self._lost = False

    def begin(self) -> Deferred[None]:
        """Take the flow from the channel; fires when there is no more to send this way."""
        self._channel.deadlines.draining()
        self._transport.unregisterProducer()
        self._transport.registerProducer(self, self.streaming)
        return self._done

    def give_back(self) -> None:
        """Let the channel have the flow again, unless the connection is gone."""
        if self._lost:
            return
        self._transport.unregisterProducer()
        self._transport.registerProducer(self._channel, True)
        if self._channel.deadlines.phase is Phase.DRAINING:
            self._channel.deadlines.ours()

    def stopProducing(self) -> None:
        """The connection is lost: the response is canceled, and with it who awaits us."""
        self._lost = True

    def ready(self, offset: int) -> bool:
        """Are the bytes free to go, and is this one in memory?"""
        try:
            return self._reader.fileno() >= 0 and bool(self._reader.read_now(offset, 1))
        except StoreFailed:  # to be found out, and said, where the bytes are needed
            return False

    def _look_at_time(self) -> None:
        now = self._channel.site.reactor.seconds()
        if now >= self._look_at:
            self._look_at = now + _MOMENT
            self._channel.deadlines.draining()

    def _sent(self, count: int) -> None:
        self.offset += count
        self._request.sentLength += count

    def _end(self) -> None:
        if not self._done.called:
            self._done.callback(None)


@implementer(IPullProducer)
class _Sendfile(_Loan):
    """
    Lets the kernel copy from file to socket.

    What the reactor calls when the socket takes more, the transport's ``doWrite``, is ours while it is lent:
    the transport's own looks for bytes of its own first, sends none, and is watched and unwatched for each
    window, which was half of what sending a window cost.
    """

    streaming = False
    _begun = False
    _ours = False
    _in_memory = 0

    def resumeProducing(self) -> None:
        """The transport has nothing to send of its own; at first that is not so, it only registers us."""
        if self._begun:
            self._ours = True
            self._transport.doWrite = self._send
        self._begun = True
        self._transport.startWriting()

    def give_back(self) -> None:
        """See :meth:`_Loan.give_back`; still watched, the transport finds what it was told meanwhile."""
        if self._ours:
            self._ours = False
            del self._transport.doWrite
        super().give_back()

    def _send(self) -> None:
        """Send what the socket takes; in place of the transport's ``doWrite``."""
        self._look_at_time()
        stop = min(self.offset + SENDFILE, self._stop)
        if stop > self._in_memory and not self._looked_ahead(stop):
            self._end()
            return
        try:
            count = os.sendfile(
                self._transport.fileno(), self._reader.fileno(), self.offset, stop - self.offset
            )
        except BlockingIOError:
            return
        except OSError:  # of the file or of the socket: whoever uses them next is told, and knows what to do
            count = 0  # as where the file is shorter than its blob
        self._sent(count)
        if not count or self.offset == self._stop:
            self._end()

    def _looked_ahead(self, stop: int) -> bool:
        for end in (min(self.offset + _AHEAD, self._stop), stop):
            if self.ready(end - 1):
                self._in_memory = end
                return True
        return False


@implementer(IPushProducer)
class _Views(_Loan):
    """Reads into a buffer that is kept, and writes from it."""

    streaming = True
    _paused = False
    _turn: IDelayedCall | None = None

    def begin(self) -> Deferred[None]:
        """See :meth:`_Loan.begin`; a push producer starts by itself."""
        done = super().begin()
        self.resumeProducing()
        return done

    def pauseProducing(self) -> None:
        """The transport is full."""
        self._paused = True

    def resumeProducing(self) -> None:
        """The transport took everything."""
        self._paused = False
        self._look_at_time()
        if self._turn is None:
            self._fill()

    def give_back(self) -> None:
        """See :meth:`_Loan.give_back`."""
        if self._turn is not None:
            self._turn.cancel()
            self._turn = None
        super().give_back()

    def _next_turn(self) -> None:
        self._turn = None
        self._look_at_time()
        self._fill()

    def _fill(self) -> None:
        """A transport that writes at once is seldom full, and never where its reader is as fast as we are."""
        for _ in range(_VIEWS):
            if self._paused or self._lost:
                return
            count = self._read() if self.offset < self._stop else 0
            if not count:
                self._end()
                return
            self._transport.writeView(_VIEW[:count])
            self._sent(count)
        self._turn = self._channel.site.reactor.callLater(0, self._next_turn)

    def _read(self) -> int:
        view = _VIEW[: self._stop - self.offset]
        fd = self._reader.fileno()
        try:
            return os.preadv(fd, [view], self.offset, os.RWF_NOWAIT) if fd >= 0 else 0
        except OSError as e:  # EAGAIN: not in memory. EIO: to be found out elsewhere.
            if e.errno != errno.EOPNOTSUPP or not self.ready(self.offset):
                return 0
        return os.preadv(fd, [view], self.offset)  # it does not know the flag and has it in memory: tmpfs

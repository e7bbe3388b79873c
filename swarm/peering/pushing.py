"""The body of a push: a blob read a piece at a time, as fast as the peer takes it."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IConsumer
from twisted.python.failure import Failure
from twisted.web.iweb import IBodyProducer
from zope.interface import implementer

_PIECE = 1 << 20


@implementer(IBodyProducer)
class BlobBody:
    """
    I send ``length`` bytes; may be started again from the front.

    :ivar ended: called when the last byte was handed over.
    """

    def __init__(self, read: Callable[[int, int], Coroutine[Any, Any, bytes]], length: int) -> None:
        self.length = length
        self.ended: Callable[[], None] = lambda: None
        self._read = read
        self._paused: Deferred[None] | None = None
        self._sending: Deferred[None] | None = None

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:
        """See :class:`~twisted.web.iweb.IBodyProducer`."""
        done: Deferred[None] = Deferred(lambda _: self.stopProducing())
        sending = self._sending = Deferred.fromCoroutine(self._send(consumer))

        def over(result: object) -> None:
            stopped = isinstance(result, Failure) and result.check(CancelledError)
            if self._sending is sending:
                self._sending = None
            self._paused = None
            if done.called or stopped:
                return  # the interface's rule: once stopped, never fired
            if isinstance(result, Failure):
                done.errback(result)
            else:
                self.ended()
                done.callback(None)

        sending.addBoth(over)
        return done

    def pauseProducing(self) -> None:
        """See :class:`~twisted.internet.interfaces.IPushProducer`."""
        if self._paused is None:
            self._paused = Deferred()

    def resumeProducing(self) -> None:
        """See :class:`~twisted.internet.interfaces.IPushProducer`."""
        paused, self._paused = self._paused, None
        if paused is not None:
            paused.callback(None)

    def stopProducing(self) -> None:
        """See :class:`~twisted.web.iweb.IBodyProducer`."""
        sending, self._sending = self._sending, None
        if sending is not None:
            sending.cancel()

    async def _send(self, consumer: IConsumer) -> None:
        offset = 0
        while offset < self.length:
            data = await self._read(offset, min(_PIECE, self.length - offset))
            offset += len(data)
            consumer.write(data)
            if self._paused is not None:
                await self._paused

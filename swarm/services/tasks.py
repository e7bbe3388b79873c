"""Owners of background coroutines, and the three ways to wait.

Decides nothing. Every coroutine that is not awaited belongs to a :class:`Tasks`, which logs what it
raises and cancels it on stop, so nothing is ever fire-and-forget.
"""

from __future__ import annotations

from collections.abc import Coroutine, Iterable
from typing import Any, TypeVar

from twisted.internet.defer import CancelledError, Deferred, DeferredList
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

_T = TypeVar("_T")


class Tasks:
    """I own coroutines until they end or I am stopped."""

    log = Logger()

    def __init__(self) -> None:
        self._running: dict[Deferred[Any], str] = {}
        self._stopped = False

    def start(self, name: str, work: Coroutine[Any, Any, Any]) -> None:
        """Run ``work``; what it raises is logged under ``name``. After :meth:`stop` it is dropped."""
        if self._stopped:
            work.close()
            return
        running: Deferred[Any] = Deferred.fromCoroutine(work)
        self._running[running] = name

        def ended(result: object) -> None:
            self._running.pop(running, None)
            if isinstance(result, Failure) and not result.check(CancelledError):
                self.log.failure("{task} failed", failure=result, task=name)

        running.addBoth(ended)

    async def stop(self) -> None:
        """Cancel everything and wait until it has ended."""
        self._stopped = True
        running = list(self._running)
        for each in running:
            each.cancel()
        if running:
            await DeferredList(running)

    @property
    def names(self) -> tuple[str, ...]:
        """What is running, for tests and debugging."""
        return tuple(self._running.values())


class Signal:
    """Something that happens again and again, and those who wait for it to happen next."""

    def __init__(self) -> None:
        self._waiting: dict[Deferred[None], None] = {}

    def wait(self) -> Deferred[None]:
        """Fires at the next :meth:`fire`; cancelling it forgets the waiter."""
        waiter: Deferred[None] = Deferred(lambda d: self._waiting.pop(d, None))
        self._waiting[waiter] = None
        return waiter

    def fire(self) -> None:
        """Wake all who wait now."""
        waiting, self._waiting = self._waiting, {}
        for each in waiting:
            if not each.called:  # one that woke first may have canceled another
                each.callback(None)


def within(clock: IReactorTime, seconds: float, work: Coroutine[Any, Any, _T]) -> Deferred[_T]:
    """
    Run ``work`` for at most ``seconds``.

    :raises twisted.internet.defer.TimeoutError: time was up; ``work`` was cancelled.
    """
    return Deferred.fromCoroutine(work).addTimeout(seconds, clock)


def sleep(clock: IReactorTime, seconds: float) -> Deferred[None]:
    """Wait on the given clock; may be cancelled."""
    waiter: Deferred[None] = Deferred(lambda _: call.cancel())
    call = clock.callLater(seconds, waiter.callback, None)
    return waiter


async def gather(work: Iterable[Coroutine[Any, Any, _T]]) -> list[_T | Failure]:
    """Run all at once; each outcome is its value or its failure, in order. Cancelling cancels all."""
    running = [Deferred.fromCoroutine(each) for each in work]
    if not running:
        return []
    together = _Together(running, consumeErrors=True)
    outcomes = await together
    if together.canceled:
        raise CancelledError
    return [outcome for _, outcome in outcomes]


class _Together(DeferredList):  # type: ignore[valid-type,misc] # Twisted annotates it as a variable
    """Canceling a list cancels its parts, which then is a result like any other; I tell that it was."""

    canceled = False

    def cancel(self) -> None:
        self.canceled = self.canceled or not self.called
        super().cancel()

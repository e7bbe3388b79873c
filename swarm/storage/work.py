"""Blocking work that outlives whoever awaits it, one piece at a time for each blob.

A thread cannot be cancelled. When a client leaves while its blob is being fsynced, the await
ends, but the lock on that blob must hold until the thread has really left the file system.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

from attrs import define, field
from twisted.internet.defer import Deferred, DeferredLock
from twisted.logger import Logger
from twisted.python.failure import Failure

from swarm.interfaces import RunBlocking
from swarm.model.digest import Digest

_P = ParamSpec("_P")
_T = TypeVar("_T")


@define(eq=False)
class Work:
    """Work of one store: counted, so that the store can wait for its end."""

    _run_blocking: RunBlocking
    _locks: dict[Digest, tuple[DeferredLock, int]] = field(factory=dict)
    _running: int = 0
    _idle: list[Deferred[None]] = field(factory=list)
    log = Logger()

    async def in_thread(self, function: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """Run in a thread; if the await is cancelled, the function still runs to its end."""
        return await self.shield(self._run_blocking(function, *args, **kwargs))

    async def obtain(
        self,
        release: Callable[[_T], object],
        function: Callable[_P, _T],
        /,
        *args: _P.args,
        **kwargs: _P.kwargs,
    ) -> _T:
        """As :meth:`in_thread`; what it returns is released when nobody waits for it any more."""
        return await self.shield(self._run_blocking(function, *args, **kwargs), release)

    async def exclusively(
        self, digest: Digest, function: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs
    ) -> _T:
        """As :meth:`in_thread`, with no other exclusive work on ``digest`` at the same time."""
        return await self.alone(digest, self._run_blocking(function, *args, **kwargs))

    async def alone(self, digest: Digest, work: Coroutine[Any, Any, _T]) -> _T:
        """As :meth:`exclusively`, for work of several steps."""
        return await self.shield(self._locked(digest, work))

    async def shield(
        self, work: Coroutine[Any, Any, _T], release: Callable[[_T], object] = lambda result: None
    ) -> _T:
        """Await work that goes on when the await is cancelled; then ``release`` gets its result."""
        outcome: Deferred[_T] = Deferred()
        abandoned = False

        def done(result: _T | Failure) -> None:
            self._running -= 1
            if not abandoned:
                outcome.callback(result)
            elif isinstance(result, Failure):
                self.log.debug("given up, and failed: {error}", error=result.value)
            else:
                release(result)
            while self._running == 0 and self._idle:
                self._idle.pop().callback(None)

        self._running += 1
        Deferred.fromCoroutine(work).addBoth(done)
        try:
            return await outcome
        finally:
            abandoned = True

    async def _locked(self, digest: Digest, work: Coroutine[Any, Any, _T]) -> _T:
        lock, users = self._locks.get(digest) or (DeferredLock(), 0)
        self._locks[digest] = (lock, users + 1)
        try:
            await lock.acquire()
            try:
                return await work
            finally:
                lock.release()
        finally:
            lock, users = self._locks.pop(digest)
            if users > 1:
                self._locks[digest] = (lock, users - 1)

    async def idle(self) -> None:
        """Wait until nothing runs."""
        if self._running:
            waiting: Deferred[None] = Deferred()
            self._idle.append(waiting)
            await waiting

"""Grains of pulls, hashed in threads: several for each trip to a thread and back.

Decides which grains go together. A trip costs the reactor a quarter of a millisecond, a fifth of what
hashing 1 MiB costs its thread; so while one thread is at it, what comes meanwhile waits for its return,
and another is asked only once :data:`TOGETHER` bytes wait. Results come in any order.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, ParamSpec, TypeVar

from attrs import define, field, frozen
from twisted.internet.defer import Deferred, DeferredSemaphore
from twisted.python.failure import Failure

from swarm.storage.work import Work

_P = ParamSpec("_P")
_T = TypeVar("_T")

#: Bytes hashed in one trip, unless a single grain is longer: five milliseconds of one core.
TOGETHER = 4 << 20


@frozen(eq=False)
class _Job:
    """One grain, and who waits for what comes out."""

    length: int
    run: Callable[[], Any]
    done: Deferred[Any]


@define(eq=False)
class Hashers:
    """The threads of one store. For the reactor's thread."""

    _work: Work
    _tokens: DeferredSemaphore
    """As many threads hash at once, others that take tokens included."""
    _waiting: deque[_Job] = field(factory=deque)
    _bytes: int = 0  # that wait
    _trips: int = 0

    async def hash(
        self, length: int, function: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs
    ) -> _T:
        """
        Run ``function``, which hashes so many bytes, in a thread.

        If the await is cancelled before a thread took it, it does not run at all.
        """
        job = _Job(length, partial(function, *args, **kwargs), Deferred(lambda _: self._forget(job)))
        self._waiting.append(job)
        self._bytes += length
        self._start()
        hashed: _T = await job.done
        return hashed

    def _forget(self, job: _Job) -> None:
        if job in self._waiting:
            self._waiting.remove(job)
            self._bytes -= job.length

    def _start(self) -> None:
        while self._waiting and (
            not self._trips or (self._bytes >= TOGETHER and self._trips < self._tokens.limit)
        ):
            self._trips += 1
            jobs = self._take()
            Deferred.fromCoroutine(self._work.shield(self._trip(jobs)))

    def _take(self) -> list[_Job]:
        jobs = [self._waiting.popleft()]
        total = jobs[0].length
        while self._waiting and total + self._waiting[0].length <= TOGETHER:
            jobs.append(self._waiting.popleft())
            total += jobs[-1].length
        self._bytes -= total
        return jobs

    async def _trip(self, jobs: list[_Job]) -> None:
        outcomes: list[Any]
        try:
            async with self._tokens:
                outcomes = await self._work.in_thread(_hash, jobs)
        except Exception:  # there is no thread: those who wait must hear of it
            outcomes = [Failure()] * len(jobs)
        self._trips -= 1
        for job, outcome in zip(jobs, outcomes, strict=True):
            if not job.done.called:
                job.done.callback(outcome)  # of a Failure it makes an errback
        self._start()


def _hash(jobs: list[_Job]) -> list[Any]:
    outcomes: list[Any] = []
    for job in jobs:
        try:
            outcomes.append(job.run())
        except Exception:  # whatever it is, it belongs to who waits for this one
            outcomes.append(Failure())
    return outcomes

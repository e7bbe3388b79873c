"""Grains of pulls, hashed in threads: several for each trip to a thread and back.

Decides which grains go together. A trip costs the reactor a quarter of a millisecond, a fifth of what
hashing 1 MiB costs its thread; and grains that are hashed side by side cost less than half as much each. So
while one thread is at it, what comes meanwhile waits for its return, and another is asked only once
there is a trip's worth: :data:`TOGETHER` bytes, and as many grains as are best at once. Grains that nobody
waits for in particular do not follow the last trip at once, so that theirs will be worth it. Results come in
any order.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from functools import partial
from typing import Any, ParamSpec, TypeVar

from attrs import define, field, frozen
from twisted.internet.defer import Deferred, DeferredSemaphore
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

from swarm.errors import StoreFailed
from swarm.hashing import Sha512, Stretch
from swarm.storage.work import Work

_P = ParamSpec("_P")
_T = TypeVar("_T")

#: Bytes hashed in one trip, unless a single grain is longer: five milliseconds of one core.
TOGETHER = 4 << 20

#: Seconds between the starts of two trips with nothing but grains at leisure, unless there is a trip's worth:
#: at 1 GiB/s, eight grains of 1 MiB come in so long.
APART = 0.008

#: What holds a file's descriptor, and says of errors whose they are.
Opened = Callable[[], AbstractContextManager[int]]


@frozen
class Grain:
    """What is hashed of a file: as :class:`swarm.hashing.Stretch`, of a file that is opened in the thread."""

    offset: int
    length: int
    start: bytes | None
    last: bool


@frozen(eq=False)
class _Job:
    """What one waits for."""

    length: int
    run: Callable[[], Any]
    """Does it alone."""
    done: Deferred[Any]
    opened: Opened | None = None
    grains: Sequence[Grain] = ()
    """Of this file, if it can be done together with others."""
    at_leisure: bool = False


@define(eq=False)
class Hashers:
    """The threads of one store. For the reactor's thread."""

    _work: Work
    _tokens: DeferredSemaphore
    """As many threads hash at once, others that take tokens included."""
    _sha512: Sha512
    _clock: IReactorTime
    _waiting: deque[_Job] = field(factory=deque)  # in the order they came, those at leisure behind the others
    _bytes: int = 0  # that wait
    _trips: int = 0
    _hurried: int = 0  # that wait, and not at leisure
    _next: float = 0.0  # when others may go
    _call: IDelayedCall | None = None  # at that time

    async def hash(
        self, length: int, function: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs
    ) -> _T:
        """
        Run ``function``, which hashes so many bytes, in a thread.

        If the await is cancelled before a thread took it, it does not run at all.
        """
        job = _Job(length, partial(function, *args, **kwargs), Deferred(lambda _: self._forget(job)))
        hashed: _T = await self._enqueue(job)
        return hashed

    async def end_states(
        self, opened: Opened, grains: Sequence[Grain], *, at_leisure: bool = False
    ) -> list[bytes]:
        """
        Hash grains of one file in a thread, side by side with what else waits; cancelled as :meth:`hash`.

        :param opened: used in that thread.
        :param at_leisure: they may wait for others, :data:`APART` at most.
        """
        length = sum(grain.length for grain in grains)
        alone = partial(_end_states, self._sha512, [(opened, grains)])
        job = _Job(length, alone, Deferred(lambda _: self._forget(job)), opened, grains, at_leisure)
        hashed: list[list[bytes]] = await self._enqueue(job)
        return hashed[0]

    def _enqueue(self, job: _Job) -> Deferred[Any]:
        self._waiting.insert(len(self._waiting) if job.at_leisure else self._hurried, job)
        self._count(job, 1)
        self._start()
        return job.done

    def _forget(self, job: _Job) -> None:
        if job in self._waiting:
            self._waiting.remove(job)
            self._count(job, -1)
            if not self._waiting:
                self._call_off()

    def _count(self, job: _Job, sign: int) -> None:
        self._bytes += sign * job.length
        self._hurried += sign * (not job.at_leisure)

    def _start(self) -> None:
        while self._waiting and self._worthwhile():
            self._call_off()
            self._trips += 1
            self._next = self._clock.seconds() + APART
            jobs = self._take()
            Deferred.fromCoroutine(self._work.shield(self._trip(jobs)))
        if self._waiting and not self._trips and self._call is None:
            self._call = self._clock.callLater(self._next - self._clock.seconds(), self._called)

    def _worthwhile(self) -> bool:
        if self._trips:
            return self._full() and self._trips < self._tokens.limit
        return bool(self._hurried) or self._clock.seconds() >= self._next or self._full()

    def _called(self) -> None:
        self._call = None
        self._start()

    def _call_off(self) -> None:
        call, self._call = self._call, None
        if call is not None:
            call.cancel()

    def _full(self) -> bool:
        """Is there a trip's worth?"""
        return self._bytes >= TOGETHER and len(self._waiting) >= self._sha512.together

    def _take(self) -> list[_Job]:
        jobs, total = list[_Job](), 0
        while self._waiting and (
            not jobs or total + self._waiting[0].length <= TOGETHER or len(jobs) < self._sha512.together
        ):
            jobs.append(self._waiting.popleft())
            self._count(jobs[-1], -1)
            total += jobs[-1].length
        return jobs

    async def _trip(self, jobs: list[_Job]) -> None:
        outcomes: list[Any]
        try:
            async with self._tokens:
                outcomes = await self._work.in_thread(_hash, self._sha512, jobs)
        except Exception:  # there is no thread: those who wait must hear of it
            outcomes = [Failure()] * len(jobs)
        self._trips -= 1
        for job, outcome in zip(jobs, outcomes, strict=True):
            if not job.done.called:
                job.done.callback(outcome)  # of a Failure it makes an errback
        self._start()


def _hash(sha512: Sha512, jobs: list[_Job]) -> list[Any]:
    together = [(job.opened, job.grains) for job in jobs if job.opened is not None]
    ends: Iterator[list[bytes]] = iter(())
    if len(together) > 1:
        with suppress(OSError, StoreFailed):  # tried again alone, to see whose it is
            ends = iter(_end_states(sha512, together))
    outcomes: list[Any] = []
    for job in jobs:
        found = next(ends, None) if job.opened is not None else None
        try:
            outcomes.append(job.run() if found is None else [found])
        except Exception:  # whatever it is, it belongs to who waits for this one
            outcomes.append(Failure())
    return outcomes


def _end_states(sha512: Sha512, files: Sequence[tuple[Opened, Sequence[Grain]]]) -> list[list[bytes]]:
    """What hashing leads to, file by file."""
    with ExitStack() as stack:
        stretches = []
        for opened, grains in files:
            fd = stack.enter_context(opened())
            stretches += [Stretch(fd, each.offset, each.length, each.start, each.last) for each in grains]
        ends = iter(sha512.end_states_of(stretches))
    return [[next(ends) for _ in grains] for _opened, grains in files]

"""Grains travel to threads together, and each comes back to who sent it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, DeferredSemaphore

from swarm.storage.hashers import TOGETHER, Hashers
from swarm.storage.work import Work

MIB = 1 << 20


class Threads:
    """Threads that run when they are told to."""

    def __init__(self) -> None:
        self.asked: list[Deferred[None]] = []
        self.refuse = False

    async def __call__(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if self.refuse:
            raise RuntimeError("no threads")
        turn: Deferred[None] = Deferred()
        self.asked.append(turn)
        await turn
        return function(*args, **kwargs)

    def run(self) -> None:
        self.asked.pop(0).callback(None)


class Bench:
    """Hashers on those threads, and what became of each grain."""

    def __init__(self, most: int = 2) -> None:
        self.threads = Threads()
        self.tokens = DeferredSemaphore(most)
        self.work = Work(self.threads)
        self.hashers = Hashers(self.work, self.tokens)
        self.ran: list[int] = []
        self.came: dict[int, Any] = {}

    def ask(self, *grains: int, length: int = MIB) -> list[Deferred[Any]]:
        return [self._ask(grain, length) for grain in grains]

    def _ask(self, grain: int, length: int) -> Deferred[Any]:
        asked = Deferred.fromCoroutine(self.hashers.hash(length, self._hash, grain))
        asked.addBoth(lambda result: self.came.__setitem__(grain, result))
        return asked

    def _hash(self, grain: int) -> int:
        self.ran.append(grain)
        if grain < 0:
            raise ValueError(grain)
        return grain * 10


def test_what_comes_while_a_thread_is_busy_goes_together_in_order() -> None:
    bench = Bench()
    bench.ask(0, 1, 2, 3)
    assert len(bench.threads.asked) == 1
    bench.threads.run()
    assert bench.came == {0: 0}
    bench.threads.run()
    assert bench.came == {0: 0, 1: 10, 2: 20, 3: 30}
    assert bench.ran == [0, 1, 2, 3] and not bench.threads.asked


def test_enough_waiting_bytes_ask_for_another_thread_up_to_the_most() -> None:
    bench = Bench(most=2)
    bench.ask(*range(1 + 3 * TOGETHER // MIB))
    assert len(bench.threads.asked) == 2
    while bench.threads.asked:
        bench.threads.run()
    assert bench.came == {grain: grain * 10 for grain in range(1 + 3 * TOGETHER // MIB)}


def test_a_grain_longer_than_a_trip_goes_alone() -> None:
    bench = Bench(most=8)
    bench.ask(0, 1, 2, length=4 * TOGETHER)
    assert len(bench.threads.asked) == 3


def test_a_grain_that_cannot_be_hashed_fails_alone() -> None:
    bench = Bench()
    bench.ask(0, 1, -2, 3)
    bench.threads.run()
    bench.threads.run()
    assert bench.came.pop(-2).check(ValueError)
    assert bench.came == {0: 0, 1: 10, 3: 30}


def test_a_grain_nobody_waits_for_any_more_is_not_hashed() -> None:
    bench = Bench()
    first, second, _ = bench.ask(0, 1, 2)
    second.cancel()
    first.cancel()  # too late: a thread has it
    bench.threads.run()
    bench.threads.run()
    assert bench.ran == [0, 2]
    assert bench.came.pop(0).check(CancelledError) and bench.came.pop(1).check(CancelledError)
    assert bench.came == {2: 20}


def test_tokens_are_shared_with_others() -> None:
    bench = Bench(most=1)
    bench.tokens.acquire()
    bench.ask(0)
    assert not bench.threads.asked
    bench.tokens.release()
    bench.threads.run()
    assert bench.came == {0: 0} and bench.tokens.tokens == 1


def test_without_threads_everybody_hears_of_it() -> None:
    bench = Bench()
    bench.threads.refuse = True
    bench.ask(0, 1)
    assert all(each.check(RuntimeError) for each in bench.came.values()) and len(bench.came) == 2


def test_the_store_waits_for_trips_under_way() -> None:
    bench = Bench()
    bench.ask(0, 1)
    ended: list[None] = []
    Deferred.fromCoroutine(bench.work.idle()).addCallback(ended.append)
    assert not ended
    bench.threads.run()
    bench.threads.run()
    assert ended == [None]

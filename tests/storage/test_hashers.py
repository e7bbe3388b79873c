"""Grains travel to threads together, and each comes back to who sent it."""

from __future__ import annotations

import hashlib
import random
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred, DeferredSemaphore
from twisted.internet.task import Clock

from swarm.errors import StoreFailed
from swarm.hashing import load
from swarm.storage import hashers
from swarm.storage.hashers import APART, TOGETHER, Grain, Hashers
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

    def __init__(self, most: int = 2, together: int = 1) -> None:
        self.threads = Threads()
        self.tokens = DeferredSemaphore(most)
        self.work = Work(self.threads)
        self.clock = Clock()
        self.sha512: Any = load()
        self.sha512.together = together  # whatever this machine is good at
        self.hashers = Hashers(self.work, self.tokens, self.sha512, self.clock)
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


# -- side by side ------------------------------------------------------------------------------

EIGHT = 8


class File:
    """A file of a few grains, of a kibibyte that stands for a mebibyte."""

    def __init__(self) -> None:
        self.data = random.Random(0).randbytes(20 << 10)
        self._file = tempfile.TemporaryFile()  # noqa: SIM115  # closed when it is forgotten
        self._file.write(self.data)
        self._file.flush()
        self.refuses = False
        self.open = 0

    @contextmanager
    def opened(self) -> Iterator[int]:
        if self.refuses:
            raise StoreFailed("closed")
        self.open += 1
        yield self._file.fileno()
        self.open -= 1

    def plain(self, index: int) -> bytes:
        return hashlib.sha512(self.data[index << 10 : (index + 1) << 10]).digest()


class Pull:
    """Grains asked of one file, and what became of each."""

    def __init__(self, bench: Bench, *, at_leisure: bool = False) -> None:
        self.bench = bench
        self.file = File()
        self.at_leisure = at_leisure
        self.came: dict[int, Any] = {}

    def ask(self, *indices: int, length: int = 1 << 10) -> list[Deferred[Any]]:
        return [self._ask(index, length) for index in indices]

    def _ask(self, index: int, length: int) -> Deferred[Any]:
        grain = Grain(index << 10, length, None, True)
        asking = self.bench.hashers.end_states(self.file.opened, [grain], at_leisure=self.at_leisure)
        asked = Deferred.fromCoroutine(asking)
        asked.addBoth(lambda result: self.came.__setitem__(index, result))
        return asked

    def right(self, *indices: int) -> dict[int, Any]:
        return {index: [self.file.plain(index)] for index in indices}


def test_grains_of_several_pulls_are_hashed_in_one_trip() -> None:
    bench = Bench(together=EIGHT)
    one, other = Pull(bench), Pull(bench)
    one.ask(0, 1, 2)
    other.ask(0, 1)
    bench.threads.run()
    assert one.came == one.right(0) and not other.came
    bench.threads.run()
    assert one.came == one.right(0, 1, 2) and other.came == other.right(0, 1)
    assert not bench.threads.asked and one.file.open == other.file.open == 0


def test_several_states_of_one_grain_come_back_in_order() -> None:
    bench = Bench(together=EIGHT)
    file = File()
    grains = [Grain(1 << 10, 1 << 10, start, False) for start in (bytes(64), b"x" * 64)]
    asked = Deferred.fromCoroutine(bench.hashers.end_states(file.opened, grains))
    bench.threads.run()
    data = file.data[1 << 10 : 2 << 10]
    expected = [bench.sha512.end_state(data, 1 << 10, start, False) for start in (bytes(64), b"x" * 64)]
    asked.addCallback(expected.__eq__)
    assert asked.result is True


def test_a_file_that_fails_fails_alone() -> None:
    bench = Bench(together=EIGHT)
    good, closed, short = Pull(bench), Pull(bench), Pull(bench)
    good.ask(0)
    closed.file.refuses = True
    good.ask(1)
    closed.ask(2)
    short.ask(19, length=2 << 10)
    short.ask(3)
    good.ask(4)
    bench.threads.run()
    bench.threads.run()
    assert good.came == good.right(0, 1, 4)
    assert closed.came[2].check(StoreFailed) and short.came.pop(19).check(StoreFailed)
    assert short.came == short.right(3)


def test_other_work_travels_along() -> None:
    bench = Bench(together=EIGHT)
    pull = Pull(bench)
    bench.ask(0)
    pull.ask(1)
    bench.ask(2)
    pull.ask(3)
    bench.threads.run()
    bench.threads.run()
    assert bench.came == {0: 0, 2: 20} and pull.came == pull.right(1, 3)


def test_a_trip_takes_as_many_grains_as_are_best_together_however_long() -> None:
    bench = Bench(most=2, together=EIGHT)
    bench.ask(0, length=4 * TOGETHER)
    bench.ask(*range(1, EIGHT), length=4 * TOGETHER)
    assert len(bench.threads.asked) == 1  # seven are not enough for another
    bench.ask(EIGHT, length=4 * TOGETHER)
    assert len(bench.threads.asked) == 2
    bench.threads.run()
    bench.threads.run()
    assert len(bench.came) == EIGHT + 1


# -- at leisure --------------------------------------------------------------------------------


def test_a_grain_somebody_waits_for_overtakes_those_at_leisure_and_no_other() -> None:
    bench = Bench()
    leisure = Pull(bench, at_leisure=True)
    bench.ask(1)
    for index in range(8):
        leisure.ask(index)
    bench.ask(2, 3, length=3 * MIB)
    bench.threads.run()
    bench.threads.run()
    assert bench.ran == [1, 2]
    bench.threads.run()
    assert bench.ran == [1, 2, 3]


def test_the_first_goes_at_once_and_the_next_together_a_little_later() -> None:
    bench = Bench(together=EIGHT)
    pull = Pull(bench, at_leisure=True)
    pull.ask(0)
    bench.threads.run()
    assert pull.came == pull.right(0)
    pull.ask(1)
    pull.ask(2)
    assert not bench.threads.asked
    bench.clock.advance(APART)
    bench.threads.run()
    assert pull.came == pull.right(0, 1, 2)
    assert not bench.clock.getDelayedCalls()


def test_long_after_the_last_trip_nothing_waits() -> None:
    bench = Bench(together=EIGHT)
    pull = Pull(bench, at_leisure=True)
    pull.ask(0)
    bench.threads.run()
    bench.clock.advance(APART)
    pull.ask(1)
    bench.threads.run()
    assert pull.came == pull.right(0, 1) and not bench.clock.getDelayedCalls()


@pytest.mark.parametrize("how", ["hurried", "other work", "full"])
def test_they_wait_no_longer_than_until_there_is_a_reason_to_go(
    how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hashers, "TOGETHER", 2 << 10)
    bench = Bench(together=2)
    pull, hurried = Pull(bench, at_leisure=True), Pull(bench)
    pull.ask(0)
    bench.threads.run()
    pull.ask(1)
    assert not bench.threads.asked
    if how == "hurried":
        hurried.ask(2)
    elif how == "other work":
        bench.ask(2)
    else:
        pull.ask(2)
    bench.threads.run()
    assert pull.came == (pull.right(0, 1, 2) if how == "full" else pull.right(0, 1))
    assert not bench.clock.getDelayedCalls()


def test_who_comes_while_a_thread_is_busy_waits_for_it_and_not_longer_than_apart() -> None:
    bench = Bench(together=EIGHT)
    pull = Pull(bench, at_leisure=True)
    pull.ask(0, 1)
    bench.clock.advance(APART / 2)
    bench.threads.run()
    assert not bench.threads.asked
    bench.clock.advance(APART / 2)
    assert len(bench.threads.asked) == 1
    pull.ask(2)
    bench.clock.advance(APART)
    assert len(bench.threads.asked) == 1
    bench.threads.run()
    bench.threads.run()
    assert pull.came == pull.right(0, 1, 2)


def test_nothing_is_left_behind_by_those_who_left() -> None:
    bench = Bench(together=EIGHT)
    pull = Pull(bench, at_leisure=True)
    pull.ask(0)
    bench.threads.run()
    for each in pull.ask(1, 2):
        each.cancel()
    assert not bench.clock.getDelayedCalls()
    bench.clock.advance(APART)
    assert not bench.threads.asked

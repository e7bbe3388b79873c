"""Coroutines have owners, waits end when they are told to, and nothing goes on after it was stopped."""

from __future__ import annotations

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.defer import TimeoutError as TookTooLong
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from swarm.services.tasks import Signal, Tasks, gather, sleep, within
from tests.services.world import no_surprises


def test_tasks_are_named_while_they_run() -> None:
    clock, tasks = Clock(), Tasks()

    async def nap() -> None:
        await sleep(clock, 5)

    tasks.start("napping", nap())
    assert tasks.names == ("napping",)
    clock.advance(5)
    assert tasks.names == ()


def test_stopping_cancels_waits_and_takes_no_more() -> None:
    clock, tasks = Clock(), Tasks()
    seen: list[str] = []

    async def slow_to_end() -> None:
        try:
            await sleep(clock, 100)
        finally:
            await sleep(clock, 5)
            seen.append("ended")

    tasks.start("slow", slow_to_end())
    stopping = Deferred.fromCoroutine(tasks.stop())
    assert not stopping.called
    clock.advance(5)
    assert stopping.called and seen == ["ended"]
    tasks.start("late", slow_to_end())
    assert tasks.names == () and not clock.getDelayedCalls()
    assert Deferred.fromCoroutine(tasks.stop()).called


def test_what_a_task_raises_is_logged_with_its_name() -> None:
    tasks = Tasks()

    async def fail() -> None:
        raise ValueError("of course")

    with pytest.raises(AssertionError, match="of course"), no_surprises():
        tasks.start("failing", fail())
    assert tasks.names == ()


def test_a_signal_wakes_who_waits_now_and_only_them() -> None:
    signal, woken = Signal(), list[str]()
    first, second = signal.wait(), signal.wait()
    first.addCallback(lambda _: woken.append("first"))
    second.addErrback(lambda f: f.trap(CancelledError))
    second.cancel()
    signal.fire()
    signal.wait().addCallback(lambda _: woken.append("never"))
    assert woken == ["first"]


def test_a_waiter_that_cancels_another_as_it_wakes_does_not_keep_the_rest_asleep() -> None:
    signal, woken = Signal(), list[str]()
    first, second, third = signal.wait(), signal.wait(), signal.wait()
    first.addCallback(lambda _: second.cancel())
    second.addErrback(lambda f: f.trap(CancelledError))
    third.addCallback(lambda _: woken.append("third"))
    signal.fire()
    assert woken == ["third"]


def test_within_gives_up_and_cancels() -> None:
    clock = Clock()

    async def nap(seconds: float) -> str:
        await sleep(clock, seconds)
        return "slept"

    outcomes: list[object] = []
    within(clock, 2, nap(1)).addBoth(outcomes.append)
    within(clock, 2, nap(3)).addBoth(outcomes.append)
    clock.advance(1)
    clock.advance(1)
    assert outcomes[0] == "slept"
    assert isinstance(outcomes[1], Failure) and outcomes[1].check(TookTooLong)
    assert not clock.getDelayedCalls()


def test_gather_gives_each_outcome_in_order() -> None:
    clock = Clock()

    async def work(number: int) -> int:
        await sleep(clock, 3 - number)
        if number == 1:
            raise ValueError
        return number

    outcomes: list[list[int | Failure]] = []
    Deferred.fromCoroutine(gather(work(n) for n in range(3))).addCallback(outcomes.append)
    for _ in range(3):
        clock.advance(1)
    ((zero, one, two),) = outcomes
    assert (zero, two) == (0, 2)
    assert isinstance(one, Failure) and one.check(ValueError)
    nothing: list[list[int | Failure]] = []
    Deferred.fromCoroutine(gather(work(n) for n in range(0))).addCallback(nothing.append)
    assert nothing == [[]]


def test_a_canceled_gather_does_not_go_on() -> None:
    """Else a loop around it would outlive the node."""
    clock, tasks = Clock(), Tasks()

    async def loop() -> None:
        while True:
            await gather(nap() for _ in range(2))

    async def nap() -> None:
        await sleep(clock, 1)

    tasks.start("loop", loop())
    assert Deferred.fromCoroutine(tasks.stop()).called
    assert tasks.names == () and not clock.getDelayedCalls()

"""A clock that is set back holds nothing up."""

from __future__ import annotations

import time
from typing import Any

import pytest
from attrs import define
from twisted.internet.selectreactor import SelectReactor

from swarm.steady import Steady


@define
class Machine:
    """Its two clocks."""

    ran: float = 50.0
    wrong: float = 1000.0

    def wall(self) -> float:
        return self.ran + self.wrong

    def monotonic(self) -> float:
        return self.ran


def test_it_is_the_wall_clock() -> None:
    machine = Machine()
    steady = Steady(machine.wall, machine.monotonic)
    for _ in range(5):
        machine.ran += 7.0
        assert steady.seconds() == machine.wall()


def test_set_forward_it_follows_at_once() -> None:
    machine = Machine()
    steady = Steady(machine.wall, machine.monotonic)
    machine.wrong += 12 * 86400
    assert steady.seconds() == machine.wall()


def test_set_back_it_goes_on_more_slowly_until_the_wall_clock_has_caught_up() -> None:
    machine = Machine()
    steady = Steady(machine.wall, machine.monotonic)
    before = steady.seconds()
    machine.wrong -= 60.0
    assert steady.seconds() == before
    machine.ran += 10.0
    assert steady.seconds() == pytest.approx(before + 9.0)
    machine.ran += 590.0
    assert steady.seconds() == pytest.approx(machine.wall())
    machine.ran += 5.0
    assert steady.seconds() == machine.wall()


def test_a_timer_of_the_reactor_fires_although_the_clock_was_set_back() -> None:
    machine_wrong = [0.0]
    reactor: Any = SelectReactor()
    reactor.seconds = Steady(lambda: time.time() + machine_wrong[0], time.monotonic).seconds
    reactor.callLater(0.3, reactor.stop)
    reactor.callLater(0.1, machine_wrong.__setitem__, 0, -3600.0)
    began = time.monotonic()
    reactor.run(installSignalHandlers=False)
    assert time.monotonic() - began < 60

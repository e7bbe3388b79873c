"""A reactor that is held up says for how long."""

from __future__ import annotations

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock

from swarm.services.pulse import measure_delay


def test_a_timer_that_comes_late_is_told_with_its_delay() -> None:
    clock, told = Clock(), list[float]()
    running = Deferred.fromCoroutine(measure_delay(told.append, clock=clock))
    clock.advance(1.0)
    clock.advance(1.25)
    clock.advance(1.0)
    assert told == pytest.approx([0.0, 0.25, 0.0])
    running.addErrback(lambda failure: failure.trap(CancelledError))
    running.cancel()
    assert not clock.getDelayedCalls()

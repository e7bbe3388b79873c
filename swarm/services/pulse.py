"""How late this node's own timers are: what everybody waits while one thing keeps the reactor's thread.

Measures, and decides nothing: what is too late is for operators to say.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime


async def measure_delay(told: Callable[[float], None], *, clock: IReactorTime, every: float = 1.0) -> None:
    """
    Tell, every so many seconds, how many seconds late a timer of the reactor was.

    Taken at moments that have nothing to do with the work, so quantiles are those of any event's delay.
    Ends only by cancellation.
    """

    call: IDelayedCall

    def end(due: float) -> None:
        nonlocal call
        told(max(0.0, clock.seconds() - due))
        call = clock.callLater(every, end, clock.seconds() + every)

    # No coroutine that wakes up each time: what every node does all the time is to cost little.
    call = clock.callLater(every, end, clock.seconds() + every)
    await Deferred[None](lambda _: call.cancel())

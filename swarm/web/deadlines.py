"""How long a client may take: one deadline a connection, moved by what the connection does.

Absolute for a head (a drip does not extend it), a minimum rate for a body, progress for a
response. Time this node spends on its own (deciding, storing, pulling) is never counted against
the client. Decides when; what happens then is the channel's business.
"""

from __future__ import annotations

import enum
from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from swarm.web.limits import WebLimits


class Phase(enum.Enum):
    """What the connection waits for."""

    HEAD = "head"  # the client: the rest of a request's head
    BODY = "body"  # the client: the rest of a body
    OURS = "ours"  # this node
    DRAINING = "draining"  # the client: to take what is already written
    IDLE = "idle"  # the client: another request, or none
    LINGER = "linger"  # the client: to read a refusal and hang up
    OVER = "over"


class Deadlines:
    """
    The clock of one connection.

    :param expired: called once with the phase that took too long.
    :param unsent: bytes the kernel still holds for the client; None where that is not known.
        Any change of it is progress: a paused download is idle for us, not for the client.
    """

    def __init__(
        self,
        limits: WebLimits,
        clock: IReactorTime,
        expired: Callable[[Phase], None],
        unsent: Callable[[], int | None] = lambda: None,
    ) -> None:
        self.phase = Phase.OVER
        self._limits = limits
        self._clock = clock
        self._expired = expired
        self._unsent = unsent
        self._seen: int | None = None
        self._due: float | None = None
        self._timer: IDelayedCall | None = None
        self._lost = False

    def head(self) -> None:
        """Bytes of a head are awaited, or have begun to come."""
        self._enter(Phase.HEAD, self._limits.head)

    def body(self) -> None:
        """The client is to send its body, or to go on after we held it up."""
        self._enter(Phase.BODY, self._limits.body_grace)

    def ours(self) -> None:
        """It is this node's turn."""
        self._enter(Phase.OURS, None)

    def draining(self) -> None:
        """The transport is full: nothing more is written until the client takes some."""
        self._seen = self._unsent()
        self._enter(Phase.DRAINING, self._limits.progress)

    def idle(self) -> None:
        """A request was answered."""
        self._enter(Phase.IDLE, self._limits.idle)

    def linger(self) -> None:
        """A body was refused while it may be on its way."""
        self._enter(Phase.LINGER, self._limits.linger)

    def over(self) -> None:
        """The connection is lost; nothing that still ends on it is timed."""
        self._enter(Phase.OVER, None)
        self._stop()
        self._lost = True

    def received(self, size: int) -> None:
        """Credit ``size`` bytes of a body; credit beyond the grace is not saved up."""
        if self.phase is Phase.BODY and self._due is not None:
            most = self._clock.seconds() + self._limits.body_grace
            self._due = min(self._due + size / self._limits.body_rate, most)

    def _enter(self, phase: Phase, seconds: float | None) -> None:
        if self._lost:
            return
        self.phase = phase
        if seconds is None:
            self._due = None  # a timer still set finds nothing due: cheaper than a new one for each answer
            return
        self._due = self._clock.seconds() + seconds
        if self._timer is None or self._timer.getTime() > self._due:
            self._stop()
            self._timer = self._clock.callLater(seconds, self._check)

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _check(self) -> None:
        """A timer is left to fire early rather than moved by every chunk: moving one costs a heap."""
        self._timer = None
        if self._due is None:
            return
        left = self._due - self._clock.seconds()
        if left > 0:
            self._timer = self._clock.callLater(left, self._check)
        elif self.phase is Phase.DRAINING and (unsent := self._unsent()) != self._seen:
            self._seen = unsent
            self._enter(Phase.DRAINING, self._limits.progress)
        else:
            phase = self.phase
            self._due = None
            self._expired(phase)

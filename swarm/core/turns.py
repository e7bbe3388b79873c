"""Who is served next of those that ask one node for one blob: few at once, and who had least of it first.

A grain can be passed on when it is whole. Sent to four at a time it is whole sixteen times sooner than
sent to sixty-four, and the node sends as much either way; so a crowd is sent to one at a time, and twice as
many have a grain after each. Unless those served are slow: now and then twice as many are tried. Who had
least goes first, so that all get about as much and none asks in vain for long.
Decides; waits for nobody and sends nothing. Lengths are bytes, times seconds.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

from attrs import define, field

from swarm.model.peers import PeerID

Turn = TypeVar("Turn", bound=Hashable)

_PAYS = 1.5  # times the rate before, or serving twice as many at once is no use
_FIRST, _AGAIN = 4, 16  # rounds until that is tried
_OVERDUE, _SOONEST = 4.0, 0.5  # times the usual time, seconds: an answer that takes longer makes room


@define
class Turns(Generic[Turn]):
    """
    Of one blob at one node.

    :ivar crowd: answers at once as soon as more than ``few`` peers ask: a grain is whole the sooner.
    :ivar allowed: answers at once, for now: so many or more, at most ``most``.
    :ivar serving: answers under way, without those to slow readers.
    """

    few: int
    most: int
    most_waiting: int
    crowd: int | None = None
    allowed: int = field(init=False)
    serving: int = field(init=False, default=0)
    _waiting: dict[Turn, PeerID] = field(init=False, factory=dict)  # in the order they came
    _had: dict[PeerID, int] = field(init=False, factory=dict)
    _round: _Round | None = field(init=False, default=None)
    _before: float | None = field(
        init=False, default=None
    )  # the rate with half as many, while more are tried
    _rounds: int = field(init=False, default=_FIRST)  # until more are tried
    _thronged: bool = field(init=False, default=False)  # is ``allowed`` of a crowd?
    _usual: float | None = field(init=False, default=None)  # seconds a byte, of answers

    def __attrs_post_init__(self) -> None:
        self.allowed = self.few

    def __contains__(self, turn: object) -> bool:
        return turn in self._waiting

    @property
    def crowded(self) -> bool:
        """Did more peers ask than are served at once?"""
        return len(self._had) > self.few

    @property
    def idle(self) -> bool:
        """Is nobody served, and does nobody wait?"""
        return not self.serving and not self._waiting

    def ask(self, turn: Turn, peer: PeerID) -> Turn | None:
        """
        Somebody asks, and waits; see :meth:`next` for who is served.

        :return: who waits in vain, if too many do: of those that had most the last. It is told to come again.
        """
        self._waiting[turn] = peer
        self._had.setdefault(peer, 0)
        if self.crowded and not self._thronged and self.crowd is not None:
            self._thronged, self.allowed, self._round, self._before = True, self.crowd, None, None
        if len(self._waiting) <= max(self.most_waiting, self.allowed - self.serving):
            return None
        refused = max(reversed(self._waiting), key=self._had_of)
        del self._waiting[refused]
        return refused

    def next(self) -> Turn | None:
        """Who is served now, if anybody is: of those that had least the first."""
        if self.serving >= self.allowed or not self._waiting:
            return None
        turn = min(self._waiting, key=self._had_of)
        del self._waiting[turn]
        self.serving += 1
        return turn

    def leave(self, turn: Turn) -> bool:
        """Somebody waits no more; False if it did not."""
        return self._waiting.pop(turn, None) is not None

    def overdue(self) -> None:
        """An answer takes long; whoever reads it is slow, and from now on takes nobody's turn."""
        self.serving -= 1

    def patience(self, length: int, most: float) -> float:
        """
        Seconds until an answer of so many bytes is :meth:`overdue`, at most ``most``.

        In a crowd others wait for it, and it is compared with what is usual.
        """
        if self._usual is None or not self._thronged:
            return most
        return min(most, max(_SOONEST, _OVERDUE * self._usual * length))

    def over(self, peer: PeerID, sent: int, now: float, *, took: float = 0.0, overdue: bool = False) -> None:
        """
        An answer to a peer ended.

        :param took: seconds.
        :param overdue: it was said to be; see :meth:`overdue`.
        """
        if sent and took > 0:
            self._usual = took / sent if self._usual is None else (self._usual + took / sent) / 2
        self.serving -= not overdue
        self._had[peer] = self._had.get(peer, 0) + sent
        if not self._waiting:
            self._round = None  # as many as ask are served
            return
        if self._round is None:
            self._round = _Round(now, self.allowed)
        elif (rate := self._round.ended(sent, now)) is not None:
            self._judge(rate)
            self._round = None

    def _had_of(self, turn: Turn) -> int:
        return self._had.get(self._waiting[turn], 0)

    def _judge(self, rate: float) -> None:
        """A round ended in which somebody waited all the time."""
        if self._before is not None:
            if rate < _PAYS * self._before:
                self.allowed //= 2
                self._before, self._rounds = None, _AGAIN
                return
        elif self._rounds:
            self._rounds -= 1
            return
        self._before = rate
        if 2 * self.allowed <= self.most:
            self.allowed *= 2
        else:
            self._before, self._rounds = None, _AGAIN


@define
class _Round:
    """Twice as many answers as are given at once; what the first half brings was begun before it."""

    began: float
    size: int
    _ended: int = 0
    _sent: int = 0

    def ended(self, sent: int, now: float) -> float | None:
        """An answer more. The rate, once the round is over."""
        self._ended += 1
        if self._ended < self.size:
            return None
        if self._ended == self.size:
            self.began = now
            return None
        self._sent += sent
        if self._ended < 2 * self.size:
            return None
        return self._sent / max(now - self.began, 1e-6)

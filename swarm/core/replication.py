"""Which peers to ask, and to push to, so that a blob gets its copies; and when to try again.

Decides the next step of one replication from what is known of each candidate, and when a hint
("this blob lacks copies") is due. Does not choose the order (``swarm.core.placement``), know who is
alive (the roster), or send anything.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from random import Random

from attrs import define, field, frozen

from swarm.core.backoff import Backoff
from swarm.model.digest import Digest
from swarm.model.peers import PeerID


class Copy(enum.Enum):
    """What is known of one candidate's copy; a candidate of which nothing is known has none of these."""

    ASKING = "asking"  # HEAD under way
    LACKING = "lacking"  # it answered 404
    PUSHING = "pushing"  # PUT under way
    HOLDING = "holding"  # it said so, verified and durable
    FAILED = "failed"  # unreachable, full, refused: not again in this round


@frozen
class Plan:
    """The next step.

    :param ask: send these a HEAD now.
    :param push: send these the blob now.
    :param reached: enough copies are confirmed.
    :param exhausted: not reached, and nobody left to ask or wait for: answer 202 and leave a hint.
    """

    ask: tuple[PeerID, ...] = ()
    push: tuple[PeerID, ...] = ()
    reached: bool = False
    exhausted: bool = False


def target(copies: int, known: int) -> int:
    """How many nodes can and shall hold a blob, this one included: no more than there are."""
    return max(1, min(copies, 1 + known))


def plan(target: int, candidates: Sequence[PeerID], copies: Mapping[PeerID, Copy]) -> Plan:
    """
    Say what to do next.

    :param target: see :func:`target`; this node holds one copy.
    :param candidates: live peers, best place first.
    :param copies: what is known so far, also of peers that are no candidates (any more).

    Candidates are asked in order, only as many as copies are missing; one that fails lets the
    next in. Call again whenever something changed, until reached or exhausted.
    """
    missing = target - 1 - sum(copy is Copy.HOLDING for copy in copies.values())
    if missing <= 0:
        return Plan(reached=True)
    pushing = sum(copy is Copy.PUSHING for copy in copies.values())
    lacking = [peer for peer in candidates if copies.get(peer) is Copy.LACKING]
    push = tuple(lacking[: max(0, missing - pushing)])
    asking = sum(copy is Copy.ASKING for copy in copies.values())
    unknown = [peer for peer in candidates if peer not in copies]
    ask = tuple(unknown[: max(0, missing - pushing - len(push) - asking)])
    return Plan(ask, push, exhausted=not (ask or push or asking or pushing))


@define
class _Hint:
    copies: int
    due: float
    failures: int = 0


#: A peer that was away for a moment is tried within seconds, one away for days every ten minutes.
HINT_BACKOFF = Backoff(base=5.0, cap=600.0, floor=1.0)


@define
class Hints:
    """When each blob that lacks copies is to be tried again. Which there are is kept by ``IHintStore``."""

    backoff: Backoff = HINT_BACKOFF
    _hints: dict[Digest, _Hint] = field(factory=dict, init=False)

    def add(self, digest: Digest, copies: int, now: float) -> None:
        """Remember; due at once. The same blob again wants the larger number of copies."""
        hint = self._hints.setdefault(digest, _Hint(copies, now))
        hint.copies = max(hint.copies, copies)

    def done(self, digest: Digest) -> None:
        """Forget: reached, or the blob is gone."""
        self._hints.pop(digest, None)

    def failed(self, digest: Digest, now: float, *, random: Random) -> None:
        """A try did not reach the target; wait longer than last time."""
        hint = self._hints.get(digest)
        if hint is not None:
            hint.failures += 1
            hint.due = now + self.backoff.delay(hint.failures, random=random)

    def peer_came(self, now: float, *, random: Random) -> None:
        """A peer joined or came back: what waits for one is due within seconds, spread a little."""
        for hint in self._hints.values():
            hint.due = min(hint.due, now + random.uniform(0, self.backoff.base))

    def due(self, now: float, limit: int) -> tuple[tuple[Digest, int], ...]:
        """(blob, copies wanted) to try now, the longest due first; at most ``limit``."""
        waiting = sorted((hint.due, digest) for digest, hint in self._hints.items() if hint.due <= now)
        return tuple((digest, self._hints[digest].copies) for _, digest in waiting[:limit])

    def next_due(self) -> float | None:
        """When to look again; None if there are no hints."""
        return min((hint.due for hint in self._hints.values()), default=None)

    def __len__(self) -> int:
        return len(self._hints)

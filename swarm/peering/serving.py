"""Whose turn it is to be sent bytes of a blob, and what each blob's askers are told of what others got.

Keeps the queues of :mod:`swarm.core.turns` and the memory of :mod:`swarm.core.giving` for each blob that
is asked for, and forgets a blob nobody asked for lately. Each process of a node has its own.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from swarm.core.giving import Giving
from swarm.core.turns import Turns
from swarm.model.digest import Digest
from swarm.model.peers import PeerID
from swarm.model.ranges import ByteRange, RangeSet
from swarm.peering.limits import PeerLimits
from swarm.peering.wire import GIVEN, encode_have
from swarm.web.errors import Refusal

_REMEMBERED = 256  # blobs


@define(eq=False)
class _Waiting:
    """Fires with True when it is its turn; with False: come again."""

    wanted: ByteRange
    served: Deferred[bool] = field(factory=Deferred)


@define(eq=False)
class _Blob:
    turns: Turns[_Waiting]
    giving: Giving
    asked: float = 0.0  # when somebody did last
    _spelled: tuple[RangeSet, str] | None = None

    def field(self) -> str | None:
        """The value of ``Swarm-Given``, if there is anything to tell."""
        told = self.giving.told
        if not told:
            return None
        if self._spelled is None or self._spelled[0] is not told:
            self._spelled = told, encode_have(told)
        return self._spelled[1]


class Serving:
    """I decide who waits."""

    def __init__(self, clock: IReactorTime, limits: PeerLimits) -> None:
        self._clock = clock
        self._limits = limits
        self._blobs: dict[Digest, _Blob] = {}  # least lately asked for first

    def given(self, digest: Digest) -> str | None:
        """What others were given of a blob that is here; the value of ``Swarm-Given``, None if nothing."""
        blob = self._blobs.get(digest)
        return None if blob is None else blob.field()

    @asynccontextmanager
    async def turn(
        self, digest: Digest, size: int, peer: PeerID, wanted: ByteRange, *, whole: bool
    ) -> AsyncIterator[None]:
        """
        Wait for the turn of somebody who wants bytes; they are sent inside.

        :param whole: is all of the blob here?
        :raises Refusal: 503; too many wait, or something else had better be asked for (``Retry-After: 0``).
        """
        blob = self._blob(digest, size)
        if whole and blob.turns.crowded and blob.giving.deflects(peer, wanted):
            raise self._busy("others were given this already", 0, blob)
        waiting = _Waiting(wanted)
        blob.giving.promise(peer, wanted)
        refused = blob.turns.ask(waiting, peer)
        if refused is not None:
            self._dismiss(blob, refused)
        self._serve(blob)
        late = self._clock.callLater(self._limits.wait, self._give_up, blob, waiting)
        try:
            mine = await waiting.served
        finally:
            if late.active():
                late.cancel()
            if blob.turns.leave(waiting):  # whoever asked is gone
                blob.giving.settle(wanted, given=False)
        if not mine:
            raise self._busy("enough peers are served", self._limits.busy, blob if whole else None)
        patience = blob.turns.patience(len(wanted), self._limits.slow)
        slow = self._clock.callLater(patience, self._make_room, blob)
        began, sent = self._clock.seconds(), 0
        try:
            yield
            sent = len(wanted)
        finally:
            now = self._clock.seconds()
            blob.turns.over(peer, sent, now, took=now - began, overdue=not slow.active())
            if slow.active():
                slow.cancel()
            self._serve(blob)

    def _blob(self, digest: Digest, size: int) -> _Blob:
        now, limits = self._clock.seconds(), self._limits
        blob = self._blobs.pop(digest, None)
        if blob is None or (blob.turns.idle and now > blob.asked + limits.forget):
            blob = _Blob(
                Turns(limits.per_blob, limits.uploads, limits.waiting, limits.per_crowd), Giving(size)
            )
        if len(self._blobs) >= _REMEMBERED:
            idle = next((each for each, other in self._blobs.items() if other.turns.idle), None)
            if idle is not None:
                del self._blobs[idle]
        self._blobs[digest] = blob
        blob.asked = now
        return blob

    def _serve(self, blob: _Blob) -> None:
        while (waiting := blob.turns.next()) is not None:
            blob.giving.settle(waiting.wanted, given=True)
            waiting.served.callback(True)

    def _make_room(self, blob: _Blob) -> None:
        blob.turns.overdue()
        self._serve(blob)

    def _give_up(self, blob: _Blob, waiting: _Waiting) -> None:
        if blob.turns.leave(waiting):
            self._dismiss(blob, waiting)

    def _dismiss(self, blob: _Blob, waiting: _Waiting) -> None:
        blob.giving.settle(waiting.wanted, given=False)
        waiting.served.callback(False)

    def _busy(self, why: str, after: int, blob: _Blob | None) -> Refusal:
        told = blob.field() if blob is not None else None
        fields = [("Retry-After", str(after)), *([(GIVEN, told)] if told is not None else [])]
        return Refusal(503, why, *fields)

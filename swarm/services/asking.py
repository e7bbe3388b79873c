"""The network side of one pull: spans become requests on lanes, answers become bytes on disk.

Decides nothing about what to ask of whom: ``core.dispatch`` does, and is told all that happens.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial

from twisted.internet.defer import CancelledError
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from swarm.core.dispatch import Abort, Dispatch, Shorten, Span
from swarm.errors import Fault, LocalError, PeerError
from swarm.interfaces import ILane, IPartial, IPeerClient
from swarm.model.peers import PeerID
from swarm.model.ranges import RangeSet
from swarm.services.ahead import Ahead
from swarm.services.progress import Counters
from swarm.services.sources import Sources
from swarm.services.tasks import Tasks

#: Answers that are no use and would be the same again: the peer has not the blob it says it has.
_UNFIT = (Fault.WRONG_RANGE, Fault.CODED, Fault.VALIDATOR)


class Asking:
    """
    I keep lanes busy.

    :ivar fed: when bytes came last, on the node's clock.
    """

    log = Logger()

    def __init__(
        self,
        partial: IPartial,
        dispatch: Dispatch,
        client: IPeerClient,
        sources: Sources,
        *,
        clock: IReactorTime,
        tasks: Tasks,
        counters: Counters,
        arrived: Callable[[int, float], None],
        unfit: Callable[[PeerID, str], None],
        failed: Callable[[LocalError], None],
        delivered: Callable[[PeerID, bool], None],
        told: Callable[[PeerID, RangeSet | None, RangeSet | None], None],
        ahead: Ahead | None = None,
    ) -> None:
        """
        :param arrived: told of each grain whose bytes are all on disk.
        :param unfit: told of a peer that has not what it says it has, and why.
        :param failed: told when our own disk refuses.
        :param told: told what a peer has by the time it answers, before any bytes of that answer are counted.
        :param ahead: a lane on which a span was asked before.
        """
        self.fed = clock.seconds()
        self._partial = partial
        self._dispatch = dispatch
        self._client = client
        self._sources = sources
        self._clock = clock
        self._tasks = tasks
        self._counters = counters
        self._arrived = arrived
        self._unfit = unfit
        self._failed = failed
        self._delivered = delivered
        self._told = told
        self._ahead = ahead
        self._lanes: dict[PeerID, ILane] = {}  # where new spans go
        self._asked: dict[int, ILane] = {}  # spans under way
        self._began: dict[int, float] = {}  # and when they were asked
        self._users: Counter[ILane] = Counter()  # spans under way on each lane, retired ones too
        self._timer: IDelayedCall | None = None
        self._soon = False  # does the timer fire in the next turn?
        self._held = False
        self._over = False
        self._amid = False  # a lane hands over bytes and has not let go of their span, or I am pumping,
        self._due_now = False  # so what is to be asked next is asked right after

    @property
    def busy(self) -> bool:
        """Is any span under way?"""
        return bool(self._asked)

    def pump(self) -> None:
        """Do what is due and ask what is to be asked; come back by myself when something falls due."""
        self._soon = False
        if self._over or self._held:
            return
        if self._amid:
            self._due_now = True
            return
        now, self._amid = self._clock.seconds(), True
        try:
            # A lane that is closed ends its fetches here and now; they must not ask for more amid this.
            for action in self._dispatch.due(now):
                self._retire(action)
            for span in self._dispatch.next(now):
                self._tasks.start("fetching a span", self._fetch(span))
        finally:
            again, self._amid, self._due_now = self._due_now, False, False
        due = self._dispatch.next_due()
        if not self._over:
            self._wake_in(0.0 if again else None if due is None else max(0.01, due - self._clock.seconds()))

    def pump_soon(self) -> None:
        """The same in a moment: who is told of the pull just now says first what it waits for."""
        if not self._over and not self._soon:
            self._wake_in(0.0)

    def _wake_in(self, seconds: float | None) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._soon = seconds == 0.0
        if seconds is not None:
            self._timer = self._clock.callLater(seconds, self.pump)

    def hang_up(self, peer: PeerID) -> None:
        """End the peer's lanes now; what was asked of it is off."""
        lanes = [each for each in self._users if each.peer.id == peer]
        if (lane := self._lanes.pop(peer, None)) is not None and lane not in lanes:
            lanes.append(lane)
        for each in lanes:
            each.close()

    def hold(self) -> None:
        """Read nothing more from any peer for now: we cannot keep up. Nobody is asked or judged either."""
        self._held = True
        for lane in tuple(self._users):
            lane.pause()

    def release(self) -> None:
        """Go on; nobody is blamed for the silence."""
        self._held = False
        self._dispatch.excuse(self._clock.seconds())
        for lane in tuple(self._users):
            lane.resume()
        self.pump()

    def stop(self) -> None:
        """End everything."""
        self._over = True
        self._wake_in(None)
        for peer in list(self._lanes):
            self.hang_up(peer)
        for lane in list(self._users):
            lane.close()

    # -- spans -----------------------------------------------------------------------

    def _retire(self, action: Abort | Shorten) -> None:
        """A lane ends: at once, or by itself where the span under way on it is to stop."""
        if isinstance(action, Abort):
            if action.reason == "silence":
                self._sources.note(action.peer, Fault.SILENT.value)
            self.hang_up(action.peer)
        elif (lane := self._asked.get(action.span)) is not None:
            self._leave(lane)

    def _leave(self, lane: ILane) -> None:
        """Ask nothing more on this lane; it ends with what is under way on it."""
        if self._lanes.get(lane.peer.id) is lane:
            del self._lanes[lane.peer.id]

    async def _fetch(self, span: Span) -> None:
        peer = self._sources.peers[span.peer]
        lane = self._lanes.get(span.peer)
        if lane is None:
            grains = self._partial.grains
            told = partial(self._told, peer.id)
            ahead, self._ahead = self._ahead, None
            if ahead is not None and ahead.peer.id == peer.id and ahead.claim(span.range, told):
                lane = ahead
                self._dispatch.asked_at(span.id, ahead.asked)
            else:
                lane = self._client.lane(peer, self._partial.digest, grains.size, told)
            self._lanes[span.peer] = lane
        self._asked[span.id] = lane
        self._began[span.id] = self._clock.seconds()
        self._users[lane] += 1
        table, seconds = self._dispatch, self._clock.seconds
        try:
            await lane.fetch(span.range, lambda offset, views: self._take(span, offset, views))
        except _Enough:
            self._leave(lane)
            table.finished(span.id, seconds())
        except PeerError as e:
            self._sources.note(span.peer, e.fault.value)
            if e.fault not in (Fault.MISSING, Fault.BUSY):
                self.log.info("pulling: {error}", error=e)
                self._leave(lane)
                self._delivered(span.peer, False)
            table.failed(span.id, seconds(), e.fault, e.retry_after)
            if e.fault is Fault.MISSING:
                self._sources.haves.pop(span.peer, None)  # to be asked again whether it has it
            elif e.fault in _UNFIT:
                self._unfit(span.peer, str(e))
        except CancelledError:
            self._leave(lane)
            table.failed(span.id, seconds())
            if self._over:
                raise
        except LocalError as e:
            self._leave(lane)
            table.failed(span.id, seconds())
            self._failed(e)
        else:
            table.finished(span.id, seconds())
            self._delivered(span.peer, True)
        finally:
            del self._asked[span.id], self._began[span.id]
            self._users[lane] -= 1
            if not self._users[lane]:
                del self._users[lane]
                if self._lanes.get(span.peer) is not lane:
                    lane.close()
        self.pump()

    def _take(self, span: Span, offset: int, views: Sequence[memoryview]) -> None:
        """Bytes of a span arrived: write what is wanted of them."""
        self._amid = True
        try:
            self._write(span, offset, views)
        finally:
            self._amid = False
            if self._due_now and not self._over:
                self._wake_in(0.0)
            self._due_now = False

    def _write(self, span: Span, offset: int, views: Sequence[memoryview]) -> None:
        table, now = self._dispatch, self._clock.seconds()
        count = sum(map(len, views))
        stop = offset + count
        for part in table.wanted(span.id, stop):
            whole = part.start == offset and part.stop == stop
            self._partial.write(part.start, views if whole else _cut(views, part.start - offset, len(part)))
        self.fed = now
        self._counters.bytes_received += count
        for grain in table.received(span.id, stop, now):
            self._arrived(grain, self._began[span.id])
        self._due_now = self._due_now or table.hasty
        if stop < span.range.stop and not table.flying(span.id):
            raise _Enough


class _Enough(Exception):
    """The rest of a span is not wanted from this peer any more."""


def _cut(views: Sequence[memoryview], skip: int, length: int) -> list[memoryview]:
    """``length`` bytes of the views after the first ``skip``."""
    kept = []
    for view in views:
        piece = view[skip : skip + length]
        skip = max(0, skip - len(view))
        length -= len(piece)
        if len(piece):
            kept.append(piece)
    return kept

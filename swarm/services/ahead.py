"""The grain a reader waits for, asked of the first peer that has it before there is a pull to ask for it.

A pull has files, which a thread makes, and that can take as long as the grain takes to come. Decides which
grain that is, whose midstates are asked for meanwhile, and nothing else: the pull asks for what it would
have asked for, and if that was asked ahead, it is given what came so far, as any lane gives it: first what
the peer says of itself, then bytes. Else the lane is closed. Until then the grain's bytes are in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from swarm.interfaces import ILane, IPeerClient, Told
from swarm.model.digest import Digest
from swarm.model.grains import Grains
from swarm.model.holdings import Holding
from swarm.model.midstates import Midstates
from swarm.model.peers import PeerID
from swarm.model.ranges import ByteRange, RangeSet
from swarm.services.tasks import sleep

Sink = Callable[[int, Sequence[memoryview]], None]


@implementer(ILane)
class Ahead:
    """
    I am a lane whose first span was asked already.

    :ivar asked: when, on the node's clock.
    :ivar lists: midstates that others were asked for, to be taken out by who waits for them.
    """

    def __init__(
        self,
        client: IPeerClient,
        digest: Digest,
        grains: Grains,
        holding: Holding,
        span: ByteRange,
        *,
        clock: IReactorTime,
    ) -> None:
        """Ask."""
        self.holding = holding
        self.peer = holding.peer
        self.span = span
        self.lists: dict[PeerID, Deferred[Midstates]] = {}
        self.asked = clock.seconds()
        self._client = client
        self._digest = digest
        self._grains = grains
        self._clock = clock
        self._said: list[tuple[RangeSet | None, RangeSet | None]] = []
        self._came: list[tuple[int, Sequence[memoryview]]] = []
        self._told: Told | None = None
        self._sink: Sink | None = None
        self._begun = False
        self._closed = False
        self._lane = client.lane(holding.peer, digest, grains.size, self._hear)
        self._done: Deferred[None] = Deferred.fromCoroutine(self._lane.fetch(span, self._take))

    def hear(self, holding: Holding) -> None:
        """Another peer has it, too: if it is the first that has all, ask it for its midstates."""
        peer, grains = holding.peer, self._grains
        whole = holding.have is None and holding.size == grains.size
        if whole and grains.count > 1 and peer.id != self.peer.id and not self.lists:
            asking = Deferred.fromCoroutine(self._client.midstates(peer, self._digest, grains.size))
            self.lists[peer.id] = asking

    def claim(self, span: ByteRange, told: Told) -> bool:
        """Take me for this span of my peer; False: it is not the one that was asked, and I am closed."""
        if self._closed or span != self.span:
            self.close()
            return False
        self._told = told
        return True

    def drop(self) -> None:
        """Whatever nobody took is off."""
        while self.lists:
            asking = self.lists.popitem()[1]
            asking.addErrback(lambda _: None)
            asking.cancel()
        if self._told is None:
            self.close()

    async def fetch(self, span: ByteRange, sink: Sink) -> None:
        """See :class:`ILane`."""
        if self._begun:
            await self._lane.fetch(span, sink)
            return
        self._begun = True
        # Like any lane, I hand over nothing amid the call that asks.
        await sleep(self._clock, 0)
        if self._closed:
            raise CancelledError
        assert self._told is not None, "I was claimed"
        try:
            for have, given in self._said:
                self._told(have, given)
            for offset, views in self._came:
                sink(offset, views)
        except BaseException:
            self.close()
            raise
        self._came.clear()
        self._sink = sink
        await self._done

    def pause(self) -> None:
        """See :class:`ILane`."""
        self._lane.pause()

    def resume(self) -> None:
        """See :class:`ILane`."""
        self._lane.resume()

    def close(self) -> None:
        """See :class:`ILane`."""
        if not self._closed:
            self._closed = True
            self._came.clear()
            if self._sink is None:
                self._done.addErrback(lambda _: None)  # nobody waits for it
            self._lane.close()

    def _hear(self, have: RangeSet | None, given: RangeSet | None) -> None:
        if self._told is None or not self._sink:
            self._said.append((have, given))
        else:
            self._told(have, given)

    def _take(self, offset: int, views: Sequence[memoryview]) -> None:
        if self._sink is None:
            self._came.append((offset, views))
        else:
            self._sink(offset, views)


def ask_ahead(
    client: IPeerClient,
    digest: Digest,
    grains: Grains,
    near: int,
    holdings: Iterable[Holding],
    *,
    clock: IReactorTime,
) -> Ahead | None:
    """
    Ask the first of these that has all of a blob of this size for the grain at ``near``.

    :param near: from the end, if negative; see :meth:`swarm.services.fetch.Fetch.reader`.
    :return: None if there is no such grain or nobody has it.
    """
    size = grains.size
    start = max(0, size + near) if near < 0 else near
    holding = next((each for each in holdings if each.size == size and each.have is None), None)
    if start >= size or holding is None:
        return None
    grain = grains.at(start)
    span = ByteRange(grains.start(grain), grains.stop(grain))
    return Ahead(client, digest, grains, holding, span, clock=clock)

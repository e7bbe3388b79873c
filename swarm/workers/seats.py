"""What clients of both doors have in common while a worker serves them.

A request stays when it is a read of a granted blob; it is then answered by the same code as in the node.
Any other is the node's, all its bytes and those behind it, before the worker acted on it: a write, another
path, a blob that is not granted. How it gets there differs (:mod:`swarm.workers.guests`,
:mod:`swarm.workers.peers`). Not decided here: who may read, and what is answered.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, ClassVar

from attrs import define
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IAddress
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

from swarm.errors import MethodDenied
from swarm.model.digest import Digest
from swarm.web.channel import Channel
from swarm.web.errors import answer_error
from swarm.web.limits import WebLimits
from swarm.web.request import StreamingRequest
from swarm.web.site import StreamingSite
from swarm.workers.messages import Orders
from swarm.workers.tally import Sheet

if TYPE_CHECKING:
    from swarm.workers.station import Station


class Seat(Channel):
    """
    A client's connection while it is with this worker.

    The parser is fed one whole head at a time, so that everything behind it can still go to the node.

    :ivar gone: the connection is on its way to the node.
    :ivar awaits_node: the first request is.
    """

    site: SeatSite
    _held = b""
    _current = b""
    gone = False
    awaits_node = False

    def __init__(self, serial: int) -> None:
        super().__init__()
        self._serial = serial

    # -- what differs between doors -----------------------------------------------------

    def judge(self) -> None:
        """Bytes are held: whose is the request they begin with, if it is whole?"""
        raise NotImplementedError

    def pass_on(self) -> None:
        """The first request is the node's."""
        raise NotImplementedError

    def leave(self) -> None:
        """The worker ends: nothing more is read here."""
        raise NotImplementedError

    # -- one head at a time -------------------------------------------------------------

    def dataReceived(self, data: bytes) -> None:
        """Bytes came; ``b""`` goes on with those that waited."""
        if self.gone:
            return
        if self._closed:
            super().dataReceived(data)
            return
        self._just_read = bool(data)
        data = self._held + data
        if self._current or self.awaits_node:
            self._held = data
            self._networkProducer.pauseProducing()  # until go_on() or release()
            return
        short = self.site.short_path
        self._held = data if short is None else self._answered_shortly(short, data)
        if self._held:
            self.judge()

    @property
    def busy(self) -> bool:
        """Is somebody at work for the first request?"""
        return bool(self._current) or self.awaits_node

    def serve(self, stop: int) -> None:
        """Answer the first request here; its head ends at ``stop``."""
        self._current, self._held = self._held[:stop], self._held[stop:]
        self._between = False
        super().dataReceived(self._current)

    def requestDone(self, request: Any) -> None:
        """A response was written."""
        super().requestDone(request)
        self._current = b""
        if self.site.leaving:
            self.leave()
        elif self._held and not self._closed:
            self._networkProducer.pauseProducing()
            self.site.reactor.callLater(0, self.go_on)

    def go_on(self) -> None:
        """Read on once nothing waits here, so that never more does than was read while one was answered."""
        self.dataReceived(b"")
        if not (self.busy or self.gone or self._closed or self.paused or self.full or self._turn):
            self._networkProducer.resumeProducing()

    # -- asking for a blob ---------------------------------------------------------------

    def ask(self, digest: Digest) -> None:
        """Wait until the node grants a blob or does not."""
        self.awaits_node = True
        self.hold()
        self.site.station.blobs.wanted(digest).addCallback(self._answered, digest.hex.encode("ascii"))

    def _answered(self, granted: bool, key: bytes) -> None:
        self.awaits_node = False
        if self._closed or self.gone:
            return
        if granted and self.site.station.blobs.opened(key) is not None:
            self.release()
        else:
            self.pass_on()


class Answering(Resource):
    """Every path that gets here is a read of a blob."""

    isLeaf = True

    def render(self, request: Any) -> int:
        """Answer."""
        sending = Deferred.fromCoroutine(self.send(request))
        request.notifyFinish().addErrback(lambda _: sending.cancel())
        sending.addErrback(self._failed, request)
        return NOT_DONE_YET

    def _failed(self, failure: Failure, request: StreamingRequest) -> None:
        if not failure.check(CancelledError):  # the client went
            answer_error(request, failure)

    async def send(self, request: StreamingRequest) -> None:
        """:raises SwarmError: what is to be answered instead."""
        raise NotImplementedError


class SeatSite(StreamingSite):
    """What all clients of one door share: the settings the node gave, and the answers it would give."""

    seat: ClassVar[type[Seat]]

    def __init__(
        self, station: Station, orders: Orders, resource: Resource, sheet: Sheet, reactor: Any, **more: Any
    ) -> None:
        self.station = station
        self.orders = orders
        self.leaving = self.giving_back = False
        super().__init__(
            resource,
            admit=self.admit_read,
            clock=reactor,
            limits=WebLimits(**orders.limits),
            observer=_Count(sheet),
            **more,
        )

    async def admit_read(self, request: StreamingRequest) -> None:
        """
        Judge a request by its head.

        :raises SwarmError: it is refused.
        """
        raise NotImplementedError

    def check_allowed(self, method: str) -> None:
        """See :meth:`swarm.interfaces.IBlobStore.check_allowed`; for reads."""
        if not self.orders.deny or os.access(self.orders.deny, os.F_OK):
            raise MethodDenied(method)

    def welcoming(self, serial: int) -> Welcome:
        """A factory for one connection."""
        return Welcome(self, serial)

    def leave(self, *, give_back: bool) -> None:
        """Nothing more is read from anybody."""
        self.leaving, self.giving_back = True, give_back
        for channel in tuple(self._channels):
            assert isinstance(channel, Seat)
            channel.leave()


@define(eq=False)
class Welcome:
    """Makes the protocol of one connection, as reactors want it."""

    _site: SeatSite
    _serial: int

    def buildProtocol(self, addr: IAddress | None) -> Seat:
        """Part of Twisted's interface."""
        seat = self._site.seat(self._serial)
        seat.factory = self._site
        seat.site = self._site
        seat.requestFactory = self._site.requestFactory
        return seat


@define(eq=False)
class _Count:
    """Adds to the tally; an :class:`~swarm.web.site.Observer`."""

    _sheet: Sheet

    def answered(self, request: StreamingRequest) -> None:
        self._sheet.add(request.method.decode("ascii"), request.code, request.sentLength)

    def sent(self, method: str, size: int) -> None:
        self._sheet.add(method, 200, size)

    def rejected(self, status: int) -> None:
        self._sheet.add("none", status, 0)

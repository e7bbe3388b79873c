"""The clients a worker serves: their connections, until they want what only the node can give.

A request stays when it is a read of a granted blob; it is then answered by the same code as in the node.
Any other goes back with its connection, all its bytes and those behind it, before the worker acted on it:
a write, another path, a blob that is not granted, a head that is not whole yet. Not decided here: who may
read (:mod:`swarm.api.tokens`) and what is answered (:mod:`swarm.web`).
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import define
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IAddress, IPullProducer
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET
from zope.interface import implementer

from swarm.api.fields import set_blob_fields
from swarm.api.plain import PlainReads
from swarm.api.tokens import Guard, Tokens
from swarm.errors import BlobMissing, MethodDenied
from swarm.model.digest import Digest
from swarm.web.bodies import conditions_of, send
from swarm.web.channel import Channel
from swarm.web.errors import answer_error
from swarm.web.limits import WebLimits
from swarm.web.ranges import select
from swarm.web.request import StreamingRequest
from swarm.web.site import StreamingSite
from swarm.workers.messages import Orders
from swarm.workers.tally import Tally

if TYPE_CHECKING:
    from swarm.storage.open_files import OpenBlob
    from swarm.workers.station import Station

_READ = re.compile(rb"(?:GET|HEAD) /([0-9a-f]{128})(?:/nopeerload)? HTTP/1\.[01]\r\n")
#: Fields of requests with a body, or that ask for another protocol.
_MORE = re.compile(rb"\r\n(?:content-length|transfer-encoding|expect|upgrade)[ \t]*:", re.IGNORECASE)


class Guest(Channel):
    """
    A client's connection while it is with this worker.

    What the short path does not answer waits here, and the parser is fed one whole head at a time, so
    that everything behind it can still go back.
    """

    site: GuestSite
    _held = b""
    _current = b""
    _asking = False
    _gone = False  # on its way back to the node
    _returned = False

    def __init__(self, serial: int) -> None:
        super().__init__()
        self._serial = serial

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The client went, was sent away, or went back to the node."""
        super().connectionLost(reason)
        self.site.station.gone(None if self._returned else self._serial)

    def dataReceived(self, data: bytes) -> None:
        """Bytes came; ``b""`` goes on with those that waited."""
        if self._gone:
            return
        if self._closed:
            super().dataReceived(data)
            return
        data = self._held + data
        if self._current or self._asking:
            self._held = data
            self._networkProducer.pauseProducing()  # until requestDone() or release()
            return
        assert self.site.short_path is not None
        self._held = self._answered_shortly(self.site.short_path, data)
        if self._held:
            self._judge()

    def _judge(self) -> None:
        """The first request is not for the short path: for whom is it?"""
        stop = self._held.find(b"\r\n\r\n") + 4
        read = _READ.match(self._held)
        if stop < 4 or read is None or _MORE.search(self._held, 0, stop):
            self.give_back()
        elif self.site.station.blobs.opened(read[1]) is None:
            self._ask(Digest(bytes.fromhex(read[1].decode("ascii"))))
        else:
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
            self.site.reactor.callLater(0, self._go_on)

    def _go_on(self) -> None:
        """Read on once nothing waits here, so that never more does than was read while one was answered."""
        self.dataReceived(b"")
        if not (self._held or self._gone or self._closed or self.paused or self.full or self._turn):
            self._networkProducer.resumeProducing()

    def leave(self) -> None:
        """The worker ends: nothing more is read here."""
        if self._current or self._closed or self._gone:
            return
        if self.site.giving_back:
            self.give_back()
        else:
            self.loseConnection()

    def _ask(self, digest: Digest) -> None:
        self._asking = True
        self.hold()
        self.site.station.blobs.wanted(digest).addCallback(self._answered, digest.hex.encode("ascii"))

    def _answered(self, granted: bool, key: bytes) -> None:
        self._asking = False
        if self._closed or self._gone:
            return
        if granted and self.site.station.blobs.opened(key) is not None:
            self.release()
        else:
            self.give_back()

    # -- going back ---------------------------------------------------------------------

    def give_back(self) -> None:
        """Have the node go on with what was not answered, once what was is on its way."""
        if self._gone:
            return
        self._gone = True
        if self._turn is not None:
            self._turn.cancel()
            self._turn = None
        self.deadlines.draining()
        self.transport.unregisterProducer()
        self.transport.registerProducer(_WhenEmpty(self._give_back), False)
        self.transport.stopReading()
        self.transport.startWriting()

    def _give_back(self) -> None:
        transport = self.transport
        transport.unregisterProducer()
        transport.stopWriting()
        # Detached, so that closing the transport neither closes nor shuts down what is the node's now.
        descriptor = transport.getHandle().detach()
        self._returned = True
        self.site.station.give_back(self._serial, descriptor, self._waiting + self._held)
        transport.connectionLost(Failure(ConnectionDone()))


@implementer(IPullProducer)
class _WhenEmpty:
    """Asked for more when all is sent; asked once before, when it is registered."""

    def __init__(self, then: Any) -> None:
        self._then = then
        self._registered = False

    def resumeProducing(self) -> None:
        if not self._registered:
            self._registered = True
            return
        self._then()

    def stopProducing(self) -> None:
        """The client went first."""


class _Blob(Resource):
    """Every path that gets here is a read of a blob."""

    isLeaf = True

    def __init__(self, site: GuestSite) -> None:
        super().__init__()
        self._site = site

    def render(self, request: Any) -> int:
        """Answer."""
        sending = Deferred.fromCoroutine(self._send(request))
        request.notifyFinish().addErrback(lambda _: sending.cancel())
        sending.addErrback(self._failed, request)
        return NOT_DONE_YET

    def _failed(self, failure: Failure, request: StreamingRequest) -> None:
        if not failure.check(CancelledError):  # the client went
            answer_error(request, failure)

    async def _send(self, request: StreamingRequest) -> None:
        key = request.path[1:129]
        blobs = self._site.station.blobs
        blob: OpenBlob | None = blobs.opened(key)
        digest = Digest.parse(key.decode("ascii"))
        if blob is None:  # since a moment ago
            raise BlobMissing(digest)
        set_blob_fields(request, blob.info, self._site.orders.mirrors)
        chosen = select(request.method.decode("ascii"), conditions_of(request), digest.etag, blob.size)
        await send(request, blobs.reader(blob), chosen)


class GuestSite(StreamingSite):
    """What all guests share: the settings the node gave, and the answers it would give."""

    def __init__(self, station: Station, orders: Orders, tally: Tally, reactor: Any) -> None:
        tokens = None if orders.tokens is None else Tokens(Path(orders.tokens))
        self._guard = Guard(tokens, clock=reactor)
        self.station = station
        self.orders = orders
        self.leaving = self.giving_back = False
        super().__init__(
            _Blob(self),
            admit=self._admit,
            clock=reactor,
            limits=WebLimits(**orders.limits),
            observer=_Count(tally),
            blobs=station.blobs,
            answers=PlainReads(self, self._guard, lambda: self.orders.mirrors),
        )

    async def _admit(self, request: StreamingRequest) -> None:
        authorization, origin = request.getHeader("Authorization"), request.getHeader("Origin")
        self._guard.check("get", request.client, authorization, origin)
        self.check_allowed("get")

    def check_allowed(self, method: str) -> None:
        """See :meth:`swarm.interfaces.IBlobStore.check_allowed`; for reads."""
        if not self.orders.deny or os.access(self.orders.deny, os.F_OK):
            raise MethodDenied(method)

    def welcoming(self, serial: int) -> _Welcome:
        """A factory for one connection."""
        return _Welcome(self, serial)

    def leave(self, *, give_back: bool) -> None:
        """Nothing more is read from anybody."""
        self.leaving, self.giving_back = True, give_back
        for channel in tuple(self._channels):
            assert isinstance(channel, Guest)
            channel.leave()


@define(eq=False)
class _Welcome:
    """Makes the protocol of one connection, as reactors want it."""

    _site: GuestSite
    _serial: int

    def buildProtocol(self, addr: IAddress | None) -> Guest:
        guest = Guest(self._serial)
        guest.factory = self._site
        guest.site = self._site
        guest.requestFactory = self._site.requestFactory
        return guest


@define(eq=False)
class _Count:
    """Adds to the tally; an :class:`~swarm.web.site.Observer`."""

    _tally: Tally

    def answered(self, request: StreamingRequest) -> None:
        self._tally.add(request.method.decode("ascii"), request.code, request.sentLength)

    def sent(self, method: str, size: int) -> None:
        self._tally.add(method, 200, size)

    def rejected(self, status: int) -> None:
        self._tally.add("none", status, 0)

"""The clients of the public API a worker serves, until they want what only the node can give.

Then the connection itself goes back to it, with the bytes read so far: also when a head is not whole yet,
since no bytes are lost on the way. Not decided here: who may read (:mod:`swarm.api.tokens`) and what is
answered (:mod:`swarm.web`).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IPullProducer
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from swarm.api.fields import set_blob_fields
from swarm.api.plain import PlainReads
from swarm.api.tokens import Guard, Tokens
from swarm.errors import BlobMissing
from swarm.model.digest import Digest
from swarm.web.bodies import conditions_of, send
from swarm.web.ranges import select
from swarm.web.request import StreamingRequest
from swarm.workers.messages import PUBLIC, Orders
from swarm.workers.seats import Answering, Seat, SeatSite
from swarm.workers.tally import Tally

if TYPE_CHECKING:
    from swarm.storage.open_files import OpenBlob
    from swarm.workers.station import Station

_READ = re.compile(rb"(?:GET|HEAD) /([0-9a-f]{128})(?:/nopeerload)? HTTP/1\.[01]\r\n")
#: Fields of requests with a body, or that ask for another protocol.
_MORE = re.compile(rb"\r\n(?:content-length|transfer-encoding|expect|upgrade)[ \t]*:", re.IGNORECASE)


class Guest(Seat):
    """A client's connection; what the short path does not answer waits here."""

    _returned = False

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The client went, was sent away, or went back to the node."""
        super().connectionLost(reason)
        self.site.station.gone(None if self._returned else self._serial)

    def judge(self) -> None:
        """See :class:`Seat`: for whom is it?"""
        stop = self._held.find(b"\r\n\r\n") + 4
        read = _READ.match(self._held)
        if stop < 4 or read is None or _MORE.search(self._held, 0, stop):
            self.pass_on()
        elif self.site.station.blobs.opened(read[1]) is None:
            self.ask(Digest(bytes.fromhex(read[1].decode("ascii"))))
        else:
            self.serve(stop)

    def leave(self) -> None:
        """See :class:`Seat`."""
        if self._current or self._closed or self.gone:
            return
        if self.site.giving_back:
            self.pass_on()
        else:
            self.loseConnection()

    # -- going back ---------------------------------------------------------------------

    def pass_on(self) -> None:
        """Have the node go on with what was not answered, once what was is on its way."""
        if self.gone:
            return
        self.gone = True
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


class _Blob(Answering):
    def __init__(self, site: GuestSite) -> None:
        super().__init__()
        self._site = site

    async def send(self, request: StreamingRequest) -> None:
        key = request.path[1:129]
        blobs = self._site.station.blobs
        blob: OpenBlob | None = blobs.opened(key)
        digest = Digest.parse(key.decode("ascii"))
        if blob is None:  # since a moment ago
            raise BlobMissing(digest)
        set_blob_fields(request, blob.info, self._site.orders.mirrors)
        chosen = select(request.method.decode("ascii"), conditions_of(request), digest.etag, blob.size)
        await send(request, blobs.reader(blob), chosen)


class GuestSite(SeatSite):
    """What all guests share."""

    seat = Guest

    def __init__(self, station: Station, orders: Orders, tally: Tally, reactor: Any) -> None:
        tokens = None if orders.tokens is None else Tokens(Path(orders.tokens))
        self._guard = Guard(tokens, clock=reactor)
        super().__init__(
            station,
            orders,
            _Blob(self),
            tally.sheets[PUBLIC],
            reactor,
            blobs=station.blobs,
            answers=PlainReads(self, self._guard, lambda: self.orders.mirrors),
        )

    async def admit_read(self, request: StreamingRequest) -> None:
        """See :class:`SeatSite`."""
        authorization, origin = request.getHeader("Authorization"), request.getHeader("Origin")
        self._guard.check("get", request.client, authorization, origin)
        self.check_allowed("get")

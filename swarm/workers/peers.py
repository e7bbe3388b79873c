"""The peers a worker serves: mutual TLS ends here, reads of granted blobs are answered here.

TLS is most of what feeding peers costs, and its state cannot move between processes. So a peer's
connection stays with the worker it was dealt to, and what only the node can answer (a push, a greeting,
midstates, what a pull has of a blob) is brought to the node request by request, with the identity TLS
proved (:mod:`swarm.workers.errands`); the node believes it, for the socket it comes by was inherited.
Then the connection is the worker's again.

The other way would be to deal only connections that will carry nothing but reads, told by something in
the ClientHello. Then plain tools gain nothing, the node has to read before it deals and to wait for who
sends nothing, our client has to know which request goes where and to repeat what was misdirected, and all
that is spoken on the wire for ever. This way nobody outside knows, and an odd request costs the node two
copies in memory but no TLS.

Who is admitted is decided by the same code with the same identity as in the node, which lends it
(:mod:`swarm.peering.packing`) and says at once when it changes; each worker cuts off its own.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure

from swarm.model.digest import Digest
from swarm.peering.limits import PeerLimits
from swarm.peering.reads import check_cluster, describe, send_blob
from swarm.peering.serving import Serving
from swarm.peering.tls import peer_id_of
from swarm.web.channel import Channel
from swarm.web.deadlines import Phase
from swarm.web.errors import Refusal
from swarm.web.request import StreamingRequest
from swarm.workers.errands import Errand, body_length
from swarm.workers.messages import BREAKS, GOES_ON, PEERS, ErrandSaid, Orders
from swarm.workers.seats import Answering, Seat, SeatSite
from swarm.workers.tally import Tally

if TYPE_CHECKING:
    from swarm.storage.open_files import OpenBlob
    from swarm.workers.station import Station

_READ = re.compile(rb"(GET|HEAD) /blobs/([0-9a-f]{128}) HTTP/1\.[01]\r\n")
_MORE = re.compile(rb"content-length|transfer-encoding|expect|upgrade", re.IGNORECASE)
_BARE = re.compile(rb"(?<!\r)\n")


class PeerGuest(Seat):
    """
    A peer's connection.

    :ivar found: what the request under way reads, and which life of its id that is of.
    """

    found: tuple[OpenBlob, int] | None = None
    _errand: Errand | None = None
    _malformed = False

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The peer went, or was cut off."""
        super().connectionLost(reason)
        if self._errand is not None:
            self._errand.transport.abortConnection()
        self.site.station.gone(self._serial)

    def dataReceived(self, data: bytes) -> None:
        """Bytes came; those of a request on its way to the node go after it."""
        if self._malformed:
            Channel.dataReceived(self, data)
            return
        if self._errand is not None and not self._closed:
            data = self._errand.take(data)
            if not data:
                return
        super().dataReceived(data)

    def judge(self) -> None:
        """See :class:`Seat`. An empty line before a request is allowed (RFC 9112, 2.2)."""
        self._held = held = self._held.removeprefix(b"\r\n")
        stop = held.find(b"\r\n\r\n") + 4
        if self.deadlines.phase is Phase.IDLE:
            self.deadlines.head()
        if (stop < 4 and _BARE.search(held)) or max(
            stop, len(held) if stop < 4 else 0
        ) > self.totalHeadersSize:
            self._malformed = True  # the parser says how
            self._held = b""
            Channel.dataReceived(self, held)
            return
        if stop < 4:
            return
        read = _READ.match(held)
        blobs = self.site.station.blobs
        if read is None or _MORE.search(held, read.end(), stop):
            self.pass_on()
        elif (blob := blobs.opened(read[2])) is not None and (life := blobs.life(read[2])) is not None:
            self.found = blob, life
            self.serve(stop)
        elif read[1] == b"HEAD":  # of a blob that may have to be verified before it is granted
            self.pass_on()
        else:
            self.ask(Digest(bytes.fromhex(read[2].decode("ascii"))))

    def _expired(self, phase: Phase) -> None:
        if phase is Phase.HEAD and self._held:  # of which the parser knows nothing
            self._malformed = True
            held, self._held = self._held, b""
            Channel.dataReceived(self, held)
        super()._expired(phase)

    def loseConnection(self) -> None:
        """End the connection. TLS is over when the peer says so too, behind whatever it sent before."""
        super().loseConnection()
        self._held = b""
        self._networkProducer.resumeProducing()

    def leave(self) -> None:
        """See :class:`Seat`. TLS cannot go back: a peer that waits for nothing connects again."""
        if not (self.busy or self._closed):
            self.loseConnection()

    # -- errands --------------------------------------------------------------------------

    def pass_on(self) -> None:
        """See :class:`Seat`: have the node answer it."""
        stop = self._held.find(b"\r\n\r\n") + 4
        head, self._held = self._held[:stop], self._held[stop:]
        length = body_length(head)
        self._between = False
        self.awaits_node = True
        self.deadlines.ours()  # the node watches the time
        said = ErrandSaid(length is not None, peer_id_of(self.transport), head)
        errand = Errand(self, length)
        try:
            self.site.station.send_out(self._serial, said, errand)
        except OSError:  # too many are open here
            self.transport.abortConnection()
            return
        self._errand = errand
        self._held = errand.take(self._held)
        self.paused = False
        self.read_or_wait()

    def read_or_wait(self) -> None:
        """Read from the peer while what comes can go on to the node, and while it reads our answers."""
        if self._errand is None or self._closed:
            return
        if self._held or self._errand.full or self._waitingForTransport:
            self._networkProducer.pauseProducing()
        else:
            self._networkProducer.resumeProducing()

    def pauseProducing(self) -> None:
        """The peer takes no more of an answer for now."""
        super().pauseProducing()
        if self._errand is not None:
            self._errand.transport.pauseProducing()

    def resumeProducing(self) -> None:
        """It does again."""
        super().resumeProducing()
        if self._errand is not None:
            self._errand.transport.resumeProducing()
            self.read_or_wait()

    def errand_over(self, how: bytes) -> None:
        """
        The node's answer is written.

        :param how: see :mod:`swarm.workers.messages`.
        """
        errand, self._errand = self._errand, None
        self.awaits_node = False
        if self._closed:
            return
        if how == BREAKS:
            self.transport.abortConnection()
        elif how != GOES_ON or (errand is not None and errand.left):
            self.loseConnection()
        else:
            self._know_between()
            if not self.full:
                self.deadlines.idle()
            if self.site.leaving:
                self.leave()
            else:
                self.site.reactor.callLater(0, self.go_on)


class _PeerBlob(Answering):
    def __init__(self, site: PeerGuestSite) -> None:
        super().__init__()
        self._site = site

    async def send(self, request: StreamingRequest) -> None:
        assert isinstance(request.channel, PeerGuest), "this door has no other connections"
        found, request.channel.found = request.channel.found, None
        if found is None:
            raise Refusal(400, "malformed request")
        (blob, life), site = found, self._site
        if request.method == b"HEAD":
            describe(request, blob.info, life, None, site.serving.given(blob.info.digest))
            return
        with site.uploads.another(site.peer_limits):
            reader, peer = site.station.blobs.reader(blob), peer_id_of(request.transport)
            await send_blob(request, reader, life, serving=site.serving, peer=peer)


class PeerGuestSite(SeatSite):
    """What all peers here share."""

    seat = PeerGuest

    def __init__(self, station: Station, orders: Orders, tally: Tally, reactor: Any) -> None:
        self.uploads = tally.uploads
        self.peer_limits = PeerLimits(**orders.peering)
        self.serving = Serving(reactor, self.peer_limits)
        super().__init__(station, orders, _PeerBlob(self), tally.sheets[PEERS], reactor)

    async def admit_read(self, request: StreamingRequest) -> None:
        """See :class:`SeatSite`; TLS proved who asks."""
        check_cluster(request, self.orders.cluster)
        self.check_allowed("get")

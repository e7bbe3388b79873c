"""Pulling blob bytes from one peer over one keep-alive connection.

Decides when to dial, when to ask again on a fresh connection, and when a peer has been silent for
too long. What counts as an answer is ``http1``'s decision; which span to ask whom is
``swarm.core.dispatch``'s.

A lane begins on a connection that is kept idle after other questions to the peer, if there is one:
that saves two round trips and the handshake's work before the first byte.

A request is sent the moment :meth:`Lane.fetch` is called, so the peer begins the second body
right behind the first. A peer may close an idle connection, or say that it ends one: what had not
begun to arrive by then is asked again on a fresh connection, once, and is nobody's fault.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from math import inf
from typing import Any

from attrs import define
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import (
    IDelayedCall,
    IHandshakeListener,
    IReactorTime,
    ISSLTransport,
    IStreamClientEndpoint,
    ITCPTransport,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from swarm.errors import Fault, PeerError
from swarm.interfaces import ILane, Told, untold
from swarm.model.digest import Digest
from swarm.model.peers import Peer, PeerID
from swarm.model.ranges import ByteRange
from swarm.peering.faults import fault_of
from swarm.peering.http1 import Answered, Answers, Arrived, Event
from swarm.peering.http1 import Told as ToldEvent
from swarm.peering.lean import IRecordsReceiver
from swarm.peering.limits import PeerLimits
from swarm.peering.meter import Meter
from swarm.peering.tls import tls_fault
from swarm.peering.wire import CLUSTER, GIVEN, GIVEN_HEEDED
from swarm.web.eager import urge

Sink = Callable[[int, Sequence[memoryview]], None]


@define(eq=False)
class _Want:
    """One span somebody waits for."""

    span: ByteRange
    sink: Sink
    done: Deferred[None]
    again: bool = False  # asked a second time already
    dropped: bool = False  # cancelled after its request was sent


@implementer(ILane)
class Lane:
    """I fetch spans of one blob from one peer."""

    def __init__(
        self,
        peer: Peer,
        digest: Digest,
        size: int,
        *,
        endpoint: IStreamClientEndpoint,
        clock: IReactorTime,
        cluster: str,
        limits: PeerLimits,
        take: Callable[[], Meter | None] = lambda: None,
        told: Told = untold,
    ) -> None:
        """
        Begin without a connection.

        :param endpoint: dials the peer, and admits only it.
        :param take: gives up an idle connection to it, if there is one; see ``swarm.peering.exchange``.
        :param told: see :meth:`~swarm.interfaces.IPeerClient.lane`.
        """
        self.peer = peer
        self._digest = digest
        self._size = size
        self._endpoint = endpoint
        self._take_over = take
        self._told = told
        self._clock = clock
        self._limits = limits
        self._head = (
            f"GET /blobs/{digest.hex} HTTP/1.1\r\nHost: {peer.address}\r\n"
            f"{CLUSTER}: {cluster}\r\n{GIVEN}: {GIVEN_HEEDED}\r\nAccept-Encoding: identity\r\nRange: "
        ).encode()
        self._wants: deque[_Want] = deque()
        self._wire: _Wire | None = None
        self._dialing: Deferred[Any] | None = None
        self._over: BaseException | None = None
        self._paused = False
        self._timer: IDelayedCall | None = None
        self._dialed = 0.0  # when the connection was begun
        self._due = 0.0  # since when the answer under way is due
        self._heard = 0.0  # when the last byte came, or what it is measured from
        self._handed = -inf  # when bytes were handed over last

    async def fetch(self, span: ByteRange, sink: Sink) -> None:
        """See :class:`~swarm.interfaces.ILane`."""
        if self._over is not None:
            raise _same(self._over)
        assert span.stop <= self._size
        want = _Want(span, sink, Deferred(lambda _: self._cancelled(want)))
        assert sum(not each.dropped for each in self._wants) < 2, "one under way and one queued"
        self._wants.append(want)
        if len(self._wants) == 1:
            self._due = self._heard = self._clock.seconds()
        if self._wire is None:
            self._begin()
        elif not any(each.dropped for each in self._wants):
            self._wire.ask(span)
        self._watch()
        await want.done

    def pause(self) -> None:
        """See :class:`~swarm.interfaces.ILane`."""
        if not self._paused:
            self._paused = True
            if self._wire is not None:
                self._wire.pause()
            self._watch()

    def resume(self) -> None:
        """See :class:`~swarm.interfaces.ILane`."""
        if self._paused:
            self._paused = False
            self._due = self._heard = self._clock.seconds()
            if self._wire is not None:
                self._wire.resume()
            self._watch()

    def close(self) -> None:
        """See :class:`~swarm.interfaces.ILane`."""
        self._end(CancelledError())

    # -- the connection ---------------------------------------------------------

    def _begin(self) -> None:
        """Have a connection: one that is kept, or a fresh one."""
        if self._dialing is not None:
            return
        kept = self._take_over()
        if kept is None:
            self._dial()
        else:
            kept.hand_over(_Wire(self, self._head, self._answers(), served=True))

    def _dial(self) -> None:
        if self._dialing is not None:
            return
        self._dialed = self._clock.seconds()
        answers = self._answers()
        dialing = self._endpoint.connect(Factory.forProtocol(lambda: _Wire(self, self._head, answers)))
        self._dialing = dialing

        def connected(_: object) -> None:
            if self._dialing is dialing:
                self._dialing = None

        def failed(failure: Failure) -> None:
            if self._dialing is dialing:
                self._end(_why(self.peer.id, failure))

        dialing.addCallbacks(connected, failed)

    def _answers(self) -> Answers:
        return Answers(
            self._digest,
            self._size,
            head_limit=self._limits.head,
            refusal_limit=self._limits.refusal,
            batch=self._limits.batch,
        )

    def _connected(self, wire: _Wire) -> None:
        if self._over is not None or self._wire is not None:
            wire.drop()
            return
        self._wire = wire
        self._due = self._heard = self._clock.seconds()
        if self._paused:
            wire.pause()
        for want in self._wants:
            wire.ask(want.span)
        self._watch()

    def _greeted(self, wire: _Wire) -> None:
        if self._wire is wire:
            self._due = self._heard = self._clock.seconds()
            self._watch()

    def _lost(self, wire: _Wire, reason: Failure) -> None:
        if self._wire is not wire:
            return
        self._drain(wire)
        if self._wire is not wire:
            return
        self._wire = None
        if not self._wants:
            self._watch()
            return
        first = self._wants[0]
        if wire.answers.begun:
            self._end(PeerError(self.peer.id, Fault.TRUNCATED, "the connection ended in the answer"))
        elif wire.answered and not first.again and not _refused(reason):
            self._ask_again()
        else:
            self._end(_why(self.peer.id, reason))

    def _hang_up(self) -> None:
        """Leave a connection that can serve no more; ask for the rest on a fresh one."""
        wire, self._wire = self._wire, None
        if wire is not None:
            wire.drop()
        self._ask_again()

    def _ask_again(self) -> None:
        self._wants = deque(want for want in self._wants if not want.dropped)
        for want in self._wants:
            want.again = True
        if self._wants:
            self._due = self._heard = self._clock.seconds()
            self._dial()
        self._watch()

    def _end(self, why: BaseException) -> None:
        """The lane is dead; the fetch under way gets ``why``, one queued behind it the same."""
        if self._over is not None:
            return
        self._over = why
        wire, self._wire = self._wire, None
        dialing, self._dialing = self._dialing, None
        wants, self._wants = self._wants, deque()
        self._watch()
        if wire is not None:
            wire.drop()
        if dialing is not None:
            dialing.cancel()
        for want in wants:
            if not want.done.called:
                want.done.errback(Failure(_same(why)))

    def _cancelled(self, want: _Want) -> None:
        if want not in self._wants:
            return
        if self._wire is None:
            self._wants.remove(want)
            self._watch()
            return
        want.dropped = True
        if self._wants[0] is want:
            self._hang_up()

    # -- what it receives -------------------------------------------------------

    def _received(self, wire: _Wire, pieces: Sequence[bytes | memoryview]) -> None:
        if self._wire is not wire:
            return
        self._heard = self._clock.seconds()
        for event in wire.answers.receive(pieces):
            self._take(event)
            if self._wire is not wire:
                return
        if self._heard >= self._handed + self._limits.batch_time:
            self._drain(wire)

    def _drain(self, wire: _Wire) -> None:
        """Hand over what came of a body: the first of it at once, and all if it will not be completed."""
        for event in wire.answers.flush():
            self._take(event)

    def _take(self, event: Event) -> None:
        if isinstance(event, ToldEvent):
            self._told(event.have, event.given)
        elif isinstance(event, Arrived):
            want, self._handed = self._wants[0], self._heard
            try:
                want.sink(event.offset, event.views)
            except Exception as e:  # whatever it is, it belongs to the one who gave the sink
                self._wants.popleft()
                self._end(CancelledError())
                want.done.errback(Failure(e))
        elif isinstance(event, Answered):
            self._answered(event)
        else:
            self._end(PeerError(self.peer.id, event.fault, event.detail))

    def _answered(self, event: Answered) -> None:
        want = self._wants.popleft()
        assert self._wire is not None
        self._wire.answered = True
        self._due = self._heard
        if not event.reusable or (self._wants and self._wants[0].dropped):
            self._hang_up()
        self._watch()
        if event.fault is None:
            want.done.callback(None)
        else:
            want.done.errback(
                PeerError(self.peer.id, event.fault, event.detail, retry_after=event.retry_after)
            )

    # -- time -------------------------------------------------------------------

    def _watch(self) -> None:
        """Have a timer exactly while something is due."""
        deadline = self._deadline()
        if self._timer is not None and (deadline is None or deadline < self._timer.getTime()):
            self._timer.cancel()
            self._timer = None
        if deadline is not None and self._timer is None:
            wait = max(0.0, deadline - self._clock.seconds())
            self._timer = self._clock.callLater(wait, self._look)

    def _look(self) -> None:
        """The timer fired; since it was set, the deadline may have moved on."""
        self._timer = None
        deadline = self._deadline()
        if deadline is not None and deadline <= self._clock.seconds():
            wire = self._wire
            if wire is None or not wire.greeted:
                self._end(PeerError(self.peer.id, Fault.UNREACHABLE, "no connection in time"))
            else:
                self._drain(wire)
                self._end(PeerError(self.peer.id, Fault.SILENT, "nothing for too long"))
        self._watch()

    def _deadline(self) -> float | None:
        """When the peer will have taken too long; None while nothing is due."""
        limits = self._limits
        if self._over is not None or not self._wants:
            return None
        if self._wire is None or not self._wire.greeted:
            return self._dialed + limits.connect
        if self._paused:
            return None
        silent = self._heard + limits.silence
        return silent if self._wire.answers.delivering else min(silent, self._due + limits.head_time)


@implementer(IHandshakeListener, IRecordsReceiver)
class _Wire(Protocol):
    """One connection of a lane."""

    transport: Any  # TCP, or TLS on top of it: more than any one interface says

    def __init__(self, lane: Lane, head: bytes, answers: Answers, *, served: bool = False) -> None:
        """:param served: others used the connection before, so TCP and TLS are up."""
        self.answers = answers
        self.answered = served  # did it ever carry a whole answer?
        self.greeted = served  # are TCP and TLS up?
        self._lane = lane
        self._head = head

    def connectionMade(self) -> None:
        """Twisted: TCP is up. What is written now goes out behind the handshake."""
        self.greeted = self.greeted or not ISSLTransport.providedBy(self.transport)
        bottom = self.transport
        while (below := getattr(bottom, "transport", None)) is not None:
            bottom = below
        # Reading in pieces of the default 64 KiB costs a fifth more CPU (PERFORMANCE 3a).
        bottom.bufferSize = self._lane._limits.receive
        if ITCPTransport.providedBy(bottom):
            bottom.setTcpNoDelay(True)  # a request behind another must not wait for an ACK
        self._lane._connected(self)

    def handshakeCompleted(self) -> None:
        """Twisted: TLS is up, seen from here; TLS 1.3 lets the other side object later."""
        self.greeted = True
        self._lane._greeted(self)

    def dataReceived(self, data: bytes) -> None:
        """Twisted: bytes."""
        self._lane._received(self, (data,))

    def recordsReceived(self, records: Sequence[bytes | memoryview]) -> None:
        """See :class:`~swarm.peering.lean.IRecordsReceiver`."""
        self._lane._received(self, records)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Twisted: the end."""
        self._lane._lost(self, reason)

    def ask(self, span: ByteRange) -> None:
        """Send the request for a span."""
        self.answers.expect(span)
        self.transport.write(self._head + span.header.encode() + b"\r\n\r\n")
        urge(self.transport)

    def pause(self) -> None:
        """Stop reading."""
        self.transport.pauseProducing()

    def resume(self) -> None:
        """Go on reading."""
        self.transport.resumeProducing()

    def drop(self) -> None:
        """End it now; the peer's consent would have to be waited for."""
        self.transport.abortConnection()


def _refused(reason: Failure) -> bool:
    return reason.value is not None and tls_fault(reason.value) is not None


def _why(peer: PeerID, reason: Failure) -> BaseException:
    assert reason.value is not None
    return fault_of(peer, reason.value) or reason.value


def _same(why: BaseException) -> BaseException:
    """A new exception like ``why``: one for each who waits, so that no traceback is shared."""
    if isinstance(why, PeerError):
        return PeerError(why.peer, why.fault, why.detail, retry_after=why.retry_after)
    return CancelledError() if isinstance(why, CancelledError) else why

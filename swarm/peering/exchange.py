"""One request to a peer and its whole answer, over treq, within budgets Twisted's client lacks.

Connections that are idle are kept, a few to each address. Greetings, which come from time to time, go
round them, so that all stay warm: when a blob is wanted, neither the list of its midstates nor its first
bytes wait for a handshake. A lane may take one for itself.

Decides whether an answer arrived and which fault it is if not. What it means is ``client``'s
business; bytes and silence are counted by ``meter``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from attrs import field, frozen
from treq.client import HTTPClient
from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.error import ConnectingCancelledError, NotConnectingError
from twisted.internet.interfaces import IConsumer, IProtocolFactory, IReactorTime, IStreamClientEndpoint
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import URI, Agent, HTTPConnectionPool, ResponseDone
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IAgentEndpointFactory, IBodyProducer, IResponse
from zope.interface import implementer

from swarm.errors import Fault, PeerError, SwarmError
from swarm.model.peers import Address, PeerID
from swarm.peering.faults import fault_of
from swarm.peering.glance import Glance, Unusual, spell
from swarm.peering.http1 import Head
from swarm.peering.limits import PeerLimits
from swarm.peering.meter import Meter, Metered
from swarm.peering.pushing import BlobBody
from swarm.web.eager import urge


@frozen
class Ask:
    """A request. Bytes and seconds."""

    method: str
    path: str
    headers: Mapping[str, str]
    data: bytes | BlobBody = b""
    limit: int = 0  # most bytes of the answer's body
    silence: float = 10.0  # without a byte in either direction
    total: float | None = 30.0
    verdict: float = 0.0  # silence after the last byte of a BlobBody


@frozen
class Reply:
    """An answer, whole, and who gave it."""

    head: Head
    body: bytes = field(repr=False)
    who: PeerID


class Exchanges:
    """I keep connections to peers, a few each, and put one request at a time on one of them."""

    def __init__(
        self,
        dial: Callable[[Address, PeerID | None], IStreamClientEndpoint],
        identify: Callable[[Any], PeerID],
        *,
        clock: IReactorTime,
        limits: PeerLimits,
    ) -> None:
        self._open: dict[Meter, None] = {}
        self.clock = clock
        self.limits = limits
        self._dial = dial
        self._identify = identify
        self._turns: dict[Address, int] = {}
        self.pool = HTTPConnectionPool(clock)
        self.pool.maxPersistentPerHost = 1  # under each key, and an address has several
        self.pool.cachedConnectionTimeout = limits.idle  # type: ignore[assignment]  # any number will do
        self.pool.retryAutomatically = False

    async def ask(self, address: Address, peer: PeerID | None, ask: Ask) -> Reply:
        """
        Ask the peer that is expected at ``address`` (None: whoever it is; ``Reply.who`` says).

        A kept connection that turns out to be stale is nobody's fault: another is tried.

        :raises PeerError: no whole answer within the budgets.
        :raises SwarmError: what a :class:`BlobBody` could not read.
        """
        plain = peer is not None and ask.method in ("HEAD", "GET")
        while True:
            line = _Line(self, address, peer, ask)
            kept = self._kept(address, peer) if plain and peer is not None else None
            answering = self._exchange(line, ask) if kept is None else self._glance(line, ask, *kept)
            work = Deferred.fromCoroutine(answering)
            timer = None if ask.total is None else self.clock.callLater(ask.total, line.expire, work)
            try:
                return await work
            except Unusual:
                plain = False
                line.abort()
            except Exception as e:  # sorted out here, and only here, into faults and everything else
                if line.meter is not None and line.meter.early is not None:
                    return Reply(*line.meter.early, line.meter.who)
                line.abort()
                cause = _innermost(e)
                fault = line.verdict or fault_of(peer, cause)
                if fault is None:
                    raise cause from None
                if line.stale and fault.fault is Fault.UNREACHABLE:
                    continue
                raise PeerError(peer, fault.fault, fault.detail) from e
            finally:
                if timer is not None and timer.active():
                    timer.cancel()
                line.settle()

    async def _glance(self, line: _Line, ask: Ask, key: tuple[Address, int], connection: Any) -> Reply:
        """A HEAD or GET over an idle connection, which then is kept on; see :mod:`swarm.peering.glance`."""
        meter: Meter = line.begin(connection).transport
        glance = Glance(None if ask.method == "HEAD" else ask.limit)
        meter.lend(glance)
        meter.write(spell(ask.method, ask.path, {"Host": str(line.address), **ask.headers}))
        urge(meter)
        head, body = await glance.answer
        meter.lend(connection)
        if not head.closes:
            self.pool._putConnection(key, connection)  # as Twisted's client itself does when it is done
        else:
            meter.abortConnection()
        return Reply(head, body, meter.who)

    async def _exchange(self, line: _Line, ask: Ask) -> Reply:
        agent = Agent.usingEndpointFactory(self.clock, line, pool=line)
        fields = {"Host": str(line.address), **ask.headers}
        response = await HTTPClient(_Plain(agent)).request(
            ask.method,
            f"https://peer{ask.path}",  # hyperlink chokes on IPv6; where to go the line knows
            headers=Headers({name: [value] for name, value in fields.items()}),
            data=_Whole(ask.data) if isinstance(ask.data, bytes) else ask.data,
            allow_redirects=False,
            unbuffered=True,
            reactor=self.clock,  # type: ignore[arg-type]  # only for a timeout nobody asked treq for
        )
        answered = {
            name.decode("latin-1").lower(): tuple(value.decode("latin-1") for value in values)
            for name, values in response.headers.getAllRawHeaders()
        }
        body = await limited_content(response, ask.limit)
        assert line.meter is not None
        return Reply(Head(response.code, answered), body, line.meter.who)

    def connect(
        self, address: Address, peer: PeerID | None, endpoint: IStreamClientEndpoint
    ) -> Deferred[Any]:
        """
        A connection for one request, as Twisted's client has it: an idle one, else a fresh one.

        Never one whose other side proved to be somebody else.
        """
        kept = None if peer is None else self._kept(address, peer)
        if kept is not None:
            return succeed(kept[1])
        turn = self._turns[address] = (self._turns.get(address, -1) + 1) % self.limits.connections
        return self.pool.getConnection((address, turn), endpoint)

    def _kept(self, address: Address, peer: PeerID) -> tuple[tuple[Address, int], Any] | None:
        for turn in range(self.limits.connections):
            connection = self._idle((address, turn))
            if connection is not None and connection.transport.who == peer:
                return (address, turn), connection
            if connection is not None:
                connection.transport.abortConnection()  # another is there now, or was
        return None

    def take(self, address: Address, peer: PeerID) -> Meter | None:
        """An idle connection to that peer, to be handed over: the caller's. None: there is none."""
        kept = self._kept(address, peer)
        return None if kept is None else kept[1].transport

    def _idle(self, key: object) -> Any:
        found: list[Any] = []
        self.pool.getConnection(key, _NOWHERE).addCallbacks(found.append, lambda _: None)
        return found[0] if found else None

    def metered(self, address: Address, peer: PeerID | None) -> IStreamClientEndpoint:
        """An endpoint whose connections are counted."""
        return Metered(self._dial(address, peer), clock=self.clock, identify=self._identify, open=self._open)

    def close(self) -> None:
        """Abort every connection, busy or kept."""
        self.pool.closeCachedConnections().addErrback(lambda _: None)
        for meter in tuple(self._open):
            meter.abortConnection()


@implementer(IStreamClientEndpoint)
class _Nowhere:
    """What a pool that has nothing kept is told to dial, if only a kept connection is of use."""

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[Any]:
        return fail(NotConnectingError())


_NOWHERE = _Nowhere()


@implementer(IAgentEndpointFactory)
class _Line:
    """One try of one request: the endpoint factory and the pool that ``Agent`` sees."""

    persistent = True

    def __init__(self, exchanges: Exchanges, address: Address, peer: PeerID | None, ask: Ask) -> None:
        self.address = address
        self.meter: Meter | None = None
        self._exchanges = exchanges
        self._peer = peer
        self._ask = ask
        self._expired = False

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:
        """See :class:`~twisted.web.iweb.IAgentEndpointFactory`. An address was given, not an URI."""
        return self._exchanges.metered(self.address, self._peer)

    def getConnection(self, key: object, endpoint: IStreamClientEndpoint) -> Deferred[Any]:
        """See :class:`~twisted.web.client.HTTPConnectionPool`."""
        connecting = self._exchanges.connect(self.address, self._peer, endpoint)
        connecting.addTimeout(
            self._exchanges.limits.connect,
            self._exchanges.clock,
            lambda *_: Failure(PeerError(self._peer, Fault.UNREACHABLE, "no connection in time")),
        )
        connecting.addCallback(self.begin)
        return connecting

    def begin(self, connection: Any) -> Any:
        """The request is about to be written on this connection."""
        self.meter = connection.transport
        assert isinstance(self.meter, Meter)
        ask = self._ask
        self.meter.begin(self._exchanges.limits.chatter + ask.limit, ask.silence)
        if isinstance(ask.data, BlobBody):
            self.meter.sending(ask.data, ask.verdict)
        return connection

    def expire(self, work: Deferred[Any]) -> None:
        """All the time there was is over."""
        self._expired = True
        work.cancel()

    @property
    def verdict(self) -> PeerError | None:
        """What we ended the exchange for, if it was us."""
        if self.meter is not None and self.meter.fault is not None:
            return PeerError(self._peer, self.meter.fault, "past its budget")
        return PeerError(self._peer, Fault.SILENT, "no whole answer in time") if self._expired else None

    @property
    def stale(self) -> bool:
        """Did a connection that had served before die without one byte of this answer?"""
        return self.meter is not None and self.meter.uses > 1 and not self.meter.received

    def abort(self) -> None:
        """The connection can serve no more."""
        if self.meter is not None:
            self.meter.abortConnection()

    def settle(self) -> None:
        """The exchange is over."""
        if self.meter is not None:
            self.meter.settle()


@implementer(IAgent)
@frozen
class _Plain:
    """An agent that accepts bytes only as they are; treq would unpack whatever comes."""

    agent: IAgent

    def request(
        self,
        method: bytes,
        uri: bytes,
        headers: Headers | None = None,
        bodyProducer: IBodyProducer | None = None,
    ) -> Deferred[IResponse]:
        headers = Headers() if headers is None else headers.copy()
        headers.setRawHeaders("Accept-Encoding", ["identity"])
        return self.agent.request(method, uri, headers, bodyProducer).addCallback(self._check)

    def _check(self, response: IResponse) -> IResponse:
        if response.headers.hasHeader("Content-Encoding"):
            raise PeerError(None, Fault.CODED, "an answer comes as it is")
        return response


@implementer(IBodyProducer)
class _Whole:
    """A short body, sent at once. Twisted's own producers use the global reactor."""

    def __init__(self, data: bytes) -> None:
        self.length = len(data)
        self._data = data

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:
        consumer.write(self._data)
        return succeed(None)

    def pauseProducing(self) -> None:
        pass

    def resumeProducing(self) -> None:
        pass

    def stopProducing(self) -> None:
        pass


def limited_content(response: IResponse, limit: int) -> Deferred[bytes]:
    """
    Read a body of at most ``limit`` bytes.

    :raises PeerError: OVERSIZED.
    """
    done: Deferred[bytes] = Deferred()
    if response.length == 0:
        done.callback(b"")
    else:
        response.deliverBody(_Collector(limit, done))
    return done


class _Collector(Protocol):
    def __init__(self, limit: int, done: Deferred[bytes]) -> None:
        self._collected = bytearray()
        self._limit = limit
        self._done = done

    def dataReceived(self, data: bytes) -> None:
        self._collected += data
        if len(self._collected) > self._limit and not self._done.called:
            self._done.errback(PeerError(None, Fault.OVERSIZED, f"a body of more than {self._limit} bytes"))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._done.called:
            return
        if reason.check(ResponseDone):
            self._done.callback(bytes(self._collected))
        else:
            self._done.errback(reason)


def _innermost(error: Exception) -> BaseException:
    """What Twisted's client wrapped: a cancellation, or what reading a body raised."""
    if isinstance(error, ConnectingCancelledError):
        return CancelledError()
    for failure in getattr(error, "reasons", ()):
        if isinstance(failure.value, CancelledError | SwarmError):
            return failure.value
    return error

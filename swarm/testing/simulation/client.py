"""A client of simulated nodes: the public API over HTTP, each request on a connection of its own."""

from __future__ import annotations

import json
from random import Random
from typing import Any

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Protocol
from twisted.web.client import Agent, HTTPConnectionPool, ResponseDone
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgentEndpointFactory
from zope.interface import implementer

from swarm.peering.pushing import BlobBody
from swarm.testing.simulation.network import Host, Network
from swarm.testing.simulation.reactor import SimReactor

#: Where nodes serve the public API.
PUBLIC = 7040


@frozen
class Answer:
    """What a client got; ``whole`` if the body ended as it should."""

    status: int
    body: bytes
    whole: bool = True

    @property
    def document(self) -> Any:
        """The JSON in it."""
        return json.loads(self.body)


class NoAnswer(Exception):
    """The client does not know what became of its request."""


@implementer(IAgentEndpointFactory)
class Client:
    """Requests to one node's public API, each over a connection of its own."""

    def __init__(self, network: Network, at: Host, *, random: Random) -> None:
        self.process = SimReactor(f"client of {at.name}", network, at, random=random)
        reactor: Any = self.process
        self._agent = Agent.usingEndpointFactory(reactor, self, HTTPConnectionPool(reactor, persistent=False))

    def endpointForURI(self, uri: object) -> IStreamClientEndpoint:
        """See :class:`~twisted.web.iweb.IAgentEndpointFactory`."""
        return TCP4ClientEndpoint(self.process, "127.0.0.1", PUBLIC, 10)

    async def ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        *,
        span: str | None = None,
        within: float = 120.0,
    ) -> Answer:
        """
        One request and its whole answer.

        :param span: a ``Range``.
        :raises NoAnswer: it never came, or not in time.
        """
        asking = Deferred.fromCoroutine(self._ask(method, path, body, span))
        clock: Any = self.process
        asking.addTimeout(within, clock)
        try:
            return await asking
        except Exception as e:
            raise NoAnswer(f"{method} {path[:12]}: {e!r}") from e

    async def _ask(self, method: str, path: str, body: bytes | None, span: str | None) -> Answer:
        producer: Any = None
        if body is not None:

            async def read(offset: int, length: int) -> bytes:
                return body[offset : offset + length]

            producer = BlobBody(read, len(body))
        headers = Headers({} if span is None else {"Range": [span]})
        uri = f"http://127.0.0.1:{PUBLIC}{path}"
        response = await self._agent.request(method.encode(), uri.encode(), headers, producer)
        done: Deferred[tuple[bytes, bool]] = Deferred(lambda _: collected.transport.abortConnection())
        collected: Any = _Body(done)
        response.deliverBody(collected)
        data, whole = await done
        return Answer(response.code, data, whole)


class _Body(Protocol):
    def __init__(self, done: Deferred[tuple[bytes, bool]]) -> None:
        self._done = done
        self._data = bytearray()

    def dataReceived(self, data: bytes) -> None:
        self._data += data

    def connectionLost(self, reason: Any = None) -> None:
        if not self._done.called:
            self._done.callback((bytes(self._data), bool(reason.check(ResponseDone))))

"""A HEAD, or a GET of little, over a connection that is kept, spelled by hand.

A cold read asks every peer before it knows whom to pull from, and one for its midstates before a byte may
leave. Twisted's client with treq on top takes half a millisecond to two for each, nearly all of it for what
these have not: a URL, cookies, a body that is sent, encodings. Decides whether an answer is whole; budgets
are ``meter``'s, all else ``exchange``'s. An answer whose end is not told by a length is left to that client.
"""

from __future__ import annotations

from collections.abc import Mapping

from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure

from swarm.errors import Fault, Malformed, PeerError
from swarm.peering.http1 import Head

_END = b"\r\n\r\n"


class Unusual(Exception):
    """The answer is for a whole HTTP client: ask again with one."""


def spell(method: str, path: str, fields: Mapping[str, str]) -> bytes:
    """The request."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"{method} {path} HTTP/1.1\r\n{lines}Accept-Encoding: identity\r\n\r\n".encode()


class Glance(Protocol):
    """
    I read one answer, lent the place of Twisted's client on its connection.

    :ivar answer: its head and its body; fails with a :class:`~swarm.errors.PeerError`, with
        :class:`Unusual`, or as the connection did if not a byte came.
    """

    def __init__(self, limit: int | None = None) -> None:
        """:param limit: most bytes of a body; None: it is the answer to a HEAD and has none."""
        self.answer: Deferred[tuple[Head, bytes]] = Deferred()
        self._limit = limit
        self._received = bytearray()
        self._head: Head | None = None
        self._length = 0

    def dataReceived(self, data: bytes) -> None:
        """Twisted: bytes. What comes behind a 1xx is the answer; behind that, nothing may come."""
        self._received += data
        while self._head is None and not self.answer.called and (end := self._received.find(_END)) >= 0:
            try:
                head = Head.parse(bytes(self._received[:end]))
                del self._received[: end + len(_END)]
                if head.status >= 200:
                    self._judge(head)
            except Malformed as e:
                self._fail(Fault.GARBLED, str(e))
        if self._head is None or self.answer.called:
            return
        if len(self._received) > self._length:
            self._fail(Fault.GARBLED, "more than was asked for")
        elif len(self._received) == self._length:
            self.answer.callback((self._head, bytes(self._received)))

    def _judge(self, head: Head) -> None:
        if "content-encoding" in head.fields:
            self._fail(Fault.CODED, "an answer comes as it is")
            return
        if self._limit is not None and head.status != 204:
            length = None if "transfer-encoding" in head.fields else head.length
            if length is None:
                self.answer.errback(Unusual())
                return
            if length > self._limit:
                self._fail(Fault.OVERSIZED, f"a body of more than {self._limit} bytes")
                return
            self._length = length
        self._head = head

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Twisted: the end."""
        if self.answer.called:
            return
        if self._received or self._head is not None:
            self._fail(Fault.TRUNCATED, "the connection ended in the answer")
        else:
            self.answer.errback(reason)

    def _fail(self, fault: Fault, detail: str) -> None:
        self.answer.errback(PeerError(None, fault, detail))

"""A HEAD over a connection that is kept, spelled by hand.

A cold read asks every peer before it knows whom to pull from, and Twisted's client with treq on top takes
half a millisecond for each, nearly all of it for what a HEAD has not: a URL, cookies, a body, its
encodings. Decides whether an answer without a body is one; budgets are ``meter``'s, all else ``exchange``'s.
"""

from __future__ import annotations

from collections.abc import Mapping

from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure

from swarm.errors import Fault, Malformed, PeerError
from swarm.peering.http1 import Head

_END = b"\r\n\r\n"


def spell(path: str, fields: Mapping[str, str]) -> bytes:
    """The request."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"HEAD {path} HTTP/1.1\r\n{lines}Accept-Encoding: identity\r\n\r\n".encode()


class Glance(Protocol):
    """
    I read one answer to a HEAD, lent the place of Twisted's client on its connection.

    :ivar answer: its head; fails with a :class:`~swarm.errors.PeerError`, or as the connection did if not
        a byte came.
    """

    def __init__(self) -> None:
        self.answer: Deferred[Head] = Deferred()
        self._received = bytearray()

    def dataReceived(self, data: bytes) -> None:
        """Twisted: bytes. What comes behind a 1xx is the answer; behind that, nothing may come."""
        self._received += data
        while not self.answer.called and (end := self._received.find(_END)) >= 0:
            try:
                head = Head.parse(bytes(self._received[:end]))
            except Malformed as e:
                self._fail(Fault.GARBLED, str(e))
                return
            del self._received[: end + len(_END)]
            if head.status >= 200:
                self._take(head)

    def _take(self, head: Head) -> None:
        if self._received:
            self._fail(Fault.GARBLED, "more than was asked for")
        elif "content-encoding" in head.fields:
            self._fail(Fault.CODED, "an answer comes as it is")
        else:
            self.answer.callback(head)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Twisted: the end."""
        if self.answer.called:
            return
        if self._received:
            self._fail(Fault.TRUNCATED, "the connection ended in the answer")
        else:
            self.answer.errback(reason)

    def _fail(self, fault: Fault, detail: str) -> None:
        self.answer.errback(PeerError(None, fault, detail))

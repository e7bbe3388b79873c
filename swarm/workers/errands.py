"""A request of a peer that the worker cannot answer, brought to the node by a stream of its own.

The worker is the connection's TLS for good, and nothing more here: bytes go to the node as the peer sent
them and come back as the node wrote them, each side held up by the other. It needs to know only where the
request ends, and that the answer did (``messages.ENDED``), to go on with the connection itself. Where a
request ends that does not say so plainly, it does not try: from then on the stream is the connection.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IPushProducer
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

if TYPE_CHECKING:
    from swarm.workers.peers import PeerGuest

_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d{1,18})[ \t]*(?=\r\n)", re.IGNORECASE)
_UNCLEAR = re.compile(rb"transfer-encoding|upgrade", re.IGNORECASE)


def body_length(head: bytes) -> int | None:
    """
    How long the body behind a head is.

    :param head: with the empty line that ends it.
    :return: None: that is for the node to say.
    """
    if _UNCLEAR.search(head):
        return None
    named = head.lower().count(b"content-length")
    if not named:
        return 0
    plain = _LENGTH.findall(head)
    return int(plain[0]) if named == len(plain) == 1 else None


@implementer(IPushProducer)
class Errand(Protocol):
    """
    The worker's end of the stream.

    :ivar left: bytes of the request still to come; None: it never ends.
    :ivar full: the node takes no more of it for now.
    """

    transport: Any

    def __init__(self, guest: PeerGuest, left: int | None) -> None:
        self.left = left
        self.full = False
        self._guest = guest
        self._how: bytes | None = None
        self._lost = False

    # -- from the peer -------------------------------------------------------------------

    def take(self, data: bytes) -> bytes:
        """Bring bytes; what is left of them is no part of this request."""
        mine = data if self.left is None else data[: self.left]
        if mine:
            self.transport.write(mine)
        if self.left is not None:
            self.left -= len(mine)
        return data[len(mine) :]

    def pauseProducing(self) -> None:
        """The node takes no more of the request for now."""
        self.full = True
        self._guest.read_or_wait()

    def resumeProducing(self) -> None:
        """It does again."""
        self.full = False
        self._guest.read_or_wait()

    def stopProducing(self) -> None:
        """The stream is lost; :meth:`connectionLost` says so."""

    # -- from the node -------------------------------------------------------------------

    def connectionMade(self) -> None:
        """The stream is there."""
        self.transport.registerProducer(self, True)

    def dataReceived(self, data: bytes) -> None:
        """Bytes of the answer."""
        self._guest.transport.write(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """All of the answer that there is was read."""
        self._lost = True
        self._perhaps_over()

    def ended(self, how: bytes) -> None:
        """The node says how it ended; its last bytes may not be read yet."""
        self._how = how
        self._perhaps_over()

    def _perhaps_over(self) -> None:
        if self._lost and self._how is not None:
            self._guest.errand_over(self._how)

"""A worker's own side: what it is told, whom it serves, and when it ends.

Decides when it is done: told to leave, with nobody left to serve or its time up; or the node is gone,
and then at once.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Sequence
from typing import Any

from twisted.logger import Logger

from swarm.interfaces import RunBlocking
from swarm.workers import messages
from swarm.workers.granted import GrantedBlobs
from swarm.workers.guests import GuestSite
from swarm.workers.messages import Orders
from swarm.workers.packets import Packets
from swarm.workers.tally import Tally


class Station:
    """
    One worker.

    :param end: ends the process.
    """

    log = Logger()

    def __init__(
        self,
        reactor: Any,
        control: socket.socket,
        tally: Tally,
        *,
        run_blocking: RunBlocking,
        end: Callable[[], None],
    ) -> None:
        self._reactor = reactor
        self._tally = tally
        self._run_blocking = run_blocking
        self._end = end
        self._site: GuestSite | None = None
        self._leaving = False
        self.blobs = GrantedBlobs(
            0,
            ask=lambda digest: self._packets.send(messages.about(messages.WANTED, digest)),
            suspect=lambda digest: self._packets.send(messages.about(messages.SUSPECT, digest)),
            clock=reactor,
            run_blocking=run_blocking,
        )
        self._packets = Packets(control, reactor, self._received, end)

    # -- what the node tells -------------------------------------------------------------

    def _received(self, message: bytes, descriptors: Sequence[int]) -> None:
        kind = messages.kind(message)
        if kind == messages.TAKE:
            serial = messages.number(message)[0]
            if descriptors:
                self._take(serial, socket.socket(fileno=descriptors[0]))
            else:
                self.gone(serial)
        elif kind == messages.GRANTED:
            digest, rest = messages.subject(message)
            if len(descriptors) == 2:
                self.blobs.granted(digest, messages.decode_entry(rest), descriptors)
            else:
                for each in descriptors:
                    os.close(each)
                self.blobs.refused(digest)
        elif kind == messages.REFUSED:
            self.blobs.refused(messages.subject(message)[0])
        elif kind == messages.ORDERS:
            self._order(messages.decode_orders(message[1:]))
        elif kind == messages.LEAVE:
            self.leave(ordered=True)

    def _order(self, orders: Orders) -> None:
        self.blobs.resize(orders.blobs)
        if self._site is None:
            self._site = GuestSite(self, orders, self._tally, self._reactor)
            self._packets.send(messages.READY)
        self._site.orders = orders  # limits and tokens don't change while a node runs

    def _take(self, serial: int, connection: socket.socket) -> None:
        assert self._site is not None, "orders come first"
        with connection:
            if self._leaving:
                self.give_back(serial, os.dup(connection.fileno()), b"")
                return
            self._packets.send(messages.numbered(messages.TAKEN, serial))
            try:
                transport = self._reactor.adoptStreamConnection(
                    connection.fileno(), connection.family, self._site.welcoming(serial)
                )
            except OSError:  # the client is gone: it has no address any more
                transport = None
        if transport is None:
            self.gone(serial)

    # -- what it tells the node ------------------------------------------------------------

    def gone(self, serial: int | None) -> None:
        """A client is gone; None: back to the node, which knows."""
        if serial is not None:
            self._packets.send(messages.numbered(messages.CLOSED, serial))
        self._perhaps_done()

    def give_back(self, serial: int, descriptor: int, received: bytes) -> None:
        """Have the node serve a client from these bytes on."""
        message = messages.numbered(messages.BACK, serial, received)
        self._packets.send(message, [descriptor], sent=lambda: os.close(descriptor))

    # -- ending ----------------------------------------------------------------------------

    def leave(self, *, ordered: bool) -> None:
        """
        Take nothing more, finish what is under way, and end.

        :param ordered: the whole node stops. Otherwise whoever is not being answered goes back to it.
        """
        if self._leaving:
            return
        self._leaving = True
        self._packets.send(messages.LEAVING)
        if self._site is not None:
            self._reactor.callLater(self._site.orders.drain, self._end)
            self._site.leave(give_back=not ordered)
        self._perhaps_done()

    def _perhaps_done(self) -> None:
        """The node reads what was sent, also when we are gone; what waits here would be lost."""
        if self._leaving and (self._site is None or not self._site.connections):
            self._packets.when_empty(self._end)

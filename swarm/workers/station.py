"""A worker's own side: what it is told, whom it serves, and when it ends.

Decides when it is done: told to leave, with nobody left to serve or its time up; or the node is gone,
and then at once. Also when it cannot use the identity it is lent: it must not judge peers by an old one.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.protocol import Factory
from twisted.logger import Logger

from swarm.interfaces import RunBlocking
from swarm.peering.credentials import Credentials, TLSSettings
from swarm.peering.identity import Identity
from swarm.peering.packing import take_from_memory
from swarm.peering.tls import secured
from swarm.services.tasks import Tasks
from swarm.workers import messages
from swarm.workers.errands import Errand
from swarm.workers.granted import GrantedBlobs
from swarm.workers.guests import GuestSite
from swarm.workers.messages import PEERS, PUBLIC, ErrandSaid, Orders
from swarm.workers.packets import Packets
from swarm.workers.peers import PeerGuestSite
from swarm.workers.seats import SeatSite
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
        self._tasks = Tasks()
        self._sites: dict[bytes, SeatSite] = {}
        self._lent: Identity | None = None
        self._credentials: Credentials | None = None
        self._errands: dict[int, Errand] = {}
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
            serial, door = messages.number(message)
            if descriptors:
                self._take(serial, door, socket.socket(fileno=descriptors[0]))
            else:
                self.gone(serial)
        elif kind == messages.ENDED:
            serial, how = messages.number(message)
            if (errand := self._errands.pop(serial, None)) is not None:
                errand.ended(how)
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
        elif kind == messages.IDENTITY:
            self._trust(descriptors)
        elif kind == messages.ORDERS:
            self._order(messages.decode_orders(message[1:]))
        elif kind == messages.LEAVE:
            self.leave(ordered=True)

    def _order(self, orders: Orders) -> None:
        self.blobs.resize(orders.blobs)
        if not self._sites:
            self._sites[PUBLIC] = GuestSite(self, orders, self._tally, self._reactor)
            if self._lent is not None:
                self._sites[PEERS] = PeerGuestSite(self, orders, self._tally, self._reactor)
                self._credentials = Credentials(
                    self._lent,
                    clock=self._reactor,
                    settings=TLSSettings(**orders.tls),
                    refused=self._tally.refused,
                )
                self._tasks.start("watching peers", self._credentials.watch(run_blocking=self._run_blocking))
            self._packets.send(messages.READY)
        for site in self._sites.values():
            site.orders = orders  # limits and tokens don't change while a node runs

    def _trust(self, descriptors: Sequence[int]) -> None:
        try:
            self._lent = take_from_memory(descriptors[0])
            problem = None if self._credentials is None else self._credentials.adopt(self._lent)
        except (IndexError, OSError, ValueError) as e:  # too many files are open here, say
            problem = str(e)
        if problem is not None:
            self.log.error("cannot use the node's identity: {problem}", problem=problem)
            self.leave(ordered=False)

    def _take(self, serial: int, door: bytes, connection: socket.socket) -> None:
        assert self._sites, "orders come first"
        with connection:
            if self._leaving:
                self.give_back(serial, os.dup(connection.fileno()), b"")
                return
            self._packets.send(messages.numbered(messages.TAKEN, serial))
            factory: Any = self._sites[door].welcoming(serial)
            if door == PEERS:
                assert self._credentials is not None, "an identity comes first"
                factory = secured(factory, self._credentials, clock=self._reactor)
            try:
                transport = self._reactor.adoptStreamConnection(
                    connection.fileno(), connection.family, factory
                )
            except OSError:  # the client is gone: it has no address any more
                transport = None
        if transport is None:
            self.gone(serial)

    # -- what it tells the node ------------------------------------------------------------

    def gone(self, serial: int | None) -> None:
        """A client is gone; None: back to the node, which knows."""
        if serial is not None:
            self._errands.pop(serial, None)
            self._packets.send(messages.numbered(messages.CLOSED, serial))
        self._perhaps_done()

    def send_out(self, serial: int, said: ErrandSaid, errand: Errand) -> None:
        """Have the node answer a client's request by a stream, which is there when this returns."""
        self._errands[serial] = errand
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.setblocking(False)
        message = messages.numbered(messages.ERRAND, serial, said.encode())
        self._packets.send(message, [theirs.fileno()], sent=theirs.close)
        with ours:
            factory = Factory.forProtocol(lambda: errand)
            self._reactor.adoptStreamConnection(ours.fileno(), ours.family, factory)

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
        for site in self._sites.values():
            self._reactor.callLater(site.orders.drain, self._end)
            site.leave(give_back=not ordered)
        self._perhaps_done()

    def _perhaps_done(self) -> None:
        """The node reads what was sent, also when we are gone; what waits here would be lost."""
        if self._leaving and not any(site.connections for site in self._sites.values()):
            self._packets.when_empty(self._end)

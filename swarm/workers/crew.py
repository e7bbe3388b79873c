"""All workers of a node, and who gets which connection.

The node alone accepts, and gives each connection to whoever has the fewest, itself included. The other
ways were a listening socket in every worker: one queue for all (whoever wakes first takes a whole burst,
and keeps it while another idles) or one queue each (``SO_REUSEPORT``: chance decides, and a dead worker's
queue is lost with it). With both, a limit of connections would hold for each process and not for the
node. Giving one away costs the node two fifths of the CPU of serving one request on it, so clients that
open a connection for every request gain least; those that keep theirs cost it nothing more.

What a worker cannot answer comes back. From the public API with its connection and the bytes read so far,
and is served as if it had never been away: the client's address, its deadlines and ``Expect`` stay what they
are, and nothing is copied. From a peer the request alone: its connection's TLS cannot move (``peers``).

A worker serves blobs only, and only those the node granted: it has a blob's file and directory from the
node, open, and looks before each answer whether the kernel dates them as the node saw them (markers,
names, deletion: :mod:`swarm.storage.open_files`), and at the switch and the tokens. So an operator's
``touch`` and every DELETE count for all of them at once, without a message that could be late.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import suppress
from random import Random
from typing import Any, Protocol

from attrs import frozen
from twisted.internet.defer import CancelledError, TimeoutError
from twisted.internet.interfaces import IAddress, IDelayedCall
from twisted.logger import Logger

from swarm.errors import SwarmError
from swarm.model.digest import Digest
from swarm.peering.credentials import Credentials
from swarm.peering.identity import Identity
from swarm.services.tasks import Signal, Tasks, sleep, within
from swarm.workers.messages import PEERS, Entry, Orders
from swarm.workers.settings import WorkerSettings
from swarm.workers.tally import Tally
from swarm.workers.visits import Visit
from swarm.workers.worker import State, Worker


class Door(Protocol):
    """Where the clients come in."""

    @property
    def connections(self) -> int:
        """Open connections the node itself serves."""

    def left(self, client: IAddress | None) -> None:
        """A client that was counted with a worker is so no more."""

    def taken_again(self, client: IAddress | None) -> None:
        """It is counted with a worker again."""

    def serve(self, connection: socket.socket, received: bytes) -> None:
        """Go on with a connection, from these bytes on; closes the socket given."""

    def visit(self, visit: Visit) -> None:
        """Answer what a worker cannot."""


@frozen
class Granted:
    """A blob a worker may serve: its file, its directory, and how they are closed."""

    entry: Entry
    files: tuple[int, int]
    close: Callable[[], None]


class Crew:
    """
    I start workers, start them again, and end them.

    :param count: how many, the node itself not among them.
    :param orders: how they are to work now; asked every second.
    :param grant: opens a blob for them; None: the node has to serve it.
    :param verify: hashes a blob whose file one of them could not read.
    :param credentials: what they show peers, where those are served.
    """

    log = Logger()

    def __init__(
        self,
        count: int,
        settings: WorkerSettings,
        *,
        orders: Callable[[], Orders],
        grant: Callable[[Digest], Awaitable[Granted | None]],
        verify: Callable[[Digest], Coroutine[Any, Any, object]],
        credentials: Credentials | None = None,
        reactor: Any,
        random: Random,
        tasks: Tasks,
    ) -> None:
        self._settings = settings
        self._orders = orders
        self._grant = grant
        self._verify = verify
        self._reactor = reactor
        self._random = random
        self._tasks = tasks
        self._count = count
        self._credentials = credentials
        self._doors: dict[bytes, Door] = {}
        self._told: Orders | None = None
        self._stopping = False
        self._workers: dict[int, Worker] = {}
        self._due: dict[int, IDelayedCall] = {}
        self._failures: dict[int, int] = {}
        self._pages = -1
        self._tallies: list[Tally] = []
        self._changed = Signal()
        self.restarts = 0

    @property
    def wanted(self) -> int:
        """How many there should be."""
        return self._count

    @property
    def serving(self) -> int:
        """How many serve."""
        return sum(worker.state is State.SERVING for worker in self._workers.values())

    @property
    def refusals(self) -> int:
        """Connections of peers that TLS ended in workers."""
        return sum(tally.refusals for tally in self._tallies)

    def take_counts(self, door: bytes) -> Iterator[tuple[str, int, int, int]]:
        """Method, status, responses and bytes of bodies, of all workers there since this was last called."""
        for tally in self._tallies:
            yield from tally.sheets[door].news()

    # -- lifetime ---------------------------------------------------------------------

    def open(self, number: bytes, door: Door) -> None:
        """Clients come in here, too; before :meth:`start`."""
        self._doors[number] = door

    def start(self) -> Tally | None:
        """
        Start them all, if there is a door for them; whoever is first serves first.

        :return: where the node itself counts what all processes are to know.
        """
        if not self._doors:
            return None
        self._told = self._orders()
        self._pages = Tally.create(1 + self._count)
        self._tallies = [Tally(self._pages, slot) for slot in range(1 + self._count)]
        for slot in range(1, 1 + self._count):
            self._begin(slot)
        self._tasks.start("orders for the workers", self._keep_informed())
        if self._identity is not None:
            self._tasks.start("an identity for the workers", self._keep_trusted())
        return self._tallies[0]

    async def stop(self) -> None:
        """Let them finish what is under way, for as long as they may; then there are none."""
        self._stopping = True
        for call in self._due.values():
            call.cancel()
        self._due.clear()
        for worker in self._workers.values():
            worker.leave()
        late = self._reactor.callLater(self._settings.drain + 1.0, self._kill)
        with suppress(TimeoutError):  # a process that the kernel does not let go of
            await within(self._reactor, 2 * self._settings.drain + 5.0, self._all_ended())
        if late.active():
            late.cancel()
        if self._pages >= 0:
            os.close(self._pages)
            self._pages = -1

    async def _all_ended(self) -> None:
        while self._workers:
            await self._changed.wait()

    def _kill(self) -> None:
        for worker in self._workers.values():
            self.log.warn("{worker} does not end by itself", worker=worker)
            worker.kill()

    def _begin(self, slot: int) -> None:
        self._due.pop(slot, None)
        try:
            self._workers[slot] = Worker(
                slot, self, self._orders(), self._identity, self._settings, self._reactor, self._pages
            )
        except OSError as e:
            self.log.error("worker {slot} cannot be started: {error}", slot=slot, error=e)
            self._again(slot)

    def _again(self, slot: int) -> None:
        if self._stopping:
            return
        self._failures[slot] = self._failures.get(slot, 0) + 1
        self.restarts += 1
        delay = self._settings.restart.delay(self._failures[slot], random=self._random)
        self._due[slot] = self._reactor.callLater(delay, self._begin, slot)

    async def _keep_informed(self) -> None:
        while True:
            self._inform()
            await sleep(self._reactor, 1.0)

    def _inform(self) -> None:
        """Tell all workers what changed since they were told."""
        now = self._orders()
        if now != self._told:
            self._told = now
            for worker in self._workers.values():
                worker.order(now)

    @property
    def _identity(self) -> Identity | None:
        served = PEERS in self._doors and self._credentials is not None
        return self._credentials.identity if self._credentials is not None and served else None

    async def _keep_trusted(self) -> None:
        """Lend them each identity at once: who is revoked is cut off by all processes."""
        assert self._credentials is not None
        while True:
            await self._credentials.changed.wait()
            for worker in self._workers.values():
                worker.lend(self._credentials.identity)

    # -- connections --------------------------------------------------------------------

    def choose(self, door: bytes) -> Worker | None:
        """Who gets the next connection there; None: the node itself."""
        idlest = min(
            (worker for worker in self._workers.values() if worker.available),
            key=lambda worker: worker.connections(door),
            default=None,
        )
        if idlest is None or idlest.connections(door) > self._doors[door].connections:
            return None
        return idlest

    # -- what workers tell ------------------------------------------------------------------

    def serves(self, worker: Worker) -> None:
        """See :class:`~swarm.workers.worker.Employer`."""
        self.log.info("{worker} serves", worker=worker)
        self._changed.fire()

    def wants(self, worker: Worker, digest: Digest) -> None:
        """See :class:`~swarm.workers.worker.Employer`."""
        self._tasks.start("granting a blob", self._answer(worker, digest))

    async def _answer(self, worker: Worker, digest: Digest) -> None:
        try:
            granted = await self._grant(digest)
        except SwarmError:
            granted = None  # the node will say so itself, and why
        except CancelledError:
            raise
        except Exception:
            self.log.failure("granting a blob")
            granted = None
        if granted is None:
            worker.refuse(digest)
        else:
            self._inform()  # so that the first answer with a blob names the mirrors of now
            worker.grant(digest, granted.entry, granted.files, granted.close)

    def suspects(self, digest: Digest) -> None:
        """See :class:`~swarm.workers.worker.Employer`."""
        self._tasks.start("verifying what a worker could not read", self._verify(digest))

    def freed(self, door: bytes, client: IAddress | None) -> None:
        """See :class:`~swarm.workers.worker.Employer`."""
        self._doors[door].left(client)

    def returned(self, door: bytes, connection: socket.socket, received: bytes) -> None:
        """See :class:`~swarm.workers.worker.Employer`."""
        self._doors[door].serve(connection, received)

    def visited(self, door: bytes, visit: Visit) -> None:
        """See :class:`~swarm.workers.worker.Employer`."""
        self._doors[door].visit(visit)

    def taken_again(self, door: bytes, client: IAddress | None) -> None:
        """See :class:`~swarm.workers.worker.Employer`."""
        self._doors[door].taken_again(client)

    def ended(self, worker: Worker) -> None:
        """See :class:`~swarm.workers.worker.Employer`."""
        del self._workers[worker.slot]
        self._tallies[worker.slot].died()
        self._changed.fire()
        if worker.served >= self._settings.settled:
            self._failures.pop(worker.slot, None)
        self._again(worker.slot)

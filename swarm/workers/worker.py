"""One worker as the node sees it: a process, what it was given, and whether it answers.

Decides when a worker is taken for dead: its process ended, its end of the messages closed, it did not
start in time, or it left a connection unconfirmed for too long. A connection stays the node's, too,
until it is confirmed, so a worker that dies takes none along that it had not begun to serve.
"""

from __future__ import annotations

import enum
import os
import socket
import sys
import sysconfig
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from attrs import define
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.interfaces import IAddress, IDelayedCall
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure

import swarm
from swarm.model.digest import Digest
from swarm.peering.identity import Identity
from swarm.peering.packing import put_in_memory
from swarm.workers import messages
from swarm.workers.messages import Entry, ErrandSaid, Orders
from swarm.workers.packets import Packets, pair
from swarm.workers.settings import WorkerSettings
from swarm.workers.visits import Visit

#: Where a worker finds its end of the messages, and its counts.
CONTROL, TALLY = 3, 4


class State(enum.Enum):
    """Of a worker."""

    STARTING = "starting"
    SERVING = "serving"
    LEAVING = "leaving"
    GONE = "gone"


class Employer(Protocol):
    """Who is told what becomes of a worker."""

    def serves(self, worker: Worker) -> None:
        """It may be given connections."""

    def wants(self, worker: Worker, digest: Digest) -> None:
        """It asks for a blob; :meth:`Worker.grant` or :meth:`Worker.refuse` answers."""

    def suspects(self, digest: Digest) -> None:
        """It could not read a blob's file."""

    def freed(self, door: bytes, client: IAddress | None) -> None:
        """A client's connection is no longer with a worker."""

    def returned(self, door: bytes, connection: socket.socket, received: bytes) -> None:
        """A connection is the node's again, with what came in and was not answered."""

    def visited(self, door: bytes, visit: Visit) -> None:
        """A client wants what only the node has. It counts as the node's until the visit ends."""

    def taken_again(self, door: bytes, client: IAddress | None) -> None:
        """Its connection is with a worker again."""

    def ended(self, worker: Worker) -> None:
        """Its process is no more."""


@define
class _Dealt:
    door: bytes
    client: IAddress | None
    unconfirmed: socket.socket | None
    visiting: bool = False


class Worker(ProcessProtocol):
    """
    I start at once.

    :param slot: which of the workers this is, from 1; its successor has the same.
    :param identity: what it shows peers; None: it never meets any.
    :param tally: descriptor of all counts.
    :raises OSError: there can be no further process.
    """

    log = Logger()
    transport: Any

    def __init__(
        self,
        slot: int,
        employer: Employer,
        orders: Orders,
        identity: Identity | None,
        settings: WorkerSettings,
        reactor: Any,
        tally: int,
    ) -> None:
        self.slot = slot
        self.state = State.STARTING
        self._served_from: float | None = None
        self._employer = employer
        self._settings = settings
        self._reactor = reactor
        self._dealt: dict[int, _Dealt] = {}
        self._counts = dict.fromkeys(messages.DOORS, 0)
        self._unconfirmed: dict[int, float] = {}
        self._serial = 0
        self._exited = self._cut_off = False
        ours, theirs = pair()
        try:
            with theirs, open(os.devnull, "rb") as nothing:
                reactor.spawnProcess(
                    self,
                    sys.executable,
                    [sys.executable, "-P", "-m", "swarm.workers", str(slot)],
                    env=_environment(),
                    childFDs={0: nothing.fileno(), 1: "r", 2: "r", CONTROL: theirs.fileno(), TALLY: tally},
                )
        except BaseException:
            ours.close()
            raise
        self.pid: int = self.transport.pid
        self._packets = Packets(ours, reactor, self._received, self._lost)
        self._timer: IDelayedCall | None = reactor.callLater(settings.start, self._check)
        if identity is not None:
            self.lend(identity)
        self.order(orders)

    def __str__(self) -> str:
        return f"worker {self.slot} (pid {self.pid})"

    def connections(self, door: bytes) -> int:
        """How many it has that came in there."""
        return self._counts[door]

    @property
    def served(self) -> float:
        """For how long, seconds; 0.0 if it never did."""
        return 0.0 if self._served_from is None else self._reactor.seconds() - self._served_from

    @property
    def available(self) -> bool:
        """May it be given more?"""
        return self.state is State.SERVING and not self._packets.crowded

    # -- what it is told ----------------------------------------------------------------

    def order(self, orders: Orders) -> None:
        """Work like this from now on."""
        self._packets.send(messages.ORDERS + messages.encode(orders))

    def lend(self, identity: Identity) -> None:
        """Show peers this from now on, and judge all of them by it."""
        descriptor = put_in_memory(identity)
        self._packets.send(messages.IDENTITY, [descriptor], sent=lambda: os.close(descriptor))

    def deal(self, door: bytes, connection: socket.socket, client: IAddress | None) -> None:
        """Serve this client."""
        self._serial += 1
        self._dealt[self._serial] = _Dealt(door, client, connection)
        self._counts[door] += 1
        self._unconfirmed[self._serial] = self._reactor.seconds()
        self._packets.send(messages.numbered(messages.TAKE, self._serial, door), [connection.fileno()])
        if self._timer is None:
            self._timer = self._reactor.callLater(self._settings.silence, self._check)

    def grant(self, digest: Digest, entry: Entry, files: Sequence[int], sent: Callable[[], None]) -> None:
        """
        Answer with this while it holds.

        :param files: descriptors of the blob's file and its directory.
        :param sent: called when the worker has them.
        """
        self._packets.send(messages.about(messages.GRANTED, digest, messages.encode(entry)), files, sent)

    def refuse(self, digest: Digest) -> None:
        """Bring back who asks for this."""
        self._packets.send(messages.about(messages.REFUSED, digest))

    def leave(self) -> None:
        """Finish what is under way, and end."""
        if self.state is not State.GONE:
            self.state = State.LEAVING
            self._packets.send(messages.LEAVE)

    def kill(self) -> None:
        """End it now."""
        with suppress(ProcessExitedAlready):
            self.transport.signalProcess("KILL")

    # -- what it tells -------------------------------------------------------------------

    def _received(self, message: bytes, descriptors: Sequence[int]) -> None:
        kind = messages.kind(message)
        if kind == messages.WANTED:
            self._employer.wants(self, messages.subject(message)[0])
        elif kind == messages.SUSPECT:
            self._employer.suspects(messages.subject(message)[0])
        elif kind == messages.READY:
            self._stop_timer()
            if self.state is State.STARTING:
                self.state = State.SERVING
                self._served_from = self._reactor.seconds()
                self._employer.serves(self)
        elif kind == messages.LEAVING:
            self.state = State.LEAVING
        elif kind == messages.ERRAND:
            serial, said = messages.number(message)
            self._visit(serial, ErrandSaid.decode(said), descriptors)
        else:
            serial, received = messages.number(message)
            dealt = self._settle(kind, serial)
            if kind == messages.BACK and descriptors:
                self._employer.returned(dealt.door, socket.socket(fileno=descriptors[0]), received)

    def _settle(self, kind: bytes, serial: int) -> _Dealt:
        """Whose is a connection now?"""
        self._unconfirmed.pop(serial, None)
        dealt = self._dealt[serial]
        if dealt.unconfirmed is not None:
            dealt.unconfirmed.close()
            dealt.unconfirmed = None
        if kind != messages.TAKEN:
            del self._dealt[serial]
            self._counts[dealt.door] -= 1
            self._free(dealt)
        return dealt

    def _free(self, dealt: _Dealt) -> None:
        if not dealt.visiting:
            self._employer.freed(dealt.door, dealt.client)

    def _visit(self, serial: int, said: ErrandSaid, descriptors: Sequence[int]) -> None:
        dealt = self._dealt[serial]
        self._free(dealt)
        dealt.visiting = True
        ended = partial(self._visit_ended, serial)
        if not descriptors:  # too many are open here
            ended(messages.BREAKS)
            return
        stream = socket.socket(fileno=descriptors[0])
        visit = Visit(stream, dealt.client, said.peer, said.head, said.alone, ended)
        self._employer.visited(dealt.door, visit)

    def _visit_ended(self, serial: int, how: bytes) -> None:
        dealt = self._dealt.get(serial)
        if dealt is None:  # the client went, or the worker died
            return
        dealt.visiting = False
        self._employer.taken_again(dealt.door, dealt.client)
        self._packets.send(messages.numbered(messages.ENDED, serial, how))

    # -- whether it lives ------------------------------------------------------------------

    def _check(self) -> None:
        self._timer = None
        if self.state is State.STARTING:
            self.log.error("{worker} did not start in time", worker=self)
            self.kill()
        elif self._unconfirmed:
            left = min(self._unconfirmed.values()) + self._settings.silence - self._reactor.seconds()
            if left <= 0:
                self.log.error("{worker} is silent", worker=self)
                self.kill()
            else:
                self._timer = self._reactor.callLater(left, self._check)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def outReceived(self, data: bytes) -> None:
        """It wrote to the log."""
        for line in data.decode(errors="replace").splitlines():
            self.log.info("{worker}: {line}", worker=self, line=line.removeprefix("- "))  # no time: ours is

    errReceived = outReceived

    def processEnded(self, reason: Failure) -> None:
        """The process is no more."""
        self.log.info("{worker} ended: {reason}", worker=self, reason=reason.getErrorMessage())
        self._exited = True
        self._perhaps_gone()

    def _lost(self) -> None:
        """Its last message was read."""
        self._cut_off = True
        self.kill()
        self._perhaps_gone()

    def _perhaps_gone(self) -> None:
        if not (self._exited and self._cut_off):
            return
        self.state = State.GONE
        self._stop_timer()
        dealt, self._dealt = self._dealt, {}
        self._counts = dict.fromkeys(messages.DOORS, 0)
        for each in dealt.values():
            self._free(each)
            if each.unconfirmed is not None:
                self._employer.returned(each.door, each.unconfirmed, b"")
        self._employer.ended(self)


def _environment() -> dict[str, str]:
    """The environment in which the worker sees this very package, installed or not."""
    ours = str(Path(swarm.__file__).resolve().parent.parent)
    before = [each for each in os.environ.get("PYTHONPATH", "").split(os.pathsep) if each]
    if ours != sysconfig.get_path("purelib") and ours not in before:
        before.insert(0, ours)
    return {**os.environ, "PYTHONPATH": os.pathsep.join(before)}

"""What must hold in every run, and the rare paths it should have taken.

The checker is independent of the code: it knows which bytes were put, what was answered, and what it did
to whose disk, and looks at answers and at files. Numbers refer to the promises of the contract.
"""

from __future__ import annotations

import hashlib
import os.path
import sys
from collections import Counter
from collections.abc import Collection, Iterator
from glob import glob
from typing import Any

from attrs import define, field
from twisted.logger import ILogObserver, LogLevel, formatEvent, globalLogPublisher
from twisted.python.failure import Failure
from zope.interface import implementer

from swarm.core.dispatch import DispatchSettings
from swarm.errors import StorageFull, StoreFailed
from swarm.model.digest import Digest
from swarm.model.grains import Grains
from swarm.testing.simulation.client import NoAnswer
from swarm.testing.simulation.disk import PowerLoss
from swarm.testing.simulation.liar import Impostor
from swarm.testing.simulation.reactor import SimReactor
from swarm.testing.simulation.resuming import Resumptions
from swarm.testing.simulation.swarm import SimNode, Swarm

#: Seconds after which a mended swarm has everything it promised.
SETTLED = 900.0

#: Lines of the log that show that a rare path was taken.
_SIGNS = {
    "{digest}: copies reached late": "hint delivered",
    "our copy of {digest} was damaged; pulling it again": "healed by an advisory",
    "resuming {digest}, {size} bytes": "pull resumed",
    "{digest}: copies take longer, answering now": "copies took too long",
    "{digest}: nobody has midstates, so it is proven as a whole": "proven as a whole",
    "tombstone of {digest} waits: {error}": "tombstone had to wait",
    "not dialling {host}: {reason}": "refused to dial",
}
#: What may be said at the highest level, if the disk of that node did fail calls.
_DISK_GAVE_OUT = frozenset(
    ["the volume is read-only from now on: {reason}", "the node cannot start: {reason}"]
)
_CONVICTION = "{name} ({peer}) gave wrong "


@define(eq=False)
class Blob:
    """
    As the checker knows it.

    :ivar holders: the nodes that vouched for it.
    :ivar forgone: nodes that were asked to delete their own copy.
    :ivar rotten: the node on whose disk a bit of it flipped.
    :ivar lies: a bit flipped there, or in the list of its midstates.
    """

    digest: Digest
    data: bytes = field(repr=False)
    holders: tuple[str, ...] = ()
    deleted: str = "no"
    forgone: set[str] = field(factory=set)
    rotten: set[str] = field(factory=set)
    lies: bool = False

    def __str__(self) -> str:
        return f"{self.digest.short} ({len(self.data)} bytes)"


@implementer(ILogObserver)
class Witness:
    """I see the log, and note what is wrong and what is rare."""

    def __init__(self, swarm: Swarm, liars: Collection[str]) -> None:
        """:param liars: names of whom lies may be proven."""
        self.problems: list[str] = []
        self.probes: Counter[str] = Counter()
        self._swarm = swarm
        self._liars = liars

    def __enter__(self) -> Witness:
        self._unraisable, sys.unraisablehook = sys.unraisablehook, self._unraised
        globalLogPublisher.addObserver(self)
        return self

    def __exit__(self, *error: object) -> None:
        globalLogPublisher.removeObserver(self)
        sys.unraisablehook = self._unraisable

    def problem(self, text: str) -> None:
        """A promise was broken."""
        self.problems.append(f"[{self._swarm.timeline.now:.3f} s] {text}")

    def hit(self, probe: str) -> None:
        """A path was taken."""
        self.probes[probe] += 1

    def _unraised(self, unraisable: Any) -> None:
        # A coroutine of a dead process, which objects to being thrown away in the middle of an await.
        if not isinstance(unraisable.exc_value, RuntimeError):
            self.problem(f"unraisable: {unraisable.exc_value!r}")

    def __call__(self, event: dict[str, Any]) -> None:
        """See :class:`~twisted.logger.ILogObserver`."""
        process = self._swarm.timeline.current
        if process is not None and process.dead:
            return
        template = str(event.get("log_format"))
        timeline = self._swarm.timeline
        if timeline.keep:
            who = process.name if process is not None else "nobody"
            timeline.history.append(f"  {timeline.now:.3f} {who}: {formatEvent(event)}")
        if probe := _SIGNS.get(template):
            self.hit(probe)
        if template.startswith(_CONVICTION):
            self.hit(f"conviction for {event['kind']}")
            if event["name"] not in self._liars:
                self.problem(f"an honest peer was convicted: {formatEvent(event)}")
        failure = event.get("log_failure")
        if isinstance(failure, Failure):
            if failure.check(StoreFailed, StorageFull) and self._disk_gave_out(process):
                self.hit("a disk gave out")
            elif not failure.check(PowerLoss):
                where = process.name if process is not None else "nobody"
                self.problem(f"{where}: {formatEvent(event)}\n{failure.getTraceback()}")
        elif event.get("log_level") is LogLevel.critical:
            if template in _DISK_GAVE_OUT and self._disk_gave_out(process):
                self.hit("a disk gave out")
            else:
                self.problem(f"critical: {formatEvent(event)}")

    def _disk_gave_out(self, process: SimReactor | None) -> bool:
        return process is not None and any(
            name.startswith(("EIO", "ENOSPC")) for name in self._swarm.nodes[process.name].disk.met
        )


@define(eq=False)
class Checks:
    """The promises, once everything is mended."""

    swarm: Swarm
    witness: Witness
    blobs: dict[int, Blob]
    impostor: Impostor | None = None
    resumptions: Resumptions | None = None
    asking: int = 0
    """Requests of clients under way."""

    def everything(self) -> None:
        """Check all of it; what is broken goes to the witness."""
        timeline = self.swarm.timeline
        end = timeline.now + SETTLED
        while next(self._unsettled(), None) is not None and timeline.now < end:
            timeline.until(most=0.5)
        if unsettled := list(self._unsettled()):
            self.witness.problem(f"not settled after {SETTLED} s: {unsettled}")
        for blob in self.blobs.values():
            self.swarm.play(self._check_blob(blob), most=3600.0)
        for each in self.swarm.nodes.values():
            self._check_files(each)
        self._check_counters()
        self._stop_all()

    def meanwhile(self) -> None:
        """What holds at any moment, also of a node that is down: who vouched for a blob has it (P1, P2)."""
        for blob in self.blobs.values():
            for name in blob.holders:
                if name not in self.swarm.nodes or name in {*blob.forgone, *blob.rotten}:
                    continue
                path = self._file(self.swarm.nodes[name], blob)
                if path is not None and _content(path) != blob.data:
                    self.witness.problem(f"{name} had vouched for {blob} and holds other bytes")
                elif path is None and blob.deleted == "no":
                    self.witness.problem(f"{name} had vouched for {blob} and has it no more")

    def vouched(self, blob: Blob) -> None:
        """
        An answer names holders: each has the bytes, durably (P1, P7).

        A liar counts only as long as it shows the right bytes when it is asked for some.
        """
        for name in blob.holders:
            each = self.swarm.nodes.get(name)
            if each is None:
                if name != "liar" or (self.impostor is not None and self.impostor.is_hollow(blob.digest.hex)):
                    self.witness.problem(f"{name} is named as a holder of {blob} and never had a byte of it")
                self.witness.hit("a liar that has it is a holder")
                continue
            path, excused = each.layout.file(blob.digest, "data"), {*blob.forgone, *blob.rotten}
            if blob.deleted == "no" and name not in excused and not each.disk.is_durable(path, blob.data):
                self.witness.problem(f"{name} is named as a holder of {blob} and could still lose it")
        if self.impostor is not None and self.impostor.is_hollow(blob.digest.hex):
            self.witness.hit("PUT of what a liar says it has")

    # -- coming to rest ---------------------------------------------------------------------

    def _unsettled(self) -> Iterator[str]:
        """What is still to be done: P13, and every pull ends. What costs least to find out comes first."""
        if self.asking:
            yield f"{self.asking} requests"
        for each in self.swarm.nodes.values():
            if each.node is None or each.process is None:
                yield f"{each.name} is down: {each.fatal}"
            elif each.node.fetcher.pulls():
                yield f"{each.name} pulls {each.node.fetcher.pulls()}"
            elif each.node.replicator.hints_pending:
                yield f"{each.name} has hints"
            elif missing := self._missing(each):
                yield f"{each.name} misses {missing}"
        for blob in self.blobs.values():
            if self._lingers(blob):
                yield f"{blob} is not gone"
            if self._lacks(blob):
                yield f"{blob} has copies at {self._copies(blob)} only"

    def _missing(self, each: SimNode) -> list[str]:
        assert each.node is not None
        live = {peer.id for peer in each.node.membership.live()}
        return [
            other.name
            for other in self.swarm.nodes.values()
            if other is not each and other.peer_id not in live
        ]

    def _lingers(self, blob: Blob) -> bool:
        return blob.deleted == "yes" and any(self._file(each, blob) for each in self.swarm.nodes.values())

    def _lacks(self, blob: Blob) -> bool:
        """Two copies were promised, sooner or later. One that only a liar says it has is as good."""
        return (
            blob.deleted == "no"
            and len(blob.holders) > 0
            and not blob.forgone
            and self.impostor is None
            and len(self._copies(blob)) < 2
        )

    def _copies(self, blob: Blob) -> list[str]:
        return [each.name for each in self.swarm.nodes.values() if self._file(each, blob)]

    def _file(self, each: SimNode, blob: Blob) -> str | None:
        path = each.layout.file(blob.digest, "data")
        return path if os.path.exists(path) else None

    # -- one blob ---------------------------------------------------------------------------

    async def _check_blob(self, blob: Blob) -> None:
        if not blob.holders:
            return  # never acknowledged: it may be there or not
        copies = self._copies(blob)
        if blob.deleted == "no":
            for name in blob.holders:  # P1
                if name in self.swarm.nodes and name not in {*copies, *blob.rotten, *blob.forgone}:
                    self.witness.problem(f"{name} had vouched for {blob} and has it no more")
        for name in self.swarm.nodes:
            await self._check_read(blob, name)

    async def _check_read(self, blob: Blob, name: str) -> None:
        told = []
        for _ in range(3):
            try:
                answer = await self.swarm.client(name).ask("GET", f"/{blob.digest.hex}", within=300.0)
            except NoAnswer as e:
                told.append(str(e))
                continue
            if answer.status == 200 and answer.whole:
                if blob.deleted == "yes":  # P10
                    self.witness.problem(f"{name} still has {blob}, which was deleted")
                elif answer.body != blob.data and name not in blob.rotten:
                    self.witness.problem(f"{name} gave wrong bytes of {blob}")
                return
            if answer.status == 404 and blob.deleted != "no":
                return
            told.append(f"{answer.status} {answer.body[-200:]!r}")
        self.witness.problem(f"{name} cannot get {blob}: {told}")

    # -- all of it --------------------------------------------------------------------------

    def _check_files(self, each: SimNode) -> None:
        """P2: what has a name is whole and right."""
        known = {blob.digest.hex: blob for blob in self.blobs.values()}
        for path in sorted(glob(f"{each.layout.blobs}/??/??/*/data")):
            right, data = os.path.basename(os.path.dirname(path)), _content(path)
            blob = known.get(right)
            if blob is None:
                good = hashlib.sha512(data).hexdigest() == right
            else:
                good = data == blob.data or each.name in blob.rotten
            if not good:
                self.witness.problem(f"{each.name} holds wrong bytes as {right[:12]}")

    def _check_counters(self) -> None:
        """P5: bytes that fail verification come from liars only."""
        counters = self.swarm.counters
        if self.resumptions is not None:
            self.resumptions.check(self.swarm.nodes)
            if self.resumptions.refetched:
                self.witness.hit("pull interrupted by a crash")
        lies = self.impostor is not None or any(blob.lies for blob in self.blobs.values())
        if self.impostor is not None and self.impostor.told:
            self.witness.hit("asked a liar")
            if self.swarm.tls:
                self.witness.hit("asked a liar over TLS")
        for each in self.swarm.nodes.values():
            self.witness.probes.update(each.disk.met)
        if counters["grains_rejected"] and not lies:
            self.witness.problem(f"{counters['grains_rejected']} grains failed though nobody lied")
        budget = sum(
            counters["pulls_started"] * DispatchSettings().budget(Grains.of(len(blob.data)))
            for blob in self.blobs.values()
        )
        if counters["bytes_duplicated"] > budget:
            self.witness.problem(f"{counters['bytes_duplicated']} bytes came twice")
        if counters["bytes_wasted"] > budget and not lies:  # past a cut some may come
            self.witness.problem(f"{counters['bytes_wasted']} bytes wasted though nobody lied")
        most = max((len(blob.data) for blob in self.blobs.values()), default=0)
        if counters["bytes_wasted"] > budget + 2 * most * counters["pulls_started"]:
            self.witness.problem(f"liars had {counters['bytes_wasted']} bytes wasted")
        for name, count in counters.items():
            if count:
                self.witness.probes[name] += 1

    def _stop_all(self) -> None:
        """Every node stops in time and leaves nothing behind."""
        swarm = self.swarm
        for each in swarm.nodes.values():
            if each.node is None or each.process is None:
                continue
            stopped = swarm.stop(each.name)
            if not swarm.timeline.until(lambda stopped=stopped: bool(stopped.called), most=300.0):  # type: ignore[misc]  # bound now
                self.witness.problem(f"{each.name} does not stop")
                continue
            swarm.timeline.until(most=1.0)  # what was aborted is told so in the next turn
            process = each.process
            left = [event.label for event in swarm.timeline.pending(process)]
            left += [
                f"a socket to {socket.getPeer()}"
                for socket in swarm.network.sockets
                if socket.process is process and socket.protocol is not None  # else it is the kernel's
            ]
            left += [f"{each.disk.descriptors} descriptors"] * bool(each.disk.descriptors)
            left += ["a port"] * swarm.network.listens(process) + [f"{process.jobs} threads"] * bool(
                process.jobs
            )
            if left:
                self.witness.problem(f"{each.name} left behind: {left}")


def _content(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()

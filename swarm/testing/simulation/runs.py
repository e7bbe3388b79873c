"""One run from a seed to a verdict: faults, then everything is mended, then every promise is checked.

Carries out a :class:`~.plan.Plan` on a :class:`~.swarm.Swarm`; what must hold is in :mod:`.invariants`.
"""

from __future__ import annotations

import gc
import hashlib
import os.path
import sys
import time
from collections import Counter
from functools import lru_cache
from random import Random
from typing import Any

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory
from twisted.logger import globalLogBeginner
from twisted.python.failure import Failure

from swarm.model.digest import Digest
from swarm.testing.liars import Blob
from swarm.testing.simulation.client import NoAnswer
from swarm.testing.simulation.datagrams import Weather
from swarm.testing.simulation.invariants import Blob as Record
from swarm.testing.simulation.invariants import Checks, Witness
from swarm.testing.simulation.leaks import only_what_is_injected
from swarm.testing.simulation.network import Link
from swarm.testing.simulation.plan import Delete, Fault, Get, Plan, Put, draw_plan
from swarm.testing.simulation.resuming import Resumptions
from swarm.testing.simulation.sockets import Socket
from swarm.testing.simulation.swarm import PEERS, SimNode, Swarm
from swarm.testing.simulation.trouble import TROUBLE, Trouble
from swarm.testing.simulation.wiretap import Wiretap


@frozen
class Outcome:
    """What a run came to. ``problems`` are broken promises, in words; ``cpu`` seconds of this machine."""

    seed: int
    trace: str
    events: int
    seconds: float
    problems: tuple[str, ...]
    probes: Counter[str]
    faults: Counter[str]
    cpu: float
    history: tuple[str, ...] = ()
    refetched: tuple[int, ...] = ()


def begin() -> None:
    """
    Once in a process that does nothing but runs.

    Until logging begins, Twisted keeps events, and dead nodes with them; garbage is for :func:`run` to find.
    """
    globalLogBeginner.beginLoggingTo([], redirectStandardIO=False)
    gc.disable()


def run(seed: int, *, tls: bool | None = None, history: bool = False) -> Outcome:
    """
    Do a run.

    :param tls: see :func:`~.plan.draw_plan`; ``history``: keep the description of every event.
    """
    return replay(draw_plan(seed, tls=tls), history=history)


def replay(plan: Plan, *, history: bool = False) -> Outcome:
    """Do a run as planned."""
    Factory.noisy = False
    usual = gc.isenabled()
    gc.disable()  # what is thrown away may speak up; in the middle of a run, that would be anybody's
    try:
        return _play(plan, history)
    finally:
        throw_away()
        if usual:
            gc.enable()


def swarm_of(plan: Plan, *, history: bool = False) -> Swarm:
    """The hosts of a plan, with no node running."""
    return Swarm(
        plan.seed,
        len(plan.nodes),
        tls=plan.tls,
        skew=plan.skew,
        bandwidth=plan.bandwidth,
        scale=plan.scale,
        history=history,
    )


def _play(plan: Plan, history: bool) -> Outcome:
    began = time.process_time()
    swarm = swarm_of(plan, history=history)
    liars = {name for name in (plan.liar, "liar" if plan.lies is not None else None) if name is not None}
    with plan.scale.applied(), only_what_is_injected() as leaks, swarm, Witness(swarm, liars) as witness:
        this = Run(plan, swarm, witness)
        this.play()
        timeline = swarm.timeline
        trace, events, seconds = timeline.trace, timeline.events, timeline.now
        if not swarm.torn:
            gc.collect()  # errors nobody handled are told when they are thrown away
    return Outcome(
        plan.seed,
        trace,
        events,
        seconds,
        (*witness.problems, *dict.fromkeys(leaks)),
        witness.probes,
        this.faults,
        time.process_time() - began,
        tuple(timeline.history),
        tuple(this.checks.resumptions.refetched) if this.checks.resumptions is not None else (),
    )


def throw_away() -> None:
    """Collect garbage. Processes that died leave coroutines in the middle of an await; they object to it."""
    before, sys.unraisablehook = sys.unraisablehook, lambda unraisable: None
    try:
        while gc.collect():
            pass
        gc.freeze()  # what is left now (modules, caches) is there for good: no need to look at it again
    finally:
        sys.unraisablehook = before


class Run:
    """What a plan says, carried out; :mod:`.live` does it step by step."""

    def __init__(self, plan: Plan, swarm: Swarm, witness: Witness) -> None:
        self.plan = plan
        self.swarm = swarm
        self.witness = witness
        self.blobs: dict[int, Record] = {}
        self._bytes: dict[str, bytes] = {}  # by id
        self.faults: Counter[str] = Counter()
        self.checks = Checks(self.swarm, self.witness, self.blobs)
        self.disturbed: set[str] = set()  # their clocks are not to be relied upon

    def play(self) -> None:
        """All of it."""
        swarm, plan = self.swarm, self.plan
        self.begin()
        asked: tuple[Put | Get | Delete, ...] = (*plan.puts, *plan.gets, *plan.deletes)
        for what in asked:
            self.ask(what)
        for fault in plan.faults:
            swarm.timeline.at(fault.at, None, self.hit, fault, label=f"fault: {fault.kind}")
        swarm.timeline.until(most=plan.ends + 1.0)
        self.end()

    def begin(self) -> None:
        """Every node starts, and the liar."""
        swarm, plan = self.swarm, self.plan
        if plan.lies is None and not plan.tls:
            self._watch_resumptions()
        if plan.lies is not None:
            self.checks.impostor = swarm.lie(
                Blob(bytes_of(plan, put), plan.lies[put.blob]) for put in plan.puts
            )
            self.faults["liar"] += 1
        for name in plan.nodes:
            swarm.start(name)

    def _watch_resumptions(self) -> None:
        """What is fetched again after a crash can be seen where nobody lies and nothing is encrypted."""
        watch = self.checks.resumptions = Resumptions(
            lambda: self.swarm.timeline.now,
            self._bytes.get,
            self._excused,
            self.witness.problem,
        )
        self.swarm.crashed = watch.crashed

        def tap(socket: Socket) -> Wiretap | None:
            node = socket.process.name in self.swarm.nodes and socket.getPeer().port == PEERS
            return watch.tap(socket.process.name) if node else None

        self.swarm.network.tap = tap

    def _excused(self, node: SimNode, digest: str) -> bool:
        """Blobs that were deleted or rotted, disks that failed, clocks that jumped: another promise."""
        failed = any(name.startswith(("EIO", "ENOSPC")) for name in node.disk.met)
        return (
            failed
            or node.name in self.disturbed
            or any(
                blob.deleted != "no" or blob.lies or node.name in blob.forgone
                for blob in self.blobs.values()
                if blob.digest.hex == digest
            )
        )

    def ask(self, what: Put | Get | Delete) -> None:
        """Somebody will ask, when it is time."""
        works: dict[type, Any] = {Put: self._put, Get: self._get, Delete: self._delete}
        self._later(what.at, works[type(what)], what)

    def end(self) -> None:
        """Mend everything, and check what was promised."""
        self.checks.meanwhile()
        self._mend_everything()
        self.checks.everything()

    def _later(self, at: float, work: object, what: object) -> None:
        def begin() -> None:
            self.checks.asking += 1
            Deferred.fromCoroutine(work(what)).addBoth(over)  # type: ignore[operator]  # one of ours below

        def over(result: object) -> None:
            self.checks.asking -= 1
            if isinstance(result, Failure):
                self.witness.problem(f"the run itself failed: {result.getTraceback()}")

        self.swarm.timeline.at(at, None, begin, label=f"{type(what).__name__}")

    # -- what people do -------------------------------------------------------------------

    async def _put(self, put: Put) -> None:
        data = bytes_of(self.plan, put)
        blob = self.blobs[put.blob] = Record(Digest(hashlib.sha512(data).digest()), data)
        self._bytes[blob.digest.hex] = data
        try:
            answer = await self.swarm.client(put.node).ask("PUT", f"/blob-{put.blob}", data)
        except NoAnswer:
            return
        self.witness.hit(f"PUT {answer.status}")
        if answer.status in (200, 201, 202) and answer.whole:
            blob.holders = tuple(answer.document["holders"])
            if answer.document["sha512"] != blob.digest.hex or put.node not in blob.holders:
                self.witness.problem(f"a wrong answer to a PUT: {answer.body!r}")
            self.checks.vouched(blob)

    async def _get(self, get: Get) -> None:
        blob = self.blobs.get(get.blob)
        if blob is None:
            return
        vouched = get.node in blob.holders and get.node not in blob.forgone
        span, expected = None, blob.data
        if get.part is not None and blob.data:
            start, stop = (int(each * (len(blob.data) - 1)) for each in get.part)
            span, expected = f"bytes={start}-{stop}", blob.data[start : stop + 1]
        try:
            answer = await self.swarm.client(get.node).ask(
                "GET", f"/{blob.digest.hex}", within=get.patience, span=span
            )
        except NoAnswer:
            self.witness.hit("GET given up")
            return
        self.witness.hit(f"GET {answer.status}")
        wrong = answer.status in (200, 206) and answer.whole and answer.body != expected
        if wrong and get.node not in blob.rotten:
            self.witness.problem(f"{get.node} gave wrong bytes of {blob}")
        if answer.status == 404 and vouched and blob.deleted == "no" and get.node not in blob.rotten:
            self.witness.problem(f"{get.node} had vouched for {blob} and said 404")

    async def _delete(self, delete: Delete) -> None:
        blob = self.blobs.get(delete.blob)
        if blob is None or not blob.holders:
            return  # its PUT may still be under way, and come after
        if not delete.everywhere:
            blob.forgone.add(delete.node)
        honest = {name for name in blob.holders if name in self.swarm.nodes}
        if delete.everywhere or honest <= blob.forgone:
            blob.deleted = "maybe"
        path = f"/{blob.digest.hex}" + "/allpeers" * delete.everywhere
        try:
            answer = await self.swarm.client(delete.node).ask("DELETE", path)
        except NoAnswer:
            return
        self.witness.hit(f"DELETE {answer.status}")
        if delete.everywhere and answer.status in (200, 202):
            blob.deleted = "yes"

    # -- what breaks ----------------------------------------------------------------------

    def hit(self, fault: Fault) -> None:
        """It breaks now, and is mended when it has lasted so long."""
        swarm, first = self.swarm, fault.nodes[0]
        others = [name for name in self.plan.nodes if name not in fault.nodes]
        self.faults[fault.kind] += 1
        if fault.kind == "kill":
            swarm.kill(first)
        elif fault.kind == "power":
            swarm.lose_power(first)
        elif fault.kind == "power in a call":
            swarm.lose_power_within(first, int(fault.amount * 60))
        elif fault.kind == "rot":
            self._rot(first, fault.amount)
        elif fault.kind == "reset":
            swarm.network.reset(first, swarm.random)
        elif fault.kind == "finish":
            swarm.network.finish(first, swarm.random)
        elif fault.kind == "clock":
            self._jump(first, fault.amount)
        elif fault.kind == "stop":
            self._stop(first, min(fault.lasts, self.plan.ends - swarm.timeline.now))
        elif fault.kind in TROUBLE:
            many = fault.amount * 100 % 1.0 < 0.5
            swarm.nodes[first].disk.trouble = Trouble(
                fault.kind, int(fault.amount * 20), 1 << 30 if many else 1
            )
        elif fault.kind == "slow":
            for pair, link in swarm.network.links.items():
                if first in pair:
                    swarm.network.links[pair] = Link(
                        link.latency + fault.amount, link.bandwidth * 10 ** (-3 * fault.amount), link.busy
                    )
        else:
            swarm.network.cut(fault.nodes, others)
            if fault.kind == "cut":
                swarm.network.cut(others, fault.nodes)
        swarm.timeline.after(fault.lasts, None, self.mend, fault, label=f"mended: {fault.kind}")

    def _jump(self, name: str, amount: float) -> None:
        """Forward by up to weeks; back by less than a minute, for Twisted's timers wait as much longer."""
        process = self.swarm.nodes[name].process
        if process is not None:
            self.disturbed.add(name)
            self.swarm.timeline.jump(process, 10 ** (12 * amount - 6) if amount > 0.5 else -60 * amount)

    def _stop(self, name: str, lasts: float) -> None:
        """SIGSTOP and, later, SIGCONT."""
        process = self.swarm.nodes[name].process
        if process is not None:
            self.disturbed.add(name)
            process.stopped = self.swarm.timeline.now + lasts

    def _rot(self, name: str, amount: float) -> None:
        """Of blobs that somebody else vouched for: the only copy is not promised to survive."""
        node = self.swarm.nodes[name]
        for blob in self.blobs.values():
            honest = [each for each in blob.holders if each in self.swarm.nodes]
            if name in honest and len(honest) > 1 and blob.data and not blob.lies:
                kind = "midstates" if self.plan.lists else "data"
                path = node.layout.file(blob.digest, kind)
                if node.node is not None and node.disk.exists(path) and os.path.getsize(path):
                    node.disk.rot(path, int(amount * os.path.getsize(path)))
                    blob.lies = True
                    if kind == "data":
                        blob.rotten.add(name)
                    self.witness.hit(f"{kind} rotten")
                    return

    def mend(self, fault: Fault) -> None:
        """See to it."""
        self.checks.meanwhile()
        if fault.kind in ("cut", "one-way cut"):
            self.swarm.network.heal()
        if fault.kind in TROUBLE:
            self.swarm.nodes[fault.nodes[0]].disk.trouble = None
        for name in fault.nodes:
            if fault.kind in ("kill", "power", "power in a call") and self.swarm.nodes[name].process is None:
                self.swarm.start(name)

    def _mend_everything(self) -> None:
        """From here on nothing breaks any more."""
        swarm = self.swarm
        swarm.network.heal()
        swarm.network.datagrams.weather = Weather()
        for pair in swarm.network.links:
            swarm.network.links[pair] = Link(0.005, 50e6)
        for each in swarm.nodes.values():
            each.disk.at, each.disk.trouble = -1, None
            if each.process is not None and each.process.dead:
                swarm.timeline.until(most=0.001)  # it is just going down
            if each.fatal or (each.node is not None and each.node.store.usage().read_only is not None):
                self.witness.hit("restarted to write again")
                each.fatal.clear()
                swarm.kill(each.name)  # as an operator does who has seen to the disk
            if each.process is None:
                swarm.start(each.name)


def bytes_of(plan: Plan, put: Put) -> bytes:
    """What is put. No two blobs are equal: the first byte is their number, and only one may be empty."""
    return _random_bytes(plan.seed, put.blob, put.size)


@lru_cache(16)
def _random_bytes(seed: int, blob: int, size: int) -> bytes:
    data = Random(f"{seed} blob {blob}").randbytes(size)
    return bytes([blob]) + data[1:] if blob or data else data

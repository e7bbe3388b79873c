"""One run from a seed to a verdict: faults, then everything is mended, then every promise is checked.

Carries out a :class:`~.plan.Plan` on a :class:`~.swarm.Swarm`; what must hold is in :mod:`.invariants`.
"""

from __future__ import annotations

import gc
import hashlib
import os.path
import sys
from collections import Counter
from random import Random

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory

from swarm.model.digest import Digest
from swarm.testing.simulation.client import NoAnswer
from swarm.testing.simulation.invariants import Blob, Checks, Witness
from swarm.testing.simulation.leaks import only_what_is_injected
from swarm.testing.simulation.network import Link
from swarm.testing.simulation.plan import FAULTS_END, Delete, Fault, Get, Plan, Put, draw_plan
from swarm.testing.simulation.swarm import Swarm


@frozen
class Outcome:
    """What a run came to. ``problems`` are broken promises, in words."""

    seed: int
    trace: str
    events: int
    seconds: float
    problems: tuple[str, ...]
    probes: Counter[str]
    faults: Counter[str]
    history: tuple[str, ...] = ()


def run(seed: int, *, tls: bool | None = None, history: bool = False) -> Outcome:
    """
    Do a run.

    :param tls: see :func:`~.plan.draw_plan`; ``history``: keep the description of every event.
    """
    Factory.noisy = False
    gc.disable()  # what is thrown away may speak up; in the middle of a run, that would be anybody's
    try:
        return _play(draw_plan(seed, tls=tls), history)
    finally:
        _throw_away()
        gc.enable()


def _play(plan: Plan, history: bool) -> Outcome:
    swarm = Swarm(
        plan.seed, len(plan.nodes), tls=plan.tls, skew=plan.skew, bandwidth=plan.bandwidth, history=history
    )
    with only_what_is_injected() as leaks, swarm, Witness(swarm, plan.liar) as witness:
        this = _Run(plan, swarm, witness)
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
        tuple(timeline.history or ()),
    )


def _throw_away() -> None:
    """Processes that died leave coroutines in the middle of an await, which object to being thrown away."""
    before, sys.unraisablehook = sys.unraisablehook, lambda unraisable: None
    try:
        while gc.collect():
            pass
    finally:
        sys.unraisablehook = before


class _Run:
    def __init__(self, plan: Plan, swarm: Swarm, witness: Witness) -> None:
        self.plan = plan
        self.swarm = swarm
        self.witness = witness
        self.blobs: dict[int, Blob] = {}
        self.faults: Counter[str] = Counter()
        self._checks = Checks(self.swarm, self.witness, self.blobs)

    def play(self) -> None:
        swarm, plan = self.swarm, self.plan
        for name in plan.nodes:
            swarm.start(name)
        for put in plan.puts:
            self._later(put.at, self._put, put)
        for get in plan.gets:
            self._later(get.at, self._get, get)
        for delete in plan.deletes:
            self._later(delete.at, self._delete, delete)
        for fault in plan.faults:
            swarm.timeline.after(fault.at, None, self._break, fault, label=f"fault: {fault.kind}")
        swarm.timeline.until(most=FAULTS_END + 1.0)
        self._mend_everything()
        self._checks.everything()

    def _later(self, at: float, work: object, what: object) -> None:
        def begin() -> None:
            Deferred.fromCoroutine(work(what)).addErrback(  # type: ignore[operator]  # one of ours below
                lambda failure: self.witness.problem(f"the run itself failed: {failure.getTraceback()}")
            )

        self.swarm.timeline.after(at, None, begin, label=f"{type(what).__name__}")

    # -- what people do -------------------------------------------------------------------

    async def _put(self, put: Put) -> None:
        data = Random(f"{self.plan.seed} blob {put.blob}").randbytes(put.size)
        if put.blob:  # no two are equal: the first byte is their number, and only one may be empty
            data = bytes([put.blob]) + data[1:]
        elif data:
            data = b"\0" + data[1:]
        blob = self.blobs[put.blob] = Blob(Digest(hashlib.sha512(data).digest()), data)
        try:
            answer = await self.swarm.client(put.node).ask("PUT", f"/blob-{put.blob}", data)
        except NoAnswer:
            return
        self.witness.hit(f"PUT {answer.status}")
        if answer.status in (200, 201, 202) and answer.whole:
            blob.holders = tuple(answer.document["holders"])
            if answer.document["sha512"] != blob.digest.hex or put.node not in blob.holders:
                self.witness.problem(f"a wrong answer to a PUT: {answer.body!r}")

    async def _get(self, get: Get) -> None:
        blob = self.blobs.get(get.blob)
        if blob is None:
            return
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

    async def _delete(self, delete: Delete) -> None:
        blob = self.blobs.get(delete.blob)
        if blob is None or not blob.holders:
            return  # its PUT may still be under way, and come after
        blob.deleted = "maybe"
        try:
            answer = await self.swarm.client(delete.node).ask("DELETE", f"/{blob.digest.hex}/allpeers")
        except NoAnswer:
            return
        self.witness.hit(f"DELETE {answer.status}")
        if answer.status in (200, 202):
            blob.deleted = "yes"

    # -- what breaks ----------------------------------------------------------------------

    def _break(self, fault: Fault) -> None:
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
        swarm.timeline.after(fault.lasts, None, self._mend, fault, label=f"mended: {fault.kind}")

    def _rot(self, name: str, amount: float) -> None:
        """Of blobs that somebody else vouched for: the only copy is not promised to survive."""
        node = self.swarm.nodes[name]
        for blob in self.blobs.values():
            if name in blob.holders and len(blob.holders) > 1 and blob.data and not blob.lies:
                kind = "midstates" if self.plan.lists else "data"
                path = node.layout.file(blob.digest, kind)
                if node.node is not None and node.disk.exists(path):
                    node.disk.rot(path, int(amount * os.path.getsize(path)))
                    blob.lies = True
                    if kind == "data":
                        blob.rotten.add(name)
                    self.witness.hit(f"{kind} rotten")
                    return

    def _mend(self, fault: Fault) -> None:
        if fault.kind in ("cut", "one-way cut"):
            self.swarm.network.heal()
        for name in fault.nodes:
            if fault.kind in ("kill", "power", "power in a call") and self.swarm.nodes[name].process is None:
                self.swarm.start(name)

    def _mend_everything(self) -> None:
        """From here on nothing breaks any more."""
        swarm = self.swarm
        swarm.network.heal()
        for pair in swarm.network.links:
            swarm.network.links[pair] = Link(0.005, 50e6)
        for each in swarm.nodes.values():
            each.disk.at = -1
            if each.process is not None and each.process.dead:
                swarm.timeline.until(most=0.001)  # it is just going down
            if each.process is None:
                swarm.start(each.name)

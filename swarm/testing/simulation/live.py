"""A run made up as it goes: each step is taken at once, checked, and noted, so that it becomes a plan.

For who decides what happens next by what happened so far: a state machine, a person at a prompt. Decides
nothing about what a step does (:mod:`.runs`) and what must hold, between steps and in the end
(:mod:`.invariants`).

The plan it comes to, :func:`~.runs.replay` does again, event by event.
"""

from __future__ import annotations

import gc
import math
from contextlib import ExitStack
from random import Random

import attrs
from twisted.internet.protocol import Factory

from swarm.testing.liars import Blob
from swarm.testing.simulation.invariants import Witness
from swarm.testing.simulation.leaks import only_what_is_injected
from swarm.testing.simulation.liar import draw_lies
from swarm.testing.simulation.plan import Delete, Fault, Get, Plan, Put
from swarm.testing.simulation.runs import Run, bytes_of, swarm_of, throw_away
from swarm.testing.simulation.scale import Scale

#: Steps are taken at odd multiples of this, which is when nothing else happens: no timer is set to it,
#: and a plan's times are exact.
TICK = 1 / 128
_DOWN = ("kill", "power", "power in a call")


class Live:
    """
    I am a run under way, of nodes that have just found each other. Close me.

    :ivar plan: what was done so far, and what broke and was mended.
    """

    def __init__(self, *, seed: int = 0, nodes: int = 3, liar: bool = False, lists: bool = False) -> None:
        """
        Start the nodes ``n0``, ``n1``, …

        :param liar: a lying peer joins, too; ``lists``: rot is in lists of midstates instead of in blobs.
        """
        Factory.noisy = False
        self.plan = Plan(
            seed=seed,
            tls=False,
            scale=Scale(32),
            skew=0.0,
            bandwidth=(1e6, 1e6),
            nodes=tuple(f"n{number}" for number in range(nodes)),
            liar=None,
            lists=lists,
            lies=() if liar else None,
            puts=(),
            gets=(),
            deletes=(),
            faults=(),
        )
        self.trace = ""
        self._open: list[Fault] = []
        self._liars = {"liar"} if liar else set()
        self._stack = ExitStack()
        try:
            self._begin()
        except BaseException:
            self.close()
            raise

    def _begin(self) -> None:
        if gc.isenabled():  # see runs.replay
            self._stack.callback(gc.enable)
        gc.disable()
        self._stack.callback(throw_away)
        self._swarm = swarm_of(self.plan)
        self._stack.enter_context(self.plan.scale.applied())
        self._leaks = self._stack.enter_context(only_what_is_injected())
        self._stack.enter_context(self._swarm)
        self._witness = self._stack.enter_context(Witness(self._swarm, self._liars))
        self._run = Run(self.plan, self._swarm, self._witness)
        self._run.begin()
        self.wait(512)

    def close(self) -> None:
        """Nothing is left of the run."""
        self._stack.close()

    # -- steps ----------------------------------------------------------------------------

    @property
    def now(self) -> float:
        """Seconds since the beginning."""
        return self._swarm.timeline.now

    def wait(self, ticks: int) -> None:
        """Let time pass: an even number of ticks, see :data:`TICK`. A step takes two by itself."""
        assert ticks % 2 == 0
        odd = TICK * (self.now == 0.0)
        self._swarm.timeline.until(most=ticks * TICK + odd)

    def put(self, node: str, size: int) -> None:
        """Somebody begins to put a new blob."""
        put = Put(self.now, node, len(self.plan.puts), size)
        self._note(puts=(*self.plan.puts, put))
        if self.plan.lies is not None:
            grain = self.plan.scale.size(1 << 20)
            lies = draw_lies(Random(f"{self.plan.seed} lies {put.blob}"), size, max(1, -(-size // grain)))
            self._note(lies=(*self.plan.lies, lies))
            assert self._run.checks.impostor is not None
            self._run.checks.impostor.learn([Blob(bytes_of(self.plan, put), lies)])
        self._ask(put)

    def get(self, node: str, blob: int, part: tuple[float, float] | None, patience: float) -> None:
        """Somebody begins to read a blob; see :class:`~.plan.Get`."""
        get = Get(self.now, node, blob, part, patience)
        self._note(gets=(*self.plan.gets, get))
        self._ask(get)

    def delete(self, node: str, blob: int, *, everywhere: bool) -> None:
        """Somebody deletes a blob."""
        delete = Delete(self.now, node, blob, everywhere)
        self._note(deletes=(*self.plan.deletes, delete))
        self._ask(delete)

    def _ask(self, what: Put | Get | Delete) -> None:
        self._run.ask(what)
        self.wait(2)

    def is_up(self, node: str) -> bool:
        """Does it run?"""
        return self._swarm.nodes[node].process is not None

    def breaks(self, kind: str, *nodes: str, amount: float = 0.0) -> None:
        """Something breaks, until it is mended; see :class:`~.plan.Fault`."""
        if kind == "rot" and self.plan.liar is None:
            self._liars.add(nodes[0])
            self._note(liar=nodes[0])
        fault = Fault(self.now, kind, nodes, math.inf, amount)
        self._open.append(fault)
        self._swarm.timeline.at(self.now, None, self._run.hit, fault, label=f"fault: {kind}")
        self.wait(2)

    def mend(self, *kinds: str) -> None:
        """What broke first of these is mended: a cut is healed, a node that is down is started."""
        for fault in self._open:
            if fault.kind in kinds and not (fault.kind in _DOWN and self.is_up(fault.nodes[0])):
                self._mend(fault, self.now)
                self.wait(2)
                return

    def _mend(self, fault: Fault, at: float) -> None:
        self._open.remove(fault)
        lasted = attrs.evolve(fault, lasts=at - fault.at)
        self._note(faults=(*self.plan.faults, lasted))
        self._swarm.timeline.at(at, None, self._run.mend, lasted, label=f"mended: {fault.kind}")

    def _note(self, **more: object) -> None:
        self.plan = self._run.plan = attrs.evolve(self.plan, **more)  # type: ignore[arg-type]  # fields of it

    def so_far(self) -> Plan:
        """The plan if it ended now."""
        unmended = (attrs.evolve(each, lasts=self.now + 1.0 - each.at) for each in self._open)
        faults = sorted((*self.plan.faults, *unmended), key=lambda fault: fault.at)
        return attrs.evolve(self.plan, faults=tuple(faults), ends=self.now)

    # -- verdicts ---------------------------------------------------------------------------

    def problems(self) -> list[str]:
        """What is wrong so far, in words."""
        self._run.checks.meanwhile()
        return [*self._witness.problems, *dict.fromkeys(self._leaks)]

    def finish(self) -> list[str]:
        """Mend everything, wait, check every promise; what is wrong, in words. It is over then."""
        over = self.so_far()
        for fault in tuple(self._open):
            self._mend(fault, self.now + 1.0)
        self.plan = self._run.plan = over
        self._swarm.timeline.until(most=1.0)
        self._run.end()
        self.trace = self._swarm.timeline.trace
        if not self._swarm.torn:
            gc.collect()
        return [*self._witness.problems, *dict.fromkeys(self._leaks)]

"""What hypothesis finds to do to a swarm, step by step; a failure shrinks to a short plan to be done again.

A few examples with every change, always the same. ``HYPOTHESIS_PROFILE=nightly python -m pytest
tests/simulation/test_machine.py`` goes exploring. The plan of a failure, in a file:
``python -m swarm.testing.simulation --plan FILE``.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from swarm.testing.simulation.disk import Platter
from swarm.testing.simulation.live import Live
from swarm.testing.simulation.plan import Plan
from swarm.testing.simulation.runs import replay
from swarm.testing.simulation.shrink import shrink
from swarm.testing.simulation.written import read, write

GRAIN = (1 << 20) // 32
SIZES = (GRAIN, 0, 1, 4096, GRAIN - 1, GRAIN + 1, 2 * GRAIN, 3 * GRAIN + 1, 7 * GRAIN - 1)
EXPLORING = os.environ.get("HYPOTHESIS_PROFILE") == "nightly"

nodes = st.sampled_from(["n0", "n1", "n2"])
moments = st.sampled_from([64, 128, 16, 2])
"""Ticks of 1/128 s: enough for most, or an interruption."""
shares = st.integers(0, 8).map(lambda eighths: eighths / 8)


class Machine(RuleBasedStateMachine):
    """What people do to a swarm of three, and what happens to it."""

    live: Live | None = None
    failed = False

    @initialize(liar=st.booleans(), lists=st.booleans())
    def begin(self, liar: bool, lists: bool) -> None:
        self.live = Live(liar=liar, lists=lists)

    @property
    def swarm(self) -> Live:
        assert self.live is not None
        return self.live

    @property
    def blobs(self) -> int:
        return 0 if self.live is None else len(self.live.plan.puts)

    # -- people -----------------------------------------------------------------------------

    @rule(node=nodes, size=st.sampled_from(SIZES), then=moments)
    def put(self, node: str, size: int, then: int) -> None:
        self.swarm.put(node, size)
        self.swarm.wait(then)

    @precondition(lambda self: self.blobs)
    @rule(node=nodes, blob=st.integers(0, 5), patience=st.sampled_from([60.0, 0.1]), then=moments)
    def get(self, node: str, blob: int, patience: float, then: int) -> None:
        self.swarm.get(node, blob % self.blobs, None, patience)
        self.swarm.wait(then)

    @precondition(lambda self: self.blobs)
    @rule(node=nodes, blob=st.integers(0, 5), start=shares, length=shares)
    def get_a_range(self, node: str, blob: int, start: float, length: float) -> None:
        self.swarm.get(node, blob % self.blobs, (start, min(1.0, start + length)), 60.0)

    @precondition(lambda self: self.blobs)
    @rule(node=nodes, blob=st.integers(0, 5), everywhere=st.booleans(), then=moments)
    def delete(self, node: str, blob: int, everywhere: bool, then: int) -> None:
        self.swarm.delete(node, blob % self.blobs, everywhere=everywhere)
        self.swarm.wait(then)

    # -- the world --------------------------------------------------------------------------

    @rule(ticks=st.sampled_from([64, 640, 2560]))
    def time_passes(self, ticks: int) -> None:
        self.swarm.wait(ticks)

    @rule(node=nodes, how=st.sampled_from(["kill", "power"]))
    def dies(self, node: str, how: str) -> None:
        if self.swarm.is_up(node):
            self.swarm.breaks(how, node)

    @rule(node=nodes, call=st.integers(0, 59))
    def dies_within_a_call(self, node: str, call: int) -> None:
        if self.swarm.is_up(node):
            self.swarm.breaks("power in a call", node, amount=(call + 0.5) / 60)

    @rule()
    def is_started(self) -> None:
        self.swarm.mend("kill", "power", "power in a call")

    @rule(node=nodes, one_way=st.booleans())
    def link_is_cut(self, node: str, one_way: bool) -> None:
        self.swarm.breaks("one-way cut" if one_way else "cut", node)

    @rule()
    def links_are_healed(self) -> None:
        self.swarm.mend("one-way cut", "cut")

    @rule(
        node=nodes, kind=st.sampled_from(["ENOSPC", "EIO writing", "EIO reading", "EIO syncing"]), call=shares
    )
    def disk_refuses(self, node: str, kind: str, call: float) -> None:
        self.swarm.breaks(kind, node, amount=call * 0.99)

    @rule()
    def disk_is_mended(self) -> None:
        self.swarm.mend("ENOSPC", "EIO writing", "EIO reading", "EIO syncing")

    @precondition(lambda self: self.blobs)
    @rule(node=nodes, where=shares)
    def a_bit_flips(self, node: str, where: float) -> None:
        if self.swarm.plan.liar in (None, node):  # the bits of one disk at most
            self.swarm.breaks("rot", node, amount=where * 0.99)

    # -- verdicts -----------------------------------------------------------------------------

    @invariant()
    def keeps_its_promises(self) -> None:
        if self.live is not None:
            self._judge(self.live.problems(), self.live.so_far())

    def teardown(self) -> None:
        if self.live is None:
            return
        try:
            if not self.failed:
                self._judge(self.live.finish(), self.live.plan)
        finally:
            self.live.close()

    def _judge(self, problems: list[str], plan: Plan) -> None:
        self.failed = bool(problems)
        if problems:
            raise AssertionError("\n".join([*problems, write(plan)]))


def bounded(examples: int, **more: object) -> settings:
    """The same examples each time, and none kept."""
    return settings(
        max_examples=examples,
        stateful_step_count=20,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
        **more,  # type: ignore[arg-type]
    )


Machine.TestCase.settings = (
    settings(
        max_examples=20_000, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
    )
    if EXPLORING
    else bounded(120)
)


@pytest.mark.timeout(0 if EXPLORING else 1200)  # shrinking takes minutes
class TestWhateverIsDone(Machine.TestCase):
    """Collected by pytest."""


# -- the machine itself ---------------------------------------------------------------------


def some_steps() -> Live:
    live = Live(liar=True)
    live.put("n0", 3 * GRAIN + 1)
    live.breaks("cut", "n1")
    live.get("n2", 0, (0.25, 0.5), 5.0)
    live.wait(100)
    live.breaks("power", "n0")
    live.wait(64)
    live.mend("cut")
    live.mend("kill", "power")
    live.wait(256)
    live.breaks("ENOSPC", "n2")
    live.put("n2", GRAIN)
    live.delete("n1", 0, everywhere=True)
    live.wait(20)
    return live


def test_what_was_done_step_by_step_is_a_plan_and_done_again_the_same_run() -> None:
    live = some_steps()
    assert live.finish() == []
    live.close()
    again = replay(read(write(live.plan)))
    assert again.problems == ()
    assert again.trace == live.trace


def test_a_plan_in_a_file_is_done_again(our_env: dict[str, str], tmp_path: Path) -> None:
    live = some_steps()
    live.finish()
    live.close()
    plan = tmp_path / "plan"
    plan.write_text(write(live.plan))
    program = [sys.executable, "-m", "swarm.testing.simulation", "--trace", "--plan", str(plan)]
    done = subprocess.run(program, env=our_env, stdout=subprocess.PIPE, text=True, timeout=240, check=True)
    assert done.stdout.startswith(live.trace)


@pytest.mark.parametrize(
    "text",
    ["", "7", "Plan()", "Plan(", "__import__('os')", "Plan(open('/'))", "Put(1.0, 'n0', 0, 1)", "(" * 9999],
)
def test_what_is_no_plan_is_nothing_else_either(text: str) -> None:
    with pytest.raises(ValueError):
        read(text)


def test_files_that_are_not_synced_are_found_and_the_plan_shrinks_to_a_few_events(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Platter, "fsync", lambda self, fd: self._step("fsync", "file"))
    monkeypatch.setattr(Platter, "fdatasync", Platter.fsync)
    monkeypatch.setattr(Platter, "sync_volume", lambda self, fd: None)
    with pytest.raises(AssertionError, match=r"could still lose it|had vouched for") as told:
        run_state_machine_as_test(Machine, settings=bounded(1000, phases=[Phase.generate]))
    said = str(told.value)
    plan = read(said[said.index("Plan(") :])
    least = shrink(plan, lambda plan: bool(replay(plan).problems))
    assert len(least.puts) == 1
    assert len(least.faults) <= 2
    assert not least.gets

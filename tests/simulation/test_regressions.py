"""Runs that found a bug once, as small as they could be made; ``docs/bugs.rst`` says which.

``python -m swarm.testing.simulation --seeds SEED --shrink`` prints such a plan.
"""

from __future__ import annotations

import pytest

from swarm.testing.simulation.plan import Delete, Fault, Plan, Put
from swarm.testing.simulation.runs import replay
from swarm.testing.simulation.scale import Scale


def plan(
    *,
    seed: int = 0,
    puts: tuple[Put, ...] = (),
    deletes: tuple[Delete, ...] = (),
    faults: tuple[Fault, ...] = (),
) -> Plan:
    """Three nodes without anything special."""
    return Plan(
        seed=seed,
        tls=False,
        scale=Scale(32),
        skew=0.0,
        bandwidth=(1e6, 1e6),
        nodes=("n0", "n1", "n2"),
        liar=None,
        lists=False,
        lies=None,
        puts=puts,
        gets=(),
        deletes=deletes,
        faults=faults,
    )


@pytest.mark.parametrize("asked", ["n0", "n1", "n2"])
def test_a_deletion_is_carried_out_though_a_disk_could_not_be_read_when_it_was_told(asked: str) -> None:
    others = [name for name in ("n0", "n1", "n2") if name != asked]
    done = replay(
        plan(
            puts=(Put(5.0, "n0", 0, 4096),),
            deletes=(Delete(10.0, asked, 0),),
            faults=tuple(Fault(9.0, "EIO reading", (name,), 4.0, 0.01) for name in others),
        )
    )
    assert done.problems == ()

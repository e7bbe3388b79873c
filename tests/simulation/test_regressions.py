"""Runs that found a bug once, as small as they could be made; ``docs/bugs.md`` says which.

``python -m swarm.testing.simulation --seeds SEED --shrink`` prints such a plan.
"""

from __future__ import annotations

import attrs
import pytest

from swarm.testing.liars import Lies
from swarm.testing.simulation.plan import Delete, Fault, Get, Plan, Put
from swarm.testing.simulation.runs import replay
from swarm.testing.simulation.scale import Scale


def plan(
    *,
    seed: int = 0,
    nodes: int = 3,
    bandwidth: tuple[float, float] = (1e6, 1e6),
    lies: tuple[Lies, ...] | None = None,
    puts: tuple[Put, ...] = (),
    gets: tuple[Get, ...] = (),
    deletes: tuple[Delete, ...] = (),
    faults: tuple[Fault, ...] = (),
) -> Plan:
    """Nodes without anything special."""
    return Plan(
        seed=seed,
        tls=False,
        scale=Scale(32),
        skew=0.0,
        bandwidth=bandwidth,
        nodes=tuple(f"n{number}" for number in range(nodes)),
        liar=None,
        lists=False,
        lies=lies,
        puts=puts,
        gets=gets,
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


def test_a_pull_begins_anew_with_another_size_though_a_peer_still_reads_from_the_first() -> None:
    done = replay(
        plan(
            seed=203,
            nodes=4,
            bandwidth=(6250, 62500),
            lies=(
                Lies(flip=frozenset({0, 1, 3}), claim=394022),
                Lies(midstates="joined"),
                Lies(cut=385504),
                Lies(flip=frozenset({*range(17)} - {14})),
            ),
            puts=(
                Put(2.014235221267714, "n2", 0, 131750),
                Put(17.83086994353759, "n1", 1, 32769),
                Put(9.726274459499848, "n2", 2, 543968),
                Put(7.211185280785998, "n1", 3, 530906),
            ),
            gets=(Get(3.5877984900517728, "n3", 0, None, 0.03423913503726811),),
        )
    )
    assert done.problems == ()


def test_a_copy_that_rotted_is_healed_though_nobody_could_give_it_at_first() -> None:
    done = replay(
        attrs.evolve(
            plan(
                seed=67,
                puts=(Put(5.0, "n2", 0, 32768),),
                gets=(Get(25.0, "n1", 0, None, 5.0),),
                faults=(
                    Fault(20.0, "rot", ("n0",), 1.0, 0.5),
                    Fault(24.9, "EIO reading", ("n2",), 15.0, 0.0),
                ),
            ),
            liar="n0",  # what it gives is wrong
        )
    )
    assert done.problems == ()
    assert done.probes["healed by an advisory"]

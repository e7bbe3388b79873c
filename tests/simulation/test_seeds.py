"""A whole swarm keeps its promises while nodes die, links break and bits rot.

More seeds: ``python -m swarm.testing.simulation --seeds 0:1000``.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from swarm.testing.simulation.runs import run


@pytest.mark.parametrize("seed", range(6))
def test_promises_hold(seed: int) -> None:
    assert run(seed, tls=False).problems == ()


def test_promises_hold_over_real_tls() -> None:
    assert run(7, tls=True).problems == ()


def test_a_seed_is_the_same_run_however_hashes_fall(our_env: dict[str, str], tmp_path: Path) -> None:
    """Bytes hash differently in each process, so a choice by a set's order would show."""
    program = [sys.executable, "-m", "swarm.testing.simulation", "--seeds", "2", "--trace"]
    seen = set()
    for hashes in ("0", "1"):
        env = {**our_env, "PYTHONHASHSEED": hashes}
        done = subprocess.run(
            program, cwd=tmp_path, env=env, stdout=subprocess.PIPE, text=True, timeout=120, check=True
        )
        seen.add(tuple(done.stdout.splitlines()[:1]))
    assert len(seen) == 1
    assert os.listdir(tmp_path) == []

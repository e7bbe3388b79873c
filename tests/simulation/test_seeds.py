"""The same seed is the same run, in every process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from swarm.testing.simulation.runs import run


def test_promises_hold_over_real_tls() -> None:
    assert run(7, tls=True).problems == ()


@pytest.mark.parametrize("how", [("--seeds", "0:3"), ("--seeds", "11", "--tls")])
def test_a_seed_is_the_same_run_however_hashes_fall(
    how: tuple[str, ...], our_env: dict[str, str], tmp_path: Path
) -> None:
    """Bytes hash differently in each process, so a choice by a set's order would show."""
    program = [sys.executable, "-m", "swarm.testing.simulation", *how, "--trace"]
    seen = set()
    for hashes in ("0", "1", "2"):
        env = {**our_env, "PYTHONHASHSEED": hashes}
        done = subprocess.run(
            program, cwd=tmp_path, env=env, stdout=subprocess.PIPE, text=True, timeout=240, check=True
        )
        seen.add(tuple(line for line in done.stdout.splitlines() if " events " in line and line[0].isdigit()))
    assert len(seen) == 1
    assert os.listdir(tmp_path) == []

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


@pytest.mark.parametrize("how", [("--seeds", "0:3"), ("--seeds", "11", "--tls"), ("--seeds", "18", "--tls")])
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


_IDENTITIES = """
import hashlib, sys
from swarm.testing.simulation.swarm import _identity
for number in map(int, sys.argv[1:]):
    directory, _ = _identity(number, f"10.0.0.{number + 1}", f"n{number}")
    content = b"".join(path.read_bytes() for path in sorted(directory.iterdir()))
    print(number, hashlib.sha256(content).hexdigest())
"""


def test_keys_and_certificates_are_the_same_in_every_process(our_env: dict[str, str], tmp_path: Path) -> None:
    """One in 256 random serial numbers is shorter, and then so is each handshake that shows it."""
    seen = []
    for order in (("0", "1", "2"), ("2", "1", "0")):
        program = [sys.executable, "-c", _IDENTITIES, *order]
        done = subprocess.run(
            program, cwd=tmp_path, env=our_env, stdout=subprocess.PIPE, text=True, timeout=60, check=True
        )
        seen.append(sorted(done.stdout.splitlines()))
    assert seen[0] == seen[1]

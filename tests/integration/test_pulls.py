"""A few rounds of the soak of pulls: real nodes, pull after pull, and none stands still."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from swarm.testing.processes import child_environment


@pytest.mark.timeout(600)
def test_pulls_one_after_another_do_not_stand_still(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "swarm.testing.pulls", "--rounds=12", "--largest=64", "--minutes=2"]
    ran = subprocess.run(
        [*command, f"--directory={tmp_path / 'pulls'}"],
        capture_output=True,
        text=True,
        timeout=500,
        env=child_environment(),
        check=False,
    )
    evidence = tmp_path / "pulls" / "stood-still.txt"
    assert ran.returncode == 0, ran.stdout + ran.stderr + (evidence.read_text() if evidence.exists() else "")

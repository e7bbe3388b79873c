"""What every test may ask for: programs, an environment for real processes, hypothesis' profile."""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings
from twisted.logger import globalLogBeginner

import swarm

# Last, so that `tests.…` is found here and `swarm` where it was installed, if it was.
sys.path.append(str(Path(__file__).parent.parent))

# Until logging begins Twisted keeps the last 65,536 events, and with them whole nodes and their blobs.
globalLogBeginner.beginLoggingTo([], redirectStandardIO=False, discardBuffer=True)

# What a developer set for the command line is not meant for the nodes of the tests.
for _name in ("SWARM_URL", "SWARM_TOKEN"):
    os.environ.pop(_name, None)

# The machines that run this are shared and slow at times: a deadline would time the machine.
settings.register_profile("default", deadline=None, max_examples=60)
settings.register_profile("nightly", deadline=None, max_examples=5000, print_blob=True)
settings.register_profile("ci", deadline=None, max_examples=200, derandomize=True, print_blob=True)
# Which branches are taken at all needs few examples, and always the same.
settings.register_profile("coverage", deadline=None, max_examples=50, derandomize=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci" if os.environ.get("CI") else "default"))


@pytest.fixture(scope="session")
def need_program() -> Callable[[str], str]:
    """Find a program: ``need_program("curl")`` is its path.

    A test whose program is missing is skipped by name; under ``CI=true`` it fails, because
    there ``.ci/run`` installed everything.
    """

    def find(name: str) -> str:
        path = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
        if path is None and os.environ.get("CI"):
            pytest.fail(f"{name} is not installed")
        if path is None:
            pytest.skip(f"{name} is not installed")
        return path

    return find


@pytest.fixture(scope="session")
def our_env() -> dict[str, str]:
    """The environment in which a child process sees the very ``swarm`` that is being tested,
    installed or not: ``subprocess.Popen([twistd, …], env=our_env)``."""
    ours = str(Path(swarm.__file__).parent.parent)
    path = [ours] if ours != sysconfig.get_path("purelib") else []
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path), "PYTHONUNBUFFERED": "1"}


@pytest.fixture(scope="session")
def twistd() -> list[str]:
    """How to start ``twistd`` under the interpreter that runs the tests."""
    return [sys.executable, str(Path(sys.executable).with_name("twistd"))]

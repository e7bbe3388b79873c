"""What the process of a node does to memory is done once, and anywhere."""

from __future__ import annotations

import subprocess
import sys

import pytest

SCRIPT = """
import ctypes, gc
if {without}: ctypes.CDLL = lambda name: object()
import swarm.footprint
before = gc.get_freeze_count()
swarm.footprint.settle()
assert gc.get_freeze_count() > before and gc.isenabled()
"""


LIMITS = """
import resource
import swarm.footprint
resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))
assert swarm.footprint.allow_open_files() == {then}
assert resource.getrlimit(resource.RLIMIT_NOFILE) == ({then}, {hard})
"""


def run(*, without: bool) -> None:
    """In a process of its own: these are habits of the interpreter."""
    subprocess.run([sys.executable, "-c", SCRIPT.format(without=without)], check=True, timeout=120)


def test_what_was_imported_is_not_collected_again() -> None:
    run(without=False)


def test_another_c_library_is_no_obstacle() -> None:
    run(without=True)


@pytest.mark.parametrize(("soft", "hard", "then"), [(64, 512, 512), (512, 512, 512)])
def test_as_many_files_may_be_open_as_the_process_may_allow_itself(soft: int, hard: int, then: int) -> None:
    script = LIMITS.format(soft=soft, hard=hard, then=then)
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)

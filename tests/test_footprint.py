"""What the process of a node does to memory is done once, and anywhere."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import ctypes, gc
if {without}: ctypes.CDLL = lambda name: object()
import swarm.footprint
before = gc.get_freeze_count()
swarm.footprint.settle()
assert gc.get_freeze_count() > before and gc.isenabled()
"""


def run(*, without: bool) -> None:
    """In a process of its own: these are habits of the interpreter."""
    subprocess.run([sys.executable, "-c", SCRIPT.format(without=without)], check=True, timeout=120)


def test_what_was_imported_is_not_collected_again() -> None:
    run(without=False)


def test_another_c_library_is_no_obstacle() -> None:
    run(without=True)

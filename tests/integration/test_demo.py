"""``swarm demo`` as a newcomer runs it, and as a newcomer stops it: nothing is left either way."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

COMMAND = [sys.executable, "-c", "from swarm.cli.main import main; main()", "demo", "--size", "96"]


def processes_in(directory: Path) -> list[psutil.Process]:
    """Everything that runs below a directory."""
    found = []
    for process in psutil.process_iter():
        try:
            if Path(process.cwd()).is_relative_to(directory) and process.pid != os.getpid():
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return [each for each in found if each.is_running() and each.status() != psutil.STATUS_ZOMBIE]


def wait_until_gone(directory: Path) -> None:
    deadline = time.monotonic() + 60
    while left := processes_in(directory):
        assert time.monotonic() < deadline, left
        time.sleep(0.05)


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """A working directory with a blank in its name."""
    directory = tmp_path / "a checkout"
    directory.mkdir()
    yield directory
    for process in processes_in(directory):
        process.kill()


def start(home: Path, our_env: dict[str, str], *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*COMMAND, *arguments],
        cwd=home,
        env=our_env,
        text=True,
        # Who runs the tests in the background ignores SIGINT, and so would the demo.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def wait_for_nodes(demo: subprocess.Popen[str]) -> None:
    assert demo.stdout is not None
    for line in demo.stdout:
        if "PUT" in line:
            return
    raise AssertionError(demo.communicate())


def test_everything_holds_and_nothing_is_left(home: Path, our_env: dict[str, str]) -> None:
    (home / "small.txt").write_text("a file too small to watch")
    demo = start(home, our_env, "small.txt")
    out, err = demo.communicate(timeout=280)
    assert (demo.returncode, err) == (0, ""), out + err
    assert "FAILED" not in out
    assert "All of it held" in out
    for claim in ("resumed by itself", "was named", "into quarantine", "delivered small.txt"):
        assert claim in out
    assert [path.name for path in home.iterdir()] == ["small.txt"]
    assert processes_in(home) == []


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interruption_leaves_nothing(home: Path, our_env: dict[str, str], how: signal.Signals) -> None:
    demo = start(home, our_env)
    wait_for_nodes(demo)
    assert len(processes_in(home)) >= 5
    demo.send_signal(how)
    _, err = demo.communicate(timeout=60)
    assert demo.returncode == 1
    assert err.strip() == "swarm: interrupted"
    assert list(home.iterdir()) == []
    assert processes_in(home) == []


def test_no_node_outlives_a_demo_that_was_killed(home: Path, our_env: dict[str, str]) -> None:
    demo = start(home, our_env)
    wait_for_nodes(demo)
    demo.kill()
    demo.communicate(timeout=60)
    wait_until_gone(home)

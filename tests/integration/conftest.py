"""What several tests here ask for."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Callable, Iterator

import pytest

from swarm.testing.processes import Node

Failing = Callable[[Node, str], contextlib.AbstractContextManager[None]]


@pytest.fixture
def failing(need_program: Callable[[str], str]) -> Failing:
    """``with failing(node, "fsync:error=EIO"):`` those system calls of the running node fail."""
    strace = need_program("strace")

    @contextlib.contextmanager
    def attached(node: Node, inject: str) -> Iterator[None]:
        calls = inject.partition(":")[0]
        log = node.directory / "strace"
        options = [
            "-f",
            "-o",
            str(log),
            "-e",
            f"trace={calls}",
            "-e",
            f"inject={inject}",
            "-p",
            str(node.pid),
        ]
        with subprocess.Popen([strace, *options], stderr=subprocess.PIPE, text=True) as process:
            assert process.stderr is not None
            said = process.stderr.readline()
            if "attached" not in said:
                process.wait()
                if os.environ.get("CI"):
                    pytest.fail(said)
                pytest.skip(f"strace may not attach: {said}")
            try:
                yield
            finally:
                process.send_signal(signal.SIGINT)
                process.wait(20)

    return attached

"""The command line itself: what is imported when, and the exit codes."""

from __future__ import annotations

import subprocess
import sys

import pytest

from swarm.cli.main import COMMANDS, swarm


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_there_and_says_in_its_help_what_the_list_says(run, name) -> None:
    code, out, _ = run(name, "--help")
    assert code == 0
    assert out.startswith(f"Usage: swarm {name}")


def test_help_imports_nothing_heavy(our_env) -> None:
    heavy = "twisted rich ssl http.client cryptography klein treq"
    program = (
        "import sys; sys.argv = ['swarm', '--help']\n"
        "from swarm.cli.main import main\n"
        "try: main()\n"
        f"finally: sys.exit(','.join(set({heavy.split()!r}) & set(sys.modules)))"
    )
    answer = subprocess.run([sys.executable, "-c", program], env=our_env, capture_output=True, text=True)
    assert (answer.returncode, answer.stderr) == (0, "") or answer.stderr == "\n"


def test_the_version(run) -> None:
    from swarm import __version__

    assert run("--version") == (0, f"swarm, version {__version__}\n", "")
    assert swarm.name == "swarm"

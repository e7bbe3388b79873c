"""What the README tells a newcomer to type exists."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest

from swarm.cli.main import swarm

ROOT = Path(__file__).parent.parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = "\n".join(re.findall(r"^```console\n(.*?)^```", README, re.MULTILINE | re.DOTALL)).replace(
    "\\\n", " "
)


def commands(program: str) -> list[list[str]]:
    """The command lines in the README that run ``program``, as words."""
    lines = re.findall(rf"^\w*\$\s+({re.escape(program)}\b[^#\n]*)", BLOCKS, re.MULTILINE)
    assert lines
    return [shlex.split(line) for line in lines]


@pytest.mark.parametrize("words", commands("swarm"), ids=" ".join)
def test_a_swarm_command(words: list[str]) -> None:
    command: click.Command = swarm
    context = click.Context(command)
    rest = words[1:]
    while isinstance(command, click.Group):
        found = command.get_command(context, rest.pop(0))
        assert found is not None
        command = found
    options = {option for parameter in command.params for option in parameter.opts}
    assert {word for word in rest if word.startswith("-")} <= options


@pytest.mark.parametrize("words", commands("twistd"), ids=" ".join)
def test_a_twistd_command(words: list[str]) -> None:
    from swarm.tap import Options

    assert words[:3] == ["twistd", "-n", "swarm"]
    Options().parseOptions(words[3:])


@pytest.mark.parametrize("words", commands("make"), ids=" ".join)
def test_a_make_target(words: list[str]) -> None:
    assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


def test_every_link_leads_somewhere() -> None:
    for link in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / link).exists(), link

"""The lanes, compiled from their source: what is installed may have none, or older ones."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "swarm/hashing"


@pytest.fixture(scope="session")
def build(need_program: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """``build()`` is the path of the library; ``build((old, new), …)`` of one with its source changed."""
    gcc = need_program("gcc")

    def build(*changes: tuple[str, str]) -> str:
        directory = tmp_path_factory.mktemp("lanes")
        for name in ("lanes.c", "rounds.h"):
            text = (SOURCE / name).read_text()
            for old, new in changes:
                text = text.replace(old, new)
            (directory / name).write_text(text)
        out = directory / "_lanes.so"
        strict = [] if changes else ["-Wall", "-Wextra", "-Werror"]
        command = [gcc, "-O3", *strict, "-fPIC", "-shared", "-o", out, directory / "lanes.c"]
        subprocess.run(command, check=True, timeout=240)
        return str(out)

    return build


@pytest.fixture(scope="session")
def compiled(build: Callable[..., str]) -> str:
    """The path of the library as it is."""
    return build()

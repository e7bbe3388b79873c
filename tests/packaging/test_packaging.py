"""What ``pip install .`` puts in place, and what must never be there."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tree that a wheel would hold."""
    return build(tmp_path_factory.mktemp("build"))


def build(work: Path, **environment: str) -> Path:
    command = [
        sys.executable,
        "setup.py",
        "--quiet",
        "build",
        "--build-base",
        work,
        "--build-lib",
        work / "lib",
    ]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, env={**os.environ, **environment})
    return work / "lib"


def test_every_module_is_installed(built: Path) -> None:
    """A package that forgot its ``__init__.py`` works in the checkout and is missing once installed."""
    ours = {str(path.relative_to(ROOT)) for path in (ROOT / "swarm").rglob("*.py")}
    assert {str(path.relative_to(built)) for path in built.rglob("*.py")} == ours | {
        "twisted/plugins/swarm_plugin.py"
    }
    assert (built / "swarm/py.typed").exists()


def libraries(built: Path) -> list[str]:
    return sorted(path.name.split(".")[0] for path in (built / "swarm").rglob("*.so"))


def test_what_is_in_c_is_compiled(built: Path, need_program: Callable[[str], str]) -> None:
    need_program("gcc")
    assert libraries(built) == ["_lanes", "_records"]


def test_without_a_compiler_there_is_everything_else(tmp_path: Path) -> None:
    bare = build(tmp_path, CC="/nonexistent/cc")
    assert not libraries(bare)
    assert (bare / "swarm/hashing/lanes.py").exists()


def test_the_source_that_is_published_is_whole(tmp_path: Path) -> None:
    """tox installs from it."""
    command = [sys.executable, "setup.py", "--quiet", "egg_info", "--egg-base", tmp_path]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    held = set((tmp_path / "swarm.egg-info/SOURCES.txt").read_text().splitlines())
    assert {"swarm/hashing/lanes.c", "swarm/hashing/rounds.h", "swarm/hashing/lanes.py"} <= held
    assert "swarm/peering/records.c" in held


def test_twisted_is_never_shadowed() -> None:
    """An ``__init__.py`` there would hide the real Twisted, or its plugins."""
    assert [str(path) for path in (ROOT / "twisted").rglob("__init__.py")] == []


def test_the_plugin_imports_nothing_of_ours() -> None:
    """twistd loads it before it chooses a reactor."""
    tree = ast.parse((ROOT / "twisted/plugins/swarm_plugin.py").read_text())
    found = [ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    assert found == ["from twisted.application.service import ServiceMaker"]


def test_twistd_knows_the_command_from_anywhere(
    twistd: list[str], our_env: dict[str, str], tmp_path: Path
) -> None:
    answer = subprocess.run([*twistd, "--help"], cwd=tmp_path, env=our_env, capture_output=True, text=True)
    assert answer.returncode == 0
    assert "swarm" in answer.stdout.split()


def test_news_fragments_are_one_sentence_of_a_known_kind() -> None:
    kinds = {"security", "feature", "bugfix", "doc", "removal", "misc"}
    for path in sorted((ROOT / "swarm/newsfragments").iterdir()):
        _, kind, suffix = path.name.rsplit(".", 2)
        assert kind in kinds, path.name
        assert suffix == "rst", path.name
        assert path.read_text().strip().endswith("."), path.name


def test_no_key_is_committed() -> None:
    if not (ROOT / ".git").exists():
        return
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert [
        name for name in listed.stdout.splitlines() if name.endswith((".pem", ".key", ".p12", ".crl"))
    ] == []

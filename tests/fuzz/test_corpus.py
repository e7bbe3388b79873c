"""Every input a parser was ever wrong about, and where fuzzing begins: promises hold. Needs no atheris."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

from swarm.testing.fuzzing.target import Target
from swarm.testing.fuzzing.targets import TARGETS

CORPUS = Path(__file__).parent / "corpus"
KEPT = [(path.parent.name, path.name) for path in sorted(CORPUS.glob("*/*"))]


@pytest.mark.parametrize(("name", "file"), KEPT)
def test_what_was_found_once_is_mended(name: str, file: str) -> None:
    TARGETS[name].check((CORPUS / name / file).read_bytes())


def changed(target: Target, draw: Random) -> bytes:
    """A seed with something cut out, put twice, flipped, or from another."""
    seeds = sorted(target.seeds)
    data = bytearray(draw.choice(seeds))
    for _ in range(draw.randint(0, 4)):
        at, length = draw.randint(0, len(data)), draw.randint(0, 12)
        other = draw.choice(seeds)
        begin = draw.randint(0, len(other))
        data[at : at + draw.choice([0, length])] = draw.choice(
            [b"", data[at : at + length] * 2, draw.randbytes(length % 3), other[begin : begin + length * 4]]
        )
    return bytes(data[: target.longest])


@pytest.mark.parametrize("name", TARGETS)
def test_a_seed_and_what_is_like_it_breaks_no_promise(name: str) -> None:
    target, draw = TARGETS[name], Random(name)
    for seed in target.seeds:
        target.check(seed)
    for _ in range(150):
        target.check(changed(target, draw))


def test_nothing_is_kept_for_a_target_there_is_not() -> None:
    assert {path.name for path in CORPUS.iterdir()} <= TARGETS.keys()


def test_without_atheris_it_says_what_is_missing(our_env: dict[str, str], tmp_path: Path) -> None:
    blocked = "import sys; sys.modules['atheris'] = None; import runpy; "
    run = "sys.argv = ['x', '--seconds', '1']; runpy.run_module('swarm.testing.fuzzing', run_name='__main__')"
    done = subprocess.run(
        [sys.executable, "-c", blocked + run],
        env=our_env,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 2
    assert "pip install '.[fuzz]'" in done.stdout
    assert os.listdir(tmp_path) == []

"""import: a dtfc store becomes ours, verified, and can be served at once."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest


def keep_as_dtfc(base: Path, data: bytes, name: str = "some.file") -> str:
    digest = hashlib.sha512(data).hexdigest()
    directory = base.joinpath(*(digest[at : at + 2] for at in range(0, 128, 2)))
    directory.mkdir(parents=True)
    (directory / "data").write_bytes(data)
    (directory / "filename").write_text(name)
    return digest


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    (tmp_path / "dtfc").mkdir()
    return tmp_path / "dtfc"


def test_every_blob_is_taken_in_once(run, tmp_path: Path, theirs: Path) -> None:
    data = {keep_as_dtfc(theirs, each): each for each in (b"", b"one", b"two" * 1_000_000)}
    code, out, err = run("import", theirs, "--data", tmp_path / "data")
    assert (code, err) == (0, "")
    assert "3 adopted; 2.9 MiB taken in" in out
    for digest, each in data.items():
        assert (tmp_path / "data/blobs" / digest[:2] / digest[2:4] / digest / "data").read_bytes() == each
    assert "3 known" in run("import", theirs, "--data", tmp_path / "data")[1]


def test_a_damaged_blob_is_named_and_left_where_it_is(run, tmp_path: Path, theirs: Path) -> None:
    good, bad = keep_as_dtfc(theirs, b"good"), keep_as_dtfc(theirs, b"bad")
    file = theirs.joinpath(*(bad[at : at + 2] for at in range(0, 128, 2)), "data")
    file.write_bytes(b"worse")
    code, out, err = run("import", theirs, "--data", tmp_path / "data", "--json")
    assert (code, err) == (1, "swarm: 1 blobs were not taken in\n")
    outcomes = {each["sha512"]: each["outcome"] for each in map(json.loads, out.splitlines())}
    assert outcomes == {good: "adopted", bad: "damaged"}
    assert file.read_bytes() == b"worse"


def test_the_settings_of_the_node_count(run, tmp_path: Path, theirs: Path) -> None:
    keep_as_dtfc(theirs, b"x" * 5000)
    (tmp_path / "node.toml").write_text(f'data = "{tmp_path}/data"\nquota = 1000\n')
    code, out, _ = run("import", theirs, "--config", tmp_path / "node.toml")
    assert code == 1
    assert "1 failed" in out
    (tmp_path / "node.toml").write_text("qouta = 1000\n")
    code, _, err = run("import", theirs, "--config", tmp_path / "node.toml")
    assert (code, err) == (1, "swarm: unknown setting: qouta\n")


def test_a_data_directory_in_use_is_left_alone(run, tmp_path: Path, theirs: Path) -> None:
    (tmp_path / "data").mkdir()
    program = "import fcntl, sys; f = open(sys.argv[1], 'w'); fcntl.lockf(f, fcntl.LOCK_EX); print(); input()"
    command = [sys.executable, "-c", program, str(tmp_path / "data/lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        code, _, err = run("import", theirs, "--data", tmp_path / "data")
        other.communicate(b"\n")
    assert code == 1
    assert "another process uses" in err

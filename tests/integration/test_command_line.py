"""Every ``swarm`` command against real nodes."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from swarm.testing.processes import Node, swarm_in

DATA = random.Random(3).randbytes(5 << 20)
Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory, our_env: dict[str, str]) -> Iterator[list[Node]]:
    with swarm_in(tmp_path_factory.mktemp("nodes")) as swarm:
        first = swarm.add("alpha", environment=our_env)
        second = swarm.add("beta", "--copies=1", join=(first,), environment=our_env)
        swarm.wait_acquainted([first, second])
        yield [first, second]


@pytest.fixture
def swarm(nodes: list[Node], our_env: dict[str, str], tmp_path: Path) -> Command:
    def run(*arguments: object, node: Node = nodes[0], **given: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", "from swarm.cli.main import main; main()", *map(str, arguments)]
        env = {**our_env, "SWARM_URL": node.url}
        return subprocess.run(
            command, cwd=tmp_path, env=env, text=True, capture_output=True, timeout=120, **given
        )

    return run


def test_a_file_goes_in_and_comes_out_again(swarm: Command, nodes: list[Node], tmp_path: Path) -> None:
    (tmp_path / "a ü%25.bin").write_bytes(DATA)
    put = swarm("put", "a ü%25.bin")
    assert (put.returncode, put.stderr) == (0, "")
    digest = put.stdout.strip()
    (tmp_path / "a ü%25.bin").unlink()
    assert swarm("get", digest).stdout == "a ü%25.bin: 5.0 MiB, verified\n"
    assert (tmp_path / "a ü%25.bin").read_bytes() == DATA
    (tmp_path / "half.part").write_bytes(DATA[: 2 << 20])
    assert swarm("get", digest, "-o", "half", node=nodes[1]).returncode == 0
    assert (tmp_path / "half").read_bytes() == DATA
    assert swarm("verify", "half", digest).returncode == 0
    assert swarm("verify", "half").stdout == "half: OK\n"
    assert swarm("verify", digest).returncode == 0


def test_a_pipe_goes_in_and_comes_out_again(swarm: Command) -> None:
    text = "some text\n" * 100_000
    put = swarm("put", "-", "--name", "notes.txt", "--json", input=text)
    document = json.loads(put.stdout)
    assert (document["filename"], document["length"]) == ("notes.txt", len(text))
    assert swarm("get", document["sha512"], "-o", "-").stdout == text


def test_stat_and_rm(swarm: Command, nodes: list[Node], tmp_path: Path) -> None:
    (tmp_path / "doc.pdf").write_bytes(b"%PDF-")
    digest = swarm("put", "doc.pdf").stdout.strip()
    stat = json.loads(swarm("stat", digest, "--json").stdout)
    assert (stat["length"], stat["content_type"], stat["here"]) == (5, "application/pdf", True)
    assert {each["name"] for each in stat["nodes"]} == {"alpha", "beta"}
    assert "held by alpha (complete)" in swarm("stat", digest).stdout
    assert swarm("rm", digest).returncode == 0
    assert not nodes[0].has(digest)
    gone = swarm("rm", digest, "--everywhere", node=nodes[1])
    assert gone.returncode == 0
    assert "confirmed: " in gone.stdout
    missing = swarm("stat", digest)
    assert (missing.returncode, missing.stderr) == (1, "swarm: no such blob (404)\n")


def test_what_is_wrong_is_refused_in_one_line(swarm: Command, tmp_path: Path) -> None:
    (tmp_path / "health").write_bytes(b"a reserved name")
    for arguments in (
        ["put", "health"],
        ["put", "health", "--name", "fine", "--id", "0" * 128],
        ["get", "0" * 128, "-o", "x"],
        ["rm", "0" * 128],
        ["verify", "0" * 128],
        ["ls", "/"],
        ["find", "/"],
    ):
        answer = swarm(*arguments)
        assert (answer.returncode, answer.stdout) == (1, ""), answer
        assert answer.stderr.startswith("swarm: ")
        assert answer.stderr.count("\n") == 1


def test_status_and_peers(swarm: Command, nodes: list[Node]) -> None:
    status = swarm("status")
    assert (status.returncode, status.stderr) == (0, "")
    assert status.stdout.startswith(f"{nodes[0].url} is ready\n")
    assert swarm("peers").stdout.split()[:3] == ["beta", nodes[1].address, "alive"]


def test_join_makes_two_strangers_meet(swarm: Command, nodes: list[Node], tmp_path: Path) -> None:
    identity = nodes[0].directory / "data/identity"
    if not identity.exists():
        identity.symlink_to(nodes[0].directory.parent / "ca/nodes/alpha")
    peer_url = f"https://{nodes[0].address}"
    joined = swarm("join", nodes[1].address, "--data", nodes[0].data, "--peer-url", peer_url)
    assert (joined.returncode, joined.stdout) == (0, f"joined {nodes[1].address}\n"), joined
    failed = swarm("join", "127.0.0.1:9", "--data", nodes[0].data, "--peer-url", peer_url)
    assert failed.returncode == 1
    assert "(502)" in failed.stderr

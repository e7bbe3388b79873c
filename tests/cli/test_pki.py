"""``swarm pki`` as an operator types it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from swarm.cli.main import main
from swarm.pki import peer_id, read_certificates, read_private_key

Pki = Callable[..., tuple[int, str, str]]


@pytest.fixture
def pki(capsys: pytest.CaptureFixture[str]) -> Pki:
    """Run ``swarm pki …``: exit code, stdout, stderr."""

    def run(*arguments: str | Path) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main(["pki", *map(str, arguments)])
        out, err = capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return ended.value.code, out, err

    return run


def documents(ran: tuple[int, str, str]) -> list[dict[str, Any]]:
    code, out, err = ran
    assert code == 0, err
    return [json.loads(line) for line in out.splitlines()]


def test_from_nothing_to_a_node_and_back(pki: Pki, tmp_path: Path) -> None:
    ca, node = tmp_path / "ca", tmp_path / "ca" / "nodes" / "n1"
    [authority] = documents(pki("init", ca, "--name", "our CA", "--json"))
    assert authority["kind"] == "CA certificate" and authority["name"] == "our CA"

    code, out, _ = pki("issue", ca, "n1", "--host", "n1.example", "--host", "10.0.0.1")
    assert code == 0 and f"{node} is ready" in out and "n1.example, 10.0.0.1" in out
    own = peer_id(read_certificates(node / "cert.pem")[0])
    assert own.hex in out

    [key] = documents(pki("show", node / "key.pem", "--json"))
    assert key["peer_id"] == own.hex == peer_id(read_private_key(node / "key.pem").public_key()).hex
    assert [each["kind"] for each in documents(pki("show", node, "--json"))] == [
        "node certificate",
        "CA certificate",
    ]

    [renewed] = documents(pki("renew", ca, "n1", "--days", "30", "--json"))
    assert renewed["peer_id"] == own.hex and round(renewed["days_left"]) == 30
    assert renewed["hosts"] == ["n1.example", "10.0.0.1"]

    [crl] = documents(pki("revoke", ca, "n1", "--json"))
    assert renewed["serial"] in crl["revoked"] and len(crl["revoked"]) == 2
    assert documents(pki("revoke", ca, "--json"))[0]["revoked"] == crl["revoked"]


def test_without_a_host_a_node_answers_to_its_name(pki: Pki, tmp_path: Path) -> None:
    pki("init", tmp_path)
    [node] = documents(pki("issue", tmp_path, "n1", "--out", tmp_path / "there", "--json"))
    assert node["hosts"] == ["n1"] and node["file"] == str(tmp_path / "there" / "cert.pem")


def test_nothing_is_overwritten(pki: Pki, tmp_path: Path) -> None:
    pki("init", tmp_path)
    pki("issue", tmp_path, "n1")
    before = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    for arguments in (["init", tmp_path], ["issue", tmp_path, "n1"]):
        code, _, err = pki(*arguments)
        assert code == 1 and "exists already" in err and len(err.splitlines()) == 1
    assert before == {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}


@pytest.mark.parametrize(
    "arguments",
    [
        ["issue", "ca", "n1", "--host", "a b"],
        ["issue", "ca", "a b"],
        ["issue", "ca", "n1", "--days", "0"],
        ["init", "ca", "--key-type", "rsa"],
        ["show", "absent"],
        ["frobnicate"],
    ],
)
def test_bad_arguments_are_usage_errors(
    pki: Pki, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert pki(*arguments)[0] == 2
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "arguments", [["issue", "ca", "n1"], ["renew", "ca", "n1"], ["revoke", "ca"], ["show", "file"]]
)
def test_what_cannot_be_done_is_said_in_a_line(
    pki: Pki, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("no PEM")
    code, out, err = pki(*arguments)
    assert code == 1 and not out and len(err.splitlines()) == 1


def test_the_peer_id_is_what_openssl_computes(
    pki: Pki, tmp_path: Path, need_program: Callable[[str], str]
) -> None:
    """The pipeline in the README of ``certs``."""
    openssl = need_program("openssl")
    pki("init", tmp_path)
    [node] = documents(pki("issue", tmp_path, "n1", "--json"))
    script = '"$0" x509 -in "$1" -noout -pubkey | "$0" pkey -pubin -outform DER | "$0" dgst -sha256 -r'
    done = subprocess.run(
        ["sh", "-c", script, openssl, node["file"]], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.split()[0] == node["peer_id"]

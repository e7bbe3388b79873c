"""How ``twistd swarm`` starts, refuses to start and ends: what an operator sees."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from swarm.tap import Options, makeService
from swarm.testing.processes import Node, Swarm, child_environment, swarm_in, wait_until

from .programs import LONG, Ran, noise, run

ANYWHERE = ("--http=tcp:0:interface=127.0.0.1", "--peer=tcp:0:interface=127.0.0.1")


@pytest.fixture
def refused(tmp_path: Path, twistd: list[str]) -> Callable[..., Ran]:
    """Run a node that must not come up."""

    def start(*options: str) -> Ran:
        command = [*twistd, "-n", "--pidfile=", "swarm", *ANYWHERE, *options]
        ran = run(*command, cwd=tmp_path, env=child_environment())
        assert ran.code != 0
        return ran

    return start


def complaint(*options: str) -> str:
    """What ``twistd`` would print and exit with, without the time it takes to start."""
    parsed = Options()
    parsed.parseOptions(options)
    with pytest.raises(SystemExit) as caught:
        makeService(parsed)
    text = str(caught.value)
    assert "\n" not in text
    return text


@pytest.fixture(scope="module")
def swarm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Swarm]:
    with swarm_in(tmp_path_factory.mktemp("starting") / "swarm") as made:
        yield made


@pytest.fixture(scope="module")
def node(swarm: Swarm) -> Node:
    return swarm.add("one", "--copies=1")


@pytest.mark.parametrize(
    ("option", "named"),
    [
        ("--quota=much", "quota: not a number of bytes: 'much'"),
        ("--copies=0", "copies: "),
        ("--join=nonsense", "join: an address is HOST:PORT"),
        ("--deny=post", "deny: can deny get, put, delete, not post"),
        ("--name=a/b", "name: "),
        ("--http=bogus:1", "http: not a server endpoint"),
        ("--http=tcp:port", "http: not a server endpoint"),
        ("--peer=tcp", "peer: not a server endpoint"),
        ("--tokens=missing", "tokens: "),
        ("--ca=missing", "ca, cert and key go together"),
        ("--config=missing.toml", "missing.toml: "),
    ],
)
def test_a_bad_option_is_one_line_that_names_it(option: str, named: str) -> None:
    assert complaint(*ANYWHERE, option).startswith(f"swarm: {named}")


def test_twistd_shows_that_line_and_nothing_else(refused: Callable[..., Ran]) -> None:
    ran = refused("--quota=much")
    assert (ran.code, ran.text) == (1, "")
    assert ran.err == "swarm: quota: not a number of bytes: 'much'\n"


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("colour = 'red'\n", "unknown setting: colour"),
        ("[web]\ncolour = 'red'\n", "unknown setting: web.colour"),
        ("[web]\nhead = 'long'\n", "web.head: 'long' is not float"),
        ("quota = 'much'\n", "quota: not a number of bytes"),
        ("quota = [\n", "c.toml: "),
    ],
)
def test_a_bad_config_file_is_one_line_that_names_the_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, named: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("c.toml").write_text(text)
    assert complaint("--config=c.toml").startswith(f"swarm: {named}")


def test_an_impossible_port_is_one_line_that_names_it(refused: Callable[..., Ran]) -> None:
    for which in ("http", "peer"):
        ran = refused(f"--{which}=tcp:99999:interface=127.0.0.1")
        assert ran.err.splitlines()[-1].startswith(f"swarm: cannot start: {which}: ")
        assert "Traceback" not in ran.text + ran.err


def test_an_unknown_option_is_named(refused: Callable[..., Ran]) -> None:
    ran = refused("--colour=red")
    assert "--colour" in ran.text + ran.err


def test_a_port_in_use_is_said_and_ends_the_node(refused: Callable[..., Ran], tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for which in ("http", "peer"):
            ran = refused(f"--{which}=tcp:{port}:interface=127.0.0.1")
            said = [line for line in ran.err.splitlines() if line.startswith("swarm: cannot start: ")]
            assert said and f"{which}: " in said[0] and str(port) in said[0]
            assert "Traceback" not in ran.err + ran.text


def test_a_second_node_on_the_same_data_is_refused(refused: Callable[..., Ran], node: Node) -> None:
    before = node.put(b"still served")
    ran = refused(f"--data={node.data}")
    assert "swarm: cannot start: another process uses" in ran.err
    assert "Traceback" not in ran.err + ran.text
    assert node.get(before) == b"still served"


def test_settings_come_from_the_file_and_a_flag_wins(
    tmp_path: Path, twistd: list[str], need_program: Callable[[str], str]
) -> None:
    """With nothing but a file: an identity is made on the spot, and a UNIX socket serves."""
    (tmp_path / "c.toml").write_text(
        'name = "paris"\ncluster = "files"\ndata = "here"\nquota = "1 MiB"\nreserve = 0\ncopies = 1\n'
        'http = "unix:socket"\npeer = "tcp:0:interface=127.0.0.1"\n[web]\nidle = 30\n'
    )
    curl, log = need_program("curl"), tmp_path / "log"
    command = [*twistd, "-n", "--pidfile=", "swarm", "--config=c.toml", "--name=oslo"]

    def ask(path: str, *options: str) -> Ran:
        return run(curl, "-sS", "--unix-socket", tmp_path / "socket", *options, f"http://node{path}")

    for _ in range(2):  # a socket left behind by kill -9 is no obstacle
        with log.open("ab") as out:
            process = subprocess.Popen(command, cwd=tmp_path, env=child_environment(), stdout=out, stderr=out)
        try:
            wait_until(lambda: ask("/health").code == 0, log.read_text(), LONG)
            ready = json.loads(ask("/ready").out)
            assert (ready["name"], ready["cluster"]) == ("oslo", "files")
            assert ready["usage"]["quota"] == 1 << 20
            assert (tmp_path / "here/identity/key.pem").stat().st_mode & 0o777 == 0o600
            assert ask("/f", "-X", "PUT", "-d", "over a socket, so local").code == 0
        finally:
            process.kill()
            process.wait()


def test_sigterm_ends_a_busy_node_and_leaves_nothing_half_done(swarm: Swarm, node: Node) -> None:
    """An upload and a slow download are under way."""
    whole = noise(3 << 20)
    digest = node.put(whole)
    with (
        socket.create_connection(("127.0.0.1", node.http_port)) as upload,
        socket.create_connection(("127.0.0.1", node.http_port)) as download,
    ):
        upload.sendall(b"PUT /half HTTP/1.1\r\nHost: n\r\nContent-Length: 9999999\r\n\r\n" + bytes(2 << 20))
        download.sendall(f"GET /{digest} HTTP/1.1\r\nHost: n\r\n\r\n".encode())
        assert download.recv(12) == b"HTTP/1.1 200"
        node.kill(signal.SIGTERM)  # fails if it takes more than 20 s
    assert node.process is not None
    assert node.process.returncode == -signal.SIGTERM  # twistd's way; systemd counts it as success
    assert "Server Shut Down" in node.log and "Traceback" not in node.log
    assert not list((node.data / "partial").iterdir())
    assert not list((node.data / "blobs").glob(".*"))
    node.start()
    assert node.ready()["usage"]["blobs"] == len(list(node.data.glob("blobs/*/*/*/data")))
    assert node.get(digest) == whole

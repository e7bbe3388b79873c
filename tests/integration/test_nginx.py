"""The configuration of ``docs/nginx.conf``, in front of a node with a UNIX socket, and of one with a port."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from attrs import frozen

from swarm.testing.processes import Node, child_environment, free_port, swarm_in, wait_until

from .programs import LONG, Tap, done, noise, run, status

MIB = 1 << 20
DOCUMENTED = Path(__file__).parents[2] / "docs" / "nginx.conf"
AROUND = """
{user} daemon off; master_process off; pid nginx.pid; error_log error.log info;
events {{ }}
http {{
  access_log off;
  client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path f; uwsgi_temp_path u; scgi_temp_path s;
  {documented}
}}
"""


@frozen
class Front:
    """An nginx, and how curl trusts it."""

    url: str
    directory: Path
    curl: tuple[str, ...]

    def ask(self, *arguments: str | Path) -> bytes:
        return done(*self.curl, "-sSf", *arguments).out

    def status(self, *arguments: str | Path) -> str:
        program, *trust = self.curl
        return status(program, *trust, *arguments)


@pytest.fixture(scope="module", params=["unix", "tcp"])
def fronted(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    need_program: Callable[[str], str],
) -> Iterator[tuple[Front, Node, Node, Tap]]:
    """nginx, the node behind it, and a node that holds what that one has not, behind a tap."""
    nginx, openssl, curl = need_program("nginx"), need_program("openssl"), need_program("curl")
    directory = tmp_path_factory.mktemp("nginx")
    socket, port = directory / "http.sock", free_port()
    cert, key = directory / "cert.pem", directory / "key.pem"
    subject = ("-subj", "/CN=files.example.org", "-addext", "subjectAltName=DNS:files.example.org")
    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256")
    done(openssl, "req", "-x509", "-nodes", *subject, "-days", "2", *curve, "-keyout", key, "-out", cert)
    tokens = directory / "tokens"
    tokens.write_text(f"anonymous get\n{hashlib.sha256(b'secret').hexdigest()} put,delete\n")
    with swarm_in(directory / "swarm") as swarm:
        tap = Tap(free_port())
        holder = swarm.add(
            "holder", "--copies=1", f"--peer=tcp:{tap.port}:interface=127.0.0.1", f"--advertise={tap.address}"
        )
        holder.peer_port = int(tap.address.rpartition(":")[2])
        public = f"--public-url=https://files.example.org:{port}"
        node = swarm.add("behind", "--copies=1", f"--tokens={tokens}", public, join=(holder,), start=False)
        backend = f"127.0.0.1:{node.http_port}"
        if request.param == "unix":
            backend = f"unix:{socket}"
            node.command += [f"--http=unix:{socket}:mode=660"]
            node.process = subprocess.Popen(
                node.command, cwd=node.directory, env=child_environment(), stderr=subprocess.DEVNULL,
                stdout=(node.directory / "log").open("wb"),
            )  # fmt: skip
            health = (curl, "-sSf", "--unix-socket", str(socket), "http://node/health")
            wait_until(lambda: run(*health).code == 0, "it serves", LONG)
        else:
            node.start()
        documented = DOCUMENTED.read_text()
        for ours, here in (
            ("unix:/run/swarm/http.sock", backend),
            ("listen 443 ssl", f"listen 127.0.0.1:{port} ssl"),
            ("/etc/ssl/files.example.org.pem", str(cert)),
            ("/etc/ssl/private/files.example.org.key", str(key)),
        ):
            assert ours in documented
            documented = documented.replace(ours, here)
        user = "user root;" if os.geteuid() == 0 else ""
        (directory / "nginx.conf").write_text(AROUND.format(user=user, documented=documented))
        process = subprocess.Popen([nginx, "-p", directory, "-c", "nginx.conf"], stderr=subprocess.DEVNULL)
        resolve = ("--resolve", f"files.example.org:{port}:127.0.0.1")
        front = Front(f"https://files.example.org:{port}", directory, (curl, "--cacert", str(cert), *resolve))
        try:
            wait_until(lambda: front.status(f"{front.url}/health") == "200", "nginx serves", LONG)
            wait_until(
                lambda: (
                    [each["state"] for each in json.loads(front.ask(f"{front.url}/ready"))["peers"]]
                    == ["alive"]
                ),
                "the nodes know each other",
                LONG,
            )
            yield front, node, holder, tap
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(20)
            tap.close()


def test_a_put_passes_without_being_stored_on_the_way(
    fronted: tuple[Front, Node, Node, Tap], tmp_path: Path
) -> None:
    front, node, _, _ = fronted
    data, up = noise(8 * MIB), tmp_path / "up.bin"
    up.write_bytes(data)
    may = ("-H", "Authorization: Bearer secret")
    answer = json.loads(front.ask(*may, "-T", up, f"{front.url}/"))
    assert answer["sha512"] == hashlib.sha512(data).hexdigest() and node.has(answer["sha512"])
    assert "buffered to a temporary file" not in (front.directory / "error.log").read_text()
    assert front.ask(f"{front.url}/{answer['sha512']}") == data
    assert front.status(*may, "-X", "DELETE", f"{front.url}/{answer['sha512']}") == "200"
    assert front.status(f"{front.url}/{answer['sha512']}") == "404"


def test_chunks_pass_too(fronted: tuple[Front, Node, Node, Tap]) -> None:
    front, _, _, _ = fronted
    data = noise(3 * MIB)
    may = ("-H", "Authorization: Bearer secret")
    ran = subprocess.run(
        [*front.curl, "-sSf", *may, "-T", "-", f"{front.url}/piped"],
        input=data, capture_output=True, timeout=LONG, check=True,
    )  # fmt: skip
    assert json.loads(ran.stdout)["sha512"] == hashlib.sha512(data).hexdigest()


@pytest.mark.parametrize("expect", ["Expect: 100-continue", "Expect:"])
def test_a_refusal_reaches_the_client(
    fronted: tuple[Front, Node, Node, Tap], tmp_path: Path, expect: str
) -> None:
    """Everybody is local behind a proxy, so only tokens tell who may write."""
    front, _, _, _ = fronted
    up = tmp_path / "up.bin"
    up.write_bytes(bytes(16 * MIB))
    assert front.status("-H", expect, "-T", up, f"{front.url}/") == "401"
    assert front.status("-H", expect, "-H", "Authorization: Bearer guess", "-T", up, f"{front.url}/") == "401"


def test_ranges_and_validators_pass(fronted: tuple[Front, Node, Node, Tap], tmp_path: Path) -> None:
    front, _, holder, _ = fronted
    data = noise(6 * MIB)
    digest = holder.put(data, "film.mkv")
    url = f"{front.url}/{digest}"
    assert front.ask("-r", "5000000-5000099", url) == data[5000000:5000100]
    part = tmp_path / "part"
    part.write_bytes(data[:MIB])
    front.ask("-C", "-", "-o", part, url)
    assert part.read_bytes() == data
    assert front.status("-r", f"{len(data)}-", url) == "416"
    assert front.status("-H", f'If-None-Match: "{digest}"', url) == "304"
    head = front.ask("-I", url).decode()
    assert f'etag: "{digest}"' in head.lower() and f"content-length: {len(data)}" in head.lower()


def test_bytes_of_a_pull_are_not_held_back(fronted: tuple[Front, Node, Node, Tap], tmp_path: Path) -> None:
    """The client has the first ones while the tap keeps the last ones."""
    front, _, holder, tap = fronted
    data = noise(24 * MIB)
    digest = holder.put(data)
    tap.pace = 4 * MIB
    out = tmp_path / "out"
    running = subprocess.Popen([*front.curl, "-sSfN", "-o", out, f"{front.url}/{digest}"])
    try:
        wait_until(lambda: out.exists() and out.stat().st_size > MIB, "bytes arrive", LONG)
        assert out.stat().st_size < len(data)
        tap.open()
        assert running.wait(LONG) == 0
        assert out.read_bytes() == data
    finally:
        running.kill()


def test_a_metalink_names_the_public_address(fronted: tuple[Front, Node, Node, Tap]) -> None:
    front, _, holder, _ = fronted
    digest = holder.put(noise(1000))
    assert f"{front.url}/{digest}</url>".encode() in front.ask(f"{front.url}/{digest}.meta4")

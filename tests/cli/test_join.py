"""join speaks to the node's own peer port, as the node, over mutual TLS 1.3 and nothing less."""

from __future__ import annotations

import datetime
import json
import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from swarm.pki import AuthorityDirectory

NOW = datetime.datetime.now(datetime.UTC)


class _PeerPort(BaseHTTPRequestHandler):
    asked: list[tuple[str, str]]

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self.asked.append((self.path, body))
        failed = "9999" in body
        answer = {"error": "greeting failed", "detail": "no answer"} if failed else {"joined": True}
        self.send_response(502 if failed else 200)
        self.end_headers()
        self.wfile.write(json.dumps(answer).encode())


@pytest.fixture
def authority(tmp_path: Path) -> AuthorityDirectory:
    return AuthorityDirectory.create(tmp_path / "ca", now=NOW)


@pytest.fixture
def peer_port(authority: AuthorityDirectory, tmp_path: Path) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    identity = authority.issue("alpha", ["127.0.0.1"], now=NOW, out=tmp_path / "data/identity")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(identity / "cert.pem", identity / "key.pem")
    context.load_verify_locations(identity / "ca.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    asked: list[tuple[str, str]] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Port", (_PeerPort,), {"asked": asked}))
    server.handle_error = lambda *_: None  # type: ignore[method-assign]  # a refused handshake is no news
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield f"https://127.0.0.1:{server.server_address[1]}", asked
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_node_is_told_whom_to_greet(run, peer_port, tmp_path) -> None:
    url, asked = peer_port
    assert run("join", "127.0.0.2:7041", "--data", tmp_path / "data", "--peer-url", url) == (
        0,
        "joined 127.0.0.2:7041\n",
        "",
    )
    assert asked == [("/join/", "peer=127.0.0.2%3A7041")]


def test_a_failed_greeting_gives_the_reason(run, peer_port, tmp_path) -> None:
    url, _ = peer_port
    code, _, err = run("join", "127.0.0.2:9999", "--data", tmp_path / "data", "--peer-url", url)
    assert (code, err) == (1, "swarm: no answer (502)\n")


def test_a_node_of_another_authority_is_not_spoken_to(run, peer_port, tmp_path) -> None:
    url, asked = peer_port
    other = AuthorityDirectory.create(tmp_path / "other-ca", now=NOW)
    other.issue("alpha", ["127.0.0.1"], now=NOW, out=tmp_path / "other/identity")
    code, _, err = run("join", "127.0.0.2:7041", "--data", tmp_path / "other", "--peer-url", url)
    assert code == 1
    assert "its certificate is not accepted" in err
    assert asked == []


def test_a_name_the_certificate_lacks_is_not_spoken_to(run, peer_port, tmp_path) -> None:
    url, asked = peer_port
    elsewhere = url.replace("127.0.0.1", "localhost")
    code, _, err = run("join", "127.0.0.2:7041", "--data", tmp_path / "data", "--peer-url", elsewhere)
    assert code == 1
    assert "its certificate is not accepted" in err
    assert asked == []

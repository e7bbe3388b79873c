"""Whatever a server says, the command line ends with one line and exit code 1, never a traceback."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from swarm.cli.connection import Connection
from swarm.cli.session import Failure

ID = "a" * 128


class Script:
    """Answers every connection with the same bytes, once it has read a request's head, and closes it."""

    def __init__(self) -> None:
        self.answer = b""
        self.heads: list[bytes] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            connection, _ = self._listener.accept()
            with connection:
                head = b""
                while b"\r\n\r\n" not in head and (more := connection.recv(65536)):
                    head += more
                if not head:
                    return
                self.heads.append(head)
                try:
                    connection.sendall(self.answer)
                    connection.shutdown(socket.SHUT_WR)
                    while connection.recv(65536):
                        pass
                except OSError:
                    pass

    def close(self) -> None:
        socket.create_connection(self._listener.getsockname()).close()
        self._thread.join()
        self._listener.close()


@pytest.fixture
def script() -> Iterator[Script]:
    server = Script()
    yield server
    server.close()


HOSTILE = {
    "nothing": b"",
    "not HTTP": b"220 ftp ready\r\n",
    "binary": bytes(range(256)) * 40,
    "an endless line": b"HTTP/1.1 200 " + b"x" * 200_000,
    "too many fields": b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 2000 + b"\r\n",
    "interim answers without end": b"HTTP/1.1 100 Continue\r\n\r\n" * 3000,
    "a huge interim answer": b"HTTP/1.1 100 Continue\r\n" + b"a: b\r\n" * 9000 + b"\r\n",
    "an impossible length": b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n",
    "a length that is no number": b"HTTP/1.1 200 OK\r\nContent-Length: 0x10\r\n\r\n{}",
    "a short body": b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{}",
    "broken chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    "a status without a number": b"HTTP/1.1 abc OK\r\n\r\n",
    "a redirect": b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n",
    "deep JSON": b"HTTP/1.1 200 OK\r\n\r\n" + b"[" * 100_000,
    "a list": b"HTTP/1.1 200 OK\r\n\r\n[1]",
    "an error with deep JSON": b"HTTP/1.1 500 Oops\r\n\r\n" + b"[" * 60_000,
    "an error that is a list": b"HTTP/1.1 500 Oops\r\n\r\n[1]",
    "an encoded body": b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\nxx",
    "a range nobody asked for": b"HTTP/1.1 206 Partial\r\nContent-Range: bytes 5-9/10\r\n\r\nxxxxx",
    "another blob": b'HTTP/1.1 200 OK\r\nETag: "' + b"b" * 128 + b'"\r\nContent-Length: 2\r\n\r\nxx',
}


@pytest.mark.parametrize("what", HOSTILE)
@pytest.mark.parametrize("command", ["get", "put", "stat", "status", "rm"])
def test_a_hostile_server(run, script: Script, tmp_path: Path, what: str, command: str) -> None:
    script.answer = HOSTILE[what]
    (tmp_path / "file").write_bytes(b"content" * 1000)
    arguments = {"get": [ID, "-o", tmp_path / "out"], "put": [tmp_path / "file"], "status": []}.get(
        command, [ID]
    )
    code, out, err = run(command, *arguments, "--url", script.url)
    assert (code, out) == (1, "")
    assert err.startswith("swarm: ")
    assert err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_token_does_not_follow_a_redirect(run, script: Script, tmp_path: Path) -> None:
    script.answer = HOSTILE["a redirect"]
    (tmp_path / "token").write_text("word")
    run("status", "--url", script.url, "--token-file", tmp_path / "token")
    assert len(script.heads) == 1


@pytest.mark.parametrize(
    "url",
    [
        "",
        "127.0.0.1:7040",
        "ftp://a",
        "http://",
        "http://a:b",
        "http://a:99999",
        "http://a/?q",
        "http://[::1",
    ],
)
def test_what_is_no_url_of_a_node(url: str) -> None:
    with pytest.raises(Failure, match="not a URL"):
        Connection(url)


def test_a_prefix_in_the_url_is_kept(script: Script) -> None:
    script.answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
    with Connection(script.url + "/blobs/") as connection:
        assert connection.document("GET", "/ready") == {}
    assert script.heads[0].startswith(b"GET /blobs/ready HTTP/1.1\r\n")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.binary(max_size=200),
    st.sampled_from([b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 500 X\r\n\r\n", b"HTTP/1.1 "]),
)
def test_any_bytes_are_an_answer_or_a_failure(script: Script, tail: bytes, head: bytes) -> None:
    script.answer = head + tail
    with Connection(script.url) as connection:
        try:
            assert isinstance(connection.document("GET", "/ready"), dict)
        except Failure as e:
            assert e.format_message()

"""A node's public API in a thread, as far as the command line uses it, with faults on demand."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
from attrs import define, field

from swarm.cli.main import main
from swarm.model.filenames import Filename

Run = Callable[..., tuple[int, str, str]]


@define
class NodeTwin:
    """What the node keeps, how it misbehaves, and what it was asked."""

    url: str = ""
    blobs: dict[str, bytes] = field(factory=dict)
    names: dict[str, str] = field(factory=dict)
    paths: list[str] | None = None
    asked: list[tuple[str, str, dict[str, str]]] = field(factory=list)
    ready: tuple[int, dict[str, Any]] = (200, {"ready": True, "reasons": [], "peers": []})
    cut_after: int | None = None  # bytes after which every body breaks off
    corrupt: bool = False
    ignore_ranges: bool = False
    refuse_put: tuple[int, str] | None = None  # before 100 Continue
    busy: int = 0  # how many requests are answered 503
    other_id: bool = False  # a PUT is answered with another id
    status: int = 201
    disposition: str | None = None

    def keep(self, data: bytes, name: str = "file.bin") -> str:
        digest = hashlib.sha512(data).hexdigest()
        self.blobs[digest] = data
        self.names[digest] = name
        return digest

    def ranges(self) -> list[str]:
        return [
            headers["range"] for method, _, headers in self.asked if method == "GET" and "range" in headers
        ]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    twin: NodeTwin

    def log_message(self, format: str, *args: object) -> None:
        pass

    def handle_expect_100(self) -> bool:
        if self.twin.refuse_put:
            status, detail = self.twin.refuse_put
            self._note()
            self._json(status, {"error": "refused", "detail": detail})
            self.close_connection = True
            return False
        return super().handle_expect_100()

    def do_PUT(self) -> None:
        self._note()
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            body = self.rfile.read(int(self.headers["Content-Length"]))
        digest = self.twin.keep(body, unquote(self.path[1:]))
        if self.twin.other_id:
            digest = "0" * 128
        self._json(self.twin.status, {"sha512": digest, "length": len(body), "holders": ["alpha"]})

    def do_DELETE(self) -> None:
        self._note()
        digest, _, everywhere = self.path[1:].partition("/")
        if self.twin.blobs.pop(digest, None) is None:
            return self._json(404, {"error": "no such blob", "detail": "no such blob"})
        return self._json(200, {"deleted": True, "confirmed": ["alpha", "beta"] if everywhere else []})

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        self._note()
        parts = urlsplit(self.path)
        if parts.path == "/ready":
            return self._json(*self.twin.ready)
        if parts.path == "/find/" and self.twin.paths is not None:
            return self._find(parse_qs(parts.query))
        digest, _, rest = parts.path[1:].partition("/")
        if digest not in self.twin.blobs:
            return self._json(404, {"error": "not found", "detail": "no such blob"})
        if rest == "locations":
            return self._json(200, {"sha512": digest, "nodes": [{"name": "alpha", "state": "complete"}]})
        if self.twin.busy:
            self.twin.busy -= 1
            return self._json(503, {"error": "overloaded", "detail": "busy"}, {"Retry-After": "1"})
        return self._blob(digest)

    def _blob(self, digest: str) -> None:
        data = self.twin.blobs[digest]
        size, start = len(data), 0
        match = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        ranged = match and not self.twin.ignore_ranges and self.headers.get("If-Range") == f'"{digest}"'
        if ranged and match:
            start = int(match[1])
        if start >= size and ranged:
            return self._json(416, {"error": "range"}, {"Content-Range": f"bytes */{size}"})
        if self.twin.corrupt:
            data = bytes([data[0] ^ 1]) + data[1:-1] + bytes([data[-1] ^ 1])
        self.send_response(206 if ranged else 200)
        if ranged:
            self.send_header("Content-Range", f"bytes {start}-{size - 1}/{size}")
        self.send_header("Content-Length", str(size - start))
        self.send_header("ETag", f'"{digest}"')
        disposition = self.twin.disposition or Filename(self.twin.names[digest]).content_disposition
        self.send_header("Content-Disposition", disposition)
        self.end_headers()
        if self.command == "HEAD":
            return None
        stop = size if self.twin.cut_after is None else min(size, start + self.twin.cut_after)
        self.wfile.write(data[start:stop])
        self.close_connection = stop < size
        return None

    def _find(self, query: dict[str, list[str]]) -> None:
        prefix, after = query["prefix"][0], query.get("after", [""])[0]
        limit = int(query.get("limit", ["1000000"])[0])
        paths = [p for p in sorted(self.twin.paths or ()) if p.startswith(prefix) and p > after][:limit]
        body = "".join(f"{path}\n" for path in paths).encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _note(self) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.twin.asked.append((self.command, self.path, headers))

    def _json(self, status: int, document: dict[str, Any], headers: dict[str, str] | None = None) -> None:
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


@pytest.fixture
def node() -> Iterator[NodeTwin]:
    twin = NodeTwin()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"twin": twin}))
    server.daemon_threads = True
    twin.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield twin
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def run(node: NodeTwin, capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command line against the twin: exit code, stdout, stderr."""
    monkeypatch.setenv("SWARM_URL", node.url)
    monkeypatch.setattr("swarm.cli.download.LONGEST_PAUSE", 0.01)

    def call(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as end:
            main([str(each) for each in arguments])
        out, err = capfdbinary.readouterr()
        code = end.value.code
        assert isinstance(code, int)
        return code, out.decode("latin-1"), err.decode()

    return call

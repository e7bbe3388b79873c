"""A bad peer: a program that joins a swarm with a proper certificate and misbehaves as told.

``python -m swarm.testing.liars --identity DIR --port N --name NAME --blob FILE …``. It greets, says
it holds the blob (``--claim`` may say other things), serves midstates and ranges of it, and breaks
the rules it was told to break. It writes a JSON line to stdout for each request it got.

Shares no code with the peer port it imitates but values and hashing, and needs no reactor: threads
and blocking sockets, so that what it does on the wire is exactly what is written here.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import re
import socket
import ssl
import struct
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NoReturn

from attrs import define, field, frozen

from swarm.hashing import load
from swarm.model.grains import Grains
from swarm.model.messages import ClusterDocument, Greeting, Node
from swarm.model.midstates import Midstates
from swarm.pki import CA, CERTIFICATE, KEY, peer_id, read_certificates

_RANGE = re.compile(r"bytes=(\d+)-(\d+)")
_BLOB = re.compile(r"/blobs/([0-9a-f]{128})(|/midstates|/corrupt)(?:\?.*)?")
_PIECE = 64 << 10
_GREET_EVERY = 5.0

#: What ``--answer`` may be: how a request for bytes is answered.
ANSWERS = (
    "range",  # as it should be
    "whole",  # 200 and everything
    "shifted",  # the Content-Range of the bytes after it
    "no-range",  # a 206 that does not say which
    "gzip",  # a content coding nobody asked for
    "chunked",  # a transfer coding instead of a length
    "etag",  # an ETag that names other bytes
    "longer",  # more bytes than Content-Length says
    "heads",  # a head without end
    "chatter",  # 1xx without end
    "busy",  # 503, always
    "broken",  # 500, always
    "garbage",  # not HTTP
    "nothing",  # silence
)
#: What ``--list`` may be: which midstates it serves.
LISTS = (
    "true",  # those of the true bytes
    "own",  # those of the bytes it sends, so that both lies agree
    "joined",  # the same up to the grain it withholds, and true from there on: nothing it sends refutes it
    "bent",  # true but for one boundary
    "fickle",  # bent, another way each time
    "none",  # 404
    "garbage",  # not a list
)


@frozen
class Lies:
    """What it does wrong. Grain numbers, and bytes of each body after which something happens."""

    flip: frozenset[int] = frozenset()
    answer: str = "range"
    midstates: str = "true"
    claim: int | None = None
    cut: int | None = None
    reset: int | None = None
    stall: int | None = None
    drip: int | None = None
    withhold: int | None = None  # a grain it is too busy to send
    have: str | None = None  # with every answer: it has no more than that, so it only passes on


@define
class Blob:
    """The true bytes, the bytes it sends, and its lists."""

    true: bytes
    lies: Lies
    sent: bytes = field(init=False)
    digest: str = field(init=False)
    _fickle: int = 0

    def __attrs_post_init__(self) -> None:
        self.digest = hashlib.sha512(self.true).hexdigest()
        data, grains = bytearray(self.true), Grains.of(len(self.true))
        for grain in self.lies.flip:
            data[(grains.start(grain) + grains.stop(grain)) // 2] ^= 0x40
        self.sent = bytes(data)
        if self.lies.claim is not None:
            self.sent = self.sent[: self.lies.claim].ljust(self.lies.claim, b"x")

    def list(self) -> bytes:
        """What it gives as midstates; empty for a 404."""
        kind = self.lies.midstates
        if kind == "none":
            return b""
        if kind == "garbage":
            return b"SWMS" + bytes(40)
        if kind == "joined":
            sent, true = _midstates(self.sent), _midstates(self.true)
            at = 64 * (self.lies.withhold or 0)
            return Midstates(true.grains, sent.inner[:at] + true.inner[at:]).encode()
        midstates = _midstates(self.true if kind != "own" and self.lies.claim is None else self.sent)
        if kind not in ("bent", "fickle") or not midstates.inner:
            return midstates.encode()
        self._fickle += 1
        inner = bytearray(midstates.inner)
        at = len(inner) // 128 * 64 + (self._fickle % 64 if kind == "fickle" else 0)
        inner[at] ^= 0x40
        return Midstates(midstates.grains, bytes(inner)).encode()


def _midstates(data: bytes) -> Midstates:
    hasher = load().hasher()
    hasher.update(data)
    midstates = hasher.midstates()
    assert midstates is not None, "a liar needs a libcrypto to lie well"
    return midstates


class Gone(Exception):
    """The connection is over."""


@define
class Connection:
    """One connection, answered until somebody ends it."""

    liar: Liar
    socket: ssl.SSLSocket
    _buffer: bytes = b""

    def serve(self) -> None:
        """Answer requests one after the other."""
        with contextlib.suppress(Gone, OSError, ValueError), self.socket:
            while True:
                method, path, fields = self._read_head()
                body = self._read(int(fields.get("content-length", "0")))
                self.liar.note(method=method, path=path, range=fields.get("range", ""), body=body[:1024])
                self._answer(method, path, fields)

    def _more(self) -> None:
        data = self.socket.recv(_PIECE)
        if not data:
            raise Gone
        self._buffer += data

    def _read_head(self) -> tuple[str, str, dict[str, str]]:
        while b"\r\n\r\n" not in self._buffer:
            self._more()
        head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        method, path, _ = first.split(" ")
        return method, path, {k.lower(): v.strip() for k, _, v in (each.partition(":") for each in lines)}

    def _read(self, count: int) -> str:
        while len(self._buffer) < min(count, _PIECE):
            self._more()
        body, self._buffer = self._buffer[:count], self._buffer[count:]
        return body.decode("latin-1")

    def send(self, data: bytes) -> None:
        """Send everything."""
        self.socket.sendall(data)

    def _plain(self, status: str, body: bytes = b"", *more: str) -> None:
        head = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *more]
        self.send("\r\n".join([*head, "", ""]).encode() + body)

    def _answer(self, method: str, path: str, fields: dict[str, str]) -> None:
        match = _BLOB.fullmatch(path)
        blob = self.liar.blobs.get(match[1]) if match else None
        what = match[2] if match else path
        if what == "/cluster/":
            self._plain("200 OK", self.liar.document().encode(), "Content-Type: application/json")
        elif what == "/corrupt":
            self._plain("202 Accepted")
        elif method == "PUT":
            self._plain("507 Insufficient Storage", b"", "Connection: close")
            raise Gone
        elif blob is None:
            self._plain("404 Not Found")
        elif method == "HEAD":
            told = "" if blob.lies.have is None else f"Swarm-Have: {blob.lies.have}\r\n"
            self.send(f"HTTP/1.1 200 OK\r\nContent-Length: {len(blob.sent)}\r\n{told}\r\n".encode())
        elif not what:
            self._bytes(blob, fields.get("range", ""))
        elif given := blob.list():
            self._plain("200 OK", given, "Content-Type: application/octet-stream")
        else:
            self._plain("404 Not Found")

    def _bytes(self, blob: Blob, wanted: str) -> None:
        """The place where it lies."""
        lies, data = blob.lies, blob.sent
        match = _RANGE.fullmatch(wanted)
        first, last = (int(match[1]), int(match[2])) if match else (0, len(data) - 1)
        kind, head = lies.answer, [f"Content-Range: bytes {first}-{last}/{len(data)}"]
        status, body = "206 Partial Content", data[first : last + 1]
        grains = Grains.of(len(data))
        if lies.have is not None:
            head += [f"Swarm-Have: {lies.have}"]
        if (held := lies.withhold) is not None and first < grains.stop(held) and grains.start(held) <= last:
            kind = "busy"
        if kind == "whole":
            status, body, head = "200 OK", data, []
        elif kind == "shifted":
            head = [f"Content-Range: bytes {first + 1}-{last + 1}/{len(data) + 2}"]
        elif kind == "no-range":
            head = []
        elif kind == "gzip":
            head += ["Content-Encoding: gzip"]
        elif kind == "chunked":
            self.send(
                "\r\n".join([f"HTTP/1.1 {status}", *head, "Transfer-Encoding: chunked", "", ""]).encode()
            )
            self.send(b"%x\r\n" % len(body) + body + b"\r\n0\r\n\r\n")
            return
        elif kind == "etag":
            head += [f'ETag: "{hashlib.sha512(b"other").hexdigest()}"']
        elif kind in ("busy", "broken"):
            self._plain("503 Busy" if kind == "busy" else "500 Oops", b"", "Retry-After: 1")
            return
        elif kind != "range" and kind != "longer":
            self._without_answer(kind)
        self.send("\r\n".join([f"HTTP/1.1 {status}", *head, f"Content-Length: {len(body)}", "", ""]).encode())
        self._body(lies, body + (b"more" if kind == "longer" else b""))

    def _without_answer(self, kind: str) -> NoReturn:
        if kind == "garbage":
            self.send(b"\x00\x01 this is no HTTP\r\n\r\n" * 3)
        while kind == "heads":
            self.send(b"X-More: " + b"x" * 1000 + b"\r\n" if self.liar.tick() else b"HTTP/1.1 206 Yes\r\n")
        while kind == "chatter":
            self.send(b"HTTP/1.1 102 Wait\r\nX-Wait: " + b"x" * 1000 + b"\r\n\r\n")
        self._keep_silent()

    def _keep_silent(self) -> NoReturn:
        while self.socket.recv(_PIECE):
            pass
        raise Gone

    def _body(self, lies: Lies, body: bytes) -> None:
        stops = [each for each in (lies.cut, lies.reset, lies.stall, lies.drip) if each is not None]
        stop = min([len(body), *stops])
        for at in range(0, stop, _PIECE):
            self.send(body[at : min(stop, at + _PIECE)])
        if stop == len(body):
            return
        if stop == lies.reset:
            # No time to linger: the kernel sends RST instead of FIN.
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        if stop == lies.stall:
            self._keep_silent()
        if stop != lies.drip:
            raise Gone
        for at in range(stop, len(body)):
            time.sleep(1)
            self.send(body[at : at + 1])


class Liar:
    """The program: it listens, greets, and hands out connections."""

    def __init__(self, identity: Path, port: int, name: str, cluster: str, blobs: Sequence[Blob]) -> None:
        self.blobs = {blob.digest: blob for blob in blobs}
        self.cluster = cluster
        self.port = port
        self._heads = threading.local()
        self._identity = identity
        self._lock = threading.Lock()
        certificate = read_certificates(identity / CERTIFICATE)[0]
        self._me = Node(name, peer_id(certificate), "", f"127.0.0.1:{port}")

    def tick(self) -> bool:
        """Was this asked before, in this thread?"""
        before: bool = getattr(self._heads, "begun", False)
        self._heads.begun = True
        return before

    def note(self, **what: str) -> None:
        """Tell who watches."""
        with self._lock:
            sys.stdout.write(json.dumps(what) + "\n")
            sys.stdout.flush()

    def document(self) -> ClusterDocument:
        """What it says of the swarm: only itself."""
        return ClusterDocument(self.cluster, self._me)

    def _context(self, protocol: int) -> ssl.SSLContext:
        context = ssl.SSLContext(protocol)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.check_hostname = False
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(self._identity / CA)
        context.load_cert_chain(self._identity / CERTIFICATE, self._identity / KEY)
        return context

    def greet_for_ever(self, address: str) -> None:
        """Introduce itself, again and again."""
        context = self._context(ssl.PROTOCOL_TLS_CLIENT)
        body = Greeting(self._me.name, "", self._me.mgmt_addr).encode()
        host, _, port = address.rpartition(":")
        head = (
            f"POST /cluster/ HTTP/1.1\r\nHost: {address}\r\nSwarm-Cluster: {self.cluster}\r\n"
            "Connection: close\r\n"
            f"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        while True:
            with (
                contextlib.suppress(OSError),
                socket.create_connection((host, int(port)), 5) as plain,
                context.wrap_socket(plain) as secure,
            ):
                secure.sendall(head.encode() + body)
                while secure.recv(_PIECE):
                    pass
            time.sleep(_GREET_EVERY)

    def serve_for_ever(self) -> None:
        """Accept."""
        context = self._context(ssl.PROTOCOL_TLS_SERVER)
        with socket.create_server(("127.0.0.1", self.port), backlog=128) as listening:
            self.note(event="listening")
            while True:
                plain, _ = listening.accept()
                threading.Thread(target=self._serve, args=(context, plain), daemon=True).start()

    def _serve(self, context: ssl.SSLContext, plain: socket.socket) -> None:
        with contextlib.suppress(OSError):
            plain.settimeout(120)
            Connection(self, context.wrap_socket(plain, server_side=True)).serve()


def _grains(text: str, size: int) -> Iterator[int]:
    count = Grains.of(size).count
    if text == "all":
        yield from range(count)
        return
    for each in filter(None, text.split(",")):
        yield int(each) % count


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run until killed."""
    parser = argparse.ArgumentParser(prog="python -m swarm.testing.liars", description=__doc__)
    parser.add_argument("--identity", type=Path, required=True, help="directory with CA, certificate, key")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--cluster", default="swarm")
    parser.add_argument("--blob", type=Path, action="append", required=True, help="the true bytes")
    parser.add_argument("--greet", action="append", default=[], metavar="HOST:PORT")
    parser.add_argument("--flip", default="", metavar="GRAINS", help="grains to spoil: 3,-1 or all")
    parser.add_argument("--answer", choices=ANSWERS, default="range")
    parser.add_argument("--list", choices=LISTS, default="true")
    parser.add_argument("--claim", type=int, help="say that the blob has so many bytes")
    parser.add_argument("--withhold", type=int, metavar="GRAIN", help="be too busy to send it")
    parser.add_argument("--have", metavar="bytes=A-B", help="say so with every answer: a partial holder")
    for option in ("cut", "reset", "stall", "drip"):
        parser.add_argument(
            f"--{option}", type=int, metavar="BYTES", help=f"{option} after so many of a body"
        )
    given = parser.parse_args(arguments)
    stops = (given.cut, given.reset, given.stall, given.drip)
    blobs = []
    for file in given.blob:
        true = file.read_bytes()
        flip = frozenset(_grains(given.flip, len(true)))
        blobs.append(
            Blob(true, Lies(flip, given.answer, given.list, given.claim, *stops, given.withhold, given.have))
        )
    liar = Liar(given.identity, given.port, given.name, given.cluster, blobs)
    for address in given.greet:
        threading.Thread(target=liar.greet_for_ever, args=(address,), daemon=True).start()
    liar.serve_for_ever()
    raise AssertionError("it serves until it is killed")


if __name__ == "__main__":
    main()

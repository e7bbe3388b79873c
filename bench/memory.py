"""P10: peak memory of nodes that take in, pull and serve one very large blob, and of one with slow readers.

Decides who is slow: a reader with a small buffer that takes 4 KiB ten times a second.
"""

from __future__ import annotations

import selectors
import shutil
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager

from bench import nodes
from bench.blobs import make_file
from bench.measure import Failed, command, peak_memory
from bench.outcome import PEAK, Result, Row, absolute
from bench.programs import Asked
from bench.rivals import need
from swarm.testing.processes import Node, swarm_in, wait_until

_READERS, _TLS_READERS = 200, 60  # the peer port serves 64 at once and sends the others away


def run(asked: Asked) -> Result:
    """A small blob and the large one the same way, then the slow readers; one pass each."""
    size = asked.size(10 * 1024, 2 * 1024)
    rows = []
    for each in (64 << 20, size):
        rows += _through(asked, each)
        asked.say(", ".join(f"{row.name}: {row.median(PEAK):.0f} MB" for row in rows[-2:]))
    slow = _slow_readers(asked)
    peaks = {row.name: row.values(PEAK) for row in (*rows, *slow)}
    large = f"{size >> 20:,} MiB"
    return Result(
        f"peak memory with {size / 2**30:g} GiB, and with {_READERS} slow readers",
        (*rows, *slow),
        (
            absolute("P10 pull", peaks[f"pulls {large} and serves it meanwhile"]),
            absolute("P10 serve", peaks[f"takes in {large} and serves it to a peer"]),
            absolute("P10 slow", [value for row in slow for value in row.values(PEAK)], worst=True),
        ),
        (
            "one pass, new processes; the peak is the kernel's (VmHWM), in MB of 10⁶ bytes, Python and "
            "libraries in it; the time of a row is that of the whole passage",
            f"slow readers: {_READERS} over plain HTTP, then {_TLS_READERS} over mutual TLS (the peer port "
            "serves 64 at once), each 4 KiB ten times a second of 1 GiB; all were still being served at the "
            "end",
        ),
    )


def _through(asked: Asked, size: int) -> list[Row]:
    """PUT into one node, GET through another that lacks it."""
    source, directory, label = asked.disk / "blob", asked.disk / "swarm", f"{size >> 20:,} MiB"
    digest = make_file(source, size)
    with swarm_in(directory) as swarm:
        holder = swarm.add("holder", "--copies=1")  # or the PUT would bring the puller its copy
        puller = nodes.puller(swarm, "puller", [holder], "--copies=1")
        start = time.perf_counter()
        command([need("curl"), "-sf", "-T", source, f"{holder.url}/blob"], within=600)
        source.unlink()
        put = time.perf_counter() - start
        start = time.perf_counter()
        command([need("curl"), "-sf", "-o", "/dev/null", f"{puller.url}/{digest}"], within=600)
        wait_until(puller.blob(digest).exists, "the pull is published", 600)
        pull = time.perf_counter() - start
        rows = [
            Row(f"takes in {label} and serves it to a peer", [_sample(holder, put)]),
            Row(f"pulls {label} and serves it meanwhile", [_sample(puller, pull)]),
        ]
    shutil.rmtree(directory)
    return rows


def _sample(node: Node, seconds: float) -> dict[str, float]:
    return {PEAK: peak_memory(nodes.processes([node])), "wall s": seconds}


def _slow_readers(asked: Asked) -> list[Row]:
    """New processes for each kind; the blob is the same."""
    source, rows, seconds = asked.disk / "blob", [], 6.0 if asked.quick else 20.0
    digest = make_file(source, 1 << 30)
    with swarm_in(asked.disk / "swarm") as swarm:
        node = swarm.add("node", "--copies=1")
        identity = swarm.authority.issue("reader", ["127.0.0.1"], now=nodes.now())
        command([need("curl"), "-sf", "-T", source, f"{node.url}/blob"])
        context = ssl.create_default_context(cafile=str(identity / "ca.pem"))
        context.load_cert_chain(identity / "cert.pem", identity / "key.pem")
        for title, count, tls in (
            (f"{_READERS} slow readers, plain HTTP", _READERS, None),
            (f"{_TLS_READERS} slow readers, mutual TLS", _TLS_READERS, context),
        ):
            node.restart()
            with ExitStack() as stack:
                readers = [stack.enter_context(_reader(node, digest, tls)) for _ in range(count)]
                taken = _sip(readers, seconds)
                rows.append(Row(title, [{PEAK: peak_memory(nodes.processes([node]))}]))
            if min(taken) < 64 << 10:
                raise Failed(f"{title}: one of them got only {min(taken)} bytes in {seconds:g} s")
            asked.say(f"{title}: {rows[-1].median(PEAK):.0f} MB")
    return rows


@contextmanager
def _reader(node: Node, digest: str, tls: ssl.SSLContext | None) -> Iterator[socket.socket]:
    """A connection on which the blob was asked for."""
    port, path = (node.http_port, f"/{digest}") if tls is None else (node.peer_port, f"/blobs/{digest}")
    plain = socket.socket()
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32 << 10)
    plain.settimeout(60)
    plain.connect(("127.0.0.1", port))
    with closing(plain if tls is None else tls.wrap_socket(plain, server_hostname="127.0.0.1")) as reader:
        request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nRange: bytes=0-{(1 << 30) - 1}\r\n\r\n"
        reader.sendall(request.encode())
        if not reader.recv(64).startswith(b"HTTP/1.1 206"):
            raise Failed("a slow reader was not served")
        reader.setblocking(False)
        yield reader


def _sip(readers: list[socket.socket], seconds: float) -> list[int]:
    """Read a little from all, again and again; how much each got. :raises Failed: one was cut off."""
    taken = [0] * len(readers)
    with selectors.DefaultSelector() as ready:
        for number, reader in enumerate(readers):
            ready.register(reader, selectors.EVENT_READ, number)
        over = time.perf_counter() + seconds
        while time.perf_counter() < over:
            for key, _ in ready.select(0):
                try:
                    got = len(readers[key.data].recv(4096))
                except (BlockingIOError, ssl.SSLWantReadError):
                    continue
                if not got:
                    raise Failed("a slow reader was cut off")
                taken[key.data] += got
            time.sleep(0.1)
    return taken

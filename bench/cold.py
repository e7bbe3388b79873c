"""P14: first bytes of what is elsewhere, beside nginx with proxy_cache in front of nginx.

Decides what cold is: the blob lies on three nodes, behind three ports of another nginx, in their page
caches; the node, or the cache, that is asked never had it, or was made to forget it. Connections to
the sources may be kept by both sides, as they are in use.
"""

from __future__ import annotations

import itertools
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from bench import nodes
from bench.blobs import make_file, sha512_of
from bench.measure import Case, Failed, command
from bench.outcome import WALL, Result, Row, Sample, ratio
from bench.programs import Asked
from bench.rivals import Missing, caching_nginx, need, nginx
from swarm.testing.processes import Node, swarm_in

_FIRST = "first byte ms"
_FRAME = "first frame s"
_FRAME_SIZE = 1280 * 720 * 2


def run(asked: Asked) -> Result:
    """First byte from the start and from the middle; ffmpeg's first frame from both."""
    size, film_size = asked.size(1024, 256), asked.size(2048, 512)
    blob, notes = asked.disk / "blob", list[str]()
    digest = make_file(blob, size)
    film, seek = asked.disk / "film.mov", 0
    try:
        seek = _make_film(film, film_size)
    except (Missing, Failed) as e:
        notes.append(f"left out: {e}")
    with swarm_in(asked.disk / "swarm") as swarm:
        holders = nodes.holders(swarm, 3, blob)
        film_id = _give(holders, film) if seek else ""
        node = nodes.puller(swarm, "cold", holders)
        identity = swarm.authority.issue("rival", ["127.0.0.1", "localhost"], now=nodes.now())
        with (
            nginx(asked.disk / "origin", asked.disk, identity, servers=3) as origin,
            caching_nginx(asked.disk / "cache", origin.tls_ports, identity, "1m") as cache,
        ):
            numbers = itertools.count()

            def first(offset: int) -> Iterator[Case]:
                where = "start" if not offset else "middle"
                yield Case(
                    f"swarm, {where}",
                    lambda: {_FIRST: first_byte(node.http_port, f"/{digest}", offset)},
                    lambda: _forget(node, digest),
                )
                yield Case(
                    f"nginx proxy_cache, {where}",
                    lambda: {_FIRST: first_byte(cache.http_port, f"/blob?{next(numbers)}", offset)},
                )

            cases = [*first(0), *first(size // 2)]
            rows = asked.interleave(cases, notes, 3 * asked.rounds)
            if seek:
                cases = []
                for where, skip in (("start", 0), ("middle", seek)):
                    cases += [
                        Case(
                            f"ffmpeg, swarm, {where}",
                            _frame(lambda: f"{node.url}/{film_id}", skip),
                            lambda: _forget(node, film_id),
                        ),
                        Case(
                            f"ffmpeg, nginx proxy_cache, {where}",
                            _frame(lambda: f"{cache.url}/film.mov?{next(numbers)}", skip),
                        ),
                    ]
                rows |= asked.interleave(cases, notes, max(2, asked.rounds // 2))
    empty = Row("")
    return Result(
        f"first bytes of a cold blob of {size >> 20} MiB and of a cold video of {film_size >> 20} MiB",
        tuple(rows.values()),
        (
            ratio("P14 first", rows["swarm, start"], rows["nginx proxy_cache, start"], _FIRST),
            ratio("P14 seek", rows["swarm, middle"], rows["nginx proxy_cache, middle"], _FIRST),
            *(
                ratio(
                    goal,
                    rows.get(f"ffmpeg, swarm, {where}", empty),
                    rows.get(f"ffmpeg, nginx proxy_cache, {where}"),
                    _FRAME,
                )
                for goal, where in (("P14 ffmpeg", "start"), ("P14 ffmpeg seek", "middle"))
            ),
        ),
        (
            *notes,
            "both fetch over mutual TLS 1.3 from three sources on this machine; nginx keeps connections to "
            "them and caches slices of 1 MiB, which is the grain of such a blob; each request of nginx has "
            "a URL of its own, swarm deletes the blob between rounds",
            "what swarm sends was verified against the blob's SHA-512 before it left; nginx verifies nothing",
            "time is from before the connection to the first byte of the body; for ffmpeg from its start to "
            "its end after one decoded frame, its own start-up (some 50 ms) in it; the video is raw, 25 "
            "frames/s, its index at its end",
        ),
    )


def first_byte(port: int, path: str, offset: int) -> float:
    """
    Ask for a file from ``offset`` on; ms until the first byte of the body.

    :raises Failed: it is not served.
    """
    start, head = time.perf_counter(), b""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nRange: bytes={offset}-\r\n\r\n"
        connection.sendall(request.encode())
        while not head.partition(b"\r\n\r\n")[2]:
            got = connection.recv(65536)
            if not got:
                raise Failed(f"cut off after {head[:200]!r}")
            head += got
    took = time.perf_counter() - start
    if not head.startswith(b"HTTP/1.1 206"):
        raise Failed(f"answered {head[:200]!r}")
    return 1000 * took


def _forget(node: Node, digest: str) -> None:
    """End the pull and wait until nothing of it is left."""
    nodes.forget(node, digest)
    over = time.perf_counter() + 30
    while node.request("GET", f"/{digest}/nopeerload")[0] == 200:
        if time.perf_counter() > over:
            raise Failed(f"{node.name} does not forget")
        nodes.forget(node, digest)


def _give(holders: list[Node], film: Path) -> str:
    """PUT it into all; the id."""
    for holder in holders:
        command([need("curl"), "-sf", "-T", film, f"{holder.url}/film.mov"])
    return sha512_of(film)


def _make_film(path: Path, size: int) -> int:
    """A raw video of about that size; the second in its middle. :raises Missing:"""
    frames = max(50, size // _FRAME_SIZE)
    source = f"testsrc2=size=1280x720:rate=25:duration={frames / 25:g}"
    arguments = [need("ffmpeg"), "-nostdin", "-v", "error", "-f", "lavfi", "-i", source]
    command([*arguments, "-c:v", "rawvideo", "-pix_fmt", "uyvy422", "-f", "mov", path], within=120)
    return frames // 50


def _frame(url: Callable[[], str], skip: int) -> Callable[[], Sample]:
    def run() -> Sample:
        arguments = [need("ffmpeg"), "-nostdin", "-v", "error", "-ss", str(skip), "-i", url()]
        return {_FRAME: command([*arguments, "-frames:v", "1", "-f", "null", "-"], within=60)[WALL]}

    return run

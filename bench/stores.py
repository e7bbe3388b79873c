"""P12 and P13, the store: what a PUT, a GET and a start cost with very many blobs, beside the same with few.

Decides what is compared: two nodes that run side by side and are asked in turn, so that the disk and the
machine are the same for both. :mod:`bench.grown` makes their stores.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import statistics
import time
from collections.abc import Callable
from random import Random

from bench import nodes
from bench.grown import bytes_of, grow
from bench.measure import Case, Failed, peak_memory
from bench.outcome import Result, Sample, absolute, ratio
from bench.programs import Asked
from swarm.model.digest import Digest
from swarm.testing.processes import Node, Swarm, swarm_in

_PUT, _GET, _READY = "PUT p50 ms", "GET p50 ms", "to /ready s"
_FEW = 1_000


def run(asked: Asked) -> Result:
    """Grow both, start both, ask both in turn."""
    many = 20_000 if asked.quick else 1_000_000
    notes: list[str] = []
    with swarm_in(asked.disk / "swarm") as swarm:
        found = {count: _grown(asked, swarm, count) for count in (_FEW, many)}
        rounds, asks = max(3, asked.rounds), 100 if asked.quick else 300
        starts = asked.interleave(
            [Case(f"start with {count:,} blobs", _starting(node)) for count, node in found.items()],
            notes,
            2 if asked.quick else 3,
        )
        rows = asked.interleave(
            [
                Case(f"{count:,} blobs", _asking(node, count, asks, Random(count)))
                for count, node in found.items()
            ],
            notes,
            rounds,
        )
        for count, node in found.items():
            notes.append(f"peak memory with {count:,} blobs: {peak_memory(nodes.processes([node])):.0f} MB")
    large, small = rows[f"{many:,} blobs"], rows[f"{_FEW:,} blobs"]
    return Result(
        f"a store of {many:,} blobs beside one of {_FEW:,}",
        (*rows.values(), *starts.values()),
        (
            ratio("P12 put", large, small, _PUT),
            ratio("P12 get", large, small, _GET),
            absolute("P13", starts[f"start with {many:,} blobs"].values(_READY)),
        ),
        (
            *notes,
            f"a round is {asks} PUTs of new blobs of 1 KiB and as many GETs of blobs chosen at random, one "
            "after the other on one connection; the figure of a round is their median",
            "a start is that of a node that was stopped in order, from the process's start, Python's in it, "
            "to a 200 of /ready; the files of the store are in the page cache as far as they are",
            "the stores were made without syncs, by writing the files and rows that PUTs leave",
        ),
    )


def _grown(asked: Asked, swarm: Swarm, count: int) -> Node:
    node = swarm.add(f"node{count}", "--copies=1", start=False)
    start = time.monotonic()
    grow(node.data, count)
    asked.say(f"{count:,} blobs made in {time.monotonic() - start:.0f} s")
    node.start(wait=120)
    return node


def _starting(node: Node) -> Callable[[], Sample]:
    def start() -> Sample:
        node.kill(signal.SIGTERM)
        begun = time.perf_counter()
        node.start(wait=120)
        while (status := _status(node)) != 200:
            if time.perf_counter() - begun > 120:
                raise Failed(f"/ready says {status}")
            time.sleep(0.02)
        return {_READY: time.perf_counter() - begun}

    return start


def _status(node: Node) -> int:
    return node.request("GET", "/ready", timeout=10)[0]


def _asking(node: Node, count: int, asks: int, random: Random) -> Callable[[], Sample]:
    def ask() -> Sample:
        connection = http.client.HTTPConnection("127.0.0.1", node.http_port, timeout=60)
        puts, gets = [], []
        for _ in range(asks):
            content = os.urandom(1024)
            start = time.perf_counter()
            connection.request("PUT", "/small.bin", content)
            answer = connection.getresponse()
            body = answer.read()
            puts.append(time.perf_counter() - start)
            if answer.status != 201 or json.loads(body)["length"] != 1024:
                raise Failed(f"PUT was answered {answer.status}")
        for _ in range(asks):
            content = bytes_of(random.randrange(count))
            digest = Digest.of(content).hex
            start = time.perf_counter()
            connection.request("GET", f"/{digest}")
            body = connection.getresponse().read()
            gets.append(time.perf_counter() - start)
            if body != content:
                raise Failed("a GET gave other bytes")
        connection.close()
        return {_PUT: 1000 * statistics.median(puts), _GET: 1000 * statistics.median(gets)}

    return ask

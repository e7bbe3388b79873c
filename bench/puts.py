"""P9: one large PUT beside the bare hash, and many small ones, each durable before its 201.

Decides what stands beside the small ones: this disk's own fsyncs, one file after another.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from random import SystemRandom

from bench import nodes
from bench.blobs import make_file
from bench.measure import Case, command, peak_memory
from bench.outcome import WALL, Result, Row, Sample, absolute, ratio
from bench.programs import Asked
from bench.rivals import Missing, need, nginx
from bench.small import RATE, load
from swarm.testing.processes import Node, swarm_in

_OURS, _HASH = "swarm: PUT, hash, midstates, fsync", "openssl dgst -sha512"
_SMALL = "swarm: PUT of 1 KiB, 64 connections"


def run(asked: Asked) -> Result:
    """The large one, then the small ones."""
    size = asked.size(1024, 256)
    source = asked.disk / "blob"
    digest = make_file(source, size)
    notes = [
        "a 201 comes after file, link and directories are fsynced; no other row syncs anything",
        "everybody reads the same file from the page cache; swarm's and nginx's bytes come over loopback "
        "from curl",
    ]
    with swarm_in(asked.disk / "swarm") as swarm:
        node = swarm.add("node", "--copies=1")
        identity = swarm.authority.issue("rival", ["127.0.0.1"], now=nodes.now())
        (asked.disk / "put").mkdir()
        pids = nodes.processes([node])
        curl: list[str | Path] = [need("curl"), "-sf", "-T", source]
        cases = [
            Case(
                _OURS, lambda: command([*curl, f"{node.url}/blob"], pids), lambda: nodes.forget(node, digest)
            ),
            *_program(notes, _HASH, "openssl", "dgst", "-sha512", source),
            *_program(notes, "sha512sum", "sha512sum", source),
        ]
        with nginx(asked.disk / "nginx", asked.disk, identity) as server:
            url, there = f"{server.url}/put/blob", asked.disk / "put" / "blob"
            cases.append(
                Case(
                    "nginx dav: PUT, no hash, no fsync",
                    lambda: command([*curl, url], server.pids),
                    lambda: there.unlink(missing_ok=True),
                )
            )
            rows = asked.interleave(cases, notes)
        notes.append(f"peak memory of the node after the large ones: {peak_memory(pids):.0f} MB")
        small = _small(asked, node, notes)
    return Result(
        f"PUT of {size >> 20} MiB; PUTs of 1 KiB",
        (*rows.values(), *small),
        (
            ratio("P9", rows[_OURS], rows.get(_HASH), WALL),
            absolute(
                "P9 small", [value for row in small if row.name == _SMALL for value in row.values(RATE)]
            ),
        ),
        tuple(notes),
    )


def _program(notes: list[str], name: str, program: str, *arguments: str | Path) -> list[Case]:
    try:
        found = need(program)
    except Missing as e:
        notes.append(f"left out: {e}")
        return []
    return [Case(name, lambda: command([found, *arguments]))]


def _small(asked: Asked, node: Node, notes: list[str]) -> list[Row]:
    """Different bytes in every one; each a blob of its own."""
    try:
        need("wrk")
    except Missing as e:
        notes.append(f"left out: {e}")
        return []
    seconds = 2.0 if asked.quick else 4.0
    script, bare = asked.disk / "put.lua", asked.disk / "bare"
    bare.mkdir()
    cases = [
        Case(_SMALL, _many(node, script, seconds)),
        Case(
            "this disk: one file, fsync, its directory's fsync, the next", lambda: _one_by_one(bare, seconds)
        ),
    ]
    notes.append(
        f"small PUTs: wrk, 64 connections, {seconds:.0f} s a round, every body another; any answer but 2xx "
        "would have ended the program. Group commit lets many of them wait for the same fsync"
    )
    return list(asked.interleave(cases, notes).values())


def _many(node: Node, script: Path, seconds: float) -> Callable[[], Sample]:
    def run() -> Sample:
        seed = f"{SystemRandom().getrandbits(64):016x}"
        script.write_text(f"""
local n, rest = 0, string.rep("swarm", 205)
request = function()
    n = n + 1
    local body = string.sub(string.format("{seed} %012d ", n) .. rest, 1, 1024)
    return wrk.format("PUT", "/small.bin", nil, body)
end
""")
        pids = nodes.processes([node])
        return load(f"{node.url}/small.bin", seconds, pids, connections=64, script=script)

    return run


def _one_by_one(directory: Path, seconds: float) -> Sample:
    start, count = time.perf_counter(), 0
    folder = os.open(directory, os.O_RDONLY)
    try:
        while time.perf_counter() - start < seconds:
            file = os.open(directory / f"{time.monotonic_ns()}", os.O_CREAT | os.O_EXCL | os.O_WRONLY)
            try:
                os.write(file, bytes(1024))
                os.fsync(file)
            finally:
                os.close(file)
            os.fsync(folder)
            count += 1
    finally:
        os.close(folder)
    return {RATE: count / (time.perf_counter() - start)}

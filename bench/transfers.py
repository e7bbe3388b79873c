"""Pull, PUT and GET of one large blob, beside the programs people use for the same."""

from __future__ import annotations

import datetime
import hashlib
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from attrs import frozen

from bench.measure import Case, Cost, Row, command, cpu_of, interleave, peak_memory
from bench.rivals import Missing, aria2, need, nginx
from swarm.testing.processes import Node, Swarm, swarm_in, wait_until

MIB = 1 << 20


@frozen
class Table:
    """One bench's outcome: rows, which of them the others are compared with, and notes."""

    title: str
    rows: list[Row]
    ours: str
    notes: tuple[str, ...] = ()


def make_file(path: Path, size: int) -> str:
    """Random bytes, none of them sparse; their SHA-512 in hex."""
    digest = hashlib.sha512()
    with path.open("wb") as out:
        while left := size - out.tell():
            piece = os.urandom(min(left, 4 * MIB))
            digest.update(piece)
            out.write(piece)
    return digest.hexdigest()


def _optional(notes: list[str], make: Callable[[], Case]) -> list[Case]:
    try:
        return [make()]
    except Missing as e:
        notes.append(f"left out: {e}")
        return []


def _forget(node: Node, digest: str) -> None:
    node.request("DELETE", f"/{digest}")


def pull(work: Path, size: int, rounds: int, say: Callable[[str], None]) -> Table:
    """One blob from three peers at once over mutual TLS, verified and on disk."""
    notes = ["ours ends with everything fsynced; nobody else's does"]
    work.mkdir(parents=True)
    source = work / "blob"
    digest = make_file(source, size)
    with swarm_in(work / "swarm") as swarm:
        holders = [swarm.add(f"holder{n}") for n in range(3)]
        for holder in holders:
            command([need("curl"), "-sf", "-T", source, f"{holder.url}/blob"])
        puller = swarm.add("puller", *(f"--join={holder.address}" for holder in holders))
        swarm.wait_acquainted([puller, *holders])
        identity = swarm.authority.issue("nginx", ["127.0.0.1"], now=_now())
        with nginx(work / "nginx", work, identity, servers=3) as server:
            urls = [f"https://127.0.0.1:{port}/blob" for port in server.tls_ports]
            out = work / "out"
            cases = [
                Case(
                    "swarm: pull, verify, fsync",
                    lambda: _pull_once(puller, holders, digest),
                    lambda: _forget(puller, digest),
                ),
                *_optional(
                    notes,
                    lambda: Case(
                        "aria2c + 3 nginx, --checksum",
                        lambda: command(aria2(urls, out, identity, digest), server.pids),
                        out.unlink,
                    ),
                ),
                *_optional(
                    notes,
                    lambda: Case(
                        "aria2c + 3 nginx, unverified",
                        lambda: command(aria2(urls, out, identity, None), server.pids),
                        out.unlink,
                    ),
                ),
                *_serial(notes, source, out),
            ]
            rows = interleave(cases, rounds, say)
        notes.append(f"peak memory of the pulling node: {peak_memory(puller.pid) / MIB:.0f} MiB")
        counters = puller.metrics()
        notes.append(
            "bytes that came twice, of all pulls: "
            f"{counters['swarm_bytes_duplicated_total'] / counters['swarm_bytes_received_total']:.2%}"
        )
    return Table(f"Pull {size / MIB:.0f} MiB from three peers, mutual TLS", rows, cases[0].name, tuple(notes))


def _pull_once(puller: Node, holders: list[Node], digest: str) -> Cost:
    pids = [holder.pid for holder in holders]
    busy, serving, start = cpu_of([puller.pid]), cpu_of(pids), time.perf_counter()
    puller.request("HEAD", f"/{digest}")
    blob = puller.blob(digest)
    while not blob.exists():
        time.sleep(0.002)
    wall = time.perf_counter() - start
    return Cost(wall, cpu_of([puller.pid]) - busy, cpu_of(pids) - serving)


def _serial(notes: list[str], source: Path, out: Path) -> list[Case]:
    """What one core needs to copy a file and hash it afterwards."""

    def case() -> Case:
        openssl = need("openssl")

        def copy_and_hash() -> Cost:
            start = time.perf_counter()
            copied = command(["cp", source, out])
            hashed = command([openssl, "dgst", "-sha512", out])
            return Cost(time.perf_counter() - start, copied.client + hashed.client)

        return Case("cp + openssl dgst -sha512", copy_and_hash, out.unlink)

    return _optional(notes, case)


def put(work: Path, size: int, rounds: int, say: Callable[[str], None]) -> Table:
    """One blob into a lone node, hashed, with midstates, fsynced."""
    notes: list[str] = []
    work.mkdir(parents=True)
    source = work / "blob"
    digest = make_file(source, size)
    with swarm_in(work / "swarm") as swarm:
        node = swarm.add("node")
        identity = swarm.authority.issue("nginx", ["127.0.0.1"], now=_now())
        (work / "put").mkdir()
        with nginx(work / "nginx", work, identity, servers=1) as server:
            put_url = f"http://127.0.0.1:{server.http_port}/put/blob"
            cases = [
                Case(
                    "swarm: PUT, hash, midstates, fsync",
                    lambda: command([need("curl"), "-sf", "-T", source, f"{node.url}/blob"], [node.pid]),
                    lambda: _forget(node, digest),
                ),
                Case(
                    "nginx dav: PUT, no hash, no fsync",
                    lambda: command([need("curl"), "-sf", "-T", source, put_url], server.pids),
                    (work / "put/blob").unlink,
                ),
                Case("openssl dgst -sha512", lambda: command([need("openssl"), "dgst", "-sha512", source])),
                Case("sha512sum", lambda: command([need("sha512sum"), source])),
            ]
            rows = interleave(cases, rounds, say)
        notes.append(f"peak memory of the node: {peak_memory(node.pid) / MIB:.0f} MiB")
    return Table(f"PUT {size / MIB:.0f} MiB", rows, cases[0].name, tuple(notes))


def get(work: Path, size: int, rounds: int, say: Callable[[str], None]) -> Table:
    """One local blob out over plain HTTP."""
    work.mkdir(parents=True)
    source = work / "blob"
    digest = make_file(source, size)
    with swarm_in(work / "swarm") as swarm:
        node = swarm.add("node")
        command([need("curl"), "-sf", "-T", source, f"{node.url}/blob"])
        identity = swarm.authority.issue("nginx", ["127.0.0.1"], now=_now())
        with nginx(work / "nginx", work, identity, servers=1) as server:
            fetch = [need("curl"), "-sf", "-o", "/dev/null"]
            cases = [
                Case("swarm: GET", lambda: command([*fetch, f"{node.url}/{digest}"], [node.pid])),
                Case(
                    "nginx: GET, sendfile",
                    lambda: command([*fetch, f"http://127.0.0.1:{server.http_port}/blob"], server.pids),
                ),
            ]
            rows = interleave(cases, rounds, say)
        memory = peak_memory(node.pid) / MIB
    return Table(
        f"GET {size / MIB:.0f} MiB", rows, cases[0].name, (f"peak memory of the node: {memory:.0f} MiB",)
    )


def memory(work: Path, size: int, rounds: int, say: Callable[[str], None]) -> Table:
    """Peak memory of nodes that take in, serve and pull one very large blob, beside a 64 MiB one."""
    work.mkdir(parents=True)
    rows, notes = [], []
    for bytes_ in (64 * MIB, size):
        source = work / "blob"
        digest = make_file(source, bytes_)
        with swarm_in(work / f"swarm{bytes_}") as swarm:
            holder, puller = _pair(swarm)
            command([need("curl"), "-sf", "-T", source, f"{holder.url}/blob"])
            source.unlink()
            cost = command(
                [need("curl"), "-sf", "-o", "/dev/null", f"{puller.url}/{digest}"], [holder.pid, puller.pid]
            )
            wait_until(puller.blob(digest).exists, "the pull is published", 600)
            say(f"{bytes_ / MIB:.0f} MiB: streamed through a cold node in {cost.wall:.1f} s")
            label = f"{bytes_ / MIB:,.0f} MiB through a cold node"
            rows.append(Row(label, [cost]))
            for node in (holder, puller):
                notes.append(f"{label}: peak memory of the {node.name} {peak_memory(node.pid) / MIB:.0f} MiB")
        shutil.rmtree(work / f"swarm{bytes_}")
    return Table(f"Memory: {size / MIB / 1024:.0f} GiB", rows, rows[0].name, tuple(notes))


def _pair(swarm: Swarm) -> tuple[Node, Node]:
    holder = swarm.add("holder", "--copies=1")  # or the PUT would bring the puller its copy
    puller = swarm.add("puller", join=(holder,))
    swarm.wait_acquainted([holder, puller])
    return holder, puller


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)

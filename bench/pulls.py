"""P1 to P4: a pull from three peers, beside aria2, libtorrent and one core that copies and hashes.

Decides what is compared with what: tmpfs with tmpfs, the disk with the disk. Everybody's sources are
three processes (nginx: two workers on three ports) on this machine, with the blob in the page cache.
"""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from bench import nodes
from bench.blobs import make_file
from bench.measure import Case, Failed, command, peak_memory
from bench.outcome import CLIENT, WALL, Figure, Result, Row, Sample, absolute, ratio
from bench.programs import Asked
from bench.rivals import Missing, aria2, need, nginx
from bench.torrents import seeds
from swarm.hashing import Stretch, load
from swarm.model.grains import Grains
from swarm.model.midstates import IV
from swarm.testing.processes import Node, swarm_in

_TMPFS, _DISK = "swarm, tmpfs", "swarm, disk"
_ARIA_TMPFS, _ARIA_DISK = "aria2c --checksum, tmpfs", "aria2c --checksum, disk"
_ARIA_PLAIN = "aria2c, unverified, tmpfs"
_TORRENT = "libtorrent 2, v1, plain text, disk"
_SERIAL = "cp + openssl dgst -sha512, disk"
_GRAINS = "swarm, hashing alone"


def run(asked: Asked) -> Result:
    """All of them in turn."""
    size = asked.size(1024, 256)
    source = asked.disk / "blob"
    digest = make_file(source, size)
    notes = [
        "swarm ends with data, journal and directories fsynced and the blob published under its id; nobody "
        "else syncs. On tmpfs an fsync costs nothing, on the disk it is part of swarm's time",
        "sources are on this machine and read from the page cache; both ends share its cores",
        "aria2c and swarm: mutual TLS 1.3, AES-128-GCM; libtorrent: no encryption, SHA-1 of 4 MiB pieces",
        "aria2c's time has its start-up in it (some 20 ms); swarm and libtorrent are running already",
    ]
    with ExitStack() as stack:
        swarm = stack.enter_context(swarm_in(asked.disk / "swarm"))
        holders = nodes.holders(swarm, 3, source)
        on_disk = nodes.puller(swarm, "disk", holders)
        on_tmpfs = nodes.puller(swarm, "tmpfs", holders, data=asked.memory / "data")
        identity = swarm.authority.issue("rival", ["127.0.0.1", "localhost"], now=nodes.now())
        cases = [_swarm(_TMPFS, on_tmpfs, holders, digest), _swarm(_DISK, on_disk, holders, digest)]

        def add(make: Callable[[], list[Case]]) -> None:
            try:
                cases.extend(make())
            except Missing as e:
                notes.append(f"left out: {e}")

        def arias() -> list[Case]:
            server = stack.enter_context(nginx(asked.disk / "nginx", asked.disk, identity, servers=3))
            urls = [f"https://127.0.0.1:{port}/blob" for port in server.tls_ports]

            def case(name: str, out: Path, checksum: str | None) -> Case:
                arguments = aria2(urls, out, identity, checksum)
                return Case(name, lambda: command(arguments, server.pids), lambda: _remove(out))

            return [
                case(_ARIA_TMPFS, asked.memory / "out", digest),
                case(_ARIA_DISK, asked.disk / "out", digest),
                case(_ARIA_PLAIN, asked.memory / "out", None),
            ]

        def torrents() -> list[Case]:
            swarm_of_seeds = stack.enter_context(seeds(source))
            into = asked.disk / "torrent"
            into.mkdir()
            return [Case(_TORRENT, lambda: swarm_of_seeds.leech(into), lambda: _remove(into / "blob"))]

        add(arias)
        add(torrents)
        add(lambda: [_serial(source, asked.disk / "copy")])
        cases.append(Case(_GRAINS, lambda: _grains(source)))
        rows = asked.interleave(cases, notes)
        for node in (on_tmpfs, on_disk):
            counters = node.metrics()
            twice = counters["swarm_bytes_duplicated_total"] / counters["swarm_bytes_received_total"]
            peak = peak_memory(nodes.processes([node]))
            notes.append(f"{node.name}: peak memory {peak:.0f} MB; {twice:.2%} of the bytes came twice")
        delays = _delays(on_disk, holders, digest, asked.rounds, notes)
    return Result(
        f"{size >> 20} MiB from three peers, mutual TLS, verified, stored",
        tuple(rows.values()),
        (
            ratio("P1 tmpfs", rows[_TMPFS], rows.get(_ARIA_TMPFS), WALL),
            ratio("P1 ext4", rows[_DISK], rows.get(_ARIA_DISK), WALL),
            ratio("P2", rows[_DISK], rows.get(_TORRENT), WALL),
            ratio("P3", rows[_DISK], rows.get(_SERIAL), WALL),
            ratio("P4 verified", rows[_TMPFS], rows.get(_ARIA_TMPFS), CLIENT),
            _unverified(rows),
            absolute("P4 delay", delays),
        ),
        (
            *notes,
            "swarm never pulls without verifying: for P4 without verification, what its own code needs to "
            "hash the same file, all lanes full, is subtracted, round by round",
            "reactor delay: in pulls beyond those of the table, GET /health every 5 ms on one connection; "
            "p99 of of a pull, which has the client's own wait for a core in it",
        ),
    )


def _swarm(name: str, node: Node, holders: list[Node], digest: str) -> Case:
    checked: list[bool] = []

    def run() -> Sample:
        sample = nodes.pull(node, holders, digest)
        if not checked:
            nodes.check(node, digest)
            checked.append(True)
        return sample

    return Case(name, run, lambda: nodes.forget(node, digest))


def _serial(source: Path, copy: Path) -> Case:
    """What one core needs to copy a file and hash it afterwards. :raises Missing:"""
    openssl = need("openssl")

    def run() -> Sample:
        copied = command(["cp", source, copy])
        hashed = command([openssl, "dgst", "-sha512", copy])
        return {WALL: copied[WALL] + hashed[WALL], CLIENT: copied[CLIENT] + hashed[CLIENT]}

    return Case(_SERIAL, run, lambda: _remove(copy))


def _grains(source: Path) -> Sample:
    """What our own hashing of a file's grains needs at the least: one thread, as many at once as are best."""
    sha512, grains = load(), Grains.of(source.stat().st_size)
    start, busy = time.perf_counter(), time.process_time()
    with source.open("rb") as file:
        stretches = [
            Stretch(file.fileno(), grains.start(i), grains.length(i), IV, last=False)
            for i in range(grains.last)
        ]
        sha512.end_states_of(stretches)
    return {WALL: time.perf_counter() - start, CLIENT: time.process_time() - busy}


def _unverified(rows: dict[str, Row]) -> Figure:
    """Our CPU without that of the hash, beside aria2 without its checksum."""
    pairs = zip(rows[_TMPFS].values(CLIENT), rows[_GRAINS].values(CLIENT), strict=False)
    bare = Row("", [{CLIENT: whole - hashing} for whole, hashing in pairs])
    return ratio("P4 unverified", bare, rows.get(_ARIA_PLAIN), CLIENT)


def _delays(node: Node, holders: list[Node], digest: str, rounds: int, notes: list[str]) -> list[float]:
    """p99 of how late the node answers while it pulls, ms, a value a pull."""
    found = []
    for _ in range(rounds):
        over, waits = threading.Event(), list[float]()
        asking = threading.Thread(target=_ask_on, args=(node, over, waits))
        asking.start()
        try:
            nodes.pull(node, holders, digest)
        except (Failed, OSError) as e:
            notes.append(f"reactor delay left out: {e}")
            return []
        finally:
            over.set()
            asking.join()
            nodes.forget(node, digest)
        waits.sort()
        found.append(1000 * waits[int(len(waits) * 0.99)])
    return found


def _ask_on(node: Node, over: threading.Event, waits: list[float]) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", node.http_port, timeout=30)
    while not over.is_set():
        start = time.perf_counter()
        connection.request("GET", "/health")
        connection.getresponse().read()
        waits.append(time.perf_counter() - start)
        time.sleep(0.005)
    connection.close()


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)

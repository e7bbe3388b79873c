"""Many readers that are slow or go away: bounded memory, no descriptor left, others are served."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import time
from pathlib import Path
from random import Random

from swarm.testing.blobs import make_file
from swarm.testing.outsiders import outsiders_of
from swarm.testing.processes import Node, swarm_in, wait_until
from tests.integration.chaos import MIB, no_surprises

READERS = 200


def resident(node: Node) -> int:
    """Bytes of memory the process has."""
    for line in Path(f"/proc/{node.pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) << 10
    raise AssertionError("no VmRSS")


def descriptors(node: Node) -> int:
    """How many are open."""
    return len(os.listdir(f"/proc/{node.pid}/fd"))


def reader_of(node: Node, path: str) -> socket.socket:
    """A connection that asked and reads nothing yet."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.settimeout(30)
    connection.connect(("127.0.0.1", node.http_port))
    connection.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    return connection


def leave(readers: list[socket.socket]) -> None:
    """Half of them politely, half with a reset."""
    for index, each in enumerate(readers):
        if index % 2:
            each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        each.close()


def test_slow_and_aborted_readers_cost_little_and_leave_nothing(tmp_path: Path) -> None:
    data = Random(1).randbytes(16 * MIB)
    with swarm_in(tmp_path / "swarm") as swarm:
        node = swarm.add("node", "--copies=1")
        digest = node.put(data)
        for _ in range(3):
            node.get(digest)
        wait_until(lambda: len(node.request("GET", "/health")[2]) > 0, "warm")
        memory, opened = resident(node), descriptors(node)
        for _ in range(2):
            readers = [reader_of(node, f"/{digest}") for _ in range(READERS)]
            for each in readers:
                assert each.recv(1000)
            time.sleep(1)
            for each in readers[::4]:
                assert each.recv(3000)
            assert node.get(digest) == data  # others are served
            assert resident(node) < memory + 2 * MIB * READERS / 2
            leave(readers)
            wait_until(lambda: descriptors(node) <= opened + 5, "descriptors are closed")
        assert resident(node) < memory + 150 * MIB
        no_surprises(node)


def test_readers_of_a_pull_that_go_away_leave_it_whole(tmp_path: Path) -> None:
    with swarm_in(tmp_path / "swarm") as swarm, outsiders_of(swarm) as outsiders:
        source, relay = outsiders.behind_relay("source", "--copies=1")
        digest = make_file(tmp_path / "blob", 24 * MIB, Random(2))
        source.put((tmp_path / "blob").read_bytes())
        puller = swarm.add("puller", join=(source,))
        swarm.wait_acquainted([source, puller])
        puller.put(b"warm")
        opened, memory = descriptors(puller), resident(puller)
        relay.order(f"rate {3 * MIB}")
        readers = [reader_of(puller, f"/{digest}") for _ in range(READERS // 2)]
        for each in readers:
            assert each.recv(500)
        assert len(puller.ready()["pulls"]) == 1
        leave(readers)
        relay.order("rate 0")
        wait_until(lambda: puller.has(digest), "the pull ends all the same")
        assert puller.metrics()["swarm_pulls_started_total"] == 1
        wait_until(lambda: descriptors(puller) <= opened + 8, "descriptors are closed")
        assert resident(puller) < memory + 200 * MIB
        with contextlib.closing(reader_of(puller, f"/{digest}")) as one:
            assert one.recv(20).startswith(b"HTTP/1.1 200")
        no_surprises(puller, source)

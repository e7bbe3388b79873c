"""Storms of PUTs while nodes are killed: what was acknowledged is there, what was not leaves nothing.

``kill -9`` spares the page cache, so this proves order and bookkeeping; what survives a power cut is
proven call by call in ``tests/storage``.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import os
import threading
import time
from pathlib import Path
from random import Random

from attrs import define, field

from swarm.testing.processes import Node, swarm_in, wait_until
from tests.integration.chaos import MIB, nobody_convicted, nothing_torn, rounds, seed

_SIZES = (0, 1, 1000, 70_000, 300_000, MIB, 3 * MIB + 11)


@define
class Storm:
    """A client that puts blob after blob and remembers what it was told."""

    node: Node
    random: Random
    acked: dict[str, tuple[str, ...]] = field(factory=dict)  # id: holders, of a 201 or 200
    alone: dict[str, tuple[str, ...]] = field(factory=dict)  # of a 202
    tried: set[str] = field(factory=set)
    over: bool = False
    others: dict[int, int] = field(factory=dict)
    _thread: threading.Thread | None = None

    def start(self) -> None:
        self.over = False
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def stop(self) -> None:
        assert self._thread is not None
        self.over = True
        self._thread.join()

    def _run(self) -> None:
        while not self.over:
            data = self.random.randbytes(self.random.choice(_SIZES))
            digest = hashlib.sha512(data).hexdigest()
            self.tried.add(digest)
            try:
                path = f"/{digest}" if self.random.random() < 0.3 else f"/{len(self.tried)}.bin"
                body = iter([data[:500], data[500:]]) if self.random.random() < 0.3 else data
                status, _, answer = self.node.request("PUT", path, body, timeout=60)
            except (OSError, http.client.HTTPException):
                time.sleep(0.1)
                continue
            if status in (200, 201, 202):
                holders = tuple(json.loads(answer)["holders"])
                (self.alone if status == 202 else self.acked)[digest] = holders
            else:
                self.others[status] = self.others.get(status, 0) + 1


def test_what_a_put_storm_was_told_holds_after_kill_9(tmp_path: Path) -> None:
    random = Random(seed())
    with swarm_in(tmp_path / "swarm") as swarm:
        nodes = swarm.full(3)
        by_name = {node.name: node for node in nodes}
        storms = [Storm(node, Random(random.random())) for node in nodes[:2] for _ in range(2)]
        for turn in range(rounds(4)):
            for storm in storms:
                storm.start()
            time.sleep(random.uniform(0.3, 1.5))
            victims = [nodes[turn % 3]] if turn % 2 else nodes  # all at once is a power cut's cousin
            for victim in victims:
                victim.kill()
            time.sleep(0.2)
            for storm in storms:
                storm.stop()
            for victim in victims:
                victim.start()
            for storm in storms:
                assert not set(storm.others) - {503}, storm.others
                for digest, holders in storm.acked.items():
                    assert len(holders) >= 2 and storm.node.name in holders
                    for name in holders:
                        assert by_name[name].has(digest), f"{name} confirmed {digest[:12]} and lost it"
                for digest in storm.alone:
                    assert storm.node.has(digest)
            counts = [nothing_torn(node) for node in nodes]
        tried = set().union(*(storm.tried for storm in storms))
        assert sum(len(storm.acked) for storm in storms) > 10
        swarm.wait_acquainted(nodes)
        alone = {digest for storm in storms for digest in storm.alone}
        wait_until(
            lambda: all(sum(node.has(digest) for node in nodes) >= 2 for digest in alone),
            "hints are delivered",
            60,
        )
        for node, count in zip(nodes, counts, strict=True):
            held = [each.parent.name for each in (node.data / "blobs").glob("??/??/*/data")]
            assert len(held) >= count and set(held) <= tried
            assert node.ready()["usage"]["partials"] == 0
            wait_until(lambda node=node: _counts_right(node), f"{node.name} counts right")
            left = [each for each in (node.data / "blobs").iterdir() if len(each.name) != 2]
            assert not left, left
            for digest in held[:: max(1, len(held) // 10)]:
                assert hashlib.sha512(node.get(digest)).hexdigest() == digest
        nobody_convicted(*nodes)


def _counts_right(node: Node) -> bool:
    return bool(node.ready()["usage"]["blobs"] == _held(node))


def _held(node: Node) -> int:
    return len(list((node.data / "blobs").glob("??/??/*/data")))


def test_a_202_becomes_a_copy_when_a_peer_is_back(tmp_path: Path) -> None:
    with swarm_in(tmp_path / "swarm") as swarm:
        here, there = swarm.full(2)
        there.kill()
        time.sleep(1)  # until it noted whom it met
        here.restart()  # nobody tells it of its peer: it remembers
        status, _, answer = here.request("PUT", "/a.bin", b"a" * 100_000)
        assert status == 202
        digest = json.loads(answer)["sha512"]
        assert json.loads(answer)["holders"] == [here.name]
        here.restart()  # the hint is on disk
        there.start()
        wait_until(lambda: there.has(digest), "the copy is delivered late")
        assert there.get(digest) == b"a" * 100_000
        nobody_convicted(here, there)


def test_a_put_cut_off_midway_leaves_nothing(tmp_path: Path) -> None:
    with swarm_in(tmp_path / "swarm") as swarm:
        node = swarm.add("node", "--copies=1")
        for _ in range(5):
            connection = http.client.HTTPConnection("127.0.0.1", node.http_port, timeout=10)
            connection.putrequest("PUT", "/big.bin")
            connection.putheader("Content-Length", str(64 * MIB))
            connection.endheaders()
            connection.send(bytes(8 * MIB))
            connection.close()
        wait_until(lambda: not _unnamed(node), "nothing is kept open")
        node.restart()
        assert _held(node) == 0
        assert not [each for each in (node.data / "blobs").iterdir() if len(each.name) != 2]
        assert node.ready()["usage"]["blobs"] == 0


def _unnamed(node: Node) -> list[str]:
    """Files without a name that the process holds open."""
    found = []
    for each in Path(f"/proc/{node.pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found.append(os.readlink(each))
    return [each for each in found if str(node.data) in each and "(deleted)" in each]

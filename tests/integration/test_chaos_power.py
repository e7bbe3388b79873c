"""Power cuts under real nodes: ext4 on a loop device is stopped in the middle of everything and mounted anew.

What was answered must be on the platter before a node starts there, and hold when it runs. A node whose
syncs do nothing is caught: that shows that these cuts cut. Where nobody may mount a loop device the tests
are skipped, under ``CI=true``, too, and bear the reason in their names.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import pytest
from attrs import define, field

from swarm.testing.blobs import make_file
from swarm.testing.outsiders import Outsider, outsiders_of
from swarm.testing.processes import Node, Swarm, swarm_in, wait_until
from tests.integration.chaos import (
    MIB,
    journaled,
    no_surprises,
    nobody_convicted,
    nothing_torn,
    raw_get,
    rounds,
    seed,
)
from tests.integration.conftest import Failing
from tests.integration.power import Disk, refusal

REFUSED = refusal()
ON_DISK = "node"
_SIZES = (20, 1000, 70_000, 300_000, MIB + 11)
#: Bytes a second of each connection to the source; a cut comes in the middle of a pull.
_SLOW = 4 * MIB


@define
class Client:
    """Puts blob after blob, deletes some everywhere, and remembers what it was told of the disk's node."""

    node: Node
    random: Random
    there: set[str] = field(factory=set)
    gone: set[str] = field(factory=set)
    tried: set[str] = field(factory=set)
    others: set[int] = field(factory=set)
    over: bool = False
    _thread: threading.Thread | None = None

    def start(self) -> None:
        self.over = False
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def stop(self) -> None:
        self.over = True
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while not self.over:
            try:
                if self.there and self.random.random() < 0.2:
                    self._delete(self.random.choice(sorted(self.there)))
                else:
                    self._put(self.random.randbytes(self.random.choice(_SIZES)))
            except (OSError, http.client.HTTPException, json.JSONDecodeError):
                time.sleep(0.05)  # it may have been done, or not

    def _put(self, data: bytes) -> None:
        digest = hashlib.sha512(data).hexdigest()
        self.tried.add(digest)
        status, _, answer = self.node.request("PUT", f"/{len(self.tried)}.bin", data, timeout=60)
        if status not in (200, 201, 202):
            self.others.add(status)
        elif ON_DISK in json.loads(answer)["holders"]:
            self.there.add(digest)

    def _delete(self, digest: str) -> None:
        self.there.discard(digest)
        status, _, answer = self.node.request("DELETE", f"/{digest}/allpeers", timeout=60)
        if status not in (200, 202):
            self.others.add(status)
        elif ON_DISK in json.loads(answer)["confirmed"]:
            self.gone.add(digest)


@define
class Stage:
    """``node`` is on the disk; ``far`` is not, and reached through a relay."""

    swarm: Swarm
    disk: Disk
    node: Node
    far: Node
    relay: Outsider
    random: Random
    clients: list[Client] = field(factory=list)

    def begin(self) -> None:
        """Both nodes run, and know each other."""
        for each in (self.far, self.node):
            each.start()
        self.swarm.wait_acquainted([self.node, self.far])

    def busy(self) -> None:
        """Clients of both nodes work, until the next cut."""
        self.clients = self.clients or [
            Client(each, Random(self.random.random())) for each in (self.node, self.far, self.node)
        ]
        due = [len(client.tried) + 5 for client in self.clients]
        for client in self.clients:
            client.start()
        wait_until(
            lambda: all(len(client.tried) > n for client, n in zip(self.clients, due, strict=True)),
            "everybody is busy",
        )

    def cut(self) -> None:
        """Power is lost, and comes back; no node runs there."""
        self.disk.cut()
        self.node.kill()
        for client in self.clients:
            client.stop()
        self.disk.mend()

    def check_platter(self) -> None:
        """:raises AssertionError: what is on the disk is not what anybody was told."""
        nothing_torn(self.node)
        for client in self.clients:
            assert client.others <= {500, 503, 507}, client.others
            for digest in client.there:
                assert self.node.has(digest), f"{client.node.name}: {digest[:12]} was confirmed and is lost"
            for digest in client.gone:
                assert not self.node.has(digest), f"{client.node.name}: {digest[:12]} was deleted and is back"

    def check_running(self) -> None:
        """:raises AssertionError: a node that was started there says something else."""
        there = sorted({digest for client in self.clients for digest in client.there})
        for digest in there[:: max(1, len(there) // 10)]:
            assert hashlib.sha512(self.node.get(digest)).hexdigest() == digest
        for client in self.clients:
            for digest in sorted(client.gone)[-5:]:
                for each in (self.node, self.far):
                    wait_until(lambda each=each, digest=digest: not each.has(digest), "deleted everywhere")
        wait_until(self._counts_right, "it counts what is there")
        nobody_convicted(self.node, self.far)

    def _counts_right(self) -> bool:
        held = sum(1 for _ in (self.node.data / "blobs").glob("??/??/*/data"))
        return bool(self.node.ready()["usage"]["blobs"] == held)


@pytest.fixture(
    params=[
        pytest.param(
            cached, id=REFUSED or name, marks=pytest.mark.skipif(REFUSED is not None, reason=f"{REFUSED}")
        )
        for cached, name in ((False, "ext4"), (True, "ext4 and the disk's cache"))
    ]
)
def stage(
    request: pytest.FixtureRequest, tmp_path: Path, need_program: Callable[[str], str]
) -> Iterator[Stage]:
    for program in ("mount", "umount", "losetup", "mkfs.ext4"):
        need_program(program)
    random = Random(seed())
    with (
        swarm_in(tmp_path / "swarm") as swarm,
        outsiders_of(swarm) as outsiders,
        contextlib.ExitStack() as stack,
    ):
        far, relay = outsiders.behind_relay("far", start=False)
        node = swarm.add(ON_DISK, join=(far,), start=False)
        node.data.mkdir()
        disk = Disk(node.data, tmp_path / "disk", cached=request.param)
        stack.callback(disk.close)
        stack.callback(swarm.close)
        disk.make(160 * MIB)
        yield Stage(swarm, disk, node, far, relay, random)


def test_what_was_answered_survives_power_cuts(stage: Stage) -> None:
    stage.begin()
    for _ in range(rounds(3)):
        stage.busy()
        time.sleep(stage.random.uniform(0.0, 0.5))
        stage.cut()
        stage.check_platter()
        stage.node.start()
        stage.check_running()
        stage.swarm.wait_acquainted([stage.node, stage.far])
    no_surprises(stage.node, stage.far)


def test_a_pull_goes_on_after_power_cuts_with_all_its_journal_names(stage: Stage, tmp_path: Path) -> None:
    stage.far.command.append("--copies=1")
    stage.begin()
    digest = make_file(tmp_path / "blob", 48 * MIB + 17, stage.random)
    data = (tmp_path / "blob").read_bytes()
    assert stage.far.put(data) == digest
    stage.relay.order(f"rate {_SLOW}")
    kept = 0
    for _ in range(rounds(2)):
        puller = threading.Thread(target=raw_get, args=(stage.node, f"/{digest}"))
        puller.start()
        wait_until(
            lambda kept=kept: journaled(stage.node, digest) > kept or stage.node.has(digest), "more is saved"
        )
        time.sleep(stage.random.uniform(0.0, 1.0))
        stage.cut()
        puller.join()
        nothing_torn(stage.node)
        stage.node.start()
        if stage.node.has(digest):
            break
        before, kept = kept, journaled(stage.node, digest)
        assert kept >= before, "what a journal had named was lost"
    else:
        stage.swarm.wait_acquainted([stage.node, stage.far])
        stage.relay.order("rate 0")
        answer = raw_get(stage.node, f"/{digest}")
        assert (answer.status, answer.ended) == (200, True)
        assert answer.body == data
        wait_until(lambda: stage.node.has(digest), "published")
        assert stage.node.metrics()["swarm_bytes_resumed_total"] == kept
    assert stage.node.get(digest) == data
    nobody_convicted(stage.node, stage.far)


def test_a_node_that_syncs_nothing_is_caught(stage: Stage, failing: Failing) -> None:
    stage.begin()
    with failing(stage.node, "fsync,fdatasync,syncfs,sync_file_range:retval=0"):
        stage.busy()
        stage.cut()
    with pytest.raises(AssertionError, match=r"is lost|torn or wrong"):
        stage.check_platter()

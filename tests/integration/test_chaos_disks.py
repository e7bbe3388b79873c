"""Disks that are full, or break: sized tmpfs, and strace that makes system calls of a running node fail."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import pytest

from swarm.testing.processes import Node, swarm_in, wait_until
from tests.integration.chaos import MIB, no_surprises, nobody_convicted, nothing_torn, raw_get
from tests.integration.conftest import Failing

Mount = Callable[[Node, int], None]


@pytest.fixture
def small_disk(need_program: Callable[[str], str]) -> Iterator[Mount]:
    """``small_disk(node, size)`` gives a node that does not run yet a volume of so many bytes."""
    mount, umount = need_program("mount"), need_program("umount")
    mounted: list[Path] = []

    def make(node: Node, size: int) -> None:
        node.data.mkdir()
        command = [mount, "-t", "tmpfs", "-o", f"size={size}", "swarm-test", str(node.data)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode and os.environ.get("CI"):
            pytest.fail(f"mount: {done.stderr}")
        if done.returncode:
            pytest.skip("mount is not permitted")
        mounted.append(node.data)

    yield make
    for each in mounted:
        subprocess.run([umount, "-l", str(each)], check=True)


def put(node: Node, data: bytes, *, chunked: bool = False) -> tuple[int, dict[str, object]]:
    """Status and document of a PUT; a refusal may come before the last byte was sent."""
    connection = http.client.HTTPConnection("127.0.0.1", node.http_port, timeout=60)
    try:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            body = (data[at : at + MIB] for at in range(0, len(data), MIB)) if chunked else data
            connection.request("PUT", "/x.bin", body, encode_chunked=True)
        response = http.client.HTTPResponse(connection.sock, method="PUT")
        response.begin()
        document: dict[str, object] = json.loads(response.read())
        return response.status, document
    finally:
        connection.close()


def blobs(node: Node) -> int:
    """How many there are, none torn, and no left-overs beside them."""
    assert not [each for each in (node.data / "blobs").iterdir() if len(each.name) != 2]
    return nothing_torn(node)


def fill(node: Node, leave: int) -> Path:
    """Somebody else takes the space: all but ``leave`` bytes."""
    file = node.data / "filler"
    stat = os.statvfs(node.data)
    # The node may take some of it meanwhile.
    with contextlib.suppress(OSError), file.open("wb", buffering=0) as out:
        for _ in range(max(0, stat.f_bavail * stat.f_frsize - leave) // 4096):
            out.write(bytes(4096))
    return file


# -- full --------------------------------------------------------------------------------


def test_a_full_disk_refuses_puts_and_goes_on_serving(tmp_path: Path, small_disk: Mount) -> None:
    random = Random(1)
    first, second = random.randbytes(16 * MIB), random.randbytes(16 * MIB)
    with swarm_in(tmp_path / "swarm") as swarm:
        node = swarm.add("node", "--copies=1", start=False)
        small_disk(node, 24 * MIB)
        node.start()
        digest = node.put(first)
        for chunked in (False, True, False):
            status, document = put(node, second, chunked=chunked)
            assert status == 507, document
            assert blobs(node) == 1
        assert node.get(digest) == first
        assert node.request("GET", "/ready")[0] == 200
        assert node.request("DELETE", f"/{digest}")[0] == 200
        assert put(node, second)[0] == 201
        node.restart()
        assert blobs(node) == 1
        assert node.get(hashlib.sha512(second).hexdigest()) == second
        no_surprises(node)


@pytest.mark.parametrize("leave", [0, 4096, 12_000, 40_000, 100_000])
def test_a_disk_without_room_for_bookkeeping_takes_nothing_and_recovers(
    tmp_path: Path, small_disk: Mount, leave: int
) -> None:
    with swarm_in(tmp_path / "swarm") as swarm:
        node = swarm.add("node", "--copies=1", start=False)
        small_disk(node, 8 * MIB)
        node.start()
        digest = node.put(b"first" * 100_000)
        filler = fill(node, leave)
        acked = []
        for n in range(20):
            data = b"%d" % n * 5000
            status, document = put(node, data)
            assert status in (201, 507), document
            if status == 201:
                acked.append(hashlib.sha512(data).hexdigest())
        assert node.get(digest) == b"first" * 100_000
        assert put(node, bytes(5 * MIB))[0] == 507
        filler.unlink()
        wait_until(lambda: put(node, b"after")[0] in (200, 201), "it takes writes again")
        node.restart()
        for each in acked:
            assert hashlib.sha512(node.get(each)).hexdigest() == each
        assert blobs(node) == len(acked) + 2
        assert node.ready()["usage"]["blobs"] == len(acked) + 2


def test_a_pull_without_room_says_so_and_works_once_there_is(tmp_path: Path, small_disk: Mount) -> None:
    data = Random(2).randbytes(20 * MIB)
    with swarm_in(tmp_path / "swarm") as swarm:
        source = swarm.add("source", "--copies=1")
        digest = source.put(data)
        puller = swarm.add("puller", join=(source,), start=False)
        small_disk(puller, 24 * MIB)
        puller.start()
        swarm.wait_acquainted([source, puller])
        filler = fill(puller, 10 * MIB)
        answer = raw_get(puller, f"/{digest}")
        assert (answer.status, answer.ended) == (507, True), answer
        assert not list((puller.data / "partial").iterdir())
        filler.unlink()
        wait_until(lambda: raw_get(puller, f"/{digest}").body == data, "it is pulled")
        assert blobs(puller) == 1
        nobody_convicted(source, puller)


def test_a_disk_that_fills_up_under_a_pull_costs_nothing_but_time(tmp_path: Path, small_disk: Mount) -> None:
    data = Random(3).randbytes(40 * MIB)
    with swarm_in(tmp_path / "swarm") as swarm:
        source = swarm.add("source", "--copies=1")
        digest = source.put(data)
        puller = swarm.add("puller", join=(source,), start=False)
        small_disk(puller, 48 * MIB)
        puller.start()
        swarm.wait_acquainted([source, puller])
        source.kill(signal.SIGSTOP)  # a pull that hangs has its room already
        answers = []
        client = threading.Thread(target=lambda: answers.append(raw_get(puller, f"/{digest}")))
        client.start()
        source.kill(signal.SIGCONT)
        wait_until(lambda: bool(list((puller.data / "partial").glob("*.part"))), "a pull began")
        filler = fill(puller, 0)
        client.join(60)
        (answer,) = answers
        if answer.ended and answer.status == 200:
            assert answer.body == data
        elif answer.ended:
            assert answer.status in (502, 507), answer
        filler.unlink()
        wait_until(lambda: raw_get(puller, f"/{digest}").body == data, "it is pulled")
        wait_until(lambda: puller.has(digest), "it is published")
        assert blobs(puller) == 1
        nobody_convicted(source, puller)


def test_a_copy_goes_to_a_peer_with_room_or_later(tmp_path: Path, small_disk: Mount) -> None:
    random = Random(4)
    with swarm_in(tmp_path / "swarm") as swarm:
        here, roomy = swarm.full(2)
        full = swarm.add("full", join=(here, roomy), start=False)
        small_disk(full, 6 * MIB)
        full.start()
        swarm.wait_acquainted([here, roomy, full])
        filler = fill(full, MIB)
        for _ in range(6):
            status, document = put(here, random.randbytes(2 * MIB))
            assert (status, document["holders"]) == (201, [here.name, roomy.name])
        roomy.kill()
        status, document = put(here, last := random.randbytes(2 * MIB))
        assert (status, document["holders"]) == (202, [here.name])
        filler.unlink()
        roomy.start()
        digest = hashlib.sha512(last).hexdigest()
        wait_until(lambda: full.has(digest) or roomy.has(digest), "the copy comes later")
        for node in (here, roomy, full):
            blobs(node)
        nobody_convicted(here, roomy, full)


def test_a_quota_counts_what_is_stored_and_what_is_deleted(tmp_path: Path) -> None:
    with swarm_in(tmp_path / "swarm") as swarm:
        node = swarm.add("node", "--copies=1", "--quota=10MiB")
        digest = node.put(b"a" * (6 * MIB))
        for chunked in (False, True):
            assert put(node, b"b" * (5 * MIB), chunked=chunked)[0] == 507
        node.restart()
        assert put(node, b"b" * (5 * MIB))[0] == 507
        assert node.request("DELETE", f"/{digest}")[0] == 200
        assert put(node, b"b" * (5 * MIB))[0] == 201
        assert blobs(node) == 1
        no_surprises(node)


# -- broken ------------------------------------------------------------------------------


@pytest.mark.parametrize("when", ["1+", "1", "2", "3", "4"])
def test_a_failed_fsync_never_becomes_a_success(tmp_path: Path, failing: Failing, when: str) -> None:
    random = Random(when)
    with swarm_in(tmp_path / "swarm") as swarm:
        node = swarm.add("node", "--copies=1")
        acked = {node.put(data): data for data in (random.randbytes(200_000) for _ in range(3))}
        refused = []
        with failing(node, f"fsync,fdatasync:error=EIO:when={when}"):
            for _ in range(8):
                data = random.randbytes(200_000)
                status, document = put(node, data)
                digest = hashlib.sha512(data).hexdigest()
                if status == 201:
                    assert not refused, "a volume that failed took a blob"
                    acked[digest] = data
                else:
                    assert status == (500 if not refused else 503), (status, document)
                    refused.append(digest)
            assert refused, (node.directory / "strace").read_text()
            assert [node.get(each) for each in acked] == list(acked.values())
        assert put(node, b"still closed")[0] == 503
        status, _, answer = node.request("GET", "/ready")
        assert status == 503 and "takes no writes" in answer.decode()
        assert node.request("GET", "/health")[0] == 200
        assert [node.get(each) for each in acked] == list(acked.values())
        node.restart()
        assert [node.get(each) for each in acked] == list(acked.values())
        assert node.request("GET", "/ready")[0] == 200
        nothing_torn(node)
        assert put(node, b"open again")[0] == 201


@pytest.mark.parametrize("calls", ["pwritev,pwrite64,pwritev2", "fallocate", "linkat", "mkdir,mkdirat"])
def test_no_space_in_the_middle_is_507_and_nothing_else(tmp_path: Path, failing: Failing, calls: str) -> None:
    random = Random(calls)
    with swarm_in(tmp_path / "swarm") as swarm:
        node = swarm.add("node", "--copies=1")
        first = random.randbytes(2 * MIB)
        digest = node.put(first)
        with failing(node, f"{calls}:error=ENOSPC"):
            status, document = put(node, random.randbytes(2 * MIB))
            assert status == 507, document
            assert node.get(digest) == first
        assert node.request("GET", "/ready")[0] == 200
        assert put(node, random.randbytes(2 * MIB))[0] == 201
        assert blobs(node) == 2


def test_a_pull_on_a_disk_that_breaks_is_refused_and_goes_on_after_a_restart(
    tmp_path: Path, failing: Failing
) -> None:
    data = Random(5).randbytes(24 * MIB)
    with swarm_in(tmp_path / "swarm") as swarm:
        source = swarm.add("source", "--copies=1")
        digest = source.put(data)
        puller = swarm.add("puller", join=(source,))
        swarm.wait_acquainted([source, puller])
        with failing(puller, "fsync,fdatasync:error=EIO"):
            answer = raw_get(puller, f"/{digest}")
            assert not (answer.ended and answer.status == 200) or answer.body == data
            assert not puller.has(digest)
            wait_until(lambda: puller.request("GET", "/ready")[0] == 503, "it says so")
        assert raw_get(puller, f"/{digest}").status in (500, 503)
        puller.restart()
        swarm.wait_acquainted([source, puller])
        assert raw_get(puller, f"/{digest}").body == data
        wait_until(lambda: puller.has(digest), "published")
        nothing_torn(puller)
        nobody_convicted(source)

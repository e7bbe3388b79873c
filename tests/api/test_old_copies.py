"""A client of a node whose copy is old gets right bytes, or a response that does not end."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from twisted.internet.task import Clock

from swarm.interfaces import BlobInfo, IBlobReader
from swarm.model.digest import Digest
from swarm.testing.contracts import MIB, at_once, pattern, put
from swarm.testing.memory import MemoryReader
from tests.contracts.rigs import FilesystemRig, fast

from .node import Node, request

DATA = pattern(3 * MIB + 9)
ID = Digest.of(DATA)
MONTH = 30 * 86400.0


@pytest.fixture
def rig() -> Iterator[FilesystemRig]:
    """A store with one blob that was proven long ago."""
    with tempfile.TemporaryDirectory(prefix="swarm-test-", dir=fast()) as path:
        rig = FilesystemRig(path)
        at_once(rig.store.start())
        at_once(put(rig.store, DATA))
        assert isinstance(rig.clock, Clock)
        rig.clock.advance(MONTH)
        yield rig
        at_once(rig.store.stop())


@pytest.fixture
def node(rig: FilesystemRig) -> Node:
    return Node(store=rig.store)


def rot(rig: FilesystemRig, offset: int) -> None:
    path = Path(rig.layout.file(ID, "data"))
    before = path.stat()
    path.chmod(0o600)
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(bytes([DATA[offset] ^ 1]))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def with_a_peer(node: Node) -> list[Digest]:
    """What is missing here comes from elsewhere; returns what did."""
    local, pulled = node.fetcher.open_local, list[Digest]()

    async def open_(digest: Digest, near: int | None = None) -> IBlobReader:
        if await node.store.stat(digest) is not None:
            return await local(digest)
        pulled.append(digest)
        return MemoryReader(BlobInfo(digest, len(DATA)), DATA)

    node.fetcher.open = open_  # type: ignore[method-assign]
    return pulled


def test_an_old_copy_is_served_whole_and_in_parts(node: Node) -> None:
    response = node.ask("GET", f"/{ID}", f"Range: bytes={2 * MIB - 5}-{2 * MIB + 4}")
    assert (response.status, response.body) == (206, DATA[2 * MIB - 5 : 2 * MIB + 5])
    response = node.ask("GET", f"/{ID}", "Range: bytes=0-4,-5")
    assert response.status == 206
    assert response.body.count(DATA[:5]) == 1 and DATA[-5:] in response.body
    response = node.ask("GET", f"/{ID}")
    assert (response.status, response.body) == (200, DATA)


@pytest.mark.parametrize("path", [f"/{ID}", f"/{ID}/nopeerload"])
def test_a_response_that_meets_rot_is_broken_off_and_the_next_comes_from_a_peer(
    rig: FilesystemRig, node: Node, path: str
) -> None:
    pulled = with_a_peer(node)
    rot(rig, 2 * MIB + 3)
    wire = node.wire()
    wire.send(request("GET", path))
    while wire.take():
        pass
    assert wire.aborted
    _, _, body = bytes(wire.received).partition(b"\r\n\r\n")
    assert body == DATA[: 2 * MIB]
    assert os.path.exists(rig.layout.damaged(ID))
    assert not pulled
    assert node.ask("GET", f"/{ID}").body == DATA
    assert pulled == [ID]


def test_rot_in_what_is_asked_for_first_is_not_even_noticed_by_the_client(
    rig: FilesystemRig, node: Node
) -> None:
    pulled = with_a_peer(node)
    rot(rig, 2 * MIB + 3)
    response = node.ask("GET", f"/{ID}", f"Range: bytes={2 * MIB}-")
    assert (response.status, response.body) == (206, DATA[2 * MIB :])
    assert pulled == [ID]


def test_without_a_peer_it_is_missing(rig: FilesystemRig, node: Node) -> None:
    rot(rig, 0)
    assert node.ask("GET", f"/{ID}").status == 404
    assert node.ask("GET", f"/{ID}").status == 404


def test_ffprobe_is_given_only_what_is_proven(rig: FilesystemRig, node: Node) -> None:
    assert node.ask("GET", f"/{ID}.meta4").status == 200
    assert at_once(node.api._proven(ID)).fileno() >= 0
    assert isinstance(rig.clock, Clock)
    rig.clock.advance(MONTH)
    rot(rig, 3 * MIB)
    assert node.ask("GET", f"/{ID}/ffmetadata").status == 404
    assert os.path.exists(rig.layout.damaged(ID))

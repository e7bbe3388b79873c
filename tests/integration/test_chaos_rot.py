"""Copies that change on disk: bits that rot unseen, and operators who edit what is named by its hash."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from random import Random

import apsw
import pytest

from swarm.testing.processes import Node, Swarm, swarm_in, wait_until
from tests.integration.chaos import MIB, no_surprises, nothing_torn, raw_get, sha512_of

SIZE = 9 * MIB + 99
DATA = Random(11).randbytes(SIZE)


def rot(node: Node, digest: str, *offsets: int) -> None:
    """Flip bits, and leave size and mtime as they are."""
    path = node.blob(digest)
    before = path.stat()
    with path.open("r+b") as file:
        for offset in offsets:
            file.seek(offset)
            byte = file.read(1)[0]
            file.seek(offset)
            file.write(bytes([byte ^ 0x10]))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def named(node: Node, other: Node) -> bool:
    """Does the log of ``node`` name ``other`` as the sender of wrong bytes?"""
    return any(f"{other.name} (" in line and "gave wrong" in line for line in node.log.splitlines())


def healed(node: Node, digest: str) -> bool:
    """Is the damaged copy aside, and a good one in its place?"""
    aside = list((node.data / "quarantine").iterdir())
    return bool(aside) and node.has(digest) and sha512_of(node.blob(digest)) == digest


@pytest.mark.parametrize(
    "damage",
    [
        {"a": (5 * MIB + 7,)},
        {"a": (SIZE - 1,)},
        {"a": (0, 3 * MIB, SIZE - 1), "b": (MIB,)},
    ],
    ids=["one", "its-end", "two"],
)
def test_rotten_copies_are_found_named_and_healed(tmp_path: Path, damage: dict[str, tuple[int, ...]]) -> None:
    with swarm_in(tmp_path / "swarm") as swarm:
        nodes, digest = _holders(swarm)
        puller = _puller(swarm, nodes, "puller")
        for name, offsets in damage.items():
            rot(nodes[name], digest, *offsets)
        _read_from(puller, digest)
        for name, node in nodes.items():
            if name not in damage:
                assert not named(puller, node)
            elif named(puller, node):
                _healed_and_used(node, digest)
        no_surprises(puller, *nodes.values())


def test_a_copy_rotten_everywhere_is_named_by_whoever_is_given_any_of_it(tmp_path: Path) -> None:
    with swarm_in(tmp_path / "swarm") as swarm:
        nodes, digest = _holders(swarm)
        askers, unnamed = [*nodes.values()], ["a", "b"]
        for name, first in zip(unnamed, (100, 200), strict=True):
            rot(nodes[name], digest, *range(first, SIZE, MIB))
        # Whom to ask is the pull's to choose, and the quickest may give it all: so there are several. The one
        # that is named first pulls it again, too, and may ask the other.
        for n in range(10):
            puller = _puller(swarm, nodes, f"puller{n}")
            askers.append(puller)
            _read_from(puller, digest)
            found = [name for name in unnamed if any(named(each, nodes[name]) for each in askers)]
            for name in found:
                _healed_and_used(nodes[name], digest)
                unnamed.remove(name)
            puller.kill()  # or it would be one more to ask
            if not unnamed:
                break
        assert not unnamed
        assert not any(named(each, nodes["c"]) for each in askers)
        no_surprises(*askers)


def _holders(swarm: Swarm) -> tuple[dict[str, Node], str]:
    """Three nodes with the blob."""
    nodes = {name: swarm.add(name, "--copies=1") for name in ("a", "b", "c")}
    (digest,) = {node.put(DATA) for node in nodes.values()}
    return nodes, digest


def _puller(swarm: Swarm, nodes: dict[str, Node], name: str) -> Node:
    """A node without the blob that knows them."""
    puller = swarm.add(name, join=tuple(nodes.values()))
    swarm.wait_acquainted([puller, *nodes.values()])
    return puller


def _read_from(puller: Node, digest: str) -> None:
    """What it pulls and gives is right."""
    answer = raw_get(puller, f"/{digest}")
    assert (answer.status, answer.ended, answer.body == DATA) == (200, True, True)
    wait_until(lambda: puller.has(digest), "published")


def _healed_and_used(node: Node, digest: str) -> None:
    wait_until(lambda: healed(node, digest), f"{node.name} heals itself")
    assert node.get(digest) == DATA


def test_a_copy_an_operator_edited_is_never_served(tmp_path: Path) -> None:
    with swarm_in(tmp_path / "swarm") as swarm:
        here, there = swarm.full(2)
        digest = here.put(DATA)
        wait_until(lambda: there.has(digest), "two copies")
        with here.blob(digest).open("r+b") as file:
            file.write(b"edited")
        assert here.get(digest) == DATA  # pulled again
        wait_until(lambda: healed(here, digest), "published again")
        with there.blob(digest).open("ab") as file:
            file.write(b"appended")
        reader = swarm.add("reader", join=(here, there))
        swarm.wait_acquainted([here, there, reader])
        assert reader.get(digest) == DATA
        assert there.get(digest) == DATA
        wait_until(lambda: there.has(digest) and reader.has(digest), "published")
        assert nothing_torn(there) == nothing_torn(reader) == 1
        no_surprises(here, there, reader)


def test_the_only_copy_edited_is_an_error_and_kept_aside(tmp_path: Path) -> None:
    with swarm_in(tmp_path / "swarm") as swarm:
        node = swarm.add("node", "--copies=1")
        digest = node.put(DATA)
        with node.blob(digest).open("r+b") as file:
            file.write(b"edited")
        answer = raw_get(node, f"/{digest}")
        assert (answer.status, answer.ended) == (404, True)
        assert raw_get(node, f"/{digest}/nopeerload").status == 404
        (aside,) = (node.data / "quarantine").iterdir()
        assert digest in str(aside)
        assert node.put(DATA) == digest
        assert node.get(digest) == DATA
        no_surprises(node)


def age(*nodes: Node) -> None:
    """Let all that nodes proved be long ago."""
    for node in nodes:
        node.kill(signal.SIGTERM)
        catalog = apsw.Connection(str(node.data / "catalog.sqlite"))
        catalog.execute("UPDATE blobs SET verified_at = verified_at - 30 * 86400")
        catalog.close()
        node.start()


def test_rot_in_an_old_copy_is_met_while_it_is_served_and_never_sent(tmp_path: Path) -> None:
    with swarm_in(tmp_path / "swarm") as swarm:
        here, there = swarm.full(2)
        digest = here.put(DATA)
        wait_until(lambda: there.has(digest), "two copies")
        rot(here, digest, 5 * MIB + 7)
        age(here, there)
        swarm.wait_acquainted([here, there])
        answer = raw_get(here, f"/{digest}")
        assert (answer.status, answer.ended, answer.body) == (200, False, DATA[: 5 * MIB])
        assert here.get(digest, {"Range": f"bytes={5 * MIB}-"}) == DATA[5 * MIB :]  # from there
        wait_until(lambda: healed(here, digest), "published again")
        assert here.get(digest) == there.get(digest) == DATA
        no_surprises(here, there)


def test_peers_and_clients_that_begin_at_the_rot_get_good_bytes_at_once(tmp_path: Path) -> None:
    with swarm_in(tmp_path / "swarm") as swarm:
        here, there = swarm.full(2)
        digest = here.put(DATA)
        wait_until(lambda: there.has(digest), "two copies")
        rot(here, digest, 5, 5 * MIB + 7)
        age(here, there)
        reader = swarm.add("reader", join=(here, there))
        swarm.wait_acquainted([here, there, reader])
        assert reader.get(digest) == DATA
        assert not named(reader, here)  # a bad grain is never sent
        assert here.get(digest) == DATA
        rot(there, digest, 5)
        age(there)
        swarm.wait_acquainted([here, there, reader])
        assert there.get(digest) == DATA  # nothing was sent before the rot was met: no need to ask again
        no_surprises(here, there, reader)

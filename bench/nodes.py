"""What the programs do with our nodes: give them a blob, let them pull it, make them forget it."""

from __future__ import annotations

import datetime
import subprocess
import sys
import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from bench.blobs import sha512_of
from bench.measure import Failed, command, cpu_of, tree
from bench.outcome import CLIENT, SERVER, WALL
from bench.rivals import need
from swarm.testing.processes import Node, Swarm, child_environment


def now() -> datetime.datetime:
    """For certificates."""
    return datetime.datetime.now(datetime.UTC)


def processes(nodes: Sequence[Node]) -> list[int]:
    """The nodes' processes, workers too."""
    return [pid for node in nodes for pid in tree(node.pid)]


def holders(swarm: Swarm, count: int, source: Path, *options: str, name: str = "holder") -> list[Node]:
    """Nodes that each hold a copy of a file and do not know each other."""
    made = [swarm.add(f"{name}{n}", "--copies=1", *options) for n in range(count)]
    for node in made:
        command([need("curl"), "-sf", "-T", source, f"{node.url}/blob"])
    return made


def puller(swarm: Swarm, name: str, peers: Sequence[Node], *options: str, data: Path | None = None) -> Node:
    """
    A node without the blob that knows who has it.

    :param data: where its data is to lie, if not in the swarm's directory.
    """
    node = swarm.add(name, *options, join=tuple(peers), start=False)
    if data is not None:
        data.mkdir()
        node.data.symlink_to(data)
    node.start()
    wait_alive(node, peers)
    return node


def wait_workers(node: Node, count: int) -> None:
    """Until so many processes of a node serve. :raises Failed:"""
    deadline = time.monotonic() + 60
    while node.ready()["workers"]["serving"] < count:
        if time.monotonic() > deadline:
            raise Failed(f"{node.name}: its workers do not serve")
        time.sleep(0.05)


def wait_alive(node: Node, peers: Sequence[Node]) -> None:
    """Until a node sees these alive. :raises Failed:"""
    names, deadline = {peer.name for peer in peers}, time.monotonic() + 30
    while not names <= {peer["name"] for peer in node.ready()["peers"] if peer["state"] == "alive"}:
        if time.monotonic() > deadline:
            raise Failed(f"{node.name} did not meet its peers")
        time.sleep(0.05)


def pull(node: Node, sources: Sequence[Node], digest: str, *, within: float = 300) -> dict[str, float]:
    """Bring a blob to a node; over when it is published, durable, under its name. :raises Failed:"""
    ours, theirs = processes([node]), processes(sources)
    busy, serving, start = cpu_of(ours), cpu_of(theirs), time.perf_counter()
    status = node.request("HEAD", f"/{digest}")[0]
    if status != 200:
        raise Failed(f"{node.name} answered {status} to a HEAD")
    blob = node.blob(digest)
    while not blob.exists():
        if time.perf_counter() - start > within:
            raise Failed(f"{node.name} did not pull it within {within:g} s")
        time.sleep(0.002)
    wall = time.perf_counter() - start
    return {WALL: wall, CLIENT: cpu_of(ours) - busy, SERVER: cpu_of(theirs) - serving}


def forget(node: Node, digest: str) -> None:
    """Remove a node's copy, or end its pull and drop what came."""
    node.request("DELETE", f"/{digest}")


def check(node: Node, digest: str) -> None:
    """Are the bytes on its disk right? :raises Failed:"""
    if sha512_of(node.blob(digest)) != digest:
        raise Failed(f"{node.name} has wrong bytes")


@cache
def knows(option: str) -> bool:
    """Does this ``twistd swarm`` have an option?"""
    twistd = str(Path(sys.executable).with_name("twistd"))
    done = subprocess.run(
        [twistd, "swarm", "--help"], capture_output=True, text=True, timeout=60, env=child_environment()
    )
    return option in done.stdout

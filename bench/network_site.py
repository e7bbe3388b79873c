"""Real nodes at the ends of long wires, and the course of a pull seen from outside.

Builds what ``bench.network`` measures: hosts (see ``network_hosts``), a source on each, pullers in the
hub. What came over each wire is read from the kernel's counters, which costs the nodes nothing.
"""

from __future__ import annotations

import datetime
import hashlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from attrs import define, field, frozen

from bench.network_hosts import Host, Network, network
from bench.rivals import need
from swarm.testing.processes import Node, Swarm, child_environment, free_port, swarm_in, wait_until

MIB = 1 << 20
_EVERY = 0.02  # seconds between two looks at the wires


@frozen
class Wire:
    """One source's link: bits a second, 0 for any, and seconds there and back."""

    rate: float
    rtt: float


@define
class Course:
    """What came over the wires until when: seconds since the start, bytes by device."""

    pid: int
    samples: list[tuple[float, Mapping[str, int]]] = field(factory=list)
    _over: threading.Event = field(factory=threading.Event)

    @contextmanager
    def watched(self) -> Iterator[Course]:
        """Look at the counters while the block runs."""
        start = time.monotonic()
        self.samples.append((0.0, self._received()))

        def watch() -> None:
            while not self._over.wait(_EVERY):
                self.samples.append((time.monotonic() - start, self._received()))

        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._over.set()
            thread.join()
            self.samples.append((time.monotonic() - start, self._received()))

    def _received(self) -> dict[str, int]:
        lines = Path(f"/proc/{self.pid}/net/dev").read_text().splitlines()[2:]
        fields = (line.split() for line in lines)
        return {each[0].rstrip(":"): int(each[1]) for each in fields if each[0].startswith("host")}

    def totals(self) -> list[tuple[float, int]]:
        """All wires together."""
        first = sum(self.samples[0][1].values())
        return [(when, sum(each.values()) - first) for when, each in self.samples]

    def reached(self, share: float) -> float:
        """When so much of everything had come."""
        totals = self.totals()
        return next(when for when, count in totals if count >= share * totals[-1][1])


@define
class Site:
    """The nodes of one scenario."""

    net: Network
    swarm: Swarm
    work: Path
    options: tuple[str, ...] = ()
    sources: list[tuple[Host, Node]] = field(factory=list)
    pullers: list[Node] = field(factory=list)

    def build(self, wires: list[Wire]) -> None:
        """Hosts, the sources on them, and a puller in the hub that knows them."""
        for number, wire in enumerate(wires, 1):
            self.net.host(f"source{number}", rate=0.0, rtt=wire.rtt)
        self.net.connect()
        for host in self.net.hosts:
            with host.namespace.entered():
                node = self._node(host.name, host.address, "--copies=1")
                node.start(wait=60)
            self.sources.append((host, node))
        self.pullers.append(self.puller("puller"))
        for host, wire in zip(self.net.hosts, wires, strict=True):
            if wire.rate:
                host.shape(wire.rate)

    def puller(self, name: str) -> Node:
        """A node in the hub that knows all sources."""
        joins = [f"--join={node.address}" for _, node in self.sources]
        node = self._node(name, "127.0.0.1", "--copies=1", *joins, *self.options)
        node.start(wait=60)
        names = {each.name for _, each in self.sources}

        def acquainted() -> bool:
            alive = {peer["name"] for peer in node.ready()["peers"] if peer["state"] == "alive"}
            return names <= alive

        wait_until(acquainted, f"{name} knows all sources", 60)
        return node

    def in_hub(self, work: Callable[[int], None]) -> Callable[[int], None]:
        """The same, for a thread: a thread begins where the process was, not where this one is."""

        def there(index: int) -> None:
            with self.net.hub.entered():
                work(index)

        return there

    def blob(self, size: int) -> str:
        """A new blob that all sources have; its id."""
        path = self.work / "blob"
        digest = hashlib.sha512()
        with path.open("wb") as out:
            for _ in range(size // MIB):
                piece = os.urandom(MIB)
                digest.update(piece)
                out.write(piece)
        for host, node in self.sources:
            with host.namespace.entered():
                subprocess.run(
                    [need("curl"), "-sf", "-o", "/dev/null", "-T", path, f"{node.url}/blob"], check=True
                )
        path.unlink()
        return digest.hexdigest()

    def _node(self, name: str, address: str, *options: str) -> Node:
        directory = self.swarm.directory / name
        directory.mkdir()
        names = ["127.0.0.1", "localhost", address]
        made = self.swarm.authority.issue(name, names, now=datetime.datetime.now(datetime.UTC))
        node = _FarNode(name, directory, free_port(), free_port(), [], child_environment())
        node.host = address
        node.command = [
            str(Path(sys.executable).with_name("twistd")),
            *("-n", "--pidfile=", "swarm", "--data=data", f"--name={name}", "--reserve=0"),
            f"--http=tcp:{node.http_port}:interface=127.0.0.1",
            f"--peer=tcp:{node.peer_port}:interface={address}",
            *(f"--{part}={made / f'{file}.pem'}" for part, file in _IDENTITY.items()),
            *options,
        ]
        self.swarm.nodes[name] = node
        return node


_IDENTITY = {"ca": "ca", "cert": "cert", "key": "key"}


@define
class _FarNode(Node):
    """A node whose peer port is not on loopback."""

    host: str = "127.0.0.1"

    @property
    def address(self) -> str:
        """Where peers dial it."""
        return f"{self.host}:{self.peer_port}"


@contextmanager
def site(work: Path, wires: list[Wire], *options: str, congestion: str = "") -> Iterator[Site]:
    """Real nodes at the ends of such wires; gone afterwards."""
    work.mkdir(parents=True, exist_ok=True)
    with network(congestion) as net, swarm_in(work / "swarm") as swarm:
        made = Site(net, swarm, work, options)
        made.build(wires)
        yield made


def ask(node: Node, digest: str) -> None:
    """Have a node begin to pull."""
    status, _, _ = node.request("HEAD", f"/{digest}")
    assert status == 200, status


def finished(node: Node, digest: str, start: float) -> float:
    """Wait until the blob is published there; seconds since ``start``."""
    blob = node.blob(digest)
    while not blob.exists():
        time.sleep(0.01)
        assert time.monotonic() - start < 600, "the pull does not end"
    return time.monotonic() - start

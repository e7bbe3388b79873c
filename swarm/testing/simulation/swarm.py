"""Real nodes on simulated hosts, and a client that talks to them over HTTP.

Decides how a node is started, dies and comes back. Nodes are made by :func:`swarm.node.create_node`; only
its arguments are simulated: reactor, threads, disk, and, unless a run is to use real TLS, the peer port's
encryption, in whose place an address stands for a key.
"""

from __future__ import annotations

import atexit
import datetime
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable
from functools import cache
from hashlib import sha512
from pathlib import Path
from random import Random
from typing import Any

import apsw
import attrs
from attrs import define, field
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.interfaces import IStreamClientEndpoint, IStreamServerEndpoint
from twisted.logger import Logger
from twisted.python.failure import Failure

from swarm.config import Config
from swarm.hashing.sha512 import load as load_sha512
from swarm.model.peers import Address, PeerID
from swarm.node import Node, Walls, create_node
from swarm.pki import Authority, peer_id, write_key
from swarm.storage.layout import Layout
from swarm.testing.liars import Blob
from swarm.testing.simulation.client import PUBLIC, Client
from swarm.testing.simulation.datagrams import Weather
from swarm.testing.simulation.disk import Platter
from swarm.testing.simulation.liar import Impostor
from swarm.testing.simulation.network import Host, Network
from swarm.testing.simulation.reactor import SimReactor
from swarm.testing.simulation.scale import Scale
from swarm.testing.simulation.sockets import Socket
from swarm.testing.simulation.sqlite import Databases
from swarm.testing.simulation.timeline import START, Timeline

PEERS = 7041
_BEGAN = datetime.datetime.fromtimestamp(START, datetime.UTC) - datetime.timedelta(days=30)
_DAYS = 365.0 * 40


@define(eq=False)
class SimNode:
    """One node over all its lives. :attr:`node` is None while it is down."""

    name: str
    host: Host
    peer_id: PeerID
    identity: Path
    root: Path
    disk: Platter
    node: Node | None = None
    process: SimReactor | None = None
    boots: int = 0
    ended: list[dict[str, int]] = field(factory=list)
    """The pulls' counters of earlier lives."""
    fatal: list[str] = field(factory=list)

    @property
    def address(self) -> Address:
        """Where its peer port is."""
        return Address(self.host.ip, PEERS)

    @property
    def layout(self) -> Layout:
        """Where its files are."""
        return Layout(str(self.root))


class Swarm:
    """
    I run nodes on one timeline. Use me as a context manager: my files are temporary.

    :ivar torn: did a process die? What it leaves to the garbage collector is no use looking at.
    """

    log = Logger()

    def __init__(
        self,
        seed: object,
        count: int,
        *,
        tls: bool = False,
        skew: float = 0.0,
        bandwidth: tuple[float, float] = (1e6, 1e8),
        scale: Scale = Scale(),  # noqa: B008 - a value
        disk: type[Platter] = Platter,
        history: bool = False,
    ) -> None:
        """
        Make ``count`` hosts, with no node running.

        :param tls: real mutual TLS instead of addresses that stand for keys.
        :param scale: how much smaller than in the world everything is; whoever runs me has applied it.
        :param skew: clocks differ by up to so many seconds.
        :param disk: another one for all nodes: a mutant, for tests of the tests.
        """
        self.seed = seed
        self.tls = tls
        self.timeline = Timeline(seed, history)
        self.random = Random(f"{seed} swarm")
        self.network = Network(
            self.timeline,
            Random(f"{seed} network"),
            bandwidth=bandwidth,
            segment=min(1 << 16, scale.size(1 << 18)),
        )
        self.network.datagrams.weather = Weather.drawn(Random(f"{seed} weather"))
        self.directory = Path(tempfile.mkdtemp(prefix="swarm-sim-", dir=_memory()))
        self.nodes: dict[str, SimNode] = {}
        self.torn = False
        self.databases = Databases()
        self.crashed: Callable[[SimNode], None] = lambda node: None
        self._skew = skew
        self._settings = scale.settings()
        self._ids: dict[str, PeerID] = {}
        self._clients: dict[str, Client] = {}
        self._processes: list[SimReactor] = []
        for number in range(count):
            host = self.network.add(f"n{number}")
            identity, who = _identity(number, host.ip, host.name)
            root = self.directory / f"{host.name}-0"
            root.mkdir()
            self.nodes[host.name] = SimNode(host.name, host, who, identity, root, disk(str(root)))
            self._ids[host.ip] = who
        self._addresses = [each.address for each in self.nodes.values()]

    def __enter__(self) -> Swarm:
        return self

    def __exit__(self, *error: object) -> None:
        for each in self.nodes.values():
            if each.process is not None:
                self._bury(each, power=True)
            each.disk.release()
        for process in self._processes:
            process.remains.clear()
        self.databases.unregister()
        shutil.rmtree(self.directory, ignore_errors=True)

    def copies(self, wanted: int) -> None:
        """How many copies a PUT is to make, at nodes that start from now on."""
        self._settings["copies"] = wanted

    # -- lives of nodes -----------------------------------------------------------------

    def start(self, name: str) -> None:
        """
        Start a node on what its disk holds.

        :raises RuntimeError: it cannot even be made; the log says why.
        """
        each = self.nodes[name]
        assert each.process is None
        self.network.boot(each.host)
        life = f"{self.seed} {name} {each.boots}"
        skew = Random(f"{self.seed} {name}").uniform(-self._skew, self._skew)
        process = SimReactor(name, self.network, each.host, random=Random(f"{life} threads"), skew=skew)
        each.boots += 1
        each.process = process
        self._processes.append(process)
        self.databases.disks[str(each.root)] = each.disk
        each.disk.pages = Random(f"{life} pages")
        each.disk.lost = lambda: self._power_is_gone(each)
        walls = Walls(each.disk, hashing=_hashing)
        if not self.tls:
            walls = Walls(each.disk, _plainly, _dial_plainly, self._whose, _hashing)
        config = Config(
            data=each.root,
            name=name,
            http=f"tcp:{PUBLIC}:interface=127.0.0.1",
            peer=f"tcp:{PEERS}:interface={each.host.ip}",
            ca=each.identity / "ca.pem",
            cert=each.identity / "cert.pem",
            key=each.identity / "key.pem",
            join=tuple(other for other in self._addresses if other != each.address),
            **self._settings,
        )

        def boot() -> None:
            each.node = create_node(
                process,
                config,
                random=Random(f"{life} node"),
                run_blocking=process.run_blocking,
                fatal=each.fatal.append,
                walls=walls,
            )
            each.node.startService()

        self.timeline.run(process, boot)
        if each.node is None and not process.dead:
            raise RuntimeError(f"{name} cannot be made")

    def kill(self, name: str) -> None:
        """The process dies; the kernel lives on, resets its connections and keeps what was written."""
        each = self.nodes[name]
        if each.process is not None:
            self._bury(each, power=False)
            each.disk = each.disk.restarted()
            self.crashed(each)

    def lose_power(self, name: str) -> None:
        """The host goes down, and what was not synced may be lost."""
        each = self.nodes[name]
        if each.process is not None:
            self._bury(each, power=True)
            root = self.directory / f"{name}-{each.boots}"
            root.mkdir()
            each.disk = each.disk.rebooted(str(root), self.random)
            shutil.rmtree(each.root)
            each.root = root
            self.crashed(each)

    def lose_power_within(self, name: str, calls: int) -> None:
        """The same in the middle of one of the next calls to its disk."""
        disk = self.nodes[name].disk
        disk.at = disk.calls + calls

    def _power_is_gone(self, each: SimNode) -> None:
        # In the middle of a call of this very process: nothing of it goes on, the rest is for later.
        assert each.process is not None
        each.process.die()
        self.timeline.after(0, None, self.lose_power, each.name)

    def _bury(self, each: SimNode, *, power: bool) -> None:
        assert each.process is not None
        self.torn = True
        self.network.end(each.process, power=power)
        each.disk.crash()
        if each.node is not None:
            each.ended.append(attrs.asdict(each.node.fetcher.counters))
        for connection in apsw.connections():
            if Path(connection.filename).parent == each.root:
                connection.close()  # what it would tidy up, a dead disk leaves as it is
        each.process.remains.append(each.node)
        each.node = each.process = None

    def stop(self, name: str) -> Deferred[None]:
        """Stop a node politely; fires when it has ended. The process stays, to be looked at."""
        each = self.nodes[name]
        assert each.node is not None and each.process is not None
        stopped: Deferred[None] = self.timeline.run(each.process, maybeDeferred, each.node.stopService)
        return stopped

    def lie(self, blobs: Iterable[Blob]) -> Impostor:
        """A lying peer that holds these, on a host of its own; before any node starts."""
        host = self.network.add("liar")
        identity, who = _identity(len(self.nodes), host.ip, "liar")
        self._ids[host.ip] = who
        liar = Impostor(who, f"{host.ip}:{PEERS}")
        liar.learn(blobs)
        process = SimReactor("liar", self.network, host, random=Random(f"{self.seed} liar"))
        self._processes.append(process)
        self._addresses.append(Address(host.ip, PEERS))
        liar.listen(process, PEERS, identity if self.tls else None)
        return liar

    # -- the world around them ----------------------------------------------------------

    def client(self, name: str) -> Client:
        """A client on the host of a node."""
        if name not in self._clients:
            random = Random(f"{self.seed} client {name}")
            self._clients[name] = Client(self.network, self.nodes[name].host, random=random)
        return self._clients[name]

    @property
    def counters(self) -> Counter[str]:
        """What all pulls of all nodes in all their lives add up to."""
        total: Counter[str] = Counter()
        for each in self.nodes.values():
            for life in each.ended:
                total.update(life)
            if each.node is not None:
                total.update(attrs.asdict(each.node.fetcher.counters))
        return total

    def play(self, work: Coroutine[Any, Any, Any], *, most: float) -> Any:
        """
        Let time pass until ``work`` is done.

        :raises AssertionError: it takes more than ``most`` simulated seconds.
        """
        outcome: list[Any] = []
        Deferred.fromCoroutine(work).addBoth(outcome.append)
        assert self.timeline.until(lambda: bool(outcome), most=most), f"not done after {most} s"
        if isinstance(outcome[0], Failure):
            outcome[0].raiseException()
        return outcome[0]

    def _whose(self, transport: Socket) -> PeerID:
        """Instead of a certificate."""
        return self._ids[transport.getPeer().host]


def _plainly(endpoint: IStreamServerEndpoint, credentials: object, *, clock: object) -> IStreamServerEndpoint:
    return endpoint


def _dial_plainly(
    reactor: Any, address: Address, credentials: object, *, expected: object, timeout: float
) -> IStreamClientEndpoint:
    return TCP4ClientEndpoint(reactor, address.host, address.port, timeout)


def _memory() -> str | None:
    """Files in memory, where there is such a place: a run writes a lot and keeps nothing."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


_hashing = cache(load_sha512)  # its self-tests are long; once in a process is enough


@cache
def _authority() -> tuple[Path, Authority]:
    directory = Path(tempfile.mkdtemp(prefix="swarm-sim-ca-"))
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    authority = Authority.create(
        "simulation", now=_BEGAN, days=_DAYS, key=_key("authority"), serial=_serial("authority")
    )
    return directory, authority


def _key(name: str) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(sha512(name.encode()).digest()[:32])


def _serial(name: str) -> int:
    """As long as most random ones. Some are a byte shorter, and so is what a handshake sends."""
    return int.from_bytes(sha512(f"{name} serial".encode()).digest()[:20], "big") >> 1 | 1 << 158


@cache
def _identity(number: int, ip: str, name: str) -> tuple[Path, PeerID]:
    """The same files in every process, to the byte, or no run could be repeated; made once in each."""
    parent, authority = _authority()
    directory = parent / f"{name}-{number}"
    directory.mkdir()
    key = _key(f"{name} {number}")
    certificate = authority.issue(
        name, [ip], key.public_key(), now=_BEGAN, days=_DAYS, serial=_serial(f"{name} {number}")
    )
    write_key(directory / "key.pem", key)
    (directory / "cert.pem").write_bytes(certificate.public_bytes(Encoding.PEM))
    (directory / "ca.pem").write_bytes(authority.certificate.public_bytes(Encoding.PEM))
    return directory, peer_id(certificate)

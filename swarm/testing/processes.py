"""Real nodes: ``twistd swarm`` processes on loopback with a throw-away CA, for tests, bench and soak.

Decides nothing; it starts, watches, kills and asks. Every process is ended by :meth:`Swarm.close`,
also when a test fails.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from random import SystemRandom
from typing import Any

from attrs import define, field

import swarm
from swarm.pki.directory import AuthorityDirectory


class NodeFailed(AssertionError):
    """A node did not come up, or went away; the text ends with its log."""


def child_environment() -> dict[str, str]:
    """The environment in which a child process sees this very ``swarm``, installed or not."""
    ours = str(Path(swarm.__file__).resolve().parent.parent)
    path = [] if ours == sysconfig.get_path("purelib") else [ours]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path), "PYTHONUNBUFFERED": "1"}


#: Below what kernels hand out by themselves, so that no connection of anybody's takes one meanwhile.
_PORTS = range(20_000, 32_000)
_given: set[int] = set()


def free_port() -> int:
    """A TCP port of 127.0.0.1 that was free a moment ago; never the same twice in one process."""
    while True:
        port = SystemRandom().choice(_PORTS)
        if port in _given:
            continue
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        _given.add(port)
        return port


@define
class Node:
    """One node's process, ports and directory. It keeps both over a restart."""

    name: str
    directory: Path
    http_port: int
    peer_port: int
    command: list[str]
    environment: dict[str, str]
    process: subprocess.Popen[bytes] | None = None

    @property
    def data(self) -> Path:
        """Its ``--data``."""
        return self.directory / "data"

    @property
    def address(self) -> str:
        """Where peers dial it."""
        return f"127.0.0.1:{self.peer_port}"

    @property
    def url(self) -> str:
        """Its public API."""
        return f"http://127.0.0.1:{self.http_port}"

    @property
    def log(self) -> str:
        """What it wrote so far."""
        return (self.directory / "log").read_text(errors="replace")

    @property
    def pid(self) -> int:
        """Of the running process."""
        assert self.process is not None
        return self.process.pid

    def start(self, *, wait: float = 120.0) -> None:
        """Start it and wait until it serves."""
        with (self.directory / "log").open("ab") as log:
            self.process = subprocess.Popen(
                self.command, cwd=self.directory, stdout=log, stderr=log, env=self.environment
            )
        deadline = time.monotonic() + wait
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise NodeFailed(f"{self.name} ended with {self.process.returncode}:\n{self.log[-4000:]}")
            with contextlib.suppress(OSError):
                if self.request("GET", "/health", timeout=10)[0] == 200:
                    return
            time.sleep(0.03)
        raise NodeFailed(f"{self.name} does not answer:\n{self.log[-4000:]}")

    def kill(self, how: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal; after SIGKILL and SIGTERM wait for the end."""
        if self.process is None or self.process.poll() is not None:
            return
        self.process.send_signal(how)
        if how in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT):
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
                raise NodeFailed(f"{self.name} ignored {how.name}:\n{self.log[-4000:]}") from None

    def restart(self, how: signal.Signals = signal.SIGKILL) -> None:
        """Kill it and start it again with the same data and ports."""
        self.kill(how)
        self.start()

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        *,
        timeout: float = 120,
    ) -> tuple[int, Mapping[str, str], bytes]:
        """One request: (status, headers with lower-case names, body)."""
        connection = http.client.HTTPConnection("127.0.0.1", self.http_port, timeout=timeout)
        try:
            connection.request(method, path, body=body, headers=dict(headers or {}))
            response = connection.getresponse()
            answer = response.read()
            return response.status, {k.lower(): v for k, v in response.getheaders()}, answer
        finally:
            connection.close()

    def put(self, data: bytes, name: str = "file.bin") -> str:
        """PUT; the id."""
        status, _, answer = self.request("PUT", f"/{name}", data)
        assert status in (200, 201, 202), (status, answer)
        digest: str = json.loads(answer)["sha512"]
        assert digest == hashlib.sha512(data).hexdigest()
        return digest

    def get(self, digest: str, headers: Mapping[str, str] | None = None, *, timeout: float = 120) -> bytes:
        """GET, which must succeed."""
        status, _, answer = self.request("GET", f"/{digest}", headers=headers, timeout=timeout)
        assert status in (200, 206), (status, answer[:500])
        return answer

    def ready(self) -> dict[str, Any]:
        """The JSON of ``/ready``."""
        document: dict[str, Any] = json.loads(self.request("GET", "/ready", timeout=10)[2])
        return document

    def metrics(self) -> dict[str, float]:
        """All samples of ``/metrics``, by name with labels."""
        text = self.request("GET", "/metrics", timeout=10)[2].decode()
        lines = (line.rpartition(" ") for line in text.splitlines() if line and not line.startswith("#"))
        return {name: float(value) for name, _, value in lines}

    def blob(self, digest: str) -> Path:
        """Where a blob's bytes lie."""
        return self.data / "blobs" / digest[:2] / digest[2:4] / digest / "data"

    def has(self, digest: str) -> bool:
        """Is the blob published here?"""
        return self.blob(digest).exists()


@define
class Swarm:
    """Nodes that trust one CA."""

    directory: Path
    authority: AuthorityDirectory = field(init=False)
    nodes: dict[str, Node] = field(factory=dict)

    def __attrs_post_init__(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        self.authority = AuthorityDirectory.create(self.directory / "ca", now=_now())

    def add(
        self,
        name: str,
        *options: str,
        join: tuple[Node, ...] = (),
        environment: Mapping[str, str] | None = None,
        wrapper: tuple[str, ...] = (),
        start: bool = True,
    ) -> Node:
        """
        A new node, started and greeted.

        :param options: further twistd options.
        :param wrapper: a program to run twistd under, such as strace with its options.
        """
        directory = self.directory / name
        directory.mkdir()
        certificates = self.authority.issue(name, ["127.0.0.1", "localhost"], now=_now())
        http_port, peer_port = free_port(), free_port()
        command = [
            *wrapper,
            str(Path(sys.executable).with_name("twistd")),
            "-n",
            "--pidfile=",
            "swarm",
            "--data=data",
            f"--name={name}",
            f"--http=tcp:{http_port}:interface=127.0.0.1",
            f"--peer=tcp:{peer_port}:interface=127.0.0.1",
            f"--ca={certificates / 'ca.pem'}",
            f"--cert={certificates / 'cert.pem'}",
            f"--key={certificates / 'key.pem'}",
            "--reserve=0",
            *(f"--join={other.address}" for other in join),
            *options,
        ]
        node = Node(
            name, directory, http_port, peer_port, command, {**child_environment(), **(environment or {})}
        )
        self.nodes[name] = node
        if start:
            node.start()
        return node

    def full(self, count: int, *options: str) -> list[Node]:
        """``count`` nodes that all know each other."""
        made: list[Node] = []
        for index in range(count):
            made.append(self.add(f"node{index}", *options, join=tuple(made)))
        self.wait_acquainted(made)
        return made

    @staticmethod
    def wait_acquainted(nodes: list[Node], *, within: float = 90.0) -> None:
        """Wait until each of the nodes sees all others alive."""
        names = {node.name for node in nodes}

        def acquainted(node: Node) -> bool:
            alive = {peer["name"] for peer in node.ready()["peers"] if peer["state"] == "alive"}
            return names - {node.name} <= alive

        wait_until(lambda: all(acquainted(node) for node in nodes), "all nodes know each other", within)

    def close(self) -> None:
        """End every process."""
        for node in self.nodes.values():
            with contextlib.suppress(NodeFailed):
                node.kill(signal.SIGCONT)
                node.kill()


@contextlib.contextmanager
def swarm_in(directory: Path) -> Iterator[Swarm]:
    """A swarm that is gone afterwards."""
    swarm = Swarm(directory)
    try:
        yield swarm
    finally:
        swarm.close()


def wait_until(condition: Any, what: str, within: float = 90.0) -> None:
    """Poll until true. :raises AssertionError: it never was."""
    deadline = time.monotonic() + within
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within:g} s: {what}")
        time.sleep(0.05)


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)

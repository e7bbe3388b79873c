"""Processes beside the nodes of a :class:`~swarm.testing.processes.Swarm`: liars and relays.

Decides nothing; it starts, watches, orders and kills them. All are gone when :func:`outsiders_of` ends.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from attrs import define, field

from swarm.testing.processes import Node, Swarm, child_environment, free_port, wait_until


@define
class Outsider:
    """One such process: where it listens and what it wrote."""

    name: str
    port: int
    output: Path
    process: subprocess.Popen[bytes]

    @property
    def address(self) -> str:
        """Where peers dial it."""
        return f"127.0.0.1:{self.port}"

    def events(self) -> list[dict[str, Any]]:
        """What a liar told so far, a dictionary for each request."""
        lines = self.output.read_text(errors="replace").splitlines()
        return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]

    def asked(self, path_end: str) -> list[dict[str, Any]]:
        """Requests whose path ends so."""
        return [each for each in self.events() if each.get("path", "").endswith(path_end)]

    def order(self, line: str) -> None:
        """Tell a relay what to do from now on."""
        assert self.process.stdin is not None
        self.process.stdin.write(line.encode() + b"\n")
        self.process.stdin.flush()

    def kill(self) -> None:
        """End it."""
        self.process.kill()
        self.process.wait()


@define
class Outsiders:
    """All of one swarm."""

    swarm: Swarm
    all: list[Outsider] = field(factory=list)

    def liar(self, name: str, blobs: Sequence[Path], *options: str, greet: Sequence[Node] = ()) -> Outsider:
        """
        A peer with a proper certificate that holds ``blobs`` and misbehaves.

        :param options: of :mod:`swarm.testing.liars`.
        :param greet: the nodes it introduces itself to.
        """
        now = datetime.datetime.now(datetime.UTC)
        identity = self.swarm.authority.issue(name, ["127.0.0.1", "localhost"], now=now)
        port = free_port()
        arguments = [f"--identity={identity}", f"--port={port}", f"--name={name}"]
        arguments += [f"--blob={blob}" for blob in blobs]
        arguments += [f"--greet={node.address}" for node in greet]
        return self._start(name, port, "swarm.testing.liars", *arguments, *options)

    def relay(self, name: str, target: int) -> Outsider:
        """A relay to a port of 127.0.0.1; see :mod:`swarm.testing.relays` for its orders."""
        port = free_port()
        return self._start(name, port, "swarm.testing.relays", str(port), str(target))

    def behind_relay(
        self, name: str, *options: str, join: Sequence[Node] = (), start: bool = True
    ) -> tuple[Node, Outsider]:
        """A node with these options that others reach through a relay only, and the relay."""
        port = free_port()
        relay = self.relay(f"{name}-relay", port)
        through = (f"--peer=tcp:{port}:interface=127.0.0.1", f"--advertise={relay.address}")
        node = self.swarm.add(name, *through, *options, join=tuple(join), start=False)
        node.peer_port = relay.port
        if start:
            node.start()
        return node, relay

    def _start(self, name: str, port: int, module: str, *arguments: str) -> Outsider:
        output = self.swarm.directory / f"{name}.out"
        with output.open("wb") as out, self.swarm.directory.joinpath(f"{name}.err").open("wb") as err:
            process = subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=err,
                env=child_environment(),
            )
        made = Outsider(name, port, output, process)
        self.all.append(made)
        wait_until(lambda: "listening" in output.read_text(), f"{name} listens")
        return made


@contextlib.contextmanager
def outsiders_of(swarm: Swarm) -> Iterator[Outsiders]:
    """Start some; they end with the block."""
    outsiders = Outsiders(swarm)
    try:
        yield outsiders
    finally:
        for each in outsiders.all:
            each.kill()


def wait_known(names: Sequence[str], node: Node, *, within: float = 30.0) -> None:
    """Wait until a node sees peers of these names alive."""

    def known() -> bool:
        alive = {peer["name"] for peer in node.ready()["peers"] if peer["state"] == "alive"}
        return set(names) <= alive

    wait_until(known, f"{node.name} knows {', '.join(names)}", within)

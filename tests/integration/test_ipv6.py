"""Nodes that meet over IPv6. Where the machine has no ``::1`` they get a network of their own that has."""

from __future__ import annotations

import contextlib
import datetime
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from swarm.testing.processes import Node, swarm_in
from tests.integration.programs import LONG, noise

_OWN = "SWARM_TEST_OWN_NETWORK"
_BEGIN = """
set -e
echo 0 >/proc/sys/net/ipv6/conf/lo/disable_ipv6
ip link set lo up
exec "$@"
"""


def loopback() -> bool:
    """Is there a ``::1``?"""
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET6) as probe:
        probe.bind(("::1", 0))
        return True
    return False


def in_a_network_of_our_own(unshare: str) -> None:
    """Run this file there."""
    if not Path("/proc/sys/net/ipv6").exists():
        pytest.skip("this kernel has no IPv6")
    own = [unshare, "--net", "--map-root-user"]
    if subprocess.run([*own, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this machine has no ::1, and lets us make no network")
    inside = [*own, "sh", "-c", _BEGIN, "sh", sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*inside, __file__], env={**os.environ, _OWN: "1"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0 and "1 passed" in done.stdout, done.stdout + done.stderr


def test_nodes_meet_over_ipv6(tmp_path: Path, need_program: Callable[[str], str]) -> None:
    """The options given last are the ones that count."""
    if not loopback():
        assert _OWN not in os.environ, "no ::1 there, either"
        need_program("ip")
        in_a_network_of_our_own(need_program("unshare"))
        return
    now = datetime.datetime.now(datetime.UTC)
    with swarm_in(tmp_path / "swarm") as swarm:
        made: list[Node] = []
        for name in ("six", "seven"):
            node = swarm.add(name, start=False)
            endpoint = f"--peer=tcp6:{node.peer_port}:interface=\\:\\:1"
            identity = swarm.authority.issue(name, ["::1"], now=now, out=swarm.directory / f"{name}-identity")
            files = [f"--{each}={identity / each}.pem" for each in ("ca", "cert", "key")]
            join = [f"--join=[::1]:{each.peer_port}" for each in made]
            node.command += [endpoint, *files, *join]
            node.start()
            made.append(node)
        swarm.wait_acquainted(made, within=LONG)
        assert made[0].ready()["peers"][0]["address"] == f"[::1]:{made[1].peer_port}"
        data = noise(1 << 20)
        digest = made[0].put(data)
        assert made[1].has(digest) and made[1].get(digest) == data

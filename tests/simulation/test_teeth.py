"""The checks can fail: with a fault put into the product or its disk, a few seeds are enough to notice."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from swarm.testing.simulation.disk import Platter
from swarm.testing.simulation.runs import run
from swarm.testing.simulation.sockets import Socket

SEEDS = range(40)


def noticed(words: str, seeds: range = SEEDS) -> bool:
    """Does any seed say so?"""
    return any(words in problem for seed in seeds for problem in run(seed, tls=False).problems)


def test_files_that_are_not_synced(monkeypatch: pytest.MonkeyPatch) -> None:
    def forgets(self: Platter, fd: int) -> None:
        self._step("fsync", "file")

    monkeypatch.setattr(Platter, "fsync", forgets)
    monkeypatch.setattr(Platter, "fdatasync", forgets)
    monkeypatch.setattr(Platter, "sync_volume", lambda self, fd: None)
    assert noticed("wrong bytes")


def test_directories_that_are_not_synced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Platter, "fsync_dir", lambda self, path: self._step("fsync_dir", path))
    monkeypatch.setattr(Platter, "sync_volume", lambda self, fd: None)
    assert noticed("had vouched for")


def test_bytes_that_change_on_their_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who spoils what it sends to peers is convicted, and the checker, which knows of no liar, objects."""
    write = Socket.write
    spoilt: list[Socket] = []

    def spoils(self: Socket, data: bytes) -> None:
        between_nodes = self.process.name[0] == self.other.process.name[0] == "n"
        if between_nodes and self.connector is None and len(data) > 5_000 and len(spoilt) < 100:
            spoilt.append(self)
            data = data[:-1] + bytes([data[-1] ^ 1])
        write(self, data)

    monkeypatch.setattr(Socket, "write", spoils)
    assert noticed("an honest peer was convicted")


def test_the_global_reactor_and_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    from swarm.services.membership import Membership

    live = Membership.live

    def leaks(self: Membership) -> object:
        import random
        import time

        namespace = {"time": time, "random": random, "__name__": "swarm.services.membership"}
        exec("time.time(); random.random()", namespace)
        return live(self)

    monkeypatch.setattr(Membership, "live", leaks)
    found = "\n".join(run(0, tls=False).problems)
    assert "time.time by swarm.services.membership" in found
    assert "random.random by swarm.services.membership" in found


def test_the_global_reactor_however_it_is_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    from twisted.internet import reactor

    from swarm.services.membership import Membership

    live = Membership.live

    def leaks(self: Membership) -> object:
        reactor.callLater(0, lambda: None).cancel()  # type: ignore[attr-defined]  # what Twisted says of it
        return live(self)

    monkeypatch.setattr(Membership, "live", leaks)
    assert "reactor.callLater by" in "\n".join(run(0, tls=False).problems)


def test_a_choice_by_the_order_of_a_set_is_another_run_under_another_hash_seed(
    our_env: dict[str, str], tmp_path: Path
) -> None:
    """What the comparison of traces under three ``PYTHONHASHSEED`` is for."""
    program = """
from swarm.services.membership import Membership
from swarm.testing.simulation.runs import begin, run
live = Membership.live
Membership.live = lambda self: tuple(each for _, each in set(
    (peer.name, peer) for peer in live(self)
))
begin()
print(run(3, tls=False).trace)
"""
    traces = {
        subprocess.run(
            [sys.executable, "-c", program],
            cwd=tmp_path,
            env={**our_env, "PYTHONHASHSEED": seed},
            stdout=subprocess.PIPE,
            text=True,
            timeout=240,
            check=True,
        ).stdout
        for seed in ("0", "1", "2")
    }
    assert len(traces) > 1

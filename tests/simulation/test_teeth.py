"""The checks can fail: with a fault put into the product or its disk, a few seeds are enough to notice."""

from __future__ import annotations

import pytest

from swarm.testing.simulation.disk import Platter
from swarm.testing.simulation.runs import run
from swarm.testing.simulation.sockets import Socket

SEEDS = range(40)


def problems(seeds: range = SEEDS) -> str:
    """What the first seed that notices anything says."""
    for seed in seeds:
        if found := run(seed, tls=False).problems:
            return "\n".join(found)
    return ""


def test_files_that_are_not_synced(monkeypatch: pytest.MonkeyPatch) -> None:
    def forgets(self: Platter, fd: int) -> None:
        self._step("fsync", "file")

    monkeypatch.setattr(Platter, "fsync", forgets)
    monkeypatch.setattr(Platter, "fdatasync", forgets)
    assert "wrong bytes" in problems()


def test_directories_that_are_not_synced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Platter, "fsync_dir", lambda self, path: self._step("fsync_dir", path))
    assert "had vouched for" in problems()


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
    assert "an honest peer was convicted" in problems()


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
    found = problems(range(1))
    assert "time.time by swarm.services.membership" in found
    assert "random.random by swarm.services.membership" in found

"""Pulls in all weathers: peers lie, break, leave and come back, clients come and go, the node dies.

A seed decides everything, so a failure is a seed. What must hold: a response that completes is right,
what is stored is right, no honest peer is blamed, and with the weather over the blob comes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from random import Random

import pytest

from swarm.errors import Fault, SwarmError
from tests.services.test_proving import FAILING, LIARS, blamed
from tests.services.world import BLOB, DIGEST, GRAINS, MIB, Growing, World

FAULTS = [Fault.BUSY, Fault.REFUSED, Fault.SILENT, Fault.UNREACHABLE, Fault.MISSING]


class Weather:
    """What happens in one run."""

    def __init__(self, world: World, seed: int) -> None:
        self.world = world
        self.random = Random(seed)
        self.clients: list[tuple[int, int, object]] = []
        self.nodes = [
            world.peer(f"good{n}", BLOB, rate=MIB * self.random.choice([0.5, 1, 4, 16]))
            for n in range(self.random.randint(1, 4))
        ]
        self.growing = Growing(BLOB, DIGEST)
        self.good = {node.peer.name for node in self.nodes} | {"growing"}
        world.peer("growing", serving=self.growing.serving, rate=2 * MIB)
        for number in range(self.random.randint(0, 4)):
            bad = world.peer(f"bad{number}", BLOB, rate=MIB * self.random.choice([1, 4, 16]))
            self.random.choice([*LIARS, *FAILING])(bad)

    def blow(self) -> None:
        world, random = self.world, self.random
        match random.choice(
            ["client", "client", "leave", "down", "up", "slow", "grow", "kill", "busy", "wait"]
        ):
            case "client":
                start = random.randrange(len(BLOB))
                stop = random.randrange(start, len(BLOB)) + 1
                self.clients.append((start, stop, world.start(world.read(start, stop))))
            case "leave" if self.clients:
                random.choice(self.clients)[2].cancel()  # type: ignore[attr-defined] # a Deferred
            case "down":
                random.choice(self.nodes).up = False
            case "up":
                random.choice(self.nodes).up = True
            case "slow":
                random.choice(self.nodes).rate = random.choice([1000.0, MIB / 8, 32.0 * MIB])
            case "grow":
                grain = random.randrange(GRAINS.count)
                self.growing.have.add(GRAINS.start(grain), GRAINS.stop(grain))
            case "busy":
                random.choice(self.nodes).faults = deque([random.choice(FAULTS)] * random.randint(1, 5))
            case "kill" if random.random() < 0.3:
                self.judge()
                world.kill()
                world.tasks.start("resuming", world.fetcher.resume_unfinished())
            case _:
                pass
        world.spend(random.choice([0.001, 0.05, 0.5, 2.0]))

    def judge(self) -> None:
        for start, stop, work in self.clients:
            outcome: list[object] = []
            work.addBoth(outcome.append)  # type: ignore[attr-defined] # a Deferred
            if outcome and isinstance(outcome[0], bytes):
                assert outcome[0] == BLOB[start:stop], "a response completed with wrong bytes"
        self.clients = []

    def clear_up(self) -> None:
        for node in self.nodes:
            node.up, node.rate, node.faults = True, 4.0 * MIB, deque()


def fair(world: World, seed: int) -> None:
    weather = Weather(world, seed)
    for _ in range(40):
        weather.blow()
    weather.clear_up()
    for _ in range(4):
        try:
            world.run(world.fetcher.pull(DIGEST))
            break
        except SwarmError:
            world.spend(1)
    assert world.store.blobs[DIGEST].data == BLOB
    world.settle()
    weather.judge()
    assert not blamed(world) & weather.good, "an honest peer was blamed"


@pytest.mark.parametrize("seed", [*range(8), 118, 135])
def test_any_weather(make: Callable[..., World], midstates: bool, seed: int) -> None:
    fair(make(midstates=midstates, seed=seed), seed)

"""Nodes killed and paused at random moments while one pulls: real processes, slowed by relays.

``SWARM_CHAOS_ROUNDS`` makes it as many rounds as you like, ``SWARM_CHAOS_SEED`` the same ones again.
"""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest
from attrs import define, field

from swarm.testing.blobs import make_file
from swarm.testing.outsiders import Outsider, Outsiders, outsiders_of
from swarm.testing.processes import Node, Swarm, swarm_in, wait_until
from tests.integration.chaos import (
    MIB,
    Answer,
    close_all,
    journaled,
    nobody_convicted,
    nothing_torn,
    raw_get,
    rounds,
    seed,
)

#: Between two looks at a running pull, or longer on a busy machine.
_LOOK = 0.05
#: A span asked of two peers, a grain cut short: what a life may fetch beyond what it lacks.
_SLACK = 20 * MIB
#: Promise 4: a record at least every 2 s; the rest is for a busy machine to sync and write it.
_RECORD_EVERY = 2.0 + 4.0


@define
class Stage:
    """Three sources behind relays that slow them down, and a fourth node."""

    swarm: Swarm
    outsiders: Outsiders
    random: Random
    seed: int
    sources: list[Node] = field(factory=list)
    relays: list[Outsider] = field(factory=list)

    def source(self, name: str) -> Node:
        """A node that others reach through a relay only."""
        node, relay = self.outsiders.behind_relay(name, "--copies=1", join=self.sources)
        self.sources.append(node)
        self.relays.append(relay)
        return node

    def slow(self, rate: int) -> None:
        """Bytes a second of each connection; 0: as fast as it goes."""
        for relay in self.relays:
            relay.order(f"rate {rate}")

    def store(self, path: Path, size: int) -> tuple[str, bytes]:
        """A blob all sources hold."""
        digest = make_file(path, size, self.random)
        data = path.read_bytes()
        for node in self.sources:
            assert node.put(data) == digest
        return digest, data


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    number = seed()
    sys.stdout.write(f"SWARM_CHAOS_SEED={number}\n")
    with swarm_in(tmp_path / "swarm") as swarm, outsiders_of(swarm) as outsiders:
        made = Stage(swarm, outsiders, Random(number), number)
        for index in range(3):
            made.source(f"source{index}")
        yield made
        close_all(swarm)


def verified(node: Node) -> int:
    """Bytes verified by the pull that runs, if any."""
    return max((pull["verified"] for pull in node.ready()["pulls"]), default=0)


@define
class Client:
    """A GET that runs beside all that happens."""

    node: Node
    path: str
    answers: list[Answer] = field(factory=list)
    thread: threading.Thread | None = None

    def start(self) -> Client:
        self.thread = threading.Thread(target=self._run)
        self.thread.start()
        return self

    def _run(self) -> None:
        try:
            self.answers.append(raw_get(self.node, self.path, timeout=120))
        except OSError:
            self.answers.append(Answer(0, b"", b"", False))

    def answer(self) -> Answer:
        assert self.thread is not None
        self.thread.join(120)
        return self.answers[0]


def never_wrong(answer: Answer, data: bytes) -> None:
    """Right and whole, a clear error, or visibly broken off."""
    if answer.ended and answer.status == 200:
        assert answer.body == data
    elif answer.ended:
        assert answer.status in (502, 503), answer.head
    else:
        assert data.startswith(answer.body)  # what left the node was right so far


def test_a_puller_killed_at_random_moments_ends_with_right_bytes(stage: Stage, tmp_path: Path) -> None:
    digest, data = stage.store(tmp_path / "blob", 80 * MIB + 17)
    puller = stage.swarm.add("puller", join=tuple(stage.sources))
    stage.swarm.wait_acquainted([puller, *stage.sources])
    stage.slow(4 * MIB)
    client = Client(puller, f"/{digest}").start()
    least = 0
    for _ in range(rounds(5)):
        moment = time.monotonic() + stage.random.uniform(0.0, 3.0)
        seen: list[tuple[float, int]] = []
        while time.monotonic() < moment and not puller.has(digest):
            seen.append((time.monotonic(), verified(puller)))
            time.sleep(_LOOK)
        puller.kill()
        killed = time.monotonic()
        never_wrong(client.answer(), data)
        nothing_torn(puller)
        if puller.has(digest):
            break
        kept = journaled(puller, digest)
        assert kept >= least, "a journal forgot"
        assert kept >= max([v for at, v in seen if at < killed - _RECORD_EVERY], default=0)
        assert kept >= max([v for _, v in seen], default=0) - 64 * MIB
        least = kept
        puller.start()
        client = Client(puller, f"/{digest}").start()
        wait_until(
            lambda: puller.metrics()["swarm_pulls_resumed_total"] == 1 or puller.has(digest), "resuming"
        )
    if not puller.has(digest):
        stage.slow(0)
        wait_until(lambda: puller.has(digest), "the pull ends by itself")
        metrics = puller.metrics()
        assert metrics["swarm_bytes_resumed_total"] == least
        assert metrics["swarm_bytes_received_total"] <= len(data) - least + _SLACK
    elif puller.process is not None and puller.process.poll() is not None:
        puller.start()
    never_wrong(client.answer(), data)
    assert puller.get(digest) == data
    assert not list((puller.data / "partial").glob("*"))
    nobody_convicted(puller, *stage.sources)


def test_sources_killed_and_paused_at_random_moments_cost_nothing_but_time(
    stage: Stage, tmp_path: Path
) -> None:
    digest, data = stage.store(tmp_path / "blob", 64 * MIB + 5)
    puller = stage.swarm.add("puller", join=tuple(stage.sources))
    stage.swarm.wait_acquainted([puller, *stage.sources])
    stage.slow(4 * MIB)
    client = Client(puller, f"/{digest}").start()
    for turn in range(rounds(4)):
        if puller.has(digest):
            break
        time.sleep(stage.random.uniform(0.1, 1.0))
        victim = stage.random.choice(stage.sources[1:])  # the first is always there
        if turn % 2:
            victim.kill(signal.SIGSTOP)
            time.sleep(stage.random.uniform(0.5, 3.0))
            victim.kill(signal.SIGCONT)
        else:
            victim.restart()
    stage.slow(0)
    answer = client.answer()
    assert (answer.status, answer.ended) == (200, True)
    assert answer.body == data
    wait_until(lambda: puller.has(digest), "published")
    nothing_torn(puller)
    nobody_convicted(puller, *stage.sources)


def test_a_pull_whose_sources_all_went_away_goes_on_when_they_are_back(stage: Stage, tmp_path: Path) -> None:
    digest, data = stage.store(tmp_path / "blob", 48 * MIB + 5)
    puller = stage.swarm.add("puller", join=tuple(stage.sources))
    stage.swarm.wait_acquainted([puller, *stage.sources])
    stage.slow(3 * MIB)
    client = Client(puller, f"/{digest}").start()
    wait_until(lambda: verified(puller) >= 8 * MIB, "some bytes are here")
    for source in stage.sources:
        source.kill()
    time.sleep(3)
    for source in stage.sources:
        source.start()
    answer = client.answer()
    assert (answer.status, answer.ended) == (200, True), (answer, puller.log[-3000:])
    assert answer.body == data
    assert puller.metrics()["swarm_bytes_received_total"] <= len(data) + _SLACK
    nobody_convicted(puller, *stage.sources)

"""Networks that delay, throttle, cut, half-close and corrupt, between real nodes."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest
from attrs import define

from swarm.testing.blobs import make_file
from swarm.testing.outsiders import Outsider, outsiders_of
from swarm.testing.processes import Node, Swarm, swarm_in, wait_until
from tests.integration.chaos import (
    MIB,
    Answer,
    close_all,
    nobody_convicted,
    nothing_torn,
    raw_get,
    rounds,
    seed,
)


@define
class Network:
    """Two sources behind a relay each, and a node that pulls."""

    swarm: Swarm
    sources: list[Node]
    relays: list[Outsider]
    puller: Node
    path: Path
    random: Random
    blobs: int = 0

    def store(self, size: int) -> tuple[str, bytes]:
        """A new blob that both sources hold."""
        self.blobs += 1
        file = self.path / str(self.blobs)
        digest = make_file(file, size, self.random)
        data = file.read_bytes()
        for each in self.sources:
            each.put(data)
        return digest, data

    def calm(self) -> None:
        """All faults over."""
        for relay in self.relays:
            for order in ("delay 0", "rate 0", "corrupt 0", "thaw", "open"):
                relay.order(order)


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    path = tmp_path_factory.mktemp("network")
    with swarm_in(path / "swarm") as swarm, outsiders_of(swarm) as outsiders:
        sources, relays = [], []
        for index in range(2):
            node, relay = outsiders.behind_relay(f"source{index}", "--copies=1")
            sources.append(node)
            relays.append(relay)
        settings = path / "settings.toml"
        settings.write_text("[pull]\nanswer_within = 20\n[pull.pull]\npatience = 60\n")
        puller = swarm.add("puller", f"--config={settings}", join=tuple(sources))
        swarm.wait_acquainted([puller])
        made = Network(swarm, sources, relays, puller, path, Random(seed()))
        wait_until(lambda: all(source.name in alive(puller) for source in sources), "they meet")
        yield made
        close_all(swarm)


def alive(node: Node) -> set[str]:
    """Names of the peers it sees alive."""
    return {peer["name"] for peer in node.ready()["peers"] if peer["state"] == "alive"}


def pull_through(network: Network, size: int, *orders: tuple[int, float, str]) -> None:
    """GET a new blob while relays do as ordered: (which, seconds later, what). It must come right."""
    wait_until(lambda: all(each.name in alive(network.puller) for each in network.sources), "all meet")
    digest, data = network.store(size)
    for relay in network.relays:
        relay.order(f"rate {4 * MIB}")
    answers: list[Answer] = []
    client = threading.Thread(
        target=lambda: answers.append(raw_get(network.puller, f"/{digest}", timeout=150))
    )
    client.start()
    for which, later, order in orders:
        time.sleep(later)
        network.relays[which].order(order)
    time.sleep(0.5)
    network.calm()
    client.join()
    (answer,) = answers
    assert (answer.status, answer.ended) == (200, True), (answer.status, answer.head, len(answer.body))
    assert answer.body == data
    wait_until(lambda: network.puller.has(digest), "published")
    nothing_torn(network.puller)
    nobody_convicted(network.puller, *network.sources)


def test_connections_cut_again_and_again(network: Network) -> None:
    pull_through(network, 24 * MIB, *((n % 2, 0.3, "cut") for n in range(8)))


def test_both_cut_at_once(network: Network) -> None:
    pull_through(network, 24 * MIB, (0, 1.0, "cut"), (1, 0.0, "cut"), (0, 1.0, "cut"), (1, 0.0, "cut"))


def test_half_closed_connections(network: Network) -> None:
    pull_through(network, 24 * MIB, *((n % 2, 0.4, "half") for n in range(6)))


def test_one_link_freezes(network: Network) -> None:
    pull_through(network, 24 * MIB, (0, 0.5, "freeze"), (0, 4.0, "thaw"))


def test_all_links_freeze_for_a_while(network: Network) -> None:
    pull_through(
        network, 24 * MIB, (0, 0.5, "freeze"), (1, 0.0, "freeze"), (0, 5.0, "thaw"), (1, 0.0, "thaw")
    )


def test_a_long_slow_link_beside_a_fast_one(network: Network) -> None:
    pull_through(network, 16 * MIB, (0, 0.0, "delay 0.05"), (0, 0.0, f"rate {MIB // 4}"), (1, 2.0, "rate 0"))


def test_a_link_that_corrupts_is_no_lie(network: Network) -> None:
    pull_through(network, 24 * MIB, (0, 0.3, f"corrupt {MIB}"), (0, 3.0, "corrupt 0"))


def test_links_that_all_corrupt_for_a_while(network: Network) -> None:
    pull_through(
        network,
        24 * MIB,
        (0, 0.3, f"corrupt {3 * MIB}"),
        (1, 0.0, f"corrupt {2 * MIB}"),
        (0, 3.0, "corrupt 0"),
    )


def test_a_link_that_goes_away_for_new_connections(network: Network) -> None:
    pull_through(network, 24 * MIB, (0, 0.3, "close"), (0, 0.0, "cut"), (0, 3.0, "open"))


def test_anything_at_any_time(network: Network) -> None:
    random, orders = network.random, []
    for _ in range(4 * rounds(2)):
        which = random.randrange(2)
        bad, good = random.choice(
            [
                ("cut", "thaw"),
                ("half", "thaw"),
                ("freeze", "thaw"),
                ("delay 0.1", "delay 0"),
                ("close", "open"),
            ]
        )
        orders += [(which, random.uniform(0, 0.5), bad), (which, random.uniform(0, 1.5), good)]
    pull_through(network, 40 * MIB, *orders)

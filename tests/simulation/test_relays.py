"""What a liar makes honest nodes believe goes round among them, and is nobody's fault but the liar's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from random import Random

import pytest
from attrs import define, field
from twisted.internet.defer import Deferred, DeferredList, gatherResults
from twisted.internet.protocol import Factory

from swarm.model.digest import Digest
from swarm.model.grains import Grains
from swarm.model.ranges import RangeSet
from swarm.services.pull import Pull
from swarm.testing.liars import Blob, Lies
from swarm.testing.simulation.invariants import Witness
from swarm.testing.simulation.liar import Impostor
from swarm.testing.simulation.network import Link
from swarm.testing.simulation.scale import Scale
from swarm.testing.simulation.swarm import Swarm

SCALE = Scale(64)
GRAINS = 12
HELD = 7  # the grain the liar withholds: without it nothing refutes its list
#: Wrong bytes before it, a list that fits them, and the truth behind it: alone it is believed for ever.
SUBTLE = Lies(flip=frozenset({1, 3, 4}), midstates="joined", withhold=HELD)
#: The same, of nearly all bytes.
PLAIN = Lies(flip=frozenset(range(HELD)), midstates="joined", withhold=HELD)


@define
class Play:
    """Nodes, a liar, and one blob."""

    swarm: Swarm
    liar: Impostor
    witness: Witness
    data: bytes
    digest: Digest = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.digest = Digest.of(self.data)

    def put(self, name: str) -> None:
        answer = self.swarm.play(self.swarm.client(name).ask("PUT", "/blob", self.data), most=100.0)
        assert answer.status == 201

    def delete(self, name: str) -> None:
        path = f"/{self.digest.hex}"
        assert self.swarm.play(self.swarm.client(name).ask("DELETE", path), most=100.0).status == 200

    def pull(self, name: str) -> Deferred[object]:
        """Begin one."""
        each = self.swarm.nodes[name]
        assert each.node is not None and each.process is not None
        work = each.node.fetcher.pull(self.digest)
        return self.swarm.timeline.run(each.process, Deferred.fromCoroutine, work)  # type: ignore[no-any-return]

    def has(self, name: str) -> RangeSet:
        """What it passes on."""
        node = self.swarm.nodes[name].node
        view = None if node is None else node.fetcher.serving(self.digest)
        return RangeSet() if view is None else view.have

    def wait(self, happened: object, most: float = 100.0) -> None:
        assert callable(happened)
        assert self.swarm.timeline.until(happened, most=most), "it does not happen"

    def all_have_it(self, *pulls: Deferred[object], most: float = 300.0) -> None:
        async def everybody() -> None:
            await gatherResults(list(pulls))

        self.swarm.play(everybody(), most=most)
        assert not self.witness.problems

    def all_end(self, *pulls: Deferred[object]) -> None:
        async def everybody() -> None:
            await DeferredList(list(pulls), consumeErrors=True)

        self.swarm.play(everybody(), most=300.0)

    @property
    def counters(self) -> Counter[str]:
        return self.swarm.counters


@contextmanager
def playing(count: int, lies: Lies, seed: int = 0) -> Iterator[Play]:
    """So many nodes that know each other and the liar."""
    Factory.noisy = False
    with SCALE.applied(), Swarm(seed, count, bandwidth=(2e5, 2e5), scale=SCALE) as swarm:
        data = Random(7).randbytes(SCALE.size((GRAINS << 20) - 4321))
        assert Grains.of(len(data)).count == GRAINS
        with Witness(swarm, {"liar"}) as witness:
            play = Play(swarm, swarm.lie([Blob(data, lies)]), witness, data)
            swarm.copies(1)
            for name in swarm.nodes:
                swarm.start(name)
            swarm.timeline.until(most=5.0)
            yield play


def before(have: RangeSet) -> bool:
    """Does it pass on lies?"""
    grains = Grains.of(SCALE.size((GRAINS << 20) - 4321))
    return all(have.covers(grains.start(each), grains.stop(each)) for each in SUBTLE.flip)


def test_honest_nodes_that_believed_a_liar_alone_and_one_another_are_set_right_by_one_holder() -> None:
    with playing(6, SUBTLE) as play:
        play.put("n0")
        play.swarm.kill("n0")
        believers = ["n1", "n2", "n3", "n4", "n5"]
        pulls = [play.pull(name) for name in believers]
        play.wait(lambda: all(before(play.has(name)) for name in believers))
        play.swarm.start("n0")
        play.all_have_it(*pulls)
        assert play.witness.probes["conviction for list"] >= 1, "the liar is found out"
        lies = len(SUBTLE.flip) * SCALE.size(1 << 20)
        assert play.counters["bytes_wasted"] <= 2 * lies * len(believers), (
            "of each relay at most one grain more"
        )


@pytest.mark.parametrize("seed", range(4))
def test_a_holder_that_lost_the_blob_and_passes_on_lies_is_not_framed(seed: int) -> None:
    with playing(2, PLAIN, seed) as play:
        turncoat(play)
        assert not play.witness.problems
        assert play.counters["grains_rejected"], "it did pass lies on"


def test_without_what_its_answers_tell_it_would_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Pull, "_hear", lambda self, peer, have, given: None)
    framed = 0
    for seed in range(4):
        with playing(2, PLAIN, seed) as play:
            turncoat(play)
            framed += any("an honest peer was convicted" in each for each in play.witness.problems)
    assert framed


def turncoat(play: Play) -> None:
    """n1 pulls from n0, which loses its copy, pulls it anew from the liar, and passes on what that says."""
    links, slow, fast = play.swarm.network.links, SCALE.size(0.5e6), 1e7
    play.put("n0")
    for pair in links:
        links[pair] = Link(0.001, fast if pair[1] == "n0" else slow)
    links["liar", "n1"] = Link(0.001, slow / 8)
    pull = play.pull("n1")
    play.wait(lambda: play.counters["grains_verified"] >= 2)
    play.delete("n0")
    play.all_end(pull, play.pull("n0"))


def test_relays_that_collude_with_a_liar_cost_little_and_are_not_believed() -> None:
    colluding = Lies(flip=frozenset(range(GRAINS)), have=f"bytes=0-{SCALE.size((GRAINS << 20) - 4321) - 1}")
    with playing(3, colluding) as play:
        play.put("n0")
        play.all_have_it(play.pull("n1"), play.pull("n2"))
        assert play.witness.probes["conviction for data"] == 0, "it said that it only passes on"
        assert play.counters["bytes_wasted"] <= 2 * 4 * SCALE.size(1 << 20)

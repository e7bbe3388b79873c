"""Deleted is deleted, also at nodes that were away; and what was put again stays."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from itertools import pairwise
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred

from swarm.errors import BlobMissing, PeerError, StoreFailed
from swarm.interfaces import BlobInfo
from swarm.model.digest import Digest
from swarm.model.peers import Peer
from swarm.services.deletion import Deletion, DeletionSettings
from swarm.testing.loopback import LoopbackNode
from tests.services.world import World, pattern

DATA = pattern(5000)
DIGEST = Digest.of(DATA)


class Town:
    """Four nodes, each with the real services of deletion; ``us`` is the first."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.nodes = {"us": world.us} | {name: world.loopback.add(name) for name in "abc"}
        self.forgotten: list[Digest] = []
        self.known: list[Peer] = [node.peer for name, node in self.nodes.items() if name != "us"]
        self.deletion = Deletion(
            world.store,
            world.store.tombstones,
            world.client,
            lambda: self.known,
            DeletionSettings(retry_every=10),
            name="us",
            clock=world.clock,
            forget=self._forget,
        )
        world.us.deletion = self.deletion
        for node in self.nodes.values():
            node.store.put(DATA)

    async def _forget(self, digest: Digest) -> None:
        self.forgotten.append(digest)

    def put_again(self, node: LoopbackNode) -> None:
        node.store.put(DATA)
        tombstones = node.store.tombstones
        self.world.run(_slowly(tombstones.revive(DIGEST, tombstones.generation(DIGEST)), self.world))

    def push(self, source: LoopbackNode, target: LoopbackNode) -> bool:
        async def read(offset: int, length: int) -> bytes:
            return DATA[offset : offset + length]

        generation = source.store.tombstones.generation(DIGEST)
        client = self.world.loopback.client(source)
        info = BlobInfo(DIGEST, len(DATA))
        return self.world.run(client.push(target.peer, info, read, generation))

    @property
    def holders(self) -> set[str]:
        return {name for name, node in self.nodes.items() if DIGEST in node.store.blobs}


async def _slowly(work: Coroutine[Any, Any, object], world: World) -> None:
    await work
    await world.store.work("settle")


@pytest.fixture
def town(make: Callable[..., World]) -> Town:
    return Town(make())


def test_here_means_here(town: Town) -> None:
    assert town.world.start(town.deletion.here(DIGEST)).called
    assert town.holders == {"a", "b", "c"}
    assert town.forgotten == [DIGEST]
    with pytest.raises(BlobMissing):
        town.world.join(town.world.start(town.deletion.here(DIGEST)))


def test_everywhere_means_everywhere(town: Town) -> None:
    deleted = town.world.run(town.deletion.everywhere(DIGEST))
    assert town.holders == set()
    assert deleted.confirmed == ("us", "a", "b", "c") and deleted.pending == ()
    assert deleted.info is not None and deleted.info.size == len(DATA)
    assert town.world.store.tombstones.buried(DIGEST)
    assert not town.world.store.tombstones.debts


def test_deleting_again_is_no_new_generation(town: Town) -> None:
    town.world.run(town.deletion.everywhere(DIGEST))
    again = town.world.run(town.deletion.everywhere(DIGEST))
    assert again.info is None and again.confirmed == ("us", "a", "b", "c")
    assert town.world.store.tombstones.generation(DIGEST) == 1


def test_a_node_that_was_away_hears_of_it_when_it_returns(town: Town) -> None:
    town.nodes["b"].up = False
    deleted = town.world.run(town.deletion.everywhere(DIGEST))
    assert deleted.pending == ("b",) and deleted.confirmed == ("us", "a", "c")
    assert town.holders == {"b"}
    town.world.tasks.start("delivering", town.deletion.deliver_forever())
    town.world.spend(60)
    assert town.holders == {"b"}
    town.nodes["b"].up = True
    town.world.spend(11)
    assert town.holders == set()
    assert not town.world.store.tombstones.debts


def test_a_node_that_refuses_is_told_ever_more_rarely_until_it_returns(town: Town) -> None:
    town.nodes["b"].store.deny.add("delete")
    told = Counting(town.world.client, town.world)
    town.deletion._client = told  # type: ignore[assignment] # a twin
    town.world.run(town.deletion.everywhere(DIGEST))
    told.told.clear()
    town.world.tasks.start("delivering", town.deletion.deliver_forever())
    town.world.spend(7200)
    times = [when for name, when in told.told]
    assert {name for name, when in told.told} == {"b"}
    waits = [later - earlier for earlier, later in pairwise(times)]
    assert waits[:5] == pytest.approx([20, 40, 80, 160, 320]) and max(waits) == pytest.approx(600)
    town.nodes["b"].store.deny.clear()
    town.deletion.peer_came(town.nodes["b"].peer)
    town.world.spend(1)
    assert town.holders == set() and not town.world.store.tombstones.debts


def test_who_refuses_holds_up_nobody_else(town: Town) -> None:
    town.nodes["b"].store.deny.add("delete")
    town.nodes["c"].up = False
    town.world.run(town.deletion.everywhere(DIGEST))
    town.world.tasks.start("delivering", town.deletion.deliver_forever())
    town.world.spend(3600)
    town.nodes["c"].up = True
    town.world.spend(11)
    assert town.holders == {"b"}


def test_a_node_that_returns_hears_of_it_at_once(town: Town) -> None:
    town.nodes["b"].up = False
    town.world.run(town.deletion.everywhere(DIGEST))
    town.world.tasks.start("delivering", town.deletion.deliver_forever())
    town.world.spend(3)
    town.nodes["b"].up = True
    town.deletion.peer_came(town.nodes["b"].peer)
    town.world.spend(1)
    assert town.holders == set()


def test_a_node_forgotten_meanwhile_hears_of_it_when_it_is_known_again(town: Town) -> None:
    gone = town.nodes["b"]
    gone.up = False
    town.world.run(town.deletion.everywhere(DIGEST))
    town.known.remove(gone.peer)
    gone.up = True
    town.world.run(_slowly(town.deletion.deliver_owed(), town.world))
    assert town.holders == {"b"}
    town.known.append(gone.peer)
    town.world.run(_slowly(town.deletion.deliver_owed(), town.world))
    assert town.holders == set()


def test_one_dead_peer_does_not_hold_up_what_others_are_owed(town: Town) -> None:
    others = [pattern(10, seed) for seed in range(5)]
    for data in others:
        for node in town.nodes.values():
            node.store.put(data)
    for name in "ab":
        town.nodes[name].up = False
    for data in (DATA, *others):
        town.world.run(town.deletion.everywhere(Digest.of(data)))
    town.nodes["a"].latency = 100.0
    town.nodes["b"].up = True
    began = town.world.clock.seconds()
    owed = town.world.start(town.deletion.deliver_owed())
    town.world.until(lambda: not town.nodes["b"].store.blobs)
    assert town.world.clock.seconds() - began < 1
    town.world.join(owed)
    assert town.world.clock.seconds() - began < 150, "the dead one was tried once, not for each"


def test_an_away_node_does_not_bring_it_back(town: Town) -> None:
    town.nodes["b"].up = False
    town.world.run(town.deletion.everywhere(DIGEST))
    town.nodes["b"].up = True
    with pytest.raises(PeerError, match="deleted"):
        town.push(town.nodes["b"], town.nodes["a"])
    assert town.holders == {"b"}


def test_put_again_after_a_deletion_it_stays(town: Town) -> None:
    town.nodes["b"].up = False
    town.world.run(town.deletion.everywhere(DIGEST))
    town.put_again(town.nodes["us"])
    assert town.push(town.nodes["us"], town.nodes["a"])
    town.nodes["b"].up = True
    town.world.run(_slowly(town.deletion.deliver_owed(), town.world))
    assert town.holders == {"us", "a"}, "the late tombstone took the old copy and none of the new"
    assert town.push(town.nodes["us"], town.nodes["b"])
    for node in town.nodes.values():
        town.world.run(_slowly(node.deletion.ordered(DIGEST, 1), town.world))
    assert town.holders == {"us", "a", "b"}


def test_a_second_deletion_opens_a_second_generation(town: Town) -> None:
    town.world.run(town.deletion.everywhere(DIGEST))
    town.put_again(town.nodes["us"])
    town.push(town.nodes["us"], town.nodes["c"])
    deleted = town.world.run(town.deletion.everywhere(DIGEST))
    assert town.holders == set() and not deleted.pending
    assert all(node.store.tombstones.generation(DIGEST) == 2 for node in town.nodes.values())


def test_a_tombstone_says_whether_it_took_a_copy(town: Town) -> None:
    assert town.world.join(town.world.start(town.deletion.ordered(DIGEST, 3)))
    assert not town.world.join(town.world.start(town.deletion.ordered(DIGEST, 4)))
    assert not town.world.join(town.world.start(town.deletion.ordered(DIGEST, 2)))


def test_older_copies_are_refused_and_newer_are_not(town: Town) -> None:
    town.deletion.check_generation(DIGEST, 0)
    town.world.start(town.deletion.ordered(DIGEST, 2))
    for generation in (0, 1):
        with pytest.raises(BlobMissing, match="deleted"):
            town.deletion.check_generation(DIGEST, generation)
    town.deletion.check_generation(DIGEST, 2)


def test_a_disk_that_fails_is_no_success_and_the_next_try_ends_it(town: Town) -> None:
    town.world.store.disk_error = lambda: StoreFailed("EIO")
    with pytest.raises(StoreFailed):
        town.world.join(town.world.start(town.deletion.everywhere(DIGEST)))
    town.world.store.disk_error = None
    assert town.world.run(town.deletion.everywhere(DIGEST)).pending == ()
    assert town.holders == set()


def test_deliveries_go_on_after_a_disk_failed(town: Town, said: list[str]) -> None:
    town.nodes["b"].up = False
    town.world.run(town.deletion.everywhere(DIGEST))
    town.nodes["b"].up = True
    town.deletion._tombstones = Failing(town.world.store.tombstones)  # type: ignore[assignment] # a twin
    town.world.tasks.start("delivering", town.deletion.deliver_forever())
    town.world.spend(11)
    assert town.world.store.tombstones.debts and any("cannot note" in each for each in said)
    town.world.spend(10)
    assert not town.world.store.tombstones.debts


def test_a_disk_that_cannot_note_who_was_told_does_not_make_them_untold(town: Town, said: list[str]) -> None:
    """Found by the simulation (seed 239): a traceback, and a peer that had confirmed was named as pending."""
    town.deletion._tombstones = Failing(town.world.store.tombstones)  # type: ignore[assignment] # a twin
    deleted = town.world.run(town.deletion.everywhere(DIGEST))
    assert deleted.pending == () and town.holders == set()
    assert any("cannot note" in each for each in said)


def test_a_tombstone_that_the_disk_did_not_let_us_carry_out_is_carried_out_when_it_comes_again(
    town: Town,
) -> None:
    """Found by the simulation (seed 137): the copy stayed until the node was restarted."""
    store = town.world.store
    town.deletion._store = Refusing(store)  # type: ignore[assignment] # a twin
    with pytest.raises(StoreFailed):
        town.world.join(town.world.start(town.deletion.ordered(DIGEST, 1)))
    assert "us" in town.holders and store.tombstones.buried(DIGEST)
    assert town.world.join(town.world.start(town.deletion.ordered(DIGEST, 1)))
    assert "us" not in town.holders
    store.put(DATA)
    assert not town.world.join(town.world.start(town.deletion.ordered(DIGEST, 1)))
    assert "us" in town.holders


@pytest.mark.parametrize("again", [True, False])
def test_who_hangs_up_between_the_tombstone_and_the_removal_does_not_keep_the_copy(
    town: Town, again: bool
) -> None:
    """Found with a stopped node: told, and hung up on, it buried the id, and then kept the copy for ever."""
    store = town.world.store
    town.deletion._tombstones = Hanging(store.tombstones)  # type: ignore[assignment] # a twin
    telling = town.world.start(town.deletion.ordered(DIGEST, 1))
    telling.addErrback(lambda failure: failure.trap(CancelledError))
    telling.cancel()
    assert "us" in town.holders and store.tombstones.buried(DIGEST)
    town.deletion._tombstones = store.tombstones
    if again:
        assert town.world.join(town.world.start(town.deletion.ordered(DIGEST, 1)))
    else:
        town.world.tasks.start("delivering", town.deletion.deliver_forever())
        town.world.spend(11)
    assert "us" not in town.holders


def test_what_a_disk_kept_us_from_removing_is_removed_when_it_works_again(
    town: Town, said: list[str]
) -> None:
    town.world.store.disk_error = lambda: StoreFailed("EIO")
    town.deletion._unfinished.add(DIGEST)
    town.world.store.tombstones.known[DIGEST] = (1, True)
    town.world.tasks.start("delivering", town.deletion.deliver_forever())
    town.world.spend(11)
    assert "us" in town.holders and any("cannot delete" in each for each in said)
    town.world.store.disk_error = None
    town.world.spend(11)
    assert "us" not in town.holders


class Hanging:
    """Tombstones that are recorded, and nobody is told so."""

    def __init__(self, real: object) -> None:
        self._real = real

    def __getattr__(self, name: str) -> object:
        return getattr(self._real, name)

    async def bury(self, digest: Digest, generation: int) -> None:
        await self._real.bury(digest, generation)  # type: ignore[attr-defined] # tombstones
        await Deferred()


class Refusing:
    """A store whose disk refuses the first deletion."""

    def __init__(self, real: object) -> None:
        self._real = real
        self._refused = False

    async def delete(self, digest: Digest) -> BlobInfo:
        if not self._refused:
            self._refused = True
            raise StoreFailed("EIO")
        info: BlobInfo = await self._real.delete(digest)  # type: ignore[attr-defined] # a store
        return info

    async def sync_removal(self, digest: Digest) -> None:
        await self._real.sync_removal(digest)  # type: ignore[attr-defined] # a store


class Counting:
    """A client that notes when tombstones were told to whom."""

    def __init__(self, real: object, world: World) -> None:
        self._real = real
        self._world = world
        self.told: list[tuple[str, float]] = []

    async def delete(self, peer: Peer, digest: Digest, generation: int) -> bool:
        self.told.append((peer.name, self._world.clock.seconds()))
        answer: bool = await self._real.delete(peer, digest, generation)  # type: ignore[attr-defined]
        return answer


class Failing:
    """Tombstones on a disk that refuses the first payment."""

    def __init__(self, real: object) -> None:
        self._real = real
        self._failed = False

    def __getattr__(self, name: str) -> object:
        return getattr(self._real, name)

    async def paid(self, digest: Digest, peer: object) -> None:
        if not self._failed:
            self._failed = True
            raise StoreFailed("EIO")
        await self._real.paid(digest, peer)  # type: ignore[attr-defined] # tombstones

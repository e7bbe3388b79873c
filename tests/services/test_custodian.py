"""A reported copy is verified, not too often, and healed if it is bad."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from swarm.errors import StoreFailed
from swarm.model.digest import Digest
from swarm.model.peers import PeerID
from swarm.services.custodian import Custodian, CustodianSettings
from tests.services.world import BLOB, DIGEST, MIB, World, pattern

REPORTER = PeerID(bytes(32))


class Verifying:
    """Counts what a world's store verifies."""

    def __init__(self, world: World, **settings: float) -> None:
        self.verified: list[Digest] = []
        self.error: Exception | None = None
        self.world = world
        self.custodian = Custodian(
            world.store,
            world.fetcher.pull,
            CustodianSettings(**settings),  # type: ignore[arg-type] # counts are whole
            clock=world.clock,
            tasks=world.tasks,
        )
        verify = world.store.verify

        async def counted(digest: Digest) -> bool:
            self.verified.append(digest)
            await world.store.work("verify")
            if self.error is not None:
                raise self.error
            return await verify(digest)

        world.store.verify = counted  # type: ignore[method-assign] # to count

    def suspect(self, digest: Digest) -> None:
        self.custodian.suspect(digest, REPORTER, "wrong data at grain 0")


def test_a_good_copy_stays_and_is_not_verified_for_every_report(make: Callable[..., World]) -> None:
    world = make()
    verifying = Verifying(world, recheck_after=100)
    world.store.put(BLOB)
    for _ in range(5):
        verifying.suspect(DIGEST)
    world.spend(1)
    verifying.suspect(DIGEST)
    world.spend(1)
    assert verifying.verified == [DIGEST]
    world.spend(100)
    verifying.suspect(DIGEST)
    world.spend(1)
    assert verifying.verified == [DIGEST, DIGEST]
    assert DIGEST in world.store.blobs


def test_a_damaged_copy_is_set_aside_and_healed(make: Callable[..., World]) -> None:
    world = make()
    verifying = Verifying(world)
    world.peer("a", BLOB)
    world.store.put(BLOB)
    world.store.damage(DIGEST)
    verifying.suspect(DIGEST)
    world.until(lambda: DIGEST in world.store.blobs and world.store.blobs[DIGEST].data == BLOB)
    assert DIGEST in world.store.quarantine


def test_a_damaged_copy_that_nobody_else_has_is_missing(make: Callable[..., World], said: list[str]) -> None:
    world = make()
    verifying = Verifying(world)
    world.store.put(BLOB)
    world.store.damage(DIGEST)
    verifying.suspect(DIGEST)
    world.spend(10)
    assert DIGEST not in world.store.blobs
    assert any("cannot heal" in each for each in said)


def test_reports_of_what_is_not_here_are_nothing(make: Callable[..., World]) -> None:
    world = make()
    verifying = Verifying(world)
    verifying.suspect(DIGEST)
    world.spend(1)
    assert world.tasks.names == ()


def test_a_disk_that_fails_is_said_and_the_next_goes_on(make: Callable[..., World], said: list[str]) -> None:
    world = make()
    verifying = Verifying(world)
    other = world.store.put(pattern(MIB, 3))
    world.store.put(BLOB)
    verifying.error = StoreFailed("EIO")
    verifying.suspect(DIGEST)
    verifying.suspect(other)
    world.spend(1)
    assert verifying.verified == [DIGEST, other]
    assert any("cannot verify" in each for each in said)


@pytest.mark.parametrize("most", [1, 3])
def test_only_so_many_reports_wait(make: Callable[..., World], most: int) -> None:
    world = make()
    verifying = Verifying(world, at_once=most)
    digests = [world.store.put(pattern(100, seed)) for seed in range(5)]
    for digest in digests:
        verifying.suspect(digest)
    world.spend(1)
    assert verifying.verified == digests[:most]


def test_what_nobody_can_give_now_is_healed_when_somebody_can(make: Callable[..., World]) -> None:
    world = make()
    verifying = Verifying(world, heal_again=30, heal_pause=50)
    world.store.put(BLOB)
    world.store.damage(DIGEST)
    verifying.suspect(DIGEST)
    world.spend(200)
    assert DIGEST not in world.store.blobs
    world.peer("a", BLOB)
    world.spend(60)
    assert world.store.blobs[DIGEST].data == BLOB
    assert world.tasks.names == ()


def test_it_is_tried_for_so_long_only(make: Callable[..., World], said: list[str]) -> None:
    world = make()
    verifying = Verifying(world, heal_for=100)
    world.store.put(BLOB)
    world.store.damage(DIGEST)
    verifying.suspect(DIGEST)
    world.spend(300)
    assert world.tasks.names == ()
    assert sum("cannot heal" in each for each in said) == 4  # at once, after 30, 90 and 210 s
    assert any("gave up healing" in each for each in said)


def test_what_is_deleted_meanwhile_is_not_brought_back(make: Callable[..., World]) -> None:
    world = make()
    verifying = Verifying(world)
    world.store.put(BLOB)
    world.store.damage(DIGEST)
    verifying.suspect(DIGEST)
    world.spend(1)
    verifying.custodian.forget(DIGEST)
    world.peer("a", BLOB)
    world.spend(100)
    assert DIGEST not in world.store.blobs
    assert world.tasks.names == ()

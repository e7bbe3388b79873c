"""Tombstones written at the same time end with the newest, in memory and on disk alike."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred

from swarm.model.digest import Digest
from swarm.storage.catalog import Catalog
from swarm.storage.disk import Disk
from swarm.storage.ledgers import Tombstones
from swarm.storage.work import Work
from swarm.testing.contracts import at_once
from swarm.testing.memory import MemoryTombstones
from tests.contracts.rigs import on_the_spot
from tests.storage.test_work import Threads

A = Digest.of(b"a")

orders = st.lists(st.tuples(st.sampled_from(["bury", "revive"]), st.integers(0, 4)), max_size=12)


@given(orders)
def test_whatever_comes_in_whatever_order_is_as_in_memory(some: list[tuple[str, int]]) -> None:
    catalog = Catalog(":memory:", disk=Disk())
    catalog.open()
    real, twin = Tombstones(catalog, Work(on_the_spot)), MemoryTombstones()
    for what, generation in some:
        for stones in (real, twin):
            at_once(getattr(stones, what)(A, generation))
    again = Tombstones(catalog, Work(on_the_spot))
    at_once(again.load())
    for stones in (real, again):
        assert (stones.generation(A), stones.buried(A)) == (twin.generation(A), twin.buried(A))
    catalog.close()


def test_a_late_writer_does_not_take_a_newer_tombstone_back(tmp_path: Path) -> None:
    catalog = Catalog(str(tmp_path / "catalog.sqlite"), disk=Disk())
    catalog.open()
    threads = Threads()
    stones = Tombstones(catalog, Work(threads))
    older = Deferred.fromCoroutine(stones.bury(A, 1))
    newer = Deferred.fromCoroutine(stones.bury(A, 2))
    threads.queue.reverse()
    threads.all()
    assert older.called
    assert newer.called
    assert stones.generation(A) == 2
    assert catalog.tombstones() == [(A, 2, True)]
    catalog.close()

"""What a pull verified becomes durable soon, never twice at once, and the rest is counted (promise 4)."""

from __future__ import annotations

from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from swarm.errors import LocalError, StoreFailed
from swarm.services.saving import Saving
from swarm.services.tasks import Tasks


class Disk:
    """A partial whose checkpoints end when a test says so."""

    def __init__(self) -> None:
        self.under_way: list[Deferred[None]] = []

    async def checkpoint(self) -> None:
        """Wait for the test."""
        ended: Deferred[None] = Deferred()
        self.under_way.append(ended)
        await ended

    def end(self) -> None:
        """The one checkpoint under way is durable."""
        (ended,) = self.under_way
        self.under_way.clear()
        ended.callback(None)

    def fail(self) -> None:
        """It is not."""
        (ended,) = self.under_way
        self.under_way.clear()
        ended.errback(StoreFailed("fsync"))


class Rig:
    """A saving of 2 s or 100 bytes."""

    def __init__(self) -> None:
        self.clock, self.disk, self.tasks = Clock(), Disk(), Tasks()
        self.saved: list[int] = []
        self.failures: list[LocalError] = []
        self.saving = Saving(
            cast(Any, self.disk),
            every=2.0,
            bytes_=100,
            clock=self.clock,
            tasks=self.tasks,
            saved=lambda: self.saved.append(self.saving.unsaved),
            failed=self.failures.append,
        )
        self.tasks.start("saving", self.saving.run())


def test_enough_bytes_are_saved_at_once() -> None:
    rig = Rig()
    rig.saving.marked(60)
    assert not rig.disk.under_way
    rig.saving.marked(60)
    assert len(rig.disk.under_way) == 1
    rig.disk.end()
    assert (rig.saving.unsaved, rig.saved) == (0, [0])


def test_a_little_is_saved_after_a_while() -> None:
    rig = Rig()
    rig.saving.marked(1)
    rig.clock.advance(1.9)
    assert not rig.disk.under_way
    rig.clock.advance(0.2)
    rig.disk.end()
    assert rig.saving.unsaved == 0


def test_nothing_new_needs_no_record() -> None:
    rig = Rig()
    for _ in range(5):
        rig.clock.advance(2.0)
    assert not rig.disk.under_way


def test_what_comes_during_a_checkpoint_is_not_covered_by_it() -> None:
    rig = Rig()
    rig.saving.marked(100)
    rig.saving.marked(150)
    rig.clock.advance(2.0)
    assert len(rig.disk.under_way) == 1  # never two at once
    assert rig.saving.unsaved == 250
    rig.disk.end()
    assert rig.saved == [150]
    assert len(rig.disk.under_way) == 1  # and the next follows at once, for it is enough
    rig.disk.end()
    assert rig.saving.unsaved == 0


def test_a_failed_checkpoint_covers_nothing() -> None:
    rig = Rig()
    rig.saving.marked(100)
    rig.disk.fail()
    assert (rig.saving.unsaved, rig.saved, len(rig.failures)) == (100, [], 1)

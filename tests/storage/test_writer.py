"""A large PUT: what is held in memory, and what the disk has yet to take, has a limit."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from swarm.errors import LocalError, StoreFailed, VolumeReadOnly
from swarm.model.digest import Digest
from swarm.model.filenames import Filename
from swarm.storage.disk import Disk
from swarm.storage.writer import BlobWriter
from swarm.testing.contracts import MIB, at_once, pattern
from tests.contracts.rigs import FilesystemRig
from tests.storage.failing import FailingDisk
from tests.storage.test_work import Threads

PIECE = pattern(4 * MIB)


class Behind:
    """A store whose threads work when the test says so: the hash's, and the disk's."""

    def __init__(self, path: Path, disk: Disk) -> None:
        self.rig = FilesystemRig(str(path), disk=disk)
        at_once(self.rig.store.start())
        self.threads = Threads()
        self.rig.store._work._run_blocking = self.threads
        opening = Deferred.fromCoroutine(self.rig.store.writer(None))
        self.threads.all()
        assert isinstance(opening.result, BlobWriter)
        self.writer = opening.result
        self.slow: list[Any] = []

    def hash(self) -> None:
        """Let the hash catch up; the disk does not move."""
        while True:
            self._set_aside()
            if not self.threads.queue:
                return
            self.threads.step()

    def write_out(self) -> None:
        """Let the disk take what it was asked to."""
        self._set_aside()
        self.threads.queue, self.slow = self.slow + self.threads.queue, []
        self.threads.step()

    def _set_aside(self) -> None:
        for job in list(self.threads.queue):
            if job.__closure__ and "_write_out" in repr([cell.cell_contents for cell in job.__closure__]):
                self.threads.queue.remove(job)
                self.slow.append(job)

    def finish(self) -> Any:
        finishing = Deferred.fromCoroutine(self.writer.finish(Filename.parse("big")))
        finishing.addErrback(lambda failure: failure)
        self.threads.queue, self.slow = self.slow + self.threads.queue, []
        self.threads.all()
        outcome: list[Any] = []
        finishing.addBoth(outcome.append)
        return outcome[0]


@pytest.fixture
def disk() -> FailingDisk:
    return FailingDisk(error=errno.EIO, only=frozenset(["write_out"]))


@pytest.fixture
def behind(tmp_path: Path, disk: FailingDisk) -> Iterator[Behind]:
    behind = Behind(tmp_path, disk)
    yield behind
    behind.writer.abort()
    behind.threads.queue += behind.slow
    behind.threads.all()
    stopping = Deferred.fromCoroutine(behind.rig.store.stop())
    behind.threads.all()
    assert stopping.called
    assert not disk.open


def test_a_writer_lags_when_the_hash_is_far_behind_and_catches_up(behind: Behind) -> None:
    writer = behind.writer
    writer.write(PIECE)
    assert not writer.lagging()
    writer.write(PIECE)
    assert writer.lagging()
    caught_up = Deferred.fromCoroutine(writer.caught_up())
    given_up = Deferred.fromCoroutine(writer.caught_up())
    given_up.addErrback(lambda failure: None)
    given_up.cancel()
    behind.rig.clock.advance(1)
    assert not caught_up.called
    behind.hash()
    behind.rig.clock.advance(1)
    assert caught_up.called
    assert not writer.lagging()
    stored = behind.finish()
    assert stored.info.digest == Digest.of(PIECE * 2)


def test_a_writer_lags_when_the_disk_is_far_behind_and_holds_nothing_in_memory_for_it(behind: Behind) -> None:
    writer = behind.writer
    for _ in range(16):
        writer.write(PIECE)
        behind.hash()
        assert not writer._unhashed
        assert not writer.lagging()
    writer.write(PIECE)
    behind.hash()
    assert writer.lagging()
    caught_up = Deferred.fromCoroutine(writer.caught_up())
    behind.hash()
    behind.rig.clock.advance(1)
    assert not caught_up.called
    behind.write_out()
    behind.rig.clock.advance(1)
    assert caught_up.called
    assert behind.finish().info.digest == Digest.of(PIECE * 17)


def test_what_the_disk_refuses_on_the_way_ends_the_write_and_the_trust(
    behind: Behind, disk: FailingDisk
) -> None:
    """The kernel tells of it once: the fsync at the end would succeed."""
    disk.calls, disk.at = 0, 1
    behind.writer.write(PIECE)
    behind.writer.write(PIECE)
    behind.write_out()
    with pytest.raises(StoreFailed):
        behind.writer.write(b"more")
    assert not behind.writer.lagging()
    outcome = behind.finish()
    assert isinstance(outcome, Failure)
    assert isinstance(outcome.value, LocalError)
    with pytest.raises(VolumeReadOnly):
        behind.rig.store.check_room(1)
    assert behind.rig.store.usage().blobs == 0


def test_an_error_of_the_last_write_out_is_not_lost_behind_a_good_fsync(
    behind: Behind, disk: FailingDisk
) -> None:
    behind.writer.write(PIECE)
    behind.writer.write(PIECE)
    disk.calls, disk.at = 0, 1
    assert isinstance(behind.finish(), Failure)
    assert behind.rig.store.usage().read_only is not None

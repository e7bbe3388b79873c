"""Blobs committed together: each call fails once, the power goes at each call, and every answer is true."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from random import Random

import pytest
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from swarm.errors import BlobMissing, LocalError, VolumeReadOnly
from swarm.hashing import load
from swarm.interfaces import Stored
from swarm.model.digest import Digest
from swarm.model.filenames import Filename
from swarm.storage import names
from swarm.storage.disk import Disk
from swarm.storage.layout import Layout
from swarm.testing.contracts import MIB, at_once, pattern, put
from swarm.testing.simulation.disk import Platter, PowerLoss
from tests.contracts.rigs import FilesystemRig, fast
from tests.storage.failing import SYNCING, FailingDisk
from tests.storage.test_work import Threads

LEADER = pattern(11, 1)
NEW, EMPTY, MARKED, BIG = pattern(3000, 2), b"", pattern(20, 3), pattern(MIB + 9, 4)
KNOWN, DAMAGED = pattern(5000, 5), pattern(70_000, 6)
BATCH = [NEW, EMPTY, MARKED, BIG, KNOWN, DAMAGED]
IMAGES = 6


class Group:
    """Several PUTs that wait together while another one is committed; then all of them are."""

    def __init__(self, rig: FilesystemRig, threads: Threads) -> None:
        self.rig = rig
        self.threads = threads
        self.outcomes: dict[bytes, Stored | Failure] = {}

    def prepare(self) -> None:
        """What is there before: one good blob, a damaged one, and a marker of one that is not there."""
        at_once(self.rig.store.start())
        at_once(put(self.rig.store, KNOWN, "before"))
        at_once(put(self.rig.store, DAMAGED, "before"))
        self.rig.damage(Digest.of(DAMAGED))
        self.rig.store._publisher.put_marker(Digest.of(MARKED), "404")

    def put_all(self, batch: list[bytes] = BATCH) -> None:
        self.rig.store._work._run_blocking = self.threads
        self._finish(LEADER)
        leading, self.threads.queue = self.threads.queue, []
        for data in batch:
            self._finish(data)
            self.threads.all()  # hashed, and what is large is synced
        self.threads.queue = leading
        self.threads.all()

    def _finish(self, data: bytes) -> None:
        async def finished() -> Stored:
            writer = await self.rig.store.writer(None if data is BIG else len(data))
            if data:
                writer.write(data)
            return await writer.finish(Filename.parse("after"))

        def note(outcome: Stored | Failure) -> None:
            self.outcomes[data] = outcome

        Deferred.fromCoroutine(finished()).addBoth(note)
        if data is not LEADER:
            self.threads.all()

    def stored(self) -> set[bytes]:
        """What was promised."""
        return {data for data, outcome in self.outcomes.items() if isinstance(outcome, Stored)}


@contextmanager
def grouped(disk: Disk | None = None) -> Iterator[Group]:
    with tempfile.TemporaryDirectory(prefix="swarm-group-", dir=fast()) as path:
        sha512 = load(preadv=disk.preadv) if isinstance(disk, FailingDisk) else load()
        if isinstance(disk, Platter):
            disk.root = path
        group = Group(FilesystemRig(path, disk=disk, sha512=sha512), Threads())
        group.prepare()
        yield group


def calls(disk: Platter) -> list[str]:
    return [call for call, _ in disk.trace]


def test_a_group_syncs_the_volume_twice_and_nothing_else() -> None:
    disk = Platter("/")
    with grouped(disk) as group:
        disk.trace.clear()
        group.put_all([NEW, EMPTY, pattern(9, 9)])
        assert len(group.stored()) == 4
        after = disk.trace[disk.trace.index(("sync_volume", "volume")) :]
        assert [call for call, _ in after] == ["sync_volume", "link_fd", "link_fd", "link_fd", "sync_volume"]


def test_one_alone_syncs_its_own_files_only() -> None:
    disk = Platter("/")
    with grouped(disk) as group:
        disk.trace.clear()
        group.put_all([])
        assert "sync_volume" not in calls(disk)
        assert calls(disk)[-1] == "fsync_dir"


@pytest.mark.parametrize("much", [True, False], ids=["others left much unwritten", "it cannot be believed"])
def test_where_the_volume_is_not_synced_each_goes_alone(much: bool) -> None:
    class Busy(Platter):
        def unwritten(self) -> int:
            return 1 << 40 if much else 0

        def open_volume(self, path: str) -> int | None:
            return None

    disk = Busy("/")
    with grouped(disk) as group:
        disk.trace.clear()
        group.put_all()
        assert group.stored() == {LEADER, *BATCH}
        assert "sync_volume" not in calls(disk)
        assert calls(disk).count("fsync_dir") > 2 * len(BATCH)


def test_equal_blobs_of_one_group_are_stored_once() -> None:
    with grouped() as group:
        twice = bytes(bytearray(NEW))
        group.put_all([NEW, twice])
        (outcome,) = {each for data, each in group.outcomes.items() if data == NEW}
        assert isinstance(outcome, Stored)
        assert group.rig.store.usage().blobs == 4


class Crowded(FailingDisk):
    """Others left so much unwritten that no group syncs the volume."""

    def unwritten(self) -> int:
        return 1 << 40


@pytest.mark.parametrize("kind", [FailingDisk, Crowded], ids=["as one", "one by one"])
@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC, errno.EMFILE], ids=errno.errorcode.get)
def test_whatever_call_fails_everybodys_answer_is_true(error: int, kind: type[FailingDisk]) -> None:
    at, seen = 1, set[str]()
    while True:
        disk = kind()
        with grouped(disk) as group:
            disk.calls, disk.at, disk.error, disk.failed = 0, at, error, None
            group.put_all()
            disk.at = -1
            assert set(group.outcomes) == {LEADER, *BATCH}, "somebody waits for ever"
            if disk.failed is None:
                assert group.stored() == {LEADER, *BATCH}
                break
            seen.add(disk.failed)
            _check(group, disk.failed, error)
            _truth(group)
        at += 1
    assert ("begin_write_out" if kind is Crowded else "sync_volume") in seen


def _check(group: Group, call: str, error: int) -> None:
    failures = [each for each in group.outcomes.values() if isinstance(each, Failure)]
    assert all(isinstance(each.value, LocalError) for each in failures)
    latched = group.rig.store.usage().read_only is not None
    if call == "sync_volume" and error != errno.EMFILE:
        assert latched
        assert len(failures) == len(BATCH)
    elif call in SYNCING and error != errno.EMFILE:
        assert latched
        assert failures
    elif not latched and call not in ("sync_volume", "fsync_dir"):  # several depend on those
        assert len(failures) <= 1, f"{call} of one blob is the others' failure"
    if latched:
        with pytest.raises(VolumeReadOnly):
            group.rig.store.check_room(1)


def _truth(group: Group) -> None:
    """What a node started afterwards finds is what was answered; nothing was left behind."""
    rig = group.rig
    at_once(rig.crash())
    for data in (LEADER, *BATCH):
        digest = Digest.of(data)
        path = Path(rig.layout.file(digest, "data"))
        if data in group.stored() or data is KNOWN:
            assert path.read_bytes() == data
        elif data is not DAMAGED:
            assert not path.exists()
            assert not path.parent.exists() or data is MARKED
    assert not [name for name in os.listdir(rig.layout.blobs) if name.startswith(".")]
    at_once(rig.store.stop())


class Forgetful(Platter):
    """Forgets its ``n``-th sync of the volume, or all syncs of a kind."""

    def __init__(self, root: str, at: int = -1, n: int = -1, crowded: bool = False, kind: str = "") -> None:
        super().__init__(root, at)
        self.n = n
        self.crowded = crowded
        self.kind = kind

    def unwritten(self) -> int:
        return 1 << 40 if self.crowded else 0

    def fsync(self, fd: int) -> None:
        if self.kind == "fsync":
            self._step("fsync", "file")
        else:
            super().fsync(fd)

    def fsync_dir(self, path: str) -> None:
        if self.kind == "fsync_dir":
            self._step("fsync_dir", path)
        else:
            super().fsync_dir(path)

    def sync_volume(self, fd: int) -> None:
        self.n -= 1
        if self.n == -1:
            self._step("sync_volume", "volume")
        else:
            super().sync_volume(fd)


def _lose_power_everywhere(forget: int = -1, *, crowded: bool = False, kind: str = "") -> int:
    """Lose power at each call; look at several platters that may be left. How many calls there were."""
    at = 0
    while True:
        disk = Forgetful("/", n=forget, crowded=crowded, kind=kind)
        with grouped(disk) as group:
            disk.calls, disk.at = 0, at
            with suppress(PowerLoss):
                group.put_all()
            lost = [each for each in group.outcomes.values() if isinstance(each, Failure)]
            assert all(each.check(PowerLoss) for each in lost)
            for image in range(IMAGES):
                _survives(disk.survivor(Random(f"{at} {image}")), group)
            if not disk.dead:
                assert group.stored() == {LEADER, *BATCH}
                return at
        at += 1


def _survives(survivor: dict[str, bytes], group: Group) -> None:
    layout = Layout("")
    for path, found in survivor.items():
        if path.startswith("blobs/") and path.endswith("/data"):
            digest = Digest.parse(path.split("/")[-2])
            assert Digest.of(found) == digest or len(found) == len(DAMAGED), "torn"
    for data in group.stored():
        digest = Digest.of(data)
        assert survivor.get(layout.file(digest, "data")) == data, "lost"
        assert names.decode(survivor[layout.file(digest, "names")])[-1].text == "after", "its name is lost"


@pytest.mark.parametrize("crowded", [False, True], ids=["as one", "one by one"])
def test_no_crash_loses_what_was_answered_or_shows_what_is_torn(crowded: bool) -> None:
    assert _lose_power_everywhere(crowded=crowded) > 40


@pytest.mark.parametrize("sync", [0, 1], ids=["before names are given", "after"])
def test_a_forgotten_sync_of_the_volume_is_noticed(sync: int) -> None:
    with pytest.raises(AssertionError, match=r"torn|lost"):
        _lose_power_everywhere(forget=sync)


@pytest.mark.parametrize("kind", ["fsync", "fsync_dir"])
def test_syncs_that_are_forgotten_one_by_one_are_noticed(kind: str) -> None:
    with pytest.raises(AssertionError, match=r"torn|lost"):
        _lose_power_everywhere(crowded=True, kind=kind)


def test_a_failed_sync_is_never_tried_again() -> None:
    disk = FailingDisk(error=errno.EIO, only=frozenset(["sync_volume"]))
    with grouped(disk) as group:
        disk.calls, disk.at = 0, 1
        group.put_all()
        assert group.stored() == {LEADER}
        assert disk.calls == 1
        group.outcomes.clear()
        group.put_all()
        assert not group.stored()
        assert disk.calls == 1


def test_a_fault_of_our_own_is_everybodys_and_the_next_group_goes_on() -> None:
    class Wrong(Disk):
        def unwritten(self) -> int:
            raise ZeroDivisionError

    with grouped(Wrong()) as group:
        group.put_all([NEW, EMPTY])
        assert group.stored() == {LEADER}
        lost = group.outcomes[NEW]
        assert isinstance(lost, Failure)
        assert lost.check(ZeroDivisionError)
        group.rig.store._publisher._disk.unwritten = lambda: 0  # type: ignore[method-assign]
        group.put_all([NEW, EMPTY])
        assert group.stored() == {LEADER, NEW, EMPTY}


def test_what_a_crash_left_of_small_files_is_written_over(tmp_path: Path) -> None:
    rig = FilesystemRig(str(tmp_path))
    at_once(rig.store.start())
    leaf = Path(rig.layout.blob(Digest.of(BIG)))
    leaf.mkdir(parents=True)
    (leaf / "names").write_bytes(b"\0\0\0\0")
    (leaf / "midstates").write_bytes(b"\0" * 100)
    (leaf / "names.next").write_bytes(b"half")
    stored = at_once(put(rig.store, BIG, "n"))
    assert [name.text for name in stored.info.names] == ["n"]
    midstates = at_once(rig.store.midstates(stored.info.digest))
    assert midstates is not None
    assert (leaf / "midstates").read_bytes() == midstates.encode()
    with pytest.raises(BlobMissing):
        at_once(rig.store.open(Digest.of(b"other")))
    at_once(rig.store.stop())


def test_a_small_body_that_is_too_long_or_too_short_keeps_nothing(tmp_path: Path) -> None:
    rig = FilesystemRig(str(tmp_path))
    at_once(rig.store.start())
    for data in (b"123", b"12345"):
        writer = at_once(rig.store.writer(4))
        with pytest.raises(LocalError):  # either may
            writer.write(data)
            at_once(writer.finish())
        writer.abort()
        with pytest.raises(LocalError):
            writer.write(b"")
    assert rig.store.usage().blobs == 0
    assert not os.listdir(rig.layout.blobs)
    at_once(rig.store.stop())

"""Blobs that stay open: found again without a thread, never believed too long, never too many."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from swarm.errors import BlobForbidden, StoreFailed
from swarm.model.digest import Digest
from swarm.model.filenames import Filename
from swarm.storage.descriptor import Descriptor
from swarm.storage.disk import Disk
from swarm.storage.open_files import BELIEVED, SWEEP, WARM
from swarm.testing.contracts import at_once, content, pattern, put
from tests.contracts.rigs import FilesystemRig

DATA = pattern(1000)
ID = Digest.of(DATA)
KEY = ID.hex.encode()


class Dated(Disk):
    """Tells dates as the test says, and what is open."""

    def __init__(self) -> None:
        self.settled = True
        self.ticks = 0
        self.open: set[int] = set()
        self.found: list[str] = []

    def open_read(self, path: str) -> int:
        self.found.append(path)
        return self._opened(super().open_read(path))

    def open_directory(self, path: str) -> int:
        return self._opened(super().open_directory(path))

    def _opened(self, fd: int) -> int:
        self.open.add(fd)
        return fd

    def close(self, fd: int) -> None:
        self.open.discard(fd)
        super().close(fd)

    def changed_at(self, fd: int) -> int:
        return super().changed_at(fd) + self.ticks

    def settled_at(self, fd: int) -> int | None:
        return self.changed_at(fd) if self.settled else None


class Store:
    """A store of one blob; ``disk`` knows."""

    def __init__(self, path: Path, **settings: Any) -> None:
        self.disk = Dated()
        self.rig = FilesystemRig(str(path), disk=self.disk, **settings)
        at_once(self.rig.store.start())
        at_once(put(self.rig.store, DATA, "a"))

    def read(self) -> None:
        assert at_once(content(self.rig.store, ID)) == DATA

    @property
    def known(self) -> bool:
        return self.rig.store.opened(KEY) is not None

    def path(self, name: str) -> str:
        return self.rig.layout.file(ID, name)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


def test_the_first_read_opens_and_the_next_finds_it_open(store: Store) -> None:
    assert not store.known
    store.read()
    store.disk.found.clear()
    store.read()
    assert store.known and store.disk.found == []
    at_once(store.rig.store.stop())
    assert store.disk.open == set()


def test_an_open_blob_gives_its_bytes_and_says_what_it_is(store: Store) -> None:
    store.read()
    blob = store.rig.store.opened(KEY)
    assert blob is not None and blob.size == len(DATA) and blob.info.filename == Filename("a")
    buffer = bytearray(len(DATA))
    if blob.fill(memoryview(buffer)):  # not every file system can tell what is in memory
        assert buffer == DATA
    assert not blob.fill(memoryview(bytearray(len(DATA) + 1)))


def test_a_file_that_was_just_read_whole_is_taken_to_be_in_memory_for_a_second(store: Store) -> None:
    store.read()
    blob = store.rig.store.opened(KEY)
    assert blob is not None and blob.in_memory() == -1
    assert not blob.fill(memoryview(bytearray(len(DATA) + 1))) and blob.fill(memoryview(bytearray(len(DATA))))
    assert os.pread(blob.in_memory(), 10, 0) == DATA[:10]
    store.rig.clock.advance(WARM)
    assert blob.in_memory() == -1


def touch(path: str) -> None:
    with open(path, "ab"):
        pass


CHANGES: dict[str, Callable[[Store], object]] = {
    "marked 403": lambda store: touch(store.path("403")),
    "marked 404": lambda store: touch(store.path("404")),
    "names changed": lambda store: touch(store.path("names~")),
    "removed by hand": lambda store: os.unlink(store.path("data")),
    "written in place": lambda store: os.utime(store.path("data")),
    "deleted": lambda store: at_once(store.rig.store.delete(ID)),
    "put again with a name": lambda store: at_once(put(store.rig.store, DATA, "b")),
    "its proof ends": lambda store: store.rig.clock.advance(8 * 86400),
    "the clock jumps back": lambda store: store.rig.clock.advance(-BELIEVED - 1),
    "a minute passes": lambda store: store.rig.clock.advance(BELIEVED),
    "the store says so": lambda store: store.rig.store._open_files.doubt(ID),
}


@pytest.mark.parametrize("change", CHANGES)
def test_it_is_opened_anew_when(store: Store, change: str) -> None:
    store.read()
    assert store.known
    CHANGES[change](store)
    store.disk.ticks += 1  # before Linux 6.13 dates may stand still for milliseconds
    if change not in ("its proof ends", "the clock jumps back", "a minute passes", "the store says so"):
        store.disk.ticks -= 1
        if store.known:
            store.disk.ticks += 1
    assert not store.known


def test_an_open_blob_has_no_marker_and_one_that_comes_is_seen(store: Store) -> None:
    store.read()
    store.disk.found.clear()
    at_once(store.rig.store.check_markers(ID))
    assert store.disk.found == [], "no thread and no path was asked"
    touch(store.path("403"))
    if store.known:
        store.disk.ticks += 1
    with pytest.raises(BlobForbidden):
        at_once(store.rig.store.check_markers(ID))


def test_the_blocks_of_a_deleted_blob_are_free_at_once(store: Store) -> None:
    before = len(store.disk.open)
    store.read()
    assert len(store.disk.open) > before
    at_once(store.rig.store.delete(ID))
    assert len(store.disk.open) == before


def test_the_blocks_of_a_file_removed_by_hand_are_free_soon(store: Store) -> None:
    before = len(store.disk.open)
    store.read()
    os.unlink(store.path("data"))
    store.disk.ticks += 1
    store.rig.clock.advance(SWEEP)
    assert len(store.disk.open) == before
    assert store.rig.clock.getDelayedCalls() == []


def test_a_sweep_keeps_what_holds(store: Store) -> None:
    store.read()
    for _ in range(int(BELIEVED / SWEEP) - 1):
        store.rig.clock.advance(SWEEP)
        assert store.known
    at_once(store.rig.store.stop())
    assert store.rig.clock.getDelayedCalls() == []


def test_what_changed_a_moment_ago_is_not_kept(store: Store) -> None:
    store.disk.settled = False
    store.read()
    assert not store.known
    store.disk.settled = True
    store.read()
    assert store.known


def test_what_is_changed_while_it_is_opened_is_not_kept(store: Store) -> None:
    look = store.disk.fstat

    def meddle(fd: int) -> Any:
        store.rig.store._open_files.doubt(ID)
        return look(fd)

    store.disk.fstat = meddle  # type: ignore[method-assign]
    store.read()
    del store.disk.fstat  # type: ignore[method-assign]
    assert not store.known


def test_there_are_never_more_than_the_limit(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.rig.store._open_files._kept.most = 5
    before = len(store.disk.open)
    ids = [at_once(put(store.rig.store, pattern(50, seed))).info.digest for seed in range(1, 20)]
    for digest in ids:
        at_once(content(store.rig.store, digest))
    assert len(store.disk.open) - before <= 10
    known = [digest for digest in ids if store.rig.store.opened(digest.hex.encode()) is not None]
    assert known == ids[-5:]


def test_a_reader_goes_on_when_the_open_blob_is_let_go(store: Store) -> None:
    store.read()
    reader = at_once(store.rig.store.open(ID))
    at_once(store.rig.store.delete(ID))
    assert not store.known
    assert at_once(reader.read(0, len(DATA))) == DATA
    reader.close()
    at_once(store.rig.store.stop())
    assert store.disk.open == set()


def test_a_shared_descriptor_closes_with_its_last_user() -> None:
    closed: list[int] = []

    class Closing:
        def close(self, fd: int) -> None:
            closed.append(fd)

    first = Descriptor(Closing(), 7)
    second = first.share()
    third = second.share()
    first.close()
    first.close()
    third.close()
    third.close()
    assert closed == [] and second.number == 7
    with second.held() as fd:
        second.close()
        assert fd == 7 and closed == []
    assert closed == [7]
    with pytest.raises(StoreFailed):
        first.share()

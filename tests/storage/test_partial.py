"""A pull survives crashes by its journal, and never claims what the disk did not keep."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any, TypeVar

import pytest
from attrs import define
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred, DeferredSemaphore
from twisted.internet.task import Clock
from zope.interface.verify import verifyObject

from swarm.errors import LocalError, StorageFull, StoreFailed, VolumeReadOnly
from swarm.hashing import PlainSha512, Sha512, load
from swarm.interfaces import BlobInfo, IPartial, Stored
from swarm.model.digest import Digest
from swarm.model.filenames import Filename
from swarm.model.midstates import Midstates
from swarm.storage.catalog import Totals
from swarm.storage.descriptor import Descriptor
from swarm.storage.disk import Disk
from swarm.storage.hashers import Hashers
from swarm.storage.journal import HEADER_LENGTH, RECORD_LENGTH
from swarm.storage.partial import Partial, Workshop
from swarm.storage.partial_files import Shelf
from swarm.storage.partials import Partials
from swarm.storage.settings import StoreSettings
from swarm.storage.volume import Volume
from swarm.storage.work import Work
from swarm.testing.simulation.disk import Platter, PowerLoss

from .failing import SYNCING, FailingDisk

_T = TypeVar("_T")

GRAIN = 1024
DATA = Random(7).randbytes(5 * GRAIN + 100)
DIGEST = Digest.of(DATA)
SHA512 = load()


@pytest.fixture(autouse=True, scope="module")
def small_grains() -> Iterator[None]:
    """Grains of 1 KiB instead of 1 MiB: the same paths, a thousand times faster."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("swarm.model.grains.MIN_GRAIN", GRAIN)
        patch.setattr("swarm.hashing.sha512.MIN_GRAIN", GRAIN)
        yield


def now(work: Coroutine[Any, Any, _T] | Deferred[_T]) -> _T:
    """What it comes to, without waiting."""
    outcome: list[Any] = []
    deferred = work if isinstance(work, Deferred) else Deferred.fromCoroutine(work)
    deferred.addBoth(outcome.append)
    assert outcome, "it waits for something"
    if hasattr(outcome[0], "raiseException"):
        outcome[0].raiseException()
    return outcome[0]  # type: ignore[no-any-return]  # a list of one result


async def at_once(function: Callable[..., _T], /, *args: Any, **kwargs: Any) -> _T:
    return function(*args, **kwargs)


class Later:
    """Threads that run when the test says so."""

    def __init__(self) -> None:
        self.waiting: list[Callable[[], None]] = []

    async def __call__(self, function: Callable[..., _T], /, *args: Any, **kwargs: Any) -> _T:
        turn: Deferred[None] = Deferred()
        self.waiting.append(lambda: turn.callback(None))
        await turn
        return function(*args, **kwargs)

    def run_all(self) -> None:
        while self.waiting:
            self.waiting.pop(0)()


@define
class Publishing:
    """The smallest publisher that keeps the promises: a flat directory."""

    directory: str
    disk: Disk
    volume: Volume

    def __call__(
        self,
        digest: Digest,
        size: int,
        file: Descriptor,
        midstates: Midstates | None,
        names: Sequence[Filename] = (),
        /,
    ) -> Stored:
        with file.held() as fd:
            with self.volume.guard("syncing", sync=True):
                self.disk.fsync(fd)
            with self.volume.guard("linking"):
                try:
                    self.disk.link_fd(fd, f"{self.directory}/{digest.hex}")
                except FileExistsError:
                    return Stored(BlobInfo(digest, size, tuple(names)), new=False)
        with self.volume.guard("syncing the directory", sync=True):
            self.disk.fsync_dir(self.directory)
        return Stored(BlobInfo(digest, size, tuple(names)), new=True)


class Store:
    """One run of a node's partial pulls over one directory."""

    def __init__(
        self,
        root: Path,
        disk: Disk | None = None,
        *,
        quota: int | None = None,
        run: Any = at_once,
        sha512: Sha512 = SHA512,
    ) -> None:
        self.root = root
        self.disk = disk or FailingDisk()
        root.mkdir(exist_ok=True)
        for name in ("partial", "blobs"):
            if not (root / name).exists():
                os.mkdir(root / name)
        self.volume = Volume(str(root), StoreSettings(quota=quota, reserve=0), self.disk, Clock(), Totals())
        shelf = Shelf(str(root / "partial"), self.disk, self.volume)
        publish = Publishing(str(root / "blobs"), self.disk, self.volume)
        work = Work(run)
        hashers = Hashers(work, DeferredSemaphore(2), sha512, Clock())
        self.partials = Partials(
            workshop=Workshop(shelf, work, sha512, hashers, publish),
            random_bytes=Random(3).randbytes,
        )

    def begin(self, digest: Digest = DIGEST, size: int = len(DATA)) -> Partial:
        return now(self.partials.begin(digest, size))

    def unfinished(self, at: float | None = None) -> list[tuple[Digest, int]]:
        if at is None:
            at = max((each.stat().st_mtime for each in (self.root / "partial").iterdir()), default=0.0)
        return list(now(self.partials.unfinished(self.held, at)))

    def held(self, digest: Digest) -> bool:
        return (self.root / "blobs" / digest.hex).exists()

    def left(self) -> list[str]:
        return sorted(each.name for each in (self.root / "partial").iterdir())

    def blob(self) -> bytes | None:
        path = self.root / "blobs" / DIGEST.hex
        return path.read_bytes() if path.exists() else None


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


def midstates() -> Midstates:
    hasher = SHA512.hasher()
    hasher.update(DATA)
    found = hasher.midstates()
    assert found is not None
    assert found.grains.count == 6
    return found


def put(partial: Partial, index: int) -> None:
    """One grain arrives, in two views, and is verified."""
    grains, chain = partial.grains, midstates()
    start, stop = grains.start(index), grains.stop(index)
    view = memoryview(DATA)
    partial.write(start, [view[start : start + 10], view[start + 10 : stop]])
    (end,) = now(partial.end_states(index, [chain.before(index)]))
    assert end == chain.after(index, DIGEST.raw)
    partial.mark(index, chain.before(index), end)


# -- one good pull ------------------------------------------------------------


def test_a_partial_is_what_the_port_says(store: Store) -> None:
    assert verifyObject(IPartial, store.begin())


def test_a_pull_in_any_order_becomes_a_blob_and_leaves_nothing(store: Store) -> None:
    partial = store.begin()
    assert store.left() == [f"{DIGEST.hex}.j", f"{DIGEST.hex}.part"]
    assert partial.journaled == []
    for index in (5, 0, 3, 1, 4, 2):
        put(partial, index)
    now(partial.checkpoint())
    name = Filename.parse("a.bin")
    assert now(partial.hash_all()) == DIGEST
    assert now(partial.publish(midstates(), [name])) == Stored(BlobInfo(DIGEST, len(DATA), (name,)), True)
    assert store.blob() == DATA
    assert store.left() == []
    assert now(partial.read(0, len(DATA))) == DATA
    assert partial.read_now(10, 5) in (None, DATA[10:15])
    now(partial.checkpoint())
    now(partial.discard())
    partial.close()
    assert store.disk.open == set()  # type: ignore[attr-defined]  # a FailingDisk
    assert (store.volume.reserved, store.volume.partials) == (0, 0)


@pytest.mark.parametrize("size", [0, 1])
def test_the_smallest_blobs_are_pulled_like_all(store: Store, size: int) -> None:
    data = b"x"[:size]
    partial = store.begin(Digest.of(data), size)
    partial.write(0, [memoryview(data)])
    chain = Midstates(partial.grains, b"")
    assert now(partial.end_states(0, [chain.before(0), None])) == (Digest.of(data).raw,) * 2
    assert now(partial.hash_all()) == Digest.of(data)
    assert now(partial.publish(chain)).new
    assert store.held(Digest.of(data))


def test_each_start_gives_its_own_end_and_none_the_plain_hash(store: Store) -> None:
    partial = store.begin()
    put(partial, 1)
    chain = midstates()
    wrong = bytes(64)
    ends = now(partial.end_states(1, [wrong, chain.before(1), None, wrong]))
    assert ends[1] == chain.after(1, DIGEST.raw)
    assert ends[2] == Digest.of(DATA[GRAIN : 2 * GRAIN]).raw
    assert ends[0] == ends[3] != ends[1]


def test_the_room_is_taken_before_a_byte_arrives(store: Store) -> None:
    store.begin()
    assert (store.root / "partial" / f"{DIGEST.hex}.part").stat().st_size == len(DATA)
    assert store.volume.reserved == len(DATA)
    assert store.volume.partials == 1


def test_without_fallocate_the_file_is_sparse(tmp_path: Path) -> None:
    for error in (errno.EOPNOTSUPP, errno.EINVAL):
        disk = FailingDisk(1, error, frozenset(["fallocate"]))
        partial = Store(tmp_path / str(error), disk).begin()
        assert disk.failed == "fallocate"
        put(partial, 5)


# -- limits -------------------------------------------------------------------


def test_a_pull_beyond_the_quota_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path, quota=len(DATA) - 1)
    with pytest.raises(StorageFull):
        store.begin()
    assert store.left() == []
    assert (store.volume.reserved, store.volume.partials) == (0, 0)


def test_what_an_earlier_run_left_counts_once(tmp_path: Path) -> None:
    Store(tmp_path).begin().close()
    store = Store(tmp_path, quota=len(DATA))
    assert store.unfinished() == store.unfinished() == [(DIGEST, len(DATA))]
    assert (store.volume.reserved, store.volume.partials) == (len(DATA), 1)
    store.begin().close()
    assert (store.volume.reserved, store.volume.partials) == (len(DATA), 1)
    now(store.begin().discard())
    assert (store.volume.reserved, store.volume.partials) == (0, 0)


def test_a_volume_that_broke_takes_no_more_bytes(store: Store) -> None:
    partial = store.begin()
    store.volume.latch("a test")
    for attempt in (
        lambda: partial.write(0, [memoryview(b"x")]),
        lambda: now(partial.checkpoint()),
        lambda: now(partial.publish(None)),
        lambda: store.begin(Digest.of(b"other"), 5),
    ):
        with pytest.raises(VolumeReadOnly):
            attempt()


def test_late_bytes_never_reach_a_published_blob(store: Store) -> None:
    partial = store.begin()
    for index in range(6):
        put(partial, index)
    now(partial.publish(midstates()))
    with pytest.raises(StoreFailed):
        partial.write(0, [memoryview(b"late")])
    assert store.blob() == DATA


def test_nothing_is_written_past_the_end(store: Store) -> None:
    with pytest.raises(AssertionError):
        store.begin().write(len(DATA) - 1, [memoryview(b"xy")])


def test_after_close_nothing_touches_the_descriptor(store: Store) -> None:
    partial = store.begin()
    partial.close()
    partial.close()
    for attempt in (
        lambda: partial.write(0, [memoryview(b"x")]),
        lambda: partial.read_now(0, 1),
        lambda: now(partial.read(0, 1)),
        lambda: now(partial.end_states(0, [None, bytes(64)])),
        lambda: now(partial.checkpoint()),
        lambda: now(partial.publish(None)),
    ):
        with pytest.raises(StoreFailed):
            attempt()
    assert store.disk.open == set()  # type: ignore[attr-defined]  # a FailingDisk


def test_a_file_cut_by_somebody_else_is_a_failed_store(store: Store) -> None:
    partial = store.begin()
    os.truncate(store.root / "partial" / f"{DIGEST.hex}.part", 3)
    for attempt in (lambda: now(partial.read(0, 4)), lambda: now(partial.hash_all())):
        with pytest.raises(StoreFailed):
            attempt()


# -- resuming -----------------------------------------------------------------


def resumed(store: Store) -> Partial:
    """The same pull in a new run."""
    store.partials.close()
    return Store(store.root).begin()


def test_a_restart_finds_what_was_checkpointed(store: Store) -> None:
    partial = store.begin()
    for index in (4, 1):
        put(partial, index)
    now(partial.checkpoint())
    put(partial, 2)
    chain = midstates()
    partial = resumed(store)
    assert partial.journaled == [1, 4]
    for index in (1, 4):
        assert now(partial.recheck(index)) == (chain.before(index), chain.after(index, DIGEST.raw))
    put(partial, 0)
    now(partial.checkpoint())
    assert resumed(store).journaled == [0, 1, 4]


def test_a_record_without_a_start_is_rechecked_by_the_plain_hash(store: Store) -> None:
    partial = store.begin()
    put(partial, 0)
    (plain,) = now(partial.end_states(0, [None]))
    partial.mark(0, None, plain)
    now(partial.checkpoint())
    assert now(resumed(store).recheck(0)) == (None, plain)


def test_a_grain_that_changed_on_the_disk_is_not_believed(store: Store) -> None:
    partial = store.begin()
    for index in (0, 1):
        put(partial, index)
    now(partial.checkpoint())
    with open(store.root / "partial" / f"{DIGEST.hex}.part", "r+b") as file:
        file.seek(GRAIN)
        file.write(b"rotten")
    partial = resumed(store)
    assert partial.journaled == [0, 1]
    assert now(partial.recheck(0)) is not None
    assert now(partial.recheck(1)) is None


def test_a_mark_taken_back_stays_back(store: Store) -> None:
    partial = store.begin()
    for index in (0, 1, 2):
        put(partial, index)
    partial.unmark(2)
    now(partial.checkpoint())
    partial.unmark(0)
    now(partial.checkpoint())
    assert resumed(store).journaled == [1]


def test_without_midstates_a_chained_record_is_fetched_again(store: Store) -> None:
    partial = store.begin()
    put(partial, 0)
    now(partial.checkpoint())
    partial.close()
    partial = Store(store.root, sha512=PlainSha512(os.preadv)).begin()
    assert partial.journaled == [0]
    assert now(partial.recheck(0)) is None


@given(cut=st.integers(0, 3 * RECORD_LENGTH), garbage=st.binary(max_size=200))
def test_a_torn_journal_is_cut_and_goes_on(
    tmp_path_factory: pytest.TempPathFactory, cut: int, garbage: bytes
) -> None:
    store = Store(tmp_path_factory.mktemp("torn"))
    partial = store.begin()
    for index in range(3):
        put(partial, index)
        now(partial.checkpoint())
    journal = store.root / "partial" / f"{DIGEST.hex}.j"
    content, at = journal.read_bytes(), HEADER_LENGTH + cut
    if garbage and content[at : at + 1] == garbage[:1]:
        garbage = bytes([garbage[0] ^ 1]) + garbage[1:]  # or it may be the very bytes that were torn off
    journal.write_bytes(content[:at] + garbage)
    partial = resumed(store)
    whole = list(range(cut // RECORD_LENGTH))
    assert partial.journaled == whole
    put(partial, 5)
    now(partial.checkpoint())
    assert resumed(store).journaled == [*whole, 5]


def test_what_follows_a_damaged_record_never_comes_back(store: Store) -> None:
    partial = store.begin()
    for index in range(3):
        put(partial, index)
        now(partial.checkpoint())
    journal = store.root / "partial" / f"{DIGEST.hex}.j"
    content = bytearray(journal.read_bytes())
    content[HEADER_LENGTH + RECORD_LENGTH] ^= 1
    journal.write_bytes(content)
    partial = resumed(store)
    assert partial.journaled == [0]
    put(partial, 5)
    now(partial.checkpoint())
    assert resumed(store).journaled == [0, 5]


def test_another_size_begins_anew(store: Store) -> None:
    partial = store.begin()
    put(partial, 0)
    now(partial.checkpoint())
    partial.close()
    other = store.begin(size=3000)
    assert other.journaled == []
    assert store.volume.reserved == 3000
    assert (store.root / "partial" / f"{DIGEST.hex}.part").stat().st_size == 3000


@pytest.mark.parametrize("damage", ["no journal", "no data", "bad header", "short data", "another's journal"])
def test_what_cannot_be_resumed_is_not_listed_but_cleaned_away_or_begun_anew(
    tmp_path: Path, damage: str
) -> None:
    def leave(root: Path) -> Store:
        partial = Store(root).begin()
        put(partial, 0)
        now(partial.checkpoint())
        partial.close()
        data, journal = (root / "partial" / f"{DIGEST.hex}{suffix}" for suffix in (".part", ".j"))
        if damage == "no journal":
            journal.unlink()
        elif damage == "no data":
            data.unlink()
        elif damage == "bad header":
            journal.write_bytes(b"?" + journal.read_bytes()[1:])
        elif damage == "short data":
            os.truncate(data, 5)
        else:
            Store(root).begin(Digest.of(b"other"), len(DATA)).close()
            os.replace(root / "partial" / f"{Digest.of(b'other').hex}.j", journal)
            (root / "partial" / f"{Digest.of(b'other').hex}.part").unlink()
        return Store(root)

    store = leave(tmp_path / "listed")
    assert store.unfinished() == []
    assert store.left() == []
    store = leave(tmp_path / "begun")
    partial = store.begin()
    assert partial.journaled == []
    put(partial, 0)


def test_pulls_of_complete_blobs_and_forgotten_ones_are_cleaned_away(tmp_path: Path) -> None:
    Store(tmp_path).begin().close()
    Store(tmp_path).begin(Digest.of(b"other"), 9).close()
    (tmp_path / "partial" / "notes.txt").write_text("an operator's")
    (tmp_path / "blobs" / DIGEST.hex).write_bytes(DATA)
    store = Store(tmp_path)
    assert store.unfinished() == [(Digest.of(b"other"), 9)]
    assert len(store.left()) == 3
    touched = (tmp_path / "partial" / f"{Digest.of(b'other').hex}.j").stat().st_mtime
    assert store.unfinished(touched + store.partials.keep - 60) == [(Digest.of(b"other"), 9)]
    assert store.unfinished(touched + store.partials.keep + 60) == []
    assert store.left() == ["notes.txt"]
    assert (store.volume.reserved, store.volume.partials) == (0, 0)


def test_a_left_over_that_cannot_be_cleaned_away_does_not_hide_the_others(tmp_path: Path) -> None:
    Store(tmp_path).begin().close()
    Store(tmp_path).begin(Digest.of(b"other"), 9).close()
    (tmp_path / "partial" / f"{DIGEST.hex}.j").write_bytes(b"torn")
    disk = FailingDisk(1, errno.EROFS, frozenset(["unlink"]))
    store = Store(tmp_path, disk)
    assert store.unfinished() == [(Digest.of(b"other"), 9)]
    assert store.volume.read_only is not None


def test_cleaning_away_waits_for_nobody_who_begins_the_pull_again(tmp_path: Path) -> None:
    Store(tmp_path).begin().close()
    threads = Later()
    store = Store(tmp_path, run=threads)
    unfinished = Deferred.fromCoroutine(store.partials.unfinished(lambda digest: True, 0))
    threads.waiting.pop(0)()
    begun = Deferred.fromCoroutine(store.partials.begin(DIGEST, len(DATA)))
    threads.run_all()
    assert now(unfinished) == []
    now(begun).write(0, [memoryview(DATA)])
    assert store.volume.reserved == len(DATA)
    assert len(store.left()) == 2


def test_a_running_pull_is_neither_listed_nor_cleaned_away(store: Store) -> None:
    partial = store.begin()
    (store.root / "partial" / f"{DIGEST.hex}.j").unlink()
    assert store.unfinished(1e12) == []
    put(partial, 0)
    assert store.left() == [f"{DIGEST.hex}.part"]


def test_an_unreadable_left_over_does_not_stand_in_the_way(tmp_path: Path) -> None:
    Store(tmp_path).begin().close()
    disk = FailingDisk(1, errno.EIO, frozenset(["preadv"]))
    assert Store(tmp_path, disk).begin().journaled == []
    assert disk.failed == "preadv"


# -- threads ------------------------------------------------------------------


def test_only_one_pull_of_a_blob_at_a_time(store: Store) -> None:
    store.begin()
    with pytest.raises(AssertionError):
        store.begin()


def test_a_begin_given_up_closes_what_it_opens_and_can_be_begun_again(tmp_path: Path) -> None:
    threads = Later()
    store = Store(tmp_path, run=threads)
    first = Deferred.fromCoroutine(store.partials.begin(DIGEST, len(DATA)))
    first.cancel()
    with pytest.raises(CancelledError):
        now(first)
    second = Deferred.fromCoroutine(store.partials.begin(DIGEST, len(DATA)))
    threads.run_all()
    now(second).close()
    assert store.disk.open == set()  # type: ignore[attr-defined]  # a FailingDisk
    assert store.volume.reserved == len(DATA)


def test_a_begin_that_fails_unheard_gives_its_room_back(tmp_path: Path) -> None:
    threads = Later()
    store = Store(tmp_path, FailingDisk(1, errno.ENOSPC, frozenset(["fallocate"])), run=threads)
    first = Deferred.fromCoroutine(store.partials.begin(DIGEST, len(DATA)))
    first.cancel()
    first.addErrback(lambda failure: None)
    second = Deferred.fromCoroutine(store.partials.begin(DIGEST, len(DATA)))
    threads.run_all()
    assert store.volume.reserved == len(DATA)
    now(second).close()


def test_a_publish_whose_client_left_still_ends_whole(tmp_path: Path) -> None:
    threads = Later()
    store = Store(tmp_path)
    partial = store.begin()
    for index in range(6):
        put(partial, index)
    partial.close()
    store = Store(tmp_path, run=threads)
    begun = Deferred.fromCoroutine(store.partials.begin(DIGEST, len(DATA)))
    threads.run_all()
    partial = now(begun)
    publish = Deferred.fromCoroutine(partial.publish(midstates()))
    checkpoint = Deferred.fromCoroutine(partial.checkpoint())
    publish.addErrback(lambda failure: failure.trap(CancelledError))
    publish.cancel()
    partial.close()
    with pytest.raises(StoreFailed):
        partial.write(0, [memoryview(b"late")])
    threads.run_all()
    now(checkpoint)
    assert store.blob() == DATA
    assert store.left() == []
    assert store.disk.open == set()  # type: ignore[attr-defined]  # a FailingDisk


def test_discarding_what_was_published_meanwhile_spares_the_next_pull(store: Store) -> None:
    first = store.begin()
    for index in range(6):
        put(first, index)
    now(first.publish(midstates()))
    (store.root / "blobs" / DIGEST.hex).unlink()
    second = store.begin()
    put(second, 0)
    now(first.discard())
    first.close()
    assert len(store.left()) == 2
    assert (store.volume.reserved, store.volume.partials) == (len(DATA), 1)
    now(second.discard())
    now(second.discard())
    assert (store.volume.reserved, store.volume.partials) == (0, 0)


def test_checkpoints_never_overlap_and_each_covers_what_was_marked_before_it(tmp_path: Path) -> None:
    threads = Later()
    store = Store(tmp_path, run=threads)
    begun = Deferred.fromCoroutine(store.partials.begin(DIGEST, len(DATA)))
    threads.run_all()
    partial = now(begun)
    partial.mark(0, None, b"a" * 64)
    first = Deferred.fromCoroutine(partial.checkpoint())
    partial.mark(1, None, b"b" * 64)
    second = Deferred.fromCoroutine(partial.checkpoint())
    assert len(threads.waiting) == 1
    threads.waiting.pop(0)()
    now(first)
    assert not second.called
    threads.run_all()
    now(second)
    partial.close()
    assert Store(tmp_path).begin().journaled == [0, 1]


def test_closing_all_keeps_the_files(store: Store) -> None:
    store.begin()
    store.begin(Digest.of(b"other"), 9)
    store.partials.close()
    assert store.disk.open == set()  # type: ignore[attr-defined]  # a FailingDisk
    assert len(Store(store.root).unfinished()) == 2


# -- disks that go wrong ------------------------------------------------------


def pull(store: Store) -> Iterator[str]:
    """A whole pull, a step at a time."""
    store.unfinished(0)
    partial = store.begin()
    yield "begun"
    try:
        chain = midstates()
        believed = {index for index in partial.journaled if now(partial.recheck(index)) is not None}
        for index in range(6):
            if index not in believed:
                put(partial, index)
            if index in (2, 4):
                now(partial.checkpoint())
                yield f"checkpoint {index}"
        assert now(partial.hash_all()) == DIGEST
        now(partial.publish(chain))
        yield "published"
    finally:
        partial.close()


@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC, errno.EMFILE])
def test_whatever_call_fails_nothing_false_is_said_and_the_pull_can_be_resumed(
    tmp_path: Path, error: int
) -> None:
    for at in range(1, 1000):
        root = tmp_path / str(at)
        disk = FailingDisk(at, error)
        store = Store(root, disk)
        reached: list[str] = []
        raised: LocalError | None = None
        try:
            reached.extend(pull(store))
        except LocalError as e:
            raised = e
        assert disk.open == set()
        assert store.blob() in (None, DATA)
        if "published" in reached:
            assert store.blob() == DATA
        if disk.failed in SYNCING:
            assert raised is not None
            assert store.volume.read_only is not None or error == errno.EMFILE
        if disk.failed == "pwritev":
            assert isinstance(raised, StorageFull if error == errno.ENOSPC else StoreFailed)
        if raised is not None and "begun" not in reached:
            assert store.volume.reserved == sum(
                each.stat().st_size for each in (root / "partial").glob("*.part")
            )

        again = Store(root)
        left = again.unfinished()
        if again.blob() is None:
            if "begun" in reached:
                assert left == [(DIGEST, len(DATA))]
            partial = again.begin()
            if "checkpoint 2" in reached:
                assert set(partial.journaled) >= {0, 1, 2}
            for index in partial.journaled:
                assert now(partial.recheck(index)) is not None
            partial.close()
            assert list(pull(again))[-1] == "published"
        assert again.blob() == DATA
        assert again.left() == []
        if disk.failed is None:
            assert raised is None
            break
    else:
        pytest.fail("the pull never ran through")


def test_a_journal_that_found_no_room_is_written_later_without_left_overs(tmp_path: Path) -> None:
    disk = FailingDisk(error=errno.ENOSPC, only=frozenset(["pwritev"]))
    store = Store(tmp_path, disk)
    partial = store.begin()
    for index in range(4):
        put(partial, index)
    disk.at = disk.calls + 1
    with pytest.raises(StorageFull):
        now(partial.checkpoint())
    assert disk.failed == "pwritev"
    assert (tmp_path / "partial" / f"{DIGEST.hex}.j").stat().st_size == HEADER_LENGTH
    partial.unmark(0)
    partial.mark(1, None, b"newer" + bytes(59))
    now(partial.checkpoint())
    partial = resumed(store)
    assert partial.journaled == [1, 2, 3]
    assert now(partial.recheck(1)) is None
    assert now(partial.recheck(2)) is not None


def test_what_was_taken_back_during_a_failed_checkpoint_stays_back(tmp_path: Path) -> None:
    disk = FailingDisk(error=errno.ENOSPC, only=frozenset(["pwritev"]))
    store = Store(tmp_path, disk)
    partial = store.begin()
    for index in range(2):
        put(partial, index)
    disk.at = disk.calls + 1
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(disk, "fdatasync", lambda fd: partial.unmark(0))
        with pytest.raises(StorageFull):
            now(partial.checkpoint())
    now(partial.checkpoint())
    assert resumed(store).journaled == [1]


def test_nothing_is_synced_before_the_first_record_and_the_header_before_it(tmp_path: Path) -> None:
    """A reader waits for the first bytes, and nothing is lost yet that took anybody time."""
    calls: list[str] = []

    class Noting(Disk):
        def fsync(self, fd: int) -> None:
            calls.append("fsync")
            super().fsync(fd)

        def fdatasync(self, fd: int) -> None:
            calls.append("fdatasync")
            super().fdatasync(fd)

        def fsync_dir(self, path: str) -> None:
            calls.append("fsync_dir")
            super().fsync_dir(path)

        def pwritev(self, fd: int, data: Sequence[Any], offset: int) -> int:
            calls.append("record" if offset == HEADER_LENGTH and len(data[0]) == RECORD_LENGTH else "write")
            return super().pwritev(fd, data, offset)

    store = Store(tmp_path, Noting())
    partial = store.begin()
    assert calls == ["write"], "the header"
    now(partial.checkpoint())
    assert calls == ["write", "fdatasync"], "nothing to record"
    put(partial, 0)
    calls.clear()
    now(partial.checkpoint())
    assert calls == ["fdatasync", "fsync", "fsync_dir", "record", "fdatasync"]
    put(partial, 1)
    calls.clear()
    now(partial.checkpoint())
    assert calls == ["fdatasync", "write", "fdatasync"]
    partial.close()


def test_after_any_power_loss_the_journal_names_only_grains_that_are_there(tmp_path: Path) -> None:
    """The order is the proof: data synced before its record, so that no journaled grain is ever wrong."""
    random = Random(11)
    resumed_at: set[tuple[int, ...]] = set()
    for at in range(1000):
        root = tmp_path / str(at)
        root.mkdir()
        disk = Platter(str(root))
        for name in ("partial", "blobs"):
            disk.mkdir(str(root / name))
        disk.fsync_dir(str(root))
        disk.at = disk.calls + at
        reached: list[str] = []
        with suppress(PowerLoss):
            for step in (steps := pull(Store(root, disk))):
                reached.append(step)
                if step == "checkpoint 2":  # the process ends, and another goes on
                    steps.close()
            reached.extend(pull(Store(root, disk)))
        for image in range(8):
            target = tmp_path / f"{at}-{image}"
            Store(target)
            for path, content in disk.survivor(random).items():
                (target / path).write_bytes(content)
            after = Store(target)
            assert after.blob() in (None, DATA)
            if "published" in reached:
                assert after.blob() == DATA
            if after.blob() is None:
                left = after.unfinished()
                assert left == [(DIGEST, len(DATA))] or (left == [] and "checkpoint 2" not in reached)
                partial = after.begin()
                for index in partial.journaled:
                    assert now(partial.recheck(index)) is not None
                resumed_at.add(tuple(partial.journaled))
                if "checkpoint 2" in reached:
                    assert set(partial.journaled) >= {0, 1, 2}
                partial.close()
                assert list(pull(after))[-1] == "published"
            else:
                assert after.unfinished() == []
            assert after.blob() == DATA
            assert after.left() == []
        if not disk.dead:
            assert reached[-1] == "published"
            break
    else:
        pytest.fail("the pull never ran through")
    assert {(), (0, 1, 2), (0, 1, 2, 3, 4)} <= resumed_at

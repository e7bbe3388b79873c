"""Old copies are proven while they are read: what is released is right, what is rotten ends in quarantine."""

from __future__ import annotations

import errno
import gc
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from swarm.errors import BlobMissing, LocalError, StoreFailed
from swarm.hashing import PlainSha512, load
from swarm.interfaces import IBlobReader
from swarm.model.digest import Digest
from swarm.model.midstates import Midstates
from swarm.storage import proving_reader
from swarm.storage.disk import Disk
from swarm.storage.proving_reader import ProvingReader
from swarm.testing.contracts import MIB, at_once, content, pattern, put, refused
from tests.contracts.rigs import FilesystemRig, fast
from tests.storage.failing import FailingDisk
from tests.storage.test_work import Threads

WEEK = 7 * 86400.0
DATA = pattern(6 * MIB + 9)
DIGEST = Digest.of(DATA)
GRAINS = 7


class Watched(Disk):
    """Knows which bytes were read, and may lie about one of them once."""

    def __init__(self) -> None:
        self.read: list[tuple[int, int]] = []
        self.lie_at: int | None = None

    def preadv(self, fd: int, buffers: Any, offset: int) -> int:
        count = super().preadv(fd, buffers, offset)
        self.read.append((offset, offset + count))
        if self.lie_at is not None and offset <= self.lie_at < offset + count:
            memoryview(buffers[0])[self.lie_at - offset] ^= 1
            self.lie_at = None
        return count

    def grains(self) -> list[int]:
        """Grains read from their start, as often as they were; small files are not counted."""
        return sorted(
            start // MIB for start, stop in self.read if start % MIB == 0 and (start or stop > MIB // 8)
        )


def old(path: str, data: bytes = DATA, **options: Any) -> FilesystemRig:
    """A store with one blob, of seven grains unless told otherwise, proven more than a week ago."""
    disk = options.setdefault("disk", Watched())
    options.setdefault("sha512", load(preadv=disk.preadv))
    rig = FilesystemRig(path, **options)
    at_once(rig.store.start())
    at_once(put(rig.store, data, "name"))
    pass_time(rig, WEEK + 1)
    if isinstance(disk, Watched):
        disk.read.clear()
    return rig


@pytest.fixture
def place() -> Iterator[str]:
    """A directory in memory: these tests are not about syncs."""
    with tempfile.TemporaryDirectory(prefix="swarm-test-", dir=fast()) as path:
        yield path


@pytest.fixture
def rig(place: str) -> FilesystemRig:
    return old(place)


def pass_time(rig: FilesystemRig, seconds: float) -> None:
    rig.clock.advance(seconds)  # type: ignore[attr-defined]  # a task.Clock


def watched(rig: FilesystemRig) -> Watched:
    assert isinstance(rig.disk, Watched)
    return rig.disk


def silently(path: str, change: Callable[[bytearray], None]) -> None:
    """Change a file in place as a failing disk does: size and mtime stay."""
    before = os.stat(path)
    os.chmod(path, 0o600)
    with open(path, "r+b") as file:
        data = bytearray(file.read())
        change(data)
        file.seek(0)
        file.write(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def rot(rig: FilesystemRig, *offsets: int, name: str = "data", digest: Digest = DIGEST) -> None:
    def flip(data: bytearray) -> None:
        for offset in offsets:
            data[offset] ^= 0x10

    silently(rig.layout.file(digest, name), flip)


def opened(rig: FilesystemRig) -> IBlobReader:
    return at_once(rig.store.open(DIGEST))


def fresh(rig: FilesystemRig) -> bool:
    """Does the next reader trust the whole copy?"""
    reader = opened(rig)
    reader.close()
    return not isinstance(reader, ProvingReader)


def quarantined(rig: FilesystemRig) -> bool:
    return os.path.exists(rig.layout.damaged(DIGEST)) and not os.path.exists(rig.layout.file(DIGEST, "data"))


async def streamed(
    reader: IBlobReader, start: int = 0, stop: int = len(DATA), *, chunk: int = 100_000
) -> tuple[bytes, LocalError | None]:
    """What a response would hold, and why it broke off."""
    got = bytearray()
    try:
        while start < stop:
            end = await reader.available(start, stop)
            assert start < end <= stop
            while start < end:
                length = min(chunk, end - start)
                data = reader.read_now(start, length) or await reader.read(start, length)
                got += data
                start += len(data)
    except LocalError as e:
        return bytes(got), e
    finally:
        reader.close()
    return bytes(got), None


# -- good copies ----------------------------------------------------------------------------------


def test_an_old_copy_is_served_at_once_and_is_proven_when_all_was_read(rig: FilesystemRig) -> None:
    reader = opened(rig)
    assert watched(rig).grains() == []  # nothing is hashed before somebody asks for bytes
    assert isinstance(reader, ProvingReader)
    assert reader.fileno() == -1
    assert reader.read_now(0, 10) is None
    assert at_once(streamed(reader)) == (DATA, None)
    assert fresh(rig)
    pass_time(rig, WEEK - 1)
    assert fresh(rig)
    pass_time(rig, 2)
    assert not fresh(rig)


def test_once_all_is_proven_there_is_a_descriptor_for_sendfile(rig: FilesystemRig) -> None:
    reader = opened(rig)
    assert at_once(reader.read(0, len(DATA))) == DATA
    assert reader.fileno() >= 0
    assert reader.read_now(len(DATA), 10) == b""
    reader.close()
    assert reader.fileno() == -1


def test_a_range_hashes_the_grains_it_lies_in_and_no_others(rig: FilesystemRig) -> None:
    reader = opened(rig)
    assert at_once(reader.available(3 * MIB - 5, 3 * MIB + 5)) == 3 * MIB + 5
    assert set(watched(rig).grains()) == {2, 3}
    assert at_once(reader.read(3 * MIB - 5, 10)) == DATA[3 * MIB - 5 : 3 * MIB + 5]
    assert at_once(reader.available(9, 9)) == 9
    assert at_once(reader.available(len(DATA) - 1, len(DATA) + 5)) == len(DATA)
    reader.close()
    assert not fresh(rig)


def test_only_what_is_proven_is_released(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proving_reader, "_AHEAD", 2 * MIB)
    threads = Threads()
    rig = old(place)
    reader = opened(rig)
    rig.store._work._run_blocking = threads
    waiting = Deferred.fromCoroutine(reader.available(10, len(DATA)))
    assert not waiting.called
    assert reader.read_now(10, 5) is None
    threads.step()
    assert 10 < waiting.result <= MIB  # type: ignore[operator]
    assert reader.read_now(MIB - 5, 10) in (DATA[MIB - 5 : MIB], None)
    assert reader.read_now(MIB, 10) is None
    threads.all()
    assert sorted(set(watched(rig).grains())) == [0, 1, 2]  # two are hashed ahead
    assert at_once(reader.available(0, len(DATA))) == 3 * MIB
    threads.all()
    reader.close()


def test_no_more_grains_are_hashed_at_once_than_the_settings_allow(place: str) -> None:
    rig = old(place)
    reader = opened(rig)
    rig.store._work._run_blocking = threads = Threads()
    tokens = rig.store._coverages._inspection.hashers._tokens
    tokens.limit = tokens.tokens = 1
    waiting = Deferred.fromCoroutine(reader.available(0, len(DATA)))
    assert len(threads.queue) == 1
    threads.all()
    assert waiting.called
    reader.close()


def test_several_readers_prove_a_copy_together(rig: FilesystemRig) -> None:
    first, second = opened(rig), opened(rig)
    assert at_once(streamed(first, 0, 4 * MIB)) == (DATA[: 4 * MIB], None)
    assert not fresh(rig)
    assert at_once(streamed(second, 2 * MIB)) == (DATA[2 * MIB :], None)
    assert fresh(rig)
    hashed = [grain for grain in watched(rig).grains() if grain < GRAINS]
    assert len(hashed) >= GRAINS and {*hashed} == {*range(GRAINS)}


def test_what_was_proven_too_long_ago_is_not_added_to(rig: FilesystemRig) -> None:
    assert at_once(streamed(opened(rig), 0, 4 * MIB))[1] is None
    pass_time(rig, WEEK + 1)
    assert at_once(streamed(opened(rig), 4 * MIB))[1] is None
    assert not fresh(rig)


def test_readers_of_one_grain_share_its_hashing_and_one_that_leaves_takes_nothing_along(
    place: str,
) -> None:
    rig = old(place)
    gc.collect()  # what earlier tests left open is not counted
    before = len(os.listdir("/proc/self/fd"))
    first, second, third = opened(rig), opened(rig), opened(rig)
    rig.store._work._run_blocking = threads = Threads()
    waits = [Deferred.fromCoroutine(each.available(0, MIB)) for each in (first, second, third)]
    assert len(threads.queue) == 1
    first.close()
    waits[2].addErrback(lambda failure: failure.trap(CancelledError))
    waits[2].cancel()
    third.close()
    threads.all()
    assert waits[1].result == MIB
    second.close()
    assert len(os.listdir("/proc/self/fd")) == before
    late = Deferred.fromCoroutine(first.available(MIB, 2 * MIB))
    threads.all()
    assert isinstance(late.result, Failure)
    assert late.result.check(StoreFailed)
    late.addErrback(lambda failure: None)


def test_the_store_stops_when_what_was_begun_has_ended(place: str) -> None:
    rig = old(place)
    reader = opened(rig)
    rig.store._work._run_blocking = threads = Threads()
    waiting = Deferred.fromCoroutine(reader.available(0, MIB))
    reader.close()
    stopping = Deferred.fromCoroutine(rig.store.stop())
    assert not stopping.called
    threads.all()
    assert stopping.called and waiting.called


# -- what takes the old path ----------------------------------------------------------------------


def test_fresh_small_and_changed_copies_are_not_read_this_way(place: str) -> None:
    rig = old(place)
    os.utime(rig.layout.file(DIGEST, "data"))
    assert fresh(rig)  # somebody touched it: read whole, now proven
    small = at_once(put(rig.store, pattern(MIB))).info.digest
    assert not isinstance(at_once(rig.store.open(small)), ProvingReader)
    pass_time(rig, WEEK + 1)
    assert not isinstance(at_once(rig.store.open(small)), ProvingReader)


def test_without_midstates_an_old_copy_is_hashed_whole_first(place: str) -> None:
    rig = old(place, sha512=PlainSha512(os.preadv))
    assert fresh(rig)
    pass_time(rig, WEEK + 1)
    rot(rig, 6 * MIB)
    at_once(refused(BlobMissing, rig.store.open(DIGEST)))


def test_a_list_nobody_vouches_for_is_not_relied_upon(rig: FilesystemRig) -> None:
    rig.store._catalog.consult(lambda database: database.execute("DELETE FROM lists").fetchall())
    rot(rig, 5 * MIB)
    at_once(refused(BlobMissing, rig.store.open(DIGEST)))
    assert quarantined(rig)


def test_a_whole_check_vouches_for_the_list(rig: FilesystemRig) -> None:
    rig.store._catalog.consult(lambda database: database.execute("DELETE FROM lists").fetchall())
    assert fresh(rig)  # hashed whole
    pass_time(rig, WEEK + 1)
    assert not fresh(rig)


def test_other_bytes_with_a_list_that_fits_them_are_not_served(rig: FilesystemRig) -> None:
    other = pattern(len(DATA), 1)
    known = load().prove(_written(Path(rig.path) / "other", other), len(other))[1]
    assert known is not None

    def replace(new: bytes) -> Callable[[bytearray], None]:
        return lambda data: data.__setitem__(slice(None), new)

    silently(rig.layout.file(DIGEST, "data"), replace(other))
    silently(rig.layout.file(DIGEST, "midstates"), replace(known.encode()))
    at_once(refused(BlobMissing, rig.store.open(DIGEST)))


def _written(path: Path, data: bytes) -> int:
    path.write_bytes(data)
    return os.open(path, os.O_RDONLY)


# -- rot ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("grain", range(GRAINS))
def test_rot_is_never_sent_what_precedes_it_is_and_the_copy_is_set_aside(
    rig: FilesystemRig, grain: int
) -> None:
    rot(rig, grain * MIB + 7)
    got, error = at_once(streamed(opened(rig)))
    assert got == DATA[: grain * MIB]
    assert isinstance(error, BlobMissing)
    assert quarantined(rig)
    at_once(refused(BlobMissing, rig.store.open(DIGEST)))
    assert at_once(put(rig.store, DATA)).new
    assert at_once(content(rig.store, DIGEST)) == DATA


def test_readers_in_other_places_get_what_was_proven_and_no_more(rig: FilesystemRig) -> None:
    rot(rig, 5 * MIB)
    one, two = opened(rig), opened(rig)
    assert at_once(one.available(0, MIB)) == MIB
    assert isinstance(at_once(streamed(two, 4 * MIB, 6 * MIB))[1], BlobMissing)
    assert at_once(one.read(0, MIB)) == DATA[:MIB]
    at_once(refused(BlobMissing, one.available(2 * MIB, 3 * MIB)))
    at_once(refused(BlobMissing, one.read(MIB - 1, 2)))
    assert at_once(one.read(MIB - 1, 1)) == DATA[MIB - 1 : MIB]
    one.close()


def test_a_copy_cut_short_is_set_aside(rig: FilesystemRig) -> None:
    reader = opened(rig)
    path = rig.layout.file(DIGEST, "data")
    os.chmod(path, 0o600)
    os.truncate(path, 4 * MIB + 5)
    got, error = at_once(streamed(reader))
    assert got == DATA[: 4 * MIB]
    assert isinstance(error, BlobMissing)
    assert quarantined(rig)


@pytest.mark.parametrize("at", [0, 30, 24, 100, 24 + 6 * 64 - 1], ids=str)
def test_rot_in_the_list_alone_is_repaired_and_right_bytes_are_served(rig: FilesystemRig, at: int) -> None:
    path = Path(rig.layout.file(DIGEST, "midstates"))
    good = path.read_bytes()
    rot(rig, at, name="midstates")
    assert path.read_bytes() != good
    assert at_once(streamed(opened(rig))) == (DATA, None)
    assert path.read_bytes() == good
    assert fresh(rig)


def test_a_rotten_list_is_not_given_to_peers(rig: FilesystemRig) -> None:
    path = Path(rig.layout.file(DIGEST, "midstates"))
    good = path.read_bytes()
    rot(rig, 50, name="midstates")
    assert at_once(rig.store.midstates(DIGEST)) == Midstates.decode(good)
    assert path.read_bytes() == good


def test_a_list_that_is_gone_is_made_again(rig: FilesystemRig) -> None:
    path = Path(rig.layout.file(DIGEST, "midstates"))
    good = path.read_bytes()
    path.unlink()
    assert at_once(streamed(opened(rig))) == (DATA, None)
    assert path.read_bytes() == good


def test_a_grain_that_was_only_misread_condemns_nothing(rig: FilesystemRig) -> None:
    reader = opened(rig)
    watched(rig).lie_at = 4 * MIB + 3
    assert at_once(streamed(reader)) == (DATA, None)
    assert not quarantined(rig)
    assert fresh(rig)


def test_a_good_copy_that_took_the_place_of_a_rotten_one_stays(rig: FilesystemRig) -> None:
    rot(rig, 5 * MIB)
    reader = opened(rig)
    at_once(rig.store.delete(DIGEST))
    assert at_once(put(rig.store, DATA)).new
    got, error = at_once(streamed(reader))
    assert got == DATA[: 5 * MIB]
    assert isinstance(error, BlobMissing)
    assert at_once(content(rig.store, DIGEST)) == DATA


def test_what_was_proven_of_one_file_says_nothing_of_another(rig: FilesystemRig, place: str) -> None:
    assert at_once(streamed(opened(rig), 0, 4 * MIB))[1] is None
    path = rig.layout.file(DIGEST, "data")
    shutil.copy2(path, f"{place}/restored")  # same size, same mtime, as a backup comes back
    os.replace(f"{place}/restored", path)
    rot(rig, MIB)
    got, error = at_once(streamed(opened(rig)))
    assert got == DATA[:MIB]
    assert isinstance(error, BlobMissing)


def test_a_verdict_is_not_remembered(rig: FilesystemRig) -> None:
    row = rig.store._catalog.row(DIGEST)
    known = at_once(rig.store.midstates(DIGEST))
    assert row is not None and known is not None
    rot(rig, MIB)
    assert at_once(streamed(opened(rig)))[1] is not None
    os.rename(rig.layout.damaged(DIGEST), rig.layout.file(DIGEST, "data"))  # repaired by hand
    rot(rig, MIB)
    Path(rig.layout.file(DIGEST, "midstates")).write_bytes(known.encode())
    rig.store._catalog.proven(DIGEST, row.size, row.mtime_ns, row.verified_at, known)
    assert at_once(streamed(opened(rig))) == (DATA, None)


def test_a_copy_deleted_under_its_reader_is_read_to_its_end_and_not_remembered(rig: FilesystemRig) -> None:
    reader = opened(rig)
    at_once(rig.store.delete(DIGEST))
    assert at_once(streamed(reader)) == (DATA, None)
    assert at_once(rig.store.digests()) == []
    assert rig.store.usage().blobs == 0


def test_rotten_copies_deleted_under_their_readers_are_not_released_either(rig: FilesystemRig) -> None:
    rot(rig, MIB)
    reader = opened(rig)
    at_once(rig.store.delete(DIGEST))
    got, error = at_once(streamed(reader))
    assert got == DATA[:MIB]
    assert isinstance(error, BlobMissing)


@pytest.mark.parametrize("seed", range(8))
def test_whatever_is_read_in_whatever_order_is_right_or_refused(place: str, seed: int) -> None:
    random = Random(seed)
    rig = old(place)
    for _ in range(random.randrange(3)):
        rot(rig, random.randrange(len(DATA)))
    readers = [opened(rig) for _ in range(3)]
    rig.store._work._run_blocking = threads = Threads()
    waits: list[tuple[int, int, Deferred[bytes]]] = []
    for _ in range(30):
        start = random.randrange(len(DATA))
        length = min(random.choice([1, 100, MIB, 3 * MIB]), len(DATA) - start)
        reader = random.choice(readers)
        waits.append((start, length, Deferred.fromCoroutine(reader.read(start, length))))
        now = reader.read_now(start, length)
        assert now is None or DATA[start : start + length].startswith(now)
        while threads.queue and random.random() < 0.7:
            threads.queue.insert(0, threads.queue.pop(random.randrange(len(threads.queue))))
            threads.step()
    threads.all()
    for start, length, wait in waits:
        if isinstance(wait.result, Failure):
            assert wait.result.check(BlobMissing)
            wait.addErrback(lambda failure: None)
        else:
            assert wait.result == DATA[start : start + length]
    for reader in readers:
        reader.close()


# -- faults ---------------------------------------------------------------------------------------


SHORT = pattern(2 * MIB + 9, 2)


@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC], ids=errno.errorcode.get)
@pytest.mark.parametrize("damage", ["none", "data", "midstates"])
def test_whatever_call_fails_no_wrong_byte_is_sent_and_no_good_copy_lost(damage: str, error: int) -> None:
    digest = Digest.of(SHORT)
    at = 0
    while True:
        at += 1
        with tempfile.TemporaryDirectory(prefix="swarm-faults-", dir=fast()) as path:
            disk = FailingDisk()
            rig = old(path, SHORT, disk=disk, sha512=load(preadv=disk.preadv))
            if damage != "none":
                rot(rig, 24 + 64 if damage == "midstates" else MIB + 5, name=damage, digest=digest)
            disk.calls, disk.at, disk.error, disk.failed = 0, at, error, None
            got, failure = at_once(_tried(rig, digest))
            disk.at = -1
            assert not disk.open, "a descriptor leaked"
            assert got == SHORT[: len(got)]
            assert (failure is None) is (got == SHORT)
            if damage == "data":
                assert failure is not None and len(got) <= MIB
            else:
                assert at_once(content(rig.store, digest)) == SHORT
            at_once(rig.store.stop())
            if disk.failed is None:
                break
    assert at > 10


async def _tried(rig: FilesystemRig, digest: Digest) -> tuple[bytes, LocalError | None]:
    try:
        reader = await rig.store.open(digest)
    except LocalError as e:
        return b"", e
    return await streamed(reader, stop=reader.info.size, chunk=MIB)


def test_a_copy_the_disk_refuses_to_read_is_set_aside_without_closing_the_volume(place: str) -> None:
    class BadSector(Watched):
        bad = False

        def preadv(self, fd: int, buffers: Any, offset: int) -> int:
            if self.bad and offset <= 3 * MIB < offset + len(buffers[0]):
                raise OSError(errno.EIO, "Input/output error")
            return super().preadv(fd, buffers, offset)

    disk = BadSector()
    rig = old(place, disk=disk)
    disk.bad = True
    got, error = at_once(streamed(opened(rig)))
    assert got == DATA[: 3 * MIB]
    assert isinstance(error, BlobMissing)
    assert quarantined(rig)
    assert rig.store.usage().read_only is None

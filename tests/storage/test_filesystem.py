"""What the store trusts, what it does in the background, and what only shows on a real disk."""

from __future__ import annotations

import errno
import gc
import hashlib
import os
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from swarm.errors import BlobMissing, StorageFull, StoreFailed
from swarm.hashing import PlainSha512, load
from swarm.model.digest import Digest
from swarm.model.filenames import Filename
from swarm.model.grains import Grains
from swarm.model.midstates import Midstates
from swarm.storage.disk import Disk
from swarm.testing.contracts import MIB, at_once, content, pattern, put, refused
from tests.contracts.rigs import FilesystemRig
from tests.storage.test_work import Threads

WEEK = 7 * 86400.0


class Counting(Disk):
    """Counts what is asked of it, by name."""

    def __init__(self) -> None:
        self.dropped = 0
        self.listed: list[str] = []

    def drop_cache(self, fd: int) -> None:
        self.dropped += 1
        super().drop_cache(fd)

    def listdir(self, path: str) -> list[str]:
        self.listed.append(path)
        return super().listdir(path)


@pytest.fixture
def rig(tmp_path: Path) -> FilesystemRig:
    rig = FilesystemRig(str(tmp_path), disk=Counting())
    at_once(rig.store.start())
    return rig


def data_of(rig: FilesystemRig, digest: Digest) -> Path:
    return Path(rig.layout.file(digest, "data"))


def test_the_files_are_what_the_contract_says(rig: FilesystemRig) -> None:
    data = pattern(2 * MIB)
    digest = at_once(put(rig.store, data, "a")).info.digest
    at_once(put(rig.store, data, "b"))
    directory = Path(rig.path) / "blobs" / digest.hex[:2] / digest.hex[2:4] / digest.hex
    assert sorted(os.listdir(directory)) == ["data", "midstates", "names"]
    assert hashlib.sha512((directory / "data").read_bytes()).hexdigest() == digest.hex
    assert (directory / "names").read_text() == "a\nb\n"
    assert Midstates.decode((directory / "midstates").read_bytes()) == at_once(rig.store.midstates(digest))
    pulled = at_once(rig.store.partial(Digest.of(b"pulled"), 6))
    pulled.write(0, [memoryview(b"pulled")])
    at_once(pulled.publish(None))
    pulled.close()
    for path in (directory / "data", data_of(rig, Digest.of(b"pulled"))):
        assert path.stat().st_mode & 0o777 == 0o440


# -- when stored bytes are trusted ----------------------------------------------------------------


def silently(path: Path, data: bytes) -> None:
    """Change a file as a failing disk does: size and mtime stay."""
    before = path.stat()
    path.chmod(0o600)
    path.write_bytes(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_bit_rot_is_found_before_old_bytes_are_served(rig: FilesystemRig) -> None:
    data = pattern(1000)
    digest = at_once(put(rig.store, data)).info.digest
    silently(data_of(rig, digest), data[:-1] + b"?")
    rig.clock.advance(WEEK - 1)  # type: ignore[attr-defined]  # a task.Clock
    assert at_once(content(rig.store, digest)) != data  # trusted for a week
    rig.clock.advance(2)  # type: ignore[attr-defined]  # a task.Clock
    at_once(refused(BlobMissing, rig.store.open(digest)))
    assert (Path(rig.layout.quarantine) / digest.hex).read_bytes() == data[:-1] + b"?"


def test_a_proof_is_good_for_another_week(rig: FilesystemRig) -> None:
    data = pattern(1000)
    digest = at_once(put(rig.store, data)).info.digest
    rig.clock.advance(WEEK + 1)  # type: ignore[attr-defined]  # a task.Clock
    at_once(content(rig.store, digest))
    silently(data_of(rig, digest), data[:-1] + b"?")
    at_once(content(rig.store, digest))  # not read twice


def test_verify_asks_the_disk_and_not_the_page_cache(rig: FilesystemRig) -> None:
    digest = at_once(put(rig.store, pattern(1000))).info.digest
    assert at_once(rig.store.verify(digest))
    assert rig.disk.dropped == 1  # type: ignore[attr-defined]  # a Counting disk


def test_a_touched_file_is_proven_again_and_kept(rig: FilesystemRig) -> None:
    digest = at_once(put(rig.store, pattern(1000))).info.digest
    os.utime(data_of(rig, digest))
    assert at_once(content(rig.store, digest)) == pattern(1000)


def test_a_file_somebody_put_there_is_proven_before_it_is_served(rig: FilesystemRig) -> None:
    for content_, good in ((b"right", True), (b"wrong", False)):
        digest = Digest.of(b"right") if good else Digest.of(b"what it should be")
        data_of(rig, digest).parent.mkdir(parents=True)
        data_of(rig, digest).write_bytes(content_)
        if good:
            assert at_once(content(rig.store, digest)) == content_
            assert rig.store.usage().blobs == 1
        else:
            at_once(refused(BlobMissing, rig.store.open(digest)))


def test_a_link_or_a_directory_in_place_of_data_is_not_followed(rig: FilesystemRig, tmp_path: Path) -> None:
    digest = Digest.of(b"elsewhere")
    (tmp_path / "elsewhere").write_bytes(b"elsewhere")
    data_of(rig, digest).parent.mkdir(parents=True)
    data_of(rig, digest).symlink_to(tmp_path / "elsewhere")
    at_once(refused(StoreFailed, rig.store.open(digest)))


def test_a_file_cut_short_under_a_reader_ends_in_quarantine(rig: FilesystemRig) -> None:
    digest = at_once(put(rig.store, pattern(100_000))).info.digest
    reader = at_once(rig.store.open(digest))
    data_of(rig, digest).chmod(0o600)
    os.truncate(data_of(rig, digest), 50_000)
    assert reader.read_now(60_000, 10) is None
    at_once(refused(StoreFailed, reader.read(40_000, 20_000)))
    reader.close()
    assert at_once(rig.store.stat(digest)) is None
    assert (Path(rig.layout.quarantine) / digest.hex).stat().st_size == 50_000


class BadSector(Disk):
    """Reads fail while there are failures left."""

    failures = 0

    def preadv(self, fd: int, buffers: Any, offset: int) -> int:
        if self.failures:
            self.failures -= 1
            raise OSError(errno.EIO, "Input/output error")
        return super().preadv(fd, buffers, offset)


@pytest.mark.parametrize("size", [1000, 5 * MIB], ids=["one grain", "several"])
def test_a_copy_the_disk_refuses_to_read_twice_is_set_aside(tmp_path: Path, size: int) -> None:
    disk = BadSector()
    rig = FilesystemRig(str(tmp_path), disk=disk, sha512=load(preadv=disk.preadv))
    at_once(rig.store.start())
    digest = at_once(put(rig.store, pattern(size))).info.digest
    reader = at_once(rig.store.open(digest))
    disk.failures = 1
    at_once(refused(StoreFailed, reader.read(0, 10)))
    assert at_once(reader.read(0, 10)) == pattern(10)  # it was only once: the copy is still trusted
    disk.failures = 100
    at_once(refused(StoreFailed, reader.read(0, 10)))
    reader.close()
    disk.failures = 0
    assert at_once(rig.store.stat(digest)) is None
    assert (Path(rig.layout.quarantine) / digest.hex).stat().st_size == size
    assert rig.store.usage().read_only is None


def test_a_damaged_list_of_midstates_does_not_condemn_good_bytes(rig: FilesystemRig) -> None:
    data = pattern(5 * MIB)
    digest = at_once(put(rig.store, data)).info.digest
    path = Path(rig.layout.file(digest, "midstates"))
    good = path.read_bytes()
    path.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    assert at_once(rig.store.verify(digest))
    for bad in (b"", good[:-1], good + b"x", Midstates(Grains.of(MIB + 1), bytes(64)).encode()):
        path.write_bytes(bad)
        assert at_once(rig.store.midstates(digest)) == Midstates.decode(good)
        assert path.read_bytes() == good


def test_without_libcrypto_everything_but_midstates_works(tmp_path: Path) -> None:
    rig = FilesystemRig(str(tmp_path), sha512=PlainSha512(os.preadv))
    at_once(rig.store.start())
    digest = at_once(put(rig.store, pattern(3 * MIB))).info.digest
    assert at_once(rig.store.midstates(digest)) is None
    assert at_once(rig.store.verify(digest))
    small = at_once(put(rig.store, b"small")).info.digest
    assert at_once(rig.store.midstates(small)) == Midstates(Grains.of(5), b"")
    rig.damage(digest)
    assert not at_once(rig.store.verify(digest))


# -- starts ---------------------------------------------------------------------------------------


def test_after_a_clean_stop_no_blob_is_looked_at(rig: FilesystemRig) -> None:
    at_once(put(rig.store, b"1"))
    at_once(rig.store.stop())
    rig.disk.listed.clear()  # type: ignore[attr-defined]  # a Counting disk
    at_once(rig.crash())
    assert rig.disk.listed == [rig.layout.blobs]  # type: ignore[attr-defined]  # a Counting disk
    assert rig.store.usage().blobs == 1


def test_after_a_crash_the_catalog_is_made_to_agree_with_the_disk(rig: FilesystemRig) -> None:
    kept, lost = (at_once(put(rig.store, each)).info.digest for each in (b"kept", b"lost"))
    data_of(rig, lost).unlink()
    found = Digest.of(b"found")
    data_of(rig, found).parent.mkdir(parents=True)
    data_of(rig, found).write_bytes(b"found")
    (Path(rig.layout.blobs) / "zz").mkdir()
    (Path(rig.layout.blobs) / "ab").touch()
    at_once(rig.crash())
    assert at_once(rig.store.digests()) == sorted([kept, found])
    assert (rig.store.usage().blobs, rig.store.usage().bytes) == (2, 9)
    assert at_once(content(rig.store, found)) == b"found"


def test_a_lost_catalog_costs_no_blob(rig: FilesystemRig) -> None:
    digests = sorted(at_once(put(rig.store, b"%d" % n)).info.digest for n in range(5))
    at_once(rig.store.stop())
    Path(rig.layout.catalog).write_bytes(b"not a database" * 100)
    at_once(rig.crash())
    assert at_once(rig.store.digests()) == digests
    for digest in digests:
        at_once(content(rig.store, digest))


def test_a_deletion_from_the_whole_swarm_is_finished_after_a_crash(rig: FilesystemRig) -> None:
    buried, again = (at_once(put(rig.store, each)).info.digest for each in (b"buried", b"again"))
    for digest in (buried, again):
        at_once(rig.tombstones.bury(digest, 1))
    at_once(rig.store.delete(again))
    at_once(put(rig.store, b"again"))
    at_once(rig.tombstones.revive(again, 1))
    at_once(rig.crash())
    assert at_once(rig.store.digests()) == [again]
    assert not data_of(rig, buried).exists()


def test_proving_a_buried_copy_does_not_revive_it(rig: FilesystemRig) -> None:
    digest = at_once(put(rig.store, b"buried")).info.digest
    at_once(rig.tombstones.bury(digest, 1))
    assert at_once(rig.store.verify(digest))
    at_once(rig.crash())
    assert at_once(rig.store.stat(digest)) is None


def test_so_it_is_after_a_clean_stop_when_the_copy_could_not_be_removed(rig: FilesystemRig) -> None:
    digest = at_once(put(rig.store, b"buried")).info.digest
    at_once(rig.tombstones.bury(digest, 1))
    at_once(rig.restart())
    assert at_once(rig.store.stat(digest)) is None
    assert rig.store.usage().blobs == 0


def test_the_comparison_runs_in_the_background_and_ends_with_the_store(tmp_path: Path) -> None:
    threads = Threads()
    rig = FilesystemRig(str(tmp_path), run_blocking=threads)
    starting = Deferred.fromCoroutine(rig.store.start())
    while not starting.called:
        threads.step()
    assert threads.queue  # it goes on behind the node's back
    stopping = Deferred.fromCoroutine(rig.store.stop())
    threads.all()
    assert stopping.called
    at_once_rig = FilesystemRig(str(tmp_path))
    at_once(at_once_rig.store.start())


def test_the_data_directory_is_made_with_all_above_it(tmp_path: Path) -> None:
    rig = FilesystemRig(str(tmp_path / "a" / "b" / "c"))
    at_once(rig.store.start())
    assert (tmp_path / "a" / "b" / "c").stat().st_mode & 0o077 == 0
    at_once(put(rig.store, b"x"))


def test_empty_directories_may_be_tidied_up_under_a_running_node(rig: FilesystemRig) -> None:
    digest = at_once(put(rig.store, b"x")).info.digest
    at_once(rig.store.delete(digest))
    for directory in data_of(rig, digest).parents[1:3]:
        directory.rmdir()
    assert at_once(put(rig.store, b"x")).new


# -- writes ---------------------------------------------------------------------------------------


def test_after_an_abort_nobody_waits_and_leaves_no_descriptor(tmp_path: Path) -> None:
    threads = Threads()
    rig = FilesystemRig(str(tmp_path), run_blocking=threads)
    starting = Deferred.fromCoroutine(rig.store.start())
    while not starting.called:
        threads.step()
    threads.all()
    gc.collect()  # what earlier tests left open is not counted
    before = len(os.listdir("/proc/self/fd"))
    opening = Deferred.fromCoroutine(rig.store.writer(None))
    threads.all()
    writer = opening.result
    assert not isinstance(writer, Failure)
    for _ in range(9):
        writer.write(pattern(8 * MIB))
    waiting = Deferred.fromCoroutine(writer.caught_up())
    writer.abort()
    rig.clock.advance(1)
    assert waiting.called
    threads.all()
    given_up = Deferred.fromCoroutine(rig.store.writer(None))
    given_up.addErrback(lambda failure: None)
    given_up.cancel()
    threads.all()
    assert len(os.listdir("/proc/self/fd")) == before
    assert rig.store.usage().bytes == 0
    rig.store.check_room(1 << 30)


@pytest.mark.parametrize("declared", [True, False], ids=["small", "large"])
def test_a_finish_nobody_waits_for_holds_its_blob_until_it_ends(tmp_path: Path, declared: bool) -> None:
    threads = Threads()
    rig = FilesystemRig(str(tmp_path), run_blocking=threads)
    starting = Deferred.fromCoroutine(rig.store.start())
    while not starting.called:
        threads.step()
    threads.all()
    opening = Deferred.fromCoroutine(rig.store.writer(5 if declared else None))
    threads.all()
    writer = opening.result
    assert not isinstance(writer, Failure)
    writer.write(b"bytes")
    finishing = Deferred.fromCoroutine(writer.finish())
    finishing.addErrback(lambda failure: None)
    if not declared:
        threads.step()  # hashed; publishing is with a thread now
    finishing.cancel()
    threads.all()
    info = Deferred.fromCoroutine(rig.store.stat(Digest.of(b"bytes")))
    threads.all()
    # A file is let go before the thread begins; bytes in memory are on their way. Nothing is half-done.
    assert (info.result is not None) is declared
    if declared:
        reading = Deferred.fromCoroutine(content(rig.store, Digest.of(b"bytes")))
        threads.all()
        assert reading.result == b"bytes"


def test_writers_still_open_end_with_the_store(rig: FilesystemRig) -> None:
    writer = at_once(rig.store.writer(100))
    at_once(rig.store.stop())
    with pytest.raises(StoreFailed):
        writer.write(b"late")


def test_a_file_system_that_cannot_reserve_room_is_written_all_the_same(tmp_path: Path) -> None:
    class Unreserved(Disk):
        def fallocate(self, fd: int, length: int) -> None:
            raise OSError(errno.EOPNOTSUPP, "not supported")

    rig = FilesystemRig(str(tmp_path), disk=Unreserved())
    at_once(rig.store.start())
    digest = at_once(put(rig.store, pattern(MIB))).info.digest
    assert at_once(content(rig.store, digest)) == pattern(MIB)


def test_what_a_crash_left_of_a_small_file_is_replaced(rig: FilesystemRig) -> None:
    digest = at_once(put(rig.store, b"x", "one")).info.digest
    Path(rig.layout.file(digest, "names.next")).write_bytes(b"torn")
    at_once(rig.store.add_name(digest, Filename.parse("two")))
    assert sorted(os.listdir(rig.layout.blob(digest))) == ["data", "names"]
    at_once(rig.store.delete(digest))
    assert not os.path.exists(rig.layout.blob(digest))


def test_free_space_is_asked_once_a_second_and_promises_are_kept_in_mind(tmp_path: Path) -> None:
    class Small(Disk):
        asked = 0
        left = 10_000

        def free(self, path: str) -> int:
            self.asked += 1
            return self.left

    disk = Small()
    rig = FilesystemRig(str(tmp_path), disk=disk)
    at_once(rig.store.start())
    rig.clock.advance(2)  # type: ignore[attr-defined]  # a task.Clock
    disk.asked = 0
    writer = at_once(rig.store.writer(6000))
    at_once(refused(StorageFull, rig.store.writer(6000)))
    assert disk.asked == 1
    assert rig.store.usage().free == 4000
    rig.clock.advance(2)  # type: ignore[attr-defined]  # a task.Clock
    disk.left = 4000
    assert rig.store.usage().free == 4000
    writer.abort()


def test_what_a_refused_put_took_is_there_for_the_next_one(tmp_path: Path) -> None:
    """Found as a stranger: a PUT too large for the disk, and for a second small ones were refused, too."""

    class Small(Disk):
        left = 10_000

        def free(self, path: str) -> int:
            return self.left

    disk = Small()
    rig = FilesystemRig(str(tmp_path), disk=disk)
    at_once(rig.store.start())
    rig.clock.advance(2)  # type: ignore[attr-defined]  # a task.Clock
    writer = at_once(rig.store.writer(9000))
    at_once(refused(StorageFull, rig.store.writer(6000)))
    writer.abort()
    at_once(put(rig.store, pattern(6000)))


def test_what_a_deletion_frees_is_there_for_the_next_put(tmp_path: Path) -> None:
    class Small(Disk):
        left = 10_000

        def free(self, path: str) -> int:
            return self.left

    disk = Small()
    rig = FilesystemRig(str(tmp_path), disk=disk)
    at_once(rig.store.start())
    digest = at_once(put(rig.store, pattern(6000))).info.digest
    disk.left = 4000
    at_once(refused(StorageFull, rig.store.writer(6000)))
    at_once(rig.store.delete(digest))
    disk.left = 10_000
    at_once(put(rig.store, pattern(6001)))
    partial = at_once(rig.store.partial(Digest.of(b"pull"), 3000))
    disk.left = 1000
    at_once(refused(StorageFull, rig.store.writer(6000)))
    at_once(partial.discard())
    disk.left = 10_000
    at_once(rig.store.writer(6000)).abort()

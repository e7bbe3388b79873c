"""A dtfc store is taken in: verified, durable, with its names and markers, and itself untouched."""

from __future__ import annotations

import errno
import os
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

from swarm.errors import BlobForbidden, BlobMissing, StoreFailed
from swarm.model.digest import Digest
from swarm.storage.adopt import Adopted, Outcome
from swarm.storage.disk import Disk
from swarm.testing.contracts import MIB, at_once, content, pattern, put, refused
from tests.contracts.rigs import FilesystemRig


class Cloning(Disk):
    """A disk with reflinks, by copying."""

    def clone(self, source: int, target: int) -> None:
        os.sendfile(target, source, 0, os.fstat(source).st_size)


class NotCloning(Disk):
    """A disk without them."""

    def clone(self, source: int, target: int) -> None:
        raise OSError(errno.EOPNOTSUPP, "not supported")


class Dtfc:
    """The store to be adopted."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir()

    def directory(self, digest: Digest) -> Path:
        return self.root.joinpath(*(digest.hex[at : at + 2] for at in range(0, 128, 2)))

    def add(self, data: bytes | None, *lines: str, digest: Digest | None = None, marker: str = "") -> Digest:
        digest = digest or Digest.of(data or b"")
        directory = self.directory(digest)
        directory.mkdir(parents=True)
        if data is not None:
            (directory / "data").write_bytes(data)
        if lines:
            (directory / "filename").write_text("".join(line + "\n" for line in lines))
        if marker:
            (directory / marker).write_text(" ")
        return digest

    def everything(self) -> dict[str, bytes]:
        return {str(path): path.read_bytes() for path in self.root.rglob("*") if path.is_file()}


@pytest.fixture
def theirs(tmp_path: Path) -> Dtfc:
    return Dtfc(tmp_path / "dtfc")


@pytest.fixture
def ours(tmp_path: Path) -> Iterator[FilesystemRig]:
    rig = FilesystemRig(str(tmp_path / "ours"), disk=NotCloning())
    at_once(rig.store.start())
    yield rig
    at_once(rig.store.stop())


def adopt(rig: FilesystemRig, theirs: Dtfc, **options: bool) -> dict[Digest, Adopted]:
    async def collect() -> list[Adopted]:
        return [each async for each in rig.store.adopt(str(theirs.root), **options)]

    work: Coroutine[Any, Any, list[Adopted]] = collect()
    results = at_once(work)
    assert [each.digest for each in results] == sorted(each.digest for each in results)
    return {each.digest: each for each in results}


def test_blobs_come_with_their_names_the_last_line_newest(theirs: Dtfc, ours: FilesystemRig) -> None:
    big = theirs.add(pattern(2 * MIB + 3), "first.bin", "second.bin")
    empty = theirs.add(b"")
    before = theirs.everything()
    results = adopt(ours, theirs)
    assert {each.outcome for each in results.values()} == {Outcome.ADOPTED}
    assert results[big].detail == "copy"
    assert at_once(content(ours.store, big)) == pattern(2 * MIB + 3)
    assert at_once(content(ours.store, empty)) == b""
    info = at_once(ours.store.stat(big))
    assert info is not None
    assert [name.text for name in info.names] == ["first.bin", "second.bin"]
    assert (ours.store.usage().blobs, ours.store.usage().bytes) == (2, 2 * MIB + 3)
    assert os.path.exists(ours.layout.file(big, "midstates"))
    assert theirs.everything() == before


def test_bytes_are_shared_where_the_file_system_can(theirs: Dtfc, tmp_path: Path) -> None:
    rig = FilesystemRig(str(tmp_path / "cow"), disk=Cloning())
    at_once(rig.store.start())
    digest = theirs.add(pattern(MIB + 3))
    assert adopt(rig, theirs)[digest].detail == "reflink"
    assert at_once(rig.store.verify(digest))
    at_once(rig.store.stop())


def test_hard_links_are_made_only_when_asked_for(theirs: Dtfc, ours: FilesystemRig) -> None:
    digest = theirs.add(pattern(1000))
    assert adopt(ours, theirs, hard_links=True)[digest].detail == "hard link"
    theirs_file, our_file = theirs.directory(digest) / "data", Path(ours.layout.file(digest, "data"))
    assert theirs_file.samefile(our_file)
    assert our_file.stat().st_mode & 0o222 == 0
    theirs_file.chmod(0o600)
    theirs_file.write_bytes(b"changed through the other name")
    at_once(refused(BlobMissing, ours.store.open(digest)))


def test_damaged_blobs_stay_where_they_are(theirs: Dtfc, ours: FilesystemRig) -> None:
    digest = theirs.add(b"not what it says", digest=Digest.of(b"what it says"))
    for hard_links in (False, True):
        assert adopt(ours, theirs, hard_links=hard_links)[digest].outcome is Outcome.DAMAGED
    assert at_once(ours.store.stat(digest)) is None
    assert (theirs.directory(digest) / "data").exists()
    assert ours.store.usage().blobs == 0


def test_markers_are_kept_with_data_or_without(theirs: Dtfc, ours: FilesystemRig) -> None:
    forbidden = theirs.add(b"forbidden", marker="403")
    deleted = theirs.add(b"deleted", marker="404")
    bare = theirs.add(None, "only-a-name", digest=Digest.of(b"bare"), marker="403")
    results = adopt(ours, theirs)
    assert results[bare].outcome is Outcome.SKIPPED
    at_once(refused(BlobForbidden, ours.store.open(forbidden)))
    at_once(refused(BlobMissing, ours.store.open(deleted)))
    at_once(refused(BlobForbidden, ours.store.check_markers(bare)))
    assert at_once(ours.store.verify(deleted))


def test_a_second_run_finds_all_of_it_known(theirs: Dtfc, ours: FilesystemRig) -> None:
    digest = theirs.add(b"once", "a")
    at_once(put(ours.store, b"held before", "mine"))
    theirs.add(b"held before", "theirs")
    assert adopt(ours, theirs)[digest].outcome is Outcome.ADOPTED
    assert {each.outcome for each in adopt(ours, theirs).values()} == {Outcome.KNOWN}
    info = at_once(ours.store.stat(Digest.of(b"held before")))
    assert info is not None
    assert [name.text for name in info.names] == ["mine", "theirs"]


def test_a_damaged_copy_of_ours_is_healed_from_theirs(theirs: Dtfc, ours: FilesystemRig) -> None:
    digest = at_once(put(ours.store, pattern(1000))).info.digest
    ours.damage(digest)
    theirs.add(pattern(1000))
    assert adopt(ours, theirs)[digest].outcome is Outcome.ADOPTED
    assert at_once(content(ours.store, digest)) == pattern(1000)


def test_what_is_no_dtfc_file_is_passed_by(theirs: Dtfc, ours: FilesystemRig) -> None:
    digest = theirs.add(b"real")
    (theirs.root / "404").write_text(" ")
    (theirs.root / "ff").write_text("a file where a level should be")
    (theirs.root / "aa").symlink_to(theirs.directory(digest))
    (theirs.root / "zz").mkdir()
    trap = Digest.of(b"a pipe")
    theirs.add(None, digest=trap)
    os.mkfifo(theirs.directory(trap) / "data")
    linked = theirs.add(None, digest=Digest.of(b"linked"))
    (theirs.directory(linked) / "data").symlink_to(theirs.directory(digest) / "data")
    results = adopt(ours, theirs)
    assert {each.digest for each in results.values() if each.outcome is Outcome.ADOPTED} == {digest}
    assert results[trap].outcome is results[linked].outcome is Outcome.SKIPPED


def test_names_that_are_none_are_left_out(theirs: Dtfc, ours: FilesystemRig) -> None:
    digest = theirs.add(b"data", "good", "bad/slash", "..", "x" * 300)
    adopt(ours, theirs)
    info = at_once(ours.store.stat(digest))
    assert info is not None
    assert [name.text for name in info.names] == ["good"]


def test_one_blob_that_does_not_fit_does_not_stop_the_rest(theirs: Dtfc, tmp_path: Path) -> None:
    rig = FilesystemRig(str(tmp_path / "small"), quota=1000, disk=NotCloning())
    at_once(rig.store.start())
    large, small = theirs.add(pattern(1001)), theirs.add(pattern(999))
    results = adopt(rig, theirs)
    assert results[large].outcome is Outcome.FAILED
    assert "quota" in results[large].detail
    assert results[small].outcome is Outcome.ADOPTED
    at_once(rig.store.stop())


def test_a_source_that_cannot_be_listed_is_said_so(ours: FilesystemRig, tmp_path: Path) -> None:
    async def nowhere() -> None:
        async for _ in ours.store.adopt(str(tmp_path / "nowhere")):
            raise AssertionError

    at_once(refused(StoreFailed, nowhere()))

"""The order in which bytes become a blob, and what a crash at any point leaves of it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from random import Random

import pytest

from swarm.model.digest import Digest
from swarm.model.filenames import Filename
from swarm.storage import names
from swarm.storage.layout import Layout
from swarm.testing.contracts import MIB, at_once, pattern, put
from swarm.testing.simulation.disk import Platter, PowerLoss
from tests.contracts.rigs import FilesystemRig, fast

IMAGES = 12


def started(path: Path, at: int = -1) -> tuple[FilesystemRig, Platter]:
    disk = Platter(str(path), at)
    rig = FilesystemRig(str(path), disk=disk)
    return rig, disk


def test_bytes_are_durable_before_their_name_and_the_name_before_the_answer(tmp_path: Path) -> None:
    rig, disk = started(tmp_path)
    at_once(rig.store.start())
    disk.trace.clear()
    digest = at_once(put(rig.store, pattern(2 * MIB), "n")).info.digest
    leaf = Path(rig.layout.blob(digest)).relative_to(tmp_path)
    inner, outer = leaf.parent, leaf.parent.parent
    assert [each for each in disk.trace if each[0] != "pwritev"] == [
        ("tmpfile", "blobs"),
        ("fallocate", "file"),
        ("fsync", "file"),
        ("mkdir", f"{outer}"),
        ("mkdir", f"{inner}"),
        ("mkdir", f"{leaf}"),
        ("create", f"{leaf}/midstates"),
        ("create", f"{leaf}/names"),
        ("fsync", "file"),
        ("fsync", "file"),
        ("fsync_dir", "blobs"),
        ("fsync_dir", f"{outer}"),
        ("fsync_dir", f"{inner}"),
        ("link_fd", f"{leaf}/data"),
        ("fsync_dir", f"{leaf}"),
    ]


def test_a_directory_that_exists_is_not_taken_for_durable(tmp_path: Path) -> None:
    rig, disk = started(tmp_path)
    at_once(rig.store.start())
    data = pattern(10)
    leaf = Path(rig.layout.blob(Digest.of(data)))
    for directory in (leaf.parent.parent, leaf.parent, leaf):
        disk.mkdir(str(directory))
    disk.trace.clear()
    at_once(put(rig.store, data))
    synced = [path for call, path in disk.trace if call == "fsync_dir"]
    assert synced == [
        str(each.relative_to(tmp_path))
        for each in (leaf.parent.parent.parent, leaf.parent.parent, leaf.parent, leaf)
    ]


def test_known_bytes_are_made_durable_too_before_they_are_confirmed(tmp_path: Path) -> None:
    rig, disk = started(tmp_path)
    at_once(rig.store.start())
    digest = at_once(put(rig.store, b"known")).info.digest
    disk.trace.clear()
    assert not at_once(put(rig.store, b"known")).new
    leaf = str(Path(rig.layout.blob(digest)).relative_to(tmp_path))
    assert [call for call, _ in disk.trace].count("fsync") == 2  # ours, and what was there
    assert disk.trace[-1] == ("fsync_dir", leaf)


class _Play:
    """A life of puts and deletions; after each step what was promised."""

    def __init__(self) -> None:
        self.promised: dict[Digest, tuple[bytes, str]] = {}
        self.deleted: set[Digest] = set()
        self.under_way: Digest | None = None

    def run(self, rig: FilesystemRig) -> None:
        one, two, big = b"", pattern(3000, 2), pattern(MIB + 700, 3)
        at_once(rig.store.start())
        self._put(rig, two, "two")
        self._put(rig, one, "one")
        self._put(rig, two, "zwei")
        self._put(rig, big, "big")
        self._delete(rig, two)
        self._put(rig, two, "again")
        rig.damage(Digest.of(big))
        self.promised.pop(Digest.of(big))
        self._put(rig, big, "healed")
        self._delete(rig, big)

    def _put(self, rig: FilesystemRig, data: bytes, name: str) -> None:
        digest = Digest.of(data)
        self.under_way = digest
        stored = at_once(put(rig.store, data, name))
        assert stored.info.filename == Filename.parse(name)
        self.promised[digest] = (data, name)
        self.deleted.discard(digest)
        self.under_way = None

    def _delete(self, rig: FilesystemRig, data: bytes) -> None:
        digest = Digest.of(data)
        self.under_way = digest
        self.promised.pop(digest)
        at_once(rig.store.delete(digest))
        self.deleted.add(digest)
        self.under_way = None


@pytest.fixture
def in_memory() -> Iterator[Path]:
    """A directory that costs no real fsync."""
    with tempfile.TemporaryDirectory(prefix="swarm-crash-", dir=fast()) as path:
        yield Path(path)


def test_no_crash_loses_what_was_stored_or_shows_what_is_torn(in_memory: Path) -> None:
    """Power is lost at every call; each time several of the platters that may be left are looked at."""
    at = lost = 0
    while True:
        root = in_memory / str(at)
        rig, disk = started(root, at)
        disk.root = str(root)
        root.mkdir()
        play = _Play()
        with suppress(PowerLoss):
            play.run(rig)
        for image in range(IMAGES):
            survivor = disk.survivor(Random(f"{at} {image}"))
            _check(Layout(""), survivor, play)
            lost += sum(1 for path in survivor if path.endswith("/data")) == 0
        if not disk.dead:
            break
        disk.dead, disk.at = False, -1
        at_once(rig.store.stop())
        at += 1
    assert at > 80
    assert lost  # some platters were early ones: the model does lose things


def _check(layout: Layout, survivor: dict[str, bytes], play: _Play) -> None:
    for path, content in survivor.items():
        if path.startswith("blobs/") and path.endswith("/data"):
            digest = Digest.parse(path.split("/")[-2])
            # The play damages one blob itself; until that is noticed it is no tear of ours.
            assert Digest.of(content) == digest or len(content) == MIB + 700
    for digest, (data, name) in play.promised.items():
        assert survivor.get(layout.file(digest, "data")) == data
        if digest != play.under_way:
            known = names.decode(survivor[layout.file(digest, "names")])
            assert known[-1].text == name
    for digest in play.deleted - {play.under_way}:
        assert layout.file(digest, "data") not in survivor


def test_without_unnamed_files_a_named_one_is_used_and_taken_away(tmp_path: Path) -> None:
    class Old(Platter):
        def tmpfile(self, directory: str, mode: int = 0o440) -> int:
            raise OSError(95, "Operation not supported")

    rig = FilesystemRig(str(tmp_path), disk=Old(str(tmp_path)))
    at_once(rig.store.start())
    stored = at_once(put(rig.store, pattern(MIB), "n"))
    assert Path(rig.layout.file(stored.info.digest, "data")).stat().st_nlink == 1
    writer = at_once(rig.store.writer(None))
    writer.write(b"half")
    assert list(Path(rig.layout.blobs).glob(".incoming-*"))
    at_once(rig.crash())
    assert not list(Path(rig.layout.blobs).glob(".incoming-*"))
    writer.abort()

"""What a simulated file has on the platter, compared with a model that copies everything at each sync."""

from __future__ import annotations

import os
from pathlib import Path
from random import Random
from tempfile import TemporaryFile

import hypothesis.strategies as st
import pytest
from hypothesis import given

from swarm.testing.simulation.disk import Platter
from swarm.testing.simulation.durable import SECTOR, File

places = st.integers(0, 40)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("write"), places, st.binary(max_size=20)),
        st.tuples(st.just("cut"), places, st.just(b"")),
        st.tuples(st.just("sync"), st.just(0), st.just(b"")),
        st.tuples(st.just("failed sync"), st.just(0), st.just(b"")),
    ),
    max_size=12,
)


@given(steps)
def test_what_is_durable_is_what_was_there_at_the_last_sync(steps: list[tuple[str, int, bytes]]) -> None:
    """All of it is one sector: after a failed sync the next one writes that if it was touched again."""
    with TemporaryFile() as real:
        file, durable = File(os.dup(real.fileno())), b""
        failed = touched = False
        for what, at, data in steps:
            if what == "write":
                file.changes(at, len(data))
                os.pwrite(real.fileno(), data, at)
                touched = touched or bool(data)
            elif what == "cut":
                file.changes(at, 1 << 40)
                os.ftruncate(real.fileno(), at)
                touched = True
            elif what == "failed sync":
                file.fail()
                failed, touched = True, False
            else:
                file.sync()
                latest = file.latest()
                if touched or not failed:
                    durable = latest
                else:
                    durable = durable[: len(latest)].ljust(len(latest), b"\0")
                touched = False
            assert file.synced() == durable


def test_each_sector_survives_as_it_was_synced_or_as_it_was_written_last(tmp_path: Path) -> None:
    disk = Platter(str(tmp_path))
    fd = disk.create(str(tmp_path / "file"))
    disk.pwritev(fd, [b"a" * 3 * SECTOR], 0)
    disk.fsync(fd)
    disk.fsync_dir(str(tmp_path))
    disk.pwritev(fd, [b"b" * 3 * SECTOR], 0)
    seen = {disk.survivor(Random(seed))["file"] for seed in range(100)}
    sectors = {tuple(each[at : at + 1] for at in range(0, 3 * SECTOR, SECTOR)) for each in seen}
    assert len(sectors) == 8
    assert all(len(each) == 3 * SECTOR for each in seen)
    disk.crash()


@pytest.mark.parametrize("relative", ["file", "one/two/file"])
def test_a_flipped_bit_is_on_the_platter(tmp_path: Path, relative: str) -> None:
    disk = Platter(str(tmp_path))
    path = tmp_path / relative
    for above in reversed(path.relative_to(tmp_path).parents[:-1]):
        disk.mkdir(str(tmp_path / above))
    fd = disk.create(str(path))
    disk.pwritev(fd, [b"abc"], 0)
    disk.rot(str(path), 1)
    disk.sync_volume(fd)
    assert disk.survivor(Random(0)) == {relative: b"a" + bytes([ord("b") ^ 0x10]) + b"c"}
    disk.crash()

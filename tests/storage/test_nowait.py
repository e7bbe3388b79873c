"""Reads that wait for no disk: where the kernel can tell, and where there is no disk to wait for."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from swarm.storage import syscalls
from swarm.storage.disk import Disk

DATA = os.urandom(10_000)
_MEMORY = Path("/dev/shm")
needs_tmpfs = os.access(_MEMORY, os.W_OK) and any(
    line.split()[1:3] == [str(_MEMORY), "tmpfs"] for line in Path("/proc/mounts").read_text().splitlines()
)


@pytest.fixture(params=["disk", *(["memory"] if needs_tmpfs else [])])
def file(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[int]:
    with tempfile.TemporaryFile(dir=_MEMORY if request.param == "memory" else tmp_path) as made:
        made.write(DATA)
        made.flush()
        yield made.fileno()


def can_tell(fd: int) -> bool:
    try:
        return os.preadv(fd, [bytearray(1)], 0, os.RWF_NOWAIT) == 1
    except OSError:
        return False


def test_what_was_just_written_is_there_at_once_where_the_kernel_can_tell_or_there_is_no_disk(
    file: int,
) -> None:
    disk, buffer = Disk(), bytearray(100)
    if can_tell(file) or syscalls.diskless(file):
        assert disk.read_nowait(file, 100, 50) == DATA[50:150]
        assert disk.fill_nowait(file, memoryview(buffer), 50) == 100 and buffer == DATA[50:150]
        assert disk.read_nowait(file, 100, len(DATA) - 10) == DATA[-10:]
    else:
        assert disk.read_nowait(file, 100, 50) is None
        assert disk.fill_nowait(file, memoryview(buffer), 50) == 0


def test_tmpfs_has_no_disk(file: int) -> None:
    on_tmpfs = needs_tmpfs and os.fstat(file).st_dev == os.stat(_MEMORY).st_dev
    assert syscalls.diskless(file) >= on_tmpfs

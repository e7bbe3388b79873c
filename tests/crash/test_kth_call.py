"""Every call to the disk fails once, in every operation: SQLite's calls and looks at files included.

Whatever was answered is true, in the same process, for the next one, and after power was lost later: a
sync that failed has lost its bytes, and the next one says nothing of it.
"""

from __future__ import annotations

import errno
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from random import Random

import pytest

from swarm.errors import LocalError, StorageFull, StoreFailed, VolumeReadOnly
from swarm.storage.disk import Disk
from swarm.testing.contracts import at_once
from swarm.testing.simulation.scale import Scale
from swarm.testing.simulation.sqlite import Databases
from tests.crash.operations import OPERATIONS, SMALLER, Operation, hint
from tests.crash.plays import SHORT, CrashDisk, Kth, Play, databases, prepared
from tests.crash.test_power_loss import IMAGES, goes_on
from tests.storage.failing import SYNCING

WRITES = SYNCING | {
    "tmpfile", "create", "pwritev", "fallocate", "ftruncate", "link_fd", "rename", "unlink", "mkdir"
}  # fmt: skip

#: With EINTR the kernel says nothing of what it did: a sync that was interrupted is one that failed.
ERRORS = {"EIO": errno.EIO, "ENOSPC": errno.ENOSPC, "EINTR": errno.EINTR, "short": SHORT}


#: After these, failed, the kernel takes for written what is not.
SYNCS = SYNCING | {"database fsync"}

#: Otherwise of those that walk deep trees some calls are left out.
THOROUGH = IMAGES >= 100


@pytest.fixture(autouse=True, scope="module")
def simulated() -> Iterator[Databases]:
    with databases() as found, Scale(SMALLER).applied():
        yield found


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda each: each.name)
def test_whatever_call_fails_the_answer_is_true(
    operation: Operation, error: str, simulated: Databases
) -> None:
    k, calls = 0, 1
    while k <= calls:  # the first time nothing fails, and calls are counted
        with prepared(operation, simulated) as (play, disk):
            disk.trouble = trouble = Kth("", k=k, error=ERRORS[error])
            failure: Exception | None = None
            try:
                at_once(operation.act(play))
            except LocalError as e:
                failure = e
            disk.trouble = None
            calls = calls if k else trouble.calls
            k += operation.weight if k and not THOROUGH else 1
            if trouble.failed is None:
                assert failure is None
                continue
            play.check(power=False)
            if not operation.starts and not operation.ends:
                _check_latch(play, operation, trouble.failed, trouble.error, failure)
            _go_on_here(play, operation)
            if not operation.starts and not operation.ends and k % 2:
                at_once(play.store.stop())
                assert not disk.descriptors, "a descriptor leaked"
            play.fall()
            _go_on_after_power_loss(play, operation, disk, k)
            here = shutil.copytree(play.data, f"{play.data}-here")
            after = Play(here, Disk(), play.told.copy())
            after.check(power=False)
            goes_on(operation, after, power=False)
            if trouble.failed in SYNCS:
                _go_on_with_the_same_kernel(play, operation, disk, simulated, k)


def _check_latch(play: Play, operation: Operation, call: str, error: int, failure: Exception | None) -> None:
    read_only = play.store.usage().read_only
    if error == SHORT:
        assert failure is None, "a short write is continued"
    if call in SYNCING and error != SHORT:
        assert failure is not None or not operation.promises, f"{call} failed and nobody was told"
        assert read_only is not None, f"{call} failed, and more is taken"
    elif call == "database fsync":
        assert read_only is not None, f"{call} failed, and more is taken"
    elif error == errno.EIO and call.removeprefix("database ") in WRITES:
        assert read_only is not None or failure is None, f"{call} failed, and more is taken"
    elif call not in ("fstat", "chmod"):  # of what was just written: they may be taken for writes
        assert read_only is None, f"{call} closes the volume for no reason"
    if isinstance(failure, VolumeReadOnly | StorageFull | StoreFailed):
        assert not isinstance(failure, StorageFull) or error == errno.ENOSPC


def _go_on_here(play: Play, operation: Operation) -> None:
    """The same node is asked again, and for something else: what it says then counts, too."""
    if operation.ends or operation.starts:
        return
    for work in (operation.act, hint):
        with suppress(StoreFailed, VolumeReadOnly):
            at_once(work(play))
    if play.store.usage().read_only is None:
        at_once(operation.act(play))
    play.check(power=False)


def _go_on_with_the_same_kernel(
    play: Play, operation: Operation, disk: CrashDisk, simulated: Databases, k: int
) -> None:
    """
    The process is killed, not the machine: the next one sees what was never written as if it were there.

    What that one answers survives a power cut.
    """
    disk = simulated.disks[play.data] = disk.restarted()
    again = Play(play.data, disk, play.told.copy())
    try:
        if not operation.starts:
            at_once(again.store.start())
        for work in (operation.act, *(() if operation.ends else (hint,))):
            at_once(work(again))
    finally:
        again.fall()
    _go_on_after_power_loss(again, operation, disk, k)
    disk.release()


def _go_on_after_power_loss(play: Play, operation: Operation, disk: CrashDisk, k: int) -> None:
    for n in range(2 if THOROUGH else 1):
        root = Path(tempfile.mkdtemp(dir=Path(play.data).parent))
        disk.rebooted(str(root), Random(f"{k} {n}")).release()
        after = Play(str(root), Disk(), play.told.copy())
        after.check(power=True)
        goes_on(operation, after, power=True)

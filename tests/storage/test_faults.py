"""Every call to the disk fails once, under every operation: nothing is said to be stored that is not."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest

from swarm.errors import BlobMissing, LocalError, StorageFull, StoreFailed, VolumeReadOnly
from swarm.hashing import load
from swarm.interfaces import IBlobStore
from swarm.model.digest import Digest
from swarm.model.filenames import Filename
from swarm.testing.contracts import MIB, at_once, content, pattern, put, refused
from tests.contracts.rigs import FilesystemRig, fast
from tests.storage.failing import SYNCING, FailingDisk

HELD = pattern(MIB + 5, 1)
NEW = pattern(MIB + 9, 2)
DAMAGED = pattern(5000, 3)

#: Calls whose failure ends the volume's trustworthiness when it is EIO.
WRITES = SYNCING | {
    "tmpfile", "create", "pwritev", "fallocate", "ftruncate", "link_fd", "link", "rename", "unlink", "mkdir"
}  # fmt: skip

Operation = Callable[[FilesystemRig], Coroutine[Any, Any, object]]


async def put_new(rig: FilesystemRig) -> object:
    return await put(rig.store, NEW, "new")


async def put_of_unknown_length(rig: FilesystemRig) -> object:
    return await put(rig.store, NEW, declared=False)


async def put_known(rig: FilesystemRig) -> object:
    return await put(rig.store, HELD, "known")


async def put_over_damage(rig: FilesystemRig) -> object:
    return await put(rig.store, DAMAGED, "healed")


async def read(rig: FilesystemRig) -> object:
    assert await content(rig.store, Digest.of(HELD)) == HELD
    return None


async def read_damaged(rig: FilesystemRig) -> object:
    with suppress(BlobMissing):
        await content(rig.store, Digest.of(DAMAGED))
        raise AssertionError("damaged bytes were served")
    return None


async def stat(rig: FilesystemRig) -> object:
    return await rig.store.stat(Digest.of(HELD))


async def verify(rig: FilesystemRig) -> object:
    assert await rig.store.verify(Digest.of(HELD))
    return None


async def verify_damaged(rig: FilesystemRig) -> object:
    assert not await rig.store.verify(Digest.of(DAMAGED))
    return None


async def midstates(rig: FilesystemRig) -> object:
    rig.forget_midstates(Digest.of(HELD))
    assert await rig.store.midstates(Digest.of(HELD)) is not None
    return None


async def add_name(rig: FilesystemRig) -> object:
    await rig.store.add_name(Digest.of(HELD), Filename.parse("another"))
    return None


async def delete(rig: FilesystemRig) -> object:
    return await rig.store.delete(Digest.of(HELD))


OPERATIONS = [
    put_new,
    put_of_unknown_length,
    put_known,
    put_over_damage,
    read,
    read_damaged,
    stat,
    verify,
    verify_damaged,
    midstates,
    add_name,
    delete,
]
#: Those that promise durability. The others may tidy up in passing.
PROMISING = [put_new, put_of_unknown_length, put_known, put_over_damage, add_name, delete]


@contextmanager
def prepared(disk: FailingDisk, *, unnamed: bool = True) -> Iterator[FilesystemRig]:
    """A store that holds one good and one damaged blob, on a disk that works so far."""
    if not unnamed:
        disk.tmpfile = refuse  # type: ignore[method-assign]  # as an old NFS does
    with tempfile.TemporaryDirectory(prefix="swarm-faults-", dir=fast()) as path:
        rig = FilesystemRig(path, disk=disk, sha512=load(preadv=disk.preadv))
        at_once(rig.store.start())
        at_once(put(rig.store, HELD, "held"))
        at_once(put(rig.store, DAMAGED, "damaged"))
        rig.damage(Digest.of(DAMAGED))
        yield rig
        disk.at = -1
        at_once(rig.store.stop())


def refuse(directory: str, mode: int = 0) -> int:
    raise OSError(errno.EOPNOTSUPP, "not supported")


@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC, errno.EMFILE], ids=errno.errorcode.get)
@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.__name__)
def test_whatever_call_fails_the_answer_is_true(operation: Operation, error: int) -> None:
    _fail_every_call(operation, error)


@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC], ids=errno.errorcode.get)
def test_so_it_is_where_there_are_no_unnamed_files(error: int) -> None:
    _fail_every_call(put_new, error, unnamed=False)


def _fail_every_call(operation: Operation, error: int, *, unnamed: bool = True) -> None:
    tried = 0
    while True:
        disk = FailingDisk()
        with prepared(disk, unnamed=unnamed) as rig:
            disk.calls, disk.at, disk.error, disk.failed = 0, tried + 1, error, None
            failure: LocalError | None = None
            try:
                at_once(operation(rig))
            except LocalError as e:
                failure = e
            disk.at = -1
            assert not disk.open, "a descriptor leaked"
            if disk.failed is None:
                assert failure is None
                break
            _check(rig, operation, disk.failed, error, failure)
            at_once(_truth(rig, operation, failure))
        tried += 1
    assert tried


def _check(
    rig: FilesystemRig, operation: Operation, call: str, error: int, failure: LocalError | None
) -> None:
    usage = rig.store.usage()
    if call in SYNCING and error != errno.EMFILE:
        assert failure is not None or operation not in PROMISING, f"{call} failed and nobody was told"
        assert usage.read_only is not None
    if call in WRITES and error == errno.EIO:
        assert failure is None or isinstance(failure, StoreFailed)
        assert usage.read_only is not None or failure is None
    if failure is not None and error == errno.ENOSPC:
        assert isinstance(failure, StorageFull)
    if error == errno.EMFILE:
        assert usage.read_only is None
    if usage.read_only is not None:
        with pytest.raises(VolumeReadOnly):
            rig.store.check_room(1)
    assert usage.bytes <= len(HELD) + len(NEW) + len(DAMAGED)


async def _truth(rig: FilesystemRig, operation: Operation, failure: LocalError | None) -> None:
    """What a node started afterwards finds is what was answered."""
    reserved = rig.store.usage()
    await rig.crash()
    store: IBlobStore = rig.store
    held = await _has(store, HELD)
    assert held is (operation is not delete) or (operation is delete and failure is not None)
    new = await _has(store, NEW)
    if operation in (put_new, put_of_unknown_length):
        assert new is (failure is None)
    else:
        assert not new
    damaged = await _has(store, DAMAGED)
    assert damaged is (operation is put_over_damage and failure is None)
    assert not [name for name in os.listdir(rig.layout.blobs) if name.startswith(".")]
    assert store.usage().blobs == held + new + damaged
    assert reserved.partials == 0


async def _has(store: IBlobStore, data: bytes) -> bool:
    try:
        assert await content(store, Digest.of(data)) == data
    except BlobMissing:
        assert await store.stat(Digest.of(data)) is None
        return False
    return True


@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC], ids=errno.errorcode.get)
def test_short_writes_are_continued(error: int) -> None:
    class Short(FailingDisk):
        def pwritev(self, fd: int, data: Any, offset: int) -> int:
            first = memoryview(data[0]).cast("B")
            return os.pwrite(fd, first[: max(1, len(first) // 3)], offset)

    with prepared(Short()) as rig:
        at_once(put_new(rig))
        assert at_once(_has(rig.store, NEW))


def test_reads_go_on_when_the_volume_is_read_only() -> None:
    disk = FailingDisk(error=errno.EIO, only=frozenset(["fsync"]))
    with prepared(disk) as rig:
        disk.at, disk.calls = 1, 0
        at_once(refused(StoreFailed, put(rig.store, NEW)))
        usage = rig.store.usage()
        assert usage.read_only is not None
        assert "fsync" in usage.read_only
        at_once(refused(VolumeReadOnly, put(rig.store, NEW)))
        at_once(refused(VolumeReadOnly, rig.store.delete(Digest.of(HELD))))
        at_once(refused(VolumeReadOnly, rig.store.add_name(Digest.of(HELD), Filename.parse("x"))))
        assert at_once(content(rig.store, Digest.of(HELD))) == HELD
        at_once(read_damaged(rig))


def test_a_latched_volume_refuses_writes_already_under_way() -> None:
    disk = FailingDisk(error=errno.EIO, only=frozenset(["fsync"]))
    with prepared(disk) as rig:
        under_way = at_once(rig.store.writer(None))
        under_way.write(NEW[:MIB])
        disk.at, disk.calls = 1, 0
        at_once(refused(StoreFailed, put(rig.store, NEW)))
        with pytest.raises(VolumeReadOnly):
            under_way.write(NEW[MIB:])
        under_way.abort()


@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC], ids=errno.errorcode.get)
def test_the_node_does_not_start_on_a_disk_that_refuses(error: int) -> None:
    refused_at = 0
    for at in range(1, 25):
        with tempfile.TemporaryDirectory(prefix="swarm-faults-", dir=fast()) as path:
            disk = FailingDisk(at, error)
            rig = FilesystemRig(f"{path}/a/b", disk=disk)
            try:
                at_once(rig.store.start())
            except LocalError:
                refused_at = at
            else:
                # Only the comparison of disk and catalog, in the background, may find it out later.
                assert disk.failed in (None, "listdir")
            disk.at = -1
            at_once(rig.store.stop())
            at_once(rig.crash())
            assert rig.store.usage().read_only is None
            at_once(rig.store.stop())
    assert refused_at > 10

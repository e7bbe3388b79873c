"""Work goes on when nobody waits, one piece at a time for a blob; descriptors close after their last user."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred

from swarm.errors import StoreFailed
from swarm.model.digest import Digest
from swarm.storage.descriptor import Descriptor
from swarm.storage.disk import Disk
from swarm.storage.work import Work

A, B = Digest.of(b"a"), Digest.of(b"b")


class Threads:
    """``run_blocking`` whose functions run when the test says so."""

    def __init__(self) -> None:
        self.queue: list[Callable[[], None]] = []

    async def __call__(self, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        done: Deferred[Any] = Deferred()

        def job() -> None:
            try:
                result = function(*args, **kwargs)
            except Exception as e:
                done.errback(e)
            else:
                done.callback(result)

        self.queue.append(job)
        return await done

    def step(self) -> None:
        self.queue.pop(0)()

    def all(self) -> None:
        while self.queue:
            self.step()


def test_the_lock_on_a_blob_outlives_a_cancelled_await() -> None:
    threads = Threads()
    work, order = Work(threads), list[str]()
    first = Deferred.fromCoroutine(work.exclusively(A, order.append, "first"))
    second = Deferred.fromCoroutine(work.exclusively(A, order.append, "second"))
    other = Deferred.fromCoroutine(work.exclusively(B, order.append, "other"))
    failures: list[Any] = []
    first.addErrback(failures.append)
    first.cancel()
    assert failures[0].check(CancelledError)
    assert len(threads.queue) == 2  # the first, still, and the one of another blob
    threads.all()
    assert order == ["first", "other", "second"]
    assert second.called
    assert other.called
    assert not work._locks


def test_a_result_nobody_waits_for_is_released() -> None:
    threads, released = Threads(), list[int]()
    work = Work(threads)
    kept = Deferred.fromCoroutine(work.obtain(released.append, int, "1"))
    given_up = Deferred.fromCoroutine(work.obtain(released.append, int, "2"))
    failed = Deferred.fromCoroutine(work.obtain(released.append, int, "no number"))
    for each in (given_up, failed):
        each.addErrback(lambda failure: None)
        each.cancel()
    threads.all()
    assert kept.result == 1
    assert released == [2]


def test_idle_waits_for_what_nobody_waits_for() -> None:
    threads = Threads()
    work = Work(threads)
    running = Deferred.fromCoroutine(work.in_thread(int, "1"))
    running.addErrback(lambda failure: None)
    running.cancel()
    idle = Deferred.fromCoroutine(work.idle())
    assert not idle.called
    threads.all()
    assert idle.called
    assert Deferred.fromCoroutine(work.idle()).called


def test_errors_arrive_and_free_the_lock() -> None:
    threads = Threads()
    work = Work(threads)
    failing = Deferred.fromCoroutine(work.exclusively(A, int, "no number"))
    after = Deferred.fromCoroutine(work.exclusively(A, int, "3"))
    errors: list[Any] = []
    failing.addErrback(errors.append)
    threads.all()
    assert errors[0].check(ValueError)
    assert after.result == 3


def test_a_descriptor_closes_after_its_last_user(tmp_path: Path) -> None:
    disk = Disk()
    fd = disk.create(str(tmp_path / "file"))
    file = Descriptor(disk, fd)
    with file.held() as held:
        assert held == fd == file.number
        file.close()
        file.close()
        assert file.number == -1
        os.fstat(fd)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)
    with pytest.raises(StoreFailed), file.held():
        pass

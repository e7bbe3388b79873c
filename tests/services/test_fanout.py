"""One read of the disk serves all who keep pace."""

from __future__ import annotations

from random import Random

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from swarm.errors import StoreFailed
from swarm.interfaces import BlobInfo
from swarm.model.digest import Digest
from swarm.services.fanout import SharedReads
from swarm.services.tasks import sleep
from swarm.testing.contracts import at_once, pattern
from swarm.testing.memory import MemoryReader

DATA = pattern(100_000)
INFO = BlobInfo(Digest.of(DATA), len(DATA))


class CountingReader(MemoryReader):
    """Counts and takes its time."""

    clock: Clock
    reads: list[tuple[int, int]]
    fails = False

    async def read(self, offset: int, length: int) -> bytes:
        await sleep(self.clock, 1)
        self.reads.append((offset, length))
        if self.fails:
            raise StoreFailed("EIO")
        return await super().read(offset, length)


def counting(clock: Clock, *, cached: bool = False) -> CountingReader:
    reader = CountingReader(INFO, DATA, not cached)
    reader.clock, reader.reads = clock, []
    return reader


def test_all_bytes_come_out_as_they_are_at_any_offset() -> None:
    shared, random = SharedReads(MemoryReader(INFO, DATA), chunk=7000, kept=2), Random(1)
    for _ in range(50):
        offset = random.randrange(len(DATA))
        length = random.randrange(len(DATA) - offset + 1)
        assert at_once(shared.read(offset, length)) == DATA[offset : offset + length]


def test_peers_that_keep_pace_share_each_read() -> None:
    clock = Clock()
    reader = counting(clock)
    shared, got = SharedReads(reader, chunk=10_000, kept=2), [bytearray() for _ in range(4)]

    async def take(mine: bytearray) -> None:
        for offset in range(0, len(DATA), 5000):
            mine += await shared.read(offset, 5000)

    for mine in got:
        Deferred.fromCoroutine(take(mine))
    for _ in range(20):
        clock.advance(1)
    assert all(bytes(mine) == DATA for mine in got)
    assert reader.reads == [(offset, 10_000) for offset in range(0, len(DATA), 10_000)]


def test_one_that_falls_behind_reads_for_itself_and_keeps_nobody_waiting() -> None:
    shared = SharedReads(MemoryReader(INFO, DATA), chunk=10_000, kept=2)
    for offset in range(0, len(DATA), 10_000):
        at_once(shared.read(offset, 10_000))
    assert len(shared._chunks) == 2
    assert at_once(shared.read(0, 10)) == DATA[:10]


def test_a_failed_read_is_raised_and_tried_again_by_the_next() -> None:
    clock = Clock()
    reader = counting(clock)
    reader.fails = True
    shared, outcomes = SharedReads(reader, chunk=10_000), list[object]()
    for _ in range(2):
        Deferred.fromCoroutine(shared.read(0, 10)).addBoth(outcomes.append)
    clock.advance(1)
    reader.fails = False
    clock.advance(1)
    assert outcomes[0].check(StoreFailed)  # type: ignore[attr-defined] # a Failure
    assert outcomes[1] == DATA[:10]


def test_one_that_gives_up_while_reading_leaves_the_others_their_read() -> None:
    clock = Clock()
    shared = SharedReads(counting(clock), chunk=10_000)
    leaving = Deferred.fromCoroutine(shared.read(0, 10))
    staying = Deferred.fromCoroutine(shared.read(5, 10))
    outcome: list[bytes] = []
    staying.addCallback(outcome.append)
    leaving.addErrback(lambda _: None)
    leaving.cancel()
    clock.advance(1)
    clock.advance(1)
    assert outcome == [DATA[5:15]]


@pytest.mark.parametrize("cached", [True, False])
def test_what_the_page_cache_has_is_not_read_in_a_thread(cached: bool) -> None:
    clock = Clock()
    reader = counting(clock, cached=cached)
    work = Deferred.fromCoroutine(SharedReads(reader).read(0, len(DATA)))
    clock.advance(1)
    assert work.called
    assert bool(reader.reads) is not cached

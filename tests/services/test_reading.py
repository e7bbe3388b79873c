"""Readers of a pull: their bytes come first, the end comes last, and what was wrong is never finished."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
from attrs import evolve

from swarm.errors import PullFailed
from swarm.interfaces import IBlobReader
from swarm.model.digest import Digest
from swarm.model.midstates import Midstates
from swarm.model.ranges import ByteRange, RangeSet
from swarm.services.reading import HELD_BACK, PullReader
from swarm.testing.memory import MemoryStore
from tests.services.world import (
    BLOB,
    DIGEST,
    GRAINS,
    MIB,
    SHA512,
    SlowPartial,
    World,
    drain,
    flipping,
    listing,
    replacing,
    stalling_after,
    wrong_after,
)


def test_the_range_asked_for_comes_first(make: Callable[..., World]) -> None:
    world = make()
    for name in "ab":
        world.peer(name, BLOB, rate=MIB / 4)
    began = world.clock.seconds()
    assert world.run(world.read(3 * MIB, 3 * MIB + 1000)) == BLOB[3 * MIB : 3 * MIB + 1000]
    assert world.clock.seconds() - began < 10, "the whole takes 12 s from both"
    progress = world.fetcher.progress(DIGEST)
    assert progress is not None and progress.verified <= 3 * MIB


def test_seeking_in_a_blob_that_arrives(make: Callable[..., World]) -> None:
    world = make()
    for name in "abc":
        world.peer(name, BLOB, rate=MIB)
    reader = world.run(world.fetcher.open(DIGEST))
    for start in (5 * MIB, 0, 2 * MIB - 10, 4 * MIB):
        stop = min(start + 5000, len(BLOB))
        assert world.run(drain(reader, start, stop)) == BLOB[start:stop]
    reader.close()


def test_bytes_are_given_out_while_the_rest_is_under_way(make: Callable[..., World]) -> None:
    world = make()
    world.peer("a", BLOB, rate=MIB)
    reader = world.run(world.fetcher.open(DIGEST))
    assert world.run(reader.available(0, len(BLOB))) >= MIB
    assert world.fetcher.pulls()[0].verified < len(BLOB)
    assert reader.read_now(0, 10) == BLOB[:10]
    assert reader.fileno() == -1
    reader.close()
    reader.close()
    world.settle()


@pytest.mark.parametrize("peers", ["a", "ab", "abc"])
def test_the_last_bytes_wait_for_the_proof(make: Callable[..., World], midstates: bool, peers: str) -> None:
    world = make(midstates=midstates)
    for name in peers:
        world.peer(name, BLOB, rate=MIB)
    reader = world.run(world.fetcher.open(DIGEST))
    at = 0
    while at < len(BLOB):
        at = world.run(reader.available(at, len(BLOB)))
        if at > len(BLOB) - HELD_BACK:
            progress = world.fetcher.progress(DIGEST)
            assert progress is None or progress.verified == len(BLOB)
    reader.close()


@pytest.mark.parametrize("peers", ["a", "ab"])
def test_the_end_of_a_blob_is_given_out_before_what_precedes_it(
    make: Callable[..., World], peers: str
) -> None:
    """An mp4's index is its last few kilobytes, and a player starts with them."""
    world = make()
    for name in peers:
        world.peer(name, BLOB, rate=MIB)
    start = len(BLOB) - 1000
    assert world.run(world.read(start, len(BLOB))) == BLOB[start:]
    progress = world.fetcher.progress(DIGEST)
    assert progress is not None and progress.verified <= 3 * MIB


def test_one_peers_word_is_proven_from_the_end_without_what_is_before(make: Callable[..., World]) -> None:
    world = make()
    world.peer("a", BLOB, rate=MIB / 4)
    at = 4 * MIB
    assert world.run(world.read(at, at + 1000)) == BLOB[at : at + 1000]
    progress = world.fetcher.progress(DIGEST)
    assert progress is not None and progress.verified <= len(BLOB) - 2 * MIB


def test_a_response_does_not_end_on_one_peers_word(make: Callable[..., World]) -> None:
    """With one source a range waits until everything right of it is proven; a disputed one, too."""
    world = make()
    world.peer("a", BLOB, rate=MIB)
    assert world.run(world.read(MIB, 2 * MIB)) == BLOB[MIB : 2 * MIB]
    progress = world.fetcher.progress(DIGEST)
    assert progress is None or progress.verified >= len(BLOB) - MIB


def test_an_empty_range_needs_nothing(world: World) -> None:
    world.peer("a", BLOB)
    reader = world.run(world.fetcher.open(DIGEST))
    assert world.run(reader.available(5, 5)) == 5
    reader.close()


def test_a_reader_outlives_its_pull(world: World) -> None:
    world.peer("a", BLOB)
    reader = world.run(world.fetcher.open(DIGEST))
    world.settle()
    assert not world.store.partials[0].closed
    assert world.run(drain(reader, 0, len(BLOB))) == BLOB
    reader.close()
    assert world.store.partials[0].closed


def test_readers_of_a_failed_pull_fail(make: Callable[..., World], midstates: bool) -> None:
    world = make(midstates=midstates)
    node = world.peer("a", BLOB, rate=MIB)
    node.tamper = stalling_after(node, 2 * MIB)
    reader = world.run(world.fetcher.open(DIGEST))
    with pytest.raises(PullFailed):
        world.run(drain(reader, 0, len(BLOB)))
    with pytest.raises(PullFailed):
        world.run(reader.available(0, 1))
    reader.close()


def test_a_reader_that_fails_with_its_pull_leaves_it_time_to_save(make: Callable[..., World]) -> None:
    world = make()
    node = world.peer("a", BLOB, rate=MIB)
    node.tamper = stalling_after(node, 2 * MIB)
    still_open: list[bool] = []

    class Watched(SlowPartial):
        async def checkpoint(self) -> None:
            await super().checkpoint()
            still_open.append(not self.closed)

    async def partial(digest: Digest, size: int) -> SlowPartial:
        plain = await MemoryStore.partial(world.store, digest, size)
        return Watched(world.store, digest, plain.grains, plain._pull, plain.journaled)

    world.store.partial = partial  # type: ignore[method-assign]
    reader = world.run(world.fetcher.open(DIGEST))
    with pytest.raises(PullFailed):
        world.run(closing(reader, drain(reader, 0, len(BLOB))))
    world.settle()
    assert still_open and all(still_open)


async def closing(reader: IBlobReader, work: Awaitable[bytes]) -> bytes:
    """As the API does."""
    try:
        return await work
    finally:
        reader.close()


def test_a_grain_taken_back_fails_whom_it_was_given_and_nobody_else(make: Callable[..., World]) -> None:
    """The liar's list agrees with its wrong grain, and it is alone for long enough to be read."""
    grain = b"?" + BLOB[2 * MIB + 1 : 3 * MIB]

    def forge(true: Midstates) -> Midstates:
        inner = bytearray(true.inner)
        inner[2 * 64 : 3 * 64] = SHA512.end_state(grain, 2 * MIB, true.before(2), False)
        return evolve(true, inner=bytes(inner))

    world = make()
    liar = world.peer("liar", BLOB, rate=MIB, forge_midstates=forge)
    liar.tamper = lambda offset, data: grain[: len(data)] if offset == 2 * MIB else data
    deceived, other = world.run(world.fetcher.open(DIGEST)), world.run(world.fetcher.open(DIGEST))
    reached = world.run(deceived.available(2 * MIB, 4 * MIB))
    assert reached == 3 * MIB, "one list and its bytes agree"
    assert world.run(deceived.read(2 * MIB, MIB)) == grain
    for name in ("honest1", "honest2"):
        world.peer(name, BLOB, rate=4 * MIB)
    with pytest.raises(PullFailed, match="already sent"):
        world.run(drain(deceived, reached, 4 * MIB))
    assert world.run(drain(other, 0, len(BLOB))) == BLOB
    deceived.close()
    other.close()
    world.settle()
    assert world.standing.on_record() == (liar.peer.id,)
    assert world.store.blobs[DIGEST].data == BLOB


@pytest.mark.parametrize("seed", range(5))
def test_a_response_that_completes_is_right_whoever_lies(make: Callable[..., World], seed: int) -> None:
    world = make(seed=seed, midstates=seed % 2 == 0)
    world.peer("liar1", BLOB, rate=4 * MIB, tamper=flipping(*world.random.sample(range(GRAINS.count), 2)))
    world.peer("liar2", BLOB, rate=4 * MIB, forge_midstates=wrong_after(world.random.randrange(1, 6)))
    world.peer("honest", BLOB, rate=MIB)
    works = []
    for _ in range(6):
        start = world.random.randrange(len(BLOB))
        stop = world.random.randrange(start, len(BLOB)) + 1
        works.append((start, stop, world.start(world.read(start, stop))))
    completed = 0
    for start, stop, work in works:
        try:
            assert world.join(work) == BLOB[start:stop]
            completed += 1
        except PullFailed:
            pass
    world.settle()
    assert world.store.blobs[DIGEST].data == BLOB
    assert world.served() == BLOB


def test_a_window_is_no_wider_than_told(make: Callable[..., World]) -> None:
    world = make(reader_window=MIB)
    world.peer("a", BLOB, rate=MIB)
    assert world.served() == BLOB


def test_taking_back_what_was_not_given_is_no_harm() -> None:
    class Nothing:
        error = None
        info = None

    reader = PullReader(Nothing(), 1)  # type: ignore[arg-type] # it is not asked
    reader._given = RangeSet([ByteRange(0, 10), ByteRange(20, 30)])
    reader.taken_back(ByteRange(10, 20))
    assert reader._error is None


def test_what_a_liar_alone_says_by_list_and_bytes_waits_for_the_other_list(
    make: Callable[..., World],
) -> None:
    world = make()
    forged = bytes(byte ^ 1 for byte in BLOB[: 5 * MIB]) + BLOB[5 * MIB :]
    liar = world.peer("liar", BLOB, rate=12 * MIB, latency=0.001)
    liar.tamper, liar.forge_midstates = replacing(forged), listing(forged)
    world.peer("honest", BLOB, rate=4 * MIB, latency=0.09)
    reader = world.run(world.fetcher.open(DIGEST, near=0))
    upto = world.run(reader.available(0, len(BLOB)))
    assert world.run(reader.read(0, upto)) == BLOB[:upto]
    assert world.run(drain(reader, upto, len(BLOB))) == BLOB[upto:]
    reader.close()
    world.settle()
    assert set(world.standing.on_record()) <= {liar.peer.id}


def test_but_not_for_long(make: Callable[..., World]) -> None:
    """Of two honest holders one says that it has it, and then nothing any more."""
    world = make()
    world.peer("a", BLOB, rate=8 * MIB)
    silent = world.peer("b", BLOB)
    reader = world.run(world.fetcher.open(DIGEST))
    world.until(lambda: len(world.fetcher.pulls()[0].sources) == 2)
    silent.latency, began = 1000.0, world.clock.seconds()
    assert world.run(reader.available(0, len(BLOB))) > 0
    assert world.clock.seconds() - began < 3
    reader.close()
    world.settle()

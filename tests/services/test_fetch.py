"""How soon a pull begins, what it asks for first, and when a reader is promised a size."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from swarm.services.fetcher import FetchSettings
from swarm.testing.loopback import LoopbackNode
from tests.services.world import BLOB, DIGEST, MIB, World, drain

#: Far longer than any peer here takes to answer.
_GATHER = 20.0


def first_offsets(world: World, *nodes: LoopbackNode) -> list[int]:
    """Note where each span begins that is asked of the nodes, in the order they are answered."""
    offsets: list[int] = []

    def note(offset: int, data: bytes) -> bytes:
        if offset % MIB == 0:
            offsets.append(offset)
        return data

    for node in nodes:
        node.tamper = note
    return offsets


@pytest.mark.parametrize("others", [0, 2])
def test_a_pull_begins_with_the_first_that_has_it(make: Callable[..., World], others: int) -> None:
    world = make(settings=FetchSettings(gather=_GATHER))
    world.peer("without")
    world.peer("quick", BLOB, latency=0.01)
    for number in range(others):
        world.peer(f"slow{number}", BLOB, latency=3.0)
    start = world.clock.seconds()
    work = world.start(world.fetcher.pull(DIGEST))
    world.until(world.fetcher.pulls)
    assert world.clock.seconds() - start < 0.1
    world.join(work)


def test_who_answers_later_takes_part_when_it_does(make: Callable[..., World]) -> None:
    world = make(settings=FetchSettings(gather=_GATHER))
    world.peer("quick", BLOB, rate=MIB)
    world.peer("slow", BLOB, latency=0.5, rate=MIB)
    start = world.clock.seconds()
    work = world.start(world.fetcher.pull(DIGEST))

    def both() -> bool:
        return any(len(progress.sources) == 2 for progress in world.fetcher.pulls())

    world.until(both)
    assert world.clock.seconds() - start < 1.0
    world.join(work)


def test_a_reader_is_promised_a_size_when_all_have_answered(make: Callable[..., World]) -> None:
    world = make(settings=FetchSettings(gather=_GATHER))
    world.peer("quick", BLOB, rate=MIB)
    world.peer("slow", BLOB, latency=0.5)
    start = world.clock.seconds()
    reader = world.run(world.fetcher.open(DIGEST))
    assert 0.5 <= world.clock.seconds() - start < 1.0
    assert world.run(drain(reader, 0, len(BLOB))) == BLOB
    reader.close()
    world.settle()


def test_who_does_not_answer_is_waited_for_no_longer_than_that(make: Callable[..., World]) -> None:
    world = make(settings=FetchSettings(gather=0.1))
    world.peer("quick", BLOB, rate=MIB)
    world.peer("slow", BLOB, latency=3.0)
    start = world.clock.seconds()
    reader = world.run(world.fetcher.open(DIGEST))
    assert 0.1 <= world.clock.seconds() - start < 0.2
    reader.close()
    world.settle()


def test_a_reader_does_not_wait_for_those_who_cannot_outvote_the_others(make: Callable[..., World]) -> None:
    world = make(settings=FetchSettings(gather=_GATHER))
    for name in "abc":
        world.peer(name, BLOB, latency=0.1, rate=MIB)
    for name in "de":
        world.peer(name, BLOB, latency=3.0)
    start = world.clock.seconds()
    reader = world.run(world.fetcher.open(DIGEST))
    assert world.clock.seconds() - start < 1.0
    reader.close()
    world.settle()


def test_one_quick_peers_wrong_size_is_dropped_when_most_say_another(make: Callable[..., World]) -> None:
    world = make(settings=FetchSettings(gather=_GATHER))
    world.peer("quick", BLOB, claims_size=len(BLOB) + MIB, rate=MIB)
    for name in ("a", "b"):
        world.peer(name, BLOB, latency=0.5)
    start = world.clock.seconds()
    reader = world.run(world.fetcher.open(DIGEST, 0))
    assert reader.info.size == len(BLOB)
    assert world.run(drain(reader, 0, len(BLOB))) == BLOB
    assert world.clock.seconds() - start < 5.0, "nobody waited for the liar to fail"
    reader.close()
    world.settle()


def test_what_an_earlier_pull_left_is_not_thrown_away_on_one_peers_word(make: Callable[..., World]) -> None:
    world = make(settings=FetchSettings(gather=_GATHER))
    node = world.peer("first", BLOB, rate=MIB / 4)
    work = world.start(world.fetcher.pull(DIGEST))
    world.until(lambda: any(progress.verified >= MIB for progress in world.fetcher.pulls()))
    world.spend(2.5)
    work.addErrback(lambda _: None)
    world.kill()
    world.leave(node)
    world.peer("quick", BLOB, claims_size=len(BLOB) + MIB)
    for name in ("a", "b"):
        world.peer(name, BLOB, latency=0.5)
    world.join(world.start(world.fetcher.pull(DIGEST)))
    assert world.fetcher.counters.bytes_resumed >= MIB


@pytest.mark.parametrize(("near", "grain"), [(0, 0), (3 * MIB + 5, 3), (-MIB - 2000, 4), (-(1 << 40), 0)])
def test_where_reading_will_begin_is_asked_for_before_the_size_is_settled(
    make: Callable[..., World], near: int, grain: int
) -> None:
    world = make(settings=FetchSettings(gather=_GATHER))
    quick = world.peer("quick", BLOB, rate=8 * MIB)
    offsets = first_offsets(world, quick)
    world.peer("slow", BLOB, latency=2.0)
    work = world.start(world.fetcher.open(DIGEST, near))
    world.until(lambda: offsets)
    assert offsets[0] == grain * MIB
    assert not work.called, "its size is not settled"
    world.join(work).close()
    world.settle()


def test_who_waits_for_a_reader_of_a_pull_that_runs_goes_first_too(make: Callable[..., World]) -> None:
    world = make(settings=FetchSettings(gather=_GATHER))
    quick = world.peer("quick", BLOB, rate=MIB)
    offsets = first_offsets(world, quick)
    world.peer("slow", BLOB, latency=3.0)
    pull = world.start(world.fetcher.pull(DIGEST))
    world.until(lambda: offsets)
    work = world.start(world.fetcher.open(DIGEST, 2 * MIB))
    world.until(lambda: 2 * MIB in offsets)
    assert len(offsets) <= 3, "behind what was asked already, and nothing else"
    world.join(work).close()
    world.join(pull)


def test_a_place_past_the_end_asks_for_nothing(make: Callable[..., World]) -> None:
    world = make(settings=FetchSettings(gather=_GATHER))
    world.peer("quick", BLOB)
    reader = world.run(world.fetcher.open(DIGEST, len(BLOB)))
    assert reader.info.size == len(BLOB)
    reader.close()
    world.settle()

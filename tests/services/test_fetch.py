"""How long a pull waits for holders before it begins."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from swarm.services.fetcher import FetchSettings
from tests.services.world import BLOB, DIGEST, World

#: Far longer than any peer here takes to answer.
_GATHER = 20.0


@pytest.mark.parametrize("holders", [1, 3])
def test_a_pull_begins_when_all_have_answered(make: Callable[..., World], holders: int) -> None:
    world = make(settings=FetchSettings(gather=_GATHER))
    for number in range(holders):
        world.peer(f"p{number}", BLOB)
    world.peer("without")
    start = world.clock.seconds()
    work = world.start(world.fetcher.pull(DIGEST))
    world.until(world.fetcher.pulls)
    assert world.clock.seconds() - start < 1.0
    world.join(work)


def test_who_does_not_answer_is_waited_for_no_longer_than_that(make: Callable[..., World]) -> None:
    world = make(settings=FetchSettings(gather=0.1))
    world.peer("quick", BLOB)
    world.peer("slow", BLOB, latency=3.0)
    start = world.clock.seconds()
    work = world.start(world.fetcher.pull(DIGEST))
    world.until(world.fetcher.pulls)
    assert 0.1 <= world.clock.seconds() - start < 0.2
    world.join(work)


def test_a_second_holder_that_answers_in_time_takes_part_from_the_start(make: Callable[..., World]) -> None:
    world = make(settings=FetchSettings(gather=_GATHER))
    world.peer("quick", BLOB)
    world.peer("slow", BLOB, latency=0.5)
    work = world.start(world.fetcher.pull(DIGEST))
    world.until(world.fetcher.pulls)
    (progress,) = world.fetcher.pulls()
    assert {source.name for source in progress.sources} == {"quick", "slow"}
    world.join(work)

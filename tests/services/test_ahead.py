"""The grain a reader stands at is asked before its pull has files, and nothing of that is lost or left."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from twisted.internet.defer import CancelledError

from swarm.errors import Fault, PeerError, StorageFull
from swarm.model.holdings import Holding
from swarm.model.midstates import Midstates
from swarm.model.ranges import ByteRange, RangeSet
from swarm.services.ahead import Ahead, ask_ahead
from tests.services.world import BLOB, DIGEST, GRAINS, MIB, World, drain, replacing

SLOW = 0.5  # seconds until the files of a pull are there


def holding(world: World, name: str, have: RangeSet | None = None, size: int = len(BLOB)) -> Holding:
    """A peer that says it has the blob."""
    return Holding(world.peer(name, BLOB).peer, size, have)


def asked(world: World, *holdings: Holding, near: int = 0) -> Ahead | None:
    return ask_ahead(world.client, DIGEST, GRAINS, near, holdings, clock=world.clock)


@pytest.mark.parametrize("near", [0, 3 * MIB + 17])
def test_it_comes_while_the_files_are_made_and_comes_once(make: Callable[..., World], near: int) -> None:
    world = make()
    for name in "ab":
        world.peer(name, BLOB, rate=4 * MIB)
    world.store.pace["partial"] = SLOW
    began = world.clock.seconds()
    reader = world.run(world.fetcher.open(DIGEST, near=near))
    assert world.run(reader.available(near, near + 1000)) > near
    if world.midstates:  # else nothing is believed before all is here
        assert world.clock.seconds() - began < SLOW + 0.1, "the grain alone takes 0.25 s"
    assert world.run(drain(reader, 0, len(BLOB))) == BLOB
    reader.close()
    world.settle()
    counters = world.fetcher.counters
    assert counters.bytes_received == len(BLOB) + counters.bytes_duplicated


def test_where_there_is_no_room_nothing_is_left_under_way(make: Callable[..., World]) -> None:
    world = make()
    for name in "ab":
        world.peer(name, BLOB)
    world.store.pace["partial"] = 0.05
    world.store.disk_error = lambda: StorageFull("ENOSPC")
    with pytest.raises(StorageFull):
        world.run(world.fetcher.open(DIGEST, near=0))
    world.settle()
    assert len(world.client.lanes) == 1
    with pytest.raises(CancelledError):
        world.run(world.client.lanes[0].fetch(ByteRange(0, 1), lambda offset, views: None))


def test_one_that_breaks_off_meanwhile_is_as_any_other(make: Callable[..., World]) -> None:
    world = make()
    first = world.peer("a", BLOB, latency=0.001, breaks_after=1000)
    world.peer("b", BLOB, latency=0.01)
    world.store.pace["partial"] = SLOW
    reader = world.run(world.fetcher.open(DIGEST, near=0))
    assert world.run(drain(reader, 0, len(BLOB))) == BLOB
    reader.close()
    world.settle()
    assert first.sent


def test_a_liar_that_was_first_is_found_out_as_ever(make: Callable[..., World]) -> None:
    world = make()
    forged = bytes(byte ^ 1 for byte in BLOB)
    liar = world.peer("liar", BLOB, latency=0.001)
    liar.tamper = replacing(forged)
    world.peer("b", BLOB, latency=0.01)
    world.peer("c", BLOB, latency=0.01)
    world.store.pace["partial"] = SLOW
    assert world.served() == BLOB
    assert set(world.standing.on_record()) <= {liar.peer.id}


def test_what_an_earlier_pull_left_is_not_asked_for_again(make: Callable[..., World]) -> None:
    world = make()
    world.peer("a", BLOB)
    partial = world.run(world.store.partial(DIGEST, len(BLOB)))
    world.run(partial.checkpoint())
    partial.close()
    assert world.store.begun(DIGEST) is not None
    world.store.pace["partial"] = SLOW
    opening = world.start(world.fetcher.open(DIGEST, near=0))
    world.spend(SLOW / 2)
    assert not world.client.lanes
    reader = world.join(opening)
    assert world.run(drain(reader, 0, len(BLOB))) == BLOB
    reader.close()
    world.settle()


# -- alone --------------------------------------------------------------------------


def test_only_who_has_all_of_it_is_asked_and_only_for_what_there_is(make: Callable[..., World]) -> None:
    world = make()
    part = RangeSet([ByteRange(0, MIB)])
    assert asked(world, holding(world, "a", part), holding(world, "b", size=len(BLOB) - 1)) is None
    assert asked(world, holding(world, "c"), near=len(BLOB)) is None
    ahead = asked(world, holding(world, "d", part), good := holding(world, "e"), near=-len(BLOB) - 5)
    assert ahead is not None and ahead.holding is good and ahead.span == ByteRange(0, MIB)
    ahead.drop()


def test_what_the_peer_says_of_itself_is_told_before_its_bytes(make: Callable[..., World]) -> None:
    world = make()
    ahead = asked(world, holding(world, "a"), near=MIB)
    assert ahead is not None
    world.spend(1.0)
    heard: list[object] = []
    assert ahead.claim(ahead.span, lambda have, given: heard.append("said"))
    world.run(ahead.fetch(ahead.span, lambda offset, views: heard.append(offset)))
    assert heard[:2] == ["said", MIB]
    world.run(ahead.fetch(ByteRange(0, 10), lambda offset, views: heard.append(offset)))
    assert heard[-1] == 0, "it goes on as the lane it is"
    ahead.pause()
    ahead.resume()
    ahead.drop()  # somebody has it: that closes nothing
    world.run(ahead.fetch(ByteRange(0, 10), lambda offset, views: None))
    ahead.close()


def test_another_span_is_not_what_was_asked(make: Callable[..., World]) -> None:
    world = make()
    ahead = asked(world, holding(world, "a"))
    assert ahead is not None
    assert not ahead.claim(ByteRange(MIB, 2 * MIB), lambda have, given: None)
    assert not ahead.claim(ahead.span, lambda have, given: None), "it is closed"


def test_a_sink_that_refuses_ends_it(make: Callable[..., World]) -> None:
    world = make()
    ahead = asked(world, holding(world, "a"))
    assert ahead is not None
    world.spend(1.0)

    def refuse(offset: int, views: object) -> None:
        raise StorageFull("ENOSPC")

    assert ahead.claim(ahead.span, lambda have, given: None)
    with pytest.raises(StorageFull):
        world.run(ahead.fetch(ahead.span, refuse))


def test_a_fault_is_told_to_who_takes_it_and_to_nobody_else(make: Callable[..., World]) -> None:
    world = make()
    for take in (True, False):
        node = world.peer(f"node{take}", BLOB)
        node.faults.append(Fault.SILENT)
        ahead = asked(world, Holding(node.peer, len(BLOB), None))
        assert ahead is not None
        world.spend(1.0)
        if take:
            assert ahead.claim(ahead.span, lambda have, given: None)
            with pytest.raises(PeerError):
                world.run(ahead.fetch(ahead.span, lambda offset, views: None))
        ahead.drop()
        ahead.close()


def test_the_first_other_holder_of_all_is_asked_for_its_midstates(make: Callable[..., World]) -> None:
    world = make()
    ahead = asked(world, first := holding(world, "a"))
    assert ahead is not None
    for each in (first, holding(world, "b", RangeSet([ByteRange(0, MIB)])), holding(world, "c", size=MIB)):
        ahead.hear(each)
    assert not ahead.lists
    ahead.hear(other := holding(world, "d"))
    ahead.hear(holding(world, "e"))
    assert list(ahead.lists) == [other.peer.id]
    assert isinstance(world.join(ahead.lists.pop(other.peer.id)), Midstates)
    ahead.hear(holding(world, "f"))
    ahead.drop()
    assert not ahead.lists

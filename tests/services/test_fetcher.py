"""The fetcher as its callers know it: one pull for all, right bytes or a clear error, nothing left over."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from twisted.internet.defer import CancelledError

from swarm.core.sources import SourceSettings
from swarm.errors import (
    BlobForbidden,
    BlobMissing,
    Overloaded,
    PullFailed,
    StorageFull,
    StoreFailed,
    SwarmError,
)
from swarm.model.digest import Digest
from swarm.model.filenames import Filename
from swarm.model.peers import PeerID
from swarm.model.ranges import RangeSet
from swarm.services.fetcher import FetchSettings
from swarm.services.pull import PullSettings
from tests.services.world import BLOB, DIGEST, GRAINS, MIB, Growing, World, drain, no_surprises, pattern

# -- one pull for all ---------------------------------------------------------------------


def test_what_is_here_is_read_here(world: World) -> None:
    world.store.put(BLOB)
    assert world.served() == BLOB
    assert world.fetcher.counters.pulls_started == 0


def test_what_is_missing_is_pulled_and_kept(world: World) -> None:
    for name in "abc":
        world.peer(name, BLOB)
    assert world.served() == BLOB
    assert world.store.blobs[DIGEST].data == BLOB
    counters = world.fetcher.counters
    assert (counters.pulls_started, counters.pulls_finished, counters.pulls_failed) == (1, 1, 0)
    assert world.fetcher.pulls() == ()


def test_ten_who_miss_the_same_cause_one_pull(world: World) -> None:
    nodes = [world.peer(name, BLOB) for name in "abc"]
    readers = [world.start(world.read()) for _ in range(10)]
    assert all(world.join(each) == BLOB for each in readers)
    assert world.fetcher.counters.pulls_started == 1
    duplicates = world.fetcher.counters.bytes_duplicated
    assert duplicates <= MIB
    assert sum(node.sent for node in nodes) <= len(BLOB) + duplicates + MIB


@pytest.mark.parametrize("size", [0, 1, 111, MIB - 1, MIB, MIB + 1, 2 * MIB])
def test_every_size_comes_through(make: Callable[..., World], midstates: bool, size: int) -> None:
    world = make(midstates=midstates)
    data = pattern(size)
    world.peer("a", data)
    world.peer("b", data)
    assert world.run(world.read(digest=Digest.of(data))) == data
    world.until(lambda: Digest.of(data) in world.store.blobs)


def test_no_grain_is_rejected_and_nobody_blamed_where_nobody_lies(make: Callable[..., World]) -> None:
    for seed in range(4):
        for midstates in (True, False):
            world = make(midstates=midstates, seed=seed)
            for number in range(4):
                world.peer(f"n{number}", BLOB, rate=MIB * (1 + 4 * number), latency=0.001 * 5**number)
            assert world.served() == BLOB
            counters = world.fetcher.counters
            assert (counters.grains_rejected, counters.proofs) == (0, 0)
            assert counters.bytes_duplicated <= max(MIB, 0.03 * len(BLOB))


@pytest.mark.parametrize("told", [True, False])
def test_who_is_back_is_asked_again_at_once_although_others_deliver(world: World, told: bool) -> None:
    world.peer("slow", BLOB, rate=MIB / 32)
    gone = world.peer("gone", BLOB, rate=MIB / 32)
    world.fetcher.peer_came(gone.peer)  # nothing is pulled
    pulling = world.start(world.fetcher.pull(DIGEST))
    world.fetcher.peer_came(gone.peer)  # nothing is known of the blob yet
    world.until(lambda: gone.sent)
    gone.up = False

    def paused() -> bool:
        pull = world.fetcher._fetches[DIGEST].pull
        assert pull is not None
        return pull._dispatch._table.feeds[gone.peer.id].failures >= 3

    world.until(paused)
    gone.up, gone.rate = True, 8 * MIB
    before = gone.sent
    if told:
        world.fetcher.peer_came(gone.peer)
    world.spend(3)
    assert (gone.sent > before) == told
    assert world.join(pulling).digest == DIGEST


def test_a_pull_waits_for_the_blob_when_asked_to(world: World) -> None:
    world.peer("a", BLOB)
    info = world.run(world.fetcher.pull(DIGEST))
    assert (info.digest, info.size) == (DIGEST, len(BLOB))
    assert world.run(world.fetcher.pull(DIGEST)) == info
    assert world.fetcher.counters.pulls_started == 1


def test_a_blob_that_came_since_the_miss_is_not_pulled(world: World) -> None:
    world.peer("a", BLOB)
    work = world.start(world.read())
    world.store.put(BLOB)  # the store was asked already, and is slow
    assert world.join(work) == BLOB
    waiting = world.start(world.fetcher.pull(DIGEST))
    assert world.join(waiting).size == len(BLOB)
    world.stop()


def test_the_names_of_a_blob_come_with_it(world: World) -> None:
    node = world.peer("a")
    node.store.put(BLOB, "film.mkv")
    world.run(world.fetcher.pull(DIGEST))
    assert [name.text for name in world.store.blobs[DIGEST].names] == ["film.mkv"]


# -- who has it ---------------------------------------------------------------------------


def test_nobody_has_it(world: World) -> None:
    for name in "abc":
        world.peer(name)
    with pytest.raises(BlobMissing):
        world.served()
    assert world.fetcher.counters.pulls_started == world.fetcher.counters.pulls_failed == 0


def test_alone_in_the_world(world: World) -> None:
    with pytest.raises(BlobMissing):
        world.served()


def test_nobody_has_it_and_one_who_might_does_not_answer(world: World) -> None:
    world.peer("a")
    mute = world.peer("mute", up=False, latency=1e6)
    began = world.clock.seconds()
    with pytest.raises(Overloaded):  # 503, not a 404 that nobody can vouch for
        world.served()
    assert world.clock.seconds() - began < 7
    world.leave(mute)
    with pytest.raises(BlobMissing):
        world.served()


def test_a_dead_peer_does_not_delay_what_another_has(world: World) -> None:
    world.peer("dead", up=False, latency=1e6)
    world.peer("a", BLOB, rate=64 * MIB)
    began = world.clock.seconds()
    assert world.served() == BLOB
    assert world.clock.seconds() - began < 1


def test_marked_blobs_are_not_pulled(world: World) -> None:
    world.peer("a", BLOB)
    world.store.markers[DIGEST] = {"403"}
    with pytest.raises(BlobForbidden):
        world.served()
    world.store.markers[DIGEST] = {"404"}
    with pytest.raises(BlobMissing):
        world.served()
    with pytest.raises(BlobMissing):
        world.run(world.fetcher.open_local(DIGEST))
    assert world.fetcher.counters.pulls_started == 0


def test_nothing_is_pulled_for_a_local_reader(world: World) -> None:
    world.peer("a", BLOB)
    with pytest.raises(BlobMissing):
        world.run(world.fetcher.open_local(DIGEST))
    world.store.put(BLOB)
    reader = world.run(world.fetcher.open_local(DIGEST))
    reader.close()
    assert world.fetcher.counters.pulls_started == 0


def test_deleted_blobs_are_not_pulled(world: World) -> None:
    world.peer("a", BLOB)
    world.run(world.store.tombstones.bury(DIGEST, 1))
    with pytest.raises(BlobMissing):
        world.served()
    with pytest.raises(BlobMissing):
        world.run(world.fetcher.pull(DIGEST))
    assert world.store.tombstones.buried(DIGEST) and world.store.blobs == {}


@pytest.mark.parametrize("known", [0, 1])
def test_a_blob_put_again_elsewhere_is_pulled_and_an_older_tombstone_does_not_take_it(
    world: World, known: int
) -> None:
    """Whether this node heard of the deletion or not."""
    holder = world.peer("a", BLOB)
    holder.store.tombstones.known[DIGEST] = (1, False)  # deleted once, and put there since
    if known:
        world.run(world.store.tombstones.bury(DIGEST, 1))
    assert world.served() == BLOB
    assert world.store.tombstones.generation(DIGEST) == 1
    assert not world.store.tombstones.buried(DIGEST)


def test_too_many_pulls_at_once(make: Callable[..., World]) -> None:
    world = make(settings=FetchSettings(pulls_at_once=2))
    blobs = [pattern(MIB, seed) for seed in range(3)]
    world.peer("a", *blobs)
    under_way = [world.start(world.read(digest=Digest.of(each))) for each in blobs[:2]]
    world.spend(0.01)
    with pytest.raises(Overloaded):
        world.run(world.read(digest=Digest.of(blobs[2])))
    assert [world.join(each) for each in under_way] == blobs[:2]
    world.until(lambda: not world.fetcher.pulls())
    assert world.run(world.read(digest=Digest.of(blobs[2]))) == blobs[2]


# -- peers come and go ----------------------------------------------------------------------


def test_a_peer_dies_in_the_middle(world: World) -> None:
    nodes = [world.peer(name, BLOB, rate=MIB) for name in "abc"]
    work = world.start(world.read())
    world.until(lambda: nodes[0].sent > MIB // 2)
    world.leave(nodes[0])
    assert world.join(work) == BLOB


def test_a_peer_that_joins_in_the_middle_takes_its_share(world: World) -> None:
    world.peer("a", BLOB, rate=MIB / 4)
    work = world.start(world.read())
    world.spend(3)
    late = world.peer("late", BLOB, rate=8 * MIB)
    assert world.join(work) == BLOB
    assert late.sent > 2 * MIB


def test_the_only_source_goes_away_and_comes_back(world: World) -> None:
    node = world.peer("a", BLOB, rate=MIB)
    work = world.start(world.read())
    world.spend(2.5)
    node.up = False
    world.spend(4)
    node.up = True
    assert world.join(work) == BLOB


def test_all_sources_go_away_for_good(world: World) -> None:
    node = world.peer("a", BLOB, rate=MIB)
    work = world.start(world.read())
    world.spend(2)
    node.up = False
    began = world.clock.seconds()
    with pytest.raises(PullFailed, match="a: "):
        world.join(work)
    assert world.clock.seconds() - began <= 35
    world.settle()
    assert world.fetcher.counters.pulls_failed == 1


def test_a_source_that_lost_its_copy_is_asked_again(world: World) -> None:
    node = world.peer("a", BLOB, rate=MIB)
    other = world.peer("b", BLOB, rate=MIB / 8)
    work = world.start(world.read())
    world.until(lambda: node.sent > MIB)
    held = node.store.blobs.pop(DIGEST)
    world.spend(3)
    node.store.blobs[DIGEST] = held
    before = node.sent
    assert world.join(work) == BLOB
    assert node.sent > before + MIB
    assert other.sent


def test_the_blob_is_deleted_at_its_only_source(world: World) -> None:
    node = world.peer("a", BLOB, rate=MIB)
    work = world.start(world.read())
    world.until(lambda: node.sent > 2 * MIB)
    del node.store.blobs[DIGEST]
    began = world.clock.seconds()
    with pytest.raises(PullFailed, match="a: "):
        world.join(work)
    assert world.clock.seconds() - began < 10


def test_partial_holders_give_what_they_have_and_more_as_they_grow(world: World) -> None:
    growing = [Growing(BLOB, DIGEST), Growing(BLOB, DIGEST)]
    growing[0].have.add(0, 2 * MIB)
    growing[1].have.add(2 * MIB, 3 * MIB)
    nodes = [world.peer(f"g{n}", serving=each.serving, rate=2 * MIB) for n, each in enumerate(growing)]
    seed = world.peer("seed", BLOB, rate=MIB / 16)
    work = world.start(world.read())
    world.spend(4)
    growing[0].have.add(2 * MIB, 4 * MIB)
    growing[1].have.add(0, len(BLOB))
    assert world.join(work) == BLOB
    assert all(node.sent >= MIB for node in nodes)
    assert seed.sent < 4 * MIB
    world.settle()
    assert Filename.parse("grown.bin") in world.store.blobs[DIGEST].names


def test_who_has_all_is_asked_although_many_that_have_nothing_yet_answered_first(world: World) -> None:
    for number in range(12):
        world.peer(f"g{number}", serving=Growing(BLOB, DIGEST).serving)
    world.peer("seed", BLOB, latency=0.3)
    assert world.served() == BLOB


def test_a_partial_holder_that_has_it_no_more_is_left(world: World) -> None:
    growing = Growing(BLOB, DIGEST)
    growing.have.add(0, len(BLOB) // 2)
    node = world.peer("gone", serving=growing.serving, rate=MIB / 2)
    world.peer("a", BLOB, rate=MIB)
    work = world.start(world.read())
    world.spend(1)
    node.serving = lambda _: None
    assert world.join(work) == BLOB
    assert world.fetcher.counters.proofs == 0


def test_a_running_pull_serves_what_two_vouch_for(make: Callable[..., World]) -> None:
    world = make()
    for name in "ab":
        world.peer(name, BLOB, rate=MIB)
    work = world.start(world.read())
    assert world.fetcher.serving(DIGEST) is None
    world.until(lambda: (view := world.fetcher.serving(DIGEST)) and view.have.total >= 2 * MIB)
    view = world.fetcher.serving(DIGEST)
    assert view is not None and view.info.size == len(BLOB)
    run = view.have.longest()
    assert run is not None
    reader = view.reader()
    assert world.run(drain(reader, run.start, run.stop)) == BLOB[run.start : run.stop]
    reader.close()
    world.join(work)


def test_bytes_of_a_single_source_are_not_passed_on_unproven(
    make: Callable[..., World],
) -> None:
    world = make()
    world.peer("a", BLOB, rate=MIB)
    work = world.start(world.read())
    world.spend(2.5)
    view = world.fetcher.serving(DIGEST)
    assert view is not None
    proven = RangeSet()
    for run in view.have:
        proven.add(run.start, run.stop)
    assert view.have.end_of_run(len(BLOB) - 1) == len(BLOB) or not proven
    world.join(work)


def test_two_nodes_that_pull_from_each_other_and_a_seed_both_end(make: Callable[..., World]) -> None:
    one, other = make(seed=1), make(seed=5)  # seeds that begin with different grains
    other.clock, other.loopback = one.clock, one.loopback
    other.store = type(one.store)(one.clock, one.store.sha512)
    other.us = one.loopback.add("other", other.store)
    other.client = type(one.client)(one.loopback, other.us.peer, other.us.cluster)
    other.client.lanes = []
    other.boot()
    one.us.rate = other.us.rate = 8 * MIB
    one.us.serving, other.us.serving = one.fetcher.serving, other.fetcher.serving
    for name in ("s1", "s2"):
        seed = one.peer(name, BLOB, rate=MIB / 4)
        other.peers.append(seed.peer)
    one.peers.append(other.us.peer)
    other.peers.append(one.us.peer)
    works = [one.start(one.fetcher.pull(DIGEST)), one.start(other.fetcher.pull(DIGEST))]
    assert [one.join(each).size for each in works] == [len(BLOB)] * 2
    assert one.us.sent + other.us.sent >= MIB
    assert one.fetcher.counters.proofs == other.fetcher.counters.proofs == 0


# -- it does not end well, or not yet -------------------------------------------------------


def test_no_room_for_it(world: World) -> None:
    world.peer("a", BLOB)
    world.store.quota = MIB
    with pytest.raises(StorageFull):
        world.served()
    world.store.quota = None
    assert world.served() == BLOB


def test_a_failing_disk_ends_the_pull_for_all_and_what_was_journaled_is_of_use(world: World) -> None:
    node = world.peer("a", BLOB, rate=MIB)
    works = [world.start(world.read()) for _ in range(3)]
    world.spend(4.5)
    world.store.disk_error = lambda: StoreFailed("EIO")
    for work in works:
        with pytest.raises(StoreFailed):
            world.join(work)
    lanes = len(world.client.lanes)
    world.spend(1)
    assert len(world.client.lanes) == lanes, "it went on asking"
    world.store.disk_error = None
    assert world.store.pulls[DIGEST].records
    before = node.sent
    assert world.served() == BLOB
    assert node.sent - before < len(BLOB)
    assert world.fetcher.counters.bytes_resumed >= MIB


def test_a_disk_that_fills_up_at_a_checkpoint(world: World) -> None:
    node = world.peer("a", BLOB, rate=MIB)
    work = world.start(world.read())
    world.until(lambda: world.store.partials and world.store.partials[0]._pending)
    node.rate = 1.0  # nothing is written but the journal
    world.store.disk_error = lambda: StorageFull("ENOSPC")
    with pytest.raises(StorageFull):
        world.join(work)
    world.store.disk_error = None


def test_a_disk_that_fails_as_it_is_hashed(world: World) -> None:
    world.peer("a", BLOB)
    world.store.broken_reads = lambda: StoreFailed("EIO")
    with pytest.raises(StoreFailed):
        world.served()
    world.store.broken_reads = None


def test_a_disk_that_fails_as_the_whole_is_hashed(make: Callable[..., World]) -> None:
    world = make(midstates=False)
    world.store.pace["hash all"] = 5.0
    world.peer("a", BLOB, rate=64 * MIB)
    work = world.start(world.fetcher.pull(DIGEST))
    world.spend(3)
    world.store.broken_reads = lambda: StoreFailed("EIO")
    with pytest.raises(StoreFailed):
        world.join(work)
    world.store.broken_reads = None


def test_a_disk_that_fails_as_it_publishes(make: Callable[..., World]) -> None:
    world = make()
    world.store.pace["publish"] = 5.0
    world.peer("a", BLOB)
    work = world.start(world.fetcher.pull(DIGEST))
    world.until(lambda: any(each.state == "publishing" for each in world.fetcher.pulls()))
    world.store.disk_error = lambda: StoreFailed("EIO")
    with pytest.raises(StoreFailed):
        world.join(work)
    world.store.disk_error = None
    world.store.pace.clear()
    assert world.served() == BLOB


def test_a_client_that_leaves_changes_nothing_for_the_others(world: World) -> None:
    world.peer("a", BLOB, rate=MIB)
    leaving = [world.start(world.read()) for _ in range(3)]
    staying = world.start(world.read())
    leaving[0].cancel()  # before anybody was asked
    world.spend(0.5)
    leaving[1].cancel()
    world.spend(3)
    leaving[2].cancel()
    for each in leaving:
        with pytest.raises(CancelledError):
            world.join(each)
    assert world.join(staying) == BLOB


def test_a_pull_that_nobody_reads_any_more_goes_on(world: World) -> None:
    world.peer("a", BLOB, rate=MIB)
    work = world.start(world.read())
    world.spend(1)
    work.cancel()
    with pytest.raises(CancelledError):
        world.join(work)
    world.until(lambda: DIGEST in world.store.blobs)


def test_stopping_ends_readers_and_keeps_what_was_verified(world: World) -> None:
    node = world.peer("a", BLOB, rate=MIB)
    work = world.start(world.read())
    world.spend(4.2)
    world.run(world.fetcher.stop())
    with pytest.raises(Overloaded):
        world.join(work)
    with pytest.raises(Overloaded):
        world.served()
    records = len(world.store.pulls[DIGEST].records)
    assert records >= 3
    world.stop()
    world.boot()
    before = node.sent
    world.run(world.fetcher.resume_unfinished())
    assert world.store.blobs[DIGEST].data == BLOB
    assert node.sent - before <= len(BLOB) - (records - 1) * MIB


def test_stopping_while_holders_are_searched(world: World) -> None:
    world.peer("slow", latency=60)
    work = world.start(world.read())
    world.spend(0.1)
    world.run(world.fetcher.stop())
    with pytest.raises(Overloaded):
        world.join(work)


def test_stopping_the_tasks_alone_tells_those_who_wait(make: Callable[..., World]) -> None:
    world = make()
    world.peer("slow", latency=60)
    work = world.start(world.read())
    world.spend(0.1)
    world.run(world.tasks.stop())
    with pytest.raises(Overloaded):
        world.join(work)


def test_stopping_the_tasks_alone_tells_readers_too(world: World) -> None:
    world.peer("a", BLOB, rate=MIB)
    work = world.start(world.read())
    world.spend(1.5)
    world.run(world.tasks.stop())
    with pytest.raises(Overloaded):
        world.join(work)


@pytest.mark.parametrize("where", ["search", "pull"])
def test_an_error_of_our_own_is_told_to_who_waits(where: str) -> None:
    world = World()
    world.peer("a", BLOB)
    if where == "search":
        world.peers = None  # type: ignore[assignment] # a bug
    else:
        world.dispatch = None  # type: ignore[assignment] # another
        world.boot()
    with pytest.raises(AssertionError, match="Error"), no_surprises(), pytest.raises(SwarmError):
        world.served()
    world.store.partials.clear()
    world.stop()


# -- resuming -----------------------------------------------------------------------------------


def test_a_killed_node_fetches_again_only_what_was_not_journaled(world: World) -> None:
    node = world.peer("a", BLOB, rate=MIB)
    world.start(world.read()).addErrback(lambda _: None)
    world.spend(4.8)
    world.kill()
    kept = sum(GRAINS.length(grain) for grain in world.store.pulls[DIGEST].records)
    assert kept >= MIB
    before = node.sent
    world.run(world.fetcher.resume_unfinished())
    assert world.store.blobs[DIGEST].data == BLOB
    assert node.sent - before == len(BLOB) - kept
    assert world.fetcher.counters.bytes_resumed == kept
    assert world.fetcher.counters.pulls_resumed == 1


def test_a_journaled_grain_that_the_disk_lost_is_fetched_again(world: World) -> None:
    node = world.peer("a", BLOB, rate=MIB)
    world.start(world.read()).addErrback(lambda _: None)
    world.spend(4.8)
    world.run(world.fetcher.stop())
    world.stop()
    world.boot()
    grain = min(world.store.pulls[DIGEST].records)
    world.store.pulls[DIGEST].data[GRAINS.start(grain)] ^= 1
    before = node.sent
    world.run(world.fetcher.resume_unfinished())
    assert world.store.blobs[DIGEST].data == BLOB
    assert node.sent - before >= MIB
    assert world.fetcher.counters.proofs == 0, "our own disk convicts nobody"


def test_a_journaled_grain_that_cannot_be_read_is_fetched_again(world: World) -> None:
    world.peer("a", BLOB, rate=MIB)
    world.start(world.read()).addErrback(lambda _: None)
    world.spend(4.8)
    world.kill()
    world.store.broken_reads = lambda: StoreFailed("EIO")
    resuming = world.start(world.fetcher.resume_unfinished())
    world.until(lambda: world.store.partials)
    world.spend(0.01)
    world.store.broken_reads = None
    world.join(resuming)
    assert world.store.blobs[DIGEST].data == BLOB


def test_a_dead_left_over_does_not_hold_up_the_others(world: World) -> None:
    lost, found = pattern(MIB, 7), pattern(MIB, 8)
    for data in (lost, found):
        partial = world.run(world.store.partial(Digest.of(data), len(data)))
        partial.close()
    dead = world.peer("dead", lost)
    dead.rate = 0.001
    world.peer("a", found)
    resuming = world.start(world.fetcher.resume_unfinished())
    world.until(lambda: Digest.of(found) in world.store.blobs, limit=5)
    assert not resuming.called
    dead.rate = MIB
    world.join(resuming, 200)
    assert Digest.of(lost) in world.store.blobs


def test_left_overs_are_tried_again_until_somebody_has_them(world: World) -> None:
    partial = world.run(world.store.partial(DIGEST, len(BLOB)))
    partial.close()
    resuming = world.start(world.fetcher.resume_unfinished())
    world.spend(120)
    world.peer("a", BLOB)
    world.join(resuming, 40)
    assert DIGEST in world.store.blobs


def test_a_left_over_that_was_deleted_meanwhile_is_dropped(world: World) -> None:
    partial = world.run(world.store.partial(DIGEST, len(BLOB)))
    partial.close()
    world.peer("a", BLOB)
    world.run(world.store.tombstones.bury(DIGEST, 1))
    world.run(world.fetcher.resume_unfinished())
    assert world.store.pulls == {} and world.store.blobs == {}


def test_a_left_over_of_another_size_is_begun_anew(world: World) -> None:
    partial = world.run(world.store.partial(DIGEST, 17))
    partial.close()
    world.peer("a", BLOB)
    world.run(world.fetcher.resume_unfinished())
    assert world.store.blobs[DIGEST].data == BLOB


# -- deleting ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("when", [0.0005, 0.0025, 0.05, 2.5, 4.9])
def test_a_blob_deleted_while_it_is_pulled_stays_away(world: World, when: float) -> None:
    world.peer("a", BLOB, rate=MIB)
    work = world.start(world.read())
    world.spend(when)
    world.run(world.store.tombstones.bury(DIGEST, 1))
    world.run(world.fetcher.forget(DIGEST))
    with pytest.raises(BlobMissing, match="deleted"):
        world.join(work)
    assert world.store.pulls == {}
    world.spend(30)
    assert world.store.blobs == {}
    assert world.fetcher.counters.pulls_failed == 0


def test_a_blob_deleted_while_its_file_is_made(world: World) -> None:
    world.store.pace["partial"] = 1.0
    world.peer("a", BLOB)
    work = world.start(world.read())
    world.until(lambda: (fetch := world.fetcher._fetches.get(DIGEST)) and fetch._searched)
    world.spend(0.2)
    world.run(world.fetcher.forget(DIGEST))
    with pytest.raises(BlobMissing):
        world.join(work)
    assert world.store.pulls == {}


def test_a_blob_deleted_as_it_is_published_is_gone_or_there_to_be_deleted(make: Callable[..., World]) -> None:
    world = make()
    world.store.pace["publish"] = 5.0
    world.peer("a", BLOB)
    work = world.start(world.fetcher.pull(DIGEST))
    world.until(lambda: any(each.state == "publishing" for each in world.fetcher.pulls()))
    world.run(world.fetcher.forget(DIGEST))
    with pytest.raises(BlobMissing):
        world.join(work)
    world.spend(30)
    assert world.store.blobs == {} and world.store.pulls == {}


def test_forgetting_what_is_not_pulled_is_done_at_once(world: World) -> None:
    assert world.start(world.fetcher.forget(DIGEST)).called


# -- watching --------------------------------------------------------------------------------------


def test_progress_names_the_sources_and_what_they_gave(make: Callable[..., World]) -> None:
    world = make()
    nodes = [world.peer(name, BLOB, rate=MIB) for name in "ab"]
    assert world.fetcher.progress(DIGEST) is None
    work = world.start(world.read())
    world.until(lambda: (p := world.fetcher.progress(DIGEST)) and p.verified >= 2 * MIB)
    progress = world.fetcher.progress(DIGEST)
    assert progress is not None
    assert progress.size == len(BLOB) and progress.state == "pulling" and not progress.resumed
    assert {each.name for each in progress.sources} == {"a", "b"}
    assert sum(each.bytes for each in progress.sources) <= sum(node.sent for node in nodes)
    assert world.fetcher.pulls() == (progress,)
    world.join(work)
    world.settle()
    assert world.fetcher.progress(DIGEST) is None


def test_settings_have_sense() -> None:
    settings = FetchSettings()
    assert settings.pull == PullSettings()
    assert settings.pull.parole_patience < settings.pull.patience


# -- just started --------------------------------------------------------------------------


def test_what_nobody_has_yet_is_looked_for_again_once_the_peers_are_met(make: Callable[..., World]) -> None:
    world = make()
    world.meeting = 2.0
    reading = world.start(world.read())
    world.spend(1)
    world.peer("late", BLOB)
    assert world.join(reading) == BLOB


def test_peers_that_are_not_met_in_time_are_not_waited_for(make: Callable[..., World]) -> None:
    world = make()
    world.meeting = 1000.0
    began = world.clock.seconds()
    with pytest.raises(BlobMissing):
        world.served()
    assert world.clock.seconds() - began < 10


def test_slow_sources_are_joined_by_more() -> None:
    world = World(settings=FetchSettings(sources=SourceSettings(most_active=2)))
    for number in range(6):
        world.peer(f"p{number}", BLOB, rate=MIB / 4)
    work = world.start(world.fetcher.pull(DIGEST))

    def taking() -> int:
        progress = world.fetcher.progress(DIGEST)
        return len(progress.sources) if progress else 0

    world.until(lambda: taking() == 2)
    world.until(lambda: taking() == 6)
    assert world.join(work).size == len(BLOB)
    world.stop()


def test_only_so_many_sources_at_once_and_another_when_one_is_lost() -> None:
    world = World(settings=FetchSettings(sources=SourceSettings(most_active=3, most_widened=3)))
    nodes = {node.peer.id: node for node in [world.peer(f"p{n}", BLOB, rate=MIB) for n in range(6)]}
    work = world.start(world.fetcher.pull(DIGEST))

    def taking() -> set[PeerID]:
        progress = world.fetcher.progress(DIGEST)
        return {each.peer_id for each in progress.sources if each.state != "gone"} if progress else set()

    world.until(lambda: len(taking()) >= 3)
    assert len(taking()) == 3
    lost = min(taking())
    nodes[lost].tamper = lambda start, data: bytes(len(data))  # convicted, and out
    world.until(lambda: len(taking() - {lost}) == 3)
    assert world.join(work).size == len(BLOB)
    world.stop()

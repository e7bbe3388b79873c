"""What a node that is pulling gives to its peers, and what it makes of what they say they have by now."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from attrs import define, field, frozen

from swarm.core.dispatch import DispatchSettings
from swarm.errors import LocalError, PullFailed, StoreFailed
from swarm.interfaces import BlobInfo, ILane, untold
from swarm.model.digest import Digest
from swarm.model.peers import Peer
from swarm.model.ranges import ByteRange, RangeSet
from swarm.services.passing import PassingReader
from swarm.services.settings import FetchSettings
from swarm.testing.contracts import at_once, refused
from swarm.testing.loopback import LoopbackNode
from tests.services.world import BLOB, DIGEST, MIB, Growing, World, drain, flipping

FIRST = RangeSet([ByteRange(0, 3 * MIB)])
BAD = flipping()(0, BLOB[:MIB]) + flipping()(0, BLOB[MIB : 2 * MIB]) + BLOB[2 * MIB :]


@define(eq=False)
class Pulling:
    """As much of a pull as its reader needs."""

    verified: RangeSet = field(factory=RangeSet)
    error: LocalError | None = None
    left: list[object] = field(factory=list)
    blocking: bool = False
    info: BlobInfo = field(factory=lambda: BlobInfo(DIGEST, len(BLOB)))

    def verified_to(self, offset: int) -> int:
        return self.verified.end_of_run(offset)

    def read_now(self, offset: int, length: int) -> bytes | None:
        return None if self.blocking else BLOB[offset : offset + length]

    async def read(self, offset: int, length: int) -> bytes:
        return BLOB[offset : offset + length]

    def leave(self, reader: object) -> None:
        self.left.append(reader)


def test_what_is_accepted_is_passed_on_to_its_end() -> None:
    pull = Pulling(FIRST)
    reader = PassingReader(pull)
    assert at_once(drain(reader, 5, 3 * MIB)) == BLOB[5 : 3 * MIB]
    assert reader.read_now(0, 7) == BLOB[:7] and reader.fileno() == -1
    assert at_once(reader.available(9, 9)) == 9
    reader.close()
    reader.close()
    assert pull.left == [reader]


def test_what_is_not_there_is_not_waited_for() -> None:
    reader = PassingReader(Pulling(FIRST))
    assert at_once(reader.available(2 * MIB, 4 * MIB)) == 3 * MIB
    at_once(refused(PullFailed, reader.available(3 * MIB, 4 * MIB)))


@pytest.mark.parametrize("blocking", [False, True])
def test_an_answer_that_touches_what_is_taken_back_breaks_off(blocking: bool) -> None:
    reader, other = PassingReader(Pulling(FIRST, blocking=blocking)), PassingReader(Pulling(FIRST))
    at_once(reader.available(MIB, 3 * MIB))
    at_once(other.available(0, MIB))
    for each in (reader, other):
        each.taken_back(ByteRange(2 * MIB, 3 * MIB))
    assert at_once(drain(other, 0, MIB)) == BLOB[:MIB]
    with pytest.raises(PullFailed, match="proved wrong"):
        reader.read_now(MIB, 10)
    at_once(refused(PullFailed, reader.read(MIB, 10)))
    at_once(refused(PullFailed, reader.available(3 * MIB, 3 * MIB)))


def test_a_pull_that_failed_passes_nothing_on() -> None:
    at_once(refused(StoreFailed, PassingReader(Pulling(FIRST, error=StoreFailed("EIO"))).available(0, 1)))


# -- of a whole pull ----------------------------------------------------------------------------


def test_with_a_single_seed_every_accepted_grain_is_passed_on(make: Callable[..., World]) -> None:
    """Not only those that are proven, from the end on."""
    world = make()
    world.peer("seed", BLOB, rate=MIB)
    work = world.start(world.read(0, MIB))
    told: list[RangeSet] = []

    def passes_on_the_first_grain() -> bool:
        view = world.fetcher.serving(DIGEST)
        if view is not None and (not told or told[-1] is not view.have):
            assert view.have not in told[-1:], "told anew only when it has changed"
            told.append(view.have)
        return bool(told) and told[-1].covers(0, MIB)

    world.until(passes_on_the_first_grain)
    assert not told[-1].covers(MIB, len(BLOB))
    view = world.fetcher.serving(DIGEST)
    assert view is not None
    reader = view.reader()
    assert world.run(drain(reader, 0, MIB)) == BLOB[:MIB]
    reader.close()
    world.join(work)
    world.settle()


def loses_its_copy(node: LoopbackNode, data: bytes, have: RangeSet) -> None:
    """Set aside as damaged; pulled anew, from a liar."""
    del node.store.blobs[DIGEST]
    node.serving = Growing(data, DIGEST, have).serving


@frozen
class _Deaf:
    """A client as it was: what answers tell is not heard."""

    world: World
    lane_of: Callable[..., ILane]

    def lane(self, peer: Peer, digest: Digest, size: int, told: object) -> ILane:
        return self.lane_of(peer, digest, size, untold)


@pytest.mark.parametrize("deaf", [False, True])
def test_a_holder_that_lost_the_blob_and_passes_on_lies_is_not_framed(
    make: Callable[..., World], monkeypatch: pytest.MonkeyPatch, deaf: bool
) -> None:
    """Nor would it be known for a relay in time without what its answers tell: nobody asks it meanwhile."""
    world = make(settings=FetchSettings(search_every=1000.0))
    turncoat, slow = world.peer("turncoat", BLOB), world.peer("slow", BLOB, rate=MIB / 8)
    if deaf:
        monkeypatch.setattr(world.client, "lane", _Deaf(world, world.client.lane).lane)
    turncoat.rate = MIB
    work = world.start(world.fetcher.pull(DIGEST))
    world.until(lambda: turncoat.sent > 0)
    everything = RangeSet([ByteRange(0, len(BLOB))])
    loses_its_copy(turncoat, bytes(byte ^ 1 for byte in BLOB[: 5 * MIB]) + BLOB[5 * MIB :], everything)
    world.join(work)
    world.settle()
    framed = [peer for peer in world.standing.on_record() if peer != slow.peer.id]
    assert framed == ([turncoat.peer.id] if deaf else [])
    assert world.store.blobs[DIGEST].data == BLOB
    assert world.fetcher.counters.grains_rejected, "it did send lies"


def test_a_relay_that_was_deceived_is_suspended_and_comes_back(make: Callable[..., World]) -> None:
    world = make(dispatch=DispatchSettings(strikes=100))
    relay = Growing(BAD, DIGEST, RangeSet([ByteRange(0, 4 * MIB)]))
    deceived = world.peer("deceived", serving=relay.serving)
    world.peer("seed", BLOB, rate=MIB / 8)
    work = world.start(world.fetcher.pull(DIGEST))
    world.until(lambda: world.fetcher.counters.grains_rejected)
    sent = deceived.sent
    world.spend(5)
    assert deceived.sent <= sent + 2 * MIB, "what was under way"
    relay.have.remove(0, 2 * MIB)  # it found out
    relay.data = BLOB
    sent = deceived.sent
    world.until(lambda: deceived.sent > sent)
    world.join(work)
    world.settle()
    assert world.standing.on_record() == ()


def test_what_a_relay_has_gained_is_known_with_its_next_answer(make: Callable[..., World]) -> None:
    world = make(settings=FetchSettings(search_every=1000.0))
    relay = Growing(BLOB, DIGEST, RangeSet([ByteRange(0, MIB)]))
    growing = world.peer("growing", serving=relay.serving)
    seed = world.peer("seed", BLOB, rate=MIB / 64)
    work = world.start(world.fetcher.pull(DIGEST))
    world.until(lambda: world.fetcher.serving(DIGEST) is not None)
    relay.have.add(0, 5 * MIB)
    world.join(work)
    assert growing.sent > 4 * MIB > seed.sent
    world.settle()


def test_a_relay_that_is_complete_by_now_is_asked_for_its_list(make: Callable[..., World]) -> None:
    """The only list there is: the seed's peer port has none, and both were asked what they hold once."""
    world = make(settings=FetchSettings(search_every=1000.0))
    relay = Growing(BLOB, DIGEST, RangeSet([ByteRange(0, MIB)]))
    grown = world.peer("grown", serving=relay.serving)
    world.peer("seed", BLOB, rate=MIB / 8)
    work = world.start(world.fetcher.pull(DIGEST))
    world.until(lambda: world.fetcher.serving(DIGEST) is not None)
    grown.store.put(BLOB)
    fetch = world.fetcher._fetches[DIGEST]
    world.until(lambda: fetch.pull is not None and fetch.pull._proving.trust.agreed)
    world.join(work)
    world.settle()

"""Whatever liars do, one honest holder is enough, the liars are found, and nobody else is blamed."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import pytest

from swarm.core.evidence import Proof
from swarm.errors import BlobMissing, Fault, Overloaded, PullFailed
from swarm.model.digest import Digest
from swarm.services.fetcher import FetchSettings
from swarm.testing.loopback import LoopbackNode
from tests.services.world import (
    BLOB,
    DIGEST,
    GRAINS,
    MIB,
    Growing,
    World,
    flipping,
    listing,
    pattern,
    replacing,
    stalling_after,
    wrong_after,
)

OTHER = pattern(len(BLOB), 99)


def flips_everywhere(node: LoopbackNode) -> None:
    node.tamper = flipping()


def flips_the_last_grain(node: LoopbackNode) -> None:
    node.tamper = flipping(GRAINS.last)


def flips_two_grains(node: LoopbackNode) -> None:
    node.tamper = flipping(0, 3)


def lists_a_wrong_value(node: LoopbackNode) -> None:
    node.forge_midstates = wrong_after(3)


def lists_a_wrong_last_value(node: LoopbackNode) -> None:
    node.forge_midstates = wrong_after(GRAINS.last)


def lists_another_blob(node: LoopbackNode) -> None:
    node.forge_midstates = listing(OTHER)


def is_another_blob_with_its_list(node: LoopbackNode) -> None:
    node.forge_midstates = listing(OTHER)
    node.tamper = replacing(OTHER)


def differs_in_the_middle_with_its_list(node: LoopbackNode) -> None:
    middle = BLOB[: 2 * MIB] + b"?" + BLOB[2 * MIB + 1 :]
    node.forge_midstates = listing(middle)
    node.tamper = replacing(middle)


def truncates(node: LoopbackNode) -> None:
    node.breaks_after = MIB // 3


def breaks_at_once(node: LoopbackNode) -> None:
    node.breaks_after = 0


def stalls(node: LoopbackNode) -> None:
    node.tamper = stalling_after(node, MIB // 2)


def never_begins(node: LoopbackNode) -> None:
    node.rate = 0.001


def refuses(node: LoopbackNode) -> None:
    node.faults = deque([Fault.REFUSED] * 1000)


def is_busy(node: LoopbackNode) -> None:
    node.faults = deque([Fault.BUSY] * 1000)


def has_not_what_it_says(node: LoopbackNode) -> None:
    node.faults = deque([Fault.MISSING] * 1000)


def answers_the_whole(node: LoopbackNode) -> None:
    node.faults = deque([Fault.WRONG_RANGE] * 1000)


def claims_more(node: LoopbackNode) -> None:
    node.claims_size = len(BLOB) + MIB


def claims_less(node: LoopbackNode) -> None:
    node.claims_size = len(BLOB) // 2


def claims_nothing(node: LoopbackNode) -> None:
    node.claims_size = 0


LIARS = [
    flips_everywhere,
    flips_the_last_grain,
    flips_two_grains,
    lists_a_wrong_value,
    lists_a_wrong_last_value,
    lists_another_blob,
    is_another_blob_with_its_list,
    differs_in_the_middle_with_its_list,
]
FAILING = [
    truncates,
    breaks_at_once,
    stalls,
    never_begins,
    refuses,
    is_busy,
    has_not_what_it_says,
    answers_the_whole,
    claims_more,
    claims_less,
    claims_nothing,
]


def blamed(world: World) -> set[str]:
    names = {node.peer.id: node.peer.name for node in world.loopback.nodes.values()}
    return {names[peer] for peer in world.standing.on_record()}


def advised(world: World) -> set[str]:
    return {node.peer.name for node in world.loopback.nodes.values() if node.reports}


@pytest.mark.parametrize("lie", LIARS, ids=lambda lie: lie.__name__)
@pytest.mark.parametrize("count", [1, 3])
def test_one_honest_peer_among_liars_is_enough(
    make: Callable[..., World], midstates: bool, lie: Callable[[LoopbackNode], None], count: int
) -> None:
    world = make(midstates=midstates, seed=count)
    for number in range(count):
        lie(world.peer(f"liar{number}", BLOB, rate=4 * MIB))
    honest = world.peer("honest", BLOB, rate=MIB)
    world.run(world.fetcher.pull(DIGEST))
    assert world.store.blobs[DIGEST].data == BLOB
    world.spend(1)
    assert "honest" not in blamed(world) and not honest.reports
    assert blamed(world) == advised(world)
    in_lists_only = lie in (lists_a_wrong_value, lists_a_wrong_last_value, lists_another_blob)
    if midstates:
        assert blamed(world), "nobody was found"
    elif in_lists_only:
        assert not blamed(world), "nobody asked for a list"


@pytest.mark.parametrize("fail", FAILING, ids=lambda fail: fail.__name__)
@pytest.mark.parametrize("count", [1, 3])
def test_one_good_peer_among_bad_ones_is_enough_and_nobody_is_convicted(
    make: Callable[..., World], midstates: bool, fail: Callable[[LoopbackNode], None], count: int
) -> None:
    world = make(midstates=midstates, seed=count)
    for number in range(count):
        fail(world.peer(f"bad{number}", BLOB, rate=4 * MIB))
    world.peer("good", BLOB, rate=MIB)
    began = world.clock.seconds()
    world.run(world.fetcher.pull(DIGEST))
    assert world.store.blobs[DIGEST].data == BLOB
    assert blamed(world) == set()
    assert world.clock.seconds() - began < 40
    assert world.fetcher.counters.grains_rejected == 0


@pytest.mark.parametrize("lie", [*LIARS, *FAILING], ids=lambda lie: lie.__name__)
def test_where_all_lie_it_fails_clearly_and_in_time(
    make: Callable[..., World], midstates: bool, lie: Callable[[LoopbackNode], None]
) -> None:
    world = make(midstates=midstates)
    for name in ("x", "y"):
        lie(world.peer(name, BLOB, rate=4 * MIB))
    began = world.clock.seconds()
    try:
        world.run(world.fetcher.pull(DIGEST), limit=100)
    except PullFailed as e:
        assert e.reasons, "it does not say why"
    except BlobMissing:
        assert lie is claims_nothing
    else:
        assert world.store.blobs[DIGEST].data == BLOB
    assert world.clock.seconds() - began < 70


@pytest.mark.parametrize("seed", range(6))
def test_a_mixed_company(make: Callable[..., World], midstates: bool, seed: int) -> None:
    world = make(midstates=midstates, seed=seed)
    kinds = world.random.sample([*LIARS, *FAILING], 5)
    for number, lie in enumerate(kinds):
        lie(world.peer(f"bad{number}", BLOB, rate=MIB * world.random.choice([1, 4, 16])))
    for name in ("good1", "good2"):
        world.peer(name, BLOB, rate=2 * MIB)
    world.run(world.fetcher.pull(DIGEST))
    assert world.store.blobs[DIGEST].data == BLOB
    assert not blamed(world) & {"good1", "good2"}


def test_answers_that_would_be_the_same_again_are_not_waited_for(
    make: Callable[..., World], midstates: bool
) -> None:
    world = make(midstates=midstates)
    for name in ("x", "y"):
        answers_the_whole(world.peer(name, BLOB))
    began = world.clock.seconds()
    with pytest.raises(PullFailed, match="wrong range"):
        world.run(world.fetcher.pull(DIGEST))
    assert world.clock.seconds() - began < 6


def test_a_busy_peer_is_left_alone_for_as_long_as_it_asked(make: Callable[..., World]) -> None:
    world = make()
    node, asked = world.peer("a", BLOB), list[float]()
    begun = world.clock.seconds()

    def busy_at_first(method: str) -> None:
        now = world.clock.seconds()
        if now - begun > 0.05:  # earlier it is asked whether it has the blob
            asked.append(now)
            if len(asked) == 1:
                raise Overloaded("too many uploads", 20)

    node.store.check_allowed = busy_at_first  # type: ignore[method-assign] # before every answer
    world.run(world.fetcher.pull(DIGEST))
    assert asked[1] - asked[0] >= 20
    assert blamed(world) == set()


# -- what becomes of the convicted ---------------------------------------------------------------


def test_a_convicted_peer_is_not_asked_for_the_blob_again_until_it_had_time_to_heal(
    make: Callable[..., World],
) -> None:
    world = make(settings=FetchSettings(probation_after=100.0))
    liar = world.peer("liar", BLOB, rate=8 * MIB, tamper=flipping())
    world.peer("honest", BLOB, rate=MIB)
    world.run(world.fetcher.pull(DIGEST))
    assert blamed(world) == {"liar"}
    world.spend(1)
    del world.store.blobs[DIGEST]
    before = liar.sent
    world.run(world.fetcher.pull(DIGEST))
    assert liar.sent == before
    world.spend(100)
    del world.store.blobs[DIGEST]
    liar.tamper = lambda _, data: data
    world.run(world.fetcher.pull(DIGEST))
    assert liar.sent > before


def test_a_convicted_peer_that_cannot_be_told_stays_out(make: Callable[..., World]) -> None:
    world = make(settings=FetchSettings(probation_after=100.0))
    liar = world.peer("liar", BLOB, rate=8 * MIB, tamper=flipping())
    world.peer("honest", BLOB, rate=MIB / 4)
    work = world.start(world.fetcher.pull(DIGEST))

    def convict_and_vanish(offset: int, data: bytes) -> bytes:
        if (offset + len(data)) in (len(BLOB), (offset // MIB + 1) * MIB):
            liar.up = False
        return b"?" * len(data)

    liar.tamper = convict_and_vanish
    world.join(work)
    world.spend(300)
    assert blamed(world) == {"liar"}
    assert world.standing.barred(liar.peer.id, DIGEST, world.clock.seconds())


def test_who_lied_about_one_blob_is_asked_for_others(make: Callable[..., World]) -> None:
    world = make()
    second = pattern(2 * MIB, 5)
    liar = world.peer("liar", BLOB, second, rate=8 * MIB, tamper=flipping())
    world.peer("honest", BLOB, rate=MIB)
    world.run(world.fetcher.pull(DIGEST))
    liar.tamper = lambda _, data: data
    assert world.run(world.read(digest=Digest.of(second))) == second


# -- lists ------------------------------------------------------------------------------------------


def without_list(node: LoopbackNode) -> None:
    """A plain HTTP server, say: bytes, but no midstates."""
    node.store.midstates = _none  # type: ignore[method-assign,assignment] # to be as if it could not


async def _none(digest: Digest) -> None:
    return None


def test_where_nobody_has_midstates_the_whole_is_proven(make: Callable[..., World], said: list[str]) -> None:
    world = make()
    for name in "abc":
        without_list(world.peer(name, BLOB, rate=MIB))
    assert world.served() == BLOB
    assert any("proven as a whole" in each for each in said)


def test_where_nobody_has_midstates_liars_are_found_too(make: Callable[..., World]) -> None:
    world = make()
    for name in ("liar1", "liar2"):
        node = world.peer(name, BLOB, rate=4 * MIB, tamper=flipping())
        without_list(node)
    without_list(world.peer("honest", BLOB, rate=MIB))
    world.run(world.fetcher.pull(DIGEST))
    assert world.store.blobs[DIGEST].data == BLOB
    assert blamed(world) == {"liar1", "liar2"}


def test_a_list_is_asked_of_others_when_the_first_have_none(make: Callable[..., World]) -> None:
    world = make()
    for name in "abcd":
        without_list(world.peer(name, BLOB, rate=MIB))
    world.peer("listed", BLOB, rate=MIB)
    assert world.served() == BLOB
    assert world.fetcher.counters.grains_verified >= GRAINS.count


def test_resumed_grains_count_also_when_nobody_has_midstates_any_more(make: Callable[..., World]) -> None:
    world = make()
    node = world.peer("a", BLOB, rate=MIB)
    world.start(world.read()).addErrback(lambda _: None)
    world.spend(4.5)
    world.kill()
    assert world.store.pulls[DIGEST].records
    without_list(node)
    before = node.sent
    world.run(world.fetcher.resume_unfinished())
    assert world.store.blobs[DIGEST].data == BLOB
    assert node.sent - before < len(BLOB)


def test_a_long_hash_of_the_whole_is_not_taken_for_silence(make: Callable[..., World]) -> None:
    world = make(midstates=False)
    world.store.pace["hash all"] = 500.0
    world.peer("a", BLOB)
    world.run(world.fetcher.pull(DIGEST), limit=1000)
    assert world.store.blobs[DIGEST].data == BLOB


def test_partial_holders_alone_end_in_a_clear_failure(make: Callable[..., World]) -> None:
    world = make()
    growing = Growing(BLOB, DIGEST)
    growing.have.add(0, 3 * MIB)
    world.peer("partial", serving=growing.serving)
    with pytest.raises(PullFailed):
        world.run(world.fetcher.pull(DIGEST))


def test_a_slow_hash_holds_the_peers_back_and_blames_nobody(
    make: Callable[..., World], midstates: bool
) -> None:
    world = make(midstates=midstates, unhashed_limit=MIB)
    world.store.pace["hash"] = 10.0
    for name in "ab":
        world.peer(name, BLOB, rate=8 * MIB)
    world.run(world.fetcher.pull(DIGEST), limit=1000)
    assert world.store.blobs[DIGEST].data == BLOB
    assert world.fetcher.counters.spans_aborted == 0
    assert world.fetcher.counters.proofs == 0


# -- sizes -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lie", [claims_more, claims_less, claims_nothing])
def test_a_reader_is_never_promised_a_disputed_size(
    make: Callable[..., World], midstates: bool, lie: Callable[[LoopbackNode], None]
) -> None:
    world = make(midstates=midstates)
    for name in ("liar1", "liar2", "liar3"):
        lie(world.peer(name, BLOB, rate=8 * MIB))
    world.peer("honest", BLOB, rate=MIB)
    assert world.served() == BLOB


def test_nothing_is_not_served_as_a_blob_on_somebodys_word(
    make: Callable[..., World], midstates: bool
) -> None:
    world = make(midstates=midstates)
    claims_nothing(world.peer("liar", BLOB))
    with pytest.raises(BlobMissing):
        world.served()
    empty = Digest.of(b"")
    world.peer("a", b"")
    assert world.run(world.read(digest=empty)) == b""


def test_unknown_here_and_barred_there_is_missing(make: Callable[..., World]) -> None:
    world = make()
    liar = world.peer("liar", BLOB)
    world.standing.convict(Proof(liar.peer.id, DIGEST, 0, "data", "of old"), world.clock.seconds())
    with pytest.raises(BlobMissing):
        world.served()


def test_the_only_list_was_a_lie_and_all_others_have_none(make: Callable[..., World]) -> None:
    world = make()
    lists_a_wrong_value(world.peer("liar", BLOB, rate=MIB))
    for name in ("honest1", "honest2"):
        without_list(world.peer(name, BLOB, rate=MIB))
    world.run(world.fetcher.pull(DIGEST))
    assert world.store.blobs[DIGEST].data == BLOB
    assert blamed(world) == {"liar"}


def test_a_reader_of_a_size_that_was_a_lie_may_be_opened_anew(make: Callable[..., World]) -> None:
    world = make()
    world.peer("liar", BLOB, claims_size=len(BLOB) + MIB)
    world.peer("honest", BLOB, latency=0.5)  # the liar is heard first, and its size is all that is known
    with pytest.raises(PullFailed):
        world.run(world.read())
    assert world.fetcher.retries(DIGEST)
    assert world.served() == BLOB
    assert world.fetcher.counters.pulls_started == 1
    assert not world.fetcher.retries(DIGEST)


def test_a_pull_that_failed_without_one_good_byte_leaves_nothing_on_the_disk(
    make: Callable[..., World],
) -> None:
    world = make()
    world.peer("coded", BLOB, faults=deque([Fault.CODED] * 100))
    with pytest.raises(PullFailed):
        world.served()
    assert world.store.usage().partials == 0


def test_what_a_failed_pull_verified_is_kept(make: Callable[..., World]) -> None:
    world = make(patience=3.0)
    node = world.peer("a", BLOB)
    node.tamper = stalling_after(node, 3 * MIB)
    with pytest.raises(PullFailed):
        world.served()
    assert world.store.usage().partials == 1

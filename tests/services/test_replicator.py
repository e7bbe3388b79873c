"""A blob put here gets its copies, now or later; 201 only when it has them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from random import Random

import pytest
from twisted.internet.defer import CancelledError

from swarm.core.addresses import AddressPolicy
from swarm.core.placement import order
from swarm.core.roster import Roster
from swarm.errors import Fault, StoreFailed
from swarm.interfaces import BlobInfo
from swarm.model.digest import Digest
from swarm.model.filenames import Filename
from swarm.model.messages import Node
from swarm.model.ranges import ByteRange, RangeSet
from swarm.services.challenging import Challenger
from swarm.services.membership import Membership, MembershipSettings
from swarm.services.replicator import Replication, ReplicationSettings, Replicator
from swarm.testing.loopback import LoopbackNode
from swarm.testing.memory import MemoryReader, MemoryStore
from tests.services.world import MIB, Growing, World, flipping, pattern

DATA = pattern(3 * MIB + 17)
DIGEST = Digest.of(DATA)


class Putter:
    """A node that replicates to the peers of its world."""

    def __init__(self, world: World, *peers: str, copies: int = 3, **settings: float) -> None:
        self.world = world
        self.copies = copies
        self.settings = ReplicationSettings(**settings)  # type: ignore[arg-type] # counts are whole
        self.membership = Membership(
            world.client,
            Roster(world.us.peer.id, "us", random=Random(1), refuse=AddressPolicy(own=frozenset()).refuse),
            MembershipSettings(),
            cluster="test",
            me=lambda: Node("us", world.us.peer.id, "", str(world.us.peer.address), 0),
            join=(),
            read_list=self._no_list,
            book=world.store.peers,
            clock=world.clock,
            tasks=world.tasks,
            came=lambda peer: self.replicator.peer_came(peer),
        )
        self.boot()
        self.nodes = {name: self.add(name) for name in peers}

    def boot(self) -> None:
        self.replicator = Replicator(
            self.world.store,
            self.world.store.hints,
            self.world.store.tombstones,
            self.world.client,
            self.membership,
            Challenger(
                self.world.store,
                self.world.client,
                barred=self.world.fetcher.holders.barred,
                convict=self.world.fetcher.holders.convict,
                counters=self.world.fetcher.counters,
                clock=self.world.clock,
                random=Random(1),
                patience=self.settings.challenge,
            ),
            self.settings,
            name="us",
            me=lambda: self.world.us.peer.id,
            public_url=lambda: "http://us.example:7040",
            copies=self.copies,
            clock=self.world.clock,
            random=Random(1),
            tasks=self.world.tasks,
        )

    async def _no_list(self) -> str | None:
        return None

    def add(self, name: str) -> LoopbackNode:
        node = self.world.loopback.add(name)
        node.latency = 0.01
        self.hear(node)
        return node

    def hear(self, node: LoopbackNode) -> None:
        """The node gives a sign of life."""
        peer = node.peer
        self.membership.greeted(peer.id, peer.name, "", str(peer.address), "192.0.2.1")

    def put(self, data: bytes = DATA, name: str = "a.bin") -> Replication:
        return self.world.run(self.replicator.replicate(self.keep(data, name)))

    def keep(self, data: bytes = DATA, name: str = "a.bin") -> BlobInfo:
        self.world.store.put(data, name)
        return BlobInfo(Digest.of(data), len(data), (Filename.parse(name),))

    def holders(self, digest: Digest = DIGEST) -> set[str]:
        nodes = self.world.loopback.nodes.values()
        return {node.peer.name for node in nodes if digest in node.store.blobs}

    def stay_alive(self) -> None:
        """Peers greet every minute, as long as they are up."""
        for node in self.nodes.values():
            if node.up:
                self.hear(node)


@pytest.fixture
def of(make: Callable[..., World]) -> Callable[..., Putter]:
    def make_putter(*peers: str, **options: float) -> Putter:
        return Putter(make(), *peers, **options)  # type: ignore[arg-type] # counts are whole

    return make_putter


# -- now --------------------------------------------------------------------------------------


def test_as_many_copies_as_wanted_and_no_more(of: Callable[..., Putter]) -> None:
    putter = of("a", "b", "c", "d")
    replication = putter.put()
    assert replication.reached and replication.wanted == 3
    assert set(replication.holders) == putter.holders() and len(replication.holders) == 3
    assert replication.holders[0] == "us"
    assert putter.world.store.hints.hints == {}
    (other,) = {*replication.holders[1:2]}
    assert [n.text for n in putter.nodes[other].store.blobs[DIGEST].names] == ["a.bin"]


def test_alone_one_copy_is_all_there_can_be(of: Callable[..., Putter]) -> None:
    replication = of().put()
    assert replication == Replication(("us",), 1, True)


def test_no_more_copies_are_wanted_than_there_are_nodes(of: Callable[..., Putter]) -> None:
    replication = of("a").put()
    assert replication.reached and replication.wanted == 2 and replication.holders == ("us", "a")


def test_an_empty_blob_is_replicated_too(of: Callable[..., Putter]) -> None:
    putter = of("a", "b")
    assert putter.put(b"").reached
    assert putter.holders(Digest.of(b"")) == {"us", "a", "b"}


def test_nothing_is_pushed_to_who_has_it(of: Callable[..., Putter]) -> None:
    putter = of("a", "b")
    for node in putter.nodes.values():
        node.store.put(DATA)
        node.store.deny.add("put")
    replication = putter.put()
    assert replication.reached and set(replication.holders) == {"us", "a", "b"}
    counters = putter.world.fetcher.counters
    assert (counters.copies_challenged, counters.copies_missing, counters.copies_refuted) == (2, 0, 0)


def answers_no_question(node: LoopbackNode) -> None:
    node.faults = deque([Fault.MISSING] * 1000)


def is_too_busy_to_show_it(node: LoopbackNode) -> None:
    node.faults = deque([Fault.BUSY] * 1000)


def shows_it_for_ever(node: LoopbackNode) -> None:
    node.rate = 1.0


def breaks_off(node: LoopbackNode) -> None:
    node.breaks_after = 10


def lost_it_since(node: LoopbackNode) -> None:
    """It has only a part by the time it is asked for bytes; so they would prove nothing."""
    part = Growing(bytes(len(DATA)), DIGEST, RangeSet([ByteRange(0, len(DATA))]))
    node.store = Losing()
    node.store.put(DATA)
    node.serving = part.serving


class Losing(MemoryStore):
    """Has its blob until it was opened once."""

    opened = False

    async def open(self, digest: Digest) -> MemoryReader:
        if self.opened:
            self.blobs.pop(digest, None)
        self.opened = True
        return await super().open(digest)


@pytest.mark.parametrize(
    "behave", [answers_no_question, is_too_busy_to_show_it, shows_it_for_ever, breaks_off, lost_it_since]
)
@pytest.mark.parametrize("takes_pushes", [True, False])
def test_who_does_not_show_its_copy_does_not_count_and_is_pushed_to(
    of: Callable[..., Putter], behave: Callable[[LoopbackNode], None], takes_pushes: bool
) -> None:
    """It says that it has it already: so its word alone will not do then either."""
    putter = of("a", copies=2)
    [node] = putter.nodes.values()
    node.store.put(DATA)
    behave(node)
    if not takes_pushes:
        node.store.deny.add("put")
    lost = behave is lost_it_since
    replication = putter.put()
    assert replication.reached is (lost and takes_pushes)
    assert replication.holders == (("us", "a") if lost and takes_pushes else ("us",))
    counters = putter.world.fetcher.counters
    assert counters.copies_missing == counters.copies_challenged == (2 if takes_pushes and not lost else 1)
    assert putter.world.standing.on_record() == (), "it proves nothing"


def test_who_shows_wrong_bytes_is_convicted_and_another_takes_its_place(of: Callable[..., Putter]) -> None:
    putter = of("a", "b", "c", copies=2)
    liars = [node for node in putter.nodes.values() if node.peer.name != "b"]
    for node in liars:
        node.store.put(DATA)
        node.tamper = flipping()
    assert putter.put().holders == ("us", "b")
    challenged = putter.world.standing.on_record()
    assert set(challenged) <= {node.peer.id for node in liars}
    if challenged:
        asked = putter.world.fetcher.counters.copies_challenged
        assert putter.put().holders == ("us", "b")
        assert putter.world.fetcher.counters.copies_challenged == asked + 1, "who is barred is not asked"


def test_who_is_barred_already_holds_nobody_up(of: Callable[..., Putter]) -> None:
    putter = of("a", "b", copies=2)
    first = order(DIGEST, [node.peer.id for node in putter.nodes.values()])[0]
    [liar] = [node for node in putter.nodes.values() if node.peer.id == first]
    liar.store.put(DATA)
    liar.tamper = flipping()
    [other] = [node.peer.name for node in putter.nodes.values() if node is not liar]
    assert putter.put().holders == ("us", other)
    before = putter.world.clock.seconds()
    assert putter.put().holders == ("us", other)
    assert putter.world.clock.seconds() < before + 1.0


def test_a_lie_somewhere_in_a_small_blob_is_always_found(of: Callable[..., Putter]) -> None:
    putter, data = of("a", copies=2), pattern(200_000, 5)
    [node] = putter.nodes.values()
    node.store.put(data)
    node.tamper = lambda offset, true: true[:123_456] + bytes([true[123_456] ^ 1]) + true[123_457:]
    assert putter.put(data).holders == ("us",)
    [proof] = [each.proof for each in putter.world.standing.evidence(node.peer.id)]
    assert (proof.kind, proof.grain) == ("data", 0)
    putter.world.until(lambda: node.reports)
    assert [report[2] for report in node.reports] == [
        "wrong data at grain 0: its copy differs from the proven one"
    ]


@pytest.mark.parametrize("for_good", [True, False])
def test_nobody_is_convicted_for_what_our_own_disk_lost(
    of: Callable[..., Putter], monkeypatch: pytest.MonkeyPatch, for_good: bool
) -> None:
    """Nor for what it got wrong only once."""
    putter, data = of("a", copies=2), pattern(200_000, 5)
    [node] = putter.nodes.values()
    node.store.put(data)
    info, store = putter.keep(data), putter.world.store
    opened, looked_again = store.open, []

    async def rots(digest: Digest) -> MemoryReader:
        reader = await opened(digest)
        if not looked_again:
            looked_again.append(digest)
            reader._data = bytes(len(data))
            if for_good:
                store.blobs[digest].data = bytes(len(data))
        return reader

    monkeypatch.setattr(store, "open", rots)
    putter.world.run(putter.replicator.replicate(info))
    assert putter.world.standing.on_record() == ()
    assert putter.world.fetcher.counters.copies_refuted == 0
    assert (info.digest in store.quarantine) is for_good


def test_who_takes_a_push_is_not_challenged(of: Callable[..., Putter]) -> None:
    putter = of("a", "b")
    assert putter.put().reached
    assert putter.world.fetcher.counters.copies_challenged == 0


def test_a_partial_holder_counts_only_once_it_has_all(of: Callable[..., Putter]) -> None:
    putter = of("a", "b")
    growing = Growing(DATA, DIGEST)
    growing.have.add(0, MIB)
    putter.nodes["a"].serving = growing.serving
    assert putter.put().reached
    assert putter.holders() == {"us", "a", "b"}


def test_the_disk_is_read_once_for_all(of: Callable[..., Putter]) -> None:
    putter = of("a", "b", "c", copies=4)
    reads: list[tuple[int, int]] = []
    opened = putter.world.store.open

    async def counted(digest: Digest) -> object:
        reader = await opened(digest)
        reader.blocking = True
        read = reader.read

        async def slowly(offset: int, length: int) -> bytes:
            reads.append((offset, length))
            await putter.world.store.work("read")
            return await read(offset, length)

        return _Reader(reader, slowly)

    putter.world.store.open = counted  # type: ignore[method-assign,assignment] # to count
    assert putter.put().reached
    assert len(reads) == 4 and sum(length for _, length in reads) == len(DATA)


class _Reader:
    """A reader that tells of its reads."""

    def __init__(self, real: object, read: object) -> None:
        self._real = real
        self.read = read

    def __getattr__(self, name: str) -> object:
        return getattr(self._real, name)


def test_another_takes_the_place_of_one_that_fails(of: Callable[..., Putter]) -> None:
    putter = of("a", "b", "c", "d", copies=3)
    for name in ("a", "b"):
        putter.nodes[name].store.deny.add("put")
    replication = putter.put()
    assert replication.reached and putter.holders() == {"us", "c", "d"}


def test_a_peer_that_is_down_is_passed_over(of: Callable[..., Putter]) -> None:
    putter = of("a", "b", "c", copies=2)
    putter.nodes["a"].up = putter.nodes["b"].up = False
    assert putter.put().holders == ("us", "c")


def test_equal_puts_at_the_same_time_share_one_round(of: Callable[..., Putter]) -> None:
    putter = of("a", "b")
    info = putter.keep()
    works = [putter.world.start(putter.replicator.replicate(info)) for _ in range(5)]
    assert all(putter.world.join(work).reached for work in works)
    assert len(putter.world.store.opened) == 1


def test_pushed_copies_are_pushed_on_by_nobody(of: Callable[..., Putter]) -> None:
    putter = of("a", "b", "c", copies=2)
    putter.put()
    putter.world.spend(60)
    assert len(putter.holders()) == 2


# -- later ------------------------------------------------------------------------------------------


def test_too_few_copies_leave_a_durable_hint_before_the_answer(of: Callable[..., Putter]) -> None:
    putter = of("a", "b")
    putter.nodes["a"].up = False
    replication = putter.put()
    assert not replication.reached and replication.holders == ("us", "b") and replication.wanted == 3
    assert putter.world.store.hints.hints == {DIGEST: 3}
    assert putter.replicator.hints_pending == 1


def test_a_hint_is_worked_off_when_the_peer_is_back(of: Callable[..., Putter]) -> None:
    putter = of("a", "b")
    putter.nodes["a"].up = False
    putter.put()
    putter.world.tasks.start("hints", putter.replicator.deliver_hints())
    putter.world.spend(40)
    assert putter.world.store.hints.hints
    putter.nodes["a"].up = True
    putter.stay_alive()
    putter.replicator.peer_came(putter.nodes["a"].peer)
    putter.world.spend(10)
    assert putter.holders() == {"us", "a", "b"}
    assert putter.world.store.hints.hints == {} and putter.replicator.hints_pending == 0


def test_a_hint_survives_a_restart(of: Callable[..., Putter]) -> None:
    putter = of("a")
    putter.nodes["a"].up = False
    putter.put()
    putter.boot()
    putter.nodes["a"].up = True
    putter.world.tasks.start("hints", putter.replicator.deliver_hints())
    putter.world.spend(5)
    assert putter.holders() == {"us", "a"} and not putter.world.store.hints.hints


def test_the_first_peer_ever_gets_what_waits_for_one(of: Callable[..., Putter]) -> None:
    putter = of(copies=2)
    putter.membership._roster.configure([putter.world.us.peer.address], 0.0)
    assert not putter.put().reached, "the operator named a peer that is not here yet"
    putter.world.tasks.start("hints", putter.replicator.deliver_hints())
    putter.world.spend(10)
    putter.nodes["late"] = putter.add("late")
    putter.world.spend(10)
    assert putter.holders() == {"us", "late"} and not putter.world.store.hints.hints


def test_a_hint_for_what_is_gone_is_dropped(of: Callable[..., Putter]) -> None:
    putter = of("a")
    putter.world.store.hints.hints[Digest.of(b"gone")] = 2
    putter.world.tasks.start("hints", putter.replicator.deliver_hints())
    putter.world.spend(2)
    assert putter.world.store.hints.hints == {}


def test_a_slow_push_is_answered_for_now_and_goes_on(of: Callable[..., Putter]) -> None:
    putter = of("a", copies=2, answer_within=5.0)
    putter.nodes["a"].latency = 4.0
    replication = putter.put()
    assert not replication.reached
    assert putter.world.store.hints.hints == {DIGEST: 2}
    putter.world.tasks.start("hints", putter.replicator.deliver_hints())
    putter.world.spend(30)
    assert putter.holders() == {"us", "a"} and not putter.world.store.hints.hints


def test_a_client_that_leaves_gets_its_copies_all_the_same(of: Callable[..., Putter]) -> None:
    putter = of("a", "b")
    work = putter.world.start(putter.replicator.replicate(putter.keep()))
    putter.world.spend(0.015)
    work.cancel()
    with pytest.raises(CancelledError):
        putter.world.join(work)
    putter.world.spend(10)
    assert putter.holders() == {"us", "a", "b"}


def test_a_client_that_leaves_and_too_few_copies_leave_a_hint(of: Callable[..., Putter]) -> None:
    putter = of("a")
    putter.nodes["a"].up = False
    work = putter.world.start(putter.replicator.replicate(putter.keep()))
    work.cancel()
    with pytest.raises(CancelledError):
        putter.world.join(work)
    putter.world.spend(10)
    assert putter.world.store.hints.hints == {DIGEST: 2}


def test_stopping_amid_a_push_leaves_a_hint(of: Callable[..., Putter]) -> None:
    putter = of("a")
    work = putter.world.start(putter.replicator.replicate(putter.keep()))
    putter.world.spend(0.03)
    putter.world.stop()
    assert not putter.world.join(work).reached
    assert putter.world.store.hints.hints == {DIGEST: 2}


def test_a_blob_that_cannot_be_read_gets_no_copies_but_a_hint(of: Callable[..., Putter]) -> None:
    putter = of("a")
    info = putter.keep()
    del putter.world.store.blobs[DIGEST]
    assert not putter.world.run(putter.replicator.replicate(info)).reached
    putter.world.tasks.start("hints", putter.replicator.deliver_hints())
    putter.world.spend(10)
    assert putter.world.store.hints.hints == {}, "it is not here any more"


def test_hints_are_worked_off_although_a_disk_fails_now_and_then(
    of: Callable[..., Putter], said: list[str]
) -> None:
    putter = of("a")
    putter.nodes["a"].up = False
    putter.put()
    putter.nodes["a"].up = True
    failures = iter([StoreFailed("EIO")])
    hints, stat = putter.world.store.hints, putter.world.store.stat

    class Failing:
        async def pending(self) -> object:
            for error in failures:
                raise error
            return await hints.pending()

        def __getattr__(self, name: str) -> object:
            return getattr(hints, name)

    troubles = iter([StoreFailed("EIO")])

    async def failing_stat(digest: Digest) -> BlobInfo | None:
        for error in troubles:
            raise error
        return await stat(digest)

    putter.boot()
    putter.replicator._hint_store = Failing()  # type: ignore[assignment] # a twin
    putter.world.store.stat = failing_stat  # type: ignore[method-assign] # fails once
    putter.world.tasks.start("hints", putter.replicator.deliver_hints())
    putter.world.spend(29)
    assert putter.holders() == {"us"}
    putter.stay_alive()
    putter.world.spend(60)
    assert putter.holders() == {"us", "a"} and not hints.hints
    assert any("cannot read which" in each for each in said)
    assert any("cannot replicate {digest} now" in each for each in said)


def test_a_hint_that_cannot_be_noted_is_said(of: Callable[..., Putter], said: list[str]) -> None:
    putter = of("a")
    putter.nodes["a"].up = False

    class Full:
        async def add(self, digest: Digest, copies: int) -> None:
            raise StoreFailed("ENOSPC")

    putter.replicator._hint_store = Full()  # type: ignore[assignment] # a twin
    assert not putter.put().reached
    assert any("cannot be noted" in each for each in said)


# -- deletions -----------------------------------------------------------------------------------------


def test_a_deleted_blob_is_not_pushed_as_a_new_one(of: Callable[..., Putter]) -> None:
    """The copy under way belongs to the generation before the deletion, and is refused."""
    putter = of("a", copies=2)
    node = putter.nodes["a"]
    work = putter.world.start(putter.replicator.replicate(putter.keep()))
    putter.world.spend(0.005)  # it is being asked whether it has it
    for store in (putter.world.store, node.store):
        putter.world.run(_bury(store.tombstones, putter.world))
    assert not putter.world.join(work).reached
    assert putter.holders() == {"us"}


async def _bury(tombstones: object, world: World) -> None:
    await tombstones.bury(DIGEST, 1)  # type: ignore[attr-defined] # tombstones
    await world.store.work("settle")


def test_a_put_after_a_deletion_is_of_the_new_generation(of: Callable[..., Putter]) -> None:
    putter = of("a")
    for store in (putter.world.store, putter.nodes["a"].store):
        putter.world.run(_bury(store.tombstones, putter.world))
    assert putter.put().reached
    assert not putter.world.store.tombstones.buried(DIGEST)
    assert not putter.nodes["a"].store.tombstones.buried(DIGEST)


def test_hints_of_deleted_blobs_push_nothing(of: Callable[..., Putter]) -> None:
    putter = of("a")
    putter.keep()
    putter.world.store.hints.hints[DIGEST] = 2
    putter.world.run(_bury(putter.world.store.tombstones, putter.world))
    putter.world.tasks.start("hints", putter.replicator.deliver_hints())
    putter.world.spend(5)
    assert putter.holders() == {"us"} and not putter.world.store.hints.hints


# -- who has it --------------------------------------------------------------------------------------------


def test_locations_name_complete_and_partial_holders_and_nobody_else(of: Callable[..., Putter]) -> None:
    putter = of("a", "b", "c", "d")
    growing = Growing(DATA, DIGEST, RangeSet())
    putter.nodes["a"].store.put(DATA)
    putter.nodes["b"].serving = growing.serving
    putter.nodes["c"].up = False
    found = putter.world.run(putter.replicator.locations(DIGEST))
    assert [(each.name, each.state) for each in found] == [("a", "complete"), ("b", "partial")]
    putter.world.store.put(DATA)
    found = putter.world.run(putter.replicator.locations(DIGEST))
    assert (found[0].name, found[0].state, found[0].public_url) == (
        "us",
        "complete",
        "http://us.example:7040",
    )
    assert found[0].peer_id == putter.world.us.peer.id and len(found) == 3

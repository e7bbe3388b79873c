"""What every implementation of a storage port must do, as suites of tests.

A suite is made for one implementation by a factory that takes a *rig*: the implementation with hands
to damage, mark and restart it. Bind the result to a name that pytest collects::

    TestMemoryStore = blobstore_contract(MemoryRig)

The tests are coroutines. Where nothing ever waits they run on the spot; for a real reactor pass, for
example, ``runner=pytest_twisted.ensureDeferred``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from swarm.errors import (
    BlobForbidden,
    BlobMissing,
    DigestMismatch,
    LengthMismatch,
    MethodDenied,
    StorageFull,
    StoreFailed,
    SwarmError,
)
from swarm.interfaces import IBlobStore, IHintStore, IPartial, IPeerBook, ITombstones, Stored
from swarm.model.digest import Digest
from swarm.model.filenames import Filename
from swarm.model.grains import Grains
from swarm.model.midstates import IV
from swarm.model.peers import Address, Peer, PeerID

_T = TypeVar("_T")
_E = TypeVar("_E", bound=SwarmError)
_S = TypeVar("_S")

MIB = 1 << 20

#: Bodies that a store may keep in memory, and such that it may not.
SIZES = (10, MIB + 10)


def pattern(size: int, seed: int = 0) -> bytes:
    """``size`` bytes that differ from grain to grain and from seed to seed."""
    unit = b"".join(Digest.of(b"%d %d" % (seed, n)).raw for n in range(1024))
    whole = bytearray()
    while len(whole) < size:
        whole += unit + len(whole).to_bytes(8, "big")
    return bytes(whole[:size])


def at_once(work: Coroutine[Any, Any, _T]) -> _T:
    """Run a coroutine that never waits for anything."""
    outcome: list[_T | Failure] = []
    Deferred.fromCoroutine(work).addBoth(outcome.append)
    assert outcome, "it waits for something"
    if isinstance(outcome[0], Failure):
        outcome[0].raiseException()
    return outcome[0]


async def refused(error: type[_E], work: Awaitable[object]) -> _E:
    """Await work that must fail with ``error``."""
    try:
        await work
    except error as e:
        return e
    raise AssertionError(f"this should have raised {error.__name__}")


def refuses(error: type[SwarmError], call: Callable[..., object], *args: object) -> None:
    """Make a call that must fail with ``error``."""
    try:
        call(*args)
    except error:
        return
    raise AssertionError(f"this should have raised {error.__name__}")


class StoreRig(Protocol):
    """One store under test, started; without quota or reserve unless told otherwise."""

    @property
    def store(self) -> IBlobStore:
        """The store, after :meth:`restart` the new one."""

    @property
    def hints(self) -> IHintStore:
        """The hints of the same node."""

    @property
    def peers(self) -> IPeerBook:
        """Whom the same node met."""

    @property
    def tombstones(self) -> ITombstones:
        """The tombstones of the same node."""

    def damage(self, digest: Digest) -> None:
        """Change a stored byte behind the store's back."""

    def mark(self, digest: Digest, marker: str) -> None:
        """Do what an operator does who touches ``403`` or ``404``."""

    def switch_off(self, method: str) -> None:
        """Do what an operator does who touches ``denyget`` and the like."""

    async def restart(self) -> None:
        """Stop the store and start another on what it left."""


class MakeRig(Protocol):
    """Builds a rig for one test."""

    def __call__(self, *, quota: int | None = None) -> AbstractAsyncContextManager[StoreRig]:
        """A rig that cleans up after itself."""


Test = Callable[[Any], Coroutine[Any, Any, None]]
Runner = Callable[[Test], Callable[[Any], None]]
_TestOnRig = Callable[[Any, StoreRig], Coroutine[Any, Any, None]]


def synchronously(test: Test) -> Callable[[Any], None]:
    """Run a test that never waits."""

    def run(self: Any) -> None:
        at_once(test(self))

    return run


_QUOTAS: dict[_TestOnRig, int] = {}


def _quota(limit: int) -> Callable[[_TestOnRig], _TestOnRig]:
    """Let a test run on a store with a quota."""

    def note(test: _TestOnRig) -> _TestOnRig:
        _QUOTAS[test] = limit
        return test

    return note


def _suite(tests: type[_S], make: MakeRig, runner: Runner) -> type[_S]:
    """A subclass whose tests take no argument: each gets a rig of its own."""

    def bound(test: _TestOnRig) -> Callable[[Any], None]:
        async def run(self: Any) -> None:
            async with make(quota=_QUOTAS.get(test)) as rig:
                await test(self, rig)

        run.__name__, run.__qualname__ = test.__name__, test.__qualname__
        return runner(run)

    bodies = {name: bound(test) for name, test in vars(tests).items() if name.startswith("test_")}
    return type(tests.__name__, (tests,), bodies)


async def put(store: IBlobStore, data: bytes, name: str | None = None, declared: bool = True) -> Stored:
    """Store ``data`` as a PUT does."""
    writer = await store.writer(len(data) if declared else None)
    try:
        for at in range(0, len(data), 100_000):
            writer.write(data[at : at + 100_000])
            if writer.lagging():
                await writer.caught_up()
        return await writer.finish(None if name is None else Filename.parse(name))
    finally:
        writer.abort()


async def content(store: IBlobStore, digest: Digest) -> bytes:
    """All bytes of a blob."""
    reader = await store.open(digest)
    try:
        return await reader.read(0, reader.info.size)
    finally:
        reader.close()


def _texts(names: tuple[Filename, ...]) -> list[str]:
    return [name.text for name in names]


class BlobStoreContract:
    """:class:`swarm.interfaces.IBlobStore`, its readers and writers."""

    async def test_what_is_put_is_read_back(self, rig: StoreRig) -> None:
        for size in (0, 1, 127, 128, 65_536, MIB - 1, MIB, MIB + 1, 3 * MIB):
            for declared in (True, False):
                data = pattern(size, declared)
                stored = await put(rig.store, data, "a name", declared)
                assert stored.info.digest == Digest.of(data)
                assert (stored.info.size, _texts(stored.info.names)) == (size, ["a name"])
                assert stored.new or size == 0
                assert await rig.store.stat(stored.info.digest) == stored.info
                assert await content(rig.store, stored.info.digest) == data

    async def test_any_part_of_a_blob_can_be_read(self, rig: StoreRig) -> None:
        data = pattern(2 * MIB + 17)
        reader = await rig.store.open((await put(rig.store, data)).info.digest)
        for start, stop in ((0, 1), (MIB - 1, MIB + 1), (2 * MIB, 2 * MIB + 17), (5, 5)):
            assert await reader.available(start, stop) == stop
            assert await reader.read(start, stop - start) == data[start:stop]
            now = reader.read_now(start, stop - start)
            assert now is None or (data[start:stop].startswith(now) and (now or start == stop))
        reader.close()

    async def test_the_same_bytes_again_are_known_and_may_bring_a_name(self, rig: StoreRig) -> None:
        data = pattern(1000)
        assert (await put(rig.store, data, "one")).new
        again = await put(rig.store, data, "two")
        assert not again.new
        assert _texts(again.info.names) == ["one", "two"]
        assert _texts((await put(rig.store, data, "one")).info.names) == ["two", "one"]
        assert rig.store.usage().blobs == 1
        assert rig.store.usage().bytes == 1000

    async def test_more_or_fewer_bytes_than_declared_are_refused(self, rig: StoreRig) -> None:
        for size in SIZES:
            longer = await rig.store.writer(size)
            refuses(LengthMismatch, longer.write, bytes(size + 1))
            longer.abort()
            shorter = await rig.store.writer(size)
            shorter.write(bytes(size - 1))
            await refused(LengthMismatch, shorter.finish())
            await self._nothing_was_kept(rig)

    async def test_bytes_that_do_not_hash_to_what_was_expected_are_refused(self, rig: StoreRig) -> None:
        for size in SIZES:
            right, wrong = pattern(size, 1), pattern(size, 2)
            for length in (size, None):
                writer = await rig.store.writer(length, expect=Digest.of(right))
                writer.write(wrong)
                await refused(DigestMismatch, writer.finish())
                assert await rig.store.stat(Digest.of(wrong)) is None
                assert await rig.store.stat(Digest.of(right)) is None
        await self._nothing_was_kept(rig)
        welcome = await rig.store.writer(None, expect=Digest.of(b"right"))
        welcome.write(b"right")
        assert (await welcome.finish()).new

    async def test_an_aborted_write_leaves_nothing(self, rig: StoreRig) -> None:
        writer = await rig.store.writer(None)
        writer.write(pattern(MIB))
        writer.abort()
        writer.abort()
        refuses(StoreFailed, writer.write, b"late")
        await refused(StoreFailed, writer.finish())
        await self._nothing_was_kept(rig)

    async def _nothing_was_kept(self, rig: StoreRig) -> None:
        usage = rig.store.usage()
        assert (usage.blobs, usage.bytes, usage.partials) == (0, 0, 0)
        assert await rig.store.digests() == []

    @_quota(1000)
    async def test_the_quota_counts_blobs_and_writes_under_way(self, rig: StoreRig) -> None:
        await put(rig.store, pattern(400))
        under_way = await rig.store.writer(400)
        refuses(StorageFull, rig.store.check_room, 201)
        rig.store.check_room(200)
        await refused(StorageFull, rig.store.writer(201))
        under_way.abort()
        assert (await put(rig.store, pattern(600, 1))).new

    @_quota(1000)
    async def test_the_quota_meters_a_write_of_unknown_length(self, rig: StoreRig) -> None:
        writer = await rig.store.writer(None)
        writer.write(pattern(600))
        refuses(StorageFull, rig.store.check_room, 401)
        refuses(StorageFull, writer.write, pattern(401))
        await refused(StorageFull, writer.finish())
        await self._nothing_was_kept(rig)
        rig.store.check_room(1000)

    @_quota(1000)
    async def test_the_quota_counts_pulls(self, rig: StoreRig) -> None:
        partial = await rig.store.partial(Digest.of(b"?"), 600)
        assert rig.store.usage().partials == 1
        await refused(StorageFull, rig.store.writer(401))
        await refused(StorageFull, rig.store.partial(Digest.of(b"!"), 401))
        await partial.discard()
        partial.close()
        assert rig.store.usage().partials == 0
        rig.store.check_room(1000)

    async def test_what_is_not_held_is_missing(self, rig: StoreRig) -> None:
        digest = Digest.of(b"nothing")
        assert await rig.store.stat(digest) is None
        assert await rig.store.midstates(digest) is None
        await refused(BlobMissing, rig.store.open(digest))
        await refused(BlobMissing, rig.store.delete(digest))
        await refused(BlobMissing, rig.store.verify(digest))
        await refused(BlobMissing, rig.store.add_name(digest, Filename.parse("x")))
        await rig.store.check_markers(digest)

    async def test_markers_answer_for_a_blob_held_or_not(self, rig: StoreRig) -> None:
        held = (await put(rig.store, b"held")).info.digest
        for digest in (held, Digest.of(b"not held")):
            rig.mark(digest, "404")
            await refused(BlobMissing, rig.store.check_markers(digest))
            await refused(BlobMissing, rig.store.open(digest))
            rig.mark(digest, "403")
            await refused(BlobForbidden, rig.store.check_markers(digest))
            await refused(BlobForbidden, rig.store.open(digest))
        assert await rig.store.stat(held) is not None
        await rig.store.delete(held)
        await refused(BlobForbidden, rig.store.check_markers(held))
        assert (await put(rig.store, b"held")).new
        await refused(BlobForbidden, rig.store.open(held))

    async def test_methods_are_switched_off_node_wide(self, rig: StoreRig) -> None:
        for method in ("get", "put", "delete"):
            rig.store.check_allowed(method)
            rig.switch_off(method)
            refuses(MethodDenied, rig.store.check_allowed, method)

    async def test_a_damaged_blob_is_never_opened_and_a_put_heals_it(self, rig: StoreRig) -> None:
        data = pattern(MIB + 5)
        digest = (await put(rig.store, data, "kept")).info.digest
        rig.damage(digest)
        await refused(BlobMissing, rig.store.open(digest))
        assert await rig.store.stat(digest) is None
        assert await rig.store.digests() == []
        assert rig.store.usage().blobs == 0
        assert (await put(rig.store, data)).new
        assert await content(rig.store, digest) == data

    async def test_a_put_replaces_a_damaged_blob_nobody_had_noticed(self, rig: StoreRig) -> None:
        data = pattern(1000)
        digest = (await put(rig.store, data)).info.digest
        rig.damage(digest)
        assert (await put(rig.store, data)).new
        assert await content(rig.store, digest) == data
        assert rig.store.usage().bytes == 1000

    async def test_verify_tells_good_from_damaged(self, rig: StoreRig) -> None:
        for size in (1, MIB, 5 * MIB + 1):
            digest = (await put(rig.store, pattern(size))).info.digest
            assert await rig.store.verify(digest)
            rig.damage(digest)
            assert not await rig.store.verify(digest)
            await refused(BlobMissing, rig.store.verify(digest))

    async def test_midstates_are_those_of_the_bytes(self, rig: StoreRig) -> None:
        for size in (0, MIB, MIB + 1, 3 * MIB):
            data = pattern(size)
            digest = (await put(rig.store, data)).info.digest
            midstates = await rig.store.midstates(digest)
            assert midstates is not None
            assert midstates.grains == Grains.of(size)
            assert await rig.store.midstates(digest) == midstates
            partial = await self._pull(rig, data)
            await self._check_chain(partial, midstates.before, midstates.after)
            await partial.discard()
            partial.close()

    async def _check_chain(
        self, partial: IPartial, before: Callable[[int], bytes], after: Callable[[int, bytes], bytes]
    ) -> None:
        for index in range(partial.grains.count):
            (end,) = await partial.end_states(index, [before(index)])
            assert end == after(index, partial.digest.raw)

    async def test_midstates_of_a_damaged_blob_are_not_invented(self, rig: StoreRig) -> None:
        digest = (await put(rig.store, pattern(MIB + 1))).info.digest
        midstates = await rig.store.midstates(digest)
        rig.damage(digest)
        assert await rig.store.midstates(digest) in (None, midstates)

    async def test_deleting_frees_the_room_and_a_put_brings_it_back(self, rig: StoreRig) -> None:
        stored = await put(rig.store, pattern(5000), "x")
        assert await rig.store.delete(stored.info.digest) == stored.info
        await refused(BlobMissing, rig.store.delete(stored.info.digest))
        await refused(BlobMissing, rig.store.open(stored.info.digest))
        assert (rig.store.usage().blobs, rig.store.usage().bytes) == (0, 0)
        again = await put(rig.store, pattern(5000))
        assert again.new
        assert again.info.names == ()

    async def test_syncing_a_removal_removes_nothing(self, rig: StoreRig) -> None:
        digest = (await put(rig.store, pattern(5000), "x")).info.digest
        await rig.store.sync_removal(digest)
        assert await rig.store.stat(digest) is not None
        await rig.store.delete(digest)
        await rig.store.sync_removal(digest)
        assert await rig.store.stat(digest) is None

    async def test_a_reader_outlives_the_deletion(self, rig: StoreRig) -> None:
        data = pattern(MIB)
        digest = (await put(rig.store, data)).info.digest
        reader = await rig.store.open(digest)
        await rig.store.delete(digest)
        assert await reader.read(0, MIB) == data
        reader.close()

    async def test_names_are_kept_each_once_the_newest_last(self, rig: StoreRig) -> None:
        digest = (await put(rig.store, b"named", "a")).info.digest
        for name in ("b", "b", "ünï.txt", "a"):
            await rig.store.add_name(digest, Filename.parse(name))
        info = await rig.store.stat(digest)
        assert info is not None
        assert _texts(info.names) == ["b", "ünï.txt", "a"]
        assert info.filename == Filename.parse("a")

    async def test_ids_are_listed_in_order_by_page(self, rig: StoreRig) -> None:
        all_ids = sorted([(await put(rig.store, b"%d" % n)).info.digest for n in range(7)])
        assert await rig.store.digests() == all_ids
        seen: list[Digest] = []
        while page := await rig.store.digests(seen[-1] if seen else None, 3):
            assert len(page) <= 3
            seen += page
        assert seen == all_ids

    async def test_blobs_names_and_totals_survive_a_restart(self, rig: StoreRig) -> None:
        stored = await put(rig.store, pattern(MIB + 3), "x")
        midstates = await rig.store.midstates(stored.info.digest)
        await rig.restart()
        assert await rig.store.stat(stored.info.digest) == stored.info
        assert await rig.store.midstates(stored.info.digest) == midstates
        assert await rig.store.digests() == [stored.info.digest]
        assert (rig.store.usage().blobs, rig.store.usage().bytes) == (1, MIB + 3)
        assert await content(rig.store, stored.info.digest) == pattern(MIB + 3)

    # -- pulls ----------------------------------------------------------------

    async def _pull(self, rig: StoreRig, data: bytes) -> IPartial:
        partial = await rig.store.partial(Digest.of(data), len(data))
        half = len(data) // 2
        partial.write(half, [memoryview(data)[half:]])
        partial.write(0, [memoryview(data)[: half // 2], memoryview(data)[half // 2 : half]])
        return partial

    async def test_a_pull_becomes_a_blob(self, rig: StoreRig) -> None:
        for size in (0, 1, 2 * MIB, 2 * MIB + 1):
            data = pattern(size)
            partial = await self._pull(rig, data)
            assert await rig.store.stat(partial.digest) is None
            assert await partial.hash_all() == partial.digest
            stored = await partial.publish(None, [Filename.parse("n")])
            assert stored.new
            assert _texts(stored.info.names) == ["n"]
            assert await partial.read(0, size) == data
            partial.close()
            assert await content(rig.store, Digest.of(data)) == data
        usage = rig.store.usage()
        assert (usage.blobs, usage.bytes, usage.partials) == (4, 4 * MIB + 2, 0)
        assert await rig.store.unfinished() == []

    async def test_late_bytes_never_reach_a_published_blob(self, rig: StoreRig) -> None:
        data = pattern(1000)
        partial = await self._pull(rig, data)
        await partial.publish(None)
        refuses(StoreFailed, partial.write, 0, [memoryview(b"late")])
        partial.close()
        assert await content(rig.store, Digest.of(data)) == data

    async def test_a_pull_of_a_blob_that_came_by_another_way_is_not_new(self, rig: StoreRig) -> None:
        data = pattern(1000)
        partial = await self._pull(rig, data)
        await put(rig.store, data)
        assert not (await partial.publish(None)).new
        partial.close()
        assert rig.store.usage().blobs == 1

    async def test_a_grain_is_hashed_from_each_start(self, rig: StoreRig) -> None:
        data = pattern(2 * MIB)
        partial = await self._pull(rig, data)
        plain, first, same = await partial.end_states(0, [None, IV, IV])
        assert plain == Digest.of(data[:MIB]).raw
        assert first == same
        (final,) = await partial.end_states(1, [first], at_leisure=True)
        assert final == Digest.of(data).raw
        partial.close()

    async def test_marked_grains_survive_a_restart(self, rig: StoreRig) -> None:
        data = pattern(3 * MIB + 9)
        partial = await self._pull(rig, data)
        ends = [(await partial.end_states(index, [None]))[0] for index in range(4)]
        for index in (0, 1, 3):
            partial.mark(index, None, ends[index])
        await partial.checkpoint()
        partial.unmark(1)
        await partial.checkpoint()
        partial.mark(2, None, ends[2])  # never checkpointed
        partial.close()
        await rig.restart()
        assert await rig.store.unfinished() == [(Digest.of(data), len(data))]
        assert rig.store.usage().partials == 1
        resumed = await rig.store.partial(Digest.of(data), len(data))
        assert list(resumed.journaled) == [0, 3]
        assert await resumed.recheck(0) == (None, ends[0])
        resumed.write(3 * MIB, [memoryview(b"other")])
        assert await resumed.recheck(3) is None
        resumed.close()

    async def test_a_left_over_of_another_size_is_discarded(self, rig: StoreRig) -> None:
        data = pattern(1000)
        partial = await self._pull(rig, data)
        partial.mark(0, None, Digest.of(data).raw)
        await partial.checkpoint()
        partial.close()
        assert rig.store.begun(Digest.of(data)) == 1000
        other = await rig.store.partial(Digest.of(data), 999)
        assert rig.store.begun(Digest.of(data)) == 999
        assert list(other.journaled) == []
        assert rig.store.usage().partials == 1
        await other.discard()
        other.close()
        assert rig.store.begun(Digest.of(data)) is None
        assert await rig.store.unfinished() == []


class HintsContract:
    """:class:`swarm.interfaces.IHintStore`."""

    async def test_hints_are_remembered_once_and_forgotten(self, rig: StoreRig) -> None:
        one, two = sorted([Digest.of(b"1"), Digest.of(b"2")])
        await rig.hints.add(two, 2)
        await rig.hints.add(one, 3)
        await rig.hints.add(two, 4)
        assert list(await rig.hints.pending()) == [(one, 3), (two, 4)]
        await rig.hints.remove(one)
        await rig.hints.remove(one)
        assert list(await rig.hints.pending()) == [(two, 4)]

    async def test_hints_survive_a_restart(self, rig: StoreRig) -> None:
        await rig.hints.add(Digest.of(b"1"), 2)
        await rig.restart()
        assert list(await rig.hints.pending()) == [(Digest.of(b"1"), 2)]


class PeerBookContract:
    """:class:`swarm.interfaces.IPeerBook`."""

    async def test_peers_survive_a_restart_until_others_are_saved(self, rig: StoreRig) -> None:
        one = Peer(PeerID(b"1" * 32), "north", Address("192.0.2.1", 7041), "http://north.example:7040")
        two = Peer(PeerID(b"2" * 32), "süd", Address("2001:db8::1", 7041))
        assert list(await rig.peers.load()) == []
        await rig.peers.save([(two, 1_700_000_000.5), (one, 1.0)])
        await rig.restart()
        assert list(await rig.peers.load()) == [(two, 1_700_000_000.5), (one, 1.0)]
        await rig.peers.save([(one, 2.0)])
        assert list(await rig.peers.load()) == [(one, 2.0)]


class TombstonesContract:
    """:class:`swarm.interfaces.ITombstones`."""

    async def test_generations_only_grow(self, rig: StoreRig) -> None:
        digest, stones = Digest.of(b"1"), rig.tombstones
        assert (stones.generation(digest), stones.buried(digest)) == (0, False)
        await stones.bury(digest, 2)
        assert (stones.generation(digest), stones.buried(digest)) == (2, True)
        await stones.bury(digest, 1)
        await stones.revive(digest, 1)
        assert (stones.generation(digest), stones.buried(digest)) == (2, True)
        await stones.revive(digest, 2)
        assert (stones.generation(digest), stones.buried(digest)) == (2, False)
        await stones.bury(digest, 2)
        assert not stones.buried(digest)
        await stones.bury(digest, 3)
        assert stones.buried(digest)
        await stones.revive(digest, 5)
        assert (stones.generation(digest), stones.buried(digest)) == (5, False)

    async def test_debts_are_of_the_newest_generation_until_paid(self, rig: StoreRig) -> None:
        digest, stones = Digest.of(b"1"), rig.tombstones
        one, two = PeerID(b"1" * 32), PeerID(b"2" * 32)
        await stones.bury(digest, 1, [one])
        await stones.bury(digest, 1, [PeerID(b"3" * 32)])  # known: nothing changes
        await stones.owe(digest, [one, two])
        await stones.owe(digest, [one])
        assert list(await stones.owed()) == [(digest, 1, one), (digest, 1, two)]
        await stones.paid(digest, one)
        await stones.paid(digest, one)
        await stones.bury(digest, 2)
        assert list(await stones.owed()) == [(digest, 2, two)]

    async def test_tombstones_survive_a_restart(self, rig: StoreRig) -> None:
        await rig.tombstones.bury(Digest.of(b"1"), 1)
        await rig.tombstones.bury(Digest.of(b"2"), 1)
        await rig.tombstones.revive(Digest.of(b"2"), 1)
        await rig.tombstones.owe(Digest.of(b"1"), [PeerID(b"1" * 32)])
        await rig.restart()
        assert rig.tombstones.buried(Digest.of(b"1"))
        assert not rig.tombstones.buried(Digest.of(b"2"))
        assert rig.tombstones.generation(Digest.of(b"2")) == 1
        assert list(await rig.tombstones.owed()) == [(Digest.of(b"1"), 1, PeerID(b"1" * 32))]


def blobstore_contract(make: MakeRig, runner: Runner = synchronously) -> type[BlobStoreContract]:
    """The suite of :class:`swarm.interfaces.IBlobStore`."""
    return _suite(BlobStoreContract, make, runner)


def hints_contract(make: MakeRig, runner: Runner = synchronously) -> type[HintsContract]:
    """The suite of :class:`swarm.interfaces.IHintStore`."""
    return _suite(HintsContract, make, runner)


def peer_book_contract(make: MakeRig, runner: Runner = synchronously) -> type[PeerBookContract]:
    """The suite of :class:`swarm.interfaces.IPeerBook`."""
    return _suite(PeerBookContract, make, runner)


def tombstones_contract(make: MakeRig, runner: Runner = synchronously) -> type[TombstonesContract]:
    """The suite of :class:`swarm.interfaces.ITombstones`."""
    return _suite(TombstonesContract, make, runner)

"""What every implementation of the peer client must do, as a suite of tests.

Made for one implementation by a factory of *rigs*, as in ``swarm.testing.contracts``: two nodes, *us*
and *them*, with hands to put blobs at theirs and to look at what they have.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Protocol

from twisted.internet.defer import CancelledError, Deferred
from zope.interface.verify import verifyObject

from swarm.errors import Fault, PeerError, StoreFailed
from swarm.interfaces import BlobInfo, ILane, IPeerClient
from swarm.model.digest import Digest
from swarm.model.filenames import Filename
from swarm.model.peers import Address, Peer, PeerID
from swarm.model.ranges import ByteRange, RangeSet
from swarm.testing.contracts import MIB, pattern, refused


class PeersRig(Protocol):
    """Two nodes of cluster ``test``."""

    @property
    def client(self) -> IPeerClient:
        """Ours."""

    @property
    def us(self) -> PeerID:
        """Who we are."""

    @property
    def them(self) -> Peer:
        """The other node."""

    def run(self, work: Coroutine[Any, Any, None]) -> Deferred[None] | None:
        """Run a test to its end; a Deferred is given to pytest-twisted, and cleans up by itself."""

    def hold(self, data: bytes, *names: str) -> Digest:
        """They have a blob."""

    def hold_part(self, data: bytes, have: RangeSet) -> Digest:
        """They are pulling a blob and have so much."""

    def lose(self, digest: Digest) -> None:
        """They had a blob."""

    def held(self, digest: Digest) -> tuple[bytes, list[str]] | None:
        """Bytes and names of what they have."""

    def mark(self, digest: Digest, marker: str) -> None:
        """Their operator touches ``403`` or ``404``."""

    def fill(self) -> None:
        """Their disk has no room left."""

    @property
    def reports(self) -> list[tuple[PeerID, Digest, str]]:
        """Advice they got."""

    async def vanish(self) -> None:
        """They go away; nobody listens there any more."""

    def foreign(self) -> Peer:
        """A node of another cluster."""


class MakePeers(Protocol):
    """Builds a rig for one test."""

    def __call__(self) -> PeersRig:
        """A rig that cleans up after its run."""


class Collector:
    """A sink that checks order and keeps bytes."""

    def __init__(self, start: int) -> None:
        self.start = start
        self.data = bytearray()

    def __call__(self, offset: int, views: Sequence[memoryview]) -> None:
        assert offset == self.start + len(self.data), "in order, without gaps"
        for view in views:
            self.data += view


def _on_rig(
    test: Callable[[PeerClientContract, PeersRig], Coroutine[Any, Any, None]],
) -> Callable[[PeerClientContract], Deferred[None] | None]:
    # No __wrapped__: pytest would look through it and take ``rig`` for a fixture.
    @functools.wraps(test, assigned=("__name__", "__qualname__", "__doc__", "__module__"))
    def run(self: PeerClientContract) -> Deferred[None] | None:
        rig = type(self).make()
        return rig.run(test(self, rig))

    del run.__wrapped__
    return run


def reading(data: bytes) -> Callable[[int, int], Coroutine[Any, Any, bytes]]:
    """A push's reader of bytes in memory."""

    async def read(offset: int, length: int) -> bytes:
        return data[offset : offset + length]

    return read


def info(data: bytes, *names: str) -> BlobInfo:
    """What a store would say of these bytes."""
    return BlobInfo(Digest.of(data), len(data), tuple(map(Filename.parse, names)))


class PeerClientContract:
    """:class:`swarm.interfaces.IPeerClient` and its lanes."""

    make: MakePeers

    @_on_rig
    async def test_it_provides_the_ports(self, rig: PeersRig) -> None:
        verifyObject(IPeerClient, rig.client)
        lane = rig.client.lane(rig.them, Digest.of(b""), 1)
        verifyObject(ILane, lane)
        assert lane.peer == rig.them
        lane.close()

    # -- locate, midstates ---------------------------------------------------

    @_on_rig
    async def test_a_holder_is_located(self, rig: PeersRig) -> None:
        for size in (0, 1, 3 * MIB):
            digest = rig.hold(pattern(size), "a name", "ünïcode, 100 %")
            holding = await rig.client.locate(rig.them, digest)
            assert holding is not None
            assert (holding.peer, holding.size, holding.complete) == (rig.them, size, True)
            assert [name.text for name in holding.names] == ["a name", "ünïcode, 100 %"]
        assert await rig.client.locate(rig.them, Digest.of(b"nobody has this")) is None

    @_on_rig
    async def test_a_partial_holder_says_which_bytes(self, rig: PeersRig) -> None:
        have = RangeSet([ByteRange(0, 100), ByteRange(MIB, 2 * MIB)])
        digest = rig.hold_part(pattern(2 * MIB), have)
        holding = await rig.client.locate(rig.them, digest)
        assert holding is not None
        assert (holding.size, holding.have) == (2 * MIB, have)

    @_on_rig
    async def test_many_runs_of_bytes_still_travel(self, rig: PeersRig) -> None:
        have = RangeSet(ByteRange(at, at + 1 + at // 1000) for at in range(0, 2_000_000, 4000))
        holding = await rig.client.locate(rig.them, rig.hold_part(pattern(2 * MIB), have))
        assert holding is not None and holding.have is not None
        assert holding.have.total > have.total // 2
        assert all(have.covers(run.start, run.stop) for run in holding.have)

    @_on_rig
    async def test_markers_hide_a_blob_from_peers(self, rig: PeersRig) -> None:
        digest = rig.hold(b"hidden")
        rig.mark(digest, "404")
        assert await rig.client.locate(rig.them, digest) is None
        digest = rig.hold(b"forbidden")
        rig.mark(digest, "403")
        error = await refused(PeerError, rig.client.locate(rig.them, digest))
        assert error.fault is Fault.REFUSED

    @_on_rig
    async def test_midstates_travel(self, rig: PeersRig) -> None:
        size = 3 * MIB + 5
        digest = rig.hold(pattern(size))
        midstates = await rig.client.midstates(rig.them, digest, size)
        assert (midstates.grains.size, midstates.grains.count) == (size, 4)
        error = await refused(PeerError, rig.client.midstates(rig.them, digest, size + 1))
        assert error.fault is Fault.GARBLED
        error = await refused(PeerError, rig.client.midstates(rig.them, Digest.of(b"?"), size))
        assert error.fault is Fault.MISSING

    # -- lanes -----------------------------------------------------------------

    @_on_rig
    async def test_a_lane_fetches_exactly_its_span(self, rig: PeersRig) -> None:
        data = pattern(3 * MIB)
        lane = rig.client.lane(rig.them, rig.hold(data), len(data))
        for start, stop in ((0, 1), (MIB - 7, 2 * MIB + 7), (len(data) - 1, len(data)), (0, len(data))):
            sink = Collector(start)
            await lane.fetch(ByteRange(start, stop), sink)
            assert bytes(sink.data) == data[start:stop]
        lane.close()

    @_on_rig
    async def test_a_second_span_follows_the_first(self, rig: PeersRig) -> None:
        data = pattern(4 * MIB)
        lane = rig.client.lane(rig.them, rig.hold(data), len(data))
        ended: list[str] = []
        first, second = Collector(0), Collector(2 * MIB)
        one = Deferred.fromCoroutine(lane.fetch(ByteRange(0, 2 * MIB), first))
        two = Deferred.fromCoroutine(lane.fetch(ByteRange(2 * MIB, 4 * MIB), second))
        one.addCallback(lambda _: ended.append("one"))
        two.addCallback(lambda _: ended.append("two"))
        await one
        await two
        assert ended == ["one", "two"]
        assert bytes(first.data + second.data) == data
        lane.close()

    @_on_rig
    async def test_what_is_missing_leaves_the_lane_usable(self, rig: PeersRig) -> None:
        data = pattern(2 * MIB)
        lane = rig.client.lane(rig.them, rig.hold_part(data, RangeSet([ByteRange(0, MIB)])), len(data))
        for span in (ByteRange(MIB, 2 * MIB), ByteRange(0, MIB + 1)):
            error = await refused(PeerError, lane.fetch(span, Collector(span.start)))
            assert error.fault is Fault.MISSING
        sink = Collector(5)
        await lane.fetch(ByteRange(5, MIB), sink)
        assert bytes(sink.data) == data[5:MIB]
        lane.close()
        unknown = rig.client.lane(rig.them, Digest.of(b"?"), 10)
        error = await refused(PeerError, unknown.fetch(ByteRange(0, 10), Collector(0)))
        assert (error.fault, error.peer) == (Fault.MISSING, rig.them.id)
        unknown.close()

    @_on_rig
    async def test_what_they_have_by_now_is_told_before_the_bytes(self, rig: PeersRig) -> None:
        """Who had the blob, lost it and pulls it anew is known for that before a byte of it counts."""
        data = pattern(2 * MIB)
        digest = rig.hold(data)
        heard: list[RangeSet | str | None] = []

        def sink(offset: int, views: Sequence[memoryview]) -> None:
            if heard[-1] != "bytes":
                heard.append("bytes")

        lane = rig.client.lane(rig.them, digest, len(data), lambda have, given: heard.append(have))
        await lane.fetch(ByteRange(0, MIB), sink)
        rig.lose(digest)
        parts = [RangeSet([ByteRange(0, stop)]) for stop in (MIB, 2 * MIB)]
        for have in parts:
            rig.hold_part(data, have)
            await lane.fetch(ByteRange(0, MIB), sink)
        rig.hold(data)
        await lane.fetch(ByteRange(MIB, 2 * MIB), sink)
        lane.close()
        assert heard == [None, "bytes", parts[0], "bytes", parts[1], "bytes", None, "bytes"]

    @_on_rig
    async def test_many_runs_of_bytes_are_told_with_bytes_too(self, rig: PeersRig) -> None:
        have = RangeSet(ByteRange(at, at + 1 + at // 1000) for at in range(0, 2_000_000, 4000))
        heard: list[RangeSet | None] = []
        digest = rig.hold_part(pattern(2 * MIB), have)
        lane = rig.client.lane(rig.them, digest, 2 * MIB, lambda have, given: heard.append(have))
        run = max(have, key=len)
        await lane.fetch(run, Collector(run.start))
        lane.close()
        [told] = heard
        assert told is not None and told.total > have.total // 2
        assert all(have.covers(each.start, each.stop) for each in told)

    @_on_rig
    async def test_a_wrong_size_is_found_out(self, rig: PeersRig) -> None:
        digest = rig.hold(pattern(1000))
        lane = rig.client.lane(rig.them, digest, 999)
        error = await refused(PeerError, lane.fetch(ByteRange(0, 999), Collector(0)))
        assert error.fault is Fault.WRONG_RANGE
        error = await refused(PeerError, lane.fetch(ByteRange(0, 999), Collector(0)))
        assert error.fault is Fault.WRONG_RANGE

    @_on_rig
    async def test_closing_a_lane_cancels_what_is_under_way(self, rig: PeersRig) -> None:
        data = pattern(4 * MIB)
        lane = rig.client.lane(rig.them, rig.hold(data), len(data))
        running = [
            Deferred.fromCoroutine(lane.fetch(ByteRange(at, at + 2 * MIB), Collector(at)))
            for at in (0, 2 * MIB)
        ]
        lane.close()
        for each in running:
            assert await _cancelled(each)
        assert await _cancelled(Deferred.fromCoroutine(lane.fetch(ByteRange(0, 1), Collector(0))))

    @_on_rig
    async def test_cancelling_one_fetch_keeps_the_other(self, rig: PeersRig) -> None:
        data = pattern(4 * MIB)
        spans = ByteRange(0, 2 * MIB), ByteRange(2 * MIB, 4 * MIB)
        for victim in (0, 1):
            lane = rig.client.lane(rig.them, rig.hold(data), len(data))
            sinks = [Collector(span.start) for span in spans]
            running = [
                Deferred.fromCoroutine(lane.fetch(span, sink))
                for span, sink in zip(spans, sinks, strict=True)
            ]
            running[victim].cancel()
            assert await _cancelled(running[victim])
            await running[1 - victim]
            span = spans[1 - victim]
            assert bytes(sinks[1 - victim].data) == data[span.start : span.stop]
            sink = Collector(0)
            await lane.fetch(ByteRange(0, 10), sink)
            assert bytes(sink.data) == data[:10]
            lane.close()

    @_on_rig
    async def test_what_the_sink_raises_comes_out(self, rig: PeersRig) -> None:
        def full(offset: int, views: Sequence[memoryview]) -> None:
            raise StoreFailed("no room")

        lane = rig.client.lane(rig.them, rig.hold(pattern(MIB)), MIB)
        await refused(StoreFailed, lane.fetch(ByteRange(0, MIB), full))
        assert await _cancelled(Deferred.fromCoroutine(lane.fetch(ByteRange(0, 1), Collector(0))))

    @_on_rig
    async def test_a_paused_lane_goes_on_where_it_was(self, rig: PeersRig) -> None:
        data = pattern(4 * MIB)
        lane = rig.client.lane(rig.them, rig.hold(data), len(data))
        sink = Collector(0)
        paused: Deferred[None] = Deferred()

        def stop_once(offset: int, views: Sequence[memoryview]) -> None:
            sink(offset, views)
            if not paused.called:
                lane.pause()
                paused.callback(None)

        running = Deferred.fromCoroutine(lane.fetch(ByteRange(0, len(data)), stop_once))
        await paused
        for _ in range(3):
            await rig.client.locate(rig.them, Digest.of(b"time passes"))
        assert 0 < len(sink.data) < len(data)
        lane.resume()
        await running
        assert bytes(sink.data) == data
        lane.close()

    # -- samples ------------------------------------------------------------------

    @_on_rig
    async def test_a_few_bytes_of_what_they_have(self, rig: PeersRig) -> None:
        data = pattern(3 * MIB)
        digest = rig.hold(data)
        for start, stop in ((0, 1), (MIB - 7, MIB + 9000), (len(data) - 1, len(data))):
            given = await rig.client.sample(rig.them, digest, len(data), ByteRange(start, stop))
            assert given == data[start:stop]
        small = rig.hold(b"small")
        assert await rig.client.sample(rig.them, small, 5, ByteRange(0, 5)) == b"small"

    @_on_rig
    async def test_who_has_not_all_of_it_gives_no_sample(self, rig: PeersRig) -> None:
        data, span = pattern(2 * MIB), ByteRange(10, 20)
        digest = rig.hold_part(data, RangeSet([ByteRange(0, MIB)]))
        for about, size, fault in (
            (digest, len(data), Fault.MISSING),
            (Digest.of(b"?"), len(data), Fault.MISSING),
            (rig.hold(b"another size"), 30, Fault.WRONG_RANGE),
        ):
            error = await refused(PeerError, rig.client.sample(rig.them, about, size, span))
            assert (error.fault, error.peer) == (fault, rig.them.id)

    # -- pushing ------------------------------------------------------------------

    @_on_rig
    async def test_a_pushed_replica_is_there_with_its_names(self, rig: PeersRig) -> None:
        for size in (0, 1, 3 * MIB + 1):
            data = pattern(size, 1)
            assert await rig.client.push(rig.them, info(data, "one", "zwö"), reading(data)) is True
            assert rig.held(Digest.of(data)) == (data, ["one", "zwö"])
            assert await rig.client.push(rig.them, info(data, "one", "zwö"), reading(data)) is False
            assert rig.held(Digest.of(data)) == (data, ["one", "zwö"])

    @_on_rig
    async def test_wrong_bytes_are_refused_and_not_kept(self, rig: PeersRig) -> None:
        data = pattern(2 * MIB)
        error = await refused(PeerError, rig.client.push(rig.them, info(data), reading(pattern(2 * MIB, 1))))
        assert (error.fault, error.detail[:3]) == (Fault.REFUSED, "422")
        assert rig.held(Digest.of(data)) is None

    @_on_rig
    async def test_a_full_peer_says_so(self, rig: PeersRig) -> None:
        rig.fill()
        data = pattern(8 * MIB)
        error = await refused(PeerError, rig.client.push(rig.them, info(data), reading(data)))
        assert (error.fault, error.detail[:3]) == (Fault.REFUSED, "507")

    @_on_rig
    async def test_our_own_disk_is_not_their_fault(self, rig: PeersRig) -> None:
        data = pattern(3 * MIB)

        async def read(offset: int, length: int) -> bytes:
            if offset:
                raise StoreFailed("EIO")
            return data[:length]

        await refused(StoreFailed, rig.client.push(rig.them, info(data), read))
        assert rig.held(Digest.of(data)) is None

    # -- deleting, advising, greeting ------------------------------------------------

    @_on_rig
    async def test_a_tombstone_is_obeyed_by_generation(self, rig: PeersRig) -> None:
        data = pattern(1000)
        digest = rig.hold(data)
        assert await rig.client.delete(rig.them, digest, 2) is True
        assert rig.held(digest) is None
        error = await refused(PeerError, rig.client.push(rig.them, info(data), reading(data), 1))
        assert (error.fault, error.detail[:3]) == (Fault.REFUSED, "410")
        assert await rig.client.push(rig.them, info(data), reading(data), 2) is True
        assert await rig.client.delete(rig.them, digest, 2) is True
        assert rig.held(digest) is not None
        assert await rig.client.delete(rig.them, Digest.of(b"never seen"), 1) is True

    @_on_rig
    async def test_advice_arrives_with_our_name_on_it(self, rig: PeersRig) -> None:
        digest = rig.hold(b"rotten")
        await rig.client.report_corrupt(rig.them, digest, "grain 0: " + "ä" * 2000)
        ((reporter, about, reason),) = rig.reports
        assert (reporter, about) == (rig.us, digest)
        assert reason.startswith("grain 0: ä") and len(reason.encode()) <= 1024
        error = await refused(PeerError, rig.client.report_corrupt(rig.them, Digest.of(b"?"), ""))
        assert error.fault is Fault.MISSING

    @_on_rig
    async def test_a_greeting_proves_who_answers(self, rig: PeersRig) -> None:
        who, document = await rig.client.greet(rig.them.address, True)
        assert who == rig.them.id
        assert document["Name"] == "test"

    @_on_rig
    async def test_another_cluster_is_not_dealt_with(self, rig: PeersRig) -> None:
        stranger = rig.foreign()
        for work in (
            rig.client.greet(stranger.address, True),
            rig.client.locate(stranger, Digest.of(b"")),
            rig.client.push(stranger, info(b"x"), reading(b"x")),
        ):
            assert (await refused(PeerError, work)).fault is Fault.FOREIGN
        lane = rig.client.lane(stranger, Digest.of(b"x"), 1)
        error = await refused(PeerError, lane.fetch(ByteRange(0, 1), Collector(0)))
        assert error.fault is Fault.FOREIGN

    # -- nobody there --------------------------------------------------------------

    @_on_rig
    async def test_somebody_else_at_the_address_is_not_trusted(self, rig: PeersRig) -> None:
        digest = rig.hold(b"x")
        expected = Peer(PeerID(b"e" * 32), "other", rig.them.address)
        error = await refused(PeerError, rig.client.locate(expected, digest))
        assert (error.fault, error.peer) == (Fault.UNTRUSTED, expected.id)
        lane = rig.client.lane(expected, digest, 1)
        error = await refused(PeerError, lane.fetch(ByteRange(0, 1), Collector(0)))
        assert (error.fault, error.peer) == (Fault.UNTRUSTED, expected.id)

    @_on_rig
    async def test_nobody_there(self, rig: PeersRig) -> None:
        digest = rig.hold(b"x")
        assert await rig.client.locate(rig.them, digest) is not None
        await rig.vanish()
        lane = rig.client.lane(rig.them, digest, 1)
        for work in (
            rig.client.locate(rig.them, digest),
            rig.client.midstates(rig.them, digest, 1),
            rig.client.push(rig.them, info(b"y"), reading(b"y")),
            rig.client.delete(rig.them, digest, 1),
            rig.client.report_corrupt(rig.them, digest, ""),
            rig.client.greet(rig.them.address, False),
            lane.fetch(ByteRange(0, 1), Collector(0)),
        ):
            assert (await refused(PeerError, work)).fault is Fault.UNREACHABLE
        error = await refused(PeerError, rig.client.greet(Address("127.0.0.1", 1), True))
        assert (error.fault, error.peer) == (Fault.UNREACHABLE, None)


async def _cancelled(running: Deferred[None]) -> bool:
    try:
        await running
    except CancelledError:
        return True
    return False


def peerclient_contract(make: MakePeers) -> type[PeerClientContract]:
    """The suite of :class:`swarm.interfaces.IPeerClient`."""
    return type("PeerClient", (PeerClientContract,), {"make": staticmethod(make)})

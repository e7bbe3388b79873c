"""The short path between connections and against clients that do not read; what it answers: tests/api."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from zope.interface import implementer

from swarm.interfaces import BlobInfo, IOpenBlob
from swarm.model.digest import Digest
from swarm.testing.wire import Wire
from swarm.web.limits import WebLimits
from swarm.web.short_path import usual
from swarm.web.site import StreamingSite

from .door import Door

SMALL, LARGE = b"s" * 100, b"l" * 20_000


@implementer(IOpenBlob)
class Blob:
    """Bytes in memory."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.info = BlobInfo(Digest(hashlib.sha512(data).digest()), len(data))
        self.size = len(data)
        self.doubted = False
        self.fills = 0
        self.fields = b""
        self.fields_of: object = None

    def current(self) -> bool:
        return True

    def fill(self, buffer: memoryview) -> bool:
        self.fills += 1
        buffer[:] = self.data
        return True

    def in_memory(self) -> int:
        return -1


class Shelf:
    """All blobs, and what there is to say of them."""

    def __init__(self) -> None:
        self.blobs = {blob.info.digest.hex.encode(): blob for blob in (Blob(SMALL), Blob(LARGE))}
        self.forbidden = False

    def opened(self, key: bytes) -> Blob | None:
        return self.blobs.get(key)

    def readable(self) -> bool:
        return not self.forbidden

    def basis(self) -> object:
        return self

    def fields(self, info: BlobInfo) -> bytes:
        return b"Content-Length: %d\r\n\r\n" % info.size


class ShortDoor(Door):
    """A door with a short path."""

    def __init__(self, limits: WebLimits | None = None) -> None:
        super().__init__(limits)
        self.shelf = Shelf()
        self.site = StreamingSite(
            self.leaf,
            admit=self._admit,
            clock=self.clock,
            limits=self.limits,
            observer=self,
            blobs=self.shelf,
            answers=self.shelf,
        )

    def pump(self) -> None:
        """Turns of the reactor, until nothing is to be done at once."""
        while any(call.getTime() <= self.clock.seconds() for call in self.clock.getDelayedCalls()):
            self.clock.advance(0)


def get(data: bytes, *fields: bytes) -> bytes:
    lines = [b"GET /%s HTTP/1.1" % hashlib.sha512(data).hexdigest().encode(), b"Host: h", *fields, b"", b""]
    return b"\r\n".join(lines)


def bodies(wire: Wire) -> list[bytes]:
    return [response.body for response in wire.responses()]


def test_a_client_that_pipelines_lets_others_have_their_turn() -> None:
    door = ShortDoor()
    greedy, modest = door.wire(), door.wire()
    greedy.send(get(SMALL) * 100)
    assert len(bodies(greedy)) == 16 and greedy.paused
    modest.send(get(SMALL))
    assert bodies(modest) == [SMALL]
    door.pump()
    assert len(bodies(greedy)) == 84 and not greedy.paused and door.statuses == [200] * 101


def test_large_blobs_use_a_turn_up_sooner() -> None:
    door = ShortDoor(WebLimits(chunk=len(LARGE)))
    wire = door.wire()
    wire.send(get(LARGE) * 5)
    assert len(bodies(wire)) < 3
    door.pump()
    assert set(bodies(wire)) == {LARGE}


def test_what_comes_while_requests_wait_is_answered_after_them() -> None:
    door = ShortDoor()
    wire = door.wire()
    wire.send(get(SMALL) * 20)
    wire.send(get(LARGE)[:50])
    wire.send(get(LARGE)[50:] + b"GET /odd HTTP/1.1\r\nHost: h\r\n\r\n" + get(SMALL))
    door.pump()
    assert bodies(wire) == [
        *[SMALL] * 20,
        LARGE,
        b"ok /odd",
        b"ok /" + hashlib.sha512(SMALL).hexdigest().encode(),
    ]


def test_nothing_is_made_for_a_client_whose_transport_is_full() -> None:
    door = ShortDoor()
    wire = door.wire(draining=False)
    wire.send(get(LARGE) * 60)
    door.pump()
    held = len(wire.output)
    assert held < (64 << 10) + 2 * len(LARGE) and wire.paused
    taken = 0
    while len(wire.received) < 60 * len(LARGE):
        assert wire.take(10_000), "it goes on when the transport is empty"
        door.pump()
        assert len(wire.output) <= held + len(LARGE)
        taken += 1
    assert bodies(wire) == [LARGE] * 60 and taken > 60


def test_a_client_that_takes_nothing_is_dropped_and_one_that_reads_slowly_is_not() -> None:
    door = ShortDoor()
    slow, stuck = door.wire(draining=False), door.wire(draining=False)
    for wire in (slow, stuck):
        wire.send(get(LARGE) * 60)
    door.pump()
    for _ in range(10):
        door.clock.advance(30)
        slow.take()
        door.pump()
    assert stuck.disconnected and not slow.disconnected
    assert len(slow.received) > 10 * len(LARGE)


def test_between_two_reads_a_connection_may_idle_as_long_as_ever() -> None:
    door = ShortDoor()
    wire = door.wire()
    for _ in range(5):
        wire.send(get(SMALL))
        door.clock.advance(door.limits.idle - 1)
    assert bodies(wire) == [SMALL] * 5
    door.clock.advance(2)
    assert wire.disconnected


def test_a_client_that_leaves_while_requests_wait_leaves_nothing_behind() -> None:
    for draining in (True, False):
        door = ShortDoor()
        wire = door.wire(draining=draining)
        wire.send(get(LARGE) * 60)
        wire.hang_up()
        assert door.clock.getDelayedCalls() == [] and door.site.connections == 0


def test_what_many_ask_for_in_one_turn_is_looked_up_once() -> None:
    door = ShortDoor()
    blob = door.shelf.blobs[hashlib.sha512(SMALL).hexdigest().encode()]
    wires = [door.wire() for _ in range(5)]
    for turn in (1, 2):
        for wire in wires:
            wire.send(get(SMALL))
            assert bodies(wire) == [SMALL]
        assert blob.fills == turn
        door.pump()
    wires[0].send(get(SMALL, b"Accept: */*"))
    assert bodies(wires[0]) == [SMALL] and blob.fills == 3, "other words are another question"
    assert door.statuses == [200] * 11


def test_nothing_is_kept_where_nobody_asks_for_the_same() -> None:
    door = ShortDoor()
    wire = door.wire()
    for _ in range(100):
        wire.send(get(SMALL))
        door.pump()
    wire.send(get(SMALL))
    assert door.clock.getDelayedCalls()[1:] == [], "there is nothing to forget"
    door.clock.advance(1)
    wire.send(get(SMALL))
    assert door.clock.getDelayedCalls()[1:] != [], "it is tried again"


def test_what_is_answered_between_two_turns_is_not_kept_for_the_next() -> None:
    door = ShortDoor()
    blob = door.shelf.blobs[hashlib.sha512(SMALL).hexdigest().encode()]
    wire = door.wire()
    wire.send(get(SMALL) * 17)
    door.pump()
    assert len(bodies(wire)) == 17 and blob.fills == 17
    assert door.clock.getDelayedCalls()[1:] == [], "there is nothing to forget"
    wire.send(get(SMALL))
    assert blob.fills == 18


def test_a_blob_that_changes_within_a_turn_is_not_what_it_was() -> None:
    door = ShortDoor()
    blob = door.shelf.blobs[hashlib.sha512(SMALL).hexdigest().encode()]
    wires = [door.wire() for _ in range(3)]
    wires[0].send(get(SMALL))
    blob.doubted = True
    wires[1].send(get(SMALL))
    assert bodies(wires[1]) == [SMALL] and blob.fills == 2
    door.shelf.blobs.clear()
    wires[2].send(get(SMALL))
    assert bodies(wires[2]) != [SMALL]


def test_an_odd_request_goes_the_full_way_and_the_next_one_the_short() -> None:
    door = ShortDoor()
    wire = door.wire()
    for request, body in (
        (get(SMALL), SMALL),
        (get(SMALL, b"Range: bytes=0-1"), None),
        (get(SMALL), SMALL),
        (get(b"unknown"), None),
        (get(SMALL), SMALL),
    ):
        wire.send(request)
        [said] = bodies(wire)
        assert said == body if body is not None else said.startswith(b"ok /")


def test_nobody_reads_the_short_way_what_needs_a_token() -> None:
    door = ShortDoor()
    door.shelf.forbidden = True
    wire = door.wire()
    wire.send(get(SMALL))
    assert bodies(wire) != [SMALL] and door.leaf.seen


@pytest.mark.parametrize(
    ("fields", "fit"),
    [
        (b"Host: h", True),
        (b"HOST:h:1\r\nuser-agent: x\r\nAccept:\t*/*\r\nConnection: Keep-Alive", True),
        (b"", False),
        (b"Accept: */*", False),
        (b"Host: h\r\nHost: h", False),
        (b"Host:", False),
        (b"Host: a/b", False),
        (b"Host : h", False),
        (b"Host: h\r\n folded", False),
        (b"Host: h\r\nAccept: a\rb", False),
        (b"Host: h\r\nAccept: a\nb", False),
        (b"Host: h\r\nAccept: \xff", False),
        (b"Host: h\r\nConnection: close", False),
        (b"Host: h\r\nRange: bytes=0-", False),
        (b"Host: h\r\nIf-None-Match: *", False),
        (b"Host: h\r\nAuthorization: Bearer x", False),
        (b"Host: h\r\nContent-Length: 0", False),
        (b"Host: h\r\nX-Unknown: 1", False),
    ],
)
def test_only_what_every_client_sends_is_usual(fields: bytes, fit: bool) -> None:
    assert usual(fields) is fit


def test_wordings_are_remembered_in_bounded_number() -> None:
    for number in range(5000):
        usual(b"Host: h%d" % number)
    info: Any = usual.cache_info()
    assert info.currsize <= 512

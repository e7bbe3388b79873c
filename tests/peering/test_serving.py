"""Whose turn it is to be sent bytes of a blob."""

from __future__ import annotations

from collections.abc import Coroutine, Iterator
from typing import Any, ClassVar

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock

from swarm.model.digest import Digest
from swarm.model.peers import PeerID
from swarm.model.ranges import ByteRange
from swarm.peering.limits import PeerLimits
from swarm.peering.serving import Serving
from swarm.web.errors import Refusal

BLOB, SIZE = Digest.of(b"x"), 1000
LIMITS = PeerLimits(per_blob=1, waiting=1, wait=1.0, busy=2, forget=60.0)


def peer(number: int) -> PeerID:
    return PeerID(number.to_bytes(32, "big"))


class Asker:
    """One request: served until told, refused, or waiting."""

    all: ClassVar[list[Asker]] = []

    def __init__(self, serving: Serving, number: int, start: int, *, whole: bool = True) -> None:
        self.state = "waiting"
        self.refusal: Refusal | None = None
        self._end: Deferred[None] = Deferred()
        turn = serving.turn(BLOB, SIZE, peer(number), ByteRange(start, start + 100), whole=whole)
        self._work = Deferred.fromCoroutine(self._run(turn))
        self.all.append(self)
        self._work.addErrback(lambda failure: failure.trap(CancelledError))

    async def _run(self, turn: Any) -> None:
        try:
            async with turn:
                self.state = "served"
                await self._end
            self.state = "done"
        except Refusal as e:
            self.state, self.refusal = "refused", e

    def finish(self) -> None:
        self._end.callback(None)

    def leave(self) -> None:
        self._work.cancel()

    @property
    def fields(self) -> dict[str, str]:
        assert self.refusal is not None
        return dict(self.refusal.fields)


@pytest.fixture(autouse=True)
def _leave_nobody_waiting() -> Iterator[None]:
    yield
    while Asker.all:
        Asker.all.pop().leave()


def test_one_is_served_one_waits_and_a_third_is_told_to_come_again_and_what_others_get() -> None:
    serving = Serving(Clock(), LIMITS)
    assert serving.given(BLOB) is None
    first, second, third = (Asker(serving, number, 100 * number) for number in range(3))
    assert (first.state, second.state, third.state) == ("served", "waiting", "refused")
    assert third.fields == {"Retry-After": "2", "Swarm-Given": "bytes=0-199"}
    first.finish()
    assert (first.state, second.state) == ("done", "served")
    assert serving.given(BLOB) == serving.given(BLOB) == "bytes=0-199"


def test_nobody_waits_for_longer_than_a_moment() -> None:
    clock = Clock()
    serving = Serving(clock, LIMITS)
    first, second = (Asker(serving, number, 100 * number, whole=False) for number in range(2))
    clock.advance(1.0)
    assert (first.state, second.state) == ("served", "refused")
    assert second.fields == {"Retry-After": "2"}, "a partial holder says what it has instead"
    assert serving.given(BLOB) == "bytes=0-99"


def test_who_waits_and_leaves_holds_up_nobody_and_was_given_nothing() -> None:
    clock = Clock()
    serving = Serving(clock, LIMITS)
    first, second = (Asker(serving, number, 100 * number) for number in range(2))
    second.leave()
    third = Asker(serving, 3, 300)
    assert third.state == "waiting"
    first.leave()
    assert third.state == "served"
    assert serving.given(BLOB) == "bytes=0-99,300-399"
    third.finish()
    assert not [each for each in clock.getDelayedCalls() if each.active()]


def test_who_reads_slowly_holds_up_nobody() -> None:
    clock = Clock()
    serving = Serving(clock, LIMITS)
    slow = Asker(serving, 1, 0)
    clock.advance(3.5)
    second = Asker(serving, 2, 100)
    assert second.state == "waiting"
    clock.advance(0.5)
    third = Asker(serving, 3, 200)
    assert (slow.state, second.state, third.state) == ("served", "served", "waiting")
    slow.finish()
    assert third.state == "waiting"
    second.finish()
    assert third.state == "served"


def test_what_others_were_given_already_is_sent_to_who_insists() -> None:
    serving = Serving(Clock(), LIMITS)
    Asker(serving, 1, 0).finish()
    Asker(serving, 2, 0).finish()
    again = Asker(serving, 3, 0)
    assert again.fields == {"Retry-After": "0", "Swarm-Given": "bytes=0-99"}
    assert Asker(serving, 3, 0).state == "served"


def test_a_few_are_sent_what_others_were_given_without_a_word() -> None:
    serving = Serving(Clock(), LIMITS)
    Asker(serving, 1, 0).finish()
    assert Asker(serving, 2, 0).state == "served"


def test_what_was_given_long_ago_counts_no_more() -> None:
    clock = Clock()
    serving = Serving(clock, LIMITS)
    Asker(serving, 1, 0).finish()
    clock.advance(61)
    assert Asker(serving, 2, 0).state == "served"


def test_so_many_blobs_are_remembered_but_none_is_forgotten_that_is_served() -> None:
    serving = Serving(Clock(), LIMITS)
    busy = Asker(serving, 1, 0)

    async def ask(number: int) -> None:
        async with serving.turn(Digest.of(b"%d" % number), SIZE, peer(2), ByteRange(0, 1), whole=True):
            pass

    for number in range(300):
        run(ask(number))
    assert serving.given(BLOB) is not None
    busy.finish()
    for number in range(300):
        run(ask(number))
    assert serving.given(BLOB) is None
    assert len(serving._blobs) == 256


def run(work: Coroutine[Any, Any, None]) -> None:
    done = Deferred.fromCoroutine(work)
    assert done.called

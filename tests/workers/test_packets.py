"""Messages between a node and a worker: whole, in order, with their descriptors; nothing leaks."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from swarm.workers.packets import LONGEST, Packets, pair


class Loop:
    """The little of a reactor that one end needs: who wants to read or write."""

    def __init__(self) -> None:
        self.readers: set[Packets] = set()
        self.writers: set[Packets] = set()
        self.later: list[object] = []
        self.addReader = self.readers.add
        self.removeReader = self.readers.discard
        self.addWriter = self.writers.add
        self.removeWriter = self.writers.discard

    def callLater(self, delay: float, function: object) -> None:
        self.later.append(function)


class End:
    """One end, and what it heard."""

    def __init__(self, end: socket.socket) -> None:
        self.loop = Loop()
        self.heard: list[tuple[bytes, Sequence[int]]] = []
        self.lost = 0
        self.packets = Packets(end, self.loop, self.receive, self.lose)

    def receive(self, message: bytes, descriptors: Sequence[int]) -> None:
        self.heard.append((message, descriptors))

    def lose(self) -> None:
        self.lost += 1

    def read(self) -> None:
        reason = self.packets.doRead()
        if reason is not None:
            self.packets.connectionLost(reason)


def ends() -> tuple[End, End]:
    ours, theirs = pair()
    return End(ours), End(theirs)


@given(st.lists(st.binary(min_size=1, max_size=2000), max_size=30))
def test_messages_come_whole_and_in_order(messages: list[bytes]) -> None:
    a, b = ends()
    for message in messages:
        a.packets.send(message)
    b.read()
    assert [message for message, _ in b.heard] == messages
    a.packets.close()
    b.read()
    assert b.lost == 1 and not b.loop.readers
    b.packets.close()
    assert b.lost == 1


def test_descriptors_come_with_the_message_they_belong_to() -> None:
    a, b = ends()
    read_end, write_end = os.pipe()
    sent: list[str] = []
    a.packets.send(b"before")
    a.packets.send(b"with two", [read_end, write_end], sent=lambda: sent.append("two"))
    a.packets.send(b"after")
    assert sent == ["two"]
    os.close(read_end)
    os.close(write_end)
    b.read()
    assert [message for message, _ in b.heard] == [b"before", b"with two", b"after"]
    assert [len(descriptors) for _, descriptors in b.heard] == [0, 2, 0]
    theirs_read, theirs_write = b.heard[1][1]
    assert not os.get_inheritable(theirs_read)
    os.write(theirs_write, b"through")
    assert os.read(theirs_read, 100) == b"through"
    os.close(theirs_read)
    os.close(theirs_write)
    a.packets.close()
    b.packets.close()


def test_what_the_kernel_does_not_take_waits_and_keeps_its_order() -> None:
    a, b = ends()
    sent: list[int] = []
    count = 40
    for index in range(count):
        a.packets.send(bytes([index]) * LONGEST, sent=lambda index=index: sent.append(index))  # type: ignore[misc]
    assert a.packets in a.loop.writers and len(sent) < count
    told: list[str] = []
    a.packets.when_empty(lambda: told.append("empty"))
    while a.packets in a.loop.writers:
        assert not told
        b.read()
        a.packets.doWrite()
    b.read()
    assert sent == list(range(count)) and told == ["empty"]
    assert [message[0] for message, _ in b.heard] == list(range(count))
    a.packets.close()
    b.packets.close()


def test_an_end_that_takes_nothing_is_crowded() -> None:
    a, b = ends()
    assert not a.packets.crowded
    for _ in range(1000):
        a.packets.send(b"x" * 10_000)
    assert a.packets.crowded
    a.packets.close()
    b.packets.close()


def test_closing_lets_go_of_what_was_not_sent() -> None:
    a, b = ends()
    sent: list[int] = []
    for index in range(100):
        a.packets.send(b"x" * LONGEST, sent=lambda index=index: sent.append(index))  # type: ignore[misc]
    a.packets.close()
    assert sent == list(range(100))
    a.packets.send(b"late", sent=lambda: sent.append(100))
    assert sent[-1] == 100
    b.packets.close()


def test_an_end_that_is_gone_is_heard_of_once_and_sending_to_it_is_harmless() -> None:
    a, b = ends()
    b.packets.send(b"last words")
    b.packets.close()
    a.packets.send(b"to nobody")
    a.read()
    assert [message for message, _ in a.heard] == [b"last words"]
    assert a.lost == 1
    a.packets.send(b"to nobody")
    a.packets.close()

"""Simulated UDP does what datagrams do: each receiver, by itself, loses, doubles and reorders them."""

from __future__ import annotations

import errno
from random import Random
from typing import Any

import pytest
from twisted.internet.error import (
    CannotListenError,
    InvalidAddressError,
    MessageLengthError,
    MulticastJoinError,
)
from twisted.internet.interfaces import IListeningPort, IMulticastTransport, IReactorMulticast, IReactorUDP
from twisted.internet.protocol import DatagramProtocol
from zope.interface.verify import verifyObject

from swarm.testing.simulation.datagrams import LONGEST, UNREAD, DatagramSocket, Weather
from swarm.testing.simulation.network import Network
from swarm.testing.simulation.reactor import SimReactor
from swarm.testing.simulation.timeline import Timeline

GROUP = "239.1.2.3"
PORT = 7042


class Ear(DatagramProtocol):
    """Notes what it hears."""

    noisy = False
    transport: DatagramSocket

    def __init__(self) -> None:
        self.heard: list[tuple[bytes, tuple[str, int]]] = []
        self.refused = 0
        self.stopped = False

    @property
    def said(self) -> list[bytes]:
        return [data for data, _ in self.heard]

    def datagramReceived(self, datagram: bytes, addr: tuple[str, int]) -> None:
        self.heard.append((datagram, addr))

    def connectionRefused(self) -> None:
        self.refused += 1

    def stopProtocol(self) -> None:
        self.stopped = True


class Hosts:
    """Three hosts with a socket each, all in one group."""

    def __init__(self, seed: int = 0, weather: Weather = Weather(), *, shared: bool = False) -> None:  # noqa: B008 - a value
        self.timeline = Timeline(seed)
        self.network = Network(self.timeline, Random(seed))
        self.network.datagrams.weather = weather
        self.processes = [
            SimReactor(name, self.network, self.network.add(name), random=Random(seed)) for name in "abc"
        ]
        self.ears = [self.listen(process, shared=shared) for process in self.processes]

    def listen(self, process: SimReactor, *, shared: bool = False, group: str | None = GROUP) -> Ear:
        ear = Ear()
        process.listenMulticast(PORT, ear, listenMultiple=shared)
        if group is not None:
            ear.transport.joinGroup(group)
        return ear

    def ip(self, number: int) -> str:
        return self.processes[number].host.ip

    def wait(self, seconds: float = 5.0) -> None:
        self.timeline.until(most=seconds)


def test_it_is_what_twisted_says_a_transport_and_a_reactor_are() -> None:
    hosts = Hosts()
    transport = hosts.ears[0].transport
    verifyObject(IMulticastTransport, transport)
    verifyObject(IListeningPort, transport)
    verifyObject(IReactorUDP, hosts.processes[0])
    verifyObject(IReactorMulticast, hosts.processes[0])
    assert (transport.getTTL(), transport.getLoopbackMode()) == (1, True)
    assert transport.getHost().port == PORT


def test_a_datagram_comes_whole_with_the_address_it_was_sent_from() -> None:
    hosts = Hosts()
    a, b, c = hosts.ears
    for size in (0, 1, 8192):
        a.transport.write(bytes(size), (hosts.ip(1), PORT))
    hosts.wait()
    assert {(len(data), source) for data, source in b.heard} == {
        (size, (hosts.ip(0), PORT)) for size in (0, 1, 8192)
    }
    assert a.heard == c.heard == []


def test_a_group_hears_it_on_every_host_the_senders_own_only_if_it_wants_to() -> None:
    hosts = Hosts()
    a, b, c = hosts.ears
    a.transport.write(b"all", (GROUP, PORT))
    hosts.wait()
    assert a.said == b.said == c.said == [b"all"]
    a.transport.setLoopbackMode(False)
    a.transport.write(b"others", (GROUP, PORT))
    hosts.wait()
    assert (a.said, b.said[1:], c.said[1:]) == ([b"all"], [b"others"], [b"others"])


def test_only_members_hear_a_group_and_only_until_they_leave() -> None:
    hosts = Hosts()
    a, b, c = hosts.ears
    b.transport.leaveGroup(GROUP)
    c.transport.leaveGroup(GROUP)
    c.transport.joinGroup("239.9.9.9")
    a.transport.write(b"who?", (GROUP, PORT))
    hosts.wait()
    assert (b.said, c.said) == ([], [])
    failures: list[Any] = []
    for refused in (
        b.transport.leaveGroup(GROUP),
        c.transport.joinGroup("239.9.9.9"),
        c.transport.joinGroup("10.0.0.1"),
    ):
        refused.addErrback(failures.append)
    assert [each.check(MulticastJoinError) is not None for each in failures] == [True] * 3


def test_with_a_ttl_of_one_a_group_ends_at_the_router() -> None:
    hosts = Hosts()
    a, b, c = hosts.ears
    hosts.processes[2].host.segment = 1
    a.transport.write(b"near", (GROUP, PORT))
    hosts.wait()
    a.transport.setTTL(2)
    a.transport.write(b"far", (GROUP, PORT))
    hosts.wait()
    a.transport.setTTL(0)
    a.transport.write(b"here", (GROUP, PORT))
    hosts.wait()
    assert (a.said, b.said, c.said) == ([b"near", b"far", b"here"], [b"near", b"far"], [b"far"])


def test_sockets_may_share_a_port_and_then_all_of_them_hear_a_group_and_one_hears_the_rest() -> None:
    hosts = Hosts(shared=True)
    second = hosts.listen(hosts.processes[1], shared=True)
    hosts.ears[0].transport.write(b"group", (GROUP, PORT))
    hosts.ears[0].transport.write(b"one", (hosts.ip(1), PORT))
    hosts.wait()
    assert hosts.ears[1].said == [b"group"]
    assert sorted(second.said) == [b"group", b"one"]
    with pytest.raises(CannotListenError):
        hosts.listen(hosts.processes[1])
    with pytest.raises(CannotListenError):
        hosts.processes[1].listenUDP(PORT, Ear())


def test_each_receiver_loses_its_own() -> None:
    hosts = Hosts(weather=Weather(lost=0.3))
    a, b, c = hosts.ears
    for number in range(300):
        a.transport.write(b"%d" % number, (GROUP, PORT))
    hosts.wait()
    assert a.said == [b"%d" % number for number in range(300)]  # not on its own host
    assert 150 < len(b.said) < 270 > len(c.said) > 150
    assert set(b.said) != set(c.said)


def test_some_come_twice() -> None:
    hosts = Hosts(weather=Weather(twice=0.3))
    a, b, _ = hosts.ears
    for number in range(300):
        a.transport.write(b"%d" % number, (hosts.ip(1), PORT))
    hosts.wait()
    assert len(set(b.said)) == 300
    assert 330 < len(b.said) < 450


def test_some_come_late_and_others_overtake_them() -> None:
    hosts = Hosts(weather=Weather(late=0.3))
    a, b, c = hosts.ears
    sent = [b"%d" % number for number in range(100)]
    for each in sent:
        a.transport.write(each, (GROUP, PORT))
        hosts.wait(0.01)
    hosts.wait()
    assert sorted(b.said) == sorted(c.said) == sorted(sent)
    assert sent != b.said != c.said != sent


def test_a_cut_loses_them_for_good_and_one_way() -> None:
    hosts = Hosts()
    a, b, c = hosts.ears
    hosts.network.cut(["a"], ["b"])
    a.transport.write(b"lost", (GROUP, PORT))
    b.transport.write(b"back", (hosts.ip(0), PORT))
    hosts.wait()
    hosts.network.heal()
    hosts.wait()
    assert (a.said, b.said, c.said) == ([b"lost", b"back"], [], [b"lost"])


@pytest.mark.parametrize("power", [True, False])
def test_a_process_that_dies_takes_its_sockets_along_and_no_others(*, power: bool) -> None:
    hosts = Hosts()
    a, b, c = hosts.ears
    a.transport.write(b"on its way", (hosts.ip(1), PORT))
    hosts.network.end(hosts.processes[1], power=power)
    hosts.wait()
    a.transport.write(b"after", (GROUP, PORT))
    hosts.wait()
    assert (b.said, c.said) == ([], [b"after"])
    assert not hosts.network.listens(hosts.processes[1])
    assert hosts.network.listens(hosts.processes[2])
    again = SimReactor("b again", hosts.network, hosts.processes[1].host, random=Random(0))
    hosts.network.boot(again.host)
    reborn = hosts.listen(again)
    a.transport.write(b"again", (GROUP, PORT))
    hosts.wait()
    assert reborn.said == [b"again"]


def test_a_stopped_process_reads_later_what_its_kernel_had_room_for() -> None:
    hosts = Hosts()
    a, b, _ = hosts.ears
    hosts.processes[1].stopped = 60.0
    for _ in range(10):
        a.transport.write(bytes(60_000), (hosts.ip(1), PORT))
    hosts.wait(50.0)
    assert b.heard == []
    hosts.wait(50.0)
    assert [len(each) for each in b.said] == [8192] * (UNREAD // 60_000)  # cut to what it asked for


def test_a_connected_socket_hears_its_peer_only_and_that_nobody_is_there() -> None:
    hosts = Hosts()
    a, b, c = hosts.ears
    mine = Ear()
    hosts.processes[0].listenUDP(0, mine)
    mine.transport.connect(hosts.ip(1), PORT)
    mine.transport.write(b"hello")
    hosts.wait()
    (_, me), *_ = b.heard
    b.transport.write(b"you", me)
    c.transport.write(b"me, too", me)
    hosts.wait()
    assert mine.said == [b"you"]
    b.transport.stopListening()
    hosts.wait()
    assert b.stopped
    mine.transport.write(b"still there?")
    hosts.wait()
    assert mine.refused == 1
    a.transport.write(b"nobody says so to one without a peer", (hosts.ip(1), PORT))
    hosts.wait()
    assert a.refused == 0
    with pytest.raises(RuntimeError):
        mine.transport.connect(hosts.ip(2), PORT)


def test_what_cannot_be_sent() -> None:
    hosts = Hosts()
    transport = hosts.ears[0].transport
    with pytest.raises(InvalidAddressError):
        transport.write(b"", ("a.example", PORT))
    with pytest.raises(MessageLengthError):
        transport.write(bytes(LONGEST + 1), (hosts.ip(1), PORT))
    with pytest.raises(OSError, match="denied") as refused:
        transport.write(b"", ("<broadcast>", PORT))
    assert refused.value.errno == errno.EACCES
    transport.setBroadcastAllowed(True)
    transport.write(b"everybody", ("<broadcast>", PORT))
    hosts.wait()
    assert hosts.ears[1].said == hosts.ears[2].said == [b"everybody"]


def test_the_same_seed_is_the_same_weather() -> None:
    def heard(seed: int) -> list[Any]:
        hosts = Hosts(seed, Weather(0.2, 0.2, 0.2))
        for number in range(50):
            hosts.ears[0].transport.write(b"%d" % number, (GROUP, PORT))
        hosts.wait()
        return [ear.heard for ear in hosts.ears]

    assert heard(1) == heard(1) != heard(2)

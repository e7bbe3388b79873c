"""A learned name is dialled only at addresses that are fit, whatever it resolves to."""

from __future__ import annotations

import ipaddress

from twisted.internet.address import IPv4Address
from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.error import DNSLookupError
from twisted.internet.interfaces import IHostnameResolver, IHostResolution
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import MemoryReactorClock
from zope.interface import implementer

from swarm.core.addresses import AddressPolicy
from swarm.peering.resolving import CarefulReactor


@implementer(IHostResolution)
class _Resolution:
    def __init__(self, name: str) -> None:
        self.name = name

    def cancel(self) -> None:
        """Nothing is under way."""


@implementer(IHostnameResolver)
class _Names:
    def __init__(self, addresses: list[str]) -> None:
        self.addresses = addresses

    def resolveHostName(self, receiver, hostName, portNumber=0, addressTypes=None, transportSemantics="TCP"):  # type: ignore[no-untyped-def]
        receiver.resolutionBegan(_Resolution(hostName))
        for each in self.addresses:
            receiver.addressResolved(IPv4Address("TCP", each, portNumber))
        receiver.resolutionComplete()


def dialled(addresses: list[str], policy: AddressPolicy) -> tuple[list[str], object]:
    """Where connections are made to a name with these addresses, and how it ended if at once."""
    reactor = MemoryReactorClock()
    reactor.installNameResolver(_Names(addresses))
    outcome: list[object] = []
    HostnameEndpoint(CarefulReactor(reactor, policy.refuse_ip), b"peer.example", 7041).connect(
        Factory.forProtocol(Protocol)
    ).addErrback(lambda failure: outcome.append(failure.type))
    reactor.advance(1)
    return [client[0] for client in reactor.tcpClients], outcome[0] if outcome else None


def test_a_fit_address_is_dialled() -> None:
    assert dialled(["192.0.2.7"], AddressPolicy()) == (["192.0.2.7"], None)


def test_unfit_addresses_of_a_name_are_passed_over() -> None:
    assert dialled(["127.0.0.1", "192.0.2.7", "169.254.169.254"], AddressPolicy())[0] == ["192.0.2.7"]


def test_a_name_with_unfit_addresses_only_is_as_good_as_unknown() -> None:
    assert dialled(["169.254.169.254", "127.0.0.1"], AddressPolicy()) == ([], DNSLookupError)


def test_loopback_is_fit_where_we_live_there() -> None:
    assert ipaddress.ip_address("127.0.0.1").is_loopback
    assert dialled(["127.0.0.1"], AddressPolicy(loopback=True))[0] == ["127.0.0.1"]

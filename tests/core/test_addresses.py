from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.core.addresses import AddressPolicy, is_loopback
from swarm.errors import Malformed
from swarm.model.peers import Address

POLICY = AddressPolicy(own=frozenset([Address("10.0.0.1", 7041)]))


@pytest.mark.parametrize(
    "text",
    [
        "10.0.0.1:7041",  # our own
        "127.0.0.1:7041",
        "127.99.0.1:7041",
        "[::1]:7041",
        "localhost:7041",
        "LOCALHOST:7041",
        "a.localhost:7041",
        "0.0.0.0:7041",
        "[::]:7041",
        "0.1.2.3:7041",
        "169.254.169.254:80",
        "[fe80::1]:7041",
        "[fe80::1%eth0]:7041",
        "[2001:db8::1%eth0]:7041",
        "224.0.0.1:7041",
        "[ff02::1]:7041",
        "255.255.255.255:7041",
        "240.0.0.1:7041",
        "100.100.100.200:80",
        "[fd00:ec2::254]:80",
        "[::ffff:127.0.0.1]:7041",
        "[::ffff:10.0.0.2]:7041",
        "[::127.0.0.1]:7041",
        "[64:ff9b::7f00:1]:7041",
        "[2002:7f00:1::]:7041",
        "0x7f.1:7041",
        "0x7f000001:7041",
        "127.1:7041",
        "2130706433:7041",
        "0177.0.0.1:7041",
        "node.0x7f:7041",
        "node.1:7041",
    ],
)
def test_dangerous_and_odd_addresses_are_refused_when_learned(text: str) -> None:
    assert POLICY.refuse(Address.parse(text)) is not None


@pytest.mark.parametrize("host", ["127.0.0.1.", "0x7f.0.0.1.", "1.", "0X7F"])
def test_numbers_with_a_trailing_dot_are_refused_too(host: str) -> None:
    """The address parser lets no trailing dot through; the policy does not rely on it."""
    assert POLICY.refuse(Address(host, 7041)) is not None


@pytest.mark.parametrize(
    "text",
    [
        "10.0.0.1:7042",
        "10.0.0.2:7041",
        "192.168.1.9:7041",
        "8.8.8.8:7041",
        "[2001:db8::7]:7041",
        "[fd12::7]:7041",
        "node2:7041",
        "node2.example.org:7041",
        "0x7g:7041",
    ],
)
def test_ordinary_addresses_may_be_dialled(text: str) -> None:
    assert POLICY.refuse(Address.parse(text)) is None


@pytest.mark.parametrize("text", ["127.0.0.1:7041", "[::1]:7041", "localhost:7041", "a.localhost:7041"])
def test_a_node_on_loopback_meets_its_peers_there(text: str) -> None:
    assert AddressPolicy(loopback=True).refuse(Address.parse(text)) is None


def test_an_allow_list_of_networks_is_all_there_is() -> None:
    policy = AddressPolicy(
        networks=(ipaddress.ip_network("10.1.0.0/16"), ipaddress.ip_network("fd12::/16")), names=False
    )
    assert policy.refuse(Address.parse("10.1.2.3:1")) is None
    assert policy.refuse(Address.parse("[fd12::1]:1")) is None
    assert policy.refuse(Address.parse("10.2.2.3:1")) is not None
    assert policy.refuse(Address.parse("[fd13::1]:1")) is not None
    assert policy.refuse(Address.parse("node2:1")) == "it is a name"


def test_what_a_name_resolves_to_is_judged_like_a_literal() -> None:
    assert POLICY.refuse_ip(ipaddress.ip_address("169.254.169.254")) is not None
    assert POLICY.refuse_ip(ipaddress.ip_address("10.0.0.7")) is None


def test_loopback_is_known_by_number_and_by_name() -> None:
    for text, expected in [("127.0.0.1:1", True), ("localhost:1", True), ("[::1]:1", True), ("a:1", False)]:
        assert is_loopback(Address.parse(text)) is expected


@given(st.ip_addresses(), st.integers(1, 65535))
def test_every_ip_is_decided_and_no_refused_kind_gets_through(
    ip: ipaddress.IPv4Address | ipaddress.IPv6Address, port: int
) -> None:
    if POLICY.refuse(Address(str(ip), port)) is None:
        assert not (ip.is_loopback or ip.is_link_local or ip.is_multicast or ip.is_unspecified)


@given(st.text(max_size=30))
def test_any_text_is_either_no_address_or_decided(text: str) -> None:
    try:
        address = Address.parse(f"{text}:7041")
    except Malformed:
        return
    POLICY.refuse(address)

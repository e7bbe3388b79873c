from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.errors import Fault, Malformed, PeerError
from swarm.model.holdings import Holding
from swarm.model.peers import Address, Peer, PeerID, parse_node_name
from swarm.model.ranges import RangeSet

peer_ids = st.binary(min_size=32, max_size=32).map(PeerID)


@given(peer_ids)
def test_an_identity_is_read_back(peer: PeerID) -> None:
    assert PeerID.parse(peer.hex) == PeerID.parse(peer.hex.upper()) == PeerID.parse(str(peer)) == peer
    assert peer.hex.startswith(peer.short) and peer.short in repr(peer)


def test_an_identity_is_printed_as_it_is_read() -> None:
    assert str(PeerID(b"\x0f" * 32)) == "0f" * 32


@pytest.mark.parametrize("text", ["", "0" * 63, "0" * 65, "g" * 64, "0" * 64 + "\n", "٠" * 64])
def test_anything_but_64_hex_digits_is_no_identity(text: str) -> None:
    with pytest.raises(Malformed):
        PeerID.parse(text)


class TestAddress:
    @given(st.ip_addresses(), st.integers(1, 65535))
    def test_ip_addresses_are_read_back(
        self, ip: ipaddress.IPv4Address | ipaddress.IPv6Address, port: int
    ) -> None:
        address = Address(str(ip), port)
        assert Address.parse(str(address)) == address

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("node:1", Address("node", 1)),
            (" Node.Example.ORG:65535\n", Address("node.example.org", 65535)),
            ("_srv.a-b:7041", Address("_srv.a-b", 7041)),
            ("[2001:DB8:0::1]:80", Address("2001:db8::1", 80)),
            ("a:007041", Address("a", 7041)),
            ("[fe80::1%eth0.5]:80", Address("fe80::1%eth0.5", 80)),
        ],
    )
    def test_host_and_port(self, text: str, expected: Address) -> None:
        assert Address.parse(text) == expected

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "node",
            ":7041",
            "node:",
            "node:0",
            "node:65536",
            "node:-1",
            "node:+1",
            "node:1x",
            "node:0000801111",  # fuzzing: only the first six digits were looked at
            "node:000080" + "1" * 5000,
            "[fe80::1%eth0\n]:80",  # fuzzing: ipaddress takes any zone
            "[fe80::1%\x01]:80",
            "[fe80::1%a b]:80",
            "node:٧",
            "node:" + "9" * 5000,
            "::1:80",
            "[::1]",
            "[::1:80",
            "[10.0.0.1]:80",
            "[zz]:80",
            "a b:80",
            "-a:80",
            "a-:80",
            "a..b:80",
            "a/b:80",
            "u@a:80",
            "é:80",
            "a" * 64 + ":80",
            ".".join(["a" * 60] * 5) + ":80",
        ],
    )
    def test_anything_else_is_refused(self, text: str) -> None:
        with pytest.raises(Malformed):
            Address.parse(text)

    @given(st.text(max_size=60))
    def test_any_text_is_refused_or_read_back(self, text: str) -> None:
        for candidate in (text, f"{text}:80", f"[{text}]:80"):
            try:
                address = Address.parse(candidate)
            except Malformed:
                continue
            assert Address.parse(str(address)) == address


@pytest.mark.parametrize("name", ["a", "node-1", "Büro", "x" * 64, "a~b", "a:b"])
def test_names_of_nodes(name: str) -> None:
    assert parse_node_name(name) == name


@pytest.mark.parametrize(
    "name", ["", "x" * 65, "a b", "a\n", "\x00", "a/b", 'a"b', "a'b", "a\\b", "<a", "a>", "a&b", "a,b", "a;b"]
)
def test_names_that_need_quoting_somewhere_are_refused(name: str) -> None:
    with pytest.raises(Malformed):
        parse_node_name(name)


@pytest.mark.parametrize(
    "name", ["a\u2028b", "a\u202eb", "\u200b", "a\xa0b", "a\x85b", "\ud800", "\ufeffa", "\u3000"]
)
def test_names_with_invisible_or_direction_changing_characters_are_refused(name: str) -> None:
    """One node's name must not be mistaken for another's, nor break a line of a log or a header."""
    with pytest.raises(Malformed):
        parse_node_name(name)


def test_a_holding_is_complete_unless_it_names_ranges() -> None:
    peer = Peer(PeerID(bytes(32)), "a", Address("a", 1))
    assert Holding(peer, 5).complete and not Holding(peer, 5, RangeSet()).complete


def test_errors_about_peers_say_who_and_what() -> None:
    peer = PeerID(bytes(32))
    assert str(PeerError(peer, Fault.BUSY, "later")) == "000000000000: busy (later)"
    assert str(PeerError(None, Fault.SILENT)) == "unknown peer: silent"

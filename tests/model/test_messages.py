from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.errors import Malformed
from swarm.model.messages import (
    DOCUMENT_LIMIT,
    GREETING_LIMIT,
    MOST_ADDRESSES,
    ClusterDocument,
    Greeting,
    Node,
    advertised_address,
    parse_advertised,
)
from swarm.model.peers import Address, PeerID

visible = st.characters(exclude_categories=("C", "Z"), exclude_characters="/\\\"'<>&,;")
names = st.text(visible, min_size=1, max_size=64)
hosts = st.one_of(st.just(""), st.from_regex(r"[a-z0-9]{1,9}(\.[a-z]{1,5})?", fullmatch=True))
ports = st.integers(1, 65535)
addresses = st.one_of(
    st.builds("{}:{}".format, hosts, ports), st.builds("[{}]:{}".format, st.ip_addresses(v=6), ports)
)
public = st.one_of(st.just(""), addresses)
several = st.lists(addresses, min_size=1, max_size=MOST_ADDRESSES, unique_by=parse_advertised)
greetings = st.builds(
    lambda name, public, where, full: Greeting(name, public, where[0], full, tuple(where[1:])),
    names,
    public,
    several,
    st.booleans(),
)
nodes = st.builds(
    lambda name, peer, public, where, seen: Node(name, peer, public, where[0], seen, tuple(where[1:])),
    names,
    st.binary(min_size=32, max_size=32).map(PeerID),
    public,
    several,
    st.integers(0, 2**53),
)
documents = st.builds(
    ClusterDocument, names, nodes, st.lists(nodes, max_size=5, unique_by=lambda node: node.name).map(tuple)
)
json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)


class TestAdvertised:
    @pytest.mark.parametrize(
        ("text", "seen", "expected"),
        [
            ("node:1", "10.0.0.9", Address("node", 1)),
            ("10.0.0.1:1", "10.0.0.9", Address("10.0.0.1", 1)),
            (":7041", "10.0.0.9", Address("10.0.0.9", 7041)),
            ("0.0.0.0:7041", "10.0.0.9", Address("10.0.0.9", 7041)),
            ("[::]:7041", "2001:db8::1", Address("2001:db8::1", 7041)),
        ],
    )
    def test_the_address_seen_stands_in_for_a_missing_host(
        self, text: str, seen: str, expected: Address
    ) -> None:
        assert advertised_address(parse_advertised(text), seen) == expected

    @pytest.mark.parametrize("text", ["", ":", "node", ":0", ":65536", ":1:2", ":x", "::1", "a b:1", ":1 "])
    def test_anything_else_is_refused(self, text: str) -> None:
        if text != ":1 ":
            with pytest.raises(Malformed):
                parse_advertised(text)
        else:
            assert parse_advertised(text) == ":1"

    def test_a_peer_seen_nowhere_needs_a_host(self) -> None:
        with pytest.raises(Malformed):
            advertised_address(":7041", "")


class TestGreeting:
    @given(greetings)
    def test_is_read_back(self, greeting: Greeting) -> None:
        assert Greeting.decode(greeting.encode()) == greeting

    def test_the_form_is_the_contract(self) -> None:
        assert (
            Greeting("a", "h:1", "h:2", True).encode()
            == b"name=a&public-addr=h%3A1&mgmt-addr=h%3A2&request-full-update=true"
        )

    def test_an_update_is_asked_for_only_by_those_who_want_one(self) -> None:
        assert Greeting("a", "", "h:2").encode() == b"name=a&public-addr=&mgmt-addr=h%3A2"

    def test_several_addresses_are_told_the_preferred_one_first(self) -> None:
        greeting = Greeting("a", "", "h:2", True, (":3", "g:4"))
        form = b"name=a&public-addr=&mgmt-addr=h%3A2&mgmt-addr=%3A3&mgmt-addr=g%3A4&request-full-update=true"
        assert greeting.encode() == form
        assert Greeting.decode(form) == greeting

    def test_fields_of_newer_nodes_are_skipped(self) -> None:
        form = b"name=a&public-addr=&mgmt-addr=h:2&request-full-update=false&color=red"
        assert Greeting.decode(form) == Greeting("a", "", "h:2")

    @pytest.mark.parametrize(
        "form",
        [
            b"",
            b"name",
            b"name=a&public-addr=",
            b"name=a&mgmt-addr=h:2",
            b"public-addr=&mgmt-addr=h:2",
            b"name=a&name=a&public-addr=&mgmt-addr=h:2",
            b"name=a&public-addr=&mgmt-addr=h:2&mgmt-addr=h:2",
            b"name=a&public-addr=&mgmt-addr=h:2&mgmt-addr=",
            b"name=a&public-addr=&mgmt-addr=h:1&mgmt-addr=h:2&mgmt-addr=h:3&mgmt-addr=h:4",
            b"name=a&public-addr=&public-addr=&mgmt-addr=h:1&mgmt-addr=h:2",
            b"name=&public-addr=&mgmt-addr=h:2",
            b"name=a%0Ab&public-addr=&mgmt-addr=h:2",
            b"name=%ff&public-addr=&mgmt-addr=h:2",
            b"name=\xc3\xa4&public-addr=&mgmt-addr=h:2",
            b"name=a&public-addr=&mgmt-addr=",
            b"name=a&public-addr=&mgmt-addr=7041",
            b"name=a&public-addr=x&mgmt-addr=h:2",
            b"name=a&public-addr=&mgmt-addr=h:2&request-full-update=1",
            b"name=a&public-addr=&mgmt-addr=h:2&" + b"&".join(b"x%d=1" % n for n in range(20)),
            b"name=a&public-addr=&mgmt-addr=h:2&x=" + b"x" * GREETING_LIMIT,
            b"{}",
        ],
    )
    def test_anything_else_is_refused(self, form: bytes) -> None:
        with pytest.raises(Malformed):
            Greeting.decode(form)

    @given(st.binary(max_size=200))
    def test_any_bytes_are_a_greeting_or_malformed(self, data: bytes) -> None:
        for form in (data, b"name=a&public-addr=&mgmt-addr=" + data):
            try:
                greeting = Greeting.decode(form)
            except Malformed:
                continue
            assert Greeting.decode(greeting.encode()) == greeting

    @given(st.tuples(*[st.text(st.characters(codec="utf-8"), max_size=30)] * 4))
    def test_any_fields_are_a_greeting_or_malformed(self, fields: tuple[str, ...]) -> None:
        keys = ("name", "public-addr", "mgmt-addr", "request-full-update")
        try:
            Greeting.decode(urlencode(dict(zip(keys, fields, strict=True))).encode())
        except Malformed:
            return


class TestClusterDocument:
    me = Node("me", PeerID(bytes(32)), "h:1", "h:2", 7)

    @given(documents)
    def test_is_read_back(self, document: ClusterDocument) -> None:
        assert ClusterDocument.decode(document.encode()) == document
        assert ClusterDocument.from_json(document.to_json()) == document

    def test_the_document_is_the_contract(self) -> None:
        me = {"Name": "me", "ID": "00" * 32, "PublicAddr": "h:1", "MgmtAddr": "h:2", "LastAlive": 7}
        other = {"Name": "b", "ID": "01" * 32, "PublicAddr": "", "MgmtAddr": ":3", "LastAlive": 0}
        document = ClusterDocument("swarm", self.me, (Node("b", PeerID(b"\x01" * 32), "", ":3"),))
        assert document.to_json() == {"Name": "swarm", "Me": me, "Peers": {"b": other}}
        assert json.loads(document.encode()) == document.to_json()

    def test_several_addresses_are_listed_beside_the_preferred_one(self) -> None:
        value = Node("me", PeerID(bytes(32)), "", "h:2", 7, (":3",)).to_json()
        assert (value["MgmtAddr"], value["MgmtAddrs"]) == ("h:2", ["h:2", ":3"])
        assert Node.from_json(value).others == (":3",)
        assert "MgmtAddrs" not in self.me.to_json()

    def test_what_newer_nodes_say_is_skipped_and_last_alive_may_be_missing(self) -> None:
        value = ClusterDocument("swarm", self.me).to_json()
        value["Color"] = value["Me"]["Color"] = "red"
        del value["Me"]["LastAlive"]
        assert ClusterDocument.from_json(value).me.last_alive == 0

    @pytest.mark.parametrize(
        ("path", "wrong"),
        [
            (("Name",), None),
            (("Name",), ""),
            (("Name",), 5),
            (("Me",), None),
            (("Me",), []),
            (("Me", "Name"), "a b"),
            (("Me", "ID"), "00"),
            (("Me", "ID"), None),
            (("Me", "PublicAddr"), None),
            (("Me", "PublicAddr"), "x"),
            (("Me", "MgmtAddr"), ""),
            (("Me", "MgmtAddrs"), []),
            (("Me", "MgmtAddrs"), "h:2"),
            (("Me", "MgmtAddrs"), ["h:2", 3]),
            (("Me", "MgmtAddrs"), ["h:2", "h"]),
            (("Me", "MgmtAddrs"), ["h:2", "h:2"]),
            (("Me", "MgmtAddrs"), ["h:3", "h:2"]),
            (("Me", "MgmtAddrs"), ["h:2", "h:3", "h:4", "h:5"]),
            (("Me", "LastAlive"), -1),
            (("Me", "LastAlive"), 1.5),
            (("Me", "LastAlive"), True),
            (("Me", "LastAlive"), None),
            (("Me", "LastAlive"), 2**53 + 1),
            (("Peers",), None),
            (("Peers",), []),
            (("Peers", "b"), None),
            (("Peers", "b"), ClusterDocument("c", me).to_json()["Me"]),
            (("Peers",), {f"n{n}": None for n in range(2049)}),
        ],
    )
    def test_a_wrong_value_anywhere_is_refused(self, path: tuple[str, ...], wrong: object) -> None:
        value: Any = ClusterDocument("swarm", self.me).to_json()
        table = value
        for key in path[:-1]:
            table = table[key]
        table[path[-1]] = wrong
        with pytest.raises(Malformed):
            ClusterDocument.from_json(value)

    @pytest.mark.parametrize(
        "data",
        [
            b"",
            b"{}",
            b"[]",
            b"null",
            b"\xff",
            b'{"Name":"a","Name":"a"}',
            b'{"Name":"a","Me":{"LastAlive":' + b"9" * 5000 + b"}}",
            b'{"x":' + b"[" * 100_000,
            b'{"x":NaN}',
            b" " * (DOCUMENT_LIMIT + 1),
        ],
    )
    def test_bytes_that_are_no_document_are_refused(self, data: bytes) -> None:
        with pytest.raises(Malformed):
            ClusterDocument.decode(data)

    @given(json_values, st.sampled_from(["Name", "Me", "Peers"]))
    def test_any_json_is_a_document_or_malformed(self, value: object, key: str) -> None:
        whole = {**ClusterDocument("swarm", self.me).to_json(), key: value}
        for each in (value, whole):
            try:
                ClusterDocument.decode(json.dumps(each).encode())
            except Malformed:
                continue

    @given(st.binary(max_size=200))
    def test_any_bytes_are_a_document_or_malformed(self, data: bytes) -> None:
        with pytest.raises(Malformed):
            ClusterDocument.decode(data)

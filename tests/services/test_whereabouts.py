"""What a node tells others of where it is, for every way it may listen."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from twisted.internet.address import IPv4Address, UNIXAddress
from twisted.internet.interfaces import IAddress
from twisted.internet.task import Clock

from swarm.model.peers import Address, PeerID
from swarm.services.whereabouts import Whereabouts

ME = PeerID(b"m" * 32)


def tcp(host: str, port: int) -> IAddress:
    """A TCP port's address."""
    return IPv4Address("TCP", host, port)


def node(
    *,
    peer: IAddress,
    http: IAddress | None = None,
    advertise: Sequence[str] = (),
    url: str = "",
    secure: bool = False,
) -> Whereabouts:
    """A node that listens there."""
    where = Whereabouts(
        "north",
        lambda: ME,
        advertise=[Address.parse(each) for each in advertise],
        public_url=url,
        secure=secure,
        clock=Clock(),
    )
    where.peer, where.http = peer, http
    return where


@pytest.mark.parametrize(
    ("peer", "http", "advertise", "url", "told", "public"),
    [
        # a lone node, or a demonstration on one machine
        (tcp("127.0.0.1", 7041), tcp("127.0.0.1", 7040), [], "", "127.0.0.1:7041", "127.0.0.1:7040"),
        # a node on all addresses: "where you see me"
        (tcp("0.0.0.0", 7041), tcp("0.0.0.0", 7040), [], "", ":7041", ":7040"),
        # the operator's word goes before what the sockets say
        (tcp("0.0.0.0", 7041), tcp("0.0.0.0", 80), ["n.example:1"], "", "n.example:1", ":80"),
        (tcp("0.0.0.0", 7041), tcp("127.0.0.1", 1), [], "https://n.example", ":7041", "n.example:443"),
        (tcp("0.0.0.0", 7041), tcp("127.0.0.1", 1), [], "http://n.example:8", ":7041", "n.example:8"),
        # a public API that peers elsewhere could not use is not told
        (tcp("0.0.0.0", 7041), tcp("127.0.0.1", 7040), [], "", ":7041", ""),
        (tcp("192.0.2.1", 7041), tcp("127.0.0.1", 7040), [], "", "192.0.2.1:7041", ""),
        (tcp("127.0.0.1", 7041), UNIXAddress("/run/s"), [], "", "127.0.0.1:7041", ""),
        (tcp("127.0.0.1", 7041), None, [], "", "127.0.0.1:7041", ""),
    ],
)
def test_what_is_told(
    peer: IAddress, http: IAddress | None, advertise: list[str], url: str, told: str, public: str
) -> None:
    document = node(peer=peer, http=http, advertise=advertise, url=url).describe()
    assert (document.name, document.id) == ("north", ME)
    assert (document.mgmt_addr, document.public_addr) == (told, public)


def test_all_the_operator_names_is_told_as_far_as_others_keep_it() -> None:
    names = [f"n{number}.example:1" for number in range(5)]
    told = node(peer=tcp("0.0.0.0", 7041), advertise=[*names[:2], *names]).describe()
    assert (told.mgmt_addr, *told.others) == tuple(names[:3])
    assert node(peer=tcp("0.0.0.0", 7041)).describe().others == ()


def test_the_public_url_needs_a_host() -> None:
    everywhere = tcp("0.0.0.0", 7040)
    assert node(peer=tcp("0.0.0.0", 7041), http=everywhere).public_url() == ""
    named = node(peer=tcp("0.0.0.0", 7041), http=everywhere, advertise=["n.example:7041"])
    assert named.public_url() == "http://n.example:7040"
    assert node(peer=tcp("0.0.0.0", 1), url="https://n.example/x").public_url() == "https://n.example/x"
    assert node(peer=tcp("10.0.0.1", 1), http=tcp("10.0.0.1", 2)).public_url() == "http://10.0.0.1:2"


def test_a_public_api_with_tls_is_no_plain_one() -> None:
    """Found as a stranger: ``--http ssl:…`` called itself ``http://``, in its log and in Metalinks."""
    there = node(peer=tcp("10.0.0.1", 1), http=tcp("10.0.0.1", 8443), secure=True)
    assert there.public_url() == "https://10.0.0.1:8443"
    assert there.describe().public_addr == "", "peers would take it for plain"
    usual = node(peer=tcp("10.0.0.1", 1), http=tcp("0.0.0.0", 443), secure=True)
    assert usual.describe().public_addr == ":443"


def test_learned_loopback_addresses_are_fit_only_for_who_lives_there() -> None:
    loopback = Address("127.0.0.1", 9)
    assert node(peer=tcp("127.0.0.1", 7041)).policy().refuse(loopback) is None
    assert node(peer=tcp("0.0.0.0", 7041)).policy().refuse(loopback) is not None
    advertised = node(peer=tcp("0.0.0.0", 7041), advertise=["127.0.0.1:7041"])
    assert advertised.policy().refuse(loopback) is None


def test_nobody_sends_a_node_to_itself() -> None:
    where = node(peer=tcp("192.0.2.1", 7041), advertise=["n.example:7041"])
    assert where.policy().refuse(Address("192.0.2.1", 7041)) is not None
    assert where.policy().refuse(Address("n.example", 7041)) is not None
    assert where.policy().refuse(Address("192.0.2.2", 7041)) is None

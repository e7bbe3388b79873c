"""Who is in the swarm: greeted, heard of, listed by the operator, or refused."""

from __future__ import annotations

from collections.abc import Coroutine
from random import Random
from typing import Any, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from swarm.core.addresses import AddressPolicy
from swarm.core.roster import Roster
from swarm.errors import Fault, LocalError, Malformed, PeerError, StoreFailed
from swarm.model.digest import Digest
from swarm.model.messages import ClusterDocument, Node
from swarm.model.peers import Address, Peer, PeerID
from swarm.services.membership import Membership, MembershipSettings, parse_peer_list
from swarm.services.tasks import Tasks
from swarm.testing.loopback import Loopback, LoopbackNode
from swarm.testing.memory import MemoryPeerBook

_T = TypeVar("_T")


class Member:
    """A node of which only the membership is there."""

    def __init__(
        self, village: Village, name: str, *, join: tuple[str, ...], cluster: str, shown: str
    ) -> None:
        self.node: LoopbackNode = village.loopback.add(name, cluster=cluster)
        self.node.latency = 0.01
        self.came: list[str] = []
        self.book = MemoryPeerBook()
        self.tasks = Tasks()
        self.listed: str | Exception | None = None
        self.reads = 0
        self.public = f"{name}.example:7040"
        peer = self.node.peer
        client = village.loopback.client(self.node)
        greet = client.greet

        async def and_be_seen(address: Address, full: bool) -> tuple[PeerID, dict[str, Any]]:
            answer = await greet(address, full)
            other = village.members.get(address)
            if other is not None:  # as the peer port does with a greeting
                other.membership.greeted(peer.id, shown, self.public, str(peer.address), "192.0.2.7")
            return answer

        client.greet = and_be_seen  # type: ignore[method-assign] # the other side of the same greeting
        self.membership = Membership(
            client,
            Roster(
                peer.id, shown, random=Random(1), refuse=AddressPolicy(own=frozenset({peer.address})).refuse
            ),
            MembershipSettings(),
            cluster=cluster,
            me=lambda: Node(shown, peer.id, self.public, str(peer.address), 1),
            join=[Address.parse(each) for each in join],
            read_list=self._read,
            book=self.book,
            clock=village.clock,
            tasks=self.tasks,
            came=lambda peer: self.came.append(peer.name),
        )
        self.node.document = self.membership.document
        village.members[peer.address] = self

    async def _read(self) -> str | None:
        self.reads += 1
        if isinstance(self.listed, Exception):
            raise self.listed
        return self.listed

    @property
    def live(self) -> set[str]:
        return {peer.name for peer in self.membership.live()}


class Village:
    """Members on one clock."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.clock.advance(1_700_000_000)
        self.loopback = Loopback(self.clock)
        self.members: dict[Address, Member] = {}

    def add(self, name: str, *join: str, cluster: str = "test", shown: str = "", run: bool = True) -> Member:
        member = Member(self, name, join=join, cluster=cluster, shown=shown or name)
        if run:
            member.tasks.start("membership", member.membership.run())
        return member

    def spend(self, seconds: float) -> None:
        for _ in range(int(seconds * 10)):
            self.clock.advance(0.1)

    def join(self, work: Coroutine[Any, Any, _T]) -> _T:
        outcome: list[Any] = []
        Deferred.fromCoroutine(work).addBoth(outcome.append)
        self.spend(5)
        if isinstance(outcome[0], BaseException) or hasattr(outcome[0], "raiseException"):
            outcome[0].raiseException()
        return outcome[0]  # type: ignore[no-any-return] # whatever it returned

    def stop(self) -> None:
        for member in self.members.values():
            assert Deferred.fromCoroutine(member.tasks.stop()).called
            assert member.tasks.names == ()
        assert self.clock.getDelayedCalls() == []


@pytest.fixture
def village(said: list[str]) -> Any:
    village = Village()
    yield village
    village.stop()


def at(name: str) -> str:
    return f"{name}.example:7041"


# -- greeting -----------------------------------------------------------------------------


def test_two_that_one_of_them_joined_know_each_other(village: Village) -> None:
    a = village.add("a")
    b = village.add("b", at("a"))
    village.spend(2)
    assert (a.live, b.live) == ({"b"}, {"a"})
    assert (a.came, b.came) == (["b"], ["a"])


def test_one_is_met_at_another_of_its_addresses_when_the_preferred_one_is_dead(village: Village) -> None:
    a, b = village.add("a"), village.add("b")
    a.membership.greeted(b.node.peer.id, "b", "", "192.0.2.99:1", "192.0.2.7", [at("b")])
    assert [str(peer.address) for peer in a.membership.live()] == ["192.0.2.99:1"]
    village.spend(20)
    assert [str(peer.address) for peer in a.membership.live()] == [at("b")]


def test_what_else_one_that_was_joined_says_of_itself_and_others_is_kept(village: Village) -> None:
    a, b = village.add("a", at("b")), village.add("b")
    me = Node("b", b.node.peer.id, "", at("b"), 1, ("192.0.2.98:1", ":7"))
    other = Node("c", PeerID(b"c" * 32), "", ":7041", 1, ("192.0.2.97:1",))
    b.node.document = lambda: ClusterDocument("test", me, (other,)).to_json()
    village.spend(2)
    assert {str(address) for address in a.membership._roster._targets} == {
        at("b"),
        "192.0.2.98:1",
        "192.0.2.97:1",
    }


def test_who_joins_one_is_heard_of_by_all(village: Village) -> None:
    first = village.add("n0")
    others = [village.add(f"n{number}", at("n0")) for number in range(1, 5)]
    village.spend(40)
    everybody = {f"n{number}" for number in range(5)}
    for member in (first, *others):
        assert {*member.live, member.node.peer.name} == everybody


def test_a_peer_that_dies_is_silent_and_comes_back(village: Village) -> None:
    a = village.add("a")
    b = village.add("b", at("a"))
    village.spend(2)
    b.node.up = False
    a.node.up = False  # it does not greet either
    village.spend(120)
    assert a.live == set()
    (state,) = a.membership.known()
    assert state.state == "silent" and state.detail.startswith("unreachable")
    assert a.membership.expected() == 1, "copies are still planned on it"
    a.node.up = b.node.up = True
    village.spend(310)
    assert a.live == {"b"} and a.came == ["b", "b"]


def test_joining_by_hand(village: Village) -> None:
    village.add("a")
    b = village.add("b", run=False)
    village.join(b.membership.join(Address.parse(at("a"))))
    assert b.live == {"a"}
    with pytest.raises(PeerError, match="unreachable"):
        village.join(b.membership.join(Address.parse("nowhere.example:1")))


def test_another_cluster_is_not_joined(village: Village) -> None:
    stranger = village.add("a", cluster="other")
    b = village.add("b", at("a"))
    village.spend(5)
    assert b.live == stranger.live == set()
    with pytest.raises(PeerError) as caught:
        village.join(b.membership.join(Address.parse(at("a"))))
    assert caught.value.fault is Fault.FOREIGN
    ((address, why),) = b.membership.unanswered()
    assert str(address) == at("a") and "foreign" in why


def test_a_document_that_says_another_cluster_or_is_none(village: Village) -> None:
    a = village.add("a", run=False)
    b = village.add("b", at("a"))
    a.node.document = lambda: {**a.membership.document(), "Name": "other"}
    with pytest.raises(PeerError, match="we are in"):
        village.join(b.membership.join(Address.parse(at("a"))))
    for document in ({}, {"Name": "test", "Me": 5, "Peers": {}}, {"Name": "test", "Me": {}, "Peers": []}):
        a.node.document = lambda document=document: document  # type: ignore[misc] # bound now
        with pytest.raises(PeerError) as caught:
            village.join(b.membership.join(Address.parse(at("a"))))
        assert caught.value.fault is Fault.GARBLED
    village.spend(5)
    assert b.live == set()


def test_greeting_oneself_is_noticed(village: Village) -> None:
    a = village.add("a", at("a"))
    village.spend(10)
    assert a.live == set() and a.membership.known() == ()


# -- what others say ------------------------------------------------------------------------


def test_learned_addresses_that_lead_inside_are_not_dialled(village: Village) -> None:
    a = village.add("a", run=False)
    b = village.add("b", at("a"))
    evil = {
        f"evil{n}": Node(f"evil{n}", PeerID(bytes([n]) * 32), "", address, 0).to_json()
        for n, address in enumerate(
            ["127.0.0.1:80", "169.254.169.254:80", "[::1]:6379", "10.0.0.1:7041", ":7041"]
        )
    }
    a.node.document = lambda: {**a.membership.document(), "Peers": evil}
    dialled: list[Address] = []
    greet = b.membership._client.greet

    async def noted(address: Address, full: bool) -> Any:
        dialled.append(address)
        return await greet(address, full)

    b.membership._client.greet = noted  # type: ignore[method-assign] # to see whom it dials
    village.spend(60)
    assert {address.host for address in dialled} == {"a.example", "10.0.0.1"}


def test_a_greeting_is_checked_before_it_is_believed(village: Village) -> None:
    a = village.add("a")
    who = PeerID(Digest.of(b"x").raw[:32])
    for name, public, mgmt in (
        ("b d", "", at("b")),
        ("b", "?", at("b")),
        ("b", "", "nonsense"),
        ("b", "", ":0"),
    ):
        with pytest.raises(Malformed):
            a.membership.greeted(who, name, public, mgmt, "192.0.2.1")
    assert a.membership.known() == ()
    a.membership.greeted(who, "b", ":7040", ":7041", "192.0.2.1")
    (state,) = a.membership.known()
    assert state.peer == Peer(who, "b", Address("192.0.2.1", 7041), "http://192.0.2.1:7040")
    a.membership.greeted(who, "b", "b.example:443", ":7041", "192.0.2.1")
    (state,) = a.membership.known()
    assert state.peer.public_url == "https://b.example:443", "the port of HTTPS"


def test_two_nodes_of_one_name_are_told_apart(village: Village) -> None:
    a = village.add("a")
    village.add("b1", at("a"), shown="twin")
    village.add("b2", at("a"), shown="twin")
    village.spend(5)
    names = sorted(a.live)
    assert names[0] == "twin" and names[1].startswith("twin~") and len(names) == 2
    assert len(a.membership.document()["Peers"]) == 2
    c = village.add("c", at("a"))
    village.spend(30)
    assert len(c.live) == 3


# -- the peer list ------------------------------------------------------------------------------


def test_the_list_is_re_read_when_it_changes(village: Village) -> None:
    village.add("a")
    village.add("c")
    b = village.add("b")
    village.spend(3)
    assert b.live == set()
    b.listed = f"# ours\n{at('a')}  # the first\n\n"
    village.spend(5)
    assert b.live == {"a"}
    b.listed = f"{at('a')}\n{at('c')}\n"
    village.spend(5)
    assert {"a", "c"} <= b.live


def test_a_malformed_list_changes_nothing_and_is_said_once(village: Village, said: list[str]) -> None:
    village.add("a")
    b = village.add("b")
    b.listed = at("a")
    village.spend(3)
    b.listed = "what is this"
    village.spend(20)
    assert b.live == {"a"}
    assert sum("peer list" in each for each in said) == 1
    with pytest.raises(Malformed, match="line 1"):
        village.join(b.membership.refresh())
    b.listed = at("a")
    village.spend(5)
    b.listed = LocalError("unreadable")
    village.spend(20)
    assert sum("peer list" in each for each in said) == 2
    assert b.membership._listed == (Address.parse(at("a")),)


def test_a_list_that_is_bad_from_the_start_does_not_keep_from_joining(village: Village) -> None:
    village.add("a")
    b = village.add("b", at("a"), run=False)
    b.listed = "what is this"
    b.tasks.start("membership", b.membership.run())
    village.spend(3)
    assert b.live == {"a"}


def test_refreshing_tells_the_addresses_in_force(village: Village) -> None:
    b = village.add("b", at("a"), run=False)
    assert village.join(b.membership.refresh()) == (at("a"),)
    b.listed = f"{at('c')}\n{at('a')}"
    assert village.join(b.membership.refresh()) == (at("a"), at("c"))
    assert b.membership.expected() == 2
    b.listed = None
    assert village.join(b.membership.refresh()) == (at("a"),)


def test_only_so_many_greetings_at_once(village: Village) -> None:
    for number in range(30):
        village.loopback.add(f"m{number}").latency = 3
    b = village.add("b", *(at(f"m{number}") for number in range(30)))
    most = 0
    for _ in range(150):
        village.clock.advance(0.1)
        most = max(most, len(b.membership._greeting))
    assert most == MembershipSettings().greetings_at_once
    assert len(b.live) == 30


@pytest.mark.parametrize("text", ["a:1\nb", "a:99999", "a b:1", "http://a:1"])
def test_a_bad_line_is_named(text: str) -> None:
    with pytest.raises(Malformed, match=r"line \d"):
        parse_peer_list(text)


def test_the_document_says_who_we_are_and_whom_we_know(village: Village) -> None:
    a = village.add("a")
    village.add("b", at("a"))
    village.spend(3)
    document = a.membership.document()
    assert document["Name"] == "test"
    assert document["Me"]["Name"] == "a" and document["Me"]["ID"] == a.node.peer.id.hex
    assert document["Peers"]["b"]["MgmtAddr"] == at("b")
    assert document["Peers"]["b"]["PublicAddr"] == "b.example:7040"
    assert document["Peers"]["b"]["LastAlive"] > 0


@given(st.text(max_size=200))
def test_any_text_is_a_list_or_malformed(text: str) -> None:
    try:
        addresses = parse_peer_list(text)
    except Malformed:
        return
    assert parse_peer_list("\n".join(map(str, addresses))) == addresses


@given(st.lists(st.tuples(st.from_regex(r"[a-z]{1,9}", fullmatch=True), st.integers(1, 65535))))
def test_a_written_list_is_read_as_it_is(entries: list[tuple[str, int]]) -> None:
    text = "# peers\n" + "\n\n".join(f"  {host}:{port} # {host}" for host, port in entries)
    assert parse_peer_list(text) == tuple(Address(host, port) for host, port in entries)


# -- over a restart -----------------------------------------------------------------------


def test_whom_an_earlier_run_met_is_known_and_greeted_again(village: Village) -> None:
    a = village.add("a")
    b = village.add("b", at("a"))
    village.spend(2)
    again = village.add("again", run=False)  # as a was: nobody told it of b
    again.book = again.membership._book = a.book
    assert again.membership.expected() == 0
    village.join(again.membership.recall())
    assert again.membership.expected() == 1  # copies are planned on b before it is back
    assert [each.state for each in again.membership.known()] == ["silent"]
    again.tasks.start("membership", again.membership.run())
    village.spend(2)
    assert "b" in again.live
    assert b.node.peer.id in {each.peer.id for each in again.membership.known()}


def test_a_disk_that_refuses_the_book_stops_nothing(village: Village, said: list[str]) -> None:
    class Broken(MemoryPeerBook):
        async def save(self, met: Any) -> None:
            raise StoreFailed("EIO")

        async def load(self) -> Any:
            raise StoreFailed("EIO")

    a = village.add("a", run=False)
    a.membership._book = Broken()
    village.join(a.membership.recall())
    a.tasks.start("membership", a.membership.run())
    village.add("b", at("a"))
    village.spend(2)
    assert a.live == {"b"}
    assert any("cannot read whom" in line for line in said)
    assert sum("cannot note whom" in line for line in said) == 1


def test_when_peers_were_last_alive_is_kept_now_and_then(village: Village) -> None:
    a = village.add("a")
    village.add("b", at("a"))
    village.spend(2)
    ((_, first),) = a.book.met
    village.clock.advance(MembershipSettings().note_every)
    village.spend(60)
    ((_, later),) = a.book.met
    assert later > first


def test_it_is_acquainted_once_everybody_known_at_the_start_was_greeted(village: Village) -> None:
    village.add("a")
    b = village.add("b", at("a"), at("nowhere"), run=False)
    waiting = Deferred.fromCoroutine(b.membership.acquainted())
    assert not waiting.called
    b.tasks.start("membership", b.membership.run())
    village.spend(2)
    assert b.live == {"a"} and waiting.called
    assert village.join(b.membership.acquainted()) is False
    assert waiting.result is True


def test_who_knows_nobody_is_acquainted_at_once(village: Village) -> None:
    a = village.add("a")
    assert village.join(a.membership.acquainted()) is False

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swarm.core.addresses import AddressPolicy
from swarm.core.backoff import Backoff
from swarm.core.roster import Knowledge, PeerState, Roster, RosterSettings
from swarm.model.peers import Address, Peer, PeerID, parse_node_name

ME, A, B, C = (PeerID(bytes([n]) * 32) for n in range(4))


def at(n: int) -> Address:
    return Address(f"10.0.0.{n}", 7041)


LOOPBACK = Address("127.0.0.1", 7041)


@pytest.fixture
def roster() -> Roster:
    return make()


def make(**limits: float) -> Roster:
    chosen = RosterSettings(**limits)  # type: ignore[arg-type]  # mypy can't see which keys are ints
    return Roster(ME, "me", random=Random(1), refuse=AddressPolicy().refuse, settings=chosen)


def only(roster: Roster, now: float) -> PeerState:
    (state,) = roster.known(now)
    return state


class TestConfigured:
    def test_they_are_due_at_once_and_unanswered_until_somebody_answers(self, roster: Roster) -> None:
        roster.configure([at(1)], 0)
        assert roster.due(0) == (at(1),) and roster.known(0) == ()
        assert roster.unanswered() == ((at(1), "not greeted yet"),)
        roster.failed(at(1), "refused", 0)
        assert roster.unanswered() == ((at(1), "refused"),) and roster.due(0) == ()
        assert roster.answered(at(1), A, "a", 9)
        assert roster.unanswered() == ()
        state = only(roster, 9)
        assert (state.peer.id, state.peer.name, state.peer.address) == (A, "a", at(1))
        assert (state.state, state.last_alive, state.source) == ("alive", 9, Knowledge.CONFIGURED)
        assert roster.live(9) == (state.peer,) and roster.established() == 1
        assert roster.met() == ((state.peer, 9),)

    def test_loopback_is_fine_when_the_operator_says_so(self, roster: Roster) -> None:
        roster.configure([LOOPBACK], 0)
        assert roster.due(0) == (LOOPBACK,)

    def test_our_own_address_is_recognized_and_left_alone(self, roster: Roster) -> None:
        roster.configure([at(9), at(1)], 0)
        assert not roster.answered(at(9), ME, "me", 0)
        roster.configure([at(9), at(1)], 1)
        assert roster.due(9999) == (at(1),) and roster.known(1) == ()
        assert not roster.greeted(A, "a", at(9), 1)

    def test_whoever_is_taken_off_the_list_stays_while_it_answers(self, roster: Roster) -> None:
        roster.configure([at(1), at(2), at(3)], 0)
        roster.answered(at(1), A, "a", 0)
        roster.answered(at(3), C, "c", 0)
        roster.configure([at(3)], 1)
        assert [state.source for state in roster.known(1)] == [Knowledge.GREETED, Knowledge.CONFIGURED]
        assert roster.due(9999) == (at(3), at(1))
        roster.forget(9e9)
        assert [state.peer.id for state in roster.known(1)] == [C]

    def test_a_learned_address_may_be_configured_later(self, roster: Roster) -> None:
        roster.greeted(A, "a", at(1), 0)
        roster.configure([at(1)], 0)
        roster.answered(at(1), A, "a", 0)
        assert only(roster, 0).source is Knowledge.CONFIGURED


class TestLife:
    def test_silent_then_unreached_then_forgotten(self) -> None:
        roster = make(silent_after=90, unreached_after=3600, forget_after=9000)
        roster.greeted(A, "a", at(1), 0)
        assert only(roster, 90).state == "alive"
        assert only(roster, 91).state == "silent" and roster.live(91) == ()
        assert only(roster, 3601).state == "unreached"
        roster.forget(9000)
        assert roster.known(9000)
        roster.forget(9001)
        assert not roster.known(9001) and not roster.due(9999)

    def test_strikes_silence_a_peer_at_once_and_an_answer_brings_it_back(self, roster: Roster) -> None:
        assert roster.answered(at(1), A, "a", 0)
        roster.failed(at(1), "timed out", 1)
        assert only(roster, 1).state == "alive"
        roster.failed(at(1), "timed out", 2)
        assert only(roster, 2).state == "silent" and only(roster, 2).detail == "timed out"
        assert roster.answered(at(1), A, "a", 3) and only(roster, 3).state == "alive"
        assert not roster.answered(at(1), A, "a", 4)  # no news

    def test_failures_are_repeated_less_and_less_often(self) -> None:
        roster = make(backoff=Backoff(base=4, cap=64, floor=4))  # type: ignore[arg-type]  # see make()
        roster.configure([at(1)], 0)
        for failures in range(1, 9):
            roster.failed(at(1), "refused", 0)
            assert roster.due(3.9) == () and roster.due(min(64, 4 * 2 ** (failures - 1))) == (at(1),)
        roster.failed(at(2), "who?", 0)

    def test_those_alive_are_greeted_with_jitter(self) -> None:
        roster = make(greet_every=40)
        roster.answered(at(1), A, "a", 0)
        assert roster.due(29) == () and roster.due(51) == (at(1),)


class TestGreeted:
    def test_a_stranger_is_alive_and_greeted_back(self, roster: Roster) -> None:
        assert roster.greeted(A, "a", at(1), 0, public_url="http://a/")
        assert roster.due(0) == (at(1),) and only(roster, 0).peer.public_url == "http://a/"

    def test_two_nodes_do_not_greet_each_other_for_ever(self, roster: Roster) -> None:
        roster.answered(at(1), A, "a", 0)
        assert not roster.greeted(A, "a", at(1), 1)
        assert roster.due(1) == ()

    def test_who_came_back_is_greeted_at_once(self, roster: Roster) -> None:
        roster.answered(at(1), A, "a", 0)
        roster.failed(at(1), "refused", 0)
        assert not roster.greeted(A, "a", at(1), 0) and roster.due(0) == (at(1),)
        roster.answered(at(1), A, "a", 0)
        assert roster.greeted(A, "a", at(1), 1000) and roster.due(1000) == (at(1),)

    def test_a_forbidden_address_is_no_peer_and_does_not_replace_a_good_one(self, roster: Roster) -> None:
        assert not roster.greeted(A, "a", LOOPBACK, 0)
        assert roster.known(0) == ()
        roster.answered(at(1), A, "a", 0)
        roster.greeted(A, "a", LOOPBACK, 1000)
        assert only(roster, 1000).peer.address == at(1) and only(roster, 1000).state == "alive"

    def test_a_claimed_address_replaces_the_one_that_works_only_once_it_answers(self, roster: Roster) -> None:
        roster.answered(at(1), A, "a", 0)
        roster.greeted(A, "a", at(2), 1)
        assert only(roster, 1).peer.address == at(1)
        assert at(2) not in roster.due(50)
        roster.failed(at(1), "gone", 50)
        roster.failed(at(1), "gone", 50)
        assert at(2) in roster.due(50)
        roster.answered(at(2), A, "a", 51)
        assert only(roster, 51).peer.address == at(2)

    def test_who_comes_back_elsewhere_is_there_at_once(self, roster: Roster) -> None:
        roster.answered(at(1), A, "a", 0)
        assert roster.greeted(A, "a", at(2), 1000)
        assert only(roster, 1000).peer.address == at(2)

    def test_nobody_takes_the_address_of_one_alive(self, roster: Roster) -> None:
        roster.answered(at(1), A, "a", 0)
        assert not roster.greeted(B, "b", at(1), 1)
        assert only(roster, 1).peer.id == A

    def test_ourselves_is_nobody(self, roster: Roster) -> None:
        assert not roster.greeted(ME, "me", at(1), 0) and roster.due(0) == ()

    def test_only_few_addresses_are_kept_per_peer(self, roster: Roster) -> None:
        for n in range(1, 4):
            roster.greeted(A, "a", at(n), 0)
        roster.failed(at(2), "refused", 0)
        roster.greeted(A, "a", at(4), 0)
        assert sorted(roster.due(9999)) == [at(1), at(3), at(4)]

    def test_configured_ones_are_not_pushed_out(self, roster: Roster) -> None:
        roster.configure([at(1), at(2), at(3)], 0)
        for n in range(1, 4):
            roster.answered(at(n), A, "a", 0)
        roster.greeted(A, "a", at(4), 0)
        assert sorted(roster.due(9999)) == [at(1), at(2), at(3)]


class TestFurtherAddresses:
    def test_they_are_greeted_when_the_one_in_use_fails_and_the_one_that_answers_is_used(
        self, roster: Roster
    ) -> None:
        assert roster.greeted(A, "a", at(1), 0, others=[at(2)])
        assert roster.due(0) == (at(1),)
        roster.failed(at(1), "nobody there", 1)
        assert roster.due(1) == (at(2),)
        assert not roster.answered(at(2), A, "a", 2)
        assert only(roster, 2).peer.address == at(2)
        assert roster.due(3) == ()
        roster.greeted(A, "a", at(1), 9, others=[at(2)])
        assert only(roster, 9).peer.address == at(2)
        roster.failed(at(2), "now it is this one", 40)
        assert roster.due(40) == (at(1),)

    def test_they_are_hints_under_the_same_policy(self, roster: Roster) -> None:
        roster.greeted(A, "a", at(1), 0, others=[LOOPBACK])
        roster.failed(at(1), "nobody there", 1)
        assert roster.due(1) == ()

    def test_they_push_out_only_what_failed(self, roster: Roster) -> None:
        roster.greeted(A, "a", at(1), 0, others=[at(2), at(3)])
        roster.told(A, [at(4), at(5), at(6), at(7)], 0)
        assert set(roster._targets) == {at(1), at(2), at(3)}
        roster.failed(at(2), "nobody there", 1)
        roster.told(A, [at(4), at(5)], 1)
        assert set(roster._targets) == {at(1), at(3), at(4)}

    def test_of_nobody_known_none_is_kept(self, roster: Roster) -> None:
        roster.told(A, [at(1)], 0)
        roster.told(ME, [at(1)], 0)
        assert roster.due(0) == ()


class TestTwoAtOneAddress:
    def test_the_one_that_answers_has_it_and_the_other_lives_elsewhere(self, roster: Roster) -> None:
        roster.greeted(A, "a", at(1), 0)
        roster.greeted(A, "a", at(2), 0)
        roster.answered(at(1), B, "b", 1)
        assert {state.peer.id: state.peer.address for state in roster.known(1)} == {A: at(2), B: at(1)}

    def test_or_nowhere(self, roster: Roster) -> None:
        roster.answered(at(1), A, "a", 0)
        roster.answered(at(1), B, "b", 1)
        assert [state.peer.id for state in roster.known(1)] == [B]


class TestGossip:
    def test_rumors_are_shown_unreached_and_greeted_but_not_counted(self, roster: Roster) -> None:
        assert roster.gossip([(A, "a", at(1)), (ME, "me", at(9)), (B, "b", LOOPBACK)], 0) == 1
        assert only(roster, 0).state == "unreached" and roster.established() == 0
        assert roster.due(0) == (at(1),) and roster.live(0) == ()
        assert roster.gossip([(A, "a", at(1))], 1) == 0
        assert roster.answered(at(1), A, "a", 2) and only(roster, 2).source is Knowledge.GREETED

    def test_rumors_do_not_rename_or_move_a_known_peer(self, roster: Roster) -> None:
        roster.answered(at(1), A, "a", 0)
        assert roster.gossip([(A, "evil", at(2))], 1) == 1
        assert only(roster, 1).peer.name == "a" and only(roster, 1).peer.address == at(1)

    def test_one_message_and_one_identity_have_limits(self, roster: Roster) -> None:
        many = [(PeerID(n.to_bytes(32, "big")), f"n{n}", Address("10.1.0.1", n)) for n in range(1000, 1200)]
        assert roster.gossip(many, 0) == 64
        assert roster.gossip([(A, "a", at(n)) for n in range(1, 9)], 0) == 3

    def test_all_rumors_together_have_a_limit_and_give_way_to_the_real(self) -> None:
        roster = make(peers=2)
        assert roster.gossip([(A, "a", at(1)), (B, "b", at(2)), (C, "c", at(3))], 0) == 2
        assert roster.answered(at(4), C, "c", 1)
        assert {state.peer.id for state in roster.known(1)} == {B, C}
        assert roster.gossip([(A, "a", at(5))], 1) == 0
        roster.answered(at(2), B, "b", 1)
        assert not roster.answered(at(1), A, "a", 1)  # full of real ones
        assert len(roster.known(1)) == 2

    def test_a_full_table_takes_no_rumors_of_strangers(self) -> None:
        roster = make(peers=1)
        roster.answered(at(1), A, "a", 0)
        assert roster.gossip([(B, "b", at(2))], 0) == 0
        assert roster.gossip([(A, "a", at(3))], 0) == 1

    def test_a_rumor_never_confirmed_is_forgotten_with_its_addresses(self) -> None:
        roster = make(forget_after=100)
        roster.gossip([(A, "a", at(1))], 0)
        roster.forget(100)
        assert roster.due(100)
        roster.forget(101)
        assert not roster.due(9999) and not roster.known(101)


class TestNames:
    def test_the_second_of_a_name_gets_a_suffix_and_is_not_merged(self, roster: Roster) -> None:
        roster.answered(at(1), A, "node", 0)
        roster.answered(at(2), B, "node", 0)
        roster.answered(at(3), C, "me", 0)
        names = [state.peer.name for state in roster.known(0)]
        assert names == ["node", f"node~{B.hex[:6]}", f"me~{C.hex[:6]}"]

    def test_a_suffix_cannot_be_squatted(self, roster: Roster) -> None:
        roster.answered(at(1), A, "node", 0)
        roster.answered(at(2), C, f"node~{B.hex[:6]}", 0)
        roster.answered(at(3), B, "node", 0)
        assert roster.known(0)[2].peer.name == f"node~{B.hex[:12]}"

    def test_nor_the_longer_one(self, roster: Roster) -> None:
        fourth = PeerID(b"4" * 32)
        roster.answered(at(1), A, "node", 0)
        roster.answered(at(2), C, f"node~{B.hex[:6]}", 0)
        roster.answered(at(3), fourth, f"node~{B.hex[:12]}", 0)
        roster.answered(at(4), B, "node", 0)
        assert roster.known(0)[3].peer.name == B.hex

    @given(st.lists(st.sampled_from(["me", "a", "n" * 64, "ä" * 64]), max_size=8))
    def test_names_shown_are_unique_and_still_names(self, names: list[str]) -> None:
        roster = make()
        for n, name in enumerate(names):
            roster.answered(at(n), PeerID(bytes([n, n ^ 90]) * 16), name, 0)
        shown = ["me", *(parse_node_name(state.peer.name) for state in roster.known(0))]
        assert len(set(shown)) == len(shown) == len(names) + 1


events = st.lists(
    st.tuples(
        st.sampled_from(["answered", "greeted", "gossip", "failed", "configure", "forget"]),
        st.integers(0, 5),
        st.integers(0, 5),
        st.floats(0, 1000),
    ),
    max_size=60,
)


@settings(max_examples=200)
@given(events)
def test_whatever_happens_the_table_stays_sound(events: list[tuple[str, int, int, float]]) -> None:
    """Bounded, names unique, addresses theirs who answer, never ourselves, none that the policy refuses."""
    roster = Roster(
        ME,
        "me",
        random=Random(1),
        refuse=lambda address: "forbidden" if address == at(5) else None,
        settings=RosterSettings(peers=3, forget_after=2000),
    )
    now = 0.0
    configured: set[Address] = set()
    dialled: set[Address] = set()
    for what, who, where, wait in events:
        now += wait
        peer, address = PeerID(bytes([who]) * 32), at(where)
        match what:
            case "answered" if address in roster.due(now):
                roster.answered(address, peer, f"n{who % 2}", now)
                dialled.add(address)
                assert all(
                    state.peer.id == peer for state in roster.known(now) if state.peer.address == address
                )
            case "greeted":
                roster.greeted(peer, f"n{who % 2}", address, now)
            case "gossip":
                roster.gossip([(peer, "x", address)], now)
            case "failed":
                roster.failed(address, "refused", now)
            case "configure":
                configured = {at(who), at(where)}
                roster.configure(configured, now)
            case "forget":
                roster.forget(now)
        known = roster.known(now)
        assert ME not in {state.peer.id for state in known}
        assert len(known) <= 3
        assert len({state.peer.name for state in known} | {"me"}) == len(known) + 1
        for due in roster.due(now + 9999):
            assert due != at(5) or due in configured | dialled


class TestRemembered:
    def test_who_was_met_before_is_silent_and_greeted_until_it_answers(self, roster: Roster) -> None:
        roster.remember(Peer(A, "a", LOOPBACK), 990, 1000)  # no policy is asked: it was met there
        assert roster.due(1000) == (LOOPBACK,) and roster.established() == 1 and roster.live(1000) == ()
        assert (only(roster, 1000).state, only(roster, 1000).peer.name) == ("silent", "a")
        assert roster.answered(LOOPBACK, A, "a", 1001)
        assert only(roster, 1001).state == "alive"

    def test_long_ago_is_remembered_as_such(self, roster: Roster) -> None:
        roster.remember(Peer(A, "a", at(1)), 5, 100_000)
        assert only(roster, 100_000).last_alive == 5
        roster.forget(10**9)
        assert roster.known(10**9) == ()

    def test_what_is_known_now_counts_more(self, roster: Roster) -> None:
        roster.configure([at(2)], 0)
        roster.answered(at(2), A, "a", 1)
        roster.remember(Peer(A, "old", at(1)), 0, 2)
        assert only(roster, 2).peer.address == at(2)
        roster.remember(Peer(ME, "me", at(1)), 0, 2)
        assert len(roster.known(2)) == 1

    def test_a_configured_address_of_a_peer_met_before_is_no_second_one(self, roster: Roster) -> None:
        roster.configure([at(1)], 0)
        roster.remember(Peer(A, "a", at(1)), 0, 2)
        roster.remember(Peer(B, "b", at(1)), 0, 2)  # it was there before A
        assert roster.unanswered() == () and roster.established() == 2
        roster.answered(at(1), A, "a", 3)
        assert [each.peer.id for each in roster.known(3)] == [A]

    def test_the_table_has_an_end(self) -> None:
        roster = make(peers=1)
        roster.remember(Peer(A, "a", at(1)), 0, 2)
        roster.remember(Peer(B, "b", at(2)), 0, 2)
        assert only(roster, 2).peer.id == A

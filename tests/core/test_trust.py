"""Each rule of trust by itself; ``test_trust_worlds`` shows that together they suffice."""

from __future__ import annotations

import hashlib

import pytest

from swarm.core.parties import AMENDS
from swarm.core.trust import Judgement, Trust
from swarm.model.digest import Digest
from swarm.model.grains import Grains
from swarm.model.midstates import IV, Midstates
from swarm.model.peers import PeerID
from swarm.model.ranges import ByteRange, RangeSet

GRAIN = 128


def end_state(start: bytes, data: bytes) -> bytes:
    """Stands for the compression of a grain."""
    return hashlib.sha512(start + data).digest()


def chain(parts: list[bytes]) -> list[bytes]:
    """All boundary values of a blob, the IV and the id included."""
    values = [IV]
    for part in parts:
        values.append(end_state(values[-1], part))
    return values


A, B, C, D = (PeerID(bytes([n]) * 32) for n in range(4))
PARTS = [bytes([n]) * GRAIN for n in range(4)]
FORGED = [b"f" * GRAIN] * 4
TRUE = chain(PARTS)
GRAINS = Grains(4 * GRAIN, GRAIN)


def listed(values: list[bytes]) -> Midstates:
    """A list from all its boundaries."""
    return Midstates(GRAINS, b"".join(values[1:-1]))


def lying(*at: int) -> Midstates:
    """The true list with other values at some boundaries."""
    return listed([b"x" * 64 if n in at else value for n, value in enumerate(TRUE)])


@pytest.fixture
def trust() -> Trust:
    return Trust(Digest(TRUE[-1]), GRAINS)


def receive(trust: Trust, grain: int, *senders: PeerID, data: bytes | None = None) -> Judgement:
    data = PARTS[grain] if data is None else data
    return trust.judge(grain, senders, {start: end_state(start, data) for start in trust.starts(grain)})


def test_a_fresh_pull_wants_the_last_grain_first(trust: Trust) -> None:
    assert trust.wanted() == (3,)
    assert not trust.has_list and trust.starts(2) == () and trust.starts(0) == (IV,)
    trust.offer(A, listed(TRUE))
    assert trust.has_list and trust.starts(2) == (TRUE[2],)
    assert receive(trust, 3, A).accepted == (3,)
    assert trust.wanted() == () and trust.authenticated_from == 3
    assert trust.proven(3) and trust.trusted(3) and not trust.complete


def test_a_grain_in_the_middle_is_releasable_at_once_and_trusted_once_two_agree(trust: Trust) -> None:
    trust.offer(A, listed(TRUE))
    assert receive(trust, 1, A).accepted == (1,)
    assert trust.bounds(1) == (TRUE[1], TRUE[2]) and trust.senders(1) == (A,)
    assert trust.releasable(1) and not trust.trusted(1) and not trust.agreed
    trust.offer(B, listed(TRUE))
    assert trust.agreed and trust.trusted(1) and not trust.proven(1) and not trust.trusted(0)


def test_a_grain_is_vouched_for_by_its_sender_and_the_owner_of_a_list(trust: Trust) -> None:
    trust.offer(A, listed(TRUE))
    receive(trust, 0, A)
    receive(trust, 1, B)
    receive(trust, 2, A, B)
    assert [trust.vouched(grain) for grain in range(3)] == [False, True, True]
    receive(trust, 3, A)
    assert trust.vouched(3), "proven"
    trust.offer(B, listed(TRUE))
    assert trust.vouched(0)


def test_what_an_earlier_run_believed_needs_no_other_voucher(trust: Trust) -> None:
    trust.offer(A, listed(TRUE))
    trust.resume(1, TRUE[1], TRUE[2])
    assert trust.vouched(1)


def test_a_liars_bytes_do_not_vouch_for_its_list(trust: Trust) -> None:
    """Nobody is left who supports the working list, but it is still the liar's."""
    trust.offer(A, listed(TRUE))
    receive(trust, 1, A)
    assert trust.offer(A, lying(2)).proofs
    assert trust.releasable(1) and not trust.vouched(1)


def test_a_disputed_list_is_not_agreed_however_many_support_it(trust: Trust) -> None:
    trust.offer(A, lying(2))
    trust.offer(B, lying(2))
    receive(trust, 0, A)
    assert trust.trusted(0)
    trust.offer(C, listed(TRUE))
    assert not trust.trusted(0) and trust.releasable(0)


def test_all_grains_accepted_prove_the_list(trust: Trust) -> None:
    trust.offer(A, listed(TRUE))
    for grain in (1, 3, 0, 2):
        assert not trust.complete
        receive(trust, grain, A)
    assert trust.complete and trust.midstates() == listed(TRUE) and trust.senders(1) == ()
    assert receive(trust, 1, A, data=FORGED[1]) == Judgement()  # too late to matter


@pytest.mark.parametrize("data", [b"", b"small"])
def test_a_blob_of_one_grain_needs_no_list(data: bytes) -> None:
    trust = Trust(Digest(end_state(IV, data)), Grains(len(data), GRAIN))
    assert trust.has_list and trust.starts(0) == (IV,)
    trust.offer(A, Midstates(trust.grains, b""))
    trust.claim(B, complete=True)
    judgement = trust.judge(0, (B,), {IV: end_state(IV, b"wrong")})
    assert judgement.reopened == (0,) and [proof.peer for proof in judgement.proofs] == [B]
    assert trust.judge(0, (A,), {IV: end_state(IV, data)}).accepted == (0,)
    assert trust.complete and trust.midstates().inner == b""


def test_nobody_has_to_offer_the_list_of_one_grain() -> None:
    trust = Trust(Digest(end_state(IV, b"small")), Grains(5, GRAIN))
    assert trust.judge(0, (A,), {IV: end_state(IV, b"small")}).accepted == (0,) and trust.complete


def test_the_last_grain_is_wanted_again_when_it_fails(trust: Trust) -> None:
    trust.offer(A, listed(TRUE))
    receive(trust, 3, B, data=FORGED[3])
    assert trust.wanted() == (3,)


def test_a_rehash_is_asked_for_again_when_its_answer_comes_too_late(trust: Trust) -> None:
    trust.offer(A, listed(TRUE))
    assert trust.judge(1, (A,), {}).rehash == (1,)
    assert trust.judge(1, (A,), {}).rehash == (1,)


def test_who_is_convicted_in_the_same_breath_is_not_called_suspended(trust: Trust) -> None:
    """Its held grain falls with the list it fits, and the suffix then reaches where it failed before."""
    forged = chain(FORGED)
    trust.offer(A, listed(TRUE))
    trust.offer(D, listed([*forged[:4], TRUE[4]]))
    trust.claim(C, complete=True)
    assert receive(trust, 0, C, data=FORGED[0]) == Judgement()
    assert receive(trust, 2, C, data=b"other").suspended == (C,)
    receive(trust, 2, A)
    judgement = receive(trust, 3, A)
    assert judgement.reopened == (0,) and {proof.peer for proof in judgement.proofs} == {C, D}
    assert judgement.suspended == () == judgement.need_list_of and not trust.suspended


def test_once_nothing_is_accepted_any_more_votes_count_again(trust: Trust) -> None:
    forged = chain([FORGED[0], *PARTS[1:]])
    trust.offer(A, listed([*forged[:4], TRUE[4]]))
    receive(trust, 0, A, data=FORGED[0])
    trust.offer(B, lying(1))
    trust.offer(C, listed(TRUE))
    assert trust.offer(A, listed(TRUE)).reopened == (0,)  # its second list convicts it
    assert trust.starts(1)[0] == b"x" * 64
    trust.offer(D, listed(TRUE))
    assert trust.starts(1)[0] == TRUE[1]


def test_who_contradicts_its_own_list_is_convicted(trust: Trust) -> None:
    trust.offer(A, listed(TRUE))
    trust.offer(B, listed(TRUE))
    judgement = receive(trust, 1, A, data=FORGED[1])
    assert judgement.reopened == (1,) and not judgement.accepted
    (proof,) = judgement.proofs
    assert (proof.peer, proof.grain, proof.kind, proof.digest) == (A, 1, "data", trust.digest)
    assert trust.convicted == {A} and not trust.agreed
    assert receive(trust, 2, A, data=FORGED[2]).proofs == ()  # once is enough
    assert trust.offer(A, lying(1)) == Judgement()


def test_a_list_stays_of_use_when_its_only_supporter_sent_bad_bytes(trust: Trust) -> None:
    trust.offer(A, listed(TRUE))
    receive(trust, 1, A, data=FORGED[1])
    assert receive(trust, 1, B).accepted == (1,)


def test_unless_another_list_has_supporters(trust: Trust) -> None:
    trust.offer(A, lying(2))
    receive(trust, 0, A)
    receive(trust, 3, A)
    trust.offer(B, listed(TRUE))
    judgement = receive(trust, 1, A, data=FORGED[1])
    assert [proof.peer for proof in judgement.proofs] == [A]
    assert trust.starts(2) == (TRUE[2],) and trust.releasable(0) and trust.releasable(3)


def test_mixed_grains_convict_nobody(trust: Trust) -> None:
    trust.offer(A, listed(TRUE))
    trust.offer(B, listed(TRUE))
    judgement = receive(trust, 1, A, B, data=FORGED[1])
    assert judgement.refetch_whole == judgement.reopened == (1,)
    assert not judgement.proofs and not judgement.suspended


def test_true_bytes_right_of_the_last_difference_refute_a_list(trust: Trust) -> None:
    trust.offer(A, lying(1, 2))
    trust.offer(B, lying(1, 2))
    trust.offer(C, listed(TRUE))
    assert trust.wanted() == (2, 3)
    assert set(trust.starts(2)) == {TRUE[2], b"x" * 64}
    judgement = receive(trust, 2, D)
    assert judgement.accepted == (2,)
    assert [(proof.peer, proof.kind) for proof in judgement.proofs] == [(A, "list"), (B, "list")]
    assert trust.convicted == {A, B} and trust.wanted() == (3,)
    assert trust.starts(1) == (TRUE[1],)


def test_a_list_once_refuted_convicts_whoever_offers_it_later(trust: Trust) -> None:
    trust.offer(A, lying(3))
    trust.offer(B, listed(TRUE))
    receive(trust, 3, D)
    judgement = trust.offer(C, lying(3))
    assert [proof.peer for proof in judgement.proofs] == [C]


def test_a_list_against_bytes_already_hashed_convicts_at_once(trust: Trust) -> None:
    trust.offer(A, listed(TRUE))
    receive(trust, 3, A)
    judgement = trust.offer(B, lying(3))
    assert [(proof.peer, proof.grain, proof.kind) for proof in judgement.proofs] == [(B, 3, "list")]
    assert trust.wanted() == ()


def test_two_lists_of_one_peer_convict_it(trust: Trust) -> None:
    trust.offer(A, listed(TRUE))
    assert trust.offer(A, listed(TRUE)) == Judgement()
    assert [proof.peer for proof in trust.offer(A, lying(1)).proofs] == [A]


def test_a_stranger_whose_bytes_fail_is_suspended_and_asked_for_its_list(trust: Trust) -> None:
    trust.offer(A, lying(1, 2, 3))
    judgement = receive(trust, 1, B)
    assert judgement.suspended == judgement.need_list_of == (B,) and not judgement.proofs
    assert judgement.reopened == (1,) and trust.suspended == {B}
    trust.offer(B, listed(TRUE))
    assert not trust.suspended and trust.wanted() == (3,)
    judgement = receive(trust, 3, B)
    assert [proof.peer for proof in judgement.proofs] == [A]


def test_a_suspended_peer_is_convicted_by_the_list_it_then_offers(trust: Trust) -> None:
    trust.offer(A, listed(TRUE))
    receive(trust, 1, B, data=FORGED[1])
    assert [proof.peer for proof in trust.offer(B, listed(TRUE)).proofs] == [B]
    assert not trust.suspended


def test_a_suspended_peer_whose_bytes_its_list_cannot_explain_yet_is_let_go(trust: Trust) -> None:
    trust.offer(A, listed(TRUE))
    receive(trust, 1, B, data=FORGED[1])
    assert not trust.offer(B, lying(1)).proofs and not trust.suspended


def test_a_suspended_peer_without_a_list_is_convicted_by_the_proven_suffix(trust: Trust) -> None:
    trust.offer(A, listed(TRUE))
    trust.claim(B, complete=True)
    receive(trust, 2, B, data=FORGED[2])
    receive(trust, 2, A)
    assert trust.suspended == {B}
    judgement = receive(trust, 3, A)
    assert [(proof.peer, proof.grain) for proof in judgement.proofs] == [(B, 2)]


def test_a_peer_that_made_no_claim_is_not_convicted_by_it(trust: Trust) -> None:
    trust.offer(A, listed(TRUE))
    receive(trust, 3, B, data=FORGED[3])
    assert not receive(trust, 3, A).proofs and trust.suspended == {B}


def test_a_relay_is_suspended_and_never_convicted_by_its_bytes(trust: Trust) -> None:
    trust.claim(B, complete=False)
    trust.claim(B, complete=True)
    trust.offer(A, listed(TRUE))
    judgement = receive(trust, 3, B, data=FORGED[3])
    assert judgement.suspended == (B,)
    assert not receive(trust, 3, A).proofs
    assert not trust.offer(B, listed(TRUE)).proofs and trust.suspended == {B}
    assert trust.parties.relays == {B}


def test_a_relay_has_a_list_to_offer_once_it_is_complete(trust: Trust) -> None:
    """It may be the only honest holder there is, and the lists there are those of liars who agree."""
    trust.offer(A, listed(TRUE))
    for complete, needed in ((False, ()), (True, (B,))):
        trust.claim(B, complete=complete)
        assert receive(trust, 3, B, data=FORGED[3]).need_list_of == needed


def test_a_holder_that_lost_the_blob_and_passes_on_lies_is_not_framed_by_its_own_list(trust: Trust) -> None:
    """L's bytes reach B after B offered the true list, and before we hear anything but the answer itself."""
    trust.claim(B, complete=True)
    assert not trust.offer(B, listed(TRUE)).proofs
    trust.claim(B, complete=False)  # what the answer says, before its bytes
    assert not receive(trust, 2, B, data=FORGED[2]).proofs
    assert trust.suspended == {B}
    trust.offer(A, listed(TRUE))
    assert not receive(trust, 2, A).proofs
    assert not receive(trust, 3, A).proofs, "a proven end missed from a proven start"
    assert trust.convicted == frozenset()


def test_without_that_step_it_would_have_been(trust: Trust) -> None:
    trust.claim(B, complete=True)
    trust.offer(B, listed(TRUE))
    assert [proof.peer for proof in receive(trust, 2, B, data=FORGED[2]).proofs] == [B]


def test_bytes_sent_by_a_relay_are_not_held_against_the_holder_it_became(trust: Trust) -> None:
    trust.claim(B, complete=False)
    receive(trust, 1, B, data=FORGED[1])  # nobody has a list yet: held
    trust.claim(B, complete=True)
    trust.offer(B, listed(TRUE))
    for grain in (2, 3):
        receive(trust, grain, B)
    assert trust.convicted == frozenset() and not receive(trust, 1, A).proofs


def test_a_relay_that_takes_back_what_failed_is_let_go_a_few_times(trust: Trust) -> None:
    trust.claim(B, complete=False)
    trust.offer(A, listed(TRUE))
    words = (RangeSet([ByteRange(0, GRAIN)]), RangeSet(), None)
    assert len(words) == AMENDS
    for word in words:
        assert receive(trust, 1, B, data=FORGED[1]).suspended == (B,)
        trust.amend(B, RangeSet([ByteRange(0, 2 * GRAIN)]))
        assert trust.suspended == {B}, "it offers it still"
        trust.amend(B, word)
        assert trust.suspended == frozenset()
    receive(trust, 1, B, data=FORGED[1])
    trust.amend(B, None)
    assert trust.suspended == {B}, "once too often"


def test_taking_back_is_for_relays_that_failed(trust: Trust) -> None:
    trust.offer(A, listed(TRUE))
    trust.claim(B, complete=True)
    trust.amend(B, RangeSet())
    receive(trust, 1, B, data=FORGED[1])
    trust.amend(B, RangeSet())
    assert trust.suspended == {B}


def test_a_whole_holder_that_turns_out_partial_becomes_a_relay(trust: Trust) -> None:
    trust.claim(B, complete=True)
    trust.claim(B, complete=False)
    trust.offer(A, listed(TRUE))
    receive(trust, 3, B, data=FORGED[3])
    assert not receive(trust, 3, A).proofs


def test_when_the_list_falls_the_suspended_are_let_go_and_bad_grains_reopened(trust: Trust) -> None:
    """B was right all along; A's list chains forged bytes up to a lie."""
    forged = chain([*FORGED[:2], *PARTS[2:]])
    trust.offer(A, listed([*forged[:3], *TRUE[3:]]))
    trust.claim(B, complete=True)
    for grain in (0, 1):
        assert receive(trust, grain, A, data=FORGED[grain]).accepted == (grain,)
    assert receive(trust, 2, B).suspended == (B,)
    trust.offer(C, listed(TRUE))
    judgement = receive(trust, 2, C)
    assert [proof.peer for proof in judgement.proofs] == [A]
    assert judgement.accepted == (2,) and judgement.rehash == (1,) and judgement.reopened == (0,)
    assert trust.suspended == frozenset()
    assert trust.senders(1) == (A,)
    assert receive(trust, 1, A, data=FORGED[1]).reopened == (1,)


def test_a_suspended_peer_that_fails_the_next_list_too_stays_suspended(trust: Trust) -> None:
    trust.offer(A, lying(3))
    receive(trust, 1, B, data=FORGED[1])
    trust.offer(C, listed(TRUE))
    receive(trust, 3, C)
    assert trust.convicted == {A} and trust.suspended == {B}


def test_only_failures_the_next_list_confirms_are_held_against_a_peer(trust: Trust) -> None:
    trust.offer(A, lying(2, 3))
    receive(trust, 2, B)
    receive(trust, 0, B, data=FORGED[0])
    trust.offer(C, listed(TRUE))
    receive(trust, 3, C)
    assert trust.convicted == {A} and trust.suspended == {B}


def test_bytes_that_fit_a_rival_list_are_held_and_judged_when_the_dispute_is_settled(trust: Trust) -> None:
    trust.offer(A, lying(1, 2, 3))
    trust.offer(B, listed(TRUE))
    assert trust.wanted() == (3,)
    judgement = receive(trust, 1, B)
    assert judgement == Judgement() and not trust.releasable(1) and trust.senders(1) == (B,)
    judgement = receive(trust, 3, B)
    assert judgement.accepted == (1, 3)


def test_held_bytes_are_reopened_when_the_rival_is_refuted(trust: Trust) -> None:
    forged = chain(FORGED)
    trust.offer(A, listed(TRUE))
    trust.offer(B, listed([*forged[:4], TRUE[4]]))
    assert receive(trust, 0, B, data=FORGED[0]) == Judgement()
    judgement = receive(trust, 3, A)
    assert judgement.reopened == (0,) and [proof.peer for proof in judgement.proofs] == [B]


def test_bytes_of_a_wanted_grain_that_settle_nothing_are_fetched_again(trust: Trust) -> None:
    """The rival's own bytes fit its list, left of where it departs from ours."""
    forged = chain([PARTS[0], FORGED[1], *PARTS[2:]])
    trust.offer(A, lying(1))
    trust.offer(B, listed(TRUE))
    trust.offer(C, listed([*TRUE[:2], forged[2], *TRUE[3:]]))
    assert trust.wanted() == (2, 1, 3)
    judgement = receive(trust, 1, C, data=FORGED[1])
    assert judgement.reopened == (1,) and not judgement.proofs and not judgement.suspended


def test_a_list_that_comes_during_hashing_asks_for_one_more_hash(trust: Trust) -> None:
    trust.offer(A, listed(TRUE))
    ends = {start: end_state(start, PARTS[2]) for start in trust.starts(2)}
    trust.offer(B, lying(2))
    judgement = trust.judge(2, (A,), ends)
    # What was hashed already refutes the newcomer, so nothing is left to hash.
    assert judgement.accepted == (2,) and [proof.peer for proof in judgement.proofs] == [B]
    ends = {start: end_state(start, PARTS[1]) for start in trust.starts(1)}
    trust.offer(C, lying(1, 2, 3))
    judgement = trust.judge(1, (A,), ends)
    assert judgement.rehash == (1,) and not judgement.accepted
    assert receive(trust, 0, A).rehash == ()  # it was said once
    assert receive(trust, 1, A).accepted == (1,)


def test_bytes_wait_for_the_first_list(trust: Trust) -> None:
    assert receive(trust, 0, A) == Judgement()
    assert receive(trust, 1, A) == Judgement()
    judgement = trust.offer(A, listed(TRUE))
    assert judgement.accepted == (0,) and judgement.rehash == (1,)


def test_more_votes_replace_a_list_only_while_nothing_was_accepted_under_it(trust: Trust) -> None:
    trust.offer(A, lying(1))
    trust.offer(B, listed(TRUE))
    assert trust.starts(1)[0] == b"x" * 64
    trust.offer(C, listed(TRUE))
    assert trust.starts(1)[0] == TRUE[1]
    receive(trust, 3, A)
    trust.offer(D, lying(1))
    assert trust.starts(1)[0] == TRUE[1]


def test_a_list_nobody_stands_behind_is_forgotten(trust: Trust) -> None:
    trust.offer(A, listed(TRUE))
    trust.offer(B, lying(1, 2))
    judgement = receive(trust, 0, B, data=FORGED[0])
    assert [proof.peer for proof in judgement.proofs] == [B]
    assert trust.starts(1) == (TRUE[1],) and trust.wanted() == (3,)


def test_with_no_list_left_what_is_proven_stays_and_the_rest_waits(trust: Trust) -> None:
    trust.offer(A, lying(1))
    receive(trust, 2, A)
    receive(trust, 3, A)
    receive(trust, 0, A, data=FORGED[0])
    assert trust.convicted == {A}  # its list still serves, until it is refuted:
    judgement = trust.judge(1, (B,), {TRUE[1]: TRUE[2]})
    assert judgement == Judgement() and not trust.has_list
    assert trust.proven(2) and trust.bounds(2) == (TRUE[2], TRUE[3]) and trust.bounds(3) == (TRUE[3], TRUE[4])
    assert trust.offer(C, lying(3)).proofs[0].peer == C
    assert trust.offer(D, listed(TRUE)).accepted == (1,)
    assert trust.bounds(2) == (TRUE[2], TRUE[3]) and trust.authenticated_from == 1


def test_with_no_list_left_unproven_grains_wait_for_the_next(trust: Trust) -> None:
    trust.offer(A, lying(3))
    receive(trust, 0, A)
    trust.judge(3, (B,), {b"x" * 64: b"no", TRUE[3]: TRUE[4]})
    assert not trust.has_list and not trust.releasable(0)
    assert trust.offer(B, listed(TRUE)).accepted == (0, 3)


class TestResume:
    def test_before_the_list_comes(self, trust: Trust) -> None:
        assert trust.resume(1, TRUE[1], TRUE[2]) == Judgement()
        assert trust.resume(3, TRUE[3], TRUE[4]) == Judgement()
        assert trust.offer(B, lying(3)).proofs[0].peer == B  # our own disk refutes it
        assert trust.offer(A, listed(TRUE)).accepted == (1, 3)
        assert trust.authenticated_from == 3 and trust.senders(1) == ()

    def test_after_the_list_came(self, trust: Trust) -> None:
        trust.offer(A, listed(TRUE))
        assert trust.resume(1, TRUE[1], TRUE[2]).accepted == (1,)

    def test_what_was_verified_under_another_list_is_hashed_again_and_blames_nobody(
        self, trust: Trust
    ) -> None:
        trust.offer(A, listed(TRUE))
        assert trust.resume(1, b"y" * 64, b"z" * 64).rehash == (1,)
        judgement = receive(trust, 1, data=FORGED[1])
        assert judgement == Judgement(reopened=(1,))

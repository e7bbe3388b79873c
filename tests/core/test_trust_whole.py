"""Trust without midstates: only the whole proves anything, and only single senders are blamed."""

from __future__ import annotations

import hashlib
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from swarm.core.trust_whole import WholeTrust
from swarm.model.digest import Digest
from swarm.model.grains import Grains
from swarm.model.midstates import Midstates
from swarm.model.peers import PeerID

GRAIN = 128
A, B, C = (PeerID(bytes([n]) * 32) for n in range(3))


def plain(data: bytes) -> dict[bytes | None, bytes]:
    return {None: hashlib.sha512(data).digest()}


def ledger(count: int = 3) -> WholeTrust:
    trust = WholeTrust(Digest.of(b"x"), Grains(count * GRAIN, GRAIN))
    for peer in (A, B, C):
        trust.claim(peer, complete=True)
    return trust


def receive(trust: WholeTrust, senders: dict[int, tuple[PeerID, ...]], data: bytes = b"good") -> None:
    for grain, each in senders.items():
        assert not trust.judge(grain, each, plain(data)).reopened


def test_nothing_is_released_before_the_whole_is_proven() -> None:
    trust = ledger()
    assert trust.missing() == (0, 1, 2) and not trust.holds(0)
    assert trust.wanted() == () and trust.starts(0) == (None,)
    receive(trust, {0: (A,), 1: (A, B)})
    assert trust.resume(2, None, hashlib.sha512(b"ours").digest()).accepted == ()
    assert trust.senders(1) == (A, B) and trust.senders(2) == () and trust.holds(2)
    assert trust.bounds(0) == (None, hashlib.sha512(b"good").digest())
    assert trust.received and not trust.complete
    assert not (
        trust.releasable(0)
        or trust.vouched(0)
        or trust.proven(0)
        or trust.trusted(0)
        or trust.agreed
        or trust.has_list
    )
    assert trust.authenticated_from == 3
    judgement = trust.verdict(True)
    assert judgement.accepted == (0, 1, 2) and not judgement.proofs
    assert trust.complete and trust.releasable(0) and trust.proven(0) and trust.trusted(0)
    assert trust.authenticated_from == 0 and trust.midstates() is None
    assert trust.judge(0, (A,), plain(b"late")) == trust.judge(0, (A,), plain(b"late"))


def test_lists_are_ignored() -> None:
    trust = ledger(1)
    trust.offer(A, Midstates(trust.grains, b""))
    assert not trust.has_list and not trust.suspended and trust.senders(0) == ()


def test_a_failed_attempt_of_one_peer_convicts_it() -> None:
    trust = ledger()
    receive(trust, {0: (A,), 1: (A,), 2: (A,)})
    judgement = trust.verdict(False)
    assert judgement.reopened == (0, 1, 2)
    assert [(proof.peer, proof.grain) for proof in judgement.proofs] == [(A, None)]
    assert trust.parole([A]) is None
    assert trust.parole([A, B]) == B == trust.sole
    assert trust.missing() == (0, 1, 2)


def test_a_failed_attempt_of_several_or_with_resumed_grains_convicts_nobody() -> None:
    for senders in ({0: (A,), 1: (A,), 2: (B,)}, {0: (A,), 1: (A, B), 2: (A,)}, {0: (A,), 1: (), 2: (A,)}):
        trust = ledger()
        receive(trust, senders)
        assert not trust.verdict(False).proofs
        assert trust.parole([A, B]) == A
        assert set(trust.missing()) == {grain for grain, each in senders.items() if each != (A,)}


def test_the_attempt_that_succeeds_convicts_those_who_sent_other_bytes_before() -> None:
    trust = ledger()
    receive(trust, {0: (A,), 2: (B,)})
    receive(trust, {1: (C,)}, b"bad")
    trust.verdict(False)
    assert trust.parole([A, C]) == A
    receive(trust, {1: (A,), 2: (A,)})
    judgement = trust.verdict(True)
    assert [(proof.peer, proof.grain) for proof in judgement.proofs] == [(C, 1)]
    assert trust.convicted == {C}


def test_two_bad_grains_of_one_peer_are_one_proof() -> None:
    trust = ledger()
    receive(trust, {0: (A,)})
    receive(trust, {1: (C,), 2: (C,)}, b"bad")
    trust.verdict(False)
    trust.parole([A])
    receive(trust, {1: (A,), 2: (A,)})
    assert len(trust.verdict(True).proofs) == 1


def test_a_relay_is_neither_convicted_nor_put_on_parole() -> None:
    trust = ledger()
    trust.claim(A, complete=False)
    trust.claim(A, complete=True)  # too late: it may have sent bytes as a relay
    receive(trust, {0: (A,), 1: (A,), 2: (A,)}, b"bad")
    assert not trust.verdict(False).proofs
    assert trust.parole([A]) is None
    trust.parole([B])
    receive(trust, {0: (B,), 1: (B,), 2: (B,)})
    assert not trust.verdict(True).proofs


def test_who_was_a_relay_before_the_ledger_changed_is_one_still() -> None:
    before = ledger()
    before.claim(A, complete=False)
    trust = WholeTrust(before.digest, before.grains, before.parties.relays)
    trust.claim(A, complete=True)
    receive(trust, {0: (A,), 1: (A,), 2: (A,)}, b"bad")
    assert not trust.verdict(False).proofs
    trust.amend(A, None)
    assert trust.suspended == frozenset()


def test_on_parole_bytes_of_others_are_refused() -> None:
    trust = ledger(1)
    receive(trust, {0: (A, B)})
    assert not trust.failed
    trust.verdict(False)
    assert trust.failed and trust.judge(0, (A,), plain(b"late")).reopened == (0,)
    trust.parole([A, B])
    assert trust.judge(0, (B,), plain(b"late")).reopened == (0,)
    assert trust.judge(0, (A,), plain(b"good")).reopened == ()


def test_late_bytes_of_another_are_not_taken_for_those_they_replaced() -> None:
    trust = ledger(2)
    receive(trust, {0: (A,), 1: (A, B)})
    trust.verdict(False)
    assert trust.judge(0, (B,), plain(b"late")).reopened == (0,)
    assert trust.parole([A]) == A and trust.missing() == (0, 1)


def test_parole_ends_with_its_failure() -> None:
    trust = ledger(1)
    receive(trust, {0: (A, B)})
    trust.verdict(False)
    assert trust.parole([A]) == A
    receive(trust, {0: (A,)}, b"bad")
    assert [proof.peer for proof in trust.verdict(False).proofs] == [A]
    assert trust.sole is None
    assert trust.parole([B]) == B
    receive(trust, {0: (B,)})
    assert trust.verdict(True).proofs == ()  # A is convicted already


def test_whom_we_lose_on_parole_may_be_followed_and_his_bytes_remain_evidence() -> None:
    trust = ledger()
    receive(trust, {0: (A, B), 1: (A, B), 2: (A, B)})
    trust.verdict(False)
    assert trust.parole([A, B]) == A
    receive(trust, {0: (A,)}, b"bad")
    assert trust.parole([B]) == B
    receive(trust, {0: (B,), 1: (B,), 2: (B,)})
    assert [proof.peer for proof in trust.verdict(True).proofs] == [A]


@given(
    seed=st.integers(0, 2**32),
    count=st.integers(1, 6),
    honest=st.integers(1, 3),
    liars=st.integers(0, 4),
    relays=st.integers(0, 2),
)
def test_one_honest_holder_is_enough_and_only_liars_are_convicted(
    seed: int, count: int, honest: int, liars: int, relays: int
) -> None:
    random = Random(seed)
    parts = [random.randbytes(8) for _ in range(count)]
    peers = [PeerID(random.randbytes(32)) for _ in range(honest + liars + relays)]
    guilty = set(peers[honest : honest + liars])
    misled = set(peers[honest + liars :])
    bad = [random.randbytes(8) for _ in range(count)]
    trust = WholeTrust(Digest.of(b"".join(parts)), Grains(count * GRAIN, GRAIN))
    for peer in peers:
        trust.claim(peer, complete=peer not in misled)
    disk: dict[int, bytes] = {}

    def sent(peer: PeerID, grain: int) -> bytes:
        wrong = (peer in guilty and random.random() < 0.6) or (peer in misled and liars)
        return (bad if wrong else parts)[grain]

    attempts = 0
    while not trust.complete:
        attempts += 1
        assert attempts <= len(peers) + 1
        if trust.failed:
            assert trust.parole(random.sample(peers, len(peers))) is not None
        for grain in trust.missing():
            first, second = (
                (trust.sole, trust.sole) if trust.sole else (random.choice(peers), random.choice(peers))
            )
            if random.random() < 0.7:
                second = first
            disk[grain] = sent(first, grain)[:4] + sent(second, grain)[4:]
            trust.judge(grain, tuple(sorted({first, second})), plain(disk[grain]))
        whole = b"".join(disk[grain] for grain in range(count))
        judgement = trust.verdict(Digest.of(whole) == trust.digest)
        assert {proof.peer for proof in judgement.proofs} <= trust.convicted <= guilty
    assert [disk[grain] for grain in range(count)] == parts
    if not guilty:
        assert attempts == 1

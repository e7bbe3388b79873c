from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from swarm.core.evidence import Proof
from swarm.core.standing import Sanction, Standing, StandingSettings
from swarm.model.digest import Digest
from swarm.model.peers import PeerID

LIAR, OTHER = PeerID(b"l" * 32), PeerID(b"o" * 32)
ONE, TWO, THREE = (Digest.of(bytes([n])) for n in range(3))
DAY, WEEK = 86400.0, 7 * 86400.0


def proof(digest: Digest, peer: PeerID = LIAR, detail: str = "its bytes fail its own list") -> Proof:
    return Proof(peer, digest, 1, "data", detail)


def test_nobody_is_barred_without_proof() -> None:
    standing = Standing()
    standing.verified(LIAR, ONE, 0)
    standing.pardon(LIAR)
    assert standing.barred(LIAR, ONE, 0) is None and standing.quarantined_until(LIAR, 0) is None
    assert standing.evidence(LIAR) == () == standing.on_record()


def test_one_proof_bars_from_that_blob_only_and_says_why() -> None:
    standing = Standing()
    assert standing.convict(proof(ONE), 10) is Sanction.BLOB
    assert standing.barred(LIAR, ONE, 11) == "proven wrong on this blob: its bytes fail its own list"
    assert standing.barred(LIAR, TWO, 11) is None and standing.barred(OTHER, ONE, 11) is None
    assert [(each.proof, each.at) for each in standing.evidence(LIAR)] == [(proof(ONE), 10)]


def test_more_proofs_on_the_same_blob_are_no_worse() -> None:
    standing = Standing()
    standing.convict(proof(ONE), 10)
    assert standing.convict(proof(ONE), 11) is Sanction.BLOB
    assert standing.quarantined_until(LIAR, 12) is None


def test_proofs_on_two_blobs_are_a_quarantine_that_ends() -> None:
    standing = Standing()
    standing.convict(proof(ONE), 10)
    assert standing.convict(proof(TWO), 20) is Sanction.QUARANTINE
    assert standing.quarantined_until(LIAR, 20) == 20 + DAY
    assert standing.barred(LIAR, THREE, 20 + DAY - 1) == "quarantined for proven lies"
    assert standing.barred(LIAR, THREE, 20 + DAY) is None
    assert standing.barred(LIAR, ONE, 20 + DAY) is not None  # that copy is still the bad one


def test_a_quarantine_settles_what_led_to_it() -> None:
    standing = Standing()
    standing.convict(proof(ONE), 10)
    standing.convict(proof(TWO), 20)
    assert standing.convict(proof(THREE), 20 + 2 * DAY) is Sanction.BLOB
    assert standing.convict(proof(ONE), 20 + 3 * DAY) is Sanction.QUARANTINE


def test_who_verified_its_copy_may_serve_it_and_a_relapse_is_a_quarantine() -> None:
    standing = Standing()
    standing.convict(proof(ONE), 10)
    standing.verified(LIAR, TWO, 15)
    assert standing.barred(LIAR, ONE, 15) is not None
    standing.verified(LIAR, ONE, 20)
    assert standing.barred(LIAR, ONE, 21) is None
    assert standing.convict(proof(ONE), 30) is Sanction.QUARANTINE
    assert standing.barred(LIAR, ONE, 30 + DAY) is not None


def test_proofs_expire() -> None:
    standing = Standing()
    standing.convict(proof(ONE), 0)
    assert standing.barred(LIAR, ONE, WEEK) is None
    assert standing.convict(proof(TWO), WEEK) is Sanction.BLOB
    standing.forget(WEEK + 1)
    assert [each.proof.digest for each in standing.evidence(LIAR)] == [TWO]
    standing.forget(2 * WEEK)
    assert standing.on_record() == ()


def test_a_quarantine_is_not_forgotten_before_it_ends() -> None:
    standing = Standing(StandingSettings(memory=5, quarantine=100))
    standing.convict(proof(ONE), 0)
    standing.convict(proof(TWO), 1)
    standing.forget(50)
    assert standing.evidence(LIAR) == () and standing.quarantined_until(LIAR, 50) == 101
    standing.forget(101)
    assert standing.on_record() == ()


def test_an_operator_may_pardon() -> None:
    standing = Standing()
    standing.convict(proof(ONE), 0)
    standing.convict(proof(TWO), 0)
    standing.pardon(LIAR)
    assert standing.barred(LIAR, ONE, 1) is None


def test_memory_is_bounded_and_the_latest_are_kept() -> None:
    standing = Standing(StandingSettings(evidence=3, peers=2))
    for n in range(10):
        standing.convict(proof(Digest.of(bytes([n]))), n)
    assert [each.at for each in standing.evidence(LIAR)] == [7, 8, 9]
    standing.convict(proof(ONE, OTHER), 11)
    standing.convict(proof(ONE), 12)
    standing.convict(proof(ONE, PeerID(b"x" * 32)), 13)
    assert standing.on_record() == (LIAR, PeerID(b"x" * 32))


@given(
    st.lists(
        st.tuples(st.floats(0, 1e5), st.sampled_from([ONE, TWO, THREE]), st.sampled_from([LIAR, OTHER])),
        max_size=20,
    )
)
def test_only_the_proven_are_ever_barred(events: list[tuple[float, Digest, PeerID]]) -> None:
    standing = Standing()
    now = 0.0
    proven: set[tuple[Digest, PeerID]] = set()
    for wait, digest, peer in events:
        now += wait
        outcome = standing.convict(proof(digest, peer), now)
        proven.add((digest, peer))
        assert standing.barred(peer, digest, now) is not None
        if outcome is Sanction.QUARANTINE:
            assert standing.quarantined_until(peer, now) == now + DAY
        for each in (LIAR, OTHER):
            blobs = {one for one, whose in proven if whose == each}
            for one in (ONE, TWO, THREE):
                if standing.barred(each, one, now) is not None:
                    assert one in blobs or len(blobs) >= 2

from __future__ import annotations

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from swarm.core.backoff import Backoff
from swarm.core.replication import Copy, Hints, Plan, plan, target
from swarm.model.digest import Digest
from swarm.model.peers import PeerID

PEERS = [PeerID(bytes([n]) * 32) for n in range(6)]
A, B, C, D, E, F = PEERS
ONE, TWO = Digest.of(b"1"), Digest.of(b"2")


def test_the_target_is_no_more_than_there_are_nodes() -> None:
    assert target(3, 0) == 1 and target(3, 1) == 2 and target(3, 9) == 3
    assert target(1, 9) == 1 and target(0, 9) == 1


def test_alone_is_reached_at_once() -> None:
    assert plan(1, [], {}) == Plan(reached=True) == plan(1, PEERS, {})


def test_as_many_are_asked_as_copies_are_missing_in_order_of_placement() -> None:
    assert plan(3, PEERS, {}) == Plan(ask=(A, B))
    assert plan(3, PEERS, {A: Copy.ASKING, B: Copy.ASKING}) == Plan()


def test_who_lacks_it_is_pushed_to() -> None:
    assert plan(3, PEERS, {A: Copy.LACKING, B: Copy.ASKING}) == Plan(push=(A,))
    assert plan(3, PEERS, {A: Copy.PUSHING, B: Copy.LACKING}) == Plan(push=(B,))


def test_who_holds_it_already_counts() -> None:
    assert plan(3, PEERS, {A: Copy.HOLDING, B: Copy.HOLDING}) == Plan(reached=True)
    assert plan(2, PEERS, {F: Copy.HOLDING, A: Copy.LACKING}) == Plan(reached=True)


def test_a_failure_lets_the_next_candidate_in() -> None:
    assert plan(3, PEERS, {A: Copy.FAILED, B: Copy.PUSHING}) == Plan(ask=(C,))
    assert plan(3, PEERS, {A: Copy.FAILED, B: Copy.LACKING}) == Plan(ask=(C,), push=(B,))


def test_without_anybody_left_it_is_exhausted() -> None:
    assert plan(3, [A, B], {A: Copy.HOLDING, B: Copy.FAILED}) == Plan(exhausted=True)
    assert plan(2, [], {}) == Plan(exhausted=True)
    assert plan(3, [A, B], {A: Copy.PUSHING, B: Copy.FAILED}) == Plan()


def test_a_peer_that_is_no_candidate_any_more_is_not_pushed_to() -> None:
    assert plan(2, [], {A: Copy.LACKING}) == Plan(exhausted=True)


@given(
    st.integers(1, 8),
    st.sets(st.sampled_from(PEERS)),
    st.dictionaries(st.sampled_from(PEERS), st.sampled_from(Copy)),
)
def test_no_more_is_under_way_than_missing_and_never_twice(
    wanted: int, candidates: set[PeerID], copies: dict[PeerID, Copy]
) -> None:
    step = plan(wanted, sorted(candidates), copies)
    missing = wanted - 1 - list(copies.values()).count(Copy.HOLDING)
    assert step.reached == (missing <= 0)
    assert len(step.ask) + len(step.push) <= max(0, missing)
    assert all(peer not in copies and peer in candidates for peer in step.ask)
    assert all(copies[peer] is Copy.LACKING and peer in candidates for peer in step.push)
    if step.exhausted:
        assert not step.ask and not step.push and not step.reached


@given(seed=st.integers(0, 2**32), wanted=st.integers(1, 7), copies=st.integers(0, 6))
def test_driven_to_its_end_it_reaches_the_target_if_enough_peers_are_willing(
    seed: int, wanted: int, copies: int
) -> None:
    random = Random(seed)
    willing = set(random.sample(PEERS, copies))
    state: dict[PeerID, Copy] = {}
    pushed: list[PeerID] = []
    for _ in range(100):
        step = plan(wanted, PEERS, state)
        if step.reached or step.exhausted:
            break
        state.update(dict.fromkeys(step.ask, Copy.ASKING) | dict.fromkeys(step.push, Copy.PUSHING))
        under_way = [peer for peer, copy in state.items() if copy in (Copy.ASKING, Copy.PUSHING)]
        peer = random.choice(under_way)
        if peer not in willing:
            state[peer] = Copy.FAILED
        elif state[peer] is Copy.ASKING:
            state[peer] = random.choice([Copy.LACKING, Copy.HOLDING])
        else:
            state[peer] = Copy.HOLDING
            pushed.append(peer)
    assert plan(wanted, PEERS, state).reached == (wanted - 1 <= copies)
    assert len(pushed) == len(set(pushed)) <= wanted - 1


class TestHints:
    def test_a_new_hint_is_due_at_once_and_the_larger_number_of_copies_wins(self) -> None:
        hints = Hints()
        assert hints.next_due() is None and hints.due(0, 9) == ()
        hints.add(ONE, 2, 5)
        hints.add(ONE, 3, 7)
        hints.add(ONE, 1, 7)
        assert hints.due(5, 9) == ((ONE, 3),) and hints.due(4, 9) == () and hints.next_due() == 5

    def test_failures_push_it_back_further_and_further(self) -> None:
        hints = Hints(Backoff(base=10, cap=1000, floor=1))
        hints.add(ONE, 2, 0)
        random = Random(1)
        for failures in range(1, 12):
            hints.failed(ONE, 100, random=random)
            due = hints.next_due()
            assert due is not None and 101 <= due <= 100 + min(1000, 10 * 2 ** (failures - 1))
        assert hints.due(100, 9) == ()

    def test_a_peer_that_comes_makes_all_due_soon(self) -> None:
        hints = Hints(Backoff(base=10, cap=10**6, floor=10))
        hints.add(ONE, 2, 0)
        hints.add(TWO, 2, 0)
        hints.failed(ONE, 0, random=Random(1))
        hints.peer_came(3, random=Random(1))
        assert {digest for digest, _ in hints.due(13, 9)} == {ONE, TWO}

    def test_the_longest_due_come_first_and_the_limit_holds(self) -> None:
        hints = Hints()
        hints.add(TWO, 2, 1)
        hints.add(ONE, 2, 2)
        assert hints.due(9, 1) == ((TWO, 2),) and len(hints.due(9, 2)) == 2

    def test_done_is_forgotten_and_unknown_ones_do_no_harm(self) -> None:
        hints = Hints()
        hints.add(ONE, 2, 0)
        assert len(hints) == 1
        hints.done(ONE)
        hints.done(ONE)
        hints.failed(ONE, 0, random=Random(1))
        assert len(hints) == 0

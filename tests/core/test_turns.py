from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from swarm.core.turns import Turns
from tests.core.pulling import peer_id

A, B, C, D = (peer_id(number) for number in range(1, 5))


def test_so_many_are_served_at_once_and_the_others_wait_in_the_order_they_came() -> None:
    turns: Turns[str] = Turns(2, 8, 4)
    assert [turns.ask(name, peer) for name, peer in zip("abcd", (A, B, C, D), strict=True)] == [None] * 4
    assert [turns.next(), turns.next(), turns.next()] == ["a", "b", None]
    assert "c" in turns and "a" not in turns and not turns.idle
    turns.over(A, 10, 1.0)
    assert turns.next() == "c"
    assert turns.leave("d") and not turns.leave("d")


def test_who_had_least_goes_first_and_who_had_most_is_sent_away() -> None:
    turns: Turns[str] = Turns(1, 8, 2)
    turns.ask("a", A)
    assert turns.next() == "a"
    turns.over(A, 100, 1.0)
    turns.ask("x", C)
    assert turns.next() == "x"
    assert turns.ask("a again", A) is None
    assert turns.ask("b", B) is None
    assert turns.ask("d", D) == "a again"
    turns.over(C, 50, 2.0)
    assert turns.next() == "b"
    turns.over(B, 20, 3.0)
    assert turns.ask("c", C) is None
    assert turns.next() == "d"


def test_of_those_that_had_as_much_the_last_is_sent_away() -> None:
    turns: Turns[str] = Turns(1, 8, 1)
    turns.ask("a", A)
    assert turns.next() == "a"
    assert turns.ask("b", B) is None
    assert turns.ask("c", C) == "c"


def test_a_crowd_is_more_peers_than_are_served_at_once() -> None:
    turns: Turns[str] = Turns(1, 8, 4)
    assert not turns.crowded
    for name in ("a", "a again"):
        turns.ask(name, A)
        assert not turns.crowded
    turns.ask("b", B)
    assert turns.crowded


def test_whoever_reads_slowly_takes_nobodys_turn() -> None:
    turns: Turns[str] = Turns(1, 8, 4)
    turns.ask("slow", A)
    assert turns.next() == "slow"
    turns.ask("b", B)
    turns.ask("c", C)
    assert turns.next() is None
    turns.overdue()
    assert turns.next() == "b"
    turns.over(A, 100, 9.0, overdue=True)
    assert turns.serving == 1 and turns.next() is None, "it had made room before"
    turns.over(B, 100, 9.0)
    assert turns.next() == "c"


def test_a_crowd_is_served_one_at_a_time_from_when_it_forms() -> None:
    turns: Turns[str] = Turns(2, 8, 8, 1)
    for name, peer in zip("ab", (A, B), strict=True):
        turns.ask(name, peer)
    assert [turns.next(), turns.next()] == ["a", "b"] and turns.allowed == 2
    turns.ask("c", C)
    assert turns.allowed == 1 and turns.next() is None
    turns.over(A, 10, 1.0)
    assert turns.next() is None, "one is under way still"
    turns.over(B, 10, 1.0)
    assert turns.next() == "c" and turns.next() is None
    turns.allowed = 2
    turns.ask("d", D)
    assert turns.allowed == 2, "what was found since is kept"


def test_in_a_crowd_an_answer_is_overdue_after_four_times_the_usual_time() -> None:
    turns: Turns[str] = Turns(1, 8, 8, 1)
    turns.ask("a", A)
    assert turns.next() == "a" and turns.patience(100, 4.0) == 4.0
    turns.over(A, 100, 0.5, took=0.5)
    assert turns.patience(100, 4.0) == 4.0, "nobody else is there"
    turns.ask("b", B)
    assert turns.patience(100, 4.0) == 2.0
    assert turns.patience(1000, 4.0) == 4.0 and turns.patience(1, 4.0) == 0.5
    assert turns.next() == "b"
    turns.over(B, 100, 2.0, took=0.7)
    assert turns.patience(100, 4.0) == 4.0 * 0.6


def serve(turns: Turns[int], rate: float, seconds: float) -> tuple[int, float]:
    """
    A hundred peers ask all the time, for a hundred bytes each. Those served share one link of this rate.

    :param rate: negative: each has as much for itself.
    :return: how many are allowed in the end, and bytes a second.
    """
    now, asked, sent, left = 0.0, 0, 0.0, dict[int, float]()
    while now < seconds:
        while turns.serving < turns.allowed or not turns._waiting:
            asked += 1
            turns.ask(asked, peer_id(asked % 100))
            while (turn := turns.next()) is not None:
                left[turn] = 100.0
        each = -rate if rate < 0 else rate / len(left)
        step = min(left.values()) / each
        now, sent = now + step, sent + step * each * len(left)
        for turn in list(left):
            left[turn] -= each * step
            if left[turn] <= 1e-6:
                del left[turn]
                turns.over(peer_id(turn % 100), 100, now)
                asked += 1
                turns.ask(asked, peer_id(asked % 100))
    return turns.allowed, sent / now


def test_sharing_one_link_few_stay_few() -> None:
    turns: Turns[int] = Turns(4, 64, 4)
    seen = set()
    for _ in range(6):
        seen.add(serve(turns, 1000.0, 40.0)[0])
    assert seen <= {4, 8} and 4 in seen


def test_slow_takers_are_served_many_at_once() -> None:
    turns: Turns[int] = Turns(4, 64, 4)
    allowed, rate = serve(turns, -10.0, 1000.0)
    assert allowed == 64
    assert rate > 400.0, "four at once would take 40"


class Crowd(RuleBasedStateMachine):
    """Whoever asks is served, refused or waits, each once; never more at once than allowed."""

    def __init__(self) -> None:
        super().__init__()
        self.turns: Turns[int] = Turns(2, 4, 3)
        self.asked = 0
        self.waiting: set[int] = set()
        self.served: list[int] = []
        self.now = 0.0

    @rule(peer=st.integers(1, 5))
    def ask(self, peer: int) -> None:
        self.asked += 1
        self.waiting.add(self.asked)
        refused = self.turns.ask(self.asked, peer_id(peer))
        if refused is not None:
            self.waiting.remove(refused)

    @rule()
    def next(self) -> None:
        turn = self.turns.next()
        assert (turn is None) == (not self.waiting or len(self.served) >= self.turns.allowed)
        if turn is not None:
            self.waiting.remove(turn)
            self.served.append(turn)

    @precondition(lambda self: self.served)
    @rule(peer=st.integers(1, 5), sent=st.integers(0, 1000), took=st.floats(0, 10))
    def over(self, peer: int, sent: int, took: float) -> None:
        self.now += took
        self.served.pop()
        self.turns.over(peer_id(peer), sent, self.now)

    @precondition(lambda self: self.waiting)
    @rule()
    def leave(self) -> None:
        assert self.turns.leave(self.waiting.pop())

    @invariant()
    def counts(self) -> None:
        assert self.turns.serving == len(self.served)
        assert 2 <= self.turns.allowed <= 4
        assert all(each in self.turns for each in self.waiting)
        assert self.turns.idle == (not self.served and not self.waiting)


TestCrowd = Crowd.TestCase


@given(st.integers(1, 4), st.integers(0, 4))
def test_a_free_place_is_not_refused(few: int, waiting: int) -> None:
    turns: Turns[int] = Turns(few, 64, waiting)
    assert all(turns.ask(number, peer_id(number)) is None for number in range(few))

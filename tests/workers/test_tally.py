"""Counts in shared memory: added up over a worker's deaths, never falling, told once, seen by all."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.errors import Overloaded
from swarm.peering.limits import PeerLimits
from swarm.workers.messages import DOORS, PEERS
from swarm.workers.tally import METHODS, Tally

ANSWERS = st.lists(
    st.tuples(
        st.sampled_from(DOORS),
        st.sampled_from(METHODS),
        st.integers(100, 599),
        st.integers(0, 1 << 40),
        st.booleans(),
    )
)


@given(ANSWERS)
def test_the_node_hears_of_every_answer_once_whoever_gave_it(
    answers: list[tuple[bytes, str, int, int, bool]],
) -> None:
    pages = Tally.create(3)
    node, worker = Tally(pages, 1), Tally(pages, 1)
    heard: dict[tuple[bytes, str, int], list[int]] = {}

    def listen() -> None:
        for door in DOORS:
            for method, code, count, sent in node.sheets[door].news():
                assert count > 0 and sent >= 0
                total = heard.setdefault((door, method, code), [0, 0])
                total[0] += count
                total[1] += sent

    wanted: dict[tuple[bytes, str, int], list[int]] = {}
    for door, method, code, size, dies in answers:
        worker.sheets[door].add(method, code, size)
        total = wanted.setdefault((door, method, code), [0, 0])
        total[0] += 1
        total[1] += size
        if dies:
            listen()
            worker = Tally(pages, 1)
    listen()
    assert heard == wanted
    assert not any(list(node.sheets[door].news()) for door in DOORS)
    assert not any(list(Tally(pages, slot).sheets[door].news()) for door in DOORS for slot in (0, 2))
    os.close(pages)


def test_a_limit_of_uploads_holds_for_all_processes_and_the_dead_free_theirs() -> None:
    pages = Tally.create(3)
    node, one, two = (Tally(pages, slot) for slot in range(3))
    limits = PeerLimits(uploads=2)
    with node.uploads.another(limits), one.uploads.another(limits):
        assert [each.uploads.count for each in (node, one, two)] == [1, 1, 0]
        assert two.uploads.everywhere == 2
        with pytest.raises(Overloaded), two.uploads.another(limits):
            pass
        Tally(pages, 1).died()
        with two.uploads.another(limits):
            assert node.uploads.everywhere == 2
        one.uploads.count = 1
    assert node.uploads.everywhere == 0
    os.close(pages)


def test_refusals_are_counted_beside() -> None:
    pages = Tally.create(2)
    Tally(pages, 1).refused()
    Tally(pages, 1).refused()
    assert (Tally(pages, 0).refusals, Tally(pages, 1).refusals) == (0, 2)
    assert list(Tally(pages, 1).sheets[PEERS].news()) == []
    os.close(pages)

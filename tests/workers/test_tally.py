"""Counts in shared memory: added up over a worker's deaths, never falling, told once."""

from __future__ import annotations

import os

from hypothesis import given
from hypothesis import strategies as st

from swarm.workers.tally import METHODS, Tally

ANSWERS = st.lists(
    st.tuples(st.sampled_from(METHODS), st.integers(100, 599), st.integers(0, 1 << 40), st.booleans())
)


@given(ANSWERS)
def test_the_node_hears_of_every_answer_once_whoever_gave_it(
    answers: list[tuple[str, int, int, bool]],
) -> None:
    page = Tally.create()
    node, worker = Tally(page), Tally(page)
    heard: dict[tuple[str, int], list[int]] = {}

    def listen() -> None:
        for method, code, count, sent in node.news():
            assert count > 0 and sent >= 0
            total = heard.setdefault((method, code), [0, 0])
            total[0] += count
            total[1] += sent

    wanted: dict[tuple[str, int], list[int]] = {}
    for method, code, size, dies in answers:
        worker.add(method, code, size)
        total = wanted.setdefault((method, code), [0, 0])
        total[0] += 1
        total[1] += size
        if dies:
            listen()
            worker = Tally(page)
    listen()
    assert heard == wanted
    assert list(node.news()) == []
    os.close(page)

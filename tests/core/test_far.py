"""Whole pulls over long wires in virtual time: see :mod:`tests.core.wires`."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.model.ranges import ByteRange
from tests.core.wires import MBIT, MIB, LongPull, Wire

NEAR, FAR = 0.02, 0.1


def ideal(size: int, wires: list[Wire]) -> float:
    """Seconds, if every wire were full from the first moment on."""
    return size / sum(wire.ceiling for wire in wires)


@pytest.mark.parametrize(
    ("size", "wires", "share"),
    [
        (256, ((200, NEAR),), 0.97),
        (512, ((200, FAR),), 0.94),
        (256, ((100, NEAR),) * 3, 0.96),
        (512, ((100, FAR),) * 3, 0.92),
        (512, ((10, 0.005), (50, 0.05), (200, FAR)), 0.93),
        (512, ((30, FAR),) * 10, 0.92),
    ],
)
def test_links_are_used_and_the_tail_is_short(
    size: int, wires: tuple[tuple[float, float], ...], share: float
) -> None:
    there = [Wire(rate * MBIT, rtt) for rate, rtt in wires]
    pull = LongPull(size * MIB, there)
    assert pull.run() <= ideal(size * MIB, there) / share
    assert pull.tail <= 0.05
    assert pull.dispatch.tally.duplicated <= 0.005 * size * MIB


_WIRES = st.lists(
    st.builds(
        Wire,
        st.sampled_from([5, 10, 50, 100, 200, 400]).map(lambda each: each * MBIT),
        st.sampled_from([0.001, 0.02, 0.05, 0.1, 0.3]),
    ),
    min_size=1,
    max_size=6,
)


@given(_WIRES, st.sampled_from([4, 8, 20, 50]), st.integers(0, 99))
def test_no_mixture_of_sources_costs_more_than_a_few_round_trips(
    wires: list[Wire], size: int, seed: int
) -> None:
    """Three to ask, some to gather speed, some at the end; and no two take from each other for ever."""
    pull = LongPull(size * MIB, wires, seed=seed)
    longest = max(wire.rtt for wire in wires)
    assert pull.run() <= ideal(size * MIB, wires) + 13 * (longest + 0.1)
    assert pull.dispatch.complete
    assert pull.dispatch.tally.takeovers <= 8
    assert sum(pull.dialed.values()) <= len(wires) + 6


@pytest.mark.parametrize("rtt", [NEAR, FAR])
def test_one_that_crawls_from_now_on_holds_up_nobody(rtt: float) -> None:
    wires = [Wire(100 * MBIT, rtt) for _ in range(3)]
    pull = LongPull(256 * MIB, wires)

    def crawl() -> None:
        wires[0].rate /= 100

    pull.at(3.7, crawl)
    assert pull.run() <= 11.0
    assert pull.tail <= 0.05


@pytest.mark.parametrize("rtt", [NEAR, FAR])
def test_one_that_says_nothing_more_holds_up_nobody(rtt: float) -> None:
    wires = [Wire(100 * MBIT, rtt) for _ in range(3)]
    pull = LongPull(128 * MIB, wires)

    def vanish() -> None:
        wires[0].gone = True

    pull.at(2.0, vanish)
    assert pull.run() <= 2.0 + ideal(128 * MIB - 2 * MIB * 30, wires[1:]) + 12 * (rtt + 0.1)


@pytest.mark.parametrize(("rtt", "most"), [(NEAR, 0.7), (FAR, 1.2)])
def test_a_reader_who_seeks_amid_a_pull_waits_less_than_a_new_connection_would_take(
    rtt: float, most: float
) -> None:
    pull = LongPull(256 * MIB, [Wire(100 * MBIT, rtt) for _ in range(3)])
    waited = []

    def seek(place: float) -> None:
        grain = pull.grains.at(int(place * pull.grains.size))
        assert not pull.dispatch.senders(grain)
        began = pull.now
        start = pull.grains.start(grain)
        pull.dispatch.want("reader", ByteRange(start, start + 1), pull.now)

        def come() -> None:
            waited.append(pull.now - began)
            pull.dispatch.unwant("reader")

        pull.on_verified[grain] = come
        pull.turn()

    for index, place in enumerate((0.02, 0.3, 0.1, 0.06)):
        pull.at(2.0 + index, lambda place=place: seek(place))  # type: ignore[misc]
    pull.run()
    assert len(waited) == 4
    assert max(waited) <= most

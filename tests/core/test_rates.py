from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from swarm.core.rates import Quantiles, Rate


def test_a_rate_is_unknown_until_enough_came_or_a_second_was_waited() -> None:
    rate = Rate(window=1000, enough=100)
    assert rate.at(0.0) is None
    rate.begin(0.0)
    assert rate.at(5.0) is None, "silence alone is no rate"
    rate.add(10, 0.5)
    assert rate.at(0.5) is None
    assert rate.ceiling(0.5) == 200.0
    assert rate.at(2.0) == 5.0, "after a second of waiting, any bytes will do"
    rate.add(90, 2.5)
    assert rate.at(2.5) == 40.0


def test_a_burst_is_spread_over_the_time_it_was_waited_for() -> None:
    rate = Rate(window=10_000, enough=100)
    rate.begin(0.0)
    for _ in range(50):
        rate.add(100, 1.0)
    assert rate.at(1.0) == 5000.0


def test_only_the_window_counts() -> None:
    rate = Rate(window=1000, enough=10)
    rate.begin(0.0)
    now = 0.0
    for _ in range(100):
        now += 0.01
        rate.add(100, now)
    for _ in range(40):
        now += 1.0
        rate.add(100, now)
    measured = rate.at(now)
    assert measured is not None and 95 < measured < 105
    assert rate.total == 14_000


def test_time_at_rest_does_not_count_and_silence_does() -> None:
    rate = Rate(window=1000, enough=10)
    rate.begin(0.0)
    rate.begin(0.5)
    rate.add(100, 1.0)
    rate.rest(1.0)
    assert rate.at(50.0) == 100.0
    rate.begin(60.0)
    assert rate.at(61.0) == 50.0
    rate.add(100, 61.0)
    assert rate.at(61.0) == 100.0


def test_bytes_nobody_waited_for_cost_no_time() -> None:
    rate = Rate(window=1000, enough=10)
    rate.add(100, 5.0)
    assert rate.at(5.0) == 100 / 1e-6


@given(st.lists(st.floats(0, 100), min_size=1, max_size=200), st.floats(0, 1))
def test_quantiles_are_those_of_the_last_values(values: list[float], at: float) -> None:
    quantiles = Quantiles(64)
    for value in values:
        quantiles.add(value)
    recent = sorted(values[-64:])
    found = quantiles.at(at, -1.0)
    assert found in recent
    assert sum(value <= found for value in recent) >= at * len(recent)


def test_of_too_many_values_the_oldest_is_forgotten() -> None:
    quantiles = Quantiles(2)
    for value in (1.0, 9.0, 5.0):
        quantiles.add(value)
    assert quantiles.at(0.0, -1.0) == 5.0 and quantiles.at(1.0, -1.0) == 9.0


def test_no_values_no_quantile() -> None:
    assert Quantiles().at(0.5, 7.0) == 7.0

from __future__ import annotations

from swarm.core.drought import Drought


def test_nobody_is_in_need_before_it_waited_for_so_long() -> None:
    drought = Drought(0.25, 1.0)
    assert not drought.ails(100.0, 0.0, 0)
    assert not drought.ails(100.0, 0.9, 0)
    assert drought.ails(100.0, 1.0, 0)


def test_who_gets_a_fair_part_of_what_the_far_source_brings_waits_for_its_neighbours() -> None:
    drought = Drought(0.25, 1.0)
    drought.ails(100.0, 5.0, 1000)
    assert not drought.ails(100.0, 6.0, 1025)
    assert drought.ails(101.0, 6.5, 1025), "that source is faster"
    assert drought.ails(100.0, 7.0, 1049), "and neighbours became slower"
    assert not drought.ails(100.0, 8.0, 1090)


def test_a_far_source_of_unknown_speed_is_asked_only_where_nothing_came() -> None:
    drought = Drought(0.25, 1.0)
    drought.ails(0.0, 0.0, 0)
    assert not drought.ails(0.0, 1.0, 1)
    assert drought.ails(0.0, 2.0, 1)

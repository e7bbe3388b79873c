"""The measure of the soak of pulls: what counts as standing still, and that somebody asleep is seen to be."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time

from attrs import define

from swarm.testing.pulls.rounds import SIZES, draw
from swarm.testing.pulls.standing import EVERY, Pause, Standing, Watch, asleep


@define(eq=False)
class Still:
    """A download of which nothing comes."""

    at: int = 0
    ended: bool = False


def test_only_what_did_not_move_stood_still() -> None:
    standing = Standing()
    for at in (0, 10, 20, 30):
        standing.look(at, 0, 1.0, True)
    assert standing.worst == Pause()


def test_time_counts_as_slept_only_while_all_sleep_and_others_are_not_forgotten() -> None:
    standing = Standing()
    standing.look(10, 100, EVERY, True)
    standing.look(10, 150, EVERY, True)
    standing.look(10, 300, EVERY, False)
    assert standing.now == Pause(10, 2 * EVERY, EVERY, 200)
    standing.look(11, 900, EVERY, True)
    assert standing.now == Pause(11) and standing.worst == Pause(10, 2 * EVERY, EVERY, 200)


def test_who_looks_late_does_not_know_how_long_all_slept() -> None:
    standing = Standing()
    standing.look(10, 0, EVERY, True)
    standing.look(10, 0, 30.0, True)
    assert standing.now == Pause(10, 30.0, 2 * EVERY, 0)


def test_a_process_that_waits_is_asleep_and_one_that_works_is_not() -> None:
    endless = [sys.executable, "-c", "while True: pass"]
    with subprocess.Popen(["sleep", "60"]) as waiting, subprocess.Popen(endless) as working:
        try:
            time.sleep(1.0)
            assert asleep([waiting.pid])
            assert not asleep([waiting.pid, working.pid])
            assert asleep([2**22 + 1]), "who is gone keeps nobody awake"
        finally:
            waiting.kill()
            working.kill()


def test_a_download_that_stands_still_is_told_once_and_while_it_does() -> None:
    told: list[Pause] = []
    still, over = Still(), Still(ended=True)
    with Watch(lambda: [os.getpid()], 0.2, lambda download, pause: told.append(pause)) as watch:
        watch.add(still)
        watch.add(over)
        threading.Event().wait(1.5)
        assert len(told) == 1
    assert watch.of(still).worst.asleep > 0.2 and watch.of(over).worst == Pause()


def test_the_same_seed_draws_the_same_round_and_many_draw_everything() -> None:
    rounds = [draw(seed, SIZES, 2) for seed in range(200)]
    assert rounds == [draw(seed, SIZES, 2) for seed in range(200)]
    readings = [reading for each in rounds for reading in each.readings]
    assert {reading.blob for reading in readings} == set(range(len(SIZES)))
    assert {reading.puller for reading in readings} == {0, 1}
    assert {each.trouble for each in rounds} == {"none", "slow", "stopped", "again"}
    assert all(0 <= reading.start < SIZES[reading.blob] for reading in readings)

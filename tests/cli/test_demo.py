"""The demonstration's stage: it takes one directory, and gives it back."""

from __future__ import annotations

from pathlib import Path

import pytest

from swarm.cli.demo import Stage
from swarm.cli.session import Failure


def test_the_directory_is_gone_afterwards(tmp_path: Path) -> None:
    stage = Stage(tmp_path / ".demo")
    with stage.set_up(keep=False) as swarm:
        assert swarm.directory.is_relative_to(tmp_path / ".demo")
    assert list(tmp_path.iterdir()) == []


def test_the_directory_is_gone_after_an_interruption(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), Stage(tmp_path / ".demo").set_up(keep=False):
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_what_failed_can_be_looked_at_and_the_next_run_begins_anew(tmp_path: Path) -> None:
    with pytest.raises(Failure), Stage(tmp_path / ".demo").set_up(keep=False) as swarm:
        (swarm.directory / "evidence").touch()
        raise Failure("broken")
    assert (tmp_path / ".demo/swarm/evidence").exists()
    with Stage(tmp_path / ".demo").set_up(keep=True) as swarm:
        assert not (swarm.directory / "evidence").exists()
    assert (tmp_path / ".demo").exists()


def test_a_directory_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / ".demo").mkdir()
    (tmp_path / ".demo/mine").touch()
    with pytest.raises(Failure, match="no demo's"), Stage(tmp_path / ".demo").set_up(keep=False):
        pass
    assert (tmp_path / ".demo/mine").exists()


def test_two_demos_do_not_share_a_directory(tmp_path: Path) -> None:
    with Stage(tmp_path / ".demo").set_up(keep=False) as swarm:
        with pytest.raises(Failure, match="another demo"), Stage(tmp_path / ".demo").set_up(keep=False):
            pass
        assert swarm.directory.exists()


def test_what_does_not_hold_ends_the_story(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    stage.check(True, "this")
    stage.wait(lambda: True, "at once")
    with pytest.raises(Failure, match="that"):
        stage.check(False, "that")
    with pytest.raises(Failure, match="not within 0 s"):
        stage.wait(lambda: False, "never", within=0.0)
    assert stage.held[0] == (True, "this")

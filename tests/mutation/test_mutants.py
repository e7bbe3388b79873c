"""Every mutant still fits the code, and a few are killed right here; ``make mutants`` judges all."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from swarm.testing.mutation.__main__ import judge
from swarm.testing.mutation.mutants import MUTANTS, Mutant
from swarm.testing.mutation.seeds import count
from swarm.testing.mutation.switch import DoesNotApply, mutate

TOP = Path(__file__).parents[2]


def source_of(module: str) -> str:
    spec = find_spec(module)
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).read_text("utf-8")


@pytest.mark.parametrize("mutant", MUTANTS.values(), ids=MUTANTS.keys())
def test_a_mutant_fits_its_module_and_names_suites_that_are_there(mutant: Mutant) -> None:
    compile(mutate(mutant, source_of(mutant.module)), mutant.module, "exec")
    assert mutant.suites and all((TOP / suite).exists() for suite in mutant.suites)


def test_there_are_enough_and_no_two_are_the_same() -> None:
    assert len(MUTANTS) >= 25
    assert len({(mutant.module, mutant.old, mutant.new) for mutant in MUTANTS.values()}) == len(MUTANTS)


def test_words_that_are_gone_are_an_error() -> None:
    with pytest.raises(DoesNotApply):
        mutate(Mutant("x", "", "swarm.errors", "no such words", "", ()), source_of("swarm.errors"))


@pytest.mark.parametrize("name", ["no-verification", "range-off-by-one", "push-without-asking"])
def test_a_mutant_is_switched_on_and_killed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(TOP)
    assert judge(MUTANTS[name]).killer is not None


def test_the_simulation_is_asked_how_many_seeds_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(TOP)
    seen = count(MUTANTS["failed-push-counts"], most=20, trials=[0])
    assert seen.needed[0] is not None and seen.problem
    assert count(MUTANTS["expired-token"], most=1).needed == (None,)


def test_without_a_mutant_the_switch_changes_nothing() -> None:
    code = "import sys; before = list(sys.meta_path); import swarm.testing.mutation.switch; "
    code += "sys.exit(before != sys.meta_path)"
    assert subprocess.run([sys.executable, "-c", code], cwd=TOP, check=False).returncode == 0

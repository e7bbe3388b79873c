"""From samples to the table people read."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import outcome, plots, report
from bench.goals import BY_KEY, GOALS
from bench.outcome import Figure, Outcome, Result, Row, absolute, ratio
from bench.programs import PROGRAMS

OURS = Row("ours", [{"wall s": 1.0}, {"wall s": 2.0}, {"wall s": 3.0}])
THEIRS = Row("theirs", [{"wall s": 4.0}, {"wall s": 5.0}, {"wall s": 12.0}])


def made(*figures: Figure, rows: tuple[Row, ...] = (OURS, THEIRS), form: str = "full") -> Outcome:
    machine = {"CPU": "2 cores", "load before": "0.00 0.00 0.00"}
    result = Result("a pull", rows, figures, ("noted",))
    return Outcome("pull", form, 3, "2026-11-20 12:00", "abc", 4.0, machine, result)


def test_a_ratio_is_of_medians_and_its_spread_of_single_rounds() -> None:
    assert ratio("P2", OURS, THEIRS, "wall s") == Figure("P2", 2 / 5, 1 / 4, 2 / 5)
    assert ratio("P2", OURS, THEIRS, "wall s", inverse=True) == Figure("P2", 5 / 2, 5 / 2, 4.0)


@pytest.mark.parametrize(("ours", "theirs"), [(OURS, None), (OURS, Row("x")), (Row("x"), THEIRS)])
def test_what_was_not_run_has_no_figure(ours: Row, theirs: Row | None) -> None:
    figure = ratio("P2", ours, theirs, "wall s")
    assert figure.value is None and figure.why_not
    assert report.shown(figure) == "–"
    assert report.verdict(figure) == figure.why_not


def test_plain_numbers() -> None:
    assert absolute("P13", [3.0, 1.0, 2.0]) == Figure("P13", 2.0, 1.0, 3.0)
    assert absolute("P13", [3.0, 1.0, 2.0], worst=True).value == 3.0
    assert absolute("P13", []).value is None


@pytest.mark.parametrize(
    ("figure", "said"),
    [
        (Figure("P2", 0.70), "reached"),
        (Figure("P2", 0.77), "missed by 10%"),
        (Figure("P2", 0.701), "missed by a hair"),
        (Figure("P8", 1.3), "reached"),
        (Figure("P8", 0.75), "missed by 25%"),
    ],
)
def test_verdicts(figure: Figure, said: str) -> None:
    assert report.verdict(figure) == said


@given(st.sampled_from(GOALS), st.floats(0, 1e6))
def test_a_goal_is_reached_or_missed_by_something(goal: object, value: float) -> None:
    assert isinstance(goal, type(GOALS[0]))
    assert goal.reached(value) is (goal.missed_by(value) == 0.0)


def test_json_and_back(tmp_path: Path) -> None:
    whole = made(Figure("P2", 0.4, 0.3, 0.5), Figure("P3", why_not="no openssl"))
    outcome.save(tmp_path / "pull.json", whole)
    assert outcome.load(tmp_path / "pull.json") == whole
    assert outcome.load_all(tmp_path, ["get", "pull"]) == [whole]
    assert [path.name for path in tmp_path.iterdir()] == ["pull.json"]


def test_every_goal_has_a_line_measured_or_not() -> None:
    text = report.report([made(Figure("P2", 0.4, 0.3, 0.5))])
    for goal in GOALS:
        assert f"| {goal.key} | {goal.work} |" in text
    assert "| **0.400** (0.300–0.500) | reached |" in text
    assert text.count("| – | not measured |") == len(GOALS) - 1


def test_rounds_and_notes_are_shown_and_where_they_are_from() -> None:
    text = report.report([made()], {"pull": "plots/pull.svg"})
    assert "| ours | 2.00 (1.00–3.00) |" in text
    assert "* noted\n" in text
    assert "3 rounds, 2026-11-20 12:00 UTC, commit abc" in text
    assert "![a pull](plots/pull.svg)" in text


def test_a_row_without_samples_is_not_shown() -> None:
    assert "absent" not in report.report([made(rows=(OURS, Row("absent")))])


def test_a_quick_figure_says_so() -> None:
    assert "| reached (quick) |" in report.report([made(Figure("P2", 0.4), form="quick")])


def test_rows_of_another_kind_get_a_table_of_their_own() -> None:
    small = Row("small", [{"requests/s": 2000.0}])
    part = report.program_part(made(rows=(OURS, small)))
    assert "| | wall s |" in part and "| | requests/s |" in part
    assert "| small | 2,000 |" in part


def test_a_program_without_a_result_is_named() -> None:
    assert "* `pull` (a pull from three peers): no room" in report.report(
        [], ran=report.failed({"pull": "no room"})
    )
    assert report.failed({}) == ""


def test_nothing_measured_yet() -> None:
    assert "Nothing was measured yet." in report.report([])


def test_the_same_outcomes_draw_the_same_pictures(tmp_path: Path) -> None:
    outcomes = [made(Figure("P2", 0.4), Figure("P8", 0.5), Figure("P3", why_not="no openssl"))]
    once, twice = plots.draw(outcomes, tmp_path / "a"), plots.draw(outcomes, tmp_path / "b")
    assert once.keys() == twice.keys()
    for name, path in once.items():
        assert path.read_bytes() == twice[name].read_bytes()


def test_goals_are_named_once_and_every_one_has_a_program() -> None:
    assert len(BY_KEY) == len(GOALS)
    measured = {goal for program in PROGRAMS for goal in program.goals}
    assert {goal.key.split()[0] for goal in GOALS} == measured == {f"P{n}" for n in range(1, 15)}


def test_figures_of_the_programs_that_are_there_are_beside_goals() -> None:
    """A misspelt goal would be found at the end of an hour's run only."""
    here = Path(plots.__file__).parent
    for path in here.glob("*.py"):
        for piece in path.read_text().split('ratio("')[1:] + path.read_text().split('absolute("')[1:]:
            assert piece.partition('"')[0] in BY_KEY, path.name

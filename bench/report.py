"""What was found, for people: Markdown made from outcomes. Pure.

Decides the verdict's words and the order: first every goal with its figure, then each program's
rounds and notes. A goal whose figure nobody took stands there too, with the reason.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bench.goals import BY_KEY, GOALS, Goal
from bench.outcome import Figure, Outcome, Row
from bench.programs import BY_NAME

_HEAD = """# Results

Made by `python -m bench` from what each of its programs left in `bench/results`; do not edit. A program can
be run again alone (`python -m bench pull`): its part here is then the new one, and says when and of which
commit it is.

Figures are medians of interleaved rounds (ours, theirs, ours, theirs, …, after one to warm up) and, in
brackets, the least and the most of single rounds. A ratio is ours over theirs, taken in the same run on the
same machine; where a rate is compared, more is better, and the goal says so. What a rival could not be run
for has no figure.
"""


def report(outcomes: Sequence[Outcome], plots: Mapping[str, str] | None = None, ran: str = "") -> str:
    """
    RESULTS.md.

    :param plots: program → path of a picture, from where the report lies; ``""`` is the overview.
    :param ran: why programs that were asked for have no result, if so.
    """
    plots = plots or {}
    parts = [_HEAD, _machines(outcomes), "## Goals\n", goals_table(outcomes)]
    if ran:
        parts.append(ran)
    if "" in plots:
        parts.append(f"![Figures as shares of their goals]({plots['']})\n")
    parts.extend(program_part(outcome, plots.get(outcome.program)) for outcome in outcomes)
    return "\n".join(parts)


def _machines(outcomes: Sequence[Outcome]) -> str:
    """Facts that are the same for all programs, once."""
    if not outcomes:
        return "Nothing was measured yet.\n"
    newest = max(outcomes, key=lambda each: each.date).machine
    lines = [f"* **{name}**: {value}" for name, value in newest.items() if name != "load before"]
    return "\n".join([*lines, ""])


def goals_table(outcomes: Sequence[Outcome]) -> str:
    """Goal, figure, verdict."""
    figures = {figure.goal: figure for outcome in outcomes for figure in outcome.result.figures}
    forms = {figure.goal: outcome.form for outcome in outcomes for figure in outcome.result.figures}
    lines = [
        "| goal | what | beside | at most, or ≥ | figure (min–max) | verdict |",
        "|---|---|---|---|---|---|",
    ]
    for goal in GOALS:
        figure = figures.get(goal.key, Figure(goal.key, why_not="not measured"))
        form = forms.get(goal.key, "full")
        limit = f"{'≥ ' if goal.more else ''}{_number(goal, goal.limit)}"
        said = f"{verdict(figure)}{'' if form == 'full' else f' ({form})'}"
        lines.append(f"| {goal.key} | {goal.work} | {goal.beside} | {limit} | {shown(figure)} | {said} |")
    return "\n".join([*lines, ""])


def shown(figure: Figure) -> str:
    """A figure with its spread; a dash without one."""
    if figure.value is None:
        return "–"
    goal = BY_KEY[figure.goal]
    text = f"**{_number(goal, figure.value)}**"
    if figure.low is not None and figure.high is not None and figure.low != figure.high:
        text += f" ({_plain(figure.low)}–{_plain(figure.high)})"
    return text


def verdict(figure: Figure) -> str:
    """Reached; missed by how much; or why nobody knows."""
    if figure.value is None:
        return figure.why_not
    missed = BY_KEY[figure.goal].missed_by(figure.value)
    return f"missed by {missed:.0%}" if missed >= 0.005 else "missed by a hair" if missed else "reached"


def program_part(outcome: Outcome, plot: str | None = None) -> str:
    """One program's rounds."""
    result = outcome.result
    lines = [
        f"## {outcome.program}: {result.title}",
        "",
        f"{outcome.form}, {outcome.rounds} rounds, {outcome.date} UTC, commit {outcome.commit}, "
        f"{outcome.seconds:.0f} s in all, load before: {outcome.machine.get('load before', '?')}.",
        "",
    ]
    for rows in _alike(result.rows):
        lines += [rounds_table(rows), ""]
    lines += [f"* {note}" for note in result.notes]
    if plot:
        lines += ["", f"![{result.title}]({plot})"]
    return "\n".join([*lines, ""])


def rounds_table(rows: Sequence[Row]) -> str:
    """Medians and spread of rows with the same columns."""
    headings = list(dict.fromkeys(name for row in rows for name in row.headings))
    lines = ["| | " + " | ".join(headings) + " |", "|---" * (len(headings) + 1) + "|"]
    lines += [f"| {row.name} | " + " | ".join(_cell(row, each) for each in headings) + " |" for row in rows]
    return "\n".join(lines)


def _alike(rows: Sequence[Row]) -> list[list[Row]]:
    """Neighbours that share a column share a table."""
    tables: list[list[Row]] = []
    for row in (row for row in rows if row.samples):
        if tables and set(tables[-1][-1].headings) & set(row.headings):
            tables[-1].append(row)
        else:
            tables.append([row])
    return tables


def _cell(row: Row, what: str) -> str:
    values = row.values(what)
    if not values:
        return ""
    text = _plain(row.median(what))
    return text if len(values) == 1 else f"{text} ({_plain(min(values))}–{_plain(max(values))})"


def _number(goal: Goal, value: float) -> str:
    return f"{_plain(value)}{'' if goal.unit == '×' else ' ' + goal.unit}"


def _plain(value: float) -> str:
    """Three digits that count, and never an exponent."""
    if value == 0:
        return "0"
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2 if abs(value) >= 1 else 3
    return f"{value:,.{digits}f}"


def failed(why: Mapping[str, str]) -> str:
    """A list of programs without a result, for the report."""
    if not why:
        return ""
    lines = [f"* `{name}` ({BY_NAME[name].what}): {reason}" for name, reason in why.items()]
    return "\n".join(["Without a result in the last run:\n", *lines, ""])

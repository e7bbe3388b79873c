"""``python -m bench [NAME…]``: measure, keep what was found, write the report."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from pathlib import Path

from bench import plots, report, running
from bench.outcome import load, load_all
from bench.programs import BY_NAME, PROGRAMS

HERE = Path(__file__).parent
_ROUNDS = {"quick": 3, "full": 7}


def main() -> int:
    """Run what was asked for."""
    options = _options()
    if options.list:
        for program in PROGRAMS:
            print(f"{program.name:8} {', '.join(program.goals):16} {program.what}")
        return 0
    results = options.out / "results"
    results.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    why: dict[str, str] = {}
    try:
        for name in [] if options.report else options.names or BY_NAME:
            start = time.monotonic()
            print(f"{name}: {BY_NAME[name].what}", file=sys.stderr, flush=True)
            try:
                running.run(BY_NAME[name], options, results)
            except running.CannotRun as e:
                why[name] = str(e)
                print(f"  no result: {e}", file=sys.stderr, flush=True)
                continue
            outcome = load(results / f"{name}.json")
            print(report.program_part(outcome), flush=True)
            print(f"  {name} took {time.monotonic() - start:.0f} s", file=sys.stderr, flush=True)
    except KeyboardInterrupt:
        print("interrupted; what was finished is kept", file=sys.stderr)
        why = {**why, "": ""}
    write(options.out, {name: reason for name, reason in why.items() if name})
    print(report.goals_table(load_all(results, BY_NAME)))
    return 1 if why else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BY_NAME)}; all if none")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--quick", action="store_true", help="smaller and fewer: ten minutes for all")
    form.add_argument("--full", action="store_true", help="as the goals say; the default for a NAME")
    parser.add_argument("--rounds", type=int, help="for the record, after one to warm up; 7, quick 3")
    parser.add_argument("--mib", type=int, help="size of the large blob; 1,024, for memory 10,240")
    parser.add_argument("--dir", type=Path, default=HERE / "runs", help="work there, on a real disk")
    parser.add_argument("--out", type=Path, help="for RESULTS.md, results, plots; bench, or bench/runs")
    parser.add_argument("--report", action="store_true", help="measure nothing, write the report anew")
    parser.add_argument("--list", action="store_true", help="name the programs")
    options = parser.parse_args()
    if unknown := [name for name in options.names if name not in BY_NAME]:
        parser.error(f"no such program: {', '.join(unknown)}; there are {', '.join(BY_NAME)}")
    options.rounds = options.rounds or _ROUNDS["quick" if options.quick else "full"]
    if options.out is None:
        # What a quick or odd run gives is no result to keep beside the full ones.
        odd = options.quick or options.mib or options.rounds < _ROUNDS["full"]
        options.out = HERE / "runs" if odd else HERE
    return options


def write(out: Path, why: dict[str, str]) -> None:
    """RESULTS.md and its pictures, from all results there are."""
    outcomes = load_all(out / "results", BY_NAME)
    pictures = plots.draw(outcomes, out / "plots")
    text = report.report(
        outcomes, {name: f"plots/{path.name}" for name, path in pictures.items()}, report.failed(why)
    )
    (out / "RESULTS.md").write_text(text)
    print(f"written: {out / 'RESULTS.md'}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())

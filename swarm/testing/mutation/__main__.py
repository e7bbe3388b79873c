"""``python -m swarm.testing.mutation [NAME…]``: switch each mutant on, run its suites, write the table.

To be run in a checkout, for the suites are not installed. Exits with 1 if a mutant survives.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from attrs import frozen

from swarm.testing.mutation.mutants import MUTANTS, Mutant
from swarm.testing.mutation.switch import VARIABLE

LIMIT = 150.0
"""Seconds one suite may take; a fault that makes it hang is noticed, too."""

_FAILED = 1  # pytest's word for: tests ran, and some failed


@frozen
class Outcome:
    """Who killed a mutant, after how many seconds of running suites; None if nobody did."""

    mutant: Mutant
    killer: str | None
    seconds: float


def judge(mutant: Mutant) -> Outcome:
    """
    Run the mutant's suites until one fails.

    :raises RuntimeError: a suite could not be run.
    """
    began = time.monotonic()
    for suite in mutant.suites:
        if killer := _killer(mutant, suite):
            return Outcome(mutant, killer, time.monotonic() - began)
    return Outcome(mutant, None, time.monotonic() - began)


def _killer(mutant: Mutant, suite: str) -> str | None:
    command = [sys.executable, "-m", "pytest", "-x", "-q", "--no-header", "--tb=no", "-p", "no:cacheprovider"]
    command += ["-p", "swarm.testing.mutation.switch", suite]
    environment = {**os.environ, VARIABLE: mutant.name, "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=LIMIT)
    except subprocess.TimeoutExpired:
        return f"{suite} (it hangs)"
    if run.returncode == 0:
        return None
    failed = [
        line.removeprefix("FAILED ").partition(" - ")[0]
        for line in run.stdout.splitlines()
        if line.startswith("FAILED ")
    ]
    if run.returncode != _FAILED or not failed:
        raise RuntimeError(f"{mutant.name}: {suite} could not be run\n{run.stdout}{run.stderr}")
    return failed[0]


def table(outcomes: list[Outcome]) -> str:
    """A page for the docs."""
    killed = sum(outcome.killer is not None for outcome in outcomes)
    page = f"""\
Mutants
=======

Made by ``make mutants``. Each row is a deliberate fault, switched on by the test kit alone (production code
has no switch), and the first test that noticed. {killed} of {len(outcomes)} were killed.

.. list-table::
   :header-rows: 1
   :widths: 20 30 20 30

   * - fault
     - the promise it breaks
     - in
     - killed by
"""
    for outcome in outcomes:
        mutant = outcome.mutant
        killer = "**nobody**" if outcome.killer is None else f"``{outcome.killer}``"
        page += (
            f"   * - {mutant.name}\n     - {mutant.promise}\n     - ``{mutant.module}``\n     - {killer}\n"
        )
    return page


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser(prog="python -m swarm.testing.mutation", description="judge mutants")
    parser.add_argument("names", nargs="*", metavar="NAME", help="which; all of them by default")
    parser.add_argument("--out", type=Path, help="where to write the table")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="suites at once")
    options = parser.parse_args()
    if unknown := set(options.names) - MUTANTS.keys():
        parser.error(f"no such mutant: {', '.join(sorted(unknown))}")
    chosen = [mutant for mutant in MUTANTS.values() if not options.names or mutant.name in options.names]
    with ThreadPoolExecutor(options.jobs) as pool:
        outcomes = []
        for outcome in pool.map(judge, chosen):
            sys.stdout.write(
                f"{outcome.mutant.name}: {outcome.killer or 'SURVIVED'} ({outcome.seconds:.0f} s)\n"
            )
            outcomes.append(outcome)
    if options.out is not None:
        options.out.write_text(table(outcomes), "utf-8")
    return 0 if all(outcome.killer for outcome in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())

"""``python -m swarm.testing.mutation [NAME…]``: switch each mutant on, run its suites, write the table.

Then the simulated swarm is tried, which need not see them: how many seeds does it take? To be run in a
checkout, for the suites are not installed. Exits with 1 if a mutant survives its suites.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from attrs import evolve, frozen

from swarm.testing.mutation.mutants import MUTANTS, Mutant
from swarm.testing.mutation.seeds import MOST, Seen, count
from swarm.testing.mutation.switch import environment

LIMIT = 900.0
"""Seconds one suite may take: a fault that makes it wait for ever is noticed, too. On a busy machine every
test is slow, so there is no other limit by the clock; what one may take of a core is ``switch.CPU``."""

_FAILED = 1  # pytest's word for: tests ran, and some failed


@frozen
class Outcome:
    """
    Who killed a mutant, after how many seconds of running suites; None if nobody did.

    :ivar seen: what the simulation made of it, if it was asked.
    """

    mutant: Mutant
    killer: str | None
    seconds: float
    seen: Seen | None = None


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
    command += ["-o", "timeout=0", "-p", "swarm.testing.mutation.switch", suite]
    try:
        run = subprocess.run(command, env=environment(mutant), capture_output=True, text=True, timeout=LIMIT)
    except subprocess.TimeoutExpired:
        return f"{suite} (it hangs)"
    if run.returncode == -signal.SIGXCPU:
        return f"{suite} (it does not end)"
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
    most = max((outcome.seen.most for outcome in outcomes if outcome.seen is not None), default=0)
    page = f"""\
Mutants
=======

Made by ``make mutants``, about a quarter of an hour of two cores. Each row is a deliberate fault, switched
on by the test kit alone (production code has no switch), and the first test that noticed.
{killed} of {len(outcomes)} were killed.

The last column is the simulated swarm: how many seeds until one of them breaks a promise, counted three
times, from seed 0, 10,000 and 20,000 on, up to {most} seeds each (``make mutants SEEDS=500`` tries longer).
After a count that found nothing there is no other. Behind it stands what it takes, as far as we know.

.. list-table::
   :header-rows: 1
   :widths: 16 24 14 26 20

   * - fault
     - the promise it breaks
     - in
     - killed by
     - seeds
"""
    for outcome in outcomes:
        mutant = outcome.mutant
        killer = "**nobody**" if outcome.killer is None else f"``{outcome.killer}``"
        page += (
            f"   * - {mutant.name}\n     - {mutant.promise}\n     - ``{mutant.module}``\n     - {killer}\n"
        )
        page += f"     - {seeds(outcome)}\n"
    return page


def seeds(outcome: Outcome) -> str:
    """How many it takes, for the table."""
    seen = "not tried" if outcome.seen is None else f"{outcome.seen}"
    why = outcome.mutant.unseen if outcome.seen is None or None in outcome.seen.needed else ""
    return f"{seen}: {why}" if why else seen


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser(prog="python -m swarm.testing.mutation", description="judge mutants")
    parser.add_argument("names", nargs="*", metavar="NAME", help="which; all of them by default")
    parser.add_argument("--out", type=Path, help="where to write the table")
    parser.add_argument("--seeds", type=int, default=MOST, help=f"for the simulation; 0: none [{MOST}]")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="suites at once")
    options = parser.parse_args()
    if unknown := set(options.names) - MUTANTS.keys():
        parser.error(f"no such mutant: {', '.join(sorted(unknown))}")
    chosen = [mutant for mutant in MUTANTS.values() if not options.names or mutant.name in options.names]

    def both(mutant: Mutant) -> Outcome:
        outcome = judge(mutant)
        return evolve(outcome, seen=count(mutant, most=options.seeds)) if options.seeds else outcome

    with ThreadPoolExecutor(options.jobs) as pool:
        outcomes = []
        for outcome in pool.map(both, chosen):
            sys.stdout.write(
                f"{outcome.mutant.name}: {outcome.killer or 'SURVIVED'} ({outcome.seconds:.0f} s);"
                f" seeds: {outcome.seen or 'not tried'}\n"
            )
            sys.stdout.flush()
            outcomes.append(outcome)
    if options.out is not None:
        options.out.write_text(table(outcomes), "utf-8")
    return 0 if all(outcome.killer for outcome in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())

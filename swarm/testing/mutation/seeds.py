"""How many seeds of the simulated swarm it takes until one breaks a promise, with a mutant switched on.

``SWARM_MUTANT=name python -m swarm.testing.mutation.seeds FIRST COUNT`` says what the first seed found that
found anything, after an empty line for each that did not. A process for each mutant: it is switched on once.
"""

from __future__ import annotations

import resource
import signal
import subprocess
import sys
from collections.abc import Sequence

from attrs import frozen

from swarm.testing.mutation.mutants import Mutant
from swarm.testing.mutation.switch import CPU, environment

TRIALS = (0, 10_000, 20_000)
"""Where each count begins."""

MOST = 60
"""Seeds of one trial, some 20 seconds of a core."""

_WAIT = 7200.0


@frozen
class Seen:
    """
    What the simulation made of a mutant.

    :ivar needed: seeds, in each trial; the last is None if that trial saw nothing.
    :ivar most: seeds there were in a trial.
    :ivar problem: what the last trial found.
    """

    needed: tuple[int | None, ...]
    most: int
    problem: str = ""

    def __str__(self) -> str:
        return ", ".join(f"not in {self.most}" if each is None else str(each) for each in self.needed)


def count(mutant: Mutant, *, most: int = MOST, trials: Sequence[int] = TRIALS) -> Seen:
    """
    Try it. After a trial that saw nothing there is no other.

    :raises RuntimeError: a run could not be made.
    """
    needed, problem = list[int | None](), ""
    for first in trials:
        found, problem = _trial(mutant, first, most)
        needed.append(found)
        if found is None:
            break
    return Seen(tuple(needed), most, problem)


def _trial(mutant: Mutant, first: int, most: int) -> tuple[int | None, str]:
    command = [sys.executable, "-m", "swarm.testing.mutation.seeds", str(first), str(most)]
    done = subprocess.run(
        command, env=environment(mutant), capture_output=True, text=True, timeout=_WAIT, check=False
    )
    lines = done.stdout.splitlines()
    if done.returncode == -signal.SIGXCPU:
        return len(lines) + 1, "a run that does not end"
    if done.returncode:
        raise RuntimeError(f"{mutant.name}: no run could be made\n{done.stderr}")
    return (len(lines), lines[-1]) if lines[-1] else (None, "")


def main() -> int:
    """See the module."""
    from swarm.testing.simulation.runs import begin, run  # after what is switched on
    from swarm.testing.simulation.timeline import Livelock

    resource.setrlimit(resource.RLIMIT_CPU, (CPU, CPU + 1))  # a run that never ends is noticed, too
    first, most = map(int, sys.argv[1:])
    begin()
    for seed in range(first, first + most):
        try:
            problems = run(seed).problems
        except Livelock as e:
            problems = (f"a run that does not end: {e}",)
        sys.stdout.write(f"{' '.join(problems[0].split())[:200]}\n" if problems else "\n")
        sys.stdout.flush()
        if problems:
            break
    return 0


if __name__ == "__main__":
    sys.exit(main())

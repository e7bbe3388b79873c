"""``python -m swarm.testing.simulation --seeds 0:100``: many runs, and what they came to."""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter

from twisted.logger import globalLogBeginner

from swarm.testing.simulation.runs import run


def main() -> int:
    """Run the seeds asked for; 1 if a promise was broken."""
    options = argparse.ArgumentParser(prog="python -m swarm.testing.simulation", description=__doc__)
    options.add_argument("--seeds", default="0:20", help="FIRST:AFTER_LAST, or one seed [0:20]")
    options.add_argument("--hours", type=float, default=0.0, help="go on from FIRST for so long instead")
    options.add_argument("--tls", action="store_true", default=None, help="real TLS in every run")
    options.add_argument("--trace", action="store_true", help="print each seed's trace")
    options.add_argument("--history", action="store_true", help="print every event")
    asked = options.parse_args()
    globalLogBeginner.beginLoggingTo([], redirectStandardIO=False)
    first, _, stop = asked.seeds.partition(":")
    last = sys.maxsize if asked.hours else int(stop) if stop else int(first) + 1
    probes: Counter[str] = Counter()
    faults: Counter[str] = Counter()
    count, broken, events, simulated, began = 0, 0, 0, 0.0, time.perf_counter()
    for seed in range(int(first), last):
        if asked.hours and time.perf_counter() - began > asked.hours * 3600:
            _say(f"the next seed is {seed}")
            break
        outcome = run(seed, tls=asked.tls, history=asked.history)
        for line in outcome.history:
            _say(line)
        if asked.trace:
            _say(f"{seed} {outcome.trace} {outcome.events} events {outcome.seconds:.0f} s")
        for problem in outcome.problems:
            _say(f"seed {seed}: {problem}")
        count += 1
        broken += bool(outcome.problems)
        events += outcome.events
        simulated += outcome.seconds
        probes.update(outcome.probes.keys())
        faults.update(outcome.faults)
    took, cpu = time.perf_counter() - began, time.process_time()
    _say(
        f"{count} seeds, {broken} broken; {events} events, {simulated / 3600:.1f} simulated hours "
        f"in {took:.1f} s: {count / took:.2f} seeds/s, {count / cpu:.2f} in a second of one core"
    )
    _say("faults: " + ", ".join(f"{kind} {count}" for kind, count in sorted(faults.items())))
    _say("probes, by seeds that hit them: " + ", ".join(f"{p} {c}" for p, c in sorted(probes.items())))
    return 1 if broken else 0


def _say(line: str) -> None:
    print(line, file=sys.stdout, flush=True)  # noqa: T201 - this is the answer


if __name__ == "__main__":
    sys.exit(main())

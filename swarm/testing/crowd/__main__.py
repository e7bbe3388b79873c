"""``python -m swarm.testing.crowd``: play a blob to a crowd, print what came of it, and draw it.

The same arguments give the same numbers and the same picture, but for the processor seconds.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from swarm.testing.crowd.charts import chart
from swarm.testing.crowd.layouts import LAYOUTS
from swarm.testing.crowd.runs import Outcome, run


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(prog="python -m swarm.testing.crowd", description=__doc__)
    parser.add_argument("--nodes", type=int, nargs="+", default=[50])
    parser.add_argument("--layouts", choices=sorted(LAYOUTS), nargs="+", default=["even", "sites"])
    parser.add_argument("--grains", type=int, default=64, help="of 1 MiB (64)")
    parser.add_argument("--holders", type=int, default=1, help="nodes that have the blob at first (1)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="where to write crowd.svg")
    given = parser.parse_args()
    runs: dict[str, Outcome] = {}
    for layout in given.layouts:
        for nodes in given.nodes:
            outcome = run(layout, nodes, given.grains, seed=given.seed, holders=given.holders)
            runs[f"{layout}, {nodes} nodes"] = outcome
            sys.stdout.write(_words(outcome) + "\n")
            sys.stdout.flush()
    if given.out is not None:
        title = f"A blob of {given.grains} MiB: nodes that have it, over time in Kumar-Ross bounds"
        (given.out / "crowd.svg").write_text(chart(title, runs))


def _words(outcome: Outcome) -> str:
    abroad = " ".join(f"{each:.1f}" for each in outcome.abroad)
    return (
        f"{outcome.layout:6} {outcome.nodes:5} nodes: bound {outcome.bound:6.1f} s, "
        f"eta p50 {outcome.efficiency(0.5):.2f} p99 {outcome.efficiency(0.99):.2f}, "
        f"seed sent {outcome.overhead:5.2f}, from other sites {abroad}, duplicates {outcome.duplicates:.1%}, "
        f"refused {outcome.refused}, HEADs {outcome.asked}, {outcome.events} events, {outcome.cpu:.0f} s CPU"
    )


if __name__ == "__main__":
    main()

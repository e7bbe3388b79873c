"""P12, the sources: a pull from fifty nodes beside one from three.

Decides that both swarms run at the same time, on the same two cores, and know nothing of each other.
"""

from __future__ import annotations

import time
from pathlib import Path

from bench import nodes
from bench.blobs import make_file
from bench.measure import Case, command, peak_memory
from bench.outcome import WALL, Result, ratio
from bench.programs import Asked
from bench.rivals import need
from swarm.testing.processes import Node, Swarm, swarm_in


def run(asked: Asked) -> Result:
    """Two swarms, each with a node that lacks the blob."""
    size, many = asked.size(128, 32), 12 if asked.quick else 50
    source, notes = asked.disk / "blob", list[str]()
    digest = make_file(source, size)
    with swarm_in(asked.disk / "swarm") as swarm:
        cases, pullers = [], []
        for count in (3, many):
            holders = [_holder(swarm, count, number, source) for number in range(count)]
            puller = nodes.puller(swarm, f"puller{count}", holders, f"--cluster=of{count}", "--copies=1")
            pullers.append(puller)
            cases.append(_case(f"from {count} sources", puller, holders, digest))
            asked.say(f"{count} sources are there")
        time.sleep(5.0 if asked.quick else 15.0)  # until all of them have greeted each other
        rows = asked.interleave(cases, notes)
        peaks = [f"{peak_memory(nodes.processes([puller])):.0f} MB" for puller in pullers]
    few, all_of_them = rows["from 3 sources"], rows[f"from {many} sources"]
    return Result(
        f"{size >> 20} MiB from {many} sources beside 3",
        tuple(rows.values()),
        (ratio("P12 sources", all_of_them, few, WALL),),
        (
            *notes,
            f"{many + 3} nodes share this machine's cores, which is most of what is seen here; a pull asks "
            "ten sources at a time",
            f"peak memory of the nodes that pull: {' and '.join(peaks)}",
        ),
    )


def _holder(swarm: Swarm, count: int, number: int, source: Path) -> Node:
    node = swarm.add(f"of{count}-{number}", f"--cluster=of{count}", "--copies=1")
    command([need("curl"), "-sf", "-T", source, f"{node.url}/blob"])
    return node


def _case(name: str, puller: Node, holders: list[Node], digest: str) -> Case:
    return Case(
        name,
        lambda: nodes.pull(puller, holders, digest),
        lambda: nodes.forget(puller, digest),
    )

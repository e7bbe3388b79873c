"""P7 and P8: small GETs, as many as wrk can ask for, beside nginx with two workers.

Decides the load: one thread, 32 kept connections, one blob of a size. wrk shares the cores with the
server it asks, for both sides alike.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

from bench import nodes
from bench.blobs import make_file
from bench.measure import Case, Failed, cpu_of
from bench.outcome import Figure, Result, Row, Sample, ratio
from bench.programs import Asked
from bench.rivals import nginx, parse_wrk, wrk
from swarm.testing.processes import Node, swarm_in

RATE, TAIL, EACH = "requests/s", "p99 ms", "server CPU µs/request"
_SIZES = {"1 KiB": 1 << 10, "64 KiB": 64 << 10}


def run(asked: Asked) -> Result:
    """Both sizes, one process and two, in turn."""
    seconds = 2.0 if asked.quick else 3.0
    digests = {name: make_file(asked.disk / name.replace(" ", ""), size) for name, size in _SIZES.items()}
    notes = [
        f"wrk, one thread, 32 connections, {seconds:.0f} s a round; one blob of each size, always the same; "
        "nginx: two workers, sendfile, open_file_cache, no access log",
        "a hundred thousand requests a second is about what wrk itself can ask for on such a machine",
    ]
    workers = nodes.knows("--workers")
    if not workers:
        notes.append("left out: this swarm has no --workers")
    with swarm_in(asked.disk / "swarm") as swarm:
        servers: dict[str, Node] = {"swarm, one process": swarm.add("one", "--copies=1")}
        if workers:
            servers["swarm --workers 2"] = swarm.add("two", "--copies=1", "--workers=2")
        for node in servers.values():
            for name in _SIZES:
                node.put((asked.disk / name.replace(" ", "")).read_bytes())
        identity = swarm.authority.issue("rival", ["127.0.0.1"], now=nodes.now())
        with nginx(asked.disk / "nginx", asked.disk, identity) as server:
            cases = []
            for name, digest in digests.items():
                url = f"{server.url}/{name.replace(' ', '')}"
                cases.append(Case(f"nginx, 2 workers, {name}", _load(url, seconds, lambda: server.pids)))
                for title, node in servers.items():
                    load = _load(f"{node.url}/{digest}", seconds, _processes(node))
                    cases.append(Case(f"{title}, {name}", load))
            rows = asked.interleave(cases, notes)
    return Result(
        "GETs of 1 KiB and 64 KiB under load",
        tuple(rows.values()),
        (
            _beside("P7 one", rows, "swarm, one process, 1 KiB", RATE),
            _beside("P7 one p99", rows, "swarm, one process, 1 KiB", TAIL),
            _beside("P7 workers", rows, "swarm --workers 2, 1 KiB", RATE),
            _beside("P7 workers p99", rows, "swarm --workers 2, 1 KiB", TAIL),
            _beside("P8", rows, "swarm, one process, 64 KiB", RATE),
            _beside("P8 workers", rows, "swarm --workers 2, 64 KiB", RATE),
        ),
        tuple(notes),
    )


def _processes(node: Node) -> Callable[[], list[int]]:
    return lambda: nodes.processes([node])


def _beside(goal: str, rows: dict[str, Row], ours: str, what: str) -> Figure:
    if ours not in rows:
        return Figure(goal, why_not="this swarm has no --workers")
    return ratio(goal, rows[ours], rows[f"nginx, 2 workers, {ours.rpartition(', ')[2]}"], what)


def _load(url: str, seconds: float, servers: Callable[[], Sequence[int]]) -> Callable[[], Sample]:
    return lambda: load(url, seconds, servers())


def load(
    url: str, seconds: float, servers: Sequence[int], *, connections: int = 32, script: Path | None = None
) -> Sample:
    """Let wrk ask for so long. :raises Failed: any answer was not a good one."""
    arguments = wrk(url, seconds=seconds, connections=connections, script=script)
    busy = cpu_of(servers)
    try:
        done = subprocess.run(arguments, capture_output=True, text=True, timeout=seconds + 60)
    except subprocess.TimeoutExpired as e:
        raise Failed("wrk did not end") from e
    rate, tail = parse_wrk(done.stdout)
    each = (cpu_of(servers) - busy) / (rate * seconds) * 1e6
    return {RATE: rate, TAIL: tail, EACH: each}

"""``python -m bench [NAME…]``: measure, print tables, write them as Markdown and JSON."""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import swarm
import twisted
from bench import transfers
from bench.measure import Row
from bench.transfers import MIB, Table

BENCHES: dict[str, tuple[Callable[..., Table], int]] = {
    "pull": (transfers.pull, 1024),
    "put": (transfers.put, 1024),
    "get": (transfers.get, 1024),
    "memory": (transfers.memory, 10 * 1024),
}


def main() -> int:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHES)}; all if none")
    parser.add_argument("--rounds", type=int, default=7, help="for the record, after one to warm up")
    parser.add_argument("--mib", type=int, help="size of the blob; 1,024, for memory 10,240")
    parser.add_argument("--out", type=Path, help="write RESULTS.md and results.json there")
    parser.add_argument("--dir", type=Path, help="work there; default: bench/runs beside this file")
    options = parser.parse_args()
    if unknown := [name for name in options.names if name not in BENCHES]:
        parser.error(f"no such bench: {', '.join(unknown)}")
    base = options.dir or Path(__file__).parent / "runs"
    base.mkdir(parents=True, exist_ok=True)
    tables = []
    for name in options.names or BENCHES:
        bench, mib = BENCHES[name]
        work = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=base.resolve()))
        try:
            table = bench(work / "in", (options.mib or mib) * MIB, options.rounds, say)
        finally:
            shutil.rmtree(work, ignore_errors=True)
        tables.append(table)
        print(markdown(table), flush=True)
    if options.out is not None:
        write(options.out, tables, options.rounds)
    return 0


def say(text: str) -> None:
    """Progress, apart from the tables."""
    print(f"  {text}", file=sys.stderr, flush=True)


def markdown(table: Table) -> str:
    """A table with medians, their spread, and every row's ratio to ours."""
    ours = next(row for row in table.rows if row.name == table.ours)
    lines = [
        f"## {table.title}",
        "",
        "| | wall s (min–max) | client CPU s | server CPU s | ours / theirs, wall | client CPU |",
        "|---|---|---|---|---|---|",
    ]
    for row in table.rows:
        low, high = row.spread("wall")
        lines.append(
            f"| {row.name} | {row.median('wall'):.3f} ({low:.3f}–{high:.3f}) | {row.median('client'):.2f} "
            f"| {row.median('server'):.2f} | {ratio(ours, row, 'wall')} | {ratio(ours, row, 'client')} |"
        )
    return "\n".join([*lines, "", *(f"* {note}" for note in table.notes), ""])


def ratio(ours: Row, theirs: Row, what: str) -> str:
    """Ours over theirs; nothing for ourselves, or where they cost nothing."""
    if ours is theirs or not theirs.median(what):
        return ""
    return f"{ours.median(what) / theirs.median(what):.2f}"


def write(directory: Path, tables: list[Table], rounds: int) -> None:
    """RESULTS.md for people and results.json for programs."""
    directory.mkdir(parents=True, exist_ok=True)
    head = [
        "# Results",
        "",
        f"Medians of {rounds} interleaved rounds after one to warm up, "
        f"{time.strftime('%Y-%m-%d', time.gmtime())}, by `python -m bench`.",
        f"{os.cpu_count()} cores, Linux {platform.release()}, Python {platform.python_version()}, "
        f"Twisted {twisted.__version__}, swarm {swarm.__version__}, {', '.join(versions())}.",
        "",
    ]
    (directory / "RESULTS.md").write_text("\n".join(head) + "\n" + "\n".join(map(markdown, tables)))
    results = {
        table.title: {
            row.name: [{"wall": c.wall, "client": c.client, "server": c.server} for c in row.costs]
            for row in table.rows
        }
        | {"notes": list(table.notes)}
        for table in tables
    }
    (directory / "results.json").write_text(json.dumps(results, indent=1) + "\n")


def versions() -> list[str]:
    """What the others say they are."""
    said = []
    for name, flag in (
        ("nginx", "-v"),
        ("aria2c", "--version"),
        ("openssl", "version"),
        ("curl", "--version"),
    ):
        try:
            done = subprocess.run(
                [name, flag], capture_output=True, text=True, env={"PATH": "/usr/bin:/usr/sbin:/bin"}
            )
        except OSError:
            continue
        said.append((done.stdout or done.stderr).splitlines()[0].removeprefix("nginx version: "))
    return said


if __name__ == "__main__":
    sys.exit(main())

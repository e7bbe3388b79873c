"""Pulls over wires with a rate and a delay: how much of the links they use, and how they end.

``python -m bench.network [SCENARIO…]``. Each scenario puts real nodes at the ends of wires (see
``network_site``) and pulls from them. The ideal is what the shapers let through in all, headers
included: at an MTU of 1,500 no payload comes nearer to it than 96.4 %.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from attrs import field, frozen

from bench import network_plots
from bench.measure import cpu_of
from bench.network_site import MIB, Course, Site, Wire, ask, finished, site

MBIT = 1e6

Say = Callable[[str], None]


@frozen
class Seen:
    """What one scenario gave: figures by name with unit, and the course of its pull for a plot."""

    figures: Mapping[str, float]
    course: list[tuple[float, Mapping[str, int]]] = field(factory=list)


@frozen
class Scenario:
    """Wires, and what is done over them; ``quick`` and ``full`` are the sizes of its blob in bytes."""

    title: str
    wires: tuple[Wire, ...]
    quick: int
    full: int
    run: Callable[[Site, int], Seen]


# -- what is done --------------------------------------------------------------------------------


def plain(there: Site, size: int) -> Seen:
    """One pull, nothing happens."""
    return _pull(there, size, sum(host.rate for host, _ in there.sources))


def slows(there: Site, size: int) -> Seen:
    """At half of the bytes the first source drops to 1 % of its rate."""
    host = there.sources[0][0]
    rest = sum(each.rate for each, _ in there.sources[1:])
    return _pull(there, size, host.rate + rest, lambda: host.shape(host.rate / 100), rest)


def stalls(there: Site, size: int) -> Seen:
    """At half of the bytes the first source stops for good; its connections stay."""
    host = there.sources[0][0]
    rest = sum(each.rate for each, _ in there.sources[1:])
    return _pull(there, size, host.rate + rest, host.leave, rest)


def leaves(there: Site, size: int) -> Seen:
    """At half of the bytes the first source's process ends, and its connections with it."""
    host, node = there.sources[0]
    rest = sum(each.rate for each, _ in there.sources[1:])
    return _pull(there, size, host.rate + rest, node.kill, rest)


def _pull(
    there: Site, size: int, rate: float, halfway: Callable[[], None] | None = None, rest: float = 0.0
) -> Seen:
    """One pull; ``rate`` bits a second are to be had, or ``rest`` of them once ``halfway`` was called."""
    puller, digest = there.pullers[0], there.blob(size)
    before, busy = puller.metrics(), cpu_of([puller.pid])
    course = Course(puller.pid)
    ideal = size * 8 / rate
    with course.watched():
        start = time.monotonic()
        ask(puller, digest)
        if halfway is not None:
            while course.totals()[-1][1] < size / 2:
                time.sleep(0.01)
            spent = time.monotonic() - start
            halfway()
            ideal = spent + size / 2 * 8 / rest
        seconds = finished(puller, digest, start)
    used = cpu_of([puller.pid]) - busy
    tail = seconds - course.reached(0.99)
    grains = _grain_seconds(before, puller.metrics())
    return Seen(
        {
            "wall s": seconds,
            "ideal s": ideal,
            "of the links %": 100 * ideal / seconds,
            "last 1 % of bytes, % of time": 100 * tail / seconds,
            "twice %": 100 * _came(before, puller.metrics(), "duplicated") / size,
            "wasted %": 100 * _came(before, puller.metrics(), "wasted") / size,
            "grain p50 s": _quantile(grains, 0.5),
            "grain p99 s": _quantile(grains, 0.99),
            "client CPU s": used,
        },
        course.samples,
    )


def two(there: Site, size: int) -> Seen:
    """Two pulls of blobs of one size at the same time."""
    return _beside(there, [size, size])


def small_beside_large(there: Site, size: int) -> Seen:
    """A pull of a sixteenth of the size begins two seconds after a large one did."""
    return _beside(there, [size, size // 16], pause=2.0)


def five(there: Site, size: int) -> Seen:
    """Five pulls of blobs of one size at the same time."""
    return _beside(there, [size] * 5)


def _beside(there: Site, sizes: list[int], pause: float = 0.0) -> Seen:
    """Pulls at once; what each got while all of them ran, from the progress the node tells."""
    puller, rate = there.pullers[0], sum(host.rate for host, _ in there.sources)
    digests = [there.blob(size) for size in sizes]
    ends = [0.0] * len(sizes)
    starts = [0.0] * len(sizes)

    def one(index: int) -> None:
        starts[index] = time.monotonic()
        ask(puller, digests[index])
        ends[index] = starts[index] + finished(puller, digests[index], starts[index])

    course = Course(puller.pid)
    with course.watched():
        threads = []
        for index in range(len(sizes)):
            threads.append(threading.Thread(target=there.in_hub(one), args=(index,)))
            threads[-1].start()
            if index + 1 < len(sizes):
                time.sleep(pause)
        for thread in threads:
            thread.join()
    rates = [size / (end - start) for size, start, end in zip(sizes, starts, ends, strict=True)]
    whole = max(ends) - min(starts)
    figures = {
        "wall s": whole,
        "of the links %": 100 * sum(sizes) * 8 / rate / whole,
        "slowest s": max(end - start for start, end in zip(starts, ends, strict=True)),
        "quickest s": min(end - start for start, end in zip(starts, ends, strict=True)),
    }
    if len(set(sizes)) == 1:
        figures["Jain's index"] = jain(rates)
    else:
        # the small one has a fair share if it got half of the links while it ran
        figures["small one's share %"] = 100 * rates[-1] * 8 / rate
    return Seen(figures, course.samples)


def jain(values: list[float]) -> float:
    """Jain's index of fairness: 1 if all are equal, 1/n if one has everything."""
    return sum(values) ** 2 / (len(values) * sum(value * value for value in values))


def seeks(there: Site, size: int) -> Seen:
    """A reader asks for 64 KiB here and there while a pull runs at full rate: the time to its first byte."""
    puller, digest = there.pullers[0], there.blob(size)
    rate = sum(host.rate for host, _ in there.sources)
    took: list[float] = []
    course = Course(puller.pid)
    with course.watched():
        start = time.monotonic()
        ask(puller, digest)
        while course.totals()[-1][1] < size / 8:
            time.sleep(0.01)
        # The largest gap is filled from its end, so what lies at these places is not here yet.
        for place in (0.02, 0.30, 0.10, 0.45, 0.20, 0.05):
            first = int(size * place)
            if puller.has(digest):
                break
            began = time.monotonic()
            puller.get(digest, {"Range": f"bytes={first}-{first + (64 << 10) - 1}"})
            took.append(time.monotonic() - began)
        seconds = finished(puller, digest, start)
    return Seen(
        {
            "wall s": seconds,
            "of the links %": 100 * size * 8 / rate / seconds,
            "seek p50 s": statistics.median(took),
            "seek worst s": max(took),
        },
        course.samples,
    )


# -- what is read --------------------------------------------------------------------------------


def _came(before: Mapping[str, float], after: Mapping[str, float], how: str) -> float:
    name = f"swarm_bytes_{how}_total"
    return after[name] - before[name]


def _grain_seconds(before: Mapping[str, float], after: Mapping[str, float]) -> list[tuple[float, float]]:
    """(bound, grains up to it) of the histogram, of what lies between two looks."""
    prefix = 'swarm_grain_seconds_bucket{le="'
    return sorted(
        (float(name.removeprefix(prefix).rstrip('"}')), count - before.get(name, 0.0))
        for name, count in after.items()
        if name.startswith(prefix)
    )


def _quantile(buckets: list[tuple[float, float]], quantile: float) -> float:
    """By straight lines between the bounds."""
    wanted, low, below = quantile * buckets[-1][1], 0.0, 0.0
    for bound, count in buckets:
        if count >= wanted:
            if bound == float("inf"):
                return low
            return low + (bound - low) * (wanted - below) / (count - below or 1.0)
        low, below = bound, count
    return low


# -- the scenarios -------------------------------------------------------------------------------

_NEAR, _FAR = 0.020, 0.100
_THREE_NEAR = (Wire(100 * MBIT, _NEAR),) * 3
_THREE_FAR = (Wire(100 * MBIT, _FAR),) * 3
_MIXED = (Wire(10 * MBIT, 0.005), Wire(50 * MBIT, 0.050), Wire(200 * MBIT, _FAR))

SCENARIOS = {
    "one-20ms": Scenario(
        "one source, 200 Mbit/s, 20 ms", (Wire(200 * MBIT, _NEAR),), 256 * MIB, 1024 * MIB, plain
    ),
    "one-100ms": Scenario(
        "one source, 200 Mbit/s, 100 ms", (Wire(200 * MBIT, _FAR),), 256 * MIB, 1024 * MIB, plain
    ),
    "three-20ms": Scenario("three, 100 Mbit/s each, 20 ms", _THREE_NEAR, 256 * MIB, 1024 * MIB, plain),
    "three-100ms": Scenario("three, 100 Mbit/s each, 100 ms", _THREE_FAR, 256 * MIB, 1024 * MIB, plain),
    "mixed": Scenario("10, 50, 200 Mbit/s at 5, 50, 100 ms", _MIXED, 256 * MIB, 1024 * MIB, plain),
    "slows": Scenario("three; one drops to 1 % halfway", _THREE_NEAR, 256 * MIB, 1024 * MIB, slows),
    "stalls": Scenario("three; one stalls halfway", _THREE_NEAR, 256 * MIB, 1024 * MIB, stalls),
    "leaves": Scenario("three; one leaves halfway", _THREE_NEAR, 256 * MIB, 1024 * MIB, leaves),
    "two": Scenario("two pulls at once from three", _THREE_NEAR, 128 * MIB, 512 * MIB, two),
    "five": Scenario("five pulls at once from three", _THREE_NEAR, 64 * MIB, 256 * MIB, five),
    "small-beside-large": Scenario(
        "64 MiB beside 1 GiB from three", _THREE_NEAR, 512 * MIB, 1024 * MIB, small_beside_large
    ),
    "seeks": Scenario("seeks while a pull runs, three at 20 ms", _THREE_NEAR, 512 * MIB, 1024 * MIB, seeks),
    "seeks-100ms": Scenario(
        "seeks while a pull runs, three at 100 ms", _THREE_FAR, 512 * MIB, 1024 * MIB, seeks
    ),
}


def scenario(
    name: str, work: Path, *, quick: bool, congestion: str = "", options: tuple[str, ...] = ()
) -> Seen:
    """Run one scenario once."""
    chosen = SCENARIOS[name]
    with site(work, list(chosen.wires), *options, congestion=congestion) as there:
        return chosen.run(there, chosen.quick if quick else chosen.full)


def main() -> int:
    """Run what was asked for and print it; the plots are drawn from the JSON."""
    parser = argparse.ArgumentParser(prog="python -m bench.network", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="SCENARIO", help=f"of {', '.join(SCENARIOS)}")
    parser.add_argument("--full", action="store_true", help="1 GiB instead of a quarter of it")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--congestion", default="", help="cubic, reno, bbr; the system's if not given")
    parser.add_argument("--config", type=Path, help="settings of the pulling node")
    parser.add_argument("--out", type=Path, help="write the figures and courses there, as JSON")
    parser.add_argument("--plot", type=Path, help="draw the last round's courses there, as SVG")
    parser.add_argument("--dir", type=Path, default=Path(__file__).parent / "runs", help="work there")
    options = parser.parse_args()
    if unknown := [name for name in options.names if name not in SCENARIOS]:
        parser.error(f"no such scenario: {', '.join(unknown)}")
    options.dir.mkdir(parents=True, exist_ok=True)
    extra = (f"--config={options.config.resolve()}",) if options.config else ()
    last: dict[str, Seen] = {}
    results: dict[str, list[dict[str, object]]] = {}
    for _ in range(options.rounds):
        for name in options.names or SCENARIOS:
            work = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=options.dir.resolve()))
            try:
                seen = scenario(
                    name, work, quick=not options.full, congestion=options.congestion, options=extra
                )
            finally:
                shutil.rmtree(work, ignore_errors=True)
            last[name] = seen
            results.setdefault(name, []).append({"figures": seen.figures, "course": seen.course})
            told = ", ".join(f"{what} {value:.2f}" for what, value in seen.figures.items())
            print(f"{name}: {told}", flush=True)
    if options.plot is not None:
        courses = {
            name: (chosen.title, sum(wire.rate for wire in chosen.wires) / MBIT, seen.course)
            for name, seen in last.items()
            for chosen in (SCENARIOS[name],)
        }
        network_plots.draw(courses, options.plot)
    if options.out is not None:
        options.out.write_text(json.dumps(results) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

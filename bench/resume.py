"""P11: kill -9 in the middle of a pull, start again: what is fetched twice, and how soon it goes on.

Decides when the middle is: as soon as the node says that half of the bytes arrived.
"""

from __future__ import annotations

import contextlib
import signal
import time
from pathlib import Path

from bench import nodes
from bench.blobs import make_file
from bench.measure import MIB, Failed
from bench.outcome import Result, Row, Sample, absolute
from bench.programs import Asked
from swarm.testing.processes import Node, swarm_in

_TWICE, _FIRST, _SERVES, _DONE = "fetched twice MiB", "first new byte s", "answers /health s", "all here s"


def run(asked: Asked) -> Result:
    """Pull, kill, resume; again and again."""
    size = asked.size(1024, 256)
    source = asked.disk / "blob"
    digest = make_file(source, size)
    row, notes = Row("swarm: kill -9 at half, start again"), list[str]()
    with swarm_in(asked.disk / "swarm") as swarm:
        holders = nodes.holders(swarm, 3, source)
        node = nodes.puller(swarm, "puller", holders)
        for number in range(asked.rounds):
            if number and time.monotonic() > asked.until:
                notes.append(f"time was up after {number} of {asked.rounds} rounds")
                break
            row.samples.append(_once(node, holders, digest, size))
            asked.say(f"round {number + 1}: " + ", ".join(f"{k} {v:.3g}" for k, v in row.samples[-1].items()))
            nodes.check(node, digest)
            nodes.forget(node, digest)
            node.restart(signal.SIGTERM)
            nodes.wait_alive(node, holders)
    return Result(
        f"kill -9 at half of {size >> 20} MiB from three peers",
        (row,),
        (absolute("P11 twice", row.values(_TWICE)), absolute("P11 first", row.values(_FIRST))),
        (
            *notes,
            "seconds are from the start of the new process, Python's own start in them, until it says that "
            "a byte of this pull came over the network; nobody asked for the blob again",
            "fetched twice: all that the three holders sent, before and after the kill, less the blob's "
            "size; so bytes that were under way when it died count. The journal is written every 2 s or 16 "
            "MiB",
            "the bytes on disk were hashed after each round",
        ),
    )


def _once(node: Node, holders: list[Node], digest: str, size: int) -> Sample:
    before = _sent(holders)
    node.request("HEAD", f"/{digest}")
    _until(node, size // 2)
    node.kill(signal.SIGKILL)
    start = time.perf_counter()
    node.start()
    serves = time.perf_counter() - start
    _until(node, 1)
    first = time.perf_counter() - start
    blob: Path = node.blob(digest)
    while not blob.exists():
        if time.perf_counter() - start > 120:
            raise Failed("the pull did not go on")
        time.sleep(0.005)
    done = time.perf_counter() - start
    return {
        _TWICE: (_sent(holders) - before - size) / MIB,
        _FIRST: first,
        _SERVES: serves,
        _DONE: done,
    }


def _until(node: Node, received: int) -> None:
    """Wait until it says that so many bytes came. :raises Failed:"""
    over = time.perf_counter() + 120
    while time.perf_counter() < over:
        with contextlib.suppress(OSError):
            if node.metrics()["swarm_bytes_received_total"] >= received:
                return
        time.sleep(0.005)
    raise Failed("no bytes came")


def _sent(holders: list[Node]) -> float:
    """Bytes of answers, once the holders have counted those that were cut off."""
    time.sleep(0.5)
    return sum(node.metrics()["swarm_peer_sent_bytes_total"] for node in holders)

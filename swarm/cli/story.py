"""What the demonstration shows, step by step, and what must hold at each.

Decides the steps only; processes are started and ended by :class:`swarm.cli.demo.Stage`. A pull on
loopback would be over before anybody saw it: while one is watched, its sources are paused and let run
in short bursts (SIGSTOP, SIGCONT). So the nodes run as they always do, and the kill lands in mid-pull
on slow and on fast machines.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import define, field

from swarm.cli.connection import Connection
from swarm.cli.demo import Stage
from swarm.cli.download import Download
from swarm.cli.meter import Meter, SourceLine
from swarm.cli.session import Failure, size_text
from swarm.cli.upload import length_of, upload
from swarm.model.digest import Digest

if TYPE_CHECKING:
    from swarm.testing.processes import Node, Swarm

MIB = 1 << 20
#: Seconds that paused sources run and rest.
BURST, REST = 0.02, 0.06
#: A pull of less may be over within one burst.
LEAST = 64 * MIB
#: Of so many verified bytes some are in the journal, however fast they came.
JOURNALED = 80 * MIB
#: What a resumed pull may fetch beyond what it lacks: a span asked of two peers, a grain cut short.
SLACK = 32 * MIB


def tell(stage: Stage, swarm: Swarm, file: Path | None, size: int) -> None:
    """
    The whole demonstration.

    :param file: what to store; None, or too little to watch: a generated file of ``size`` bytes.
    :raises Failure: something did not hold.
    """
    stage.say("a throw-away certificate authority, and four nodes that trust it and nobody else")
    nodes = stage.start(swarm, "--copies=3")
    stage.check(True, "four nodes met over mutual TLS 1.3")
    if file is not None and file.stat().st_size < LEAST:
        digest, holders, empty = _store(stage, nodes, file)
        _fetch(stage, empty, digest, file, f"{empty.name}, which did not have it, delivered {file.name}")
        stage.say(
            f"{size_text(file.stat().st_size)} are too few to watch: the rest is shown with a generated file"
        )
        file = None
    if file is None:
        file = stage.directory / "generated.bin"
        _generate(file, size)
    digest, holders, empty = _store(stage, nodes, file)
    client = _Client(empty, digest, stage.directory / "fetched")
    _pull_and_kill(stage, client, holders)
    _resume(stage, client, file)
    bad = holders[-1]
    _damage(stage, bad, digest, holders, empty, file)
    _heal(stage, bad, digest)
    _emptied(stage, empty, digest)
    _fetch(stage, empty, digest, file, "a last pull, at full speed, was right")


def _store(stage: Stage, nodes: Sequence[Node], file: Path) -> tuple[Digest, list[Node], Node]:
    """PUT to the first node and watch the copies arrive; who holds it, and one that doesn't."""
    size = file.stat().st_size
    began = time.monotonic()
    first = nodes[0]
    stage.say(f"PUT {file.name} ({size_text(size)}) to {first.name}; three copies are wanted")
    document: dict[str, Any] = {}
    problem: list[Failure] = []

    def put(meter: Meter) -> None:
        try:
            with Connection(first.url) as connection, file.open("rb", buffering=0) as source:
                document.update(upload(connection, source, file.name, length_of(source), meter))
        except Failure as e:
            problem.append(e)

    expected = _hash(file)
    with Meter(f"PUT {file.name}", size) as meter:
        running = threading.Thread(target=put, args=(meter,), daemon=True)
        running.start()
        missing = list(nodes)
        while running.is_alive():
            for node in [each for each in missing if each.has(expected.hex)]:
                missing.remove(node)
                stage.say(f"  {node.name} has it, durable and verified")
            running.join(0.02)
    for node in [each for each in missing if each.has(expected.hex)]:
        stage.say(f"  {node.name} has it, durable and verified")
    if problem:
        raise problem[0]
    names = set(document["holders"])
    holders = [node for node in nodes if node.name in names]
    took = time.monotonic() - began
    stage.check(document["sha512"] == expected.hex, f"PUT answered the SHA-512 of {file.name}")
    stage.check(
        document["status"] in (200, 201)
        and len(holders) == 3
        and all(node.has(expected.hex) for node in holders),
        f"when PUT answered ({took:.1f} s), three nodes held it: " + ", ".join(node.name for node in holders),
    )
    empty = next(node for node in nodes if node not in holders)
    stage.check(not empty.has(expected.hex), f"{empty.name} does not have it")
    return expected, holders, empty


@define
class _Client:
    """Somebody who fetches the blob from a node, and does not give up while the node is away."""

    node: Node
    digest: Digest
    target: Path
    back: threading.Event = field(factory=threading.Event)
    problem: Failure | None = None
    interrupted_at: int | None = None
    _thread: threading.Thread | None = None

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def finish(self) -> None:
        """:raises Failure: the download failed, or does not end."""
        assert self._thread is not None
        self._thread.join(600)
        if self._thread.is_alive():
            raise Failure("the client's download does not end")
        if self.problem is not None:
            raise self.problem

    def _run(self) -> None:
        try:
            with Connection(self.node.url) as connection:
                Download(connection, self.digest, Meter("", None, shown=False), self._wait).to_file(
                    self.target
                )
        except Failure as e:
            self.problem = e

    def _wait(self, seconds: float) -> None:
        """The connection broke. Ask nothing until told that the node is back."""
        if self.interrupted_at is None:
            self.interrupted_at = self.target.with_name(self.target.name + ".part").stat().st_size
        self.back.wait(600)


def _pull_and_kill(stage: Stage, client: _Client, sources: Sequence[Node]) -> None:
    """A client asks the empty node, which pulls from three peers and is killed half-way."""
    node = client.node
    stage.say(
        f"GET from {node.name}, which has nothing of it; its peers run in bursts, so that one can watch"
    )
    client.start()
    lines: Sequence[SourceLine] = ()
    verified = size = 0
    with Meter(f"{node.name} pulls", None) as meter, _in_bursts(sources) as bursts:
        for pull in _watch(node, client.digest, bursts):
            lines = _sources(pull)
            verified, size = int(pull["verified"]), int(pull["size"])
            meter.reach(verified, size)
            meter.sources(lines)
            if verified * 2 >= size:
                # Of little data the journal gets its first record after two seconds (CONTRACT, promise 4).
                bursts.resting = True
                if verified >= JOURNALED or float(pull["seconds"]) > 3.0:
                    break
        node.kill(signal.SIGKILL)
    _show(stage, lines)
    stage.say(f"killed {node.name} with -9 when {size_text(verified)} of {size_text(size)} were verified")
    stage.check(
        not node.has(client.digest.hex), "the kill came in mid-pull: nothing half-done is visible as a blob"
    )
    stage.check(
        len([each for each in lines if each.bytes > 0]) == 3, f"{node.name} pulled from three peers at once"
    )


def _resume(stage: Stage, client: _Client, file: Path) -> None:
    """Started again, the node goes on by itself; then the client gets the rest."""
    node, digest, size = client.node, client.digest, file.stat().st_size
    node.start()
    began = time.monotonic()
    stage.say(f"started {node.name} again; nobody asks it for anything")
    stage.wait(lambda: node.has(digest.hex), f"{node.name} finished the pull by itself")
    metrics = node.metrics()
    fetched, kept = (int(metrics[f"swarm_bytes_{what}_total"]) for what in ("received", "resumed"))
    stage.check(
        kept > 0 and fetched <= size - kept + SLACK,
        f"{node.name} resumed by itself: {size_text(kept)} were on its disk and proven again, "
        f"{size_text(fetched)} were fetched, in {time.monotonic() - began:.1f} s",
    )
    stage.say(f"  it has all of it: {size_text(kept)} from its own disk, {size_text(fetched)} from its peers")
    client.back.set()
    client.finish()
    stage.check(client.interrupted_at is not None, "the client's download was cut by the kill")
    stage.check(
        _hash(client.target) == digest,
        f"the client went on at {size_text(client.interrupted_at or 0)}: SHA-512 right",
    )
    stage.check(_hash(node.blob(digest.hex)) == digest, f"{node.name}'s copy on disk is right")


def _damage(
    stage: Stage, bad: Node, digest: Digest, sources: Sequence[Node], empty: Node, file: Path
) -> None:
    """One peer's disk goes bad under it; the pull must notice, say who, and deliver the right bytes."""
    blob = bad.blob(digest.hex)
    before = blob.stat()
    blob.chmod(0o600)
    with blob.open("r+b") as data:
        for offset in range(min(MIB, before.st_size) // 2, before.st_size, MIB):
            data.seek(offset)
            byte = data.read(1)
            data.seek(offset)
            data.write(bytes([byte[0] ^ 1]))
    # A disk that rots does not tell the file system; a changed time would give it away at once.
    os.utime(blob, ns=(before.st_atime_ns, before.st_mtime_ns))
    stage.say(f"flipped a bit in every MiB of {bad.name}'s copy, and removed {empty.name}'s")
    _emptied(stage, empty, digest)
    client = _Client(empty, digest, stage.directory / "fetched-again")
    client.back.set()
    logged = len(empty.log)
    named: dict[str, str] = {}
    with Meter(f"{empty.name} pulls", None) as meter, _in_bursts(sources) as bursts:
        client.start()
        for pull in _watch(empty, digest, bursts):
            lines = _sources(pull)
            named |= {each.name: each.detail or each.state for each in lines if each.state == "convicted"}
            meter.reach(int(pull["verified"]), int(pull["size"]))
            meter.sources(lines)
    client.finish()
    for line in empty.log[logged:].splitlines():
        if "lies" in line or "convict" in line or "wrong" in line:
            named |= {node.name: line.partition("] ")[2] for node in sources if node.name in line}
    for name, reason in named.items():
        stage.say(f"  {empty.name} says of {name}: {reason}")
    stage.check(
        _hash(client.target) == digest, f"with {bad.name}'s bytes wrong, the download was right all the same"
    )
    stage.check(list(named) == [bad.name], f"{bad.name} was named as the one that sent them, and nobody else")


def _heal(stage: Stage, bad: Node, digest: Digest) -> None:
    """Told of it, the bad peer looks at its own copy."""

    def healed() -> bool:
        return (
            any((bad.data / "quarantine").iterdir())
            and bad.has(digest.hex)
            and _hash(bad.blob(digest.hex)) == digest
        )

    stage.say(f"{bad.name} has been told, and looks at its own copy")
    stage.wait(healed, f"{bad.name} put its bad copy aside and fetched a good one")
    stage.check(True, f"{bad.name}, told of it, put its bad copy into quarantine and fetched a good one")


def _fetch(stage: Stage, node: Node, digest: Digest, file: Path, claim: str) -> None:
    """A plain ``swarm get``."""
    target = stage.directory / "plain"
    size = file.stat().st_size
    began = time.monotonic()
    with Connection(node.url) as connection, Meter(f"GET {file.name}", size) as meter:
        Download(connection, digest, meter).to_file(target)
    took = time.monotonic() - began
    stage.say(f"GET from {node.name}: {size_text(size)} in {took:.2f} s, {size_text(size / took)}/s")
    stage.check(_hash(target) == digest, claim)
    target.unlink()


def _emptied(stage: Stage, node: Node, digest: Digest) -> None:
    """The node forgets its copy, as ``swarm rm`` does."""
    status, _, answer = node.request("DELETE", f"/{digest.hex}")
    if status != 200 or node.has(digest.hex):
        stage.check(False, f"DELETE removes {node.name}'s copy ({status} {answer!r})")


@define
class _Bursts:
    """Processes that run for a moment and rest for a moment."""

    nodes: Sequence[Node]
    resting: bool = False

    def run(self) -> None:
        """One burst, unless they are to rest, and one rest; they are stopped when this returns."""
        if not self.resting:
            self.send(signal.SIGCONT)
            time.sleep(BURST)
        self.send(signal.SIGSTOP)
        time.sleep(REST)

    def send(self, number: signal.Signals) -> None:
        """A signal to all of them."""
        for node in self.nodes:
            node.kill(number)


@contextlib.contextmanager
def _in_bursts(nodes: Sequence[Node]) -> Iterator[_Bursts]:
    bursts = _Bursts(nodes)
    try:
        yield bursts
    finally:
        bursts.send(signal.SIGCONT)


def _watch(node: Node, digest: Digest, bursts: _Bursts) -> Iterator[dict[str, Any]]:
    """The running pull as the node tells it, after each burst, until the node has the blob."""
    deadline = time.monotonic() + 600
    while not node.has(digest.hex):
        bursts.run()
        # Not /locations: it would ask the peers, which are resting.
        yield from (pull for pull in node.ready()["pulls"] if pull["sha512"] == digest.hex)
        if time.monotonic() > deadline:
            raise Failure(f"{node.name} does not finish its pull")


def _sources(pull: dict[str, Any]) -> list[SourceLine]:
    return [SourceLine.from_document(each) for each in pull["sources"]]


def _show(stage: Stage, lines: Sequence[SourceLine]) -> None:
    for each in lines:
        rate = f"{size_text(each.rate)}/s"
        stage.say(f"  from {each.name}: {size_text(each.bytes)}, {rate} {each.state} {each.detail}".rstrip())


def _generate(file: Path, size: int) -> None:
    noise = random.Random(size)
    with file.open("wb") as out:
        for _ in range(size // MIB):
            out.write(noise.randbytes(MIB))


def _hash(file: Path) -> Digest:
    with file.open("rb") as data:
        return Digest(hashlib.file_digest(data, "sha512").digest())

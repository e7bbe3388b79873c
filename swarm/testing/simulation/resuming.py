"""What a node fetches again after a crash: nothing that a durable journal record covers (P4).

Compares what the network carried to a node, before a crash and after it, with the journals that survived,
read without any of the node's code. Says also when a grain that came long before a crash is in no record:
a journal that is never written would keep the first promise.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from hashlib import blake2b
from pathlib import Path

from attrs import define, field

from swarm.model.grains import Grains
from swarm.testing.simulation.swarm import SimNode
from swarm.testing.simulation.wiretap import Wiretap

#: Seconds after which a grain that came is in a durable record: the two of the promise, and what a
#: few threads in a row may take at most: to hash it, and to write and sync it, behind another record.
LATE = 2.0 + 6.0
_HEADER = struct.Struct(">8s64sQI16s8s")
_RECORD = struct.Struct(">BI64s64s8s")


@define(eq=False)
class _Pull:
    """One blob at one node. A byte each: did it come in this life, in earlier ones, is it in a record?"""

    now: bytearray
    before: bytearray
    covered: bytearray
    came: list[tuple[float, int, int]] = field(factory=list)
    interrupted: bool = False
    again: int = 0
    again_though_covered: int = 0


@define(eq=False)
class Resumptions:
    """
    I watch what comes to the nodes of a run.

    :ivar refetched: bytes that came again, for each pull that a crash interrupted.
    """

    clock: Callable[[], float]
    bytes_of: Callable[[str], bytes | None]
    excused: Callable[[SimNode, str], bool]
    problem: Callable[[str], None]
    refetched: list[int] = field(factory=list)
    _pulls: dict[tuple[str, str], _Pull] = field(factory=dict)

    def tap(self, name: str) -> Wiretap:
        """For a connection of a node to a peer."""
        return Wiretap(lambda digest, start, stop: self._came(name, digest, start, stop))

    def _came(self, name: str, digest: str, start: int, stop: int) -> None:
        pull = self._pulls.get((name, digest))
        if pull is None:
            data = self.bytes_of(digest)
            if data is None:
                return
            pull = self._pulls[name, digest] = _Pull(
                bytearray(len(data)), bytearray(len(data)), bytearray(len(data))
            )
        if stop > len(pull.now):
            return
        if pull.interrupted:  # else nothing came before
            pull.again += pull.before.count(1, start, stop)
            pull.again_though_covered += pull.covered.count(1, start, stop)
        pull.now[start:stop] = b"\1" * (stop - start)
        pull.came.append((self.clock(), start, stop))

    def crashed(self, node: SimNode) -> None:
        """The node died, and its disk is as it will find it."""
        for (name, digest), pull in self._pulls.items():
            if name == node.name:
                pull.interrupted = True
                self._note(node, digest, pull)
                both = int.from_bytes(pull.before, "big") | int.from_bytes(pull.now, "big")
                pull.before = bytearray(both.to_bytes(len(pull.now), "big"))
                pull.now = bytearray(len(pull.now))
                pull.came.clear()

    def _note(self, node: SimNode, digest: str, pull: _Pull) -> None:
        data = self.bytes_of(digest)
        size = len(pull.now)
        if data is None or next(Path(node.root).glob(f"blobs/??/??/{digest}/data"), None) is not None:
            pull.covered = bytearray(b"\1" * size)
            return
        pull.covered = bytearray(size)
        grain = Grains.of(size).grain
        for index in _journaled(node.root / "partial" / f"{digest}.j"):
            start, stop = index * grain, min(size, (index + 1) * grain)
            pull.covered[start:stop] = b"\1" * (stop - start)
        if pull.came and not self.excused(node, digest):
            self._judge(node, digest, pull, grain)

    def _judge(self, node: SimNode, digest: str, pull: _Pull, grain: int) -> None:
        size = len(pull.now)
        long_ago = bytearray(size)
        for at, start, stop in pull.came:
            if at < self.clock() - LATE:
                long_ago[start:stop] = b"\1" * (stop - start)
        lost = [
            index
            for index in range(-(-size // grain))
            if 0 not in long_ago[index * grain : (index + 1) * grain]
            if 0 in pull.covered[index * grain : (index + 1) * grain]
        ]
        if lost:
            self.problem(f"{node.name} had grains {lost} of {digest[:12]} for long, and no record of them")

    def check(self, nodes: dict[str, SimNode]) -> None:
        """At the end of a run."""
        for (name, digest), pull in self._pulls.items():
            if 1 in pull.before:
                self.refetched.append(pull.again)
            if pull.again_though_covered and not self.excused(nodes[name], digest):
                self.problem(
                    f"{name} fetched {pull.again_though_covered} bytes of {digest[:12]} again, "
                    "which its journal had"
                )


def _journaled(journal: Path) -> Iterator[int]:
    """Numbers of grains that the journal says are there, up to a torn record."""
    if not journal.exists():
        return
    content = journal.read_bytes()
    if len(content) < _HEADER.size or content[_HEADER.size - 8 : _HEADER.size] != _check(
        content[: _HEADER.size - 8]
    ):
        return
    *_, salt, _ = _HEADER.unpack_from(content)
    there: dict[int, bool] = {}
    for number, at in enumerate(range(_HEADER.size, len(content) - _RECORD.size + 1, _RECORD.size)):
        record = content[at : at + _RECORD.size]
        if record[-8:] != _check(struct.pack(">Q", number) + record[:-8], salt):
            break
        kind, index, *_ = _RECORD.unpack(record)
        there[index] = kind == 1
    yield from (index for index, marked in there.items() if marked)


def _check(data: bytes, key: bytes = b"") -> bytes:
    return blake2b(data, digest_size=8, key=key).digest()

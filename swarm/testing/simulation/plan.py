"""What is going to happen in a run: how many nodes, who asks for what, and what breaks when.

All drawn from the seed before anything runs. Each seed has only some kinds of faults ("swarm testing"):
rare combinations come up more often that way. Only faults that the promises cover: one node at most has
bits rot, and only of blobs that another node has vouched for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

from attrs import frozen

#: Faults end, and everything is mended, after this many seconds.
FAULTS_END = 90.0
_SIZES: tuple[Callable[[Random], int], ...] = (
    lambda draw: draw.choice([0, 1, 127, 128, 4096]),
    lambda draw: draw.randint(1, 200_000),
    lambda draw: (1 << 20) + draw.choice([-1, 0, 1]),
    lambda draw: draw.randint(1 << 20, 6 << 20),
    lambda draw: draw.randint(2 << 20, 12 << 20),
)
FAULTS = ("kill", "power", "power in a call", "cut", "one-way cut", "slow", "rot")


@frozen
class Put:
    """Somebody puts a blob."""

    at: float
    node: str
    blob: int
    size: int


@frozen
class Get:
    """Somebody reads a blob, or part of it, and may not wait for the end."""

    at: float
    node: str
    blob: int
    part: tuple[float, float] | None
    patience: float


@frozen
class Delete:
    """Somebody deletes a blob everywhere."""

    at: float
    node: str
    blob: int


@frozen
class Fault:
    """Something breaks, and is mended after ``lasts`` seconds; ``amount`` is the kind's own."""

    at: float
    kind: str
    nodes: tuple[str, ...]
    lasts: float
    amount: float


@frozen
class Plan:
    """
    A run.

    :ivar bandwidth: what links have at least and at most, in bytes a second.
    :ivar liar: the node whose disk may rot, ``lists``: in lists of midstates, instead of in blobs.
    """

    seed: int
    tls: bool
    skew: float
    bandwidth: tuple[float, float]
    nodes: tuple[str, ...]
    liar: str | None
    lists: bool
    puts: tuple[Put, ...]
    gets: tuple[Get, ...]
    deletes: tuple[Delete, ...]
    faults: tuple[Fault, ...]


def draw_plan(seed: int, *, tls: bool | None = None) -> Plan:
    """
    Draw a run.

    :param tls: real TLS or not; None: for one seed in twenty.
    """
    draw = Random(f"{seed} plan")
    nodes = tuple(f"n{number}" for number in range(draw.randint(3, 5)))
    kinds = [kind for kind in FAULTS if draw.random() < 0.6]
    liar = draw.choice(nodes) if "rot" in kinds else None

    def when(start: float = 2.0, stop: float = FAULTS_END) -> float:
        return draw.uniform(start, stop)

    puts = tuple(
        Put(when(stop=60.0), draw.choice(nodes), blob, draw.choice(_SIZES)(draw))
        for blob in range(draw.randint(2, 6))
    )
    crowd = draw.random() < 0.4  # all at once, so that pulls feed pulls

    gets = tuple(
        Get(
            put.at + draw.uniform(8.0, 9.0) if crowd else when(put.at, FAULTS_END),
            draw.choice(nodes),
            put.blob,
            tuple(sorted((draw.random(), draw.random()))) if draw.random() < 0.3 else None,  # type: ignore[arg-type]  # of two
            10 ** draw.uniform(-2, 2),
        )
        for put in puts
        for _ in range(draw.randint(0, 5))
    )
    deletes = tuple(
        Delete(when(put.at, FAULTS_END), draw.choice(nodes), put.blob) for put in puts if draw.random() < 0.2
    )
    faults = tuple(
        _fault(draw, draw.choice(kinds), nodes, liar, *_moment(draw, gets))
        for _ in range(draw.randint(0, 12) if kinds else 0)
    )
    return Plan(
        seed,
        draw.random() < 0.05 if tls is None else tls,
        draw.choice([0.0, 0.0, 5.0, 86400.0]),
        draw.choice([(1e6, 1e8), (1e6, 1e8), (2e5, 2e6)]),
        nodes,
        liar,
        draw.random() < 0.4,
        puts,
        gets,
        deletes,
        faults,
    )


def _moment(draw: Random, gets: Sequence[Get]) -> tuple[float, str | None]:
    """When something breaks, and where if that matters: as often as not while somebody waits for a blob."""
    if not gets or draw.random() < 0.5:
        return draw.uniform(2.0, FAULTS_END), None
    get = draw.choice(gets)
    return min(FAULTS_END, get.at + 10 ** draw.uniform(-2, 1.3)), get.node


def _fault(
    draw: Random, kind: str, nodes: tuple[str, ...], liar: str | None, at: float, node: str | None
) -> Fault:
    lasts = 10 ** draw.uniform(-1, 1.6)
    some = tuple(draw.sample(nodes, draw.randint(1, len(nodes) - 1)))
    if node is not None:
        some = (node, *(each for each in some[1:] if each != node))
    if kind == "rot" and liar is not None:
        some = (liar,)
    elif kind not in ("cut", "one-way cut"):
        some = some[:1]
    return Fault(at, kind, some, lasts, draw.random())

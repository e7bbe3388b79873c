"""What is going to happen in a run: how many nodes, who asks for what, and what breaks when.

All drawn from the seed before anything runs. Each seed has only some kinds of faults ("swarm testing"):
rare combinations come up more often that way. Only faults that the promises cover: one node at most has
bits rot, and only of blobs that another node has vouched for; at most one peer lies, and it is no node.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

from attrs import frozen

from swarm.testing.liars import Lies
from swarm.testing.simulation.liar import draw_lies
from swarm.testing.simulation.scale import Scale

#: Faults end, and everything is mended, after this many seconds.
FAULTS_END = 45.0
_SIZES: tuple[Callable[[Random], int], ...] = (
    lambda draw: draw.choice([0, 1, 127, 128, 4096]),
    lambda draw: draw.randint(1, 200_000),
    lambda draw: (1 << 20) + draw.choice([-1, 0, 1]),
    lambda draw: draw.randint(1 << 20, 6 << 20),
    lambda draw: draw.randint(2 << 20, 20 << 20),
)
#: What may break. Each run has a subset of them.
FAULTS = (
    "kill",
    "power",
    "power in a call",
    "cut",
    "one-way cut",
    "slow",
    "reset",
    "finish",
    "clock",
    "stop",
    "rot",
    "ENOSPC",
    "EIO writing",
    "EIO reading",
    "EIO syncing",
)


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
    """Somebody deletes a blob, everywhere or at that node alone."""

    at: float
    node: str
    blob: int
    everywhere: bool = True


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

    :ivar scale: how much smaller than in the world grains, blobs and rates are.
    :ivar bandwidth: what links have at least and at most, in bytes a second.
    :ivar lies: what the lying peer does wrong with each blob; None: there is none.
    :ivar liar: the node whose disk may rot, ``lists``: in lists of midstates, instead of in blobs.
    :ivar ends: seconds after which nothing breaks any more, and everything is mended.
    """

    seed: int
    tls: bool
    scale: Scale
    skew: float
    bandwidth: tuple[float, float]
    nodes: tuple[str, ...]
    liar: str | None
    lists: bool
    lies: tuple[Lies, ...] | None
    puts: tuple[Put, ...]
    gets: tuple[Get, ...]
    deletes: tuple[Delete, ...]
    faults: tuple[Fault, ...]
    ends: float = FAULTS_END


def draw_plan(seed: int, *, tls: bool | None = None) -> Plan:
    """
    Draw a run.

    :param tls: real TLS or not; None: for one seed in twenty.
    """
    draw = Random(f"{seed} plan")
    nodes = tuple(f"n{number}" for number in range(draw.randint(3, 5)))
    share = draw.choice([0.15, 0.4, 0.4, 0.7])
    kinds = [kind for kind in FAULTS if draw.random() < share]
    liar = draw.choice(nodes) if "rot" in kinds else None

    def when(start: float = 2.0, stop: float = FAULTS_END) -> float:
        return draw.uniform(start, stop)

    scale = Scale(1 if draw.random() < 0.02 else 32)
    puts = tuple(
        Put(when(stop=FAULTS_END * 0.7), draw.choice(nodes), blob, _size(draw, scale))
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
        _fault(draw, draw.choice(kinds), nodes, liar, *_moment(draw, puts, gets))
        for _ in range(draw.randint(0, 12) if kinds else 0)
    )
    slowest, fastest = draw.choice([(1e6, 1e8), (1e6, 1e8), (2e5, 2e6)])
    secure = draw.random() < 0.05 if tls is None else tls
    lies = draw.random() < (0.5 if secure else 0.2)
    return Plan(
        seed,
        secure,
        scale,
        draw.choice([0.0, 0.0, 5.0, 86400.0]),
        (scale.size(slowest), scale.size(fastest)),
        nodes,
        liar,
        draw.random() < 0.4,
        tuple(_lies(draw, put.size, scale) for put in puts) if lies else None,
        puts,
        gets,
        deletes,
        faults,
    )


def _size(draw: Random, scale: Scale) -> int:
    real = draw.choice(_SIZES)(draw)
    if real < 1 << 18:
        return real if real < 4097 else scale.size(real)  # a small blob is a small blob
    grain = (1 << 20) // scale.down
    grains, rest = divmod(real, 1 << 20)
    if rest in (0, 1, (1 << 20) - 1):  # at the edge of a grain
        return grains * grain + (rest if rest < 2 else grain - 1)
    return scale.size(real)


def _lies(draw: Random, size: int, scale: Scale) -> Lies:
    return draw_lies(draw, size, max(1, -(-size // ((1 << 20) // scale.down))))


def _moment(draw: Random, puts: Sequence[Put], gets: Sequence[Get]) -> tuple[float, str | None]:
    """When something breaks, and where if that matters: mostly while somebody waits for a blob."""
    kind = draw.random()
    if kind < 0.4 or not gets:
        return draw.uniform(2.0, FAULTS_END), None
    wish = draw.choice(gets) if kind < 0.8 else draw.choice(puts)
    return min(FAULTS_END, wish.at + 10 ** draw.uniform(-2, 1.0)), wish.node


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

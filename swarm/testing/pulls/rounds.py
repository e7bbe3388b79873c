"""What one round of the soak is: which blobs are pulled where, by how many readers, and what goes wrong.

Drawn from a seed; starts nothing. Sizes are bytes, times seconds.
"""

from __future__ import annotations

from random import Random
from typing import Literal

from attrs import frozen

MIB = 1 << 20

Trouble = Literal["none", "slow", "stopped", "again"]

#: A byte, a grain and its edges, some grains, and files as people have them.
SIZES = (1, MIB, MIB + 1, 5 * MIB + 7, 64 * MIB, 300 * MIB, 1024 * MIB)
_OFTEN = (2, 2, 2, 4, 5, 3, 1)


@frozen
class Reading:
    """
    One download.

    :ivar blob: which; an index into the sizes.
    :ivar start: its first byte; it goes on to the end.
    :ivar later: after the round began.
    """

    blob: int
    puller: int
    start: int
    later: float


@frozen
class Round:
    """
    One round.

    :ivar trouble: what befalls the first holder: a ``slow`` wire; being ``stopped`` after ``when`` for
        ``lasting``, once or ``again`` and again.
    """

    readings: tuple[Reading, ...]
    trouble: Trouble
    when: float
    lasting: float


def draw(seed: int, sizes: tuple[int, ...], pullers: int) -> Round:
    """The round of a seed, for blobs of these sizes and so many pullers."""
    random = Random(seed)
    weights = [_OFTEN[SIZES.index(size)] if size in SIZES else 1 for size in sizes]
    blobs = {random.choices(range(len(sizes)), weights)[0] for _ in range(random.randint(1, 4))}
    readings: list[Reading] = []
    for blob in sorted(blobs):
        together = random.sample(range(pullers), random.randint(1, pullers))
        for puller in together:
            later = random.choice((0.0, 0.0, random.uniform(0, 0.5)))
            for _ in range(random.choice((1, 1, 1, 2, 3))):
                start = random.choice((0, 0, 0, random.randrange(sizes[blob]), max(0, sizes[blob] - 1)))
                readings.append(Reading(blob, puller, start, later))
                later += random.choice((0.0, random.uniform(0, 0.5)))
    trouble: Trouble = random.choices(("none", "slow", "stopped", "again"), (6, 1, 1, 1))[0]
    return Round(tuple(readings), trouble, random.uniform(0, 0.5), random.uniform(1, 6))

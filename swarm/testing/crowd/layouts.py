"""Who is behind what link: layouts of a swarm, and how fast any protocol could serve it.

The bound is that of R. Kumar and K. Ross, *Peer-Assisted File Distribution: The Minimum Distribution Time*
(2006). It is reached only by fluid that needs no grains, no round trips and no time to find out who has what.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

from swarm.testing.crowd.fluid import Host

MBIT = 125_000.0  # bytes a second

#: Seconds there and back: within a site, and between two.
NEAR, FAR = 0.002, 0.040


def even(count: int, random: Random) -> list[Host]:
    """The seed and ``count`` others alike: 100 Mbit/s out, 1 Gbit/s in."""
    return [Host(number, 100 * MBIT, 1000 * MBIT) for number in range(count + 1)]


def mixed(count: int, random: Random) -> list[Host]:
    """Offices: 50, 100 or 200 Mbit/s out, five times as much in; the seed has 200 Mbit/s."""
    ups = [200.0] + [random.choice((50.0, 100.0, 200.0)) for _ in range(count)]
    return [Host(number, up * MBIT, 5 * up * MBIT) for number, up in enumerate(ups)]


def sites(count: int, random: Random) -> list[Host]:
    """As ``even``, in three sites that take turns; the seed is in the first."""
    return [Host(number, 100 * MBIT, 1000 * MBIT, site=number % 3) for number in range(count + 1)]


LAYOUTS: dict[str, Callable[[int, Random], list[Host]]] = {"even": even, "mixed": mixed, "sites": sites}


def bound(size: int, hosts: Sequence[Host]) -> float:
    """Seconds in which no protocol could bring ``size`` bytes from the first host to all others."""
    seed, others = hosts[0], hosts[1:]
    together = seed.up + sum(host.up for host in others)
    return max(size / seed.up, size / min(host.down for host in others), len(others) * size / together)


def round_trip(one: Host, other: Host) -> float:
    """Seconds there and back."""
    return NEAR if one.site == other.site else FAR

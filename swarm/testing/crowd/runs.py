"""One run: a layout, a blob, one seed; and what it came to, against the bound."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from hashlib import sha512
from random import Random

from attrs import frozen

from swarm.model.digest import Digest
from swarm.model.grains import Grains
from swarm.model.midstates import Midstates
from swarm.testing.crowd.cast import Cast, Rules
from swarm.testing.crowd.fluid import Fluid
from swarm.testing.crowd.layouts import LAYOUTS, bound
from swarm.testing.crowd.puller import Puller


@frozen
class Outcome:
    """
    A run in numbers.

    :ivar times: seconds until each node had all, soonest first.
    :ivar overhead: bytes the seed sent, in blobs. ``abroad``: bytes each site took from others, in blobs.
    :ivar duplicates: the share of all bytes received that were of no use.
    """

    layout: str
    nodes: int
    bound: float
    times: tuple[float, ...]
    overhead: float
    abroad: tuple[float, ...]
    duplicates: float
    refused: int
    asked: int
    events: int
    cpu: float

    def efficiency(self, quantile: float) -> float:
        """The bound over the time at which this share of all nodes had the blob."""
        return self.bound / self.times[min(len(self.times) - 1, int(quantile * len(self.times)))]


def run(
    layout: str,
    nodes: int,
    grains: int,
    *,
    seed: int = 0,
    rules: Rules | None = None,
    holders: int = 1,
    limit: float = 100.0,
    spread: float = 0.1,
    pause: Callable[[Random], float] | None = None,
) -> Outcome:
    """
    Bring one blob to everybody.

    :param grains: how many the blob has, of 1 MiB.
    :param holders: how many have it at first: the first hosts.
    :param limit: how many times the bound it may take.
    :param spread: seconds within which all begin.
    :param pause: see :class:`~swarm.testing.crowd.puller.Cast`; None: threads take no time.
    :raises AssertionError: it takes longer.
    """
    began, random = time.process_time(), Random(f"{seed} {layout} {nodes}")
    hosts = LAYOUTS[layout](nodes, random)
    blob = Grains.of(grains << 20)
    digest = Digest(sha512(b"crowd").digest())
    inner = b"".join(sha512(b"%d" % each).digest() for each in range(1, blob.count))
    fluid = Fluid()
    cast = Cast(fluid, digest, blob, Midstates(blob, inner), rules or Rules(), pause)
    for host in hosts:
        node = Puller(cast, host, Random(f"{seed} {host.number}"), complete=host.number < holders)
        cast.nodes[node.peer.id] = node
    cast.peers.extend(cast.nodes)
    pullers = [node for node in cast.nodes.values() if not node.complete]
    for node in pullers:
        fluid.after(random.uniform(0.0, spread), node.begin)
    least = bound(blob.size, hosts)
    left = set(pullers)

    def done() -> bool:
        while left and (one := next(iter(left))).complete:
            left.remove(one)
        return not left

    assert fluid.run(done, limit * least), f"{len(left)} nodes are not done after {limit} times the bound"
    return Outcome(
        layout,
        nodes,
        least,
        tuple(sorted(node.finished or 0.0 for node in pullers)),
        hosts[0].sent / blob.size,
        tuple(
            sum(host.abroad for host in hosts if host.site == site) / blob.size
            for site in sorted({host.site for host in hosts})
        ),
        _share([node.tally for node in pullers]),
        sum(node.refused for node in pullers),
        sum(node.asked for node in pullers),
        fluid.events,
        time.process_time() - began,
    )


def _share(tallies: Sequence[tuple[int, int]]) -> float:
    return sum(lost for _, lost in tallies) / max(1, sum(received for received, _ in tallies))

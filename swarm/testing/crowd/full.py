"""The same swarm of real nodes: what the model is held against, up to a few dozen of them.

Layout ``even`` on :mod:`swarm.testing.simulation`, in miniature: all a host sends shares one link. What real
nodes do besides (hashing, journals, gossip) is in it.
"""

from __future__ import annotations

from hashlib import sha512
from random import Random

from twisted.internet.defer import Deferred, gatherResults

from swarm.model.digest import Digest
from swarm.testing.crowd.layouts import MBIT, NEAR
from swarm.testing.simulation.network import Link
from swarm.testing.simulation.scale import Scale
from swarm.testing.simulation.swarm import Swarm

_DOWN = 8  # what HTTP says does not shrink with the blob, and would weigh the more
_ACQUAINTED = 10.0  # seconds, by when all have met all


def run_full(nodes: int, grains: int, *, seed: int = 0) -> tuple[float, ...]:
    """Seconds until each of ``nodes`` real nodes had a blob of so many MiB from one more, soonest first."""
    scale = Scale(_DOWN)
    with scale.applied(), Swarm(seed, nodes + 1, scale=scale) as swarm:
        swarm.copies(1)
        _shape(swarm, scale)
        for name in swarm.nodes:
            swarm.start(name)
        swarm.timeline.until(most=_ACQUAINTED)
        data = Random(seed).randbytes(scale.size(grains << 20))
        first, *others = swarm.nodes
        answer = swarm.play(swarm.client(first).ask("PUT", "/blob", data), most=300.0)
        assert answer.status == 201, answer
        began, times = swarm.timeline.now, list[float]()

        async def pull(name: str) -> None:
            each = swarm.nodes[name]
            assert each.node is not None and each.process is not None
            digest = Digest(sha512(data).digest())
            await swarm.timeline.run(each.process, Deferred.fromCoroutine, each.node.fetcher.pull(digest))
            times.append(swarm.timeline.now - began)

        async def everybody() -> None:
            await gatherResults([Deferred.fromCoroutine(pull(name)) for name in others])

        swarm.play(everybody(), most=3600.0)
    return tuple(sorted(times))


def _shape(swarm: Swarm, scale: Scale) -> None:
    network = swarm.network
    for one in network.hosts:
        shared = Link(NEAR / 2, scale.size(100 * MBIT))
        network.links.update({(one, other): shared for other in network.hosts if other != one})

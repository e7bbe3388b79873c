"""The network side of a pull, by itself."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from swarm.core.dispatch import Dispatch, DispatchSettings
from swarm.model.holdings import Holding
from swarm.services.asking import Asking
from swarm.services.progress import Counters
from swarm.services.sources import Sources
from tests.services.world import BLOB, DIGEST, GRAINS, World


def test_what_a_grain_makes_due_is_asked_once_its_lane_has_let_go(make: Callable[..., World]) -> None:
    # A grain that can be judged at once, such as one there is no midstate list for yet, asks for more
    # while its last bytes are being handed over: a third span on a lane that has two.
    world = make()
    node = world.peer("a", BLOB)
    partial = world.run(world.store.partial(DIGEST, len(BLOB)))
    dispatch = Dispatch(GRAINS, DispatchSettings(), Random(1))
    sources = Sources()
    sources.add(Holding(node.peer, len(BLOB), None))
    came: list[int] = []

    def arrived(grain: int, asked: float) -> None:
        assert asked <= world.clock.seconds()
        came.append(grain)
        dispatch.verified(grain, world.clock.seconds())
        asking.pump()

    asking = Asking(
        partial,
        dispatch,
        world.client,
        sources,
        clock=world.clock,
        tasks=world.tasks,
        counters=Counters(),
        arrived=arrived,
        unfit=lambda peer, reason: None,
        failed=lambda error: None,
        delivered=lambda peer, well: None,
        told=lambda peer, have, given: None,
    )
    dispatch.add_source(node.peer.id, world.clock.seconds())
    asking.pump()
    world.until(lambda: len(came) == GRAINS.count)
    world.until(lambda: not asking.busy)
    asking.stop()
    partial.close()

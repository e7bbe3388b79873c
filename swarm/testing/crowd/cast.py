"""What the nodes of a crowd share, and the lanes between them: values only."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING

from attrs import define, field, frozen

from swarm.core.dispatch import DispatchSettings, Span
from swarm.model.digest import Digest
from swarm.model.grains import Grains
from swarm.model.midstates import Midstates
from swarm.model.peers import PeerID
from swarm.peering.limits import PeerLimits
from swarm.services.settings import FetchSettings
from swarm.testing.crowd.fluid import Flow, Fluid

if TYPE_CHECKING:
    from swarm.testing.crowd.puller import Puller


@frozen
class Rules:
    """The settings of all nodes, a node's own by default."""

    dispatch: DispatchSettings = field(factory=DispatchSettings)
    fetch: FetchSettings = field(factory=FetchSettings)
    limits: PeerLimits = field(factory=PeerLimits)


@frozen
class Cast:
    """What all nodes share: the blob and everybody."""

    fluid: Fluid
    digest: Digest
    grains: Grains
    midstates: Midstates
    rules: Rules
    pause: Callable[[Random], float] | None = None
    """Seconds that hashing a grain, or keeping the blob, waits for a thread, and then for its answer."""
    nodes: dict[PeerID, Puller] = field(factory=dict)
    peers: list[PeerID] = field(factory=list)


@define(eq=False)
class Lane:
    """Spans asked of one peer on one connection, in order; the first may be streaming."""

    spans: list[Span] = field(factory=list)
    flow: Flow | None = None
    retired: bool = False
    closed: bool = False

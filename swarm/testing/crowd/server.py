"""The serving side of a node of the crowd, as ``peering.serving`` is: few at once, the others wait or go."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from attrs import frozen

from swarm.core.dispatch import Span
from swarm.core.giving import Giving
from swarm.core.turns import Turns
from swarm.model.peers import PeerID
from swarm.peering.limits import PeerLimits
from swarm.testing.crowd.fluid import Fluid

if TYPE_CHECKING:
    from swarm.testing.crowd.cast import Lane
    from swarm.testing.crowd.puller import Puller


@frozen(eq=False)
class Asked:
    """Somebody's request for a span."""

    puller: Puller
    lane: Lane
    span: Span


class Server:
    """I answer."""

    def __init__(self, node: Puller, fluid: Fluid, size: int, limits: PeerLimits) -> None:
        self.giving = Giving(size)
        self._turns: Turns[Asked] = Turns(limits.per_blob, limits.uploads, limits.waiting, limits.per_crowd)
        self._node = node
        self._fluid = fluid
        self._limits = limits

    def ask(self, asked: Asked) -> None:
        """A request arrives: it is served, waits its turn, or is refused."""
        who, wanted = asked.puller.peer.id, asked.span.range
        if self._node.complete and self._turns.crowded and self.giving.deflects(who, wanted):
            asked.puller.refuse(asked.lane, asked.span, 0.0)
            return
        self.giving.promise(who, wanted)
        refused = self._turns.ask(asked, who)
        if refused is not None:
            self._refuse(refused)
        self._serve()
        if asked in self._turns:
            self._fluid.after(self._limits.wait, partial(self._give_up, asked))

    def over(self, peer: PeerID, sent: int) -> None:
        """An answer ended."""
        self._turns.over(peer, sent, self._fluid.now)
        self._serve()

    def _serve(self) -> None:
        while (asked := self._turns.next()) is not None:
            awaited = asked.puller.awaits(asked.lane, asked.span)
            self.giving.settle(asked.span.range, given=awaited)
            if awaited:
                asked.puller.streams(asked.lane, asked.span, self._node)
            else:
                self._turns.over(asked.puller.peer.id, 0, self._fluid.now)

    def _give_up(self, asked: Asked) -> None:
        if self._turns.leave(asked):
            self._refuse(asked)

    def _refuse(self, asked: Asked) -> None:
        self.giving.settle(asked.span.range, given=False)
        asked.puller.refuse(asked.lane, asked.span, self._limits.busy)

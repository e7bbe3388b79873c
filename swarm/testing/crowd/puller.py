"""A node of the crowd: the real decisions of one pull, and what its services do around them, in few events.

Real are dispatch, trust, breadth and the ranking of sources, with the node's settings. Done here as the
services do it, without a network: asking peers what they have (``services.fetch``, ``services.holders``),
lanes (``services.asking``) and the limit of uploads (``peering.server``). No hashing: bytes are always good,
so a grain leads from the one midstate to the next, and no disk.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from random import Random

from attrs import define, field, frozen

from swarm.core.breadth import Breadth
from swarm.core.dispatch import Abort, Dispatch, DispatchSettings, Shorten, Span
from swarm.core.evidence import Judgement
from swarm.core.sources import Sources, SourceSettings
from swarm.core.trust import Trust
from swarm.errors import Fault
from swarm.model.digest import Digest
from swarm.model.grains import Grains
from swarm.model.holdings import Holding
from swarm.model.midstates import Midstates
from swarm.model.peers import Address, Peer, PeerID
from swarm.model.ranges import RangeSet
from swarm.peering.limits import PeerLimits
from swarm.services.settings import FetchSettings
from swarm.testing.crowd.fluid import Flow, Fluid, Host
from swarm.testing.crowd.layouts import round_trip


@frozen
class Rules:
    """
    The settings of all nodes, a node's own by default; and what none does yet, to see what it would bring.

    :ivar unproven: pass on grains that fit the one list there is, before two peers vouch for it.
    :ivar fresh: every answer with bytes tells what its sender has by then.
    :ivar last_first: ask for the last grain before all others, as trust wishes.
    """

    dispatch: DispatchSettings = field(factory=DispatchSettings)
    fetch: FetchSettings = field(factory=FetchSettings)
    limits: PeerLimits = field(factory=PeerLimits)
    unproven: bool = False
    fresh: bool = False
    last_first: bool = True


#: What a large swarm would need, in settings and in rules that nodes do not have yet.
PROPOSED = Rules(
    fetch=FetchSettings(search_every=1.0, sources=SourceSettings(negative=2.0)),
    limits=PeerLimits(uploads=4),
    unproven=True,
    fresh=True,
    last_first=False,
)


@frozen
class Cast:
    """What all nodes share: the blob and everybody."""

    fluid: Fluid
    digest: Digest
    grains: Grains
    midstates: Midstates
    rules: Rules
    nodes: dict[PeerID, Puller] = field(factory=dict)


@define(eq=False)
class Lane:
    """Spans asked of one peer on one connection, in order; the first may be streaming."""

    spans: list[Span] = field(factory=list)
    flow: Flow | None = None
    retired: bool = False
    closed: bool = False


class Puller:
    """
    One node; complete from the beginning (the seed), or from :attr:`finished` on.

    :ivar uploads: answers with blob bytes at this moment.
    """

    def __init__(self, cast: Cast, host: Host, random: Random, *, complete: bool = False) -> None:
        number = host.number
        self.host = host
        self.peer = Peer(PeerID(number.to_bytes(32, "big")), f"n{number}", Address("10.0.0.1", 1 + number))
        self.finished: float | None = 0.0 if complete else None
        self.refused = 0
        self.asked = 0
        rules = cast.rules
        self.uploads = 0
        self._cast = cast
        self._fluid = cast.fluid
        self._grains = cast.grains
        self._random = random
        self._ranking = Sources(rules.fetch.sources, random)
        self._holdings: dict[PeerID, Holding] = {}
        self._taking: dict[PeerID, RangeSet | None] = {}
        self._breadth = Breadth(rules.fetch.sources.most_active, rules.fetch.sources.most_widened)
        self._trust = Trust(cast.digest, cast.grains)
        self._dispatch = Dispatch(cast.grains, rules.dispatch, random)
        if not rules.last_first:
            self._dispatch._table.picker.settle(cast.grains.last)  # a rule nodes do not have
        self._listed: set[PeerID] = set()
        self._lanes: dict[PeerID, Lane] = {}
        self._lane_of: dict[int, Lane] = {}
        self._fit = RangeSet()  # what may be passed on
        self._told: RangeSet | None = None  # the same as it was told last
        self._accepted: set[int] = set()
        self._begun = False
        self._turning = False
        self._alarm = 0

    # -- what others see --------------------------------------------------------------------

    @property
    def complete(self) -> bool:
        """Has it all of the blob?"""
        return self.finished is not None

    @property
    def tally(self) -> tuple[int, int]:
        """Bytes received, and those of them that were of no use."""
        tally = self._dispatch.tally
        return tally.received, tally.duplicated + tally.wasted

    def holding(self) -> Holding | None:
        """The answer to HEAD."""
        if self.complete:
            return Holding(self.peer, self._grains.size)
        if not self._begun:
            return None
        if self._told is None:
            self._told = self._fit.copy()
        return Holding(self.peer, self._grains.size, self._told)

    def _note_fit(self, accepted: Sequence[int]) -> None:
        fit = self._trust.releasable if self._cast.rules.unproven else self._trust.trusted
        self._accepted.update(accepted)
        for grain in [each for each in self._accepted if fit(each)]:
            self._accepted.discard(grain)
            self._fit.add(self._grains.start(grain), self._grains.stop(grain))
            self._told = None

    # -- searching, as services.fetch does ---------------------------------------------------

    def begin(self) -> None:
        """Look for holders for the first time, and pull from then on."""
        self._fluid.after(3 * self._longest_trip(), self._met)

    def _longest_trip(self) -> float:
        return max(round_trip(self.host, each.host) for each in self._cast.nodes.values())

    def _met(self) -> None:
        self._locate(frozenset())
        self._begun = True
        self._feed()
        self._fluid.after(self._cast.rules.fetch.search_every, self._search_on)

    def _search_on(self) -> None:
        if self.complete:
            return
        now = self._fluid.now
        complete = frozenset(peer for peer, have in self._taking.items() if have is None)
        self._locate(complete | self._spared())
        rates = [each.rate for each in self._dispatch.sources(now)]
        self._breadth.look(sum(rates), len(self._taking))
        self._feed()
        self._fluid.after(self._cast.rules.fetch.search_every + self._longest_trip(), self._search_on)

    def _spared(self) -> frozenset[PeerID]:
        now, digest = self._fluid.now, self._cast.digest
        lacking = [peer for peer in self._cast.nodes if not self._ranking.may_have(peer, digest, now)]
        again = self._random.sample(lacking, min(self._cast.rules.fetch.asked_again, len(lacking)))
        return frozenset(lacking).difference(again)

    def _locate(self, skip: frozenset[PeerID]) -> None:
        now, digest = self._fluid.now, self._cast.digest
        for peer, node in self._cast.nodes.items():
            if node is self or peer in skip:
                continue
            self.asked += 1
            holding = node.holding()
            if holding is None:
                self._ranking.lacks(peer, digest, now)
                self._holdings.pop(peer, None)
            else:
                self._ranking.gained(peer, digest)
                self._holdings[peer] = holding

    def _feed(self) -> None:
        room = self._breadth.allowed - len(self._taking)
        for attempt in self._ranking.attempts(self._holdings.values(), self._fluid.now):
            for holding in attempt.active + attempt.spare:
                if holding.peer.id in self._taking:
                    self._add(holding)
                elif room > 0:
                    self._add(holding)
                    room -= 1
        self._turn()

    def _add(self, holding: Holding) -> None:
        peer = holding.peer.id
        self._taking[peer] = holding.have
        self._trust.claim(peer, complete=holding.complete)
        self._dispatch.add_source(peer, self._fluid.now, holding.have)
        wanted = self._cast.rules.fetch.pull.lists_wanted
        if holding.complete and peer not in self._listed and len(self._listed) < wanted:
            self._listed.add(peer)
            there = round_trip(self.host, self._cast.nodes[peer].host)
            self._fluid.after(3 * there, partial(self._listed_by, peer))

    def _listed_by(self, peer: PeerID) -> None:
        if not self.complete:
            self._apply(self._trust.offer(peer, self._cast.midstates))
            self._turn()

    # -- asking, as services.asking does -------------------------------------------------------

    def _turn(self) -> None:
        if self.complete or self._turning:
            return
        now, dispatch, self._turning = self._fluid.now, self._dispatch, True
        self._catch_up()
        for action in dispatch.due(now):
            self._carry_out(action)
        for span in dispatch.next(now):
            self._ask(span)
        self._turning = False
        due = dispatch.next_due()
        self._alarm += 1
        if due is not None:
            self._fluid.after(max(0.01, due - now), partial(self._wake, self._alarm))

    def _wake(self, alarm: int) -> None:
        if alarm == self._alarm:
            self._turn()

    def _catch_up(self) -> None:
        """What came since the last event, so that nobody seems silent who is not."""
        for lane in list(self._lane_of.values()):
            if lane.flow is not None and lane.spans:
                self._fluid.settle(lane.flow)
                self._take(lane, lane.flow)

    def _carry_out(self, action: Abort | Shorten) -> None:
        if isinstance(action, Abort):
            for lane in [each for each in self._lane_of.values() if self._whose(each) == action.peer]:
                self._close(lane)
            if (kept := self._lanes.pop(action.peer, None)) is not None:
                self._close(kept)
            return
        shortened = self._lane_of.get(action.span)
        if shortened is None:
            return
        self._retire(shortened)
        head = shortened.spans[0]
        if head.id == action.span and shortened.flow is not None:
            self._fluid.shorten(shortened.flow, action.stop)
        elif action.stop == next(each for each in shortened.spans if each.id == action.span).range.start:
            shortened.spans = [each for each in shortened.spans if each.id != action.span]
            del self._lane_of[action.span]

    def _whose(self, lane: Lane) -> PeerID | None:
        return lane.spans[0].peer if lane.spans else None

    def _retire(self, lane: Lane) -> None:
        lane.retired = True
        for peer, each in list(self._lanes.items()):
            if each is lane:
                del self._lanes[peer]

    def _close(self, lane: Lane) -> None:
        if lane.closed:
            return
        lane.closed = lane.retired = True
        for span in lane.spans:
            self._lane_of.pop(span.id, None)
            self._dispatch.failed(span.id, self._fluid.now)
        if lane.flow is not None:
            self._hang_up(lane)
        lane.spans = []

    def _hang_up(self, lane: Lane) -> None:
        assert lane.flow is not None
        self._cast.nodes[lane.spans[0].peer].uploads -= 1
        self._fluid.end(lane.flow)
        lane.flow = None

    def _ask(self, span: Span) -> None:
        lane, there = self._lanes.get(span.peer), round_trip(self.host, self._cast.nodes[span.peer].host)
        trips = 1
        if lane is None:
            lane, trips = self._lanes.setdefault(span.peer, Lane()), 3
        self._lane_of[span.id] = lane
        lane.spans.append(span)
        if len(lane.spans) == 1:
            self._fluid.after(trips * there, partial(self._answer, lane, span))

    def _answer(self, lane: Lane, span: Span) -> None:
        """The peer answers: with bytes, or that it serves enough others."""
        if lane.closed or not lane.spans or lane.spans[0] is not span:
            return
        node, limits = self._cast.nodes[span.peer], self._cast.rules.limits
        if node.uploads >= limits.uploads:
            self.refused += 1
            self._over(lane)
            self._dispatch.failed(span.id, self._fluid.now, Fault.BUSY, limits.busy)
            self._turn()
            return
        if self._cast.rules.fresh:
            self._learn(node)
        node.uploads += 1
        grain = self._grains.grain
        step = grain if self._grains.count > 1 else max(1, self._grains.size)
        passed = partial(self._passed, lane)
        lane.flow = Flow(node.host, self.host, span.range.start, span.range.stop, step, passed)
        self._fluid.begin(lane.flow)

    def _learn(self, node: Puller) -> None:
        holding = node.holding()
        if holding is not None and node.peer.id in self._taking:
            self._holdings[node.peer.id] = holding
            self._taking[node.peer.id] = holding.have
            self._dispatch.update_source(node.peer.id, holding.have)

    def _passed(self, lane: Lane, flow: Flow) -> None:
        self._take(lane, flow)
        if not self.complete:
            self._turn()

    def _take(self, lane: Lane, flow: Flow) -> None:
        """Tell of the bytes that are here; at the end, go on with the next span of the lane."""
        span, now = lane.spans[0], self._fluid.now
        accepted: list[int] = []
        for grain in self._dispatch.received(span.id, flow.here, now):
            accepted += self._judge(grain)
        if flow.here >= flow.stop or not self._dispatch.flying(span.id):
            cut = flow.here < span.range.stop
            self._hang_up(lane)
            self._over(lane)
            self._dispatch.finished(span.id, now)
            self._ranking.worked(span.peer, now)
            if cut:
                self._close_rest(lane)
        if self._dispatch.complete and not self.complete:
            self._finish()

    def _close_rest(self, lane: Lane) -> None:
        self._retire(lane)
        for span in lane.spans:
            self._lane_of.pop(span.id, None)
            self._dispatch.failed(span.id, self._fluid.now)
        lane.spans, lane.closed = [], True

    def _over(self, lane: Lane) -> None:
        """The first span of a lane is answered; the answer to the next is right behind it."""
        span = lane.spans.pop(0)
        self._lane_of.pop(span.id, None)
        if lane.spans:
            self._fluid.after(0.0, partial(self._answer, lane, lane.spans[0]))

    # -- proving, as services.proving does --------------------------------------------------------

    def _judge(self, grain: int) -> Sequence[int]:
        list_, digest = self._cast.midstates, self._cast.digest.raw
        starts = self._trust.starts(grain)
        ends: dict[bytes | None, bytes] = {start: list_.after(grain, digest) for start in starts}
        return self._apply(self._trust.judge(grain, self._dispatch.senders(grain), ends))

    def _apply(self, judgement: Judgement) -> Sequence[int]:
        assert not judgement.proofs and not judgement.reopened, "nobody lies here"
        for grain in judgement.rehash:
            self._judge(grain)
        for grain in judgement.accepted:
            self._dispatch.verified(grain, self._fluid.now)
        self._note_fit(judgement.accepted)
        if self._cast.rules.last_first:
            for grain in self._trust.wanted():
                self._dispatch.prefer(grain)
        return judgement.accepted

    def _finish(self) -> None:
        self.finished = self._fluid.now
        for lane in list(self._lane_of.values()):
            self._close(lane)
        self._lanes.clear()
        self._alarm += 1

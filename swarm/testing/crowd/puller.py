"""A node of the crowd: the real decisions of one pull, and what its services do around them, in few events.

Real are dispatch, trust, breadth and the ranking of sources, with the node's settings. Done here as the
services do it, without a network: asking peers what they have (``services.fetch``, ``services.holders``),
lanes (``services.asking``) and the limit of uploads (``peering.server``). No hashing: bytes are always good,
so a grain leads from the one midstate to the next, and no disk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from hashlib import sha256
from random import Random

from swarm.core.breadth import Breadth
from swarm.core.dispatch import Abort, Dispatch, Shorten, Span
from swarm.core.evidence import Judgement
from swarm.core.shares import Shares
from swarm.core.sources import Sources
from swarm.core.trust import Trust
from swarm.errors import Fault
from swarm.model.holdings import Holding
from swarm.model.peers import Address, Peer, PeerID
from swarm.model.ranges import RangeSet
from swarm.testing.crowd.cast import Cast, Lane
from swarm.testing.crowd.fluid import Flow, Host
from swarm.testing.crowd.layouts import FAR, round_trip
from swarm.testing.crowd.server import Asked, Server


class Puller:
    """
    One node; complete from the beginning (the seed), or from :attr:`finished` on.

    :ivar uploads: answers with blob bytes at this moment.
    """

    def __init__(self, cast: Cast, host: Host, random: Random, *, complete: bool = False) -> None:
        number = host.number
        self.host = host
        name = PeerID(sha256(b"%d" % number).digest())
        self.peer = Peer(name, f"n{number}", Address("10.0.0.1", 1 + number))
        self.finished: float | None = 0.0 if complete else None
        self.refused = 0
        self.asked = 0
        rules = cast.rules
        self.server = Server(self, cast.fluid, cast.grains.size, rules.limits)
        self._shares = Shares(self.peer.id, cast.digest, cast.grains)
        self._noticed: dict[PeerID, None] = {}
        self._news: dict[PeerID, float] = {}
        self._caught_up = 0.0
        self._cast = cast
        self._fluid = cast.fluid
        self._grains = cast.grains
        self._random = random
        self._threads = Random(number)
        self._ranking = Sources(rules.fetch.sources, random)
        self._holdings: dict[PeerID, Holding] = {}
        self._taking: dict[PeerID, RangeSet | None] = {}
        self._breadth = Breadth(rules.fetch.sources.most_active, rules.fetch.sources.most_widened)
        self._trust = Trust(cast.digest, cast.grains)
        self._dispatch = Dispatch(cast.grains, rules.dispatch, random)
        self._listed: set[PeerID] = set()
        self._lanes: dict[PeerID, Lane] = {}
        self._lane_of: dict[int, Lane] = {}
        self._fit = RangeSet()  # what may be passed on
        self._told: RangeSet | None = None  # the same as it was told last
        self._begun = False
        self._publishing = False
        self._looked = 0.0
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
        for grain in accepted:
            self._fit.add(self._grains.start(grain), self._grains.stop(grain))
            self._told = None

    # -- searching, as services.fetch does ---------------------------------------------------

    def begin(self) -> None:
        """Look for holders for the first time, and pull from then on."""
        self._fluid.after(3 * self._longest_trip(), self._met)

    def _longest_trip(self) -> float:
        return FAR

    def _met(self) -> None:
        self._locate(self._cast.nodes)
        self._begun = True
        self._feed()
        self._looked = self._fluid.now
        self._fluid.after(self._cast.rules.fetch.search_hungry, self._search_on)

    def _search_on(self) -> None:
        if self.complete:
            return
        now, fetch = self._fluid.now, self._cast.rules.fetch
        forms = bool(self._noticed) and not self._dispatch.crowded
        if not (self._dispatch.hungry or forms) and now < self._looked + fetch.search_every:
            self._fluid.after(fetch.search_hungry, self._search_on)
            return
        self._locate(self._worth_asking(now))
        rates = [each.rate for each in self._dispatch.sources(now)]
        self._breadth.look(sum(rates), len(self._taking))
        if self._dispatch.crowded:
            self._breadth.meet(fetch.sources.most_crowd)
        self._feed()
        self._looked = now + self._longest_trip()
        self._fluid.after(self._longest_trip() + fetch.search_hungry, self._search_on)

    def _worth_asking(self, now: float) -> list[PeerID]:
        old = now - self._cast.rules.fetch.search_hungry
        stale = [peer for peer, have in self._taking.items() if have is not None and self._news[peer] <= old]
        count = min(self._cast.rules.fetch.asked_again, len(self._cast.peers))
        some = self._random.sample(self._cast.peers, count)
        noticed, self._noticed = self._noticed, {}
        return list({**dict.fromkeys(stale), **noticed, **dict.fromkeys(some)})

    def _locate(self, peers: Iterable[PeerID]) -> None:
        nodes = self._cast.nodes
        for peer in peers:
            node = nodes[peer]
            if node is self or (node.complete and self._taking.get(peer, 0) is None):
                continue
            self.asked += 1
            node.notice(self)
            holding = node.holding()
            if holding is None:
                self._holdings.pop(peer, None)
            else:
                if peer not in self._holdings:
                    self._ranking.heard(peer, round_trip(self.host, node.host))
                self._holdings[peer] = holding
                if peer in self._taking:
                    self._add(holding)

    def notice(self, asker: Puller) -> None:
        """Who asks for the blob while we pull it will soon have something of it."""
        if self._begun and not self.complete and asker.peer.id not in self._holdings:
            self._noticed[asker.peer.id] = None

    def _feed(self) -> None:
        pullers = [peer for peer, holding in self._holdings.items() if not holding.complete]
        self._dispatch.share(self._shares.among(pullers, self._ranking.trips(self._holdings)))
        room = self._breadth.allowed - len(self._taking)
        if room > 0:
            for attempt in self._ranking.attempts(self._holdings.values(), self._fluid.now):
                for holding in attempt.active + attempt.spare:
                    if room > 0 and holding.peer.id not in self._taking:
                        self._add(holding)
                        room -= 1
        self._turn()

    def _add(self, holding: Holding) -> None:
        peer = holding.peer.id
        new = peer not in self._taking
        self._taking[peer] = holding.have
        self._news[peer] = self._fluid.now
        self._trust.claim(peer, complete=holding.complete)
        if new:
            self._dispatch.add_source(peer, self._fluid.now, holding.have)
        self._dispatch.update_source(peer, holding.have)
        if holding.complete:
            self._dispatch.gave(peer, self._cast.nodes[peer].server.giving.told)
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
        if now > self._caught_up + 0.25:
            self._caught_up = now
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
        flow, lane.flow = lane.flow, None
        self._fluid.end(flow)
        span = lane.spans[0]
        self._cast.nodes[span.peer].server.over(self.peer.id, int(flow.at) - span.range.start)

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
        """The request arrives: it is served, waits its turn, or is refused."""
        if not self.awaits(lane, span):
            return
        node = self._cast.nodes[span.peer]
        node.notice(self)
        node.server.ask(Asked(self, lane, span))

    def refuse(self, lane: Lane, span: Span, after: float) -> None:
        """A peer serves enough others, or had rather send something else."""
        if self.awaits(lane, span):
            self.refused += 1
            self._learn(self._cast.nodes[span.peer])
            self._over(lane)
            self._dispatch.failed(span.id, self._fluid.now, Fault.BUSY, after)
            self._turn()

    def awaits(self, lane: Lane, span: Span) -> bool:
        """Is this what is to come next on the lane?"""
        return not lane.closed and bool(lane.spans) and lane.spans[0] is span

    def streams(self, lane: Lane, span: Span, node: Puller) -> None:
        """A peer begins to send."""
        self._learn(node)
        grain = self._grains.grain
        step = grain if self._grains.count > 1 else max(1, self._grains.size)
        passed = partial(self._passed, lane)
        lane.flow = Flow(node.host, self.host, span.range.start, span.range.stop, step, passed)
        self._fluid.begin(lane.flow)

    def _learn(self, node: Puller) -> None:
        holding = node.holding()
        if holding is not None and node.peer.id in self._taking:
            self._holdings[node.peer.id] = holding
            self._add(holding)

    def _passed(self, lane: Lane, flow: Flow) -> None:
        self._take(lane, flow)
        if not self.complete:
            self._turn()

    def _take(self, lane: Lane, flow: Flow) -> None:
        """Tell of the bytes that are here; at the end, go on with the next span of the lane."""
        span, now = lane.spans[0], self._fluid.now
        for grain in self._dispatch.received(span.id, flow.here, now):
            self._in_thread(partial(self._judge, grain))
        if flow.here >= flow.stop or not self._dispatch.flying(span.id):
            cut = flow.here < span.range.stop
            self._hang_up(lane)
            self._over(lane)
            self._dispatch.finished(span.id, now)
            self._ranking.worked(span.peer, now)
            if cut:
                self._close_rest(lane)
        self._end_if_complete()

    def _in_thread(self, work: Callable[[], object]) -> None:
        """Now, or when a thread would have told."""
        pause = self._cast.pause
        if pause is None:
            work()
            return

        def told() -> None:
            work()
            self._end_if_complete()
            self._turn()

        self._fluid.after(pause(self._threads) + pause(self._threads), told)

    def _end_if_complete(self) -> None:
        if self._dispatch.complete and not self._publishing:
            self._publishing = True
            self._in_thread(self._finish)

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
        for grain in self._trust.wanted():
            self._dispatch.prefer(grain)
        return judgement.accepted

    def _finish(self) -> None:
        self.finished = self._fluid.now
        for lane in list(self._lane_of.values()):
            self._close(lane)
        self._lanes.clear()
        self._alarm += 1

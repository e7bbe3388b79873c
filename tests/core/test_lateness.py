"""Which spans an idle source takes over: what it could not bring whole, it is not given."""

from __future__ import annotations

from random import Random

from swarm.core.dispatch import DispatchSettings
from swarm.core.feeds import Feed
from swarm.core.lateness import Laggards
from swarm.core.rates import Rate
from swarm.core.table import Pace, Table
from swarm.model.grains import Grains
from swarm.model.peers import PeerID
from swarm.model.ranges import ByteRange, RangeSet

G = 100


def test_a_thief_that_has_only_the_end_of_a_tail_takes_none_of_it() -> None:
    grains = Grains(20 * G, G)
    table = Table(grains, DispatchSettings(), Random(1))
    slow, thief = (Feed(PeerID(bytes([number]) * 32), Rate(10 * G, G)) for number in (1, 2))
    table.feeds = {slow.peer: slow, thief.peer: thief}
    for feed, each in ((slow, 1), (thief, 10)):
        feed.rate.begin(0.0)
        feed.rate.add(each * 10 * G, 10.0)
        feed.rate.rest(10.0)
    table.launch(slow, ByteRange(0, 20 * G), 10.0)
    pace = Pace.of(table.feeds.values(), 10.0)
    thief.have = RangeSet([ByteRange(19 * G, 20 * G)])
    assert Laggards(grains, pace, 4.0).steal(thief, 0.0) is None
    thief.have = None
    assert Laggards(grains, pace, 4.0).steal(thief, 0.0) is not None

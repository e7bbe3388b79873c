from __future__ import annotations

from collections import Counter
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from swarm.core.placement import order, weighted_order
from swarm.model.digest import Digest
from swarm.model.peers import PeerID

digests = st.binary(min_size=64, max_size=64).map(Digest)
peers = st.binary(min_size=32, max_size=32).map(PeerID)


@given(digests, st.sets(peers, max_size=20), st.randoms())
def test_the_order_names_every_node_once_and_no_matter_how_they_are_listed(
    digest: Digest, nodes: set[PeerID], random: Random
) -> None:
    shuffled = sorted(nodes)
    random.shuffle(shuffled)
    assert sorted(order(digest, shuffled)) == sorted(nodes)
    assert order(digest, shuffled) == order(digest, nodes)


@given(digests, st.sets(peers, min_size=1, max_size=20), st.data())
def test_who_leaves_or_joins_does_not_reorder_the_others(
    digest: Digest, nodes: set[PeerID], data: st.DataObject
) -> None:
    gone = data.draw(st.sampled_from(sorted(nodes)))
    before = order(digest, nodes)
    assert order(digest, nodes - {gone}) == tuple(node for node in before if node != gone)


@given(digests, st.dictionaries(peers, st.floats(0.1, 10), min_size=1, max_size=20), st.data())
def test_nor_with_weights_and_a_heavier_node_only_moves_up(
    digest: Digest, nodes: dict[PeerID, float], data: st.DataObject
) -> None:
    one = data.draw(st.sampled_from(sorted(nodes)))
    before = weighted_order(digest, nodes)
    assert sorted(before) == sorted(nodes)
    others = tuple(node for node in before if node != one)
    assert weighted_order(digest, {node: nodes[node] for node in others}) == others
    after = weighted_order(digest, {**nodes, one: nodes[one] * 2})
    assert tuple(node for node in after if node != one) == others
    assert after.index(one) <= before.index(one)


@given(digests, st.sets(peers, max_size=20))
def test_equal_weights_change_nothing_and_weight_0_takes_no_part(digest: Digest, nodes: set[PeerID]) -> None:
    assert weighted_order(digest, dict.fromkeys(nodes, 3.0)) == order(digest, nodes)
    assert weighted_order(digest, dict.fromkeys(nodes, 0.0)) == ()


def test_blobs_are_spread_evenly_or_by_weight() -> None:
    random = Random(3)
    nodes = [PeerID(random.randbytes(32)) for _ in range(4)]
    blobs = [Digest(random.randbytes(64)) for _ in range(4000)]
    first = Counter(order(blob, nodes)[0] for blob in blobs)
    assert all(850 < first[node] < 1150 for node in nodes)
    weights = dict(zip(nodes, [1.0, 1.0, 2.0, 4.0], strict=True))
    first = Counter(weighted_order(blob, weights)[0] for blob in blobs)
    assert all(abs(first[node] - 500 * weights[node]) < 150 for node in nodes)


def test_the_order_is_the_same_on_every_node_for_ever() -> None:
    """A changed formula would move every blob of a running swarm."""
    nodes = [PeerID(bytes([n]) * 32) for n in range(6)]
    assert [node.raw[0] for node in order(Digest.of(b"blob"), nodes)] == [3, 1, 5, 0, 2, 4]

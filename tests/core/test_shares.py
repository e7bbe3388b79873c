from __future__ import annotations

from hashlib import sha256

from hypothesis import given
from hypothesis import strategies as st

from swarm.core.shares import Shares
from swarm.model.digest import Digest
from swarm.model.grains import Grains
from swarm.model.peers import PeerID

BLOB = Digest.of(b"x")
PEERS = st.lists(st.integers(0, 10**6), unique=True, min_size=1, max_size=40).map(
    lambda numbers: [PeerID(sha256(b"%d" % number).digest()) for number in numbers]
)


def shares(peers: list[PeerID], among: list[PeerID], grains: int = 500) -> dict[PeerID, int]:
    """Of each of ``peers``, if all of ``among`` pull."""
    return {
        me: Shares(me, BLOB, Grains(grains, 1)).mine(each for each in among if each != me) for me in peers
    }


@given(PEERS, st.integers(1, 500))
def test_each_grain_is_in_exactly_one_share(peers: list[PeerID], grains: int) -> None:
    assert sum(shares(peers, peers, grains).values()) == (1 << grains) - 1
    assert sum(each.bit_count() for each in shares(peers, peers, grains).values()) == grains


@given(PEERS, st.data())
def test_whose_it_is_among_all_its_it_is_among_the_near(peers: list[PeerID], data: st.DataObject) -> None:
    near = data.draw(st.lists(st.sampled_from(peers), unique=True, min_size=1))
    among_all, among_near = shares(near, peers), shares(near, near)
    assert all(among_all[me] & ~among_near[me] == 0 for me in near)


def test_a_share_follows_who_comes_and_goes() -> None:
    me, other, third = (PeerID(sha256(b"%d" % number).digest()) for number in range(3))
    mine = Shares(me, BLOB, Grains(100, 1))
    assert mine.mine([]) == (1 << 100) - 1
    two = mine.mine([other])
    three = mine.mine([third, other])
    assert 0 < two.bit_count() < 100 and three & ~two == 0
    assert mine.mine([other]) == two and mine.mine([]) == (1 << 100) - 1


def test_shares_are_about_equal_on_the_mean_and_differ_from_blob_to_blob() -> None:
    peers = [PeerID(sha256(b"%d" % number).digest()) for number in range(50)]
    all_of = shares(peers, peers, 1000)
    assert max(each.bit_count() for each in all_of.values()) < 1000 / 50 * 8
    other = Shares(peers[0], Digest.of(b"y"), Grains(1000, 1)).mine(peers[1:])
    assert other != all_of[peers[0]]


def test_far_is_who_is_much_farther_than_the_nearest_but_nobody_within_ten_milliseconds() -> None:
    me, a, b, c = (PeerID(sha256(b"%d" % number).digest()) for number in range(4))
    mine = Shares(me, BLOB, Grains(100, 1))
    assert mine.among([a, b], {}).far == frozenset()
    assert mine.among([a, b], {a: 0.0002, b: 0.009}).far == frozenset()
    away = mine.among([a, b], {a: 0.0002, b: 0.02, c: 0.03})
    assert away.far == {b, c}
    assert away.mine == mine.mine([a, b]) and away.ours == mine.mine([a])
    assert mine.among([a, b], {a: 0.02, b: 0.04, c: 0.041}).far == {c}

"""Trust over the real SHA-512: what the model tests take a random function for."""

from __future__ import annotations

from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from swarm.core.trust import Trust
from swarm.hashing.sha512 import load
from swarm.model.digest import Digest
from swarm.model.grains import Grains
from swarm.model.midstates import IV, Midstates
from swarm.model.peers import PeerID

GRAIN = 128
SHA512 = load()
HONEST, LIAR, BYSTANDER = (PeerID(bytes([n]) * 32) for n in range(3))


def cut(blob: bytes, grains: Grains) -> list[bytes]:
    return [blob[grains.start(n) : grains.stop(n)] for n in range(grains.count)]


def list_of(parts: list[bytes], grains: Grains) -> Midstates:
    values = [IV]
    for n, part in enumerate(parts[:-1]):
        values.append(SHA512.end_state(part, grains.start(n), values[-1], False))
    return Midstates(grains, b"".join(values[1:]))


@settings(max_examples=40)
@given(data=st.binary(max_size=1500), seed=st.integers(0, 2**32), lies=st.booleans())
def test_a_blob_in_any_order_against_a_forger_with_a_matching_list(
    data: bytes, seed: int, lies: bool
) -> None:
    if not SHA512.provides_midstates:
        return  # then swarm.core.trust_whole is used
    random = Random(seed)
    grains = Grains(len(data), GRAIN)
    parts = cut(data, grains)
    forged = parts.copy()
    flipped = random.randrange(grains.count)
    forged[flipped] = bytes(byte ^ 1 for byte in parts[flipped])
    trust = Trust(Digest.of(data), grains)

    def receive(grain: int, sender: PeerID, part: bytes) -> None:
        ends: dict[bytes | None, bytes] = {
            start: SHA512.end_state(part, grains.start(grain), start, grain == grains.last)
            for start in trust.starts(grain)
        }
        judgement = trust.judge(grain, (sender,), ends)
        assert not judgement.rehash

    if lies:
        trust.offer(LIAR, list_of(forged, grains))
        trust.offer(BYSTANDER, list_of(parts, grains))
    trust.offer(HONEST, list_of(parts, grains))
    order = list(range(grains.count))
    random.shuffle(order)
    for grain in order:
        if lies and random.random() < 0.5:
            receive(grain, LIAR, forged[grain])
        if not trust.releasable(grain):
            receive(grain, HONEST, parts[grain])
    assert trust.complete and trust.midstates() == list_of(parts, grains)
    assert trust.convicted <= ({LIAR} if lies else set())

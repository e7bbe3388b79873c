"""What is said arrives as it was meant."""

from __future__ import annotations

import attrs
from hypothesis import given
from hypothesis import strategies as st

from swarm.model.digest import Digest
from swarm.model.peers import PeerID
from swarm.peering.credentials import TLSSettings
from swarm.peering.limits import PeerLimits
from swarm.web.limits import WebLimits
from swarm.workers import messages
from swarm.workers.messages import Entry, ErrandSaid, Orders

NAMES = st.sampled_from(["a b.bin", "größe, 100%.mkv", 'a "b".txt', "x"])


@given(st.integers(0, 2**64 - 1), st.binary(max_size=300))
def test_numbered(serial: int, rest: bytes) -> None:
    message = messages.numbered(messages.BACK, serial, rest)
    assert messages.kind(message) == messages.BACK
    assert messages.number(message) == (serial, rest)


@given(st.binary(max_size=300), st.binary(max_size=300))
def test_about(blob: bytes, rest: bytes) -> None:
    message = messages.about(messages.GRANTED, Digest.of(blob), rest)
    assert messages.kind(message) == messages.GRANTED
    assert messages.subject(message) == (Digest.of(blob), rest)


@given(
    st.integers(0, 2**62),
    st.lists(NAMES, max_size=3).map(tuple),
    st.integers(0, 2**63 - 1),
    st.integers(0, 2**63 - 1),
    st.floats(0, 1e10),
    st.floats(0, 1e10),
    st.integers(0, 1 << 60),
)
def test_entry(
    size: int, names: tuple[str, ...], at: int, file_at: int, since: float, until: float, life: int
) -> None:
    entry = Entry(size, names, at, file_at, since, until, life)
    assert messages.decode_entry(messages.encode(entry)) == entry
    info = entry.info(Digest.of(b""))
    assert info.size == size and tuple(name.text for name in info.names) == names


@given(st.none() | st.text(), st.lists(st.text(), max_size=3).map(tuple))
def test_orders(tokens: str | None, mirrors: tuple[str, ...]) -> None:
    limits = attrs.asdict(WebLimits())
    peering, tls = attrs.asdict(PeerLimits()), attrs.asdict(TLSSettings())
    orders = Orders("deny", tokens, mirrors, 5.0, 100, limits, "swarm", peering, tls)
    read = messages.decode_orders(messages.encode(orders))
    assert read == orders and WebLimits(**read.limits) == WebLimits()
    assert PeerLimits(**read.peering) == PeerLimits() and TLSSettings(**read.tls) == TLSSettings()


@given(st.booleans(), st.binary(min_size=32, max_size=32), st.binary(max_size=300))
def test_errands(alone: bool, peer: bytes, head: bytes) -> None:
    said = ErrandSaid(alone, PeerID(peer), head)
    assert ErrandSaid.decode(said.encode()) == said

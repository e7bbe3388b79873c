from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.errors import Malformed
from swarm.model.grains import Grains
from swarm.model.midstates import IV, MAGIC, Midstates, encoded_length

MIB = 1 << 20


def example(size: int) -> Midstates:
    grains = Grains.of(size)
    return Midstates(grains, bytes(n % 251 for n in range(64 * (grains.count - 1))))


sizes = st.integers(0, 20 * MIB)


@given(sizes)
def test_a_list_is_read_back_and_has_the_length_foretold(size: int) -> None:
    midstates = example(size)
    data = midstates.encode()
    assert Midstates.decode(data) == midstates and len(data) == encoded_length(size)


def test_the_format_never_changes() -> None:
    assert example(MIB + 1).encode() == (
        b"SWMS\x01\x00\x00\x00" + struct.pack(">QII", MIB + 1, MIB, 1) + bytes(range(64))
    )


def test_a_list_of_two_is_read_back() -> None:
    midstates = example(3 * MIB)
    assert Midstates.decode(midstates.encode()) == midstates
    assert encoded_length(3 * MIB) == 24 + 2 * 64


@given(sizes)
def test_each_grain_begins_where_the_one_before_ends(size: int) -> None:
    midstates, final = example(size), b"f" * 64
    last = midstates.grains.last
    assert midstates.before(0) == IV and midstates.after(last, final) == final
    for index in range(last):
        assert midstates.after(index, final) == midstates.before(index + 1)
        assert len(midstates.before(index + 1)) == 64


@pytest.mark.parametrize(
    "data",
    [
        b"",
        example(3 * MIB).encode()[:23],
        b"SWMS\x02" + example(0).encode()[5:],
        example(3 * MIB).encode() + b"x",
        example(3 * MIB).encode()[:-1],
        MAGIC + struct.pack(">QII", 3 * MIB, 2 * MIB, 2) + bytes(128),
        MAGIC + struct.pack(">QII", 3 * MIB, MIB, 3) + bytes(192),
        MAGIC + struct.pack(">QII", 2**64 - 1, 16 * MIB, 1) + bytes(64),
    ],
)
def test_anything_else_is_refused(data: bytes) -> None:
    with pytest.raises(Malformed):
        Midstates.decode(data)


@given(st.one_of(st.binary(max_size=200), st.binary(max_size=100).map(lambda tail: MAGIC + tail)))
def test_any_bytes_are_a_list_or_malformed(data: bytes) -> None:
    try:
        midstates = Midstates.decode(data)
    except Malformed:
        return
    assert midstates.encode() == data

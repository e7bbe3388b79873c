"""Fields that only nodes exchange: what is spelled is read back, and nothing else is believed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.errors import Malformed
from swarm.model.filenames import Filename
from swarm.model.ranges import ByteRange, RangeSet, parse_have
from swarm.peering.wire import (
    encode_have,
    encode_names,
    parse_document,
    parse_generation,
    parse_names,
)


@st.composite
def filenames(draw: st.DrawFn) -> Filename:
    text = draw(st.text(min_size=1, max_size=80))
    try:
        return Filename.parse(text)
    except Malformed:
        return Filename.parse("x" + "".join(c for c in text if c.isalnum())[:60])


@given(st.lists(filenames(), max_size=8))
def test_names_travel(names: list[Filename]) -> None:
    value = encode_names(names)
    assert value.isascii() and value.isprintable()
    told = parse_names(value)
    assert told == tuple(names)[len(names) - len(told) :]
    if sum(len(name.text.encode()) for name in names) < 1500:
        assert told == tuple(names)


def test_of_too_many_names_the_newest_travel() -> None:
    names = [Filename.parse(f"{n:04}" + "ä" * 100) for n in range(40)]
    value = encode_names(names)
    told = parse_names(value)
    assert len(value) <= 6 << 10
    assert told and told == tuple(names[-len(told) :])
    assert len(parse_names(encode_names([Filename.parse(str(n)) for n in range(100)]))) == 32


@pytest.mark.parametrize("value", ["a,,b", "a%2Fb", "..", "%00", "%ff", "a," * 33 + "a"])
def test_names_no_file_may_have(value: str) -> None:
    with pytest.raises(Malformed):
        parse_names(value)


@given(st.text(max_size=200))
def test_noise_is_names_or_malformed(value: str) -> None:
    try:
        names = parse_names(value)
    except Malformed:
        return
    assert all(Filename.parse(name.text) == name for name in names)


@given(st.lists(st.tuples(st.integers(0, 10**12), st.integers(1, 10**6)), max_size=900))
def test_have_is_never_more_than_there_is_and_fits(runs: list[tuple[int, int]]) -> None:
    have = RangeSet(ByteRange(start, start + length) for start, length in runs)
    value = encode_have(have)
    assert len(value) <= 6 << 10
    told = parse_have(value, 10**13)
    assert all(have.covers(run.start, run.stop) for run in told)
    if len(list(have)) < 200:
        assert told == have
    elif told != have:
        shortest = min(len(run) for run in told)
        assert sum(len(run) > shortest for run in have) <= len(list(told))


def test_generations() -> None:
    assert parse_generation(None) == 0
    assert parse_generation("17") == 17
    for bad in ("", "-1", "1.0", "١", "1" * 19):
        with pytest.raises(Malformed):
            parse_generation(bad)


@pytest.mark.parametrize("data", [b"", b"[]", b"1", b"{", b"\xff", b"[" * 100_000, b'{"a":NaN'])
def test_what_is_no_document(data: bytes) -> None:
    with pytest.raises(Malformed):
        parse_document(data)

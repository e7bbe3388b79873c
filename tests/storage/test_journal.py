"""A journal never says what was not written into it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.errors import Malformed
from swarm.model.digest import Digest
from swarm.model.grains import Grains
from swarm.storage.journal import HEADER_LENGTH, RECORD_LENGTH, SALT_LENGTH, Header, Mark

states = st.binary(min_size=64, max_size=64).filter(any)
marks = st.builds(Mark, st.none() | states, states)
headers = st.builds(
    Header,
    st.builds(Digest, st.binary(min_size=64, max_size=64)),
    st.builds(Grains.of, st.integers(0, 2**63 - 1)),
    st.binary(min_size=SALT_LENGTH, max_size=SALT_LENGTH),
)
records = st.lists(st.tuples(st.integers(0, 5), st.none() | marks), max_size=8)


def written(header: Header, entries: list[tuple[int, Mark | None]]) -> bytes:
    return b"".join(header.record(number, index, mark) for number, (index, mark) in enumerate(entries))


def in_force(entries: list[tuple[int, Mark | None]]) -> dict[int, Mark]:
    last = dict(entries)
    return {index: mark for index, mark in last.items() if mark is not None}


@given(headers)
def test_a_header_reads_back(header: Header) -> None:
    data = header.encode()
    assert len(data) == HEADER_LENGTH
    assert Header.decode(data) == header
    assert Header.decode(data + b"records") == header


@given(headers, st.data())
def test_a_torn_or_damaged_header_is_refused(header: Header, data: st.DataObject) -> None:
    good = header.encode()
    with pytest.raises(Malformed):
        Header.decode(good[: data.draw(st.integers(0, HEADER_LENGTH - 1))])
    at, flip = data.draw(st.integers(0, HEADER_LENGTH - 1)), data.draw(st.integers(1, 255))
    with pytest.raises(Malformed):
        Header.decode(good[:at] + bytes([good[at] ^ flip]) + good[at + 1 :])


@given(st.binary(max_size=2 * HEADER_LENGTH))
def test_no_other_bytes_are_a_header(data: bytes) -> None:
    with pytest.raises(Malformed):
        Header.decode(data)


def test_another_version_or_another_cut_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    digest = Digest.of(b"")
    with pytest.raises(Malformed, match="grain"):
        Header.decode(Header(digest, Grains(10, 2048), bytes(16)).encode())
    monkeypatch.setattr("swarm.storage.journal.MAGIC", b"SWPJ\x02\0\0\0")
    newer = Header(digest, Grains.of(10), bytes(16)).encode()
    monkeypatch.undo()
    with pytest.raises(Malformed, match="version"):
        Header.decode(newer)


@given(headers, records)
def test_records_read_back_and_later_ones_win(header: Header, entries: list[tuple[int, Mark | None]]) -> None:
    replay = header.replay(written(header, entries))
    assert replay.marks == in_force(entries)
    assert replay.records == len(entries)


@given(headers, records, st.data())
def test_a_torn_tail_keeps_what_was_whole(
    header: Header, entries: list[tuple[int, Mark | None]], data: st.DataObject
) -> None:
    good = written(header, entries)
    cut = data.draw(st.integers(0, len(good)))
    garbage = data.draw(st.binary(max_size=300))
    replay = header.replay(good[:cut] + garbage)
    whole = cut // RECORD_LENGTH
    if replay.records > whole:  # the garbage began with the very bytes that were cut off
        assert (good[:cut] + garbage).startswith(good[: replay.records * RECORD_LENGTH])
        whole = replay.records
    assert (replay.marks, replay.records) == (in_force(entries[:whole]), whole)


@given(headers, records.filter(bool), st.data())
def test_a_flipped_byte_ends_the_replay_before_its_record(
    header: Header, entries: list[tuple[int, Mark | None]], data: st.DataObject
) -> None:
    good = bytearray(written(header, entries))
    at = data.draw(st.integers(0, len(good) - 1))
    good[at] ^= data.draw(st.integers(1, 255))
    whole = at // RECORD_LENGTH
    replay = header.replay(bytes(good))
    assert (replay.marks, replay.records) == (in_force(entries[:whole]), whole)


@given(headers, headers, records.filter(bool))
def test_records_of_another_journal_or_place_are_none(
    header: Header, other: Header, entries: list[tuple[int, Mark | None]]
) -> None:
    good = written(header, entries)
    if other.salt != header.salt:
        assert other.replay(good).records == 0
    assert header.replay(good[RECORD_LENGTH:]).records == 0

"""Any file is read; what was written is read back; nothing grows without bound."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from swarm.errors import Malformed
from swarm.model.filenames import Filename
from swarm.storage import names


def _name(text: str) -> Filename | None:
    try:
        return Filename.parse(text)
    except Malformed:
        return None


filenames = st.text(min_size=1, max_size=60).map(_name).filter(lambda name: name is not None)
lists = st.lists(filenames, max_size=150)


@given(lists)
def test_what_was_written_is_read_back(some: list[Filename]) -> None:
    merged = names.merge((), some)
    assert names.decode(names.encode(merged)) == merged


@given(st.binary(max_size=2000))
def test_any_bytes_are_read(data: bytes) -> None:
    found = names.decode(data)
    assert len(set(found)) == len(found) <= names.MOST


@given(lists, st.integers(min_value=0))
def test_a_torn_tail_costs_only_what_was_torn(some: list[Filename], cut: int) -> None:
    merged = names.merge((), some)
    data = names.encode(merged)
    found = names.decode(data[: cut % (len(data) + 1)])
    assert found == merged[: len(found)]


@given(lists, lists)
def test_each_name_is_once_where_it_came_last(old: list[Filename], new: list[Filename]) -> None:
    merged = names.merge(old, new)
    assert len(set(merged)) == len(merged) <= names.MOST
    assert not new or merged[-1] == new[-1]
    assert set(merged) <= set(old) | set(new)


def test_a_full_list_fits_what_is_read() -> None:
    assert names.MOST * 256 <= names.LIMIT

"""Ranges against a reference that counts bytes one by one, and the preconditions of RFC 9110."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from swarm.model.ranges import ByteRange
from swarm.web.ranges import MAX_RANGES, Conditions, Selection, begins_at, parse_range, select

ETAG = '"abc"'

specs = st.one_of(
    st.tuples(st.integers(0, 30), st.integers(0, 30)).map(lambda t: f"{t[0]}-{t[1]}"),
    st.integers(0, 30).map(lambda n: f"{n}-"),
    st.integers(0, 30).map(lambda n: f"-{n}"),
    st.sampled_from(["", " ", "-", "a-b", "1-2-3", "0x1-2", "+1-2", "1_0-20", "٣-٤", "0-" + "9" * 40]),
)
values = st.lists(specs, max_size=20).map(lambda each: "bytes=" + ",".join(each))


def reference(value: str, size: int) -> list[list[int]] | None:
    """RFC 9110 section 14.1.2 read literally; positions of the bytes of each range."""
    asked, ranges = 0, []
    for spec in value.removeprefix("bytes=").split(","):
        spec = spec.strip()
        if not spec:
            continue
        asked += 1
        first, dash, last = spec.partition("-")
        for number in (first, last):
            if number and not (number.isascii() and number.isdigit()):
                return None
        if not dash or not (first or last):
            return None
        if not first:
            found = list(range(size))[-int(last) :] if int(last) else []
            if not size and int(last):
                return None
        else:
            if last and int(last) < int(first):
                return None
            end = min(int(last), size - 1) if last else size - 1
            found = list(range(int(first), end + 1))
        if found:
            ranges.append(found)
    if asked == 0 or asked > MAX_RANGES or sum(map(len, ranges)) > size:
        return None
    return ranges


@given(values, st.integers(0, 40))
@example("bytes=0-0,-1", 0)
@example("bytes=-0", 5)
@example("bytes=5-", 5)
def test_ranges_agree_with_the_reference(value: str, size: int) -> None:
    parsed = parse_range(value, size)
    expected = reference(value, size)
    found = None if parsed is None else [list(range(each.start, each.stop)) for each in parsed]
    assert found == expected


@given(st.text(max_size=40), st.integers(0, 40))
def test_any_text_is_read_or_ignored(value: str, size: int) -> None:
    ranges = parse_range(value, size)
    assert ranges is None or (len(ranges) <= MAX_RANGES and sum(map(len, ranges)) <= size)


@pytest.mark.parametrize("count", [1, 2, 16, 17, 100, 1000, 5400, 8000])
def test_no_header_amplifies(count: int) -> None:
    """static.File made 5.4 GB of 16 kB (RELIABILITY 0.3)."""
    value = "bytes=" + ",".join(["0-"] * count)
    chosen = select("GET", Conditions(range=value), ETAG, 1_000_000)
    assert chosen.total <= 1_000_000


@pytest.mark.parametrize("unit", ["items=0-1", "bytes 0-1", "bytes", "=0-1", ""])
def test_another_unit_is_ignored(unit: str) -> None:
    assert parse_range(unit, 10) is None


WHOLE = Selection(200, (ByteRange(0, 10),))
PART = Selection(206, (ByteRange(0, 2),))


@pytest.mark.parametrize(
    "conditions, expected",
    [
        (Conditions(), WHOLE),
        (Conditions(range="bytes=0-1"), PART),
        (Conditions(range="Bytes=0-1"), PART),
        (Conditions(range="bytes=20-"), Selection(416)),
        (Conditions(range="bytes=-0"), Selection(416)),
        (Conditions(range="bytes=0-1", if_range=ETAG), PART),
        (Conditions(range="bytes=0-1", if_range='"other"'), WHOLE),
        (Conditions(range="bytes=0-1", if_range='W/"abc"'), WHOLE),
        (Conditions(range="bytes=0-1", if_range="Sat, 29 Oct 1994 19:43:31 GMT"), WHOLE),
        (Conditions(range="bytes=20-", if_range='"other"'), WHOLE),
        (Conditions(if_none_match=ETAG), Selection(304)),
        (Conditions(if_none_match='W/"abc"'), Selection(304)),
        (Conditions(if_none_match='"x" , W/"y","abc"'), Selection(304)),
        (Conditions(if_none_match="*"), Selection(304)),
        (Conditions(if_none_match='"x"'), WHOLE),
        (Conditions(if_none_match="abc"), WHOLE),
        (Conditions(if_match=ETAG), WHOLE),
        (Conditions(if_match="*"), WHOLE),
        (Conditions(if_match='"x"'), Selection(412)),
        (Conditions(if_match='W/"abc"'), Selection(412)),
        (Conditions(if_match='"x,y", "abc"'), WHOLE),
        (Conditions(if_match='"x"', if_none_match=ETAG), Selection(412)),
        (Conditions(if_match=ETAG, if_none_match=ETAG, range="bytes=0-1"), Selection(304)),
    ],
)
def test_conditions_choose(conditions: Conditions, expected: Selection) -> None:
    assert select("GET", conditions, ETAG, 10) == expected


def test_head_ignores_range_but_not_validators() -> None:
    assert select("HEAD", Conditions(range="bytes=0-1"), ETAG, 10) == WHOLE
    assert select("HEAD", Conditions(range="bytes=20-"), ETAG, 10) == WHOLE
    assert select("HEAD", Conditions(if_none_match=ETAG), ETAG, 10) == Selection(304)


def test_an_empty_blob_is_an_empty_200() -> None:
    assert select("GET", Conditions(), ETAG, 0) == Selection(200)
    assert select("GET", Conditions(range="bytes=-5"), ETAG, 0) == Selection(200)
    assert select("GET", Conditions(range="bytes=0-"), ETAG, 0) == Selection(416)


@given(st.text(max_size=60))
def test_any_text_in_a_validator_is_harmless(text: str) -> None:
    select("GET", Conditions(if_match=text, if_none_match=text, if_range=text), ETAG, 10)


@given(values, st.integers(0, 40))
def test_where_reading_begins_is_guessed_without_the_size(value: str, size: int) -> None:
    """A guess: wrong for what is refused or ignored later, right for what can be satisfied at once."""
    ranges, guess = parse_range(value, size), begins_at(value)
    first = value.removeprefix("bytes=").split(",")[0]
    if ranges and parse_range(f"bytes={first}", size):
        assert ranges[0].start == (guess if guess >= 0 else max(0, size + guess))


@pytest.mark.parametrize("value", [None, "", "bytes", "bytes=", "bytes=x", "rows=5-", "bytes=-", "bytes=,5-"])
def test_what_is_not_understood_begins_at_the_start(value: str | None) -> None:
    assert begins_at(value) == 0

from __future__ import annotations

import re
import unicodedata
from urllib.parse import quote, unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.errors import Malformed
from swarm.model.filenames import RESERVED, Filename


@pytest.mark.parametrize(
    "text",
    ["", ".", "..", "a/b", "/", "a\x00", "a\n", "a\x7f", "a\x85", "a\u2028", "a\u2029", "\ud800", "ä" * 128],
)
def test_unsafe_names_are_refused(text: str) -> None:
    with pytest.raises(Malformed):
        Filename.parse(text)


@pytest.mark.parametrize(
    "text", ["a", "...", ".hidden", "a b", "Ünï.txt", "a\\b", "x" * 255, "ä" * 127, "-rf"]
)
def test_ordinary_and_odd_names_are_kept_as_given(text: str) -> None:
    assert Filename.parse(text).text == text


def test_names_are_normalized_to_nfc() -> None:
    assert Filename.parse("e\u0301").text == "\xe9"


@given(st.text(max_size=300))
def test_any_text_is_refused_or_safe(text: str) -> None:
    try:
        name = Filename.parse(text).text
    except Malformed:
        return
    assert name == unicodedata.normalize("NFC", text)
    assert 0 < len(name.encode()) <= 255 and "/" not in name and "\x00" not in name
    assert Filename.parse(name).text == name
    assert Filename.from_path(b"/put/" + quote(name, safe="").encode()).text == name


@given(st.binary(max_size=100))
def test_any_path_is_refused_or_safe(path: bytes) -> None:
    try:
        name = Filename.from_path(path)
    except Malformed:
        return
    assert Filename.parse(name.text) == name


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (b"/a/b.txt", "b.txt"),
        (b"b", "b"),
        (b"/%41", "A"),
        (b"/%2541", "%41"),
        (b"/a+b", "a+b"),
        (b"/%20", " "),
    ],
)
def test_the_last_segment_is_decoded_once(path: bytes, expected: str) -> None:
    assert Filename.from_path(path).text == expected


@pytest.mark.parametrize(
    "path", [b"", b"/", b"/a/", b"/%2e%2e", b"/%2F", b"/a%2Fb", b"/%00", b"/%ff", b"/%c3"]
)
def test_encoding_hides_nothing(path: bytes) -> None:
    with pytest.raises(Malformed):
        Filename.from_path(path)


def test_our_own_routes_are_reserved() -> None:
    assert all(Filename(name).reserved for name in RESERVED)
    assert not Filename("Health").reserved and not Filename("find.txt").reserved


def test_content_disposition_says_what_ascii_can_and_the_rest_as_rfc_8187_has_it() -> None:
    assert Filename("a b.txt").content_disposition == 'attachment; filename="a b.txt"'
    assert (
        Filename('ä"%.txt').content_disposition
        == "attachment; filename=\"___.txt\"; filename*=UTF-8''%C3%A4%22%25.txt"
    )


@given(st.text(max_size=60))
def test_a_content_disposition_is_one_safe_ascii_line_that_gives_the_name_back(text: str) -> None:
    try:
        name = Filename.parse(text)
    except Malformed:
        return
    match = re.fullmatch(
        r"attachment; filename=\"([ !#-$&-\[\]-~]*)\"(?:; filename\*=UTF-8''([A-Za-z0-9._~%-]*))?",
        name.content_disposition,
    )
    assert match is not None
    assert (match[1] if match[2] is None else unquote(match[2])) == name.text

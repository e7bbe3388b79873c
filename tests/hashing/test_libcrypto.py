"""Only a libcrypto that proves itself is used."""

from __future__ import annotations

import ctypes

import pytest

from swarm.hashing import PlainSha512, libcrypto, load
from swarm.hashing.libcrypto import find, self_test


def test_this_python_has_a_usable_libcrypto() -> None:
    library = find()
    assert library is not None
    assert self_test(library)


def test_a_place_that_is_no_libcrypto_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    good = find()
    assert good is not None
    places = ["/nonexistent.so", ctypes.util.find_library("c"), good.source]
    monkeypatch.setattr(libcrypto, "_places", lambda: iter(places))
    found = find()
    assert found is not None
    assert found.source == good.source


@pytest.mark.parametrize("broken", ["update", "final"])
def test_a_library_that_computes_something_else_fails_the_self_test(broken: str) -> None:
    library = find()
    assert library is not None
    setattr(library, broken, lambda *arguments: 1)
    assert not self_test(library)


def test_a_library_that_ignores_the_chaining_value_fails_the_self_test(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    library = find()
    assert library is not None
    monkeypatch.setattr(libcrypto.Computation, "resume", lambda self, start, offset: None)
    assert not self_test(library)


def test_without_any_libcrypto_hashlib_takes_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libcrypto, "_places", lambda: iter(()))
    sha512 = load()
    assert isinstance(sha512, PlainSha512)
    assert not sha512.provides_midstates
    assert "without midstates" in sha512.description


def test_a_python_without_hashlib_extension_asks_the_program(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libcrypto.importlib.util, "find_spec", lambda name: None)
    assert next(libcrypto._places()) is None


def test_the_libcrypto_of_this_python_comes_first_and_well_known_names_last() -> None:
    first, *others = libcrypto._places()
    assert first is not None
    assert "_hashlib" in first
    assert "libcrypto.so.3" in others


def test_nothing_is_used_that_fails_the_self_test(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libcrypto, "self_test", lambda library: False)
    assert find() is None

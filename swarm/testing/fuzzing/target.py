"""What there is to say of a parser: what it promises, how to look whether it does, and where to begin."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TypeVar

from attrs import field, frozen

from swarm.errors import Malformed

_T = TypeVar("_T")


@frozen
class Target:
    """
    A parser, or a few of one family.

    :ivar promise: for people.
    :ivar check: takes any bytes; raises, whatever it may be, when the promise is broken.
    :ivar seeds: bytes to begin from, each for a path that chance would not find.
    :ivar longest: bytes it is given at most.
    """

    name: str
    promise: str
    check: Callable[[bytes], None]
    seeds: Collection[bytes] = field(repr=False)
    longest: int = 4096


def text_of(data: bytes) -> str:
    """Any text there is, lone surrogates included; UTF-8 stays what it is."""
    try:
        return data.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return data.decode("utf-8", "surrogateescape")


def field_of(data: bytes) -> str:
    """The value of a header field, as a server sees it."""
    return data.decode("latin-1")


def or_malformed(parse: Callable[[], _T]) -> _T | None:
    """What is read, or None where it was refused as it should be."""
    try:
        return parse()
    except Malformed:
        return None

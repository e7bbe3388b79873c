"""What part of a representation is sent: RFC 9110 sections 13 and 14 as one pure decision.

Never more bytes than there are: at most sixteen ranges whose sum is at most the size, else the
whole (one 16 kB header once asked for 5.4 GB of a 1 MB file).
"""

from __future__ import annotations

import re

from attrs import frozen

from swarm.model.ranges import ByteRange

MAX_RANGES = 16
_FAR = 2**63
_SPEC = re.compile(r"(\d*)-(\d*)", re.ASCII)
_TAG = re.compile(r'\s*(W/)?("[\x21\x23-\x7e\x80-\xff]*")\s*(?:,|$)')


@frozen
class Conditions:
    """The request fields that choose; None where absent. Repeated fields are joined with commas."""

    range: str | None = None
    if_range: str | None = None
    if_match: str | None = None
    if_none_match: str | None = None


@frozen
class Selection:
    """
    A status and the bytes that go with it.

    :ivar parts: 200: nothing or the one whole range; 206: one or more; else none.
    """

    status: int
    parts: tuple[ByteRange, ...] = ()

    @property
    def total(self) -> int:
        """Bytes of the representation that are sent."""
        return sum(map(len, self.parts))


def select(method: str, conditions: Conditions, etag: str, size: int) -> Selection:
    """
    Decide what a GET or HEAD of a representation answers.

    :param etag: strong, with its quotes.
    :return: 200, 206, 304, 412 or 416. HEAD ignores Range (RFC 9110 section 14.2).
    """
    if conditions.if_match is not None and not _names(conditions.if_match, etag, weakly=False):
        return Selection(412)
    if conditions.if_none_match is not None and _names(conditions.if_none_match, etag, weakly=True):
        return Selection(304)
    whole = Selection(200, (ByteRange(0, size),) if size else ())
    if method != "GET" or conditions.range is None:
        return whole
    if conditions.if_range is not None and conditions.if_range.strip() != etag:
        return whole
    ranges = parse_range(conditions.range, size)
    if ranges is None:
        return whole
    return Selection(206, ranges) if ranges else Selection(416)


def parse_range(value: str, size: int) -> tuple[ByteRange, ...] | None:
    """
    Read a ``Range`` field.

    :return: what can be satisfied, in the order asked for; empty if nothing can; None if the
        field is to be ignored: another unit, bad syntax, too many ranges, or more bytes than there are.
    """
    unit, equals, specs = value.partition("=")
    if not equals or unit.strip().lower() != "bytes":
        return None
    ranges: list[ByteRange] = []
    asked = 0
    for spec in specs.split(","):
        spec = spec.strip(" \t")
        if not spec:
            continue
        match = _SPEC.fullmatch(spec)
        if match is None or spec == "-":
            return None
        asked += 1
        if asked > MAX_RANGES:
            return None
        if not match[1]:
            length = min(_number(match[2]), size)
            if length:
                ranges.append(ByteRange(size - length, size))
            elif _number(match[2]):
                return None  # a suffix of an empty representation is all of it
            continue
        first, last = _number(match[1]), _number(match[2]) if match[2] else _FAR
        if first > last:
            return None
        if first < size:
            ranges.append(ByteRange(first, min(last + 1, size)))
    if not asked or sum(map(len, ranges)) > size:
        return None
    return tuple(ranges)


def begins_at(value: str | None) -> int:
    """
    Guess from a ``Range`` field where reading will begin, before the size is known.

    :return: from the end, if negative; 0 for whatever is not understood.
    """
    unit, _, specs = (value or "").partition("=")
    match = _SPEC.match(specs) if unit.strip().lower() == "bytes" else None
    if match is None:
        return 0
    return _number(match[1]) if match[1] else -_number(match[2] or "0")


def _number(digits: str) -> int:
    return int(digits) if len(digits) < 20 else _FAR


def _names(field: str, etag: str, *, weakly: bool) -> bool:
    """Is ``etag`` among those of the field? ``*`` names whatever exists."""
    if field.strip() == "*":
        return True
    at = 0
    while match := _TAG.match(field, at):
        if match[2] == etag and (weakly or not match[1]):
            return True
        at = match.end()
        if at == len(field):
            break
    return False

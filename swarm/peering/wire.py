"""Header fields and documents that only nodes exchange: spelled and read in one place.

``Swarm-Cluster``     the sender's cluster; a node answers 421 to another's
``Swarm-Generation``  which life of an id a copy or a tombstone belongs to (see ``ITombstones``)
``Swarm-Given``       which bytes of a blob others were given by who has all of it: they can be had from them
``Swarm-Have``        which bytes a partial holder can serve now
``Swarm-Names``       what the blob is called, oldest first: percent-encoded UTF-8, comma separated
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any
from urllib.parse import quote, unquote_to_bytes

from swarm.errors import Malformed
from swarm.model.filenames import Filename
from swarm.model.ranges import RangeSet

CLUSTER = "Swarm-Cluster"
GENERATION = "Swarm-Generation"
GIVEN = "Swarm-Given"
GIVEN_HEEDED = "?1"  # with a GET: whoever asks can choose something else, and come again
HAVE = "Swarm-Have"
NAMES = "Swarm-Names"

_FIELD_LIMIT = 6 << 10  # two of them fit into the 16 KiB that any head may have
_MOST_NAMES = 32
_GENERATION = re.compile(r"\d{1,18}", re.ASCII)


def encode_names(names: Iterable[Filename]) -> str:
    """The value of ``Swarm-Names``: the newest that fit, oldest of these first."""
    kept: list[str] = []
    room = _FIELD_LIMIT
    for name in list(names)[: -_MOST_NAMES - 1 : -1]:
        spelled = quote(name.text, safe="")
        room -= len(spelled) + 1
        if room < 0:
            break
        kept.append(spelled)
    return ",".join(reversed(kept))


def parse_names(value: str) -> tuple[Filename, ...]:
    """
    Read ``Swarm-Names``.

    :raises Malformed: a name no file may have, or too many of them.
    """
    parts = [part.strip() for part in value.split(",")] if value.strip() else []
    if len(parts) > _MOST_NAMES:
        raise Malformed(f"more than {_MOST_NAMES} names")
    try:
        return tuple(Filename.parse(unquote_to_bytes(part).decode("utf-8")) for part in parts)
    except UnicodeDecodeError as e:
        raise Malformed("a file name is UTF-8") from e


def encode_have(have: RangeSet) -> str:
    """The value of ``Swarm-Have``; of too many runs the longest are told."""
    value = have.have_header()
    if len(value) <= _FIELD_LIMIT:
        return value
    told = RangeSet()
    room = _FIELD_LIMIT
    for run in sorted(have, key=len, reverse=True):
        room -= len(f"{run.start}-{run.stop - 1},")
        if room < 0:
            break
        told.add(run.start, run.stop)
    return told.have_header()


def parse_generation(value: str | None) -> int:
    """
    Read ``Swarm-Generation``; absent is 0.

    :raises Malformed: not a plain number.
    """
    if value is None:
        return 0
    if not _GENERATION.fullmatch(value):
        raise Malformed(f"{GENERATION} is a number")
    return int(value)


def parse_document(data: bytes) -> dict[str, Any]:
    """
    Read a JSON object that came over the wire.

    :raises Malformed: anything else, however deeply nested.
    """
    try:
        document = json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as e:
        raise Malformed("not JSON") from e
    if not isinstance(document, dict):
        raise Malformed("not a JSON object")
    return document

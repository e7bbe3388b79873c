"""What a node tells of a blob that it is still pulling: with every answer, and spelled once for each change.

A pull changes with each grain, and may be asked by many between two of them.
"""

from __future__ import annotations

from attrs import frozen

from swarm.model.digest import Digest
from swarm.model.ranges import RangeSet
from swarm.peering.wire import encode_have

_REMEMBERED = 64


@frozen
class Part:
    """What there is of a blob; ``field`` is the value of ``Swarm-Have``."""

    have: RangeSet
    field: str


class Telling:
    """I remember how I spelled it last."""

    def __init__(self) -> None:
        self._parts: dict[Digest, Part] = {}

    def part(self, digest: Digest, have: RangeSet) -> Part:
        """:param have: the same object as long as it has not changed."""
        part = self._parts.pop(digest, None)
        if part is None or part.have is not have:
            part = Part(have, encode_have(have))
        self._parts[digest] = part
        while len(self._parts) > _REMEMBERED:
            del self._parts[next(iter(self._parts))]
        return part

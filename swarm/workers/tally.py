"""What all workers counted, in memory they share with the node.

A page of 64-bit counts for each worker, in a file that is nowhere (``memfd_create``). A worker adds in
place and tells nobody; the node reads when it is scraped. A killed worker's counts are there still, and
its successor goes on adding to them, so no sum ever falls.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator

METHODS = ("GET", "HEAD", "none")
_CODES = 600
_FIRST = {method: at * _CODES for at, method in enumerate(METHODS)}
_COUNTS = len(METHODS) * _CODES
_BYTES = 2 * _COUNTS * 8


class Tally:
    """One worker's page. Either process may have it open; only the worker adds."""

    def __init__(self, descriptor: int) -> None:
        # Never unmapped: it lives as long as the process.
        counts = memoryview(mmap.mmap(descriptor, _BYTES)).cast("Q")
        self._responses, self._sent = counts[:_COUNTS], counts[_COUNTS:]
        self._told: dict[int, tuple[int, int]] = {}

    @staticmethod
    def create() -> int:
        """A new page, all zero; its descriptor, to be closed by the caller."""
        descriptor = os.memfd_create("swarm-tally")
        os.ftruncate(descriptor, _BYTES)
        return descriptor

    def add(self, method: str, code: int, sent: int) -> None:
        """
        A response was written.

        :param method: one of :data:`METHODS`; ``none`` for what was no request.
        :param sent: bytes of its body.
        """
        at = _FIRST[method] + code
        self._responses[at] += 1
        self._sent[at] += sent

    def news(self) -> Iterator[tuple[str, int, int, int]]:
        """Method, status, responses and bytes of their bodies, since this was last asked."""
        for at, count in enumerate(self._responses.tolist()):
            if not count:
                continue
            before = self._told.get(at, (0, 0))
            now = self._told[at] = count, self._sent[at]
            if now != before:
                yield METHODS[at // _CODES], at % _CODES, now[0] - before[0], now[1] - before[1]

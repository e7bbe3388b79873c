"""What all workers counted, in memory they share with the node.

A page of 64-bit counts for each process, in a file that is nowhere (``memfd_create``). A process adds in
its own page and tells nobody; the node reads when it is scraped. A killed worker's counts are there still,
and its successor goes on adding to them, so no sum ever falls. What holds for the node as a whole, such
as ``peering.uploads``, every process finds out by looking at all pages.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator

from swarm.peering.reads import Uploads
from swarm.workers.messages import DOORS

METHODS = ("GET", "HEAD", "none")
_CODES = 600
_FIRST = {method: at * _CODES for at, method in enumerate(METHODS)}
_COUNTS = len(METHODS) * _CODES
_UPLOADS, _REFUSALS = 0, 1
_SHEETS = {door: 2 + at * 2 * _COUNTS for at, door in enumerate(DOORS)}
_PAGE = 2 + len(DOORS) * 2 * _COUNTS


class Sheet:
    """What one process answered at one door."""

    def __init__(self, counts: memoryview) -> None:
        self._responses, self._sent = counts[:_COUNTS], counts[_COUNTS:]
        self._told: dict[int, tuple[int, int]] = {}

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


class Tally:
    """
    One process's page. The node may have it open too; only the process adds.

    :param slot: whose; 0 is the node itself.
    """

    def __init__(self, descriptor: int, slot: int) -> None:
        # Never unmapped: it lives as long as the process.
        whole = memoryview(mmap.mmap(descriptor, 0)).cast("Q")
        self._page = whole[slot * _PAGE : (slot + 1) * _PAGE]
        self.sheets = {door: Sheet(self._page[at : at + 2 * _COUNTS]) for door, at in _SHEETS.items()}
        self.uploads: Uploads = _SharedUploads(self._page, whole)

    @staticmethod
    def create(slots: int) -> int:
        """New pages, all zero; their descriptor, to be closed by the caller."""
        descriptor = os.memfd_create("swarm-tally")
        os.ftruncate(descriptor, slots * _PAGE * 8)
        return descriptor

    @property
    def refusals(self) -> int:
        """Connections that TLS ended."""
        refusals: int = self._page[_REFUSALS]
        return refusals

    def refused(self) -> None:
        """TLS ended one."""
        self._page[_REFUSALS] += 1

    def died(self) -> None:
        """The process is no more: nothing of it is under way."""
        self._page[_UPLOADS] = 0


class _SharedUploads(Uploads):
    """Counted where all processes look."""

    def __init__(self, page: memoryview, whole: memoryview) -> None:
        self._page = page
        self._whole = whole

    @property
    def count(self) -> int:
        """In this process."""
        count: int = self._page[_UPLOADS]
        return count

    @count.setter
    def count(self, value: int) -> None:
        self._page[_UPLOADS] = value

    @property
    def everywhere(self) -> int:
        """In all processes of this node."""
        return sum(self._whole[at + _UPLOADS] for at in range(0, len(self._whole), _PAGE))

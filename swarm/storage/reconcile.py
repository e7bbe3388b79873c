"""After an unclean stop: make the catalog say what the disk says, a page at a time.

Runs in the background of a serving node. Finds blobs without rows (recorded as never proven, so that
they are proven before they are served) and rows without blobs. Every start finishes the swarm-wide
deletions that were recorded and not carried out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from attrs import define
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from swarm.errors import LocalError
from swarm.model.digest import Digest
from swarm.storage.catalog import Catalog
from swarm.storage.disk import Disk
from swarm.storage.layout import DATA, Layout, digest_of_name, is_fan_out
from swarm.storage.publish import Publisher
from swarm.storage.volume import Volume
from swarm.storage.work import Work

#: Ids a thread looks at before it lets others have their turn.
_PAGE = 2000

#: An mtime no file has: the row never matches, so the blob is proven before it is served.
_NEVER = -1


@define(eq=False)
class Reconciliation:
    """The background task; its owner stops it."""

    _layout: Layout
    _disk: Disk
    _volume: Volume
    _catalog: Catalog
    _publisher: Publisher
    _work: Work
    _running: Deferred[None] | None = None
    log = Logger()

    def start(self) -> None:
        """Begin, unless it is under way."""
        if self._running is None:
            running = Deferred.fromCoroutine(self._run())
            if not running.called:
                self._running = running
            running.addBoth(self._ended)

    async def stop(self) -> None:
        """Cancel it. What it had a thread do goes on to its end."""
        if self._running is not None:
            self._running.cancel()

    def _ended(self, result: Failure | None) -> None:
        self._running = None
        if isinstance(result, Failure) and not result.check(CancelledError):
            self.log.failure("comparing the disk with the catalog", result)

    async def _run(self) -> None:
        doubts = self._catalog.doubts
        try:
            for digest in await self._work.in_thread(self._catalog.outlived):
                await self._work.exclusively(digest, self._settle, digest)
            first = 0 if self._catalog.incomplete else 256
            while first < 256:
                first, differences = await self._work.in_thread(self._page, first)
                for digest in differences:
                    await self._work.exclusively(digest, self._settle, digest)
        except LocalError as e:
            self.log.error("the disk could not be compared with the catalog: {error}", error=e)
        else:
            self._catalog.settle(doubts)
            self.log.info("the catalog agrees with the disk: {blobs} blobs", blobs=self._catalog.totals.blobs)

    def _page(self, first: int) -> tuple[int, Sequence[Digest]]:
        """Ids only on the disk, or only in the catalog, from this first byte on; and where to go on."""
        outers = set(self._names(self._layout.blobs))
        differences: list[Digest] = []
        looked_at = 0
        while first < 256 and looked_at < _PAGE:
            below = bytes([first + 1]) if first < 255 else None
            recorded = {row.digest for row in self._catalog.page(bytes([first]), 1 << 40, below)}
            outer = f"{first:02x}"
            found = set(self._found(outer)) if outer in outers else set()
            differences += sorted(recorded ^ found)
            looked_at += len(recorded | found)
            first += 1
        return first, differences

    def _found(self, outer: str) -> Iterator[Digest]:
        for inner in self._names(f"{self._layout.blobs}/{outer}"):
            if is_fan_out(inner):
                for name in self._names(f"{self._layout.blobs}/{outer}/{inner}"):
                    digest = digest_of_name(name)
                    if digest is not None and self._disk.exists(self._layout.file(digest, DATA)):
                        yield digest

    def _names(self, path: str) -> Sequence[str]:
        with self._volume.guard("listing blobs", write=False):
            try:
                return self._disk.listdir(path)
            except (FileNotFoundError, NotADirectoryError):
                return ()

    def _settle(self, digest: Digest) -> None:
        """Look again, alone with the blob, and put it right."""
        row = self._catalog.row(digest)
        # A copy without a row was never acknowledged after the deletion: that would have revived it.
        if (row.generation if row else 0) < self._catalog.buried_at(digest):
            self._publisher.remove(digest)
            return
        with self._volume.guard("looking for a blob", write=False):
            try:
                stat = self._disk.stat(self._layout.file(digest, DATA))
            except FileNotFoundError:
                stat = None
        if stat is None:
            self._catalog.forget(digest)
        elif row is None:
            self._catalog.proven(digest, stat.size, _NEVER, 0.0)

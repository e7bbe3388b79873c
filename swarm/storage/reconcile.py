"""After an unclean stop: make the catalog say what the disk says, a page at a time.

Runs in the background of a serving node, in short pieces with pauses between, so that nobody who asks for
something notices: of a million blobs a piece holds some hundred, and all takes a few minutes. Finds blobs
without rows (recorded as never proven, so that they are proven before they are served) and rows without
blobs. Every start finishes the swarm-wide
deletions that were recorded and not carried out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from attrs import define
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from swarm.errors import LocalError
from swarm.model.digest import Digest
from swarm.services.tasks import sleep
from swarm.storage.catalog import Catalog
from swarm.storage.disk import Disk
from swarm.storage.layout import DATA, Layout, digest_of_name, is_fan_out
from swarm.storage.publish import Publisher
from swarm.storage.volume import Volume
from swarm.storage.work import Work

#: Ids a thread looks at before it lets others have their turn.
_PAGE = 250

#: How the tree of blobs is divided: by the first three of an id's hex digits.
_PARTS = 1 << 12

#: Pauses are so many times as long as the work before.
_PAUSE = 3

#: An mtime no file has: the row never matches, so the blob is proven before it is served.
_NEVER = -1


def _edge(part: int) -> bytes | None:
    """No id is less and belongs to this part; None beyond the last."""
    return (part << 4).to_bytes(2, "big") if part < _PARTS else None


@define(eq=False)
class Reconciliation:
    """The background task; its owner stops it."""

    _layout: Layout
    _disk: Disk
    _volume: Volume
    _catalog: Catalog
    _publisher: Publisher
    _work: Work
    _clock: IReactorTime
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
            part = 0 if self._catalog.incomplete else _PARTS
            while part < _PARTS:
                begun = self._clock.seconds()
                part, differences = await self._work.in_thread(self._page, part)
                for digest in differences:
                    await self._work.exclusively(digest, self._settle, digest)
                if (spent := self._clock.seconds() - begun) > 0:
                    await sleep(self._clock, _PAUSE * spent)
        except LocalError as e:
            self.log.error("the disk could not be compared with the catalog: {error}", error=e)
        else:
            self._catalog.settle(doubts)
            self.log.info("the catalog agrees with the disk: {blobs} blobs", blobs=self._catalog.totals.blobs)

    def _page(self, part: int) -> tuple[int, Sequence[Digest]]:
        """Ids only on the disk, or only in the catalog, from this part on; and where to go on."""
        differences: list[Digest] = []
        looked_at = 0
        outers = [name for name in self._names(self._layout.blobs) if is_fan_out(name)]
        while (part := self._occupied(part, outers)) < _PARTS and looked_at < _PAGE:
            recorded = {
                row.digest for row in self._catalog.page(_edge(part) or b"", 1 << 40, _edge(part + 1))
            }
            found = set(self._found(part))
            differences += sorted(recorded ^ found)
            looked_at += len(recorded | found)
            part += 1
        return part, differences

    def _occupied(self, part: int, outers: Sequence[str]) -> int:
        """The next part that has a row, or may have a blob: of a small store, most have neither."""
        rows = self._catalog.page(_edge(part) or b"\xff" * 65, 1)
        recorded = int(rows[0].digest.hex[:3], 16) if rows else _PARTS
        on_disk = next((int(outer, 16) << 4 for outer in outers if int(outer, 16) >= part >> 4), _PARTS)
        return min(recorded, max(part, on_disk))

    def _found(self, part: int) -> Iterator[Digest]:
        digits = f"{part:03x}"
        outer = f"{self._layout.blobs}/{digits[:2]}"
        for inner in self._names(outer):
            if is_fan_out(inner) and inner[0] == digits[2]:
                for name in self._names(f"{outer}/{inner}"):
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
            if self._publisher.remove(digest) is None:
                self._catalog.forget(digest)  # power went when the file was gone and the row was not
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

"""A complete blob that was last proven too long ago, proven while it is read.

Decides when a grain of it may be released: once it was hashed from the midstate before it to the one
after it. That is as good as hashing the blob whole, because the list is not just any file: the catalog
keeps a checksum of it from when *all* grains fitted, from SHA-512's IV to the id, and only a list with
that checksum gets here (``Held.vouched``). Rot in the list, or a list that came with other bytes, is
noticed before it is used; and whoever can forge list, checksum and blob together could forge anything here.

A grain that does not fit condemns nothing by itself: the whole copy is proven, and set aside if it is
damaged. Bytes of grains that were proven are still released then, others never.

Not decided here: when a copy is too old (:mod:`swarm.storage.copies`), what is done about a damaged one.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager

from attrs import define, field, frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from swarm.errors import BlobMissing, LocalError, StoreFailed
from swarm.interfaces import IBlobReader
from swarm.model.digest import Digest
from swarm.model.grains import Grains
from swarm.model.midstates import Midstates
from swarm.model.ranges import ByteRange
from swarm.storage.copies import Copies, unreadable
from swarm.storage.descriptor import Descriptor
from swarm.storage.disk import Stat
from swarm.storage.hashers import Grain, Hashers
from swarm.storage.reader import BlobReader
from swarm.storage.volume import Volume
from swarm.storage.work import Work

#: Bytes hashed ahead of the grain that is waited for, at least two grains: enough to be hashed side by side.
_AHEAD = 8 << 20

#: Blobs whose proven grains are remembered between readers.
_REMEMBERED = 64


@frozen
class Inspection:
    """What all coverages of one store work with."""

    copies: Copies
    volume: Volume
    work: Work
    hashers: Hashers
    """Those of pulls, too."""


@define(eq=False)
class Coverage:
    """The grains of one file that were proven lately, whoever reads it. For the reactor's thread."""

    digest: Digest
    stat: Stat
    began: float
    """Before the first grain was hashed; seconds of the node's clock."""
    _midstates: Midstates
    _inspection: Inspection
    damaged: bool = False
    """Grains not proven by now never will be."""
    _proven: set[int] = field(factory=set)
    _running: set[int] = field(factory=set)
    _waiting: dict[int, list[Deferred[None]]] = field(factory=dict)
    _noted: bool = False
    log = Logger()

    @property
    def grains(self) -> Grains:
        """How the file is cut."""
        return self._midstates.grains

    @property
    def complete(self) -> bool:
        """Was every grain proven?"""
        return len(self._proven) == self.grains.count

    def has(self, index: int) -> bool:
        """Was this grain proven?"""
        return index in self._proven

    async def prove(self, index: int, file: Descriptor) -> None:
        """
        Wait until the grain is proven.

        :raises BlobMissing: the copy is damaged. :raises StoreFailed: that cannot be told now.
        """
        if not self.has(index) and not self.damaged:
            waiting: Deferred[None] = Deferred()
            self._waiting.setdefault(index, []).append(waiting)
            self.begin(index, file)
            await waiting
        if not self.has(index):
            raise BlobMissing(self.digest, "its copy here proved damaged")

    def begin(self, index: int, file: Descriptor) -> None:
        """Hash a grain in the background, unless that was done or is under way. The file may be closed."""
        if not (self.damaged or self.has(index) or index in self._running):
            self._running.add(index)
            Deferred.fromCoroutine(self._inspection.work.shield(self._examine(index, file)))

    async def _examine(self, index: int, file: Descriptor) -> None:
        failure: Failure | None = None
        try:
            if await self._fits(index, file):
                self._proven.add(index)
            else:
                await self._inspection.work.alone(self.digest, self._decide(index))
        except BlobMissing:
            self.damaged = True  # bad, and somebody removed it meanwhile
        except Exception as e:  # whatever it is, those who wait must hear of it
            failure = Failure()
            self.log.warn("cannot prove {digest}: {error}", digest=self.digest.short, error=e)
        self._running.discard(index)
        for waiting in self._waiting.pop(index, ()):
            if failure is None:
                waiting.callback(None)
            else:
                waiting.errback(failure)
        if self.complete and not self._noted:
            self._noted = True
            await self._note()

    async def _fits(self, index: int, file: Descriptor) -> bool:
        grains, known, hashers = self.grains, self._midstates, self._inspection.hashers
        start, last = known.before(index), index == grains.last
        grain = Grain(grains.start(index), grains.length(index), start, last)
        with file.held() as fd:  # from now on: its reader may be gone before there is a thread
            try:
                (end,) = await hashers.end_states(lambda: self._reading(fd), [grain])
            except StoreFailed as e:
                if e.__cause__ is not None and not unreadable(e):
                    raise
                self.log.error(
                    "{digest}, grain {index}: {error}", digest=self.digest.short, index=index, error=e
                )
                return False
        return end == known.after(index, self.digest.raw)

    @contextmanager
    def _reading(self, fd: int) -> Iterator[int]:
        with self._inspection.volume.guard("reading a blob to verify it", write=False):
            yield fd

    async def _decide(self, index: int) -> None:
        """A grain does not fit: is it the copy? Alone with the blob."""
        if self.damaged or self.has(index):
            return  # another grain did not fit either
        if await self._inspection.copies.acquit(self.digest, self.stat):
            self._proven.update(range(self.grains.count))
            self._noted = True
        else:
            self.damaged = True

    async def _note(self) -> None:
        try:
            await self._inspection.work.exclusively(
                self.digest, self._inspection.copies.covered, self.digest, self.stat, self.began
            )
        except LocalError as e:
            self.log.warn("{digest} is proven again later: {error}", digest=self.digest.short, error=e)


@define(eq=False)
class Coverages:
    """Those of one store, kept a while so that several readers may prove a blob together."""

    _inspection: Inspection
    _verify_after: float
    _clock: IReactorTime
    _known: OrderedDict[Digest, Coverage] = field(factory=OrderedDict)

    def of(self, digest: Digest, stat: Stat, midstates: Midstates) -> Coverage:
        """The coverage of this file; a new one if the last is of another, or too old itself."""
        now = self._clock.seconds()
        known = self._known.pop(digest, None)
        if (
            known is None
            or known.damaged
            or known.stat != stat
            or abs(now - known.began) >= self._verify_after
        ):
            known = Coverage(digest, stat, now, midstates, self._inspection)
        self._known[digest] = known
        if len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)
        return known


@implementer(IBlobReader)
@define(eq=False)
class ProvingReader(BlobReader):
    """Releases what is proven. Made by :meth:`FilesystemStore.open`."""

    _coverage: Coverage

    async def available(self, offset: int, stop: int) -> int:
        """
        See :meth:`IBlobReader.available`: up to the end of what is proven.

        :raises BlobMissing, StoreFailed: as :meth:`Coverage.prove`.
        """
        stop = min(stop, self.info.size)
        if offset >= stop:
            return stop
        covering = self._coverage.grains.covering(ByteRange(offset, stop))
        ahead = max(2, _AHEAD // self._coverage.grains.grain)
        for index in covering[: ahead + 1]:
            self._coverage.begin(index, self._file)
        await self._coverage.prove(covering[0], self._file)
        return self._released(offset, stop)

    def read_now(self, offset: int, length: int) -> bytes | None:
        """See :meth:`IBlobReader.read_now`."""
        if length <= 0 or offset >= self.info.size:
            return b""
        stop = self._released(offset, min(offset + length, self.info.size))
        return super().read_now(offset, stop - offset) if stop > offset else None

    async def read(self, offset: int, length: int) -> bytes:
        """
        See :meth:`IBlobReader.read`; proves first what is not proven yet.

        :raises BlobMissing: the copy is damaged.
        """
        at, stop = offset, min(offset + length, self.info.size)
        while at < stop:
            at = await self.available(at, stop)
        return await super().read(offset, length)

    def fileno(self) -> int:
        """See :meth:`IBlobReader.fileno`: -1 until all of it is proven."""
        return super().fileno() if self._coverage.complete else -1

    def _released(self, offset: int, stop: int) -> int:
        """The end of what is proven in a row from ``offset`` on, at most ``stop``."""
        grains = self._coverage.grains
        for index in grains.covering(ByteRange(offset, stop)):
            if not self._coverage.has(index):
                return max(offset, grains.start(index))
        return stop

"""One pull on its way to disk.

Decides when its bytes are synced, what its journal is told, and when late bytes are refused; not which
grains are to be believed (``swarm.core.trust``), nor how a file becomes a blob (``swarm.storage.publish``).
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from threading import Lock
from typing import Protocol

from attrs import frozen
from zope.interface import implementer

from swarm.errors import LocalError, StoreFailed
from swarm.hashing import Sha512
from swarm.interfaces import IPartial, Stored
from swarm.model.digest import Digest
from swarm.model.filenames import Filename
from swarm.model.grains import Grains
from swarm.model.midstates import Midstates
from swarm.storage.descriptor import Descriptor
from swarm.storage.disk import read_at, write_all
from swarm.storage.hashers import Grain, Hashers
from swarm.storage.journal import Mark
from swarm.storage.partial_files import PartialFiles, Shelf
from swarm.storage.work import Work

#: As many buffers as one ``pwritev`` takes (``IOV_MAX``).
_MOST_VIEWS = 1024


class Publish(Protocol):
    """How the store makes a proven file a blob: ``Publisher.publish_file``. Blocks."""

    def __call__(
        self,
        digest: Digest,
        size: int,
        file: Descriptor,
        midstates: Midstates | None,
        names: Sequence[Filename],
        /,
    ) -> Stored:
        """:raises StorageFull, VolumeReadOnly, StoreFailed: there is no such blob."""


@frozen
class Workshop:
    """What all pulls of one store work with."""

    shelf: Shelf
    work: Work
    sha512: Sha512
    hashers: Hashers
    publish: Publish


class _State(enum.Enum):
    ARRIVING = enum.auto()
    PUBLISHING = enum.auto()
    ENDED = enum.auto()  # published or discarded: the file, if any, is a blob's


@implementer(IPartial)
class Partial:
    """See :class:`swarm.interfaces.IPartial`."""

    def __init__(
        self,
        files: PartialFiles,
        workshop: Workshop,
        *,
        gone: Callable[[], None],
        closed: Callable[[Partial], None],
    ) -> None:
        """
        :param gone: told on the reactor's thread when the files are deleted.
        :param closed: told of :meth:`close`.
        """
        self.digest: Digest = files.header.digest
        self.grains: Grains = files.header.grains
        self.journaled: Sequence[int] = sorted(files.marks)
        self._files = files
        self._workshop = workshop
        self._volume = workshop.shelf.volume
        self._disk = workshop.shelf.disk
        self._gone = gone
        self._closed = closed
        self._pending: dict[int, Mark | None] = {}
        self._lock = Lock()  # of _pending, which a checkpoint's thread takes
        self._state = _State.ARRIVING
        self._left = False

    # -- bytes ----------------------------------------------------------------

    def write(self, offset: int, data: Iterable[memoryview]) -> None:
        """See :class:`IPartial`."""
        views = list(data)
        count = sum(map(len, views))
        assert offset + count <= self.grains.size
        if self._state is not _State.ARRIVING:
            raise StoreFailed("late bytes for a pull that is over")  # they would change a blob
        self._volume.check_writable()
        fd = self._files.data.number  # this is the reactor's thread, and nobody closes it elsewhere
        if fd < 0:
            raise StoreFailed("the file was closed meanwhile")
        try:
            # In one call if the kernel takes all, as it nearly always does; else once more, in pieces.
            if len(views) > _MOST_VIEWS or self._disk.pwritev(fd, views, offset) < count:
                write_all(self._disk, fd, views, offset)
        except OSError as e:
            raise self._volume.failed(e, "writing a pull") from e

    def read_now(self, offset: int, length: int) -> bytes | None:
        """See :class:`IPartial`."""
        with self._files.data.held() as fd, self._volume.guard("reading a pull", write=False):
            return self._disk.read_nowait(fd, length, offset)

    async def read(self, offset: int, length: int) -> bytes:
        """See :class:`IPartial`."""
        return await self._workshop.work.in_thread(self._read, offset, length)

    def _read(self, offset: int, length: int) -> bytes:
        with self._files.data.held() as fd, self._volume.guard("reading a pull", write=False):
            data = read_at(self._disk, fd, length, offset)
        if len(data) != length:
            raise StoreFailed(f"a partial file ends at {offset + len(data)}")
        return data

    # -- proofs ---------------------------------------------------------------

    async def end_states(
        self, index: int, starts: Sequence[bytes | None], *, at_leisure: bool = False
    ) -> tuple[bytes, ...]:
        """See :class:`IPartial`."""
        offset, length, last = self.grains.start(index), self.grains.length(index), index == self.grains.last
        distinct = tuple(dict.fromkeys(starts))
        grains = [Grain(offset, length, start, last) for start in distinct]
        at_leisure = at_leisure and self.grains.count > self._workshop.sha512.together
        hashed = await self._workshop.hashers.end_states(self._verifying, grains, at_leisure=at_leisure)
        if distinct == starts:
            return tuple(hashed)
        ends = dict(zip(distinct, hashed, strict=True))
        return tuple(ends[start] for start in starts)

    @contextmanager
    def _verifying(self) -> Iterator[int]:
        with self._files.data.held() as fd, self._volume.guard("verifying a pull", write=False):
            yield fd

    async def hash_all(self) -> Digest:
        """See :class:`IPartial`."""
        hasher = self._workshop.sha512.hasher()

        def take(length: int) -> None:
            with self._verifying() as fd:
                hasher.update_from(fd, length)

        # Grain by grain, so that a pull that is given up does not keep a thread for minutes.
        for index in range(self.grains.count):
            length = self.grains.length(index)
            await self._workshop.hashers.hash(length, take, length)
        return hasher.digest()

    async def recheck(self, index: int) -> tuple[bytes | None, bytes] | None:
        """See :class:`IPartial`."""
        mark = self._files.marks[index]
        if mark.start is not None and not self._workshop.sha512.provides_midstates:
            return None  # written when there was a libcrypto: fetched again
        (end,) = await self.end_states(index, [mark.start])
        return (mark.start, mark.end) if end == mark.end else None

    # -- journal --------------------------------------------------------------

    def mark(self, index: int, start: bytes | None, end: bytes) -> None:
        """See :class:`IPartial`."""
        self._note(index, Mark(start, end))

    def unmark(self, index: int) -> None:
        """See :class:`IPartial`."""
        self._note(index, None)

    def _note(self, index: int, mark: Mark | None) -> None:
        assert 0 <= index < self.grains.count
        with self._lock:
            self._pending[index] = mark

    async def checkpoint(self) -> None:
        """See :class:`IPartial`. Nothing happens once the pull was published or discarded."""
        await self._workshop.work.exclusively(self.digest, self._checkpoint)

    def _checkpoint(self) -> None:
        if self._state is _State.ENDED:
            return
        self._volume.check_writable()
        # Taken before the sync: a grain marked during it may have been written after it.
        with self._lock:
            entries, self._pending = self._pending, {}
        try:
            self._files.append(list(entries.items()))
        except LocalError:
            with self._lock:
                self._pending = {**entries, **self._pending}
            raise

    # -- the end --------------------------------------------------------------

    async def publish(self, midstates: Midstates | None, names: Sequence[Filename] = ()) -> Stored:
        """See :class:`IPartial`."""
        return await self._workshop.work.shield(self._publish(midstates, names))

    async def _publish(self, midstates: Midstates | None, names: Sequence[Filename]) -> Stored:
        self._state = _State.PUBLISHING
        try:
            stored = await self._workshop.work.exclusively(self.digest, self._hand_over, midstates, names)
        finally:
            if self._state is _State.PUBLISHING:
                self._state = _State.ARRIVING
            if self._left:
                self._files.close()
        self._gone()
        return stored

    def _hand_over(self, midstates: Midstates | None, names: Sequence[Filename]) -> Stored:
        self._volume.check_writable()
        with self._volume.guard("publishing a pull"):
            stored = self._workshop.publish(self.digest, self.grains.size, self._files.data, midstates, names)
        self._remove()
        return stored

    async def discard(self) -> None:
        """See :class:`IPartial`. Harmless after :meth:`publish`."""
        await self._workshop.work.shield(self._discard())

    async def _discard(self) -> None:
        if await self._workshop.work.exclusively(self.digest, self._throw_away):
            self._gone()

    def _throw_away(self) -> bool:
        if self._state is _State.ENDED:
            return False  # published meanwhile; files of this name are another pull's by now
        self._remove()
        return True

    def _remove(self) -> None:
        self._state = _State.ENDED
        self._files.remove()

    def close(self) -> None:
        """See :class:`IPartial`. A publication under way still ends whole."""
        self._left = True
        if self._state is not _State.PUBLISHING:
            self._files.close()
        self._closed(self)

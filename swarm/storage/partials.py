"""All partial pulls of one data directory: begun, resumed, counted against the quota, cleaned away.

Decides which left-overs are worth keeping and how much room pulls take; the journal and the syncs of
one pull are :mod:`swarm.storage.partial`'s. The caller lets one pull of one blob run at a time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial as bind

from attrs import define, field
from twisted.internet.defer import CancelledError
from twisted.logger import Logger

from swarm.errors import LocalError
from swarm.model.digest import Digest
from swarm.model.grains import Grains
from swarm.storage.journal import SALT_LENGTH, Header
from swarm.storage.partial import Partial, Workshop
from swarm.storage.partial_files import LeftOver, PartialFiles
from swarm.storage.volume import Reservation


@define(eq=False, kw_only=True)
class Partials:
    """All partial pulls of one data directory: begun, resumed, counted, cleaned away."""

    workshop: Workshop
    random_bytes: Callable[[int], bytes]
    keep: float = 7 * 86400.0
    """A left-over nobody wrote to for so many seconds is cleaned away."""
    _rooms: dict[Digest, Reservation] = field(factory=dict)
    _beginning: Counter[Digest] = field(factory=Counter)
    _active: dict[Digest, Partial] = field(factory=dict)
    _open: dict[Partial, None] = field(factory=dict)
    log = Logger()

    async def begin(self, digest: Digest, size: int) -> Partial:
        """
        Begin or resume a pull; a left-over of another size is discarded.

        :raises StorageFull, VolumeReadOnly, StoreFailed: nothing new was left behind.
        """
        assert digest not in self._active, "one pull of one blob at a time"
        work, shelf = self.workshop.work, self.workshop.shelf
        shelf.volume.check_writable()
        self._reserve(digest, size)
        header = Header(digest, Grains.of(size), self.random_bytes(SALT_LENGTH))
        awaited = True

        async def opened() -> PartialFiles:
            self._beginning[digest] += 1
            try:
                files = await work.exclusively(digest, shelf.open, header)
            except LocalError:
                if self._beginning[digest] == 1:  # nobody tries again already
                    self._forget(digest)
                raise
            finally:
                self._beginning -= Counter([digest])
            if not awaited:
                files.close()
            return files

        try:
            files = await work.shield(opened())
        except CancelledError:
            awaited = False
            raise
        partial = Partial(files, self.workshop, gone=bind(self._forget, digest), closed=self._closed)
        self._active[digest] = partial
        self._open[partial] = None
        return partial

    def size_of(self, digest: Digest) -> int | None:
        """Bytes of the pull that is under way or left over, if :meth:`unfinished` has found it yet."""
        room = self._rooms.get(digest)
        return None if room is None else room.length

    async def unfinished(self, held: Callable[[Digest], bool], now: float) -> Sequence[tuple[Digest, int]]:
        """
        The pulls an earlier run left: (id, size). What is of no use is deleted: without a valid
        journal, untouched for too long, or of a blob that is complete by now.

        :param held: is the blob complete? Called in a thread.
        :param now: epoch seconds.
        :raises StoreFailed: the directory cannot be read.
        """

        work, shelf = self.workshop.work, self.workshop.shelf

        def survey() -> dict[Digest, LeftOver | None]:
            return {digest: None if held(digest) else left for digest, left in shelf.left_over().items()}

        found = []
        for digest, left in (await work.in_thread(survey)).items():
            if self._busy(digest):
                continue
            if left is not None and now - left.touched <= self.keep:
                self._occupy(digest, left.size)
                found.append((digest, left.size))
                continue
            try:
                await work.exclusively(digest, shelf.remove, digest)
            except LocalError:
                self.log.failure("cleaning away what is left of pulling {digest}", digest=digest.short)
                continue
            if not self._busy(digest):
                self._forget(digest)
        return found

    def _busy(self, digest: Digest) -> bool:
        return digest in self._active or digest in self._beginning

    def close(self) -> None:
        """Close what is open; the files stay for the next start."""
        for partial in tuple(self._open):
            partial.close()

    # -- counting -------------------------------------------------------------

    def _reserve(self, digest: Digest, size: int) -> None:
        room = self._rooms.get(digest)
        if room is None or room.length != size:
            self._forget(digest)
            self._rooms[digest] = self.workshop.shelf.volume.reserve(size)
            self._count()

    def _occupy(self, digest: Digest, size: int) -> None:
        # It lies on the disk already, so free space is less by it: count it, but ask for no room.
        if digest not in self._rooms:
            volume = self.workshop.shelf.volume
            volume.reserved += size
            self._rooms[digest] = Reservation(volume, size)
            self._count()

    def _forget(self, digest: Digest) -> None:
        """Its files are gone: give the room back, and let another pull begin."""
        self._active.pop(digest, None)
        room = self._rooms.pop(digest, None)
        if room is not None:
            room.release()
            self.workshop.shelf.volume.freed()
            self._count()

    def _closed(self, partial: Partial) -> None:
        """It is no longer open."""
        self._open.pop(partial, None)
        if self._active.get(partial.digest) is partial:
            del self._active[partial.digest]

    def _count(self) -> None:
        self.workshop.shelf.volume.partials = len(self._rooms)

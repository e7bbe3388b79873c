"""Blobs whose files stay open, so that a read of one asks neither a thread nor the catalog.

Decides how long what an opening found may be believed without opening again: while the kernel dates
neither the blob's directory (a marker, a name, a file put in place of another, a deletion) nor its file
(bytes changed in place) later than that opening did, while the proof of its bytes is young enough, and
for a minute at most, which bounds what no date shows: a directory moved from above. Both dates are read
off open descriptors and never wait for the disk. What the store itself changes, it says (``doubt``),
so nothing depends on the dates where an operator's hand is not involved. And how long a file that holds no
more stays open: its blocks are not free before it is closed.

For the reactor's thread, except ``doubt``. Not decided here: whether bytes are proven
(:mod:`swarm.storage.copies`), or what is answered with them.
"""

from __future__ import annotations

from collections import OrderedDict
from threading import Lock

from attrs import define, field, frozen
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from zope.interface import implementer

from swarm.interfaces import BlobInfo, IOpenBlob
from swarm.model.digest import Digest
from swarm.storage.descriptor import Descriptor
from swarm.storage.disk import Disk

#: Seconds an opening is believed at most.
BELIEVED = 60.0

#: Seconds a file that was in memory is taken to be there still. Else the disk is waited for.
WARM = 1.0

#: Seconds after which files are closed that somebody else removed or nobody may read any more.
SWEEP = 5.0


@define(eq=False)
class Seen:
    """The directory of a blob as it was before anything in it was looked at."""

    directory: Descriptor
    changed_at: int | None
    """None: so lately that a change after it would not show."""
    doubts: int


@frozen
class Lent:
    """An open blob for another process: the descriptors to send there, and what it makes its own of."""

    file: Descriptor
    directory: Descriptor
    directory_at: int
    file_at: int
    since: float
    until: float

    def close(self) -> None:
        """The other process has them, or never will."""
        self.file.close()
        self.directory.close()


@implementer(IOpenBlob)
@define(eq=False)
class OpenBlob:
    """A blob that was found proven, with its file and its directory open."""

    info: BlobInfo
    size: int
    file: Descriptor
    _directory: Descriptor
    _disk: Disk
    _clock: IReactorTime
    _directory_at: int
    _file_at: int
    _since: float
    _until: float
    _numbers: tuple[int, int] = field(init=False)
    _warm_until: float = field(init=False, default=-1.0)
    doubted: bool = False
    fields: bytes = b""
    fields_of: object = None

    def __attrs_post_init__(self) -> None:
        self._numbers = self.file.number, self._directory.number

    def current(self) -> bool:
        """See :meth:`IOpenBlob.current`."""
        if self.doubted or not self._since <= self._clock.seconds() < self._until:
            return False
        changed_at = self._disk.changed_at
        return (  # both are open until close(), which doubts
            changed_at(self._numbers[1]) == self._directory_at
            and changed_at(self._numbers[0]) == self._file_at
        )

    def fill(self, buffer: memoryview) -> bool:
        """See :meth:`IOpenBlob.fill`."""
        try:
            count = self._disk.fill_nowait(self._numbers[0], buffer, 0)
        except OSError:
            return False
        if count == self.size:
            self._warm_until = self._clock.seconds() + WARM
        return count == len(buffer)

    def in_memory(self) -> int:
        """See :meth:`IOpenBlob.in_memory`."""
        return self._numbers[0] if self._clock.seconds() < self._warm_until else -1

    def lend(self) -> Lent:
        """Everything needed to make one like this elsewhere, which then knows by the dates alone."""
        return Lent(
            self.file.share(),
            self._directory.share(),
            self._directory_at,
            self._file_at,
            self._since,
            self._until,
        )

    def close(self) -> None:
        """Let go of the files; readers that share one go on."""
        self.doubted = True
        self.file.close()
        self._directory.close()


class Kept:
    """
    Open blobs by their id in 128 lowercase hex digits; the one asked for longest ago makes room.

    :param most: each costs two descriptors.
    """

    def __init__(self, most: int, clock: IReactorTime) -> None:
        self.most = most
        self._clock = clock
        self._blobs: OrderedDict[bytes, OpenBlob] = OrderedDict()
        self._sweeping: IDelayedCall | None = None

    def get(self, key: bytes) -> OpenBlob | None:
        """The open blob, if what its opening found still holds."""
        blob = self._blobs.get(key)
        if blob is None:
            return None
        if not blob.current():
            self._blobs.pop(key).close()
            return None
        self._blobs.move_to_end(key)
        return blob

    def put(self, key: bytes, blob: OpenBlob) -> None:
        """Keep it, instead of an older one."""
        self.drop(key)
        self._blobs[key] = blob
        if len(self._blobs) > self.most:
            self._blobs.popitem(last=False)[1].close()
        if self._sweeping is None:
            self._sweeping = self._clock.callLater(SWEEP, self._sweep)

    def drop(self, key: bytes) -> None:
        """Close it, if it is here."""
        if (blob := self._blobs.pop(key, None)) is not None:
            blob.close()

    def doubt(self, key: bytes) -> None:
        """Believe it no more; in any thread."""
        if (blob := self._blobs.get(key)) is not None:
            blob.doubted = True

    def close(self) -> None:
        """Close all."""
        self.most = 0
        while self._blobs:
            self._blobs.popitem()[1].close()
        if self._sweeping is not None:
            self._sweeping.cancel()
            self._sweeping = None

    def _sweep(self) -> None:
        for key in [key for key, blob in self._blobs.items() if not blob.current()]:
            self.drop(key)
        self._sweeping = self._clock.callLater(SWEEP, self._sweep) if self._blobs else None


class OpenFiles:
    """
    What a store keeps open.

    :param most: how many blobs; each costs two descriptors.
    :param verify_after: how old a proof may be, in seconds.
    """

    def __init__(self, disk: Disk, clock: IReactorTime, most: int, verify_after: float) -> None:
        self._disk = disk
        self._clock = clock
        self._verify_after = verify_after
        self._kept = Kept(most, clock)
        self._doubts = 0
        self._lock = Lock()

    def get(self, key: bytes) -> OpenBlob | None:
        """See :meth:`Kept.get`."""
        return self._kept.get(key)

    def look(self, path: str) -> Seen:
        """
        Begin an opening; in any thread. Whoever holds what is returned closes its directory.

        :param path: the blob's directory.
        :raises OSError: there is none.
        """
        doubts = self._doubts
        directory = Descriptor(self._disk, self._disk.open_directory(path))
        try:
            return Seen(directory, self._disk.settled_at(directory.number), doubts)
        except BaseException:
            directory.close()
            raise

    def keep(
        self, info: BlobInfo, file: Descriptor, file_at: int | None, seen: Seen, proven_at: float
    ) -> None:
        """Keep what an opening found, if a change after it will show. Takes shares of both descriptors."""
        if self._kept.most <= 0 or seen.doubts != self._doubts or seen.changed_at is None or file_at is None:
            return
        now = self._clock.seconds()
        blob = OpenBlob(
            info,
            info.size,
            file.share(),
            seen.directory.share(),
            self._disk,
            self._clock,
            seen.changed_at,
            file_at,
            max(now - BELIEVED, proven_at - self._verify_after),
            min(now + BELIEVED, proven_at + self._verify_after),
        )
        self._kept.put(_key(info.digest), blob)

    def doubt(self, digest: Digest) -> None:
        """Something of this blob was changed; in any thread. Openings under way are not kept."""
        with self._lock:
            self._doubts += 1
        self._kept.doubt(_key(digest))

    def drop(self, digest: Digest) -> None:
        """The blob is no more: its blocks are to be free once the last reader is done."""
        self._kept.drop(_key(digest))

    def close(self) -> None:
        """Close all files; those of openings under way are not kept."""
        self._kept.close()


def _key(digest: Digest) -> bytes:
    return digest.hex.encode("ascii")

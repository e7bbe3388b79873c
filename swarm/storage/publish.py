"""What becomes of blobs' files: published, renamed, set aside, removed.

PUTs and pulls both end here. How bytes become a blob, many at once, is :mod:`swarm.storage.commit`'s
decision; who goes with whom is :mod:`swarm.storage.group`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from random import Random

from attrs import define, field
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from swarm.errors import StoreFailed
from swarm.hashing import Sha512
from swarm.interfaces import BlobInfo, Stored
from swarm.model.digest import Digest
from swarm.model.filenames import Filename
from swarm.model.midstates import Midstates
from swarm.storage import names as names_file
from swarm.storage.catalog import Catalog, Row
from swarm.storage.commit import Candidate, Commit
from swarm.storage.descriptor import Descriptor
from swarm.storage.disk import Disk, Stat
from swarm.storage.group import Group
from swarm.storage.layout import DATA, MIDSTATES, NAMES, Layout
from swarm.storage.settings import StoreSettings
from swarm.storage.steps import NEXT, Steps, Temporary
from swarm.storage.volume import Volume
from swarm.storage.work import Work

#: A commit syncs the whole volume while no more than this is unwritten for each of its blobs. Others' bytes
#: are written once, by the first such commit; after it little is left. One by one costs every commit.
_WORTH = 16 << 20


@define(eq=False)
class Publisher:
    """What publishing needs to know of its store. Methods block unless they say ``async``."""

    _layout: Layout
    _settings: StoreSettings
    _disk: Disk
    _volume: Volume
    _catalog: Catalog
    _work: Work
    _sha512: Sha512
    _clock: IReactorTime
    _random: Random
    _changed: Callable[[Digest], None]
    """Told of a blob that was taken away or set aside."""
    _steps: Steps = field(init=False)
    _commit: Commit = field(init=False)
    _group: Group = field(init=False)
    _whole: int | None = None
    _opened: bool = False
    log = Logger()

    def __attrs_post_init__(self) -> None:
        self._steps = Steps(self._layout, self._disk, self._volume, self._random)
        self._commit = Commit(
            self._layout,
            self._disk,
            self._volume,
            self._catalog,
            self._steps,
            self._sha512,
            self._clock,
            self._proven_at,
            self.set_aside,
        )
        self._group = Group(self._together, self._commit.steps, self._work)

    async def publish(
        self,
        digest: Digest,
        size: int,
        file: Descriptor,
        midstates: Midstates | None,
        names: Sequence[Filename] = (),
    ) -> Stored:
        """
        Make ``size`` proven bytes a blob; any other name the file has is the caller's to take away.

        :param file: its bytes are durable; see :meth:`sync`.
        :param midstates: proven with them.

        :raises StorageFull, VolumeReadOnly, StoreFailed: it is no blob, and nothing new is left behind.
        """
        candidate = Candidate(digest, size, file, midstates, names, synced=True)
        return await self._work.alone(digest, self._group.join(candidate))

    async def publish_bytes(self, digest: Digest, data: bytes, names: Sequence[Filename] = ()) -> Stored:
        """As :meth:`publish`, for a few proven bytes in memory."""
        return await self._work.alone(
            digest, self._group.join(Candidate(digest, len(data), data, names=names))
        )

    def publish_file(
        self,
        digest: Digest,
        size: int,
        file: Descriptor,
        midstates: Midstates | None,
        names: Sequence[Filename] = (),
    ) -> Stored:
        """As :meth:`publish`; the caller sees to it that nobody else works on this blob."""
        candidate = Candidate(digest, size, file, midstates, names)
        self._commit.run([candidate])
        return candidate.outcome()

    def sync(self, file: Descriptor) -> None:
        """
        Make a file's bytes durable; it may take long.

        :raises StorageFull, VolumeReadOnly, StoreFailed:
        """
        self._volume.check_writable()
        with file.held() as fd:
            self._steps.sync_file(fd, "new bytes")

    def _together(self, candidates: Sequence[Candidate]) -> bool:
        """Sync the whole volume for them, where that is good and does not take longer."""
        try:
            if self._disk.unwritten() > len(candidates) * _WORTH:
                return False
            if not self._opened:
                self._whole = self._disk.open_volume(self._layout.blobs)
                self._opened = True
        except OSError as e:
            self.log.warn("blobs are synced one by one: {error}", error=e)
            return False
        if self._whole is None:
            return False
        self._commit.run(candidates, self._whole)
        return True

    def close(self) -> None:
        """Nothing is published any more."""
        whole, self._whole, self._opened = self._whole, None, False
        if whole is not None:
            self._disk.close(whole)

    def temporary(self, length: int = 0) -> Temporary:
        """See :meth:`Steps.temporary`."""
        return self._steps.temporary(length)

    def throw_away(self, temporary: Temporary) -> None:
        """See :meth:`Steps.throw_away`."""
        self._steps.throw_away(temporary)

    def fresh(self, row: Row | None, held: Stat) -> bool:
        """Is this the file that was proven, and not too long ago?"""
        return (
            row is not None
            and (row.size, row.mtime_ns) == (held.size, held.mtime_ns)
            and abs(self._clock.seconds() - row.verified_at) < self._settings.verify_after
        )

    def _proven_at(self, digest: Digest, held: Stat) -> float | None:
        row = self._catalog.row(digest)
        return row.verified_at if row is not None and self.fresh(row, held) else None

    # -- small files ----------------------------------------------------------

    def names(self, digest: Digest) -> tuple[Filename, ...]:
        """See :meth:`Steps.names`."""
        return self._steps.names(digest)

    def add_names(self, digest: Digest, names: Sequence[Filename]) -> None:
        """Append names durably; the caller sees to it that nobody else works on this blob."""
        old = self._steps.names(digest)
        merged = names_file.merge(old, names)
        if merged != old:
            self._put(digest, NAMES, names_file.encode(merged))
        else:  # written by one who could not sync it, perhaps
            self._volume.check_writable()
            self._steps.sync_directory(self._layout.blob(digest))

    def put_midstates(self, digest: Digest, midstates: Midstates) -> None:
        """Store a list durably; the caller sees to it that nobody else works on this blob."""
        self._put(digest, MIDSTATES, midstates.encode())

    def _put(self, digest: Digest, name: str, data: bytes) -> None:
        self._volume.check_writable()
        path = self._layout.file(digest, name)
        with self._steps.undoing() as made:
            fd = self._steps.write(path + NEXT, data, made)
            try:
                self._steps.sync_file(fd, "a small file")
            finally:
                self._disk.close(fd)
            self._steps.replace(path, made)
            self._steps.sync_directory(self._layout.blob(digest))
            made.clear()

    def put_marker(self, digest: Digest, marker: str) -> None:
        """Set ``403`` or ``404`` durably, whether the blob is held or not."""
        self._volume.check_writable()
        with self._steps.undoing() as made:
            place = self._steps.make_place(digest, made)
            with self._volume.guard("setting a marker"), suppress(FileExistsError):
                self._disk.close(self._disk.create(self._layout.file(digest, marker)))
                made.append(self._layout.file(digest, marker))
            for path in (*place.above, self._layout.blob(digest)):
                self._steps.sync_directory(path)
            self._steps.note_durable(digest)
            made.clear()

    # -- taking away ----------------------------------------------------------

    def set_aside(self, digest: Digest, reason: str) -> None:
        """
        Move a damaged blob's bytes to quarantine; names and markers stay for the copy that replaces it.

        :raises StoreFailed: it could not be moved. It is no longer trusted either way.
        """
        self.log.error("{digest} is damaged: {reason}", digest=digest, reason=reason)
        self._changed(digest)
        with (
            self._catalog.forgetting(digest),
            self._volume.guard("moving a damaged blob to quarantine"),
        ):
            with suppress(FileNotFoundError):
                self._disk.unlink(self._layout.file(digest, MIDSTATES))
            with suppress(FileNotFoundError):
                self._disk.rename(self._layout.file(digest, DATA), self._layout.damaged(digest))
        self._steps.sync_directory(self._layout.quarantine)
        self._steps.sync_directory(self._layout.blob(digest))

    def remove(self, digest: Digest) -> BlobInfo | None:
        """Delete a blob durably; None if there is none. The caller sees to it that nobody else does so."""
        self._volume.check_writable()
        directory = self._layout.blob(digest)
        with self._volume.guard("deleting a blob"):
            try:
                with self._volume.guard("looking for a blob", write=False):
                    size = self._disk.stat(self._layout.file(digest, DATA)).size
            except StoreFailed as e:
                if not isinstance(e.__cause__, FileNotFoundError):
                    raise
                self._sync_removal(directory)
                return None
            info = BlobInfo(digest, size, self.names(digest))
            with self._catalog.forgetting(digest):
                for name in (DATA, MIDSTATES, NAMES, MIDSTATES + NEXT, NAMES + NEXT):
                    with suppress(FileNotFoundError):
                        self._disk.unlink(self._layout.file(digest, name))
            self._steps.sync_directory(directory)
            self._changed(digest)
            with suppress(OSError):  # markers stay, and so does their directory
                self._disk.rmdir(directory)
        return info

    def sync_removal(self, digest: Digest) -> None:
        """Make durable that a blob was removed by somebody who perhaps could not."""
        self._volume.check_writable()
        with self._volume.guard("deleting a blob"):
            self._sync_removal(self._layout.blob(digest))

    def _sync_removal(self, directory: str) -> None:
        if self._disk.exists(directory):
            self._steps.sync_directory(directory)

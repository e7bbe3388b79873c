"""The copies held: found, trusted or proven, and what is derived from their bytes.

Decides when stored bytes are trusted: a file that is not the one recorded when it was proven, or was
proven too long ago, is read and hashed before it is served. A copy that proves damaged goes to
quarantine, and so does one the disk refuses to read twice.
"""

from __future__ import annotations

import errno

from attrs import define, frozen
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from swarm.errors import BlobMissing, LocalError, Malformed, StoreFailed
from swarm.hashing import Sha512
from swarm.interfaces import BlobInfo
from swarm.model.digest import Digest
from swarm.model.filenames import Filename
from swarm.model.grains import Grains
from swarm.model.midstates import Midstates, encoded_length
from swarm.storage.catalog import Catalog
from swarm.storage.descriptor import Descriptor
from swarm.storage.disk import Disk, Stat, read_file
from swarm.storage.layout import DATA, MIDSTATES, Layout
from swarm.storage.proof import Proof
from swarm.storage.publish import Publisher
from swarm.storage.volume import Volume
from swarm.storage.work import Work


@frozen
class Held:
    """A blob's file as it was found, open."""

    file: Descriptor
    stat: Stat
    names: tuple[Filename, ...]
    fresh: bool
    """Is it the file that was proven, and not too long ago?"""

    def close(self) -> None:
        """Close the file."""
        self.file.close()


def unreadable(error: StoreFailed) -> bool:
    """Did the disk fail to give bytes it should have?"""
    return isinstance(error.__cause__, OSError) and error.__cause__.errno == errno.EIO


@define(eq=False)
class Copies:
    """The blobs of one data directory. Methods block unless they say ``async``."""

    _layout: Layout
    _disk: Disk
    _volume: Volume
    _catalog: Catalog
    _publisher: Publisher
    _sha512: Sha512
    _proof: Proof
    _work: Work
    _clock: IReactorTime
    log = Logger()

    def find(self, digest: Digest) -> Held:
        """
        Open what is there.

        :raises BlobMissing, StoreFailed:
        """
        with self._volume.guard("opening a blob", write=False):
            try:
                fd = self._disk.open_read(self._layout.file(digest, DATA))
            except (FileNotFoundError, NotADirectoryError) as e:
                raise BlobMissing(digest) from e
            try:
                stat = self._disk.fstat(fd)
                fresh = self._publisher.fresh(self._catalog.row(digest), stat)
                return Held(Descriptor(self._disk, fd), stat, self._publisher.names(digest), fresh)
            except BaseException:
                self._disk.close(fd)
                raise

    def stat(self, digest: Digest) -> BlobInfo | None:
        """
        Size and names; None if it is not there.

        :raises StoreFailed:
        """
        with self._volume.guard("looking for a blob", write=False):
            try:
                size = self._disk.stat(self._layout.file(digest, DATA)).size
            except (FileNotFoundError, NotADirectoryError):
                return None
        return BlobInfo(digest, size, self._publisher.names(digest))

    # -- proving --------------------------------------------------------------

    async def prove(self, digest: Digest, *, unless_fresh: bool = False) -> bool:
        """
        Hash what is there; record it, or put it into quarantine. Nobody else may work on this blob.

        :param unless_fresh: be content with an earlier proof, and with what is in the page cache.
        :raises BlobMissing, StoreFailed:
        """
        held = await self._work.in_thread(self.find, digest)
        try:
            if unless_fresh and held.fresh:
                return True
            if not unless_fresh:
                await self._work.in_thread(self._drop_cache, held.file)
            grains = Grains.of(held.stat.size)
            claim = await self._work.in_thread(self._stored_midstates, digest, grains)
            good = await self._hold(held, digest, grains, claim)
        finally:
            held.close()
        if not good:
            await self._work.in_thread(self._quarantine, digest)
            return False
        stat, now = held.stat, self._clock.seconds()
        await self._work.in_thread(self._catalog.proven, digest, stat.size, stat.mtime_ns, now)
        return True

    async def _hold(self, held: Held, digest: Digest, grains: Grains, claim: Midstates | None) -> bool:
        for attempt in (1, 2):
            try:
                return await self._proof.holds(held.file, digest, grains, claim)
            except StoreFailed as e:
                # Once may be a cable; twice is the medium, and a peer's copy is better than none.
                if not unreadable(e):
                    raise
                self.log.error("{digest}, attempt {n}: {error}", digest=digest.short, n=attempt, error=e)
        return False

    def _drop_cache(self, file: Descriptor) -> None:
        with file.held() as fd, self._volume.guard("reading a blob to verify it", write=False):
            self._disk.drop_cache(fd)

    def _quarantine(self, digest: Digest) -> None:
        try:
            self._publisher.set_aside(digest, "its bytes do not hash to its id")
        except LocalError as e:
            # Unrecorded, it is verified and refused again each time it is asked for.
            self.log.error("{digest} stays where it is: {error}", digest=digest, error=e)

    # -- midstates ------------------------------------------------------------

    def midstates(self, digest: Digest) -> Midstates | None:
        """The stored list, or one computed (and stored) now. Nobody else may work on this blob."""
        try:
            held = self.find(digest)
        except BlobMissing:
            return None
        try:
            grains = Grains.of(held.stat.size)
            if grains.count == 1:
                return Midstates(grains, b"")
            stored = self._stored_midstates(digest, grains)
            if stored is not None or not self._sha512.provides_midstates:
                return stored
            with held.file.held() as fd, self._volume.guard("reading a blob to hash it", write=False):
                proven, computed = self._sha512.prove(fd, held.stat.size)
        finally:
            held.close()
        if proven != digest:
            self._quarantine(digest)
            return None
        if computed is not None:
            try:
                self._publisher.put_midstates(digest, computed)
            except LocalError as e:
                self.log.warn("midstates of {digest} are not kept: {error}", digest=digest, error=e)
        return computed

    def _stored_midstates(self, digest: Digest, grains: Grains) -> Midstates | None:
        path = self._layout.file(digest, MIDSTATES)
        try:
            with self._volume.guard("reading midstates", write=False):
                data = read_file(self._disk, path, encoded_length(grains.size) + 1)
            found = None if data is None else Midstates.decode(data)
        except (Malformed, StoreFailed) as e:
            self.log.warn("midstates of {digest} are unreadable: {error}", digest=digest, error=e)
            return None
        return found if found is not None and found.grains == grains else None

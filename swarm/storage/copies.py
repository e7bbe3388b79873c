"""The copies held: found, trusted or proven, and what is derived from their bytes.

Decides when stored bytes are trusted: a file that is not the one recorded when it was proven is read
and hashed before it is served; one that was proven too long ago is so while it is served
(:mod:`swarm.storage.proving_reader`), where its midstates are vouched for. A copy that proves damaged
goes to quarantine, and so does one the disk refuses to read twice.
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
from swarm.storage.catalog import Catalog, Row
from swarm.storage.descriptor import Descriptor
from swarm.storage.disk import Disk, Stat, read_file
from swarm.storage.layout import DATA, MIDSTATES, Layout
from swarm.storage.proof import Proof, Proven
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
    vouched: Midstates | None = None
    """If not: midstates to prove it with grain by grain, where that is as good as hashing it whole."""
    proven_at: float = 0.0
    """When all its bytes were proven last; seconds of the node's clock."""
    changed_at: int | None = None
    """See :meth:`Disk.settled_at`; read before all else."""

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
                changed_at = self._disk.settled_at(fd)
                stat = self._disk.fstat(fd)
                row = self._catalog.row(digest)
                fresh = self._publisher.fresh(row, stat)
                vouched = None if fresh else self._vouched(digest, row, stat)
                names, proven_at = self._publisher.names(digest), 0.0 if row is None else row.verified_at
                return Held(Descriptor(self._disk, fd), stat, names, fresh, vouched, proven_at, changed_at)
            except BaseException:
                self._disk.close(fd)
                raise

    def _vouched(self, digest: Digest, row: Row | None, held: Stat) -> Midstates | None:
        """
        The stored list, if nothing but the age of its proof speaks against the file.

        A file that is new or was changed has no such list: what nobody ever proved is not begun to be
        served.
        """
        grains = Grains.of(held.size)
        if row is None or (row.size, row.mtime_ns) != (held.size, held.mtime_ns):
            return None
        if grains.count == 1 or not row.verified_at or not self._sha512.provides_midstates:
            return None
        stored, vouched = self._read_midstates(digest, grains)
        return stored if vouched else None

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
            proven = await self._hold(held, digest, grains, claim)
        finally:
            held.close()
        if proven is None:
            await self._work.in_thread(self._quarantine, digest)
            return False
        found = None if proven.midstates == claim else proven.midstates
        await self._work.in_thread(self._note, digest, held.stat, proven.midstates, found)
        return True

    def _note(self, digest: Digest, held: Stat, proven: Midstates | None, found: Midstates | None) -> None:
        if found is not None and found.grains.count > 1:
            self._keep(digest, found)
        self._catalog.proven(digest, held.size, held.mtime_ns, self._clock.seconds(), proven)

    async def acquit(self, digest: Digest, suspect: Stat) -> bool:
        """
        Prove what is there; is it also the very file that was suspected? Nobody else may work on this blob.

        :raises BlobMissing: there is none by now. :raises StoreFailed: it cannot be told.
        """
        return await self.prove(digest) and await self._work.in_thread(self._is_there, digest, suspect)

    def covered(self, digest: Digest, held: Stat, at: float) -> None:
        """Note that every grain was proven, from ``at`` on. Nobody else may work on this blob."""
        row = self._catalog.row(digest)
        if row is not None and row.mtime_ns == held.mtime_ns and self._is_there(digest, held):
            self._catalog.proven(digest, held.size, held.mtime_ns, at)

    def _is_there(self, digest: Digest, held: Stat) -> bool:
        with self._volume.guard("looking for a blob", write=False):
            try:
                return self._disk.stat(self._layout.file(digest, DATA)) == held
            except FileNotFoundError:
                return False

    async def _hold(
        self, held: Held, digest: Digest, grains: Grains, claim: Midstates | None
    ) -> Proven | None:
        for attempt in (1, 2):
            try:
                return await self._proof.holds(held.file, digest, grains, claim)
            except StoreFailed as e:
                # Once may be a cable; twice is the medium, and a peer's copy is better than none.
                if not unreadable(e):
                    raise
                self.log.error("{digest}, attempt {n}: {error}", digest=digest.short, n=attempt, error=e)
        return None

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
            self._keep(digest, computed)
        return computed

    def _keep(self, digest: Digest, midstates: Midstates) -> None:
        try:
            self._publisher.put_midstates(digest, midstates)
        except LocalError as e:
            self.log.warn("midstates of {digest} are not kept: {error}", digest=digest, error=e)

    def _stored_midstates(self, digest: Digest, grains: Grains) -> Midstates | None:
        """The list on disk, unless it is known to be another than was proven."""
        stored, vouched = self._read_midstates(digest, grains)
        return None if vouched is False else stored

    def _read_midstates(self, digest: Digest, grains: Grains) -> tuple[Midstates | None, bool | None]:
        path = self._layout.file(digest, MIDSTATES)
        try:
            with self._volume.guard("reading midstates", write=False):
                data = read_file(self._disk, path, encoded_length(grains.size) + 1)
            found = None if data is None else Midstates.decode(data)
        except (Malformed, StoreFailed) as e:
            self.log.warn("midstates of {digest} are unreadable: {error}", digest=digest, error=e)
            return None, None
        if data is None or found is None or found.grains != grains:
            return None, None
        vouched = self._catalog.vouches(digest, data)
        if vouched is False:
            self.log.warn("midstates of {digest} are not those that were proven", digest=digest)
        return found, vouched

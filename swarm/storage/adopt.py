"""Taking in a dtfc store: 64 levels of two hex digits, then ``data``, ``filename``, ``403``, ``404``.

Every blob is hashed and published as durably as a PUT; names and markers come along, the source is
never changed. Bytes are shared where the file system can (reflink), else copied. A hard link is made
only when asked for: whoever can still write to the other name could change our blob, and we would
notice only by its new mtime.
"""

from __future__ import annotations

import enum
import errno
import os.path
from collections.abc import Iterator

from attrs import define, frozen
from twisted.logger import Logger

from swarm.errors import LocalError, StoreFailed
from swarm.hashing import Sha512
from swarm.model.digest import Digest
from swarm.model.filenames import Filename
from swarm.model.midstates import Midstates
from swarm.storage import names
from swarm.storage.catalog import Catalog
from swarm.storage.descriptor import Descriptor
from swarm.storage.disk import Disk, Stat, make_room, read_at, read_file, write_all
from swarm.storage.layout import DATA, FORBIDDEN, MISSING, Layout, is_fan_out
from swarm.storage.publish import Publisher
from swarm.storage.volume import Volume

_LEVELS = 64
_PIECE = 1 << 20
_NO_REFLINK = frozenset(
    [errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOTTY, errno.EPERM, errno.ENOSYS]
)
_NO_LINK = frozenset([errno.EXDEV, errno.EPERM, errno.EMLINK])


class Outcome(enum.Enum):
    """What became of one blob of the other store."""

    ADOPTED = "adopted"
    KNOWN = "known"  # held already; its names and markers were added
    DAMAGED = "damaged"  # does not hash to its id; left where it is
    SKIPPED = "skipped"  # no bytes: only names or markers
    FAILED = "failed"  # see the detail; worth another try


@frozen
class Found:
    """One blob directory of the other store."""

    digest: Digest
    directory: str


@frozen
class Adopted:
    """The result for one blob."""

    digest: Digest
    path: str
    outcome: Outcome
    size: int = 0
    detail: str = ""
    """How its bytes came here (reflink, copy, hard link), or what went wrong."""


@define(eq=False)
class Adoption:
    """One run over one store. All methods block."""

    _layout: Layout
    _disk: Disk
    _volume: Volume
    _publisher: Publisher
    _catalog: Catalog
    _sha512: Sha512
    _hard_links: bool
    log = Logger()

    def walk(self, source: str) -> Iterator[Found]:
        """
        The blob directories below ``source``, in the order of their ids.

        :raises StoreFailed: ``source`` cannot be listed. Directories below that cannot are logged.
        """
        stack = [(source, "")]
        while stack:
            path, digits = stack.pop()
            if len(digits) == 2 * _LEVELS:
                yield Found(Digest.parse(digits), path)
                continue
            try:
                below = self._disk.listdir(path)
            except OSError as e:
                if not digits:
                    raise StoreFailed(f"cannot list {path}: {e.strerror}") from e
                self.log.warn("cannot list {path}: {error}", path=path, error=e)
                continue
            for name in reversed(below):
                inner = os.path.join(path, name)
                if is_fan_out(name) and self._is_directory(inner):
                    stack.append((inner, digits + name))

    def _is_directory(self, path: str) -> bool:
        try:
            return self._disk.stat(path).is_directory
        except OSError as e:
            self.log.warn("cannot look at {path}: {error}", path=path, error=e)
            return False

    def take(self, found: Found) -> Adopted:
        """Adopt one; the caller sees to it that nobody else works on this blob."""
        try:
            return self._take(found, os.path.join(found.directory, "data"))
        except LocalError as e:
            return Adopted(found.digest, found.directory, Outcome.FAILED, detail=str(e))

    def _take(self, found: Found, path: str) -> Adopted:
        digest = found.digest
        called = self._names(found)
        try:
            with self._volume.guard("opening what is to be adopted", write=False):
                stat = self._disk.stat(path)
                source = Descriptor(self._disk, self._disk.open_read(path)) if stat.is_file else None
        except StoreFailed as e:
            if not isinstance(e.__cause__, FileNotFoundError):
                raise
            source = None
        if source is None:
            self._mark(found)
            return Adopted(digest, path, Outcome.SKIPPED, detail="no data")
        try:
            held = self._held(digest)
            if held is not None:
                if called:
                    self._publisher.add_names(digest, called)
                self._mark(found)
                return Adopted(digest, path, Outcome.KNOWN, held.size)
            how = self._publish(digest, source, called)
        finally:
            source.close()
        if how is None:
            return Adopted(digest, path, Outcome.DAMAGED, stat.size)
        self._mark(found)
        return Adopted(digest, path, Outcome.ADOPTED, stat.size, how)

    def _held(self, digest: Digest) -> Stat | None:
        """Our own copy, if it is one to rely on without looking again."""
        try:
            stat = self._disk.stat(self._layout.file(digest, DATA))
        except OSError:
            return None
        return stat if self._publisher.fresh(self._catalog.row(digest), stat) else None

    def _names(self, found: Found) -> tuple[Filename, ...]:
        with self._volume.guard("reading names to adopt", write=False):
            data = read_file(self._disk, os.path.join(found.directory, "filename"), names.LIMIT)
        return names.decode(data or b"")

    # -- bytes ----------------------------------------------------------------

    def _publish(self, digest: Digest, source: Descriptor, called: tuple[Filename, ...]) -> str | None:
        """How it was published; None if its bytes are not what they should be."""
        with source.held() as fd, self._volume.guard("looking at what is to be adopted", write=False):
            size = self._disk.fstat(fd).size
        self._volume.check_room(size)
        temporary = self._publisher.temporary()
        try:
            if self._reflinked(source, temporary.file):
                proven, midstates = self._prove(temporary.file, size)
                how = "reflink"
            elif self._hard_links:
                return self._hard_link(digest, source, size, called)
            else:
                proven, midstates = self._copied(source, temporary.file, size)
                how = "copy"
            if proven != digest:
                return None
            self._publisher.publish_file(digest, size, temporary.file, midstates, called)
        finally:
            self._publisher.throw_away(temporary)
        return how

    def _reflinked(self, source: Descriptor, target: Descriptor) -> bool:
        with source.held() as old, target.held() as new, self._volume.guard("sharing bytes"):
            try:
                self._disk.clone(old, new)
            except OSError as e:
                if e.errno not in _NO_REFLINK:
                    raise
                return False
        return True

    def _prove(self, file: Descriptor, size: int) -> tuple[Digest, Midstates | None]:
        with file.held() as fd, self._volume.guard("reading what is to be adopted", write=False):
            return self._sha512.prove(fd, size)

    def _copied(self, source: Descriptor, target: Descriptor, size: int) -> tuple[Digest, Midstates | None]:
        hasher = self._sha512.hasher()
        with source.held() as old, target.held() as new:
            with self._volume.guard("making room for a copy"):
                make_room(self._disk, new, size)
            while hasher.size < size:
                with self._volume.guard("reading what is to be adopted", write=False):
                    piece = read_at(self._disk, old, min(_PIECE, size - hasher.size), hasher.size)
                if not piece:
                    raise StoreFailed("the file became shorter while it was copied")
                with self._volume.guard("writing a copy"):
                    write_all(self._disk, new, [piece], hasher.size)
                hasher.update(piece)
        return hasher.digest(), hasher.midstates()

    def _hard_link(
        self, digest: Digest, source: Descriptor, size: int, called: tuple[Filename, ...]
    ) -> str | None:
        with source.held() as fd, self._volume.guard("taking write permission away"):
            self._disk.chmod(fd, 0o440)
            before = self._disk.fstat(fd)
        proven, midstates = self._prove(source, size)
        if proven != digest:
            return None
        with source.held() as fd, self._volume.guard("looking again", write=False):
            if self._disk.fstat(fd) != before:
                raise StoreFailed("the file was changed while it was read")
        try:
            self._publisher.publish_file(digest, size, source, midstates, called)
        except StoreFailed as e:
            if isinstance(e.__cause__, OSError) and e.__cause__.errno in _NO_LINK:
                raise StoreFailed("no hard link is possible here: try without") from e
            raise
        return "hard link"

    # -- markers --------------------------------------------------------------

    def _mark(self, found: Found) -> None:
        for marker in (FORBIDDEN, MISSING):
            if self._disk.exists(os.path.join(found.directory, marker)):
                self._publisher.put_marker(found.digest, marker)

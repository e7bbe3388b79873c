"""The single steps of which publishing is made: directories, small files, names taken back.

Decides how each is done, and what it leaves for somebody else to sync; in which order steps follow one
another, and when they are durable, is :mod:`swarm.storage.commit`'s and :mod:`swarm.storage.publish`'s.
All methods block.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from random import Random

from attrs import define, field, frozen

from swarm.errors import StoreFailed
from swarm.model.digest import Digest
from swarm.model.filenames import Filename
from swarm.storage import names as names_file
from swarm.storage.descriptor import Descriptor
from swarm.storage.disk import NO_TMPFILE, Disk, make_room, read_file, write_all
from swarm.storage.layout import INCOMING, NAMES, Layout
from swarm.storage.volume import Volume

#: What a file is written as before it replaces another of the blob's small files.
NEXT = ".next"


@frozen
class Temporary:
    """A file no reader can see; ``path`` only where the disk has no unnamed ones."""

    file: Descriptor
    path: str | None


@frozen
class Place:
    """A blob's own directory, and what must be synced before it is sure to stay."""

    new: bool
    above: tuple[str, ...]


@define(eq=False)
class Steps:
    """The steps, on one data directory."""

    _layout: Layout
    _disk: Disk
    _volume: Volume
    _random: Random
    _durable: set[str] = field(factory=set)
    """Fan-out directories that this process has made durable."""

    # -- new files ------------------------------------------------------------

    def temporary(self, length: int = 0) -> Temporary:
        """
        Open an invisible file on the blobs' volume, with room for ``length`` bytes.

        :raises StorageFull, StoreFailed:
        """
        with self._volume.guard("making room for new bytes"):
            made = self._unnamed()
            try:
                with made.file.held() as fd:
                    make_room(self._disk, fd, length)
            except BaseException:
                self.throw_away(made)
                raise
        return made

    def throw_away(self, temporary: Temporary) -> None:
        """Take it away again, if it has not become a blob."""
        temporary.file.close()
        if temporary.path is not None:
            with suppress(OSError):  # what is left is taken away at the next start
                self._disk.unlink(temporary.path)

    def _unnamed(self) -> Temporary:
        try:
            return Temporary(Descriptor(self._disk, self._disk.tmpfile(self._layout.blobs)), None)
        except OSError as e:
            if e.errno not in NO_TMPFILE:
                raise
        path = f"{self._layout.blobs}/{INCOMING}{self._random.getrandbits(64):016x}"
        return Temporary(Descriptor(self._disk, self._disk.create(path, 0o440)), path)

    # -- directories ----------------------------------------------------------

    def make_place(self, digest: Digest, made: list[str]) -> Place:
        """
        Make a blob's directory and those above it.

        One that exists may still be one a crash takes away, so all of ``above`` are named until
        :meth:`note_durable` was told.
        """
        above, due = self._layout.blobs, []
        for path in self._layout.fan_out(digest):
            if path not in self._durable:
                self._mkdir(path)
                due.append(above)
            above = path
        try:
            new = self._mkdir(self._layout.blob(digest))
        except StoreFailed:
            if self._disk.exists(above):
                raise
            # Somebody tidied up empty directories behind our back.
            self._durable.difference_update(self._layout.fan_out(digest))
            return self.make_place(digest, made)
        if new:
            made.append(self._layout.blob(digest))
        return Place(new, (*due, above))

    def note_durable(self, digest: Digest) -> None:
        """All that :meth:`make_place` named was synced."""
        self._durable.update(self._layout.fan_out(digest))

    def _mkdir(self, path: str) -> bool:
        with self._volume.guard("making a directory"):
            try:
                self._disk.mkdir(path)
            except FileExistsError:
                return False
        return True

    def sync_directory(self, path: str) -> None:
        """:raises StoreFailed: and the volume is read-only from now on, but where it could not be opened."""
        with self._volume.guard("fsync of a directory", sync=True):
            self._disk.fsync_dir(path)

    def sync_file(self, fd: int, what: str) -> None:
        """:raises StoreFailed, StorageFull: and the volume is read-only from now on."""
        with self._volume.guard(f"fsync of {what}", sync=True):
            self._disk.fsync(fd)

    # -- small files ----------------------------------------------------------

    def names(self, digest: Digest) -> tuple[Filename, ...]:
        """
        The names on disk.

        :raises StoreFailed: the disk cannot say.
        """
        with self._volume.guard("reading names", write=False):
            data = read_file(self._disk, self._layout.file(digest, NAMES), names_file.LIMIT)
        return () if data is None else names_file.decode(data)

    def write(self, path: str, data: bytes, made: list[str]) -> int:
        """Write a small file that nobody reads yet; its descriptor, for the caller to sync and to close."""
        with self._volume.guard("writing a small file"):
            try:
                fd = self._disk.create(path)
            except FileExistsError:  # a crash left it
                self._disk.unlink(path)
                fd = self._disk.create(path)
            made.append(path)
            try:
                write_all(self._disk, fd, [data], 0)
            except BaseException:
                self._disk.close(fd)
                raise
        return fd

    def replace(self, path: str, made: list[str]) -> None:
        """Give what was written as ``path`` + :data:`NEXT` its name; the old file stays until then."""
        with self._volume.guard("naming a small file"):
            new = not self._disk.exists(path)
            self._disk.rename(path + NEXT, path)
        made.remove(path + NEXT)
        if new:
            made.append(path)

    # -- back again -----------------------------------------------------------

    @contextmanager
    def undoing(self) -> Iterator[list[str]]:
        """Take away, newest first, what is in the list when the block ends."""
        made: list[str] = []
        try:
            yield made
        finally:
            self.undo(made)

    def undo(self, made: Sequence[str]) -> None:
        """Take away, newest first, what was made."""
        for path in reversed(made):
            with suppress(OSError):
                (self._disk.rmdir if self._disk.stat(path).is_directory else self._disk.unlink)(path)

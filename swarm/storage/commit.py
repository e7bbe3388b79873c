"""How proven bytes become blobs, for good, several at once (RELIABILITY E).

The order, and nothing is said to be stored before its end:

1. each blob's bytes to an unnamed file, ``blobs/aa/bb/{id}`` made, ``midstates`` and ``names`` written
   (over an older file not yet: beside it);
2. all of that durable: files, and every directory above, for one that exists may still be one a crash
   takes away;
3. small files in place of older ones; each file linked as ``data``, which never replaces anything;
4. the blobs' own directories durable.

Where ``data`` exists already it is made durable too; if it is not what it should be, it goes to
quarantine and is replaced.

A blob alone has each file and directory fsynced: 5 flushes of the device. For many at once that is what
takes the time (a flush costs 0.3 to 3 ms on our machine's disk), so steps 2 and 4 are one ``syncfs`` each:
32 blobs of 1 KiB took 9 ms instead of 27 to 360. But ``syncfs`` also writes what others left dirty; when
there is much of that, or it cannot be believed (:mod:`swarm.storage.syscalls`), fsync remains: the writing
of all files is begun, then all are synced at the same time, so that one commit of the file system's journal
and one flush do for many.

A blob whose own steps fail leaves the others alone. A sync that fails fails all that depend on it, closes
the volume, and no more names are given.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from functools import partial

from attrs import define, field, frozen
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from swarm.errors import LocalError
from swarm.hashing import Sha512
from swarm.interfaces import BlobInfo, Stored
from swarm.model.digest import Digest
from swarm.model.filenames import Filename
from swarm.model.midstates import Midstates
from swarm.storage import names as names_file
from swarm.storage.catalog import Catalog, Entry
from swarm.storage.descriptor import Descriptor
from swarm.storage.disk import Disk, Stat, write_all
from swarm.storage.layout import DATA, MIDSTATES, NAMES, Layout
from swarm.storage.steps import NEXT, Steps
from swarm.storage.volume import Volume


@frozen
class Named:
    """What bears the name ``data`` now: ours (new) or one that was there."""

    new: bool
    mtime_ns: int
    verified_at: float


@define(eq=False)
class Candidate:
    """Bytes proven to be a blob's, and how far they have come; ``stored`` or ``error`` at the end."""

    digest: Digest
    size: int
    bytes: Descriptor | bytes
    midstates: Midstates | None = None
    names: Sequence[Filename] = ()
    synced: bool = False
    """Were the file's bytes made durable already?"""
    error: LocalError | None = None
    stored: Stored | None = None
    fd: int = -1
    made: list[str] = field(factory=list)
    replacing: list[str] = field(factory=list)
    files: list[tuple[int, str]] = field(factory=list)
    """What is to be synced before it gets a name, and what that is."""
    above: tuple[str, ...] = ()
    known: tuple[Filename, ...] = ()
    named: Named | None = None

    def outcome(self) -> Stored:
        """:raises StorageFull, VolumeReadOnly, StoreFailed: it is no blob."""
        if self.error is not None:
            raise self.error
        assert self.stored is not None, "committed"
        return self.stored


@define(eq=False)
class Commit:
    """What committing needs to know of its store. Everything blocks."""

    _layout: Layout
    _disk: Disk
    _volume: Volume
    _catalog: Catalog
    _steps: Steps
    _sha512: Sha512
    _clock: IReactorTime
    _fresh: Callable[[Digest, Stat], float | None]
    """When the file was proven, if that still counts."""
    _set_aside: Callable[[Digest, str], None]
    log = Logger()

    def run(self, candidates: Sequence[Candidate], volume: int | None = None) -> None:
        """
        Make blobs of them; the caller sees to it that nobody else works on these blobs.

        :param volume: see :meth:`~swarm.storage.disk.Disk.open_volume`; None: sync one by one.
        """
        with closing(self.steps(candidates, volume)) as steps:
            for syncs in steps:
                for sync in syncs:
                    sync()

    def steps(
        self, candidates: Sequence[Candidate], volume: int | None = None
    ) -> Generator[list[Callable[[], None]], None, None]:
        """
        As :meth:`run`, in steps: whoever takes them does all that one gives, in any order or at the same
        time, before he asks for the next.
        """
        try:
            with ExitStack() as held:
                self._each(candidates, lambda each: self._lay_out(each, held))
                if volume is None and len(candidates) > 1:
                    self._each(candidates, self._begin_writing)
                yield self._syncs(candidates, lambda each: (each.files, each.above), volume)
                self._each(candidates, self._name)
                yield self._syncs(candidates, lambda each: ((), (self._layout.blob(each.digest),)), volume)
                for each in candidates:
                    if each.error is None:
                        each.made.clear()
        finally:
            for each in candidates:
                self._steps.undo(each.made)
        self._record([each for each in candidates if each.error is None])

    def _each(self, candidates: Sequence[Candidate], step: Callable[[Candidate], None]) -> None:
        for each in candidates:
            if each.error is None:
                try:
                    self._volume.check_writable()
                    step(each)
                except LocalError as e:
                    each.error = e

    # -- the steps ------------------------------------------------------------

    def _lay_out(self, blob: Candidate, held: ExitStack) -> None:
        self._open(blob, held)
        if not blob.synced:
            blob.files.append((blob.fd, "new bytes"))
        place = self._steps.make_place(blob.digest, blob.made)
        blob.above = place.above
        old = () if place.new else self._steps.names(blob.digest)
        blob.known = names_file.merge(old, blob.names)
        if blob.midstates is not None and blob.midstates.grains.count > 1:
            self._write(blob, MIDSTATES, blob.midstates.encode(), place.new, held)
        if blob.known != old:
            self._write(blob, NAMES, names_file.encode(blob.known), place.new, held)

    def _open(self, blob: Candidate, held: ExitStack) -> None:
        if isinstance(blob.bytes, Descriptor):
            blob.fd = held.enter_context(blob.bytes.held())
            return
        temporary = self._steps.temporary()
        held.callback(self._steps.throw_away, temporary)
        blob.fd = held.enter_context(temporary.file.held())
        with self._volume.guard("writing new bytes"):
            write_all(self._disk, blob.fd, [blob.bytes], 0)

    def _write(self, blob: Candidate, name: str, data: bytes, new: bool, held: ExitStack) -> None:
        path = self._layout.file(blob.digest, name)
        if not new:  # else a directory without data: nobody reads it, and what a crash leaves is written over
            blob.replacing.append(path)
            path += NEXT
        fd = self._steps.write(path, data, blob.made)
        held.callback(self._disk.close, fd)
        blob.files.append((fd, "a small file"))

    def _begin_writing(self, blob: Candidate) -> None:
        """Have the kernel find room for all bytes of a group, and the disk at work, before anybody waits."""
        with self._volume.guard("writing out new bytes", sync=True):
            for fd, _ in blob.files:
                self._disk.begin_write_out(fd)

    def _name(self, blob: Candidate) -> None:
        self._steps.note_durable(blob.digest)
        for path in blob.replacing:
            self._steps.replace(path, blob.made)
        blob.named = self._link(blob)

    def _syncs(
        self,
        candidates: Sequence[Candidate],
        what: Callable[[Candidate], tuple[Sequence[tuple[int, str]], Sequence[str]]],
        volume: int | None,
    ) -> list[Callable[[], None]]:
        """What is to be made durable: each of ``what``'s files and directories once, or all as one."""
        waiting = [each for each in candidates if each.error is None]
        if volume is not None:
            return [partial(self._sync_volume, waiting, volume)] if waiting else []
        syncs, due = list[Callable[[], None]](), dict[str, list[Candidate]]()
        for each in waiting:
            files, directories = what(each)
            syncs += [partial(self._sync_file, each, fd, name) for fd, name in files]
            for path in directories:
                due.setdefault(path, []).append(each)
        return syncs + [partial(self._sync_directory, whose, path) for path, whose in due.items()]

    def _sync_volume(self, whose: Sequence[Candidate], volume: int) -> None:
        with _noting(whose), self._volume.guard("syncing the volume", sync=True):
            self._disk.sync_volume(volume)

    def _sync_file(self, blob: Candidate, fd: int, what: str) -> None:
        with _noting([blob]):
            self._steps.sync_file(fd, what)

    def _sync_directory(self, whose: Sequence[Candidate], path: str) -> None:
        with _noting(whose):
            self._steps.sync_directory(path)

    def _link(self, blob: Candidate) -> Named:
        path = self._layout.file(blob.digest, DATA)
        with self._volume.guard("naming new bytes"):
            try:
                self._disk.link_fd(blob.fd, path)
            except FileExistsError:
                pass
            else:
                blob.made.append(path)
                return self._ours(blob)
        held = self._confirm(blob)
        if held is not None:
            return held
        self._set_aside(blob.digest, "another PUT or pull proved it wrong")
        with self._volume.guard("naming new bytes"):
            self._disk.link_fd(blob.fd, path)
            blob.made.append(path)
            return self._ours(blob)

    def _ours(self, blob: Candidate) -> Named:
        if isinstance(blob.bytes, Descriptor):
            # Not sooner: a pull that could not be published must still be writable after a restart.
            self._disk.chmod(blob.fd, 0o440)
        return Named(True, self._disk.fstat(blob.fd).mtime_ns, self._clock.seconds())

    def _confirm(self, blob: Candidate) -> Named | None:
        """Make the bytes already there durable; None if they are damaged."""
        with self._volume.guard("opening what is there", write=False):
            fd = self._disk.open_read(self._layout.file(blob.digest, DATA))
        try:
            with self._volume.guard("looking at what is there", write=False):
                held = self._disk.fstat(fd)
            self._steps.sync_file(fd, "what is there")
            if held.size != blob.size:
                return None
            at = self._fresh(blob.digest, held)
            if at is not None:
                return Named(False, held.mtime_ns, at)
            if self._sha512.digest_of(fd, blob.size) == blob.digest:
                return Named(False, held.mtime_ns, self._clock.seconds())
            return None
        except OSError as e:
            self.log.warn("{digest} cannot be read: {error}", digest=blob.digest, error=e)
            return None
        finally:
            self._disk.close(fd)

    def _record(self, blobs: Sequence[Candidate]) -> None:
        entries = []
        for each in blobs:
            assert each.named is not None, "no error"
            named = each.named
            entries.append(Entry(each.digest, each.size, named.mtime_ns, named.verified_at, each.midstates))
            each.stored = Stored(BlobInfo(each.digest, each.size, each.known), named.new)
        if entries:
            self._catalog.record_all(entries)


@contextmanager
def _noting(candidates: Sequence[Candidate]) -> Iterator[None]:
    """What fails here is the error of these."""
    try:
        yield
    except LocalError as e:
        for each in candidates:
            each.error = e

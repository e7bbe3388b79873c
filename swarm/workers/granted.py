"""The blobs a worker was granted: what :class:`~swarm.web.short_path.ShortPath` and the full way read.

Decides nothing about a blob: whether it is proven, marked or here was decided by the node when it opened
it, and :class:`~swarm.storage.open_files.OpenBlob` says whether that still holds.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

from attrs import define
from twisted.internet.defer import Deferred
from zope.interface import implementer

from swarm.errors import StoreFailed
from swarm.interfaces import BlobInfo, IBlobReader, RunBlocking
from swarm.model.digest import Digest
from swarm.storage.descriptor import Descriptor
from swarm.storage.disk import Disk, read_at
from swarm.storage.open_files import Kept, OpenBlob
from swarm.workers.messages import Entry

#: Seconds for which a blob's life is believed: a newer one may begin without a change of its files.
_LIFE = 1.0


class GrantedBlobs:
    """
    At most ``most`` blobs, those asked for last; each takes two descriptors.

    :param ask: asks the node for one; it answers with :meth:`granted` or :meth:`refused`.
    :param suspect: told of a blob whose file could not be read.
    """

    def __init__(
        self,
        most: int,
        *,
        ask: Callable[[Digest], None],
        suspect: Callable[[Digest], None],
        clock: Any,
        run_blocking: RunBlocking,
    ) -> None:
        self._ask = ask
        self._suspect = suspect
        self._clock = clock
        self._run_blocking = run_blocking
        self._disk = Disk()
        self._kept = Kept(most, clock)
        self._asked: dict[Digest, list[Deferred[bool]]] = {}
        self._lives: dict[bytes, tuple[int, float]] = {}

    def resize(self, most: int) -> None:
        """From now on at most so many."""
        self._kept.most = most

    def opened(self, key: bytes) -> OpenBlob | None:
        """See :meth:`swarm.interfaces.IBlobStore.opened`."""
        return self._kept.get(key)

    def life(self, key: bytes) -> int | None:
        """Which life of its id an open blob is of; None: the node is to be asked again."""
        life, since = self._lives.get(key, (0, -_LIFE))
        return life if since <= self._clock.seconds() < since + _LIFE else None

    def reader(self, blob: OpenBlob) -> GrantedReader:
        """Reads of it that go on whatever becomes of the blob."""
        return GrantedReader(blob.info, blob.file.share(), self._disk, self._run_blocking, self._suspect)

    def wanted(self, digest: Digest) -> Deferred[bool]:
        """Ask the node: is it granted? Cancelling forgets who asked."""
        waiting = self._asked.get(digest)
        if waiting is None:
            waiting = self._asked[digest] = []
            self._ask(digest)
        answer: Deferred[bool] = Deferred(lambda d: waiting.remove(d) if d in waiting else None)
        waiting.append(answer)
        return answer

    def granted(self, digest: Digest, entry: Entry, files: Sequence[int]) -> None:
        """The node grants a blob; its file and its directory are ours now."""
        file, directory = (Descriptor(self._disk, each) for each in files)
        blob = OpenBlob(
            info=entry.info(digest),
            size=entry.size,
            file=file,
            directory=directory,
            disk=self._disk,
            clock=self._clock,
            directory_at=entry.directory_at,
            file_at=entry.file_at,
            since=entry.since,
            until=entry.until,
        )
        key, now = digest.hex.encode("ascii"), self._clock.seconds()
        self._kept.put(key, blob)
        if len(self._lives) > 2 * self._kept.most:
            self._lives = {each: at for each, at in self._lives.items() if now < at[1] + _LIFE}
        self._lives[key] = entry.life, now
        self._tell(digest, True)

    def refused(self, digest: Digest) -> None:
        """The node does not."""
        self._tell(digest, False)

    def _tell(self, digest: Digest, answer: bool) -> None:
        waiting = self._asked.pop(digest, [])
        while waiting:
            waiting.pop(0).callback(answer)


@implementer(IBlobReader)
@define(eq=False)
class GrantedReader:
    """A granted blob, being read."""

    info: BlobInfo
    _file: Descriptor
    _disk: Disk
    _run_blocking: RunBlocking
    _suspect: Callable[[Digest], None]

    async def available(self, offset: int, stop: int) -> int:
        """See :meth:`IBlobReader.available`: all of it."""
        return min(stop, self.info.size)

    def read_now(self, offset: int, length: int) -> bytes | None:
        """See :meth:`IBlobReader.read_now`."""
        length = min(length, self.info.size - offset)
        if length <= 0:
            return b""
        try:
            return self._disk.read_nowait(self._file.number, length, offset) or None
        except OSError:
            return None

    async def read(self, offset: int, length: int) -> bytes:
        """See :meth:`IBlobReader.read`."""
        try:
            data = await self._run_blocking(self._read, offset, length)
        except OSError as e:
            self._suspect(self.info.digest)
            raise StoreFailed(f"reading {self.info.digest.short}: {os.strerror(e.errno or 0)}") from e
        if len(data) < length:
            self._suspect(self.info.digest)
            raise StoreFailed(f"{self.info.digest.short} ends at {offset + len(data)} of {self.info.size}")
        return data

    def _read(self, offset: int, length: int) -> bytes:
        with self._file.held() as fd:
            return read_at(self._disk, fd, length, offset)

    def fileno(self) -> int:
        """See :meth:`IBlobReader.fileno`."""
        return self._file.number

    def close(self) -> None:
        """See :meth:`IBlobReader.close`."""
        self._file.close()

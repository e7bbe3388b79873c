"""A complete blob, open for reading."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from attrs import define
from zope.interface import implementer

from swarm.errors import StoreFailed
from swarm.interfaces import BlobInfo, IBlobReader
from swarm.model.digest import Digest
from swarm.storage.copies import unreadable
from swarm.storage.descriptor import Descriptor
from swarm.storage.disk import Disk, read_at
from swarm.storage.volume import Volume
from swarm.storage.work import Work


@implementer(IBlobReader)
@define(eq=False)
class BlobReader:
    """Reads go on when the blob is deleted meanwhile. Made by :meth:`FilesystemStore.open`."""

    info: BlobInfo
    _file: Descriptor
    _disk: Disk
    _volume: Volume
    _work: Work
    _suspect: Callable[[Digest], Coroutine[Any, Any, object]]
    """Awaited when the file proves to be shorter than the blob, or cannot be read."""

    async def available(self, offset: int, stop: int) -> int:
        """See :meth:`IBlobReader.available`: all of it."""
        return min(stop, self.info.size)

    def read_now(self, offset: int, length: int) -> bytes | None:
        """See :meth:`IBlobReader.read_now`."""
        length = min(length, self.info.size - offset)
        if length <= 0:
            return b""
        with self._volume.guard("reading a blob", write=False):
            # Nothing where there should be something: let read() find out and say so.
            return self._disk.read_nowait(self._file.number, length, offset) or None

    async def read(self, offset: int, length: int) -> bytes:
        """See :meth:`IBlobReader.read`."""
        try:
            data = await self._work.in_thread(self._read, offset, length)
        except StoreFailed as e:
            if unreadable(e):
                await self._suspect(self.info.digest)
            raise
        if len(data) < length:
            await self._suspect(self.info.digest)
            raise StoreFailed(f"{self.info.digest.short} ends at {offset + len(data)} of {self.info.size}")
        return data

    def _read(self, offset: int, length: int) -> bytes:
        with self._file.held() as fd, self._volume.guard("reading a blob", write=False):
            return read_at(self._disk, fd, length, offset)

    def fileno(self) -> int:
        """See :meth:`IBlobReader.fileno`."""
        return self._file.number

    def close(self) -> None:
        """See :meth:`IBlobReader.close`."""
        self._file.close()

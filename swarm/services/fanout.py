"""One blob read for several peers at once.

Decides what stays in memory: the last few chunks that anybody asked for. Peers that keep pace share
every read of the disk; one that falls behind reads for itself and holds nobody up.
"""

from __future__ import annotations

from swarm.interfaces import IBlobReader
from swarm.services.tasks import Signal

CHUNK = 1 << 20
KEPT = 16


class SharedReads:
    """I read through one reader for many; close the reader when all are done."""

    def __init__(self, reader: IBlobReader, *, chunk: int = CHUNK, kept: int = KEPT) -> None:
        self._reader = reader
        self._chunk = chunk
        self._kept = kept
        self._chunks: dict[int, bytes] = {}
        self._reading: dict[int, Signal] = {}

    async def read(self, offset: int, length: int) -> bytes:
        """
        Exactly ``length`` bytes at ``offset``.

        :raises SwarmError: what the reader raises.
        """
        parts = []
        while length:
            index, skip = divmod(offset, self._chunk)
            part = (await self._get(index))[skip : skip + length]
            parts.append(part)
            offset += len(part)
            length -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def _get(self, index: int) -> bytes:
        while index not in self._chunks:
            if index in self._reading:
                await self._reading[index].wait()
                continue
            self._reading[index] = Signal()
            try:
                await self._load(index)
            finally:
                self._reading.pop(index).fire()
        chunk = self._chunks.pop(index)
        self._chunks[index] = chunk  # the newest again
        return chunk

    async def _load(self, index: int) -> None:
        start = index * self._chunk
        stop = min(start + self._chunk, self._reader.info.size)
        await self._reader.available(start, stop)
        data = self._reader.read_now(start, stop - start) or b""
        if len(data) < stop - start:
            data = await self._reader.read(start, stop - start)
        self._chunks[index] = data
        while len(self._chunks) > self._kept:
            del self._chunks[next(iter(self._chunks))]

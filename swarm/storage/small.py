"""A small PUT: its bytes stay in memory until all are there, then they are hashed and go along with others.

For a few KiB everything that :mod:`swarm.storage.writer` does for large bodies costs more than the bytes: a
file made by a thread before the first byte, another thread to hash. A body of at most ``StoreSettings.small``
bytes is hashed where it stands, in less than 100 microseconds, and the commit makes its file.
"""

from __future__ import annotations

from attrs import define, field
from zope.interface import implementer

from swarm.errors import DigestMismatch, LengthMismatch, StoreFailed
from swarm.interfaces import IBlobWriter, Stored
from swarm.model.digest import Digest
from swarm.model.filenames import Filename
from swarm.storage.publish import Publisher
from swarm.storage.volume import Reservation, Volume


@implementer(IBlobWriter)
@define(eq=False)
class SmallWriter:
    """One write of a declared, small length. Made by :meth:`FilesystemStore.writer`."""

    _length: int
    _expect: Digest | None
    _reservation: Reservation
    _publisher: Publisher
    _volume: Volume
    received: int = 0
    _pieces: list[bytes] = field(factory=list)
    _failure: LengthMismatch | None = None
    _ended: bool = False

    def write(self, data: bytes) -> None:
        """See :meth:`IBlobWriter.write`."""
        self._check()
        self._volume.check_writable()
        if self.received + len(data) > self._length:
            self._failure = LengthMismatch(f"more than the declared {self._length} bytes")
            raise self._failure
        self.received += len(data)
        self._pieces.append(data)

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure
        if self._ended:
            raise StoreFailed("the write is over")

    def lagging(self) -> bool:
        """See :meth:`IBlobWriter.lagging`: there is nothing to lag behind."""
        return False

    async def caught_up(self) -> None:
        """See :meth:`IBlobWriter.caught_up`."""

    async def finish(self, name: Filename | None = None) -> Stored:
        """See :meth:`IBlobWriter.finish`."""
        try:
            self._check()
            if self.received != self._length:
                raise LengthMismatch(f"{self.received} bytes instead of the declared {self._length}")
            data = b"".join(self._pieces)
            digest = Digest.of(data)
            if self._expect is not None and digest != self._expect:
                raise DigestMismatch(self._expect.hex, digest.hex)
            stored = await self._publisher.publish_bytes(digest, data, () if name is None else (name,))
            self._ended = True
            return stored
        finally:
            self.abort()

    def abort(self) -> None:
        """See :meth:`IBlobWriter.abort`."""
        if not self._ended:
            self._ended = True
            self._reservation.gave_up()
        self._pieces.clear()
        self._reservation.release()

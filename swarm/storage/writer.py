"""A PUT on its way to disk: bytes inline, hash behind them in a thread, name last.

Bytes go to the page cache in batches on the reactor's thread; a thread reads them back from there
and hashes, a piece at a time, following the written frontier. What publishing means is
:mod:`swarm.storage.publish`'s decision.
"""

from __future__ import annotations

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from zope.interface import implementer

from swarm.errors import DigestMismatch, LengthMismatch, LocalError, StoreFailed
from swarm.hashing import Hasher
from swarm.interfaces import IBlobWriter, Stored
from swarm.model.digest import Digest
from swarm.model.filenames import Filename
from swarm.storage.disk import Disk, write_all
from swarm.storage.publish import Publisher
from swarm.storage.settings import StoreSettings
from swarm.storage.steps import Temporary
from swarm.storage.volume import Reservation, Volume
from swarm.storage.work import Work

#: A thread hashes this much before it reports back, so that a waiting sender learns of progress.
_TURN = 16 << 20
#: Less than this is not worth waking a thread for.
_WORTHWHILE = 1 << 20


@implementer(IBlobWriter)
@define(eq=False)
class BlobWriter:
    """One write. Made by :meth:`FilesystemStore.writer`."""

    _temporary: Temporary
    _length: int | None
    _expect: Digest | None
    _reservation: Reservation
    _hasher: Hasher
    _publisher: Publisher
    _volume: Volume
    _disk: Disk
    _work: Work
    _settings: StoreSettings
    received: int = 0
    _written: int = 0
    _batch: list[bytes] = field(factory=list)
    _failure: LocalError | None = None
    _ended: bool = False
    _turn: Deferred[None] | None = None
    _waiting: list[Deferred[None]] = field(factory=list)

    # -- taking bytes ---------------------------------------------------------

    def write(self, data: bytes) -> None:
        """See :meth:`IBlobWriter.write`."""
        self._check()
        received = self.received + len(data)
        if self._length is not None and received > self._length:
            self._fail(LengthMismatch(f"more than the declared {self._length} bytes"))
        if self._length is None:
            try:
                self._reservation.grow(len(data))
            except LocalError as e:
                self._fail(e)
        self.received = received
        self._batch.append(data)
        if received - self._written >= self._settings.batch:
            self._flush()
            self._follow()

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure
        if self._ended:
            raise StoreFailed("the write is over")

    def _fail(self, error: LocalError) -> None:
        self._failure = error
        raise error

    def _flush(self) -> None:
        batch, self._batch = self._batch, []
        try:
            with self._volume.guard("writing new bytes"):
                self._volume.check_writable()
                self._written += write_all(self._disk, self._temporary.file.number, batch, self._written)
        except LocalError as e:
            self._fail(e)

    # -- hashing --------------------------------------------------------------

    def _follow(self) -> None:
        if self._turn is None and self._written - self._hasher.size >= _WORTHWHILE:
            self._turn = Deferred.fromCoroutine(self._work.in_thread(self._hash, _TURN))
            self._turn.addBoth(self._turned)

    def _hash(self, most: int) -> None:
        """Hash what is written and not hashed yet, ``most`` bytes at a time. Blocks."""
        with self._temporary.file.held() as fd, self._volume.guard("reading new bytes back", write=False):
            while count := min(self._written - self._hasher.size, most):
                self._hasher.update_from(fd, count)
                most -= count

    def _turned(self, result: Failure | None) -> None:
        self._turn = None
        if isinstance(result, Failure) and self._failure is None:
            error = result.value
            self._failure = error if isinstance(error, LocalError) else StoreFailed(str(error))
        if not self._ended and self._failure is None:
            self._follow()
        if self._turn is None or not self.lagging():
            waiting, self._waiting = self._waiting, []
            for each in waiting:
                each.callback(None)

    def lagging(self) -> bool:
        """See :meth:`IBlobWriter.lagging`."""
        if self._ended or self._turn is None:
            return False
        return self.received - self._hasher.size > self._settings.lag

    async def caught_up(self) -> None:
        """See :meth:`IBlobWriter.caught_up`."""
        while self.lagging():
            await self._wait()

    async def _wait(self) -> None:
        turned: Deferred[None] = Deferred()
        self._waiting.append(turned)
        try:
            await turned
        finally:
            if turned in self._waiting:
                self._waiting.remove(turned)

    # -- the end --------------------------------------------------------------

    async def finish(self, name: Filename | None = None) -> Stored:
        """See :meth:`IBlobWriter.finish`."""
        try:
            self._check()
            if self._length is not None and self.received != self._length:
                raise LengthMismatch(f"{self.received} bytes instead of the declared {self._length}")
            while self._turn is not None:
                await self._wait()
            self._check()
            self._flush()
            await self._work.in_thread(self._hash, self.received)
            digest = self._hasher.digest()
            if self._expect is not None and digest != self._expect:
                raise DigestMismatch(self._expect.hex, digest.hex)
            names = () if name is None else (name,)
            return await self._publisher.publish(
                digest, self.received, self._temporary.file, self._hasher.midstates(), names
            )
        finally:
            self.abort()

    def abort(self) -> None:
        """See :meth:`IBlobWriter.abort`."""
        if not self._ended:
            self._ended = True
            self._batch.clear()
            self._reservation.release()
            self._publisher.throw_away(self._temporary)
            waiting, self._waiting = self._waiting, []
            for each in waiting:
                each.callback(None)

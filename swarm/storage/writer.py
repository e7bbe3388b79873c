"""A PUT on its way to disk: bytes inline, their hash and the disk behind them in threads, name last.

Bytes go to the page cache in batches on the reactor's thread. Two threads follow, each a turn at a time:

* one hashes the very bytes that came, from memory. Reading them back from the page cache took 10 % more
  CPU, and the serial hash is what a large PUT waits for;
* one has the kernel write what has come, so that little is left for the fsync at the end, and the page
  cache never grows so full of ours that a write on the reactor's thread would have to wait.

When either is too far behind, the sender is asked to pause: what is held in memory, and what is dirty, has
a limit. At the end the fsync goes on beside the last of the hash. What publishing means is
:mod:`swarm.storage.publish`'s decision.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure
from zope.interface import implementer

from swarm.errors import DigestMismatch, LengthMismatch, LocalError, StoreFailed
from swarm.hashing import Hasher
from swarm.interfaces import IBlobWriter, Stored
from swarm.model.digest import Digest
from swarm.model.filenames import Filename
from swarm.services.tasks import gather, sleep
from swarm.storage.disk import Disk, write_all
from swarm.storage.publish import Publisher
from swarm.storage.settings import StoreSettings
from swarm.storage.steps import Temporary
from swarm.storage.volume import Reservation, Volume
from swarm.storage.work import Work

#: A thread hashes no more than this before others have their turn with it.
_TURN = 64 << 20
#: A sender that was held up looks this often whether it may go on, in seconds. Shorter turns instead would
#: leave the hash idle between two of them: 130 times a GiB, and half a millisecond or more each.
_LOOK = 0.002
#: Less than this is not worth waking a thread for.
_WORTHWHILE = 1 << 20
#: The kernel is asked to write this much at a time.
_WINDOW = 8 << 20


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
    _clock: IReactorTime
    received: int = 0
    _written: int = 0
    _written_out: int = 0
    _batch: list[bytes] = field(factory=list)
    _unhashed: deque[bytes] = field(factory=deque)
    _failure: LocalError | None = None
    _ended: bool = False
    _finishing: bool = False
    _hashing: bool = False
    _writing_out: bool = False
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
        self._unhashed.extend(batch)

    # -- the threads behind ---------------------------------------------------

    def _follow(self) -> None:
        if not self._hashing and self._written - self._hasher.size >= _WORTHWHILE:
            self._hashing = True
            self._start(self._hash, _TURN).addBoth(self._hashed)
        behind = self._written - self._written_out
        if behind >= _WINDOW and not self._writing_out and not self._finishing:
            self._writing_out = True
            self._start(self._write_out, self._written).addBoth(self._wrote_out)

    def _start(self, turn: Callable[[int], None], count: int) -> Deferred[None]:
        return Deferred.fromCoroutine(self._work.in_thread(turn, count))

    def _hash(self, most: int) -> None:
        """Hash what came and is not hashed yet, ``most`` bytes or a little more. Blocks."""
        while most > 0:
            try:
                piece = self._unhashed.popleft()
            except IndexError:
                return
            self._hasher.update(piece)
            most -= len(piece)

    def _write_out(self, stop: int) -> None:
        """Have everything before ``stop`` written. Blocks."""
        with self._temporary.file.held() as fd, self._volume.guard("writing out new bytes", sync=True):
            # An error is told only once: after this one no fsync would know of it.
            self._disk.write_out(fd, self._written_out, stop - self._written_out)
        self._written_out = stop

    def _hashed(self, result: Failure | None) -> None:
        self._hashing = False
        self._turned(result)

    def _wrote_out(self, result: Failure | None) -> None:
        self._writing_out = False
        self._turned(result)

    def _turned(self, result: Failure | None) -> None:
        if isinstance(result, Failure) and self._failure is None:
            error = result.value
            self._failure = error if isinstance(error, LocalError) else StoreFailed(str(error))
        if not self._ended and self._failure is None:
            self._follow()
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            each.callback(None)

    def lagging(self) -> bool:
        """See :meth:`IBlobWriter.lagging`."""
        if self._ended or self._failure is not None:
            return False
        return (self._hashing and self.received - self._hasher.size > self._settings.lag) or (
            self._writing_out and self._written - self._written_out > self._settings.unwritten
        )

    async def caught_up(self) -> None:
        """See :meth:`IBlobWriter.caught_up`."""
        while self.lagging():
            await sleep(self._clock, _LOOK)

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
            self._flush()
            self._finishing = True
            syncing = self._work.in_thread(self._publisher.sync, self._temporary.file)
            for outcome in await gather([self._hash_rest(), syncing]):
                if isinstance(outcome, Failure):
                    outcome.raiseException()
            digest = self._hasher.digest()
            if self._expect is not None and digest != self._expect:
                raise DigestMismatch(self._expect.hex, digest.hex)
            names = () if name is None else (name,)
            return await self._publisher.publish(
                digest, self.received, self._temporary.file, self._hasher.midstates(), names
            )
        finally:
            self.abort()

    async def _hash_rest(self) -> None:
        # An error that a write-out was told is kept from the fsync: not a word before it is back.
        while self._hashing or self._writing_out:
            await self._wait()
        await self._work.in_thread(self._hash, self.received)
        self._check()

    def abort(self) -> None:
        """See :meth:`IBlobWriter.abort`."""
        if not self._ended:
            self._ended = True
            self._batch.clear()
            self._unhashed.clear()
            self._reservation.release()
            self._publisher.throw_away(self._temporary)
            self._reservation.gave_up()
            waiting, self._waiting = self._waiting, []
            for each in waiting:
                each.callback(None)

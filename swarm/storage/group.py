"""Who waits to be committed while a commit is under way goes along with the next one.

Nobody waits for company: a blob that comes alone is committed at once. Under load the commits grow by
themselves, since more comes in while one lasts. For a blob alone, and where one sync for all is no good,
files and directories are synced at the same time: the kernel, too, makes one flush of several that wait.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from swarm.interfaces import Stored
from swarm.services.tasks import gather
from swarm.storage.commit import Candidate
from swarm.storage.work import Work

#: Most blobs of one commit: each keeps a descriptor open, and the first waits for the last.
_MOST = 64

#: Syncs at the same time; the other threads are for whoever reads.
_AT_ONCE = 12


@define(eq=False)
class Group:
    """The queue. Its functions block; those that commit give each candidate an outcome."""

    _together: Callable[[Sequence[Candidate]], bool]
    """False: it did nothing, since it is no good now."""
    _steps: Callable[[Sequence[Candidate]], Generator[Sequence[Callable[[], None]], None, None]]
    """What to do instead: each step blocks, and gives syncs to be done before the next."""
    _work: Work
    _waiting: list[tuple[Candidate, Deferred[None]]] = field(factory=list)
    _busy: bool = False

    async def join(self, candidate: Candidate) -> Stored:
        """
        Commit it with whoever else is waiting; the caller keeps others away from its blob.

        :raises StorageFull, VolumeReadOnly, StoreFailed: it is no blob.
        """
        done: Deferred[None] = Deferred()
        self._waiting.append((candidate, done))
        if not self._busy:
            Deferred.fromCoroutine(self._work_off())  # it raises nothing: who waits hears of everything
        await done
        return candidate.outcome()

    async def _work_off(self) -> None:
        self._busy = True
        try:
            while self._waiting:
                batch, self._waiting = self._waiting[:_MOST], self._waiting[_MOST:]
                await self._commit(batch)
        finally:
            self._busy = False

    async def _commit(self, batch: Sequence[tuple[Candidate, Deferred[None]]]) -> None:
        candidates = [candidate for candidate, _ in batch]
        try:
            if not await self._as_one(candidates):
                await self._apart(candidates)
        except BaseException:  # whatever it is, it is theirs
            failure = Failure()
            for _, done in batch:
                done.errback(failure)
        else:
            for _, done in batch:
                done.callback(None)

    async def _as_one(self, candidates: Sequence[Candidate]) -> bool:
        if len(candidates) == 1:
            return False  # the volume would be synced for one
        return await self._work.in_thread(self._together, candidates)

    async def _apart(self, candidates: Sequence[Candidate]) -> None:
        """Each file and directory is synced by itself, several at the same time."""
        steps = self._steps(candidates)
        try:
            while syncs := await self._work.in_thread(_advance, steps):
                shares = [syncs[first::_AT_ONCE] for first in range(min(_AT_ONCE, len(syncs)))]
                for outcome in await gather(self._work.in_thread(_all, share) for share in shares):
                    if isinstance(outcome, Failure):
                        outcome.raiseException()
        except BaseException:  # a step or a sync failed in a way nobody foresaw; nothing half-made stays
            await self._work.in_thread(steps.close)
            raise


def _advance(steps: Iterator[Sequence[Callable[[], None]]]) -> Sequence[Callable[[], None]]:
    """Take steps until there are syncs for several threads; none when all steps are taken."""
    for syncs in steps:
        if len(syncs) > 1:
            return syncs
        _all(syncs)
    return ()


def _all(syncs: Sequence[Callable[[], None]]) -> None:
    for sync in syncs:
        sync()

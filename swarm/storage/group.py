"""Who waits to be committed while a commit is under way goes along with the next one.

Nobody waits for company: a blob that comes alone is committed at once. Under load the commits grow by
themselves, since more comes in while one lasts. Where going together is no good, each goes alone, at the
same time as the others: the kernel, too, makes one flush of several that wait.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from attrs import define, field
from twisted.internet.defer import Deferred, DeferredList
from twisted.python.failure import Failure

from swarm.interfaces import Stored
from swarm.storage.commit import Candidate
from swarm.storage.work import Work

#: Most blobs of one commit: each keeps a descriptor open, and the first waits for the last.
_MOST = 64


@define(eq=False)
class Group:
    """The queue. Both functions block and give each candidate an outcome."""

    _together: Callable[[Sequence[Candidate]], bool]
    """False: it did nothing, since it is no good now."""
    _alone: Callable[[Candidate], None]
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
        if len(batch) > 1:
            candidates = [candidate for candidate, _ in batch]
            try:
                if await self._work.in_thread(self._together, candidates):
                    for _, done in batch:
                        done.callback(None)
                    return
            except BaseException:  # whatever it is, it is theirs
                failure = Failure()
                for _, done in batch:
                    done.errback(failure)
                return
        alone = [Deferred.fromCoroutine(self._work.in_thread(self._alone, each)) for each, _ in batch]
        for (_, done), committing in zip(batch, alone, strict=True):
            committing.chainDeferred(done)
        await DeferredList(alone)

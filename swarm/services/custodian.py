"""Looks after the copies this node has: re-verifies what a peer says is bad, and heals it.

Decides only the pace. A reported blob is verified at most once in a while, whoever reports it, so
that reports cannot be used to keep the disk busy; a damaged copy went to quarantine by then
(``IBlobStore.verify``) and is pulled again, for a day if nobody can give it now.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from attrs import frozen
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from swarm.errors import BlobMissing, SwarmError
from swarm.interfaces import IBlobStore
from swarm.model.digest import Digest
from swarm.model.peers import PeerID
from swarm.services.tasks import Tasks, sleep


@frozen
class CustodianSettings:
    """Limits on advisories; seconds and counts."""

    recheck_after: float = 300.0  # an undamaged blob is not verified again within this time
    at_once: int = 64  # reports waiting; more are dropped, the reporter will meet the blob again
    heal_again: float = 30.0  # a damaged blob that could not be pulled is tried again then, and
    heal_pause: float = 3600.0  # after twice as long each time, up to this,
    heal_for: float = 86400.0  # for so long


class Custodian:
    """I verify suspected blobs one after another."""

    log = Logger()

    def __init__(
        self,
        store: IBlobStore,
        pull: Callable[[Digest], Awaitable[object]],
        settings: CustodianSettings,
        *,
        clock: IReactorTime,
        tasks: Tasks,
    ) -> None:
        self._store = store
        self._pull = pull
        self._settings = settings
        self._clock = clock
        self._tasks = tasks
        self._verified: dict[Digest, float] = {}
        self._queue: dict[Digest, str] = {}
        self._healing: dict[Digest, None] = {}
        self._busy = False

    def suspect(self, digest: Digest, reporter: PeerID, reason: str) -> None:
        """A peer says our copy is bad: verify it soon."""
        now = self._clock.seconds()
        for known in [d for d, at in self._verified.items() if now - at > self._settings.recheck_after]:
            del self._verified[known]
        if digest in self._verified or digest in self._queue or len(self._queue) >= self._settings.at_once:
            return
        self.log.warn(
            "{reporter} says our copy of {digest} is bad: {reason}",
            reporter=reporter.short,
            digest=digest.short,
            reason=reason,
        )
        self._queue[digest] = reason
        if not self._busy:
            self._busy = True
            self._tasks.start("verifying suspected blobs", self._work())

    def forget(self, digest: Digest) -> None:
        """The blob is being deleted: it is not to be healed any more."""
        self._healing.pop(digest, None)

    async def _work(self) -> None:
        try:
            while self._queue:
                digest = next(iter(self._queue))
                try:
                    await self._examine(digest)
                finally:
                    self._queue.pop(digest, None)
        finally:
            self._busy = False

    async def _examine(self, digest: Digest) -> None:
        try:
            good = await self._store.verify(digest)
        except BlobMissing:
            return
        except SwarmError as e:
            self.log.error("cannot verify {digest}: {error}", digest=digest.short, error=e)
            return
        self._verified[digest] = self._clock.seconds()
        if good:
            self.log.info("our copy of {digest} is good", digest=digest.short)
            return
        self.log.error("our copy of {digest} was damaged; pulling it again", digest=digest.short)
        if not await self._healed(digest) and digest not in self._healing:
            self._healing[digest] = None
            self._tasks.start("healing a damaged blob", self._go_on(digest))

    async def _go_on(self, digest: Digest) -> None:
        """Others may be down, or their disks failing, just now; that there are copies was promised."""
        pause, until = self._settings.heal_again, self._clock.seconds() + self._settings.heal_for
        while self._clock.seconds() < until:
            await sleep(self._clock, pause)
            if digest not in self._healing or await self._healed(digest):
                break
            pause = min(2 * pause, self._settings.heal_pause)
        else:
            self.log.error("gave up healing {digest}", digest=digest.short)
        self._healing.pop(digest, None)

    async def _healed(self, digest: Digest) -> bool:
        try:
            await self._pull(digest)
        except SwarmError as e:
            self.log.error("cannot heal {digest} yet: {error}", digest=digest.short, error=e)
            return False
        return True

"""Gives a blob its copies: asks the chosen peers, pushes where the answer is 404, remembers what is missing.

Decides how long a PUT waits for copies and when to try again later. Which peers come first is
``core.placement``, what to do next ``core.replication``. A copy counts once its peer took it from us and said
that it is verified and durable, or said that it was there and showed it (``challenging``).
Receiving a push never leads to another one, so nothing goes round in circles.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

from attrs import frozen
from twisted.internet.defer import TimeoutError as TookTooLong
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from swarm.core.placement import order
from swarm.core.replication import Copy, Hints, plan, target
from swarm.errors import LocalError, SwarmError
from swarm.interfaces import BlobInfo, IBlobReader, IBlobStore, IHintStore, IPeerClient, ITombstones
from swarm.model.digest import Digest
from swarm.model.holdings import Holding
from swarm.model.peers import Peer, PeerID
from swarm.services.challenging import Challenger
from swarm.services.fanout import SharedReads
from swarm.services.membership import Membership
from swarm.services.tasks import Signal, Tasks, gather, sleep, within


@frozen
class ReplicationSettings:
    """Seconds and counts."""

    answer_within: float = 30.0  # a PUT waits this long for its copies, and
    answer_rate: float = 4 << 20  # longer for large blobs: one second more per so many bytes
    hints_at_once: int = 4
    tick: float = 1.0
    challenge: float = 10.0  # who says it has the blob shows bytes of it within this, or does not count


@frozen
class Replication:
    """How far it got. ``holders`` are node names, this node's first."""

    holders: tuple[str, ...]
    wanted: int
    reached: bool


@frozen
class Location:
    """One node that has the blob; ``state`` is ``complete`` or ``partial``."""

    name: str
    peer_id: PeerID
    state: str
    public_url: str


class Replicator:
    """I own all replications of this node."""

    log = Logger()

    def __init__(
        self,
        store: IBlobStore,
        hints: IHintStore,
        tombstones: ITombstones,
        client: IPeerClient,
        membership: Membership,
        challenger: Challenger,
        settings: ReplicationSettings,
        *,
        name: str,
        me: Callable[[], PeerID],
        public_url: Callable[[], str],
        copies: int,
        clock: IReactorTime,
        random: Random,
        tasks: Tasks,
    ) -> None:
        self._store = store
        self._hint_store = hints
        self._tombstones = tombstones
        self._client = client
        self._membership = membership
        self._challenger = challenger
        self._settings = settings
        self._name = name
        self._me = me
        self._public_url = public_url
        self._copies = copies
        self._clock = clock
        self._random = random
        self._tasks = tasks
        self._hints = Hints()
        self._jobs: dict[Digest, _Job] = {}

    async def replicate(self, info: BlobInfo) -> Replication:
        """
        A blob was put here: get it its copies.

        Waits until enough are confirmed, nobody is left to ask, or time is up; in the latter cases a
        durable hint makes this node try again, and pushes under way go on.
        """
        digest = info.digest
        await self._tombstones.revive(digest, self._tombstones.generation(digest))
        wanted = target(self._copies, self._membership.expected())
        if wanted <= 1 and digest not in self._jobs:  # ours is all there is to have
            return Replication((self._name,), wanted, True)
        job = self._start(info, wanted)
        if not job.over:
            patience = self._settings.answer_within + info.size / self._settings.answer_rate
            try:
                await within(self._clock, patience, job.ended())
            except TookTooLong:
                self.log.info("{digest}: copies take longer, answering now", digest=digest.short)
                await self._remember(digest, wanted)
        return Replication(job.holders, wanted, job.reached)

    async def locations(self, digest: Digest) -> tuple[Location, ...]:
        """Ask everybody who has it now; this node included. Those who don't answer are left out."""
        found = []
        if await self._store.stat(digest) is not None:
            found.append(Location(self._name, self._me(), "complete", self._public_url()))
        peers = self._membership.live()
        for peer, holding in zip(
            peers, await gather(self._client.locate(peer, digest) for peer in peers), strict=True
        ):
            if not isinstance(holding, Holding):
                continue
            state = "complete" if holding.complete else "partial"
            found.append(Location(peer.name, peer.id, state, peer.public_url))
        return tuple(found)

    def peer_came(self, peer: Peer) -> None:
        """Somebody joined or came back: hints that waited for one are due soon."""
        self._hints.peer_came(self._clock.seconds(), random=self._random)

    async def deliver_hints(self) -> None:
        """Work off durable hints for ever; ends only by cancellation."""
        now = self._clock.seconds()
        for digest, copies in await self._pending():
            self._hints.add(digest, copies, now)
        while True:
            now = self._clock.seconds()
            due = self._hints.due(now, self._settings.hints_at_once)
            for outcome in await gather(self._deliver(digest, copies) for digest, copies in due):
                if isinstance(outcome, Failure):
                    self.log.failure("delivering a hint", failure=outcome)
            await sleep(self._clock, self._settings.tick)

    async def _pending(self) -> Sequence[tuple[Digest, int]]:
        while True:
            try:
                return await self._hint_store.pending()
            except LocalError as e:
                self.log.error("cannot read which blobs lack copies: {error}", error=e)
            await sleep(self._clock, self._settings.answer_within)

    @property
    def hints_pending(self) -> int:
        """How many blobs lack copies."""
        return len(self._hints)

    async def _remember(self, digest: Digest, wanted: int) -> None:
        """Note durably that the blob lacks copies."""
        await self._hint_store.add(digest, wanted)
        self._hints.add(digest, wanted, self._clock.seconds())

    async def _deliver(self, digest: Digest, copies: int) -> None:
        try:
            info = await self._store.stat(digest)
            if info is not None and not self._tombstones.buried(digest):
                # Peers may have come or gone since; never fewer than it lacked then.
                job = self._start(info, max(2, min(copies, target(copies, self._membership.expected()))))
                await job.ended()
                if not job.reached:
                    return
                self.log.info("{digest}: copies reached late", digest=digest.short)
            self._hints.done(digest)
            await self._hint_store.remove(digest)
        except LocalError as e:
            self.log.error("cannot replicate {digest} now: {error}", digest=digest.short, error=e)
            self._hints.failed(digest, self._clock.seconds(), random=self._random)

    def _start(self, info: BlobInfo, wanted: int) -> _Job:
        job = self._jobs.get(info.digest)
        if job is None or job.wanted < wanted:
            job = _Job(self, info, wanted)
            self._jobs[info.digest] = job
            self._tasks.start("replicating", job.run())
        return job


class _Job:
    """One round for one blob: ask and push until enough copies are confirmed or nobody is left."""

    def __init__(self, replicator: Replicator, info: BlobInfo, wanted: int) -> None:
        self.wanted = wanted
        self.over = False
        self.reached = False
        self._replicator = replicator
        self._info = info
        self._generation = replicator._tombstones.generation(info.digest)  # of the copy that is pushed
        self._copies: dict[PeerID, Copy] = {}
        self._peers: dict[PeerID, Peer] = {}
        self._changed = Signal()
        self._ended = Signal()
        self._reader: IBlobReader | None = None
        self._reads: SharedReads | None = None

    @property
    def holders(self) -> tuple[str, ...]:
        """Names of the nodes that confirmed, this one first."""
        confirmed = (peer for peer, copy in self._copies.items() if copy is Copy.HOLDING)
        return (self._replicator._name, *(self._peers[peer].name for peer in confirmed))

    async def ended(self) -> None:
        """Wait for the outcome."""
        if not self.over:
            await self._ended.wait()

    async def run(self) -> None:
        """See the class."""
        replicator, digest = self._replicator, self._info.digest
        work = Tasks()
        try:
            while True:
                changed = self._changed.wait()  # from here on: who is barred fails at once
                self._peers |= {peer.id: peer for peer in replicator._membership.live()}
                candidates = order(digest, self._peers)
                step = plan(self.wanted, candidates, self._copies)
                if step.reached or step.exhausted:
                    self.reached = step.reached
                    return
                for peer in step.ask:
                    self._copies[peer] = Copy.ASKING
                    work.start("asking for a copy", self._ask(self._peers[peer]))
                if step.push:
                    await self._open()
                for peer in step.push:
                    self._copies[peer] = Copy.PUSHING
                    work.start("pushing", self._push(self._peers[peer]))
                await changed
        except LocalError as e:
            replicator.log.warn("cannot replicate {digest}: {error}", digest=digest.short, error=e)
        finally:
            await work.stop()
            if self._reader is not None:
                self._reader.close()
            if replicator._jobs.get(digest) is self:
                del replicator._jobs[digest]
            try:
                await self._settle()
            finally:
                self.over = True
                self._ended.fire()

    async def _settle(self) -> None:
        """Leave a hint before anybody hears that there are too few copies."""
        replicator, digest = self._replicator, self._info.digest
        if self.reached:
            return
        try:
            await replicator._remember(digest, self.wanted)
        except LocalError as e:
            replicator.log.error(
                "{digest} lacks copies and that cannot be noted: {error}", digest=digest.short, error=e
            )
        replicator._hints.failed(digest, replicator._clock.seconds(), random=replicator._random)

    async def _open(self) -> SharedReads:
        if self._reads is None:
            reader = await self._replicator._store.open(self._info.digest)
            if self._reads is None:
                self._reader, self._reads = reader, SharedReads(reader)
            else:
                reader.close()  # another was opened meanwhile
        return self._reads

    async def _ask(self, peer: Peer) -> None:
        replicator, digest, outcome = self._replicator, self._info.digest, Copy.FAILED
        try:
            if replicator._challenger.barred(peer.id, digest) is None:
                holding = await replicator._client.locate(peer, digest)
                right = holding is not None and holding.complete and holding.size == self._info.size
                outcome = Copy.HOLDING if right and await self._shown(peer) else Copy.LACKING
                if replicator._challenger.barred(peer.id, digest) is not None:
                    outcome = Copy.FAILED
        except SwarmError as e:
            replicator.log.info("asking for a copy: {error}", error=e)
        finally:
            self._note(peer, outcome)

    async def _shown(self, peer: Peer) -> bool:
        """A peer says that it has the blob. Does it show that?"""
        return await self._replicator._challenger.holds(peer, self._info, (await self._open()).read)

    async def _push(self, peer: Peer) -> None:
        replicator, outcome = self._replicator, Copy.FAILED
        try:
            reads = await self._open()
            new = await replicator._client.push(peer, self._info, reads.read, self._generation)
            if new or await self._shown(peer):
                outcome = Copy.HOLDING
        except SwarmError as e:
            replicator.log.warn("pushing {digest}: {error}", digest=self._info.digest.short, error=e)
        finally:
            self._note(peer, outcome)

    def _note(self, peer: Peer, outcome: Copy) -> None:
        self._copies[peer.id] = outcome
        self._changed.fire()

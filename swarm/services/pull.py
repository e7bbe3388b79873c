"""One pull of one blob of one claimed size, from its first source to its publication.

Decides when what was verified is made durable and when a pull has waited long enough. What is asked
of whom is ``asking``'s, what is believed ``proving``'s. It ends in exactly one of: proven and
published; out of sources; a disk that refuses; stopped.
"""

from __future__ import annotations

from collections.abc import Callable

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from swarm.core.dispatch import Dispatch
from swarm.core.evidence import Proof
from swarm.core.shares import Share
from swarm.core.trust import Trust
from swarm.core.trust_whole import WholeTrust
from swarm.errors import LocalError, Overloaded, PullFailed
from swarm.interfaces import BlobInfo, IPartial, IPeerClient, Stored
from swarm.model.digest import Digest
from swarm.model.holdings import Holding
from swarm.model.peers import Peer, PeerID
from swarm.model.ranges import ByteRange, RangeSet
from swarm.services.ahead import Ahead
from swarm.services.asking import Asking
from swarm.services.passing import PassingReader
from swarm.services.progress import Counters, GrainWatch, PullProgress, SourceProgress
from swarm.services.proving import Proving
from swarm.services.reading import PullReader
from swarm.services.saving import Saving
from swarm.services.sources import Sources
from swarm.services.tasks import Signal, Tasks, sleep


@frozen
class PullSettings:
    """Limits of one pull; bytes and seconds."""

    reader_window: int = 8 << 20  # how far ahead of a reader the front of the queue reaches
    unhashed_limit: int = 64 << 20  # bytes on disk and not yet hashed; past it nothing is read from peers
    checkpoint_every: float = 2.0  # a journal record is due after this,
    checkpoint_bytes: int = 16 << 20  # or when so much is verified; past
    unsaved_limit: int = 48 << 20  # on disk without a durable record, nothing is read from peers
    patience: float = 30.0  # without one byte or verdict, before the pull gives up
    parole_patience: float = 10.0  # the same, before the one peer on parole is replaced
    lists_wanted: int = 2  # midstate lists to compare (ANCHORS D7)


class Pull:
    """
    I run until :attr:`outcome` fires; then :meth:`stop` me.

    :ivar outcome: what was stored; None: see ``error``.
    """

    log = Logger()

    def __init__(
        self,
        partial: IPartial,
        dispatch: Dispatch,
        trust: Trust | WholeTrust,
        client: IPeerClient,
        settings: PullSettings,
        *,
        clock: IReactorTime,
        counters: Counters,
        convict: Callable[[Peer, Proof], None],
        delivered: Callable[[PeerID, bool], None],
        watch: GrainWatch,
        ahead: Ahead | None = None,
    ) -> None:
        """:param ahead: a lane on which the bytes that will be wanted first were asked before."""
        self.digest: Digest = partial.digest
        self.grains = partial.grains
        self.error: LocalError | None = None
        self.outcome: Deferred[Stored | None] = Deferred()
        self._started = clock.seconds()
        self._partial = partial
        self._dispatch = dispatch
        self._settings = settings
        self._clock = clock
        self._counters = counters
        self._convict = convict
        self._tasks = Tasks()
        self._changed = Signal()
        self._readers: dict[object, PullReader | PassingReader] = {}
        self._verified = RangeSet()
        self._servable: RangeSet | None = None  # a copy of it, until it changes
        self._held = False
        self._expected = False  # is it known where a reader will begin?
        self._judged = clock.seconds()
        self._publishing = False
        self._published = False
        self._stopped = False
        self._saved = False
        self._sources = Sources()
        self._unfit: set[PeerID] = set()
        self._told: dict[PeerID, float] = {}  # when each said last what it has
        self._saving = Saving(
            partial,
            every=settings.checkpoint_every,
            bytes_=settings.checkpoint_bytes,
            clock=clock,
            tasks=self._tasks,
            saved=self._balance,
            failed=self.fail,
        )
        self._proving = Proving(
            partial,
            dispatch,
            trust,
            client,
            self._sources,
            self,
            lists_wanted=settings.lists_wanted,
            clock=clock,
            tasks=self._tasks,
            counters=counters,
            backlog=self._balance,
            watch=watch,
            early={} if ahead is None else ahead.lists,
        )
        self._asking = Asking(
            partial,
            dispatch,
            client,
            self._sources,
            clock=clock,
            tasks=self._tasks,
            counters=counters,
            arrived=self._proving.check_soon,
            unfit=self._exclude,
            failed=self.fail,
            delivered=delivered,
            told=self._hear,
            ahead=ahead,
        )

    # -- what it is told ------------------------------------------------------------------

    def begin(self) -> None:
        """
        Start: re-verify what the journal names, and fetch what it doesn't.

        Before the first :meth:`add`, so that nothing is asked for that is here.
        """
        for grain in self._partial.journaled:
            self._dispatch.arrived(grain)
            self._proving.recheck_soon(grain)
        self._tasks.start("checkpoints", self._saving.run())
        self._tasks.start("waiting for too long", self._watch())
        if not self.grains.size:
            self._proving.check_soon(0)
        self._asking.pump()

    def add(self, holding: Holding) -> None:
        """A peer claims to hold (some of) the blob, or more of it than before."""
        peer = holding.peer.id
        if self._stopped or holding.size != self.grains.size:
            return
        if peer in self._unfit or peer in self._proving.trust.convicted:
            return
        self._sources.add(holding)
        self._told[peer] = self._clock.seconds()
        if self._proving.claim(peer, holding.have):
            self._dispatch.add_source(peer, self._clock.seconds(), holding.have)
            if holding.given is not None:
                self._dispatch.gave(peer, holding.given)
        (self._asking.pump if self._expected else self._asking.pump_soon)()

    def _hear(self, peer: PeerID, have: RangeSet | None, given: RangeSet | None) -> None:
        """A peer answers. If it is a relay it is known for one before anything else, its bytes come next."""
        self._told[peer] = self._clock.seconds()
        if have is not None:
            self._proving.trust.claim(peer, complete=False)
        if peer in self._sources.haves and self._sources.haves[peer] != have:
            self._sources.haves[peer] = have
            if self._proving.claim(peer, have):
                self._dispatch.add_source(peer, self._clock.seconds(), have)
            else:
                self._dispatch.update_source(peer, have)
            self._asking.pump_soon()
        if given is not None:
            self._dispatch.gave(peer, given)

    def returned(self, peer: PeerID) -> None:
        """A peer that was away is back."""
        self._dispatch.returned(peer, self._clock.seconds())
        self._asking.pump_soon()

    def lose(self, peer: PeerID, reason: str) -> None:
        """A peer has it no more."""
        if peer in self._sources.haves:
            del self._sources.haves[peer]
            self._sources.note(peer, reason)
            self._dispatch.remove_source(peer, self._clock.seconds())
            self._asking.hang_up(peer)

    def _exclude(self, peer: PeerID, reason: str) -> None:
        """A peer has not what it says it has: out for this pull."""
        self._unfit.add(peer)
        self.lose(peer, reason)

    def expect(self, place: object, near: int) -> None:
        """Somebody will read from ``near`` on (from the end, if negative): first of all, until it leaves."""
        size = self.grains.size
        start = max(0, size + near) if near < 0 else near
        if start < size:
            self._expected = True
            self.want(place, ByteRange(start, min(size, start + self._settings.reader_window)))

    def reader(self) -> PullReader:
        """A new reader."""
        reader = PullReader(self, self._settings.reader_window)
        self._readers[reader] = reader
        return reader

    def passing_reader(self) -> PassingReader:
        """A new reader of what is :meth:`servable`, for a peer."""
        reader = PassingReader(self)
        self._readers[reader] = reader
        return reader

    async def stop(self, *, keep: bool = True) -> None:
        """End everything; what was verified stays on disk for the next start, unless it is not to be kept."""
        self._stopped = True
        if not self._published and self.error is None:
            self.error = Overloaded("the node is stopping")
            self._changed.fire()
        self._asking.stop()
        await self._tasks.stop()
        self._count_tally()
        try:
            await (self._partial.checkpoint() if keep and not self._worthless else self._partial.discard())
        except LocalError as e:
            self.log.warn("leaving {digest}: {error}", digest=self.digest.short, error=e)
        finally:
            self._saved = True
            self._close_if_unread()

    @property
    def _worthless(self) -> bool:
        """Did it fail without one verified byte? What peers claim must not occupy the disk for days."""
        return isinstance(self.error, PullFailed) and not (self._verified or self._partial.journaled)

    def fail(self, error: LocalError) -> None:
        """End with this error; readers get it."""
        if self.error is None and not self.outcome.called:
            self.error = error
            self._asking.stop()
            self.outcome.callback(None)
            self._changed.fire()

    # -- what is asked of it ----------------------------------------------------------------

    @property
    def starved(self) -> bool:
        """Is something missing that no known source can bring?"""
        return self._dispatch.starved and not self._asking.busy and not self._proving.busy

    @property
    def hungry(self) -> bool:
        """Could peers that pull the blob, too, bring more than is asked of them, if they had it?"""
        return self._dispatch.hungry

    @property
    def crowded(self) -> bool:
        """Do others pull the blob right now?"""
        return self._dispatch.crowded

    def share(self, share: Share) -> None:
        """Others pull the blob, too; see :mod:`swarm.core.shares`."""
        self._dispatch.share(share)

    def contest(self, contested: bool) -> None:
        """Do peers disagree about the size? Then the last grain, which proves it, comes first."""
        self._dispatch.contest(contested)

    def unheard(self, since: float) -> frozenset[PeerID]:
        """Partial sources that did not say since then what they have."""
        haves = self._sources.haves.items()
        return frozenset(
            peer for peer, have in haves if have is not None and self._told.get(peer, 0.0) <= since
        )

    @property
    def size_proven(self) -> bool:
        """Is the size more than a claim? It is hashed with the last grain."""
        return self._proving.trust.proven(self.grains.last)

    @property
    def complete_sources(self) -> frozenset[PeerID]:
        """Peers that need not be asked again what they have."""
        return self._sources.complete

    @property
    def sources(self) -> frozenset[PeerID]:
        """Peers that take part now."""
        return frozenset(self._sources.haves)

    @property
    def reasons(self) -> tuple[str, ...]:
        """What each peer that was of no use did, for people."""
        return self._sources.reasons

    def servable(self) -> RangeSet:
        """Bytes fit to be passed on to peers: whatever is accepted. The same set until it changes."""
        if self._servable is None:
            self._servable = self._verified.copy()
        return self._servable

    def progress(self) -> PullProgress:
        """A picture of this moment."""
        convicted = self._proving.trust.convicted
        return PullProgress(
            self.digest,
            self.grains.size,
            self._verified.total,
            self._proving.resumed,
            self._started,
            "failed" if self.error else "publishing" if self._publishing else "pulling",
            tuple(
                SourceProgress(
                    self._sources.peers[each.peer].name,
                    each.peer,
                    each.bytes,
                    each.rate,
                    "convicted" if each.peer in convicted else each.state,
                    self._sources.detail(each.peer),
                )
                for each in self._dispatch.sources(self._clock.seconds())
            ),
        )

    # -- what readers need (``reading.Arriving``) -----------------------------------------------

    @property
    def info(self) -> BlobInfo:
        """The blob as its sources describe it."""
        return BlobInfo(self.digest, self.grains.size, tuple(self._sources.names))

    def verified_to(self, offset: int) -> int:
        """See :class:`~swarm.services.reading.Arriving`."""
        return self._verified.end_of_run(offset)

    def released_to(self, offset: int) -> int:
        """See :class:`~swarm.services.reading.Arriving`."""
        end, proving = self._verified.end_of_run(offset), self._proving
        if end > offset and proving.comparing:
            for grain in self.grains.covering(ByteRange(offset, end)):
                if not proving.trust.vouched(grain):
                    return max(offset, self.grains.start(grain))
        return end

    def beyond_doubt(self, span: ByteRange) -> bool:
        """
        Bytes up to the end of the blob are, once proven; others, once their grains are trusted.

        So the whole blob ends with its proof; an index at its end, which players read first, does not
        wait for what is before it.
        """
        trust = self._proving.trust
        good = trust.proven if span.stop == self.grains.size else trust.trusted
        return all(good(grain) for grain in self.grains.covering(span))

    def want(self, reader: object, span: ByteRange) -> None:
        """See :class:`~swarm.services.reading.Arriving`."""
        self._dispatch.want(reader, span, self._clock.seconds())
        self._asking.pump()

    def changed(self) -> Deferred[None]:
        """See :class:`~swarm.services.reading.Arriving`."""
        return self._changed.wait()

    def read_now(self, offset: int, length: int) -> bytes | None:
        """See :class:`~swarm.services.reading.Arriving`."""
        return self._partial.read_now(offset, length)

    async def read(self, offset: int, length: int) -> bytes:
        """See :class:`~swarm.services.reading.Arriving`."""
        return await self._partial.read(offset, length)

    def leave(self, reader: object) -> None:
        """See :class:`~swarm.services.reading.Arriving`."""
        self._dispatch.unwant(reader)
        self._readers.pop(reader, None)
        self._close_if_unread()

    # -- what judgements lead to (``proving.Owner``) -----------------------------------------------

    def accepted(self, grain: int) -> None:
        """See :class:`~swarm.services.proving.Owner`."""
        self._verified.add(self.grains.start(grain), self.grains.stop(grain))
        self._servable = None

    def marked(self, grain: int) -> None:
        """See :class:`~swarm.services.proving.Owner`."""
        self._saving.marked(self.grains.length(grain))

    def taken_back(self, grain: int) -> None:
        """See :class:`~swarm.services.proving.Owner`."""
        start, stop = self.grains.start(grain), self.grains.stop(grain)
        self._verified.remove(start, stop)
        self._servable = None
        if start < stop:
            for reader in tuple(self._readers.values()):
                reader.taken_back(ByteRange(start, stop))

    def excluded(self, proof: Proof) -> None:
        """See :class:`~swarm.services.proving.Owner`."""
        self._convict(self._sources.peers[proof.peer], proof)

    def idle(self, peer: PeerID) -> None:
        """See :class:`~swarm.services.proving.Owner`."""
        self._asking.hang_up(peer)

    def judged(self) -> None:
        """See :class:`~swarm.services.proving.Owner`."""
        self._judged = self._clock.seconds()
        if self._proving.trust.complete and not self._publishing and self.error is None:
            self._publishing = True
            self._tasks.start("publishing", self._publish())
        self._changed.fire()
        if not self._publishing and self.error is None:
            if self._readers:
                self._asking.pump()
            else:
                self._asking.pump_soon()  # once for all that one trip to a thread found out

    # -- keeping ----------------------------------------------------------------------------------------

    def _balance(self) -> None:
        """Stop reading from peers while hashing or the disk cannot follow; go on when half is done."""
        settings, unhashed = self._settings, self._proving.unhashed
        unsaved = unhashed + self._saving.unsaved
        if not self._held and (unhashed > settings.unhashed_limit or unsaved > settings.unsaved_limit):
            self._held = True
            self._asking.hold()
        elif (
            self._held and unhashed <= settings.unhashed_limit // 2 and unsaved <= settings.unsaved_limit // 2
        ):
            self._held = False
            self._asking.release()

    async def _watch(self) -> None:
        """Give up after too long without a byte or a verdict."""
        settings, turned = self._settings, self._clock.seconds()
        while True:
            await sleep(self._clock, 1.0)
            now = self._clock.seconds()
            if self._proving.busy or self._publishing:
                self._judged = now
            quiet = now - max(self._asking.fed, self._judged)
            if quiet > settings.patience:
                self.fail(PullFailed(self.digest, self.reasons))
                return
            if min(quiet, now - turned) > settings.parole_patience:
                turned = now
                self._proving.next_sole()
                self._asking.pump()

    async def _publish(self) -> None:
        self._asking.stop()
        try:
            stored = await self._partial.publish(self._proving.trust.midstates(), tuple(self._sources.names))
        except LocalError as e:
            self.fail(e)
            return
        self._published = True
        if not self.outcome.called:
            self.outcome.callback(stored)
            self._changed.fire()

    def _count_tally(self) -> None:
        tally = self._dispatch.tally
        self._counters.bytes_duplicated += tally.duplicated
        self._counters.bytes_wasted += tally.wasted
        self._counters.spans_stolen += tally.steals
        self._counters.spans_hedged += tally.hedges
        self._counters.spans_doubled += tally.endgames
        self._counters.spans_taken_over += tally.takeovers
        self._counters.spans_aborted += tally.aborts

    def _close_if_unread(self) -> None:
        if self._saved and not self._readers:  # not while the last checkpoint needs the files
            self._partial.close()

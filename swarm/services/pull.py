"""One pull of one blob of one claimed size: lanes to peers, bytes to disk, grains to the verifier.

Decides nothing about what to ask of whom (``core.dispatch``), whom to believe (``core.trust``) or
where bytes lie (``IPartial``); it carries questions and answers between them. It ends in exactly one
of: proven and published; out of sources; a disk that refuses; stopped.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from attrs import frozen
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from swarm.core.dispatch import Abort, Dispatch, Shorten, Span
from swarm.core.evidence import Judgement, Proof
from swarm.core.trust import Trust
from swarm.core.trust_whole import WholeTrust
from swarm.errors import Fault, LocalError, PeerError, PullFailed
from swarm.interfaces import BlobInfo, ILane, IPartial, IPeerClient, Stored
from swarm.model.digest import Digest
from swarm.model.filenames import Filename
from swarm.model.holdings import Holding
from swarm.model.peers import Peer, PeerID
from swarm.model.ranges import ByteRange, RangeSet
from swarm.services.progress import Counters, PullProgress, SourceProgress
from swarm.services.reading import PullReader
from swarm.services.tasks import Signal, Tasks, sleep


@frozen
class PullSettings:
    """Limits of one pull; bytes and seconds."""

    reader_window: int = 8 << 20  # how far ahead of a reader the front of the queue reaches
    unverified_limit: int = 64 << 20  # bytes on disk and not yet hashed; past it lanes pause
    checkpoint_every: float = 2.0
    checkpoint_bytes: int = 64 << 20
    patience: float = 30.0  # without a source that delivers, before the pull gives up
    lists_wanted: int = 2  # midstate lists to compare (ANCHORS D7)


class Pull:
    """I run until :attr:`outcome` fires; then :meth:`stop` me."""

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
    ) -> None:
        self.digest: Digest = partial.digest
        self.size = partial.grains.size
        self.grains = partial.grains
        self.error: LocalError | None = None
        self.started = clock.seconds()
        self.readers: dict[PullReader, None] = {}
        self.outcome: Deferred[Stored | None] = Deferred()  # None: see `error`
        self._partial = partial
        self._dispatch = dispatch
        self._trust = trust
        self._client = client
        self._settings = settings
        self._clock = clock
        self._counters = counters
        self._convict = convict
        self._tasks = Tasks()
        self._changed = Signal()
        self._peers: dict[PeerID, Peer] = {}
        self._names: dict[Filename, None] = {}
        self._lanes: dict[PeerID, ILane] = {}
        self._haves: dict[PeerID, RangeSet | None] = {}  # of peers still to be asked
        self._asked: dict[int, PeerID] = {}  # spans under way
        self._users: Counter[ILane] = Counter()  # lanes, and how many spans are under way on each
        self._listed: set[PeerID] = set()
        self._listless: set[PeerID] = set()
        self._benched: set[PeerID] = set()  # suspended by the ledger, for now
        self._verified = RangeSet()
        self._undecided: set[int] = set()  # grains on disk, neither accepted nor rejected
        self._resumed = 0
        self._unverified = 0
        self._paused = False
        self._timer: IDelayedCall | None = None
        self._reasons: dict[PeerID, str] = {}
        self._fed = clock.seconds()
        self._stopped = False
        self._publishing = False
        self._proving = False
        self._since_checkpoint = 0

    # -- what it is told ------------------------------------------------------

    def begin(self) -> None:
        """Start: re-verify what the journal names, and fetch what it doesn't."""
        for grain in self._partial.journaled:
            self._dispatch.arrived(grain)
            self._tasks.start("re-verifying a journaled grain", self._recheck(grain))
        self._tasks.start("checkpoints", self._checkpoints())
        if not self.size:
            self._verify_soon(0)
        self._pump()

    def add(self, holding: Holding) -> None:
        """A peer claims to hold (some of) the blob, or more of it than before."""
        peer = holding.peer
        if self._stopped or holding.size != self.size or peer.id in self._trust.convicted:
            return
        self._trust.claim(peer.id, complete=holding.complete)
        self._names.update(dict.fromkeys(holding.names))
        self._peers[peer.id] = peer
        self._haves[peer.id] = holding.have
        on_parole = isinstance(self._trust, WholeTrust) and self._trust.failed
        if peer.id not in self._benched and not on_parole:
            self._dispatch.add_source(peer.id, self._clock.seconds(), holding.have)
        if holding.complete and len(self._listed) < self._settings.lists_wanted:
            self._fetch_list(peer.id)
        self._pump()

    def lose(self, peer: PeerID, reason: str) -> None:
        """A peer is gone, or no longer to be asked."""
        if peer not in self._haves:
            return
        del self._haves[peer]
        self._reasons[peer] = f"{self._peers[peer].name}: {reason}"
        self._dispatch.remove_source(peer, self._clock.seconds())
        self._hang_up(peer)

    @property
    def starved(self) -> bool:
        """Is something missing that no known source can bring?"""
        return self._dispatch.starved and not self._asked and not self._unverified

    @property
    def complete_sources(self) -> frozenset[PeerID]:
        """Peers that need not be asked again what they have."""
        return frozenset(peer for peer, have in self._haves.items() if have is None)

    def reader(self) -> PullReader:
        """A new reader."""
        reader = PullReader(self, self._settings.reader_window)
        self.readers[reader] = None
        return reader

    @property
    def reasons(self) -> tuple[str, ...]:
        """What each peer that is of no use did, for people."""
        return tuple(self._reasons.values())

    async def discard(self) -> None:
        """Once stopped: delete what came."""
        await self._partial.discard()

    async def stop(self) -> None:
        """End everything; what was verified stays on disk for the next start."""
        if not self._stopped:
            self._stopped = True
            if self._timer is not None and self._timer.active():
                self._timer.cancel()
            for peer in list(self._lanes):
                self._hang_up(peer)
            await self._tasks.stop()
        self._close_if_unread()

    def fail(self, error: LocalError) -> None:
        """End with this error; readers get it."""
        if self.error is None and not self.outcome.called:
            self.error = error
            self.outcome.callback(None)
            self._changed.fire()

    # -- what readers need (services.reading.Arriving) --------------------------

    @property
    def info(self) -> BlobInfo:
        """The blob as its sources describe it."""
        return BlobInfo(self.digest, self.size, tuple(self._names))

    def verified_to(self, offset: int) -> int:
        """See :class:`Arriving`."""
        return self._verified.end_of_run(offset)

    def beyond_doubt(self, span: ByteRange) -> bool:
        """See :class:`Arriving`: the end of the blob needs all of it proven, other bytes their grains."""
        if span.stop == self.size:
            return self._trust.complete
        return all(self._trust.trusted(grain) for grain in self.grains.covering(span))

    def want(self, reader: object, span: ByteRange) -> None:
        """See :class:`Arriving`."""
        self._dispatch.want(reader, span)
        self._pump()

    def changed(self) -> Deferred[None]:
        """See :class:`Arriving`."""
        return self._changed.wait()

    def read_now(self, offset: int, length: int) -> bytes | None:
        """See :class:`Arriving`."""
        return self._partial.read_now(offset, length)

    async def read(self, offset: int, length: int) -> bytes:
        """See :class:`Arriving`."""
        return await self._partial.read(offset, length)

    def leave(self, reader: object) -> None:
        """See :class:`Arriving`."""
        self._dispatch.unwant(reader)
        self.readers.pop(reader, None)  # type: ignore[call-overload]  # only readers of ours leave
        self._close_if_unread()

    # -- what others may see ----------------------------------------------------

    def servable(self) -> RangeSet:
        """Bytes fit to be passed on to peers: proven, or vouched for by two peers."""
        have = RangeSet()
        for run in self._verified:
            for grain in self.grains.within(run):
                if self._trust.trusted(grain):
                    have.add(self.grains.start(grain), self.grains.stop(grain))
        return have

    def progress(self) -> PullProgress:
        """A picture of this moment."""
        return PullProgress(
            self.digest,
            self.size,
            self._verified.total,
            self._resumed,
            self.started,
            "failed" if self.error else "done" if self.outcome.called else "pulling",
            tuple(
                SourceProgress(
                    self._peers[each.peer].name,
                    each.peer,
                    each.bytes,
                    each.rate,
                    "convicted" if each.peer in self._trust.convicted else each.state,
                    self._reasons.get(each.peer, ""),
                )
                for each in self._dispatch.sources(self._clock.seconds())
            ),
        )

    # -- asking -----------------------------------------------------------------

    def _pump(self) -> None:
        """Do what is due and ask what is to be asked, and come back when something falls due."""
        if self._stopped or self._publishing or self.error is not None:
            return
        for grain in self._trust.wanted():
            self._dispatch.prefer(grain)
        now = self._clock.seconds()
        for action in self._dispatch.due(now):
            self._retire(action)
        if not self._paused:
            for span in self._dispatch.next(now):
                self._tasks.start("fetching a span", self._fetch(span))
        due = self._dispatch.next_due()
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        if due is not None:
            self._timer = self._clock.callLater(max(0.01, due - self._clock.seconds()), self._pump)

    def _retire(self, action: Abort | Shorten) -> None:
        """A lane ends: at once, or by itself where the span under way on it is to stop."""
        if isinstance(action, Abort):
            self._hang_up(action.peer)
        elif (peer := self._asked.get(action.span)) is not None:
            self._lanes.pop(peer, None)

    def _hang_up(self, peer: PeerID) -> None:
        if lane := self._lanes.pop(peer, None):
            lane.close()

    async def _fetch(self, span: Span) -> None:
        lane = self._lanes.get(span.peer)
        if lane is None:
            lane = self._lanes[span.peer] = self._client.lane(self._peers[span.peer], self.digest, self.size)
        if self._paused:
            lane.pause()
        self._asked[span.id] = span.peer
        self._users[lane] += 1
        table, seconds = self._dispatch, self._clock.seconds
        try:
            await lane.fetch(span.range, lambda offset, views: self._take(span, offset, views))
        except _Enough:
            table.finished(span.id, seconds())
        except PeerError as e:
            self._reasons[span.peer] = f"{self._peers[span.peer].name}: {e.fault.value}"
            if e.fault not in (Fault.MISSING, Fault.BUSY):
                self.log.info("pulling {digest}: {error}", digest=self.digest.short, error=e)
                if self._lanes.get(span.peer) is lane:
                    del self._lanes[span.peer]
            table.failed(span.id, seconds(), e.fault)
        except CancelledError:
            table.failed(span.id, seconds())
            if self._stopped:
                raise
        except LocalError as e:
            table.failed(span.id, seconds())
            self.fail(e)
        else:
            table.finished(span.id, seconds())
        finally:
            del self._asked[span.id]
            self._users[lane] -= 1
            if not self._users[lane]:
                del self._users[lane]
                if self._lanes.get(span.peer) is not lane:
                    lane.close()
        self._pump()

    def _take(self, span: Span, offset: int, views: Sequence[memoryview]) -> None:
        """Bytes of a span arrived: write what is wanted of them, verify what became complete."""
        table, now = self._dispatch, self._clock.seconds()
        count = sum(map(len, views))
        stop = offset + count
        for part in table.wanted(span.id, stop):
            whole = part.start == offset and part.stop == stop
            self._partial.write(part.start, views if whole else _cut(views, part.start - offset, len(part)))
        self._fed = now
        self._counters.bytes_received += count
        for grain in table.received(span.id, stop, now):
            self._verify_soon(grain)
        if stop < span.range.stop and not table.flying(span.id):
            raise _Enough
        if self._paused:
            table.excuse(now)

    # -- verifying ----------------------------------------------------------------

    def _verify_soon(self, grain: int) -> None:
        self._undecided.add(grain)
        self._unverified += self.grains.length(grain)
        if self._unverified > self._settings.unverified_limit and not self._paused:
            self._paused = True
            for lane in self._users:
                lane.pause()
        self._tasks.start("verifying a grain", self._verify(grain))

    async def _verify(self, grain: int) -> None:
        trust = self._trust
        try:
            starts = trust.starts(grain)
            ends = await self._partial.end_states(grain, starts) if starts else ()
        except LocalError as e:
            self.fail(e)
            return
        finally:
            self._relieve(self.grains.length(grain))
        if trust is self._trust and self.error is None:
            senders = self._dispatch.senders(grain) or trust.senders(grain)
            await self._apply(trust.judge(grain, senders, dict(zip(starts, ends, strict=True))))
        elif self.error is None:
            self._verify_soon(grain)

    def _relieve(self, length: int) -> None:
        self._unverified -= length
        if self._paused and self._unverified <= self._settings.unverified_limit // 2 and not self._stopped:
            self._paused = False
            self._dispatch.excuse(self._clock.seconds())
            for lane in self._users:
                lane.resume()
            self._pump()

    async def _recheck(self, grain: int) -> None:
        """Take up a grain an earlier run journaled, if the disk still holds it."""
        try:
            record = await self._partial.recheck(grain)
        except LocalError as e:
            self.fail(e)
            return
        if record is None:
            self._partial.unmark(grain)
            self._dispatch.rejected(grain, self._clock.seconds())
            self._pump()
            return
        self._resumed += self.grains.length(grain)
        self._counters.bytes_resumed += self.grains.length(grain)
        start, end = record
        if (start is None) == isinstance(self._trust, WholeTrust):
            await self._apply(self._trust.judge(grain, (), {start: end}))
        else:
            self._verify_soon(grain)

    async def _apply(self, judgement: Judgement) -> None:
        """Carry out what the ledger concluded."""
        now = self._clock.seconds()
        for grain in (*judgement.reopened, *judgement.rehash):
            start, stop = self.grains.start(grain), self.grains.stop(grain)
            self._verified.remove(start, stop)
            if grain in judgement.reopened:
                self._counters.grains_rejected += 1
                self._take_back(grain)
            else:
                self._verify_soon(grain)
        for grain in judgement.accepted:
            if self._trust.releasable(grain):
                self._undecided.discard(grain)
                self._partial.mark(grain, *self._trust.bounds(grain))
                self._dispatch.verified(grain, now)
                self._verified.add(self.grains.start(grain), self.grains.stop(grain))
                self._since_checkpoint += self.grains.length(grain)
                self._counters.grains_verified += 1
        for proof in judgement.proofs:
            self._exclude(proof)
        for peer in judgement.suspended:
            self._reasons[peer] = f"{self._peers[peer].name}: its bytes do not fit the midstates"
            self._dispatch.remove_source(peer, now)
            self._hang_up(peer)
        for peer in judgement.need_list_of:
            self._fetch_list(peer)
        for peer in self._benched - self._trust.suspended:
            self._benched.discard(peer)
            if peer in self._haves:
                self._dispatch.add_source(peer, now, self._haves[peer])
        self._benched |= set(judgement.suspended)
        self._fed = now
        if isinstance(self._trust, WholeTrust):
            await self._prove_whole(self._trust)
        if self._trust.complete and not self._publishing and self.error is None:
            self._publishing = True
            self._tasks.start("publishing", self._publish())
        self._changed.fire()
        self._pump()

    def _exclude(self, proof: Proof) -> None:
        """A peer is proven bad: it is out for this blob, and the node is told why."""
        self._counters.proofs += 1
        self.lose(proof.peer, proof.detail)
        self._convict(self._peers[proof.peer], proof)

    def _take_back(self, grain: int) -> None:
        """A grain is no good: fetch it again, and fail readers that were given some of it."""
        start, stop = self.grains.start(grain), self.grains.stop(grain)
        self._undecided.discard(grain)
        self._partial.unmark(grain)
        self._dispatch.rejected(grain, self._clock.seconds())
        if start < stop:
            for reader in tuple(self.readers):
                reader.taken_back(ByteRange(start, stop))

    async def _prove_whole(self, trust: WholeTrust) -> None:
        """Without midstates: once all is received, hash it; if that fails, go on with one peer at a time."""
        if trust.complete:
            return
        if trust.received and not self._proving:
            self._proving = True
            try:
                digest = await self._partial.hash_all()
            except LocalError as e:
                self.fail(e)
                return
            finally:
                self._proving = False
            judgement = trust.verdict(digest == self.digest)
            if trust.complete:
                await self._apply(judgement)
                return
            for proof in judgement.proofs:
                self._exclude(proof)
        if trust.failed and (trust.sole is None or trust.sole not in self._haves):
            self._parole(trust)

    def _parole(self, trust: WholeTrust) -> None:
        now = self._clock.seconds()
        sole = trust.parole(sorted(set(self._haves) - trust.convicted))
        if sole is None:
            self.fail(PullFailed(self.digest, self.reasons))
            return
        for peer in self._peers:
            if peer == sole:
                self._dispatch.add_source(peer, now, self._haves[peer])
            else:
                self._dispatch.remove_source(peer, now)
                self._hang_up(peer)
        for grain in trust.missing():
            self._take_back(grain)

    # -- lists ----------------------------------------------------------------------

    def _fetch_list(self, peer: PeerID) -> None:
        if peer not in self._listed and not isinstance(self._trust, WholeTrust) and self.grains.count > 1:
            self._listed.add(peer)
            self._tasks.start("fetching midstates", self._offer_list(self._peers[peer]))

    async def _offer_list(self, peer: Peer) -> None:
        trust = self._trust
        try:
            midstates = await self._client.midstates(peer, self.digest, self.size)
        except PeerError as e:
            self.log.info("no midstates of {digest}: {error}", digest=self.digest.short, error=e)
            self._listless.add(peer.id)
            another = next(
                (p for p, have in self._haves.items() if have is None and p not in self._listed), None
            )
            if another is not None:
                self._fetch_list(another)
            elif not trust.has_list and self._listed == self._listless:
                self._do_without_lists()
            return
        if trust is self._trust:
            await self._apply(trust.offer(peer.id, midstates))

    def _do_without_lists(self) -> None:
        """Nobody can give midstates (foreign servers): prove the blob as a whole instead."""
        if self._trust.has_list or isinstance(self._trust, WholeTrust):
            return
        self.log.info("{digest}: nobody has midstates, so it is proven as a whole", digest=self.digest.short)
        self._trust = WholeTrust(self.digest, self.grains)
        for peer, have in self._haves.items():
            self._trust.claim(peer, complete=have is None)
        for grain in sorted(self._undecided):
            self._verify_soon(grain)

    # -- keeping ----------------------------------------------------------------------

    async def _checkpoints(self) -> None:
        last = self._clock.seconds()
        while True:
            await sleep(self._clock, 0.1)
            now = self._clock.seconds()
            due = now - last >= self._settings.checkpoint_every
            if self._since_checkpoint and (due or self._since_checkpoint >= self._settings.checkpoint_bytes):
                self._since_checkpoint, last = 0, now
                try:
                    await self._partial.checkpoint()
                except LocalError as e:
                    self.fail(e)
                    return
            if now - self._fed > self._settings.patience:
                self.fail(PullFailed(self.digest, self.reasons))
                return

    async def _publish(self) -> None:
        for peer in list(self._lanes):
            self._hang_up(peer)
        try:
            stored = await self._partial.publish(self._trust.midstates(), tuple(self._names))
        except LocalError as e:
            self.fail(e)
            return
        self._settle_counters()
        self.outcome.callback(stored)
        self._changed.fire()

    def _settle_counters(self) -> None:
        tally = self._dispatch.tally
        self._counters.bytes_duplicated += tally.duplicated
        self._counters.bytes_wasted += tally.wasted
        self._counters.spans_stolen += tally.steals
        self._counters.spans_hedged += tally.hedges
        self._counters.spans_aborted += tally.aborts

    def _close_if_unread(self) -> None:
        if self._stopped and not self.readers:
            self._partial.close()


class _Enough(Exception):
    """The rest of a span is not wanted from this peer any more."""


def _cut(views: Sequence[memoryview], skip: int, length: int) -> list[memoryview]:
    """``length`` bytes of the views after the first ``skip``."""
    kept = []
    for view in views:
        piece = view[skip : skip + length]
        skip = max(0, skip - len(view))
        length -= len(piece)
        if len(piece):
            kept.append(piece)
    return kept

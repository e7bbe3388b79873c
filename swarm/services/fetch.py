"""One id that is missing here: looked for, pulled, and told to all who wait for it.

A pull begins with the first peer that has the blob, while the others are still asked. Decides when a
reader may be promised a size, when to look for holders again, when a pull is given up, and which claimed
size to try next when peers disagree (the most claimed first; a size is proven with the last grain).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from random import Random

from twisted.internet.defer import CancelledError
from twisted.internet.defer import TimeoutError as TookTooLong
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from swarm.core.breadth import Breadth
from swarm.core.dispatch import Dispatch, DispatchSettings
from swarm.core.shares import Shares
from swarm.core.trust import Trust
from swarm.core.trust_whole import WholeTrust
from swarm.errors import BlobMissing, Fault, LocalError, Overloaded, PeerError, PullFailed
from swarm.interfaces import BlobInfo, IBlobStore, IPeerClient, ITombstones
from swarm.model.digest import Digest
from swarm.model.grains import Grains
from swarm.model.holdings import Holding
from swarm.model.peers import Peer, PeerID
from swarm.services.ahead import Ahead, ask_ahead
from swarm.services.holders import Holders
from swarm.services.progress import Counters, GrainWatch
from swarm.services.pull import Pull
from swarm.services.reading import PullReader
from swarm.services.settings import FetchSettings
from swarm.services.tasks import Signal, Tasks, gather, sleep, within

#: The one blob whose size needs no proof; a peer that claims no bytes of any other claims nonsense.
_EMPTY = Digest.of(b"")


class Fetch:
    """One id that is missing here, until it is here or given up. Pulls of several sizes may be tried."""

    log = Logger()

    def __init__(
        self,
        digest: Digest,
        over: Callable[[], object],
        *,
        me: Callable[[], PeerID],
        store: IBlobStore,
        tombstones: ITombstones,
        client: IPeerClient,
        holders: Holders,
        settings: FetchSettings,
        dispatch: DispatchSettings,
        midstates: bool,
        clock: IReactorTime,
        random: Random,
        counters: Counters,
        watch: GrainWatch,
    ) -> None:
        """
        :param over: called when it ended, either way.
        :param me: who this node is.
        :param midstates: can this node compute them?
        """
        self.pull: Pull | None = None
        self._me = me
        self._noticed: set[PeerID] = set()  # who asked us for it, and so will have some of it
        self._digest = digest
        self._over = over
        self._store = store
        self._tombstones = tombstones
        self._client = client
        self._holders = holders
        self._settings = settings
        self._dispatch = dispatch
        self._midstates = midstates
        self._clock = clock
        self._random = random
        self._counters = counters
        self._watch = watch
        self._changed = Signal()
        self._stored: BlobInfo | None = None
        self._error: LocalError | None = None
        self._places: dict[object, int] = {}  # where those who wait for a reader mean to begin
        self._ahead: Ahead | None = None  # while its pull is being set up
        self._searched = False
        self._looked = False
        self._here: BlobInfo | None = None
        self._asked = 0  # how many peers, in the first search
        self._agreed = False  # have peers had the time to disagree about the size?
        self._silent = False  # did a peer that is alive not answer? Then nobody knows that nobody has it
        self._ended = False
        self._doom: LocalError | None = None  # why it is to end before its time,
        self._keep = True  # and whether what came is kept then
        self._holdings: dict[PeerID, Holding] = {}
        self._tried: set[int] = set()
        self._breadth = Breadth(settings.sources.most_active, settings.sources.most_widened)
        self._tasks = Tasks()

    # -- waiting for it ---------------------------------------------------------------

    async def reader(self, near: int | None = None) -> PullReader | None:
        """
        Wait until there is something to read from; None: the blob is here.

        :param near: where reading will begin, so far as that is known (from the end, if negative): these
            bytes are asked for first, and before it is settled how many there are.
        :raises LocalError: there never will be.
        """
        place = object()
        if near is not None:
            self._places[place] = near
            if self.pull is not None:
                self.pull.expect(place, near)
        try:
            while self._stored is None:
                if self._error is not None:
                    raise self._error
                if self.pull is not None and self.pull.error is None and self._size_settled(self.pull):
                    return self.pull.reader()
                await self._changed.wait()
            return None
        finally:
            self._places.pop(place, None)
            if self.pull is not None:
                self.pull.leave(place)

    async def finished(self) -> BlobInfo:
        """Wait until the blob is published. :raises LocalError: it won't be."""
        while self._stored is None:
            if self._error is not None:
                raise self._error
            await self._changed.wait()
        return self._stored

    async def end(self, error: LocalError, *, keep: bool) -> None:
        """End with an error, and wait for that."""
        self._doom, self._keep = error, keep
        if self.pull is not None:
            self.pull.fail(error)
        self._changed.fire()
        while not self._ended:
            await self._changed.wait()

    def _size_settled(self, pull: Pull) -> bool:
        """May a reader be promised this size? If peers disagree, only once it is proven."""
        sizes = {each.size for each in self._holdings.values()}
        return pull.size_proven or (self._agreed and len(sizes) == 1)

    # -- running ------------------------------------------------------------------------

    async def run(self) -> None:
        """Search, pull, and tell who waits."""
        try:
            self._stored = await self._attempts()
            self._counters.pulls_finished += 1
        except CancelledError:
            self._error = Overloaded("the node is stopping")
            raise
        except LocalError as e:
            if not isinstance(e, BlobMissing) and e is not self._doom:
                self._counters.pulls_failed += 1
                self.log.warn("pull failed: {error}", error=e)
            self._error = e
        finally:
            if self._stored is None and self._error is None:
                self._error = PullFailed(self._digest, ("of an internal error",))
            self._over()
            self._ended = True
            self._changed.fire()
            await self._tasks.stop()

    async def _attempts(self) -> BlobInfo:
        self._begin_search()
        self._tasks.start("looking here again", self._look_again())
        await self._search_first()
        if self._here is not None:
            return self._here
        if not self._holdings and await self._holders.met_more():
            self._begin_search()
            await self._search_first()
        if not self._holdings and self._silent and self._doom is None:
            raise Overloaded("some peers did not say whether they have it")
        if not self._holdings and self._doom is None:
            buried = self._tombstones.buried(self._digest)
            raise BlobMissing(self._digest, "deleted from the swarm" if buried else "nobody reachable has it")
        self._counters.pulls_started += 1
        failures: list[str] = []
        while self._doom is None and (size := self._best_size()) is not None:
            self._tried.add(size)
            try:
                return await self._attempt(size)
            except PullFailed as e:
                failures.extend(e.reasons)
        raise self._doom or PullFailed(self._digest, tuple(dict.fromkeys(failures)))

    @property
    def retries(self) -> bool:
        """If the pull fails, will another size be tried?"""
        return not self._ended and self._doom is None and self._best_size() is not None

    def _best_size(self) -> int | None:
        """The size most peers claim, of those not tried; of equals the one first heard of."""
        sizes = [each.size for each in self._holdings.values() if each.size not in self._tried]
        return max(sizes, key=sizes.count, default=None)

    async def _attempt(self, size: int) -> BlobInfo:
        grains = Grains.of(size)
        ahead = self._ahead = self._ask_ahead(grains)
        try:
            partial = await self._store.partial(self._digest, size)
        except BaseException:
            if ahead is not None:
                ahead.drop()
            raise
        finally:
            self._ahead = None
        pull = Pull(
            partial,
            Dispatch(grains, self._dispatch, self._random),
            (Trust if self._midstates else WholeTrust)(self._digest, grains),
            self._client,
            self._settings.pull,
            clock=self._clock,
            counters=self._counters,
            convict=self._holders.convict,
            delivered=self._holders.delivered,
            watch=self._watch,
            ahead=ahead,
        )
        self.pull = pull
        shares, beside = Shares(self._me(), self._digest, grains), Tasks()
        try:
            if self._doom is not None:  # while the partial was opened
                raise self._doom
            for place, near in self._places.items():
                pull.expect(place, near)
            pull.begin()
            if ahead is not None:
                pull.add(ahead.holding)  # before the others, or it is one of them that is asked
            self._feed(pull)
            self._changed.fire()
            beside.start("hearing all sizes", self._agree(pull))
            beside.start("searching holders", self._search_on(pull, shares))
            beside.start("waiting for a proven size", self._tell_size(pull))
            stored = await pull.outcome
            if stored is None:
                assert pull.error is not None
                raise pull.error
            return stored.info
        finally:
            self.pull = None
            if ahead is not None:
                ahead.drop()
            await beside.stop()
            # Another size begins with no left-over, and does not wait for who still reads from this one.
            await pull.stop(keep=self._keep and not self.retries)

    def _ask_ahead(self, grains: Grains) -> Ahead | None:
        """Not while something is left of an earlier pull: it may be just that grain."""
        place = next(iter(self._places.values()), None)
        if place is None or self._store.begun(self._digest) is not None:
            return None
        holdings = self._holdings.values()
        return ask_ahead(self._client, self._digest, grains, place, holdings, clock=self._clock)

    async def _tell_size(self, pull: Pull) -> None:
        while not pull.size_proven:
            await pull.changed()
        self._changed.fire()

    # -- looking for holders ------------------------------------------------------------

    def _begin_search(self) -> None:
        """Ask every live peer."""
        self._searched, self._asked = False, len(self._holders.live())
        self._tasks.start("looking for holders", self._search_once())

    async def _search_first(self) -> None:
        """Wait until one has said yes, or all have answered and it is not here either."""
        while not (self._holdings or self._doom or self._here or (self._searched and self._looked)):
            await self._changed.wait()
        if self._store.begun(self._digest) not in (None, self._best_size()):
            await self._hear()  # what came of it is not thrown away on one peer's word

    async def _hear(self) -> None:
        """Wait until all have answered, or had a moment to since the first did."""
        with suppress(TookTooLong):
            await within(self._clock, self._settings.gather, self._answered())

    async def _agree(self, pull: Pull) -> None:
        """
        Promise nobody a size before all have answered, or had a moment to.

        If by then most claim another than the first who answered, begin anew with theirs.
        """
        if not self._agreed:
            await self._hear()
            self._agreed = True
            sizes = [each.size for each in self._holdings.values()]
            mine = pull.grains.size
            if not pull.size_proven and sizes.count(mine) < max(map(sizes.count, sizes), default=0):
                self._tried.discard(mine)
                pull.fail(PullFailed(self._digest, ()))
            self._changed.fire()

    async def _answered(self) -> None:
        """Until all have, or most of all agree: then nobody who has yet to answer can outvote them."""
        while not (self._searched or self._doom):
            sizes = [each.size for each in self._holdings.values()]
            if 2 * max(map(sizes.count, sizes), default=0) > self._asked:
                return
            await self._changed.wait()

    async def _look_again(self) -> None:
        """It may have come since the miss. If a peer is quicker to say yes, the pull is in vain."""
        try:
            self._here = await self._store.stat(self._digest)
        finally:
            self._looked = True
            self._changed.fire()

    async def _search_once(self) -> None:
        try:
            await self._search()
        finally:
            self._searched = True
            self._changed.fire()

    def notice(self, peer: PeerID) -> None:
        """A peer asks us for the blob: it pulls it too, then, and will soon have something of it."""
        if peer not in self._holdings:
            self._noticed.add(peer)

    def returned(self, peer: PeerID) -> None:
        """A peer that was away is back."""
        if self.pull is not None:
            self.pull.returned(peer)

    async def _search_on(self, pull: Pull, shares: Shares) -> None:
        """Keep looking: partial holders grow, peers come back. A starved pull that finds nobody ends."""
        settings = self._settings
        dry: float | None = None  # since when nobody had anything for us
        while True:
            self._share(pull, shares)
            await self._until_next_look(pull)
            now, starved = self._clock.seconds(), pull.starved
            dry = (now if dry is None else dry) if starved else None
            await self._search(skip=self._not_now(pull))
            self._breadth.look(sum(each.rate for each in pull.progress().sources), len(pull.sources))
            if pull.crowded:
                self._breadth.meet(settings.sources.most_crowd)
            self._feed(pull)
            patient = pull.hungry and dry is not None and now < dry + settings.search_every
            if starved and pull.starved and not patient:
                pull.fail(PullFailed(self._digest, pull.reasons))
                return

    async def _until_next_look(self, pull: Pull) -> None:
        """Sooner while a crowd has nothing for us, and when somebody asks us: then one forms."""
        until = self._clock.seconds() + self._settings.search_every
        while True:
            left = max(0.0, until - self._clock.seconds())  # a clock may be set forward
            await sleep(self._clock, min(left, self._settings.search_hungry))
            forms = bool(self._noticed) and not pull.crowded
            if pull.hungry or forms or left <= self._settings.search_hungry:
                return

    def _not_now(self, pull: Pull) -> frozenset[PeerID]:
        """
        Peers not to be asked this time: those that said just now what they have, or are not needed.

        Of these and of those that had nothing a few are asked again, and whoever asked us.
        """
        if pull.starved:
            return pull.complete_sources | self._holders.spared(self._digest)
        silent = pull.unheard(self._clock.seconds() - self._settings.search_hungry)
        spared = self._holders.spared(self._digest, self._holdings.keys() - pull.sources)
        noticed, self._noticed = self._noticed, set()
        return (spared | pull.sources) - silent - noticed

    def _share(self, pull: Pull, shares: Shares) -> None:
        """What of it is ours to bring, while others pull it too."""
        pullers = [peer for peer, holding in self._holdings.items() if not holding.complete]
        pull.share(shares.among(pullers, self._holders.trips(self._holdings)))
        pull.contest(len({each.size for each in self._holdings.values()}) > 1)

    async def _search(self, *, skip: frozenset[PeerID] = frozenset()) -> None:
        """Ask every live peer but those, and take in what each says when it says it."""
        peers = [peer for peer in self._holders.live() if peer.id not in skip]
        await gather(self._ask(peer) for peer in peers)

    async def _ask(self, peer: Peer) -> None:
        try:
            holding = await self._holders.locate(peer, self._digest)
        except PeerError as e:
            self.log.debug("{error}", error=e)
            self._silent = self._silent or e.fault is Fault.SILENT
            return
        if holding is None or (holding.size == 0) is not (self._digest == _EMPTY):
            if self.pull is not None:
                self.pull.lose(peer.id, "has it no more")
            self._holdings.pop(peer.id, None)
            return
        self._holdings[peer.id] = holding
        if self._ahead is not None:
            self._ahead.hear(holding)
        if self.pull is not None:
            if peer.id in self.pull.sources or (
                holding.complete and len(self.pull.complete_sources) < self._breadth.allowed
            ):  # who has all is never left out for others who begin as we do, and have nothing yet
                self.pull.add(holding)
            elif len(self.pull.sources) < self._breadth.allowed:  # ranking all is a lot, once for each answer
                self._feed(self.pull)
        self._changed.fire()

    def _feed(self, pull: Pull) -> None:
        """Tell the pull of its sources, and of more while it has fewer than it may: the best first."""
        taking = pull.sources
        room = self._breadth.allowed - len(taking)
        if room <= 0:  # ranking a thousand takes a while
            return
        for holding in self._holders.ranked(self._holdings.values(), pull.grains.size):
            if holding.peer.id in taking:
                pull.add(holding)
            elif room > 0:
                pull.add(holding)
                room -= holding.peer.id in pull.sources

"""Who may hold a blob: asks peers, ranks what they say, and remembers who proved bad.

Decides whom to ask again and when; how peers are ranked is ``core.sources``, what follows from a proof
``core.standing``.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Sequence
from random import Random
from typing import Any

from twisted.internet.defer import TimeoutError as TookTooLong
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from swarm.core.evidence import Proof
from swarm.core.sources import Sources as Ranking
from swarm.core.standing import Standing
from swarm.errors import Fault, PeerError
from swarm.interfaces import IPeerClient, ITombstones
from swarm.model.digest import Digest
from swarm.model.holdings import Holding
from swarm.model.peers import Peer, PeerID
from swarm.services.settings import FetchSettings
from swarm.services.tasks import Tasks, sleep, within


class Holders:
    """I know whom to ask for a blob."""

    log = Logger()

    def __init__(
        self,
        client: IPeerClient,
        tombstones: ITombstones,
        live: Callable[[], Sequence[Peer]],
        standing: Standing,
        settings: FetchSettings,
        *,
        clock: IReactorTime,
        random: Random,
        tasks: Tasks,
        acquainted: Callable[[], Coroutine[Any, Any, bool]],
    ) -> None:
        """
        :param live: peers that are alive.
        :param acquainted: see :meth:`swarm.services.membership.Membership.acquainted`.
        """
        self.live = live
        self._client = client
        self._tombstones = tombstones
        self._standing = standing
        self._settings = settings
        self._clock = clock
        self._random = random
        self._tasks = tasks
        self._acquainted = acquainted
        self._ranking = Ranking(settings.sources, random)

    async def met_more(self) -> bool:
        """After a start, wait a while until peers were met; False if they were already."""
        try:
            return await within(self._clock, self._settings.answer_within, self._acquainted())
        except TookTooLong:
            return True

    def barred(self, peer: PeerID, digest: Digest) -> str | None:
        """Why a peer is not to be asked for a blob, if it is not."""
        return self._standing.barred(peer, digest, self._clock.seconds())

    async def locate(self, peer: Peer, digest: Digest) -> Holding | None:
        """
        Ask one peer; None if it has nothing, or is in no standing, or has yet to hear of a deletion.

        A copy as new as our newest tombstone was put after it: then the blob is deleted no more.

        :raises PeerError: it did not say.
        :raises StorageFull, VolumeReadOnly, StoreFailed: that could not be noted.
        """
        if self.barred(peer.id, digest) is not None:
            return None
        began = self._clock.seconds()
        try:
            asking = self._client.locate(peer, digest)
            holding = await within(self._clock, self._settings.answer_within, asking)
        except TookTooLong as e:
            raise PeerError(peer.id, Fault.SILENT, "no answer in time") from e
        self._ranking.heard(peer.id, self._clock.seconds() - began)
        if holding is None:
            self._ranking.lacks(peer.id, digest, self._clock.seconds())
        else:
            self._ranking.gained(peer.id, digest)
            if self._tombstones.buried(digest) and holding.generation < self._tombstones.generation(digest):
                return None
            await self._tombstones.revive(digest, holding.generation)
        return holding

    def spared(self, digest: Digest, others: Iterable[PeerID] = ()) -> frozenset[PeerID]:
        """
        Peers that are not asked again this time: had nothing of the blob lately, or are among ``others``.

        Not all of them: others begin to pull it too, and then have something for us.
        """
        now = self._clock.seconds()
        lacking = {p.id for p in self.live() if not self._ranking.may_have(p.id, digest, now)}
        spared = sorted(lacking.union(others))
        again = self._random.sample(spared, min(self._settings.asked_again, len(spared)))
        return frozenset(spared).difference(again)

    def trips(self, peers: Iterable[PeerID]) -> dict[PeerID, float]:
        """Seconds there and back to each of these that answered lately."""
        return self._ranking.trips(peers)

    def ranked(self, holdings: Iterable[Holding], size: int) -> tuple[Holding, ...]:
        """The holders that claim this size, those to ask first before the others."""
        attempts = self._ranking.attempts(holdings, self._clock.seconds())
        return next((each.active + each.spare for each in attempts if each.size == size), ())

    def delivered(self, peer: PeerID, well: bool) -> None:
        """A peer brought a span, or failed to."""
        note = self._ranking.worked if well else self._ranking.broke
        note(peer, self._clock.seconds())

    def convict(self, peer: Peer, proof: Proof) -> None:
        """A peer is proven bad for one blob: remember, say so, and tell it, so that it can heal itself."""
        self.log.error(
            "{name} ({peer}) gave wrong {kind} for {digest}, grain {grain}: {detail}",
            name=peer.name,
            peer=peer.id.short,
            kind=proof.kind,
            digest=proof.digest.short,
            grain=proof.grain,
            detail=proof.detail,
        )
        self._standing.convict(proof, self._clock.seconds())
        self._tasks.start("advising a peer", self._advise(peer, proof))

    async def _advise(self, peer: Peer, proof: Proof) -> None:
        where = "" if proof.grain is None else f" at grain {proof.grain}"
        try:
            await self._client.report_corrupt(
                peer, proof.digest, f"wrong {proof.kind}{where}: {proof.detail}"
            )
        except PeerError as e:
            self.log.info("could not advise {name}: {error}", name=peer.name, error=e)
            return
        await sleep(self._clock, self._settings.probation_after)
        self._standing.verified(peer.id, proof.digest, self._clock.seconds())

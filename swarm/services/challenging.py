"""Does a peer hold what it says? It is asked for bytes nobody could foretell; they are compared with ours.

Decides whether a peer's word for a copy counts towards a ``201`` (promise 1): only with the right bytes. No
answer proves nothing. Wrong bytes of a peer that claims the whole blob are evidence against it, if our own
copy, read once more, is found to be good.

Who has just answered ``201`` to bytes we pushed is not challenged: it has them in memory in any case, so
one more question for each copy would tell nothing of its disk. Who answers ``200`` (it had them before) is.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from random import Random
from typing import Any

from twisted.internet.defer import TimeoutError as TookTooLong
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from swarm.core.challenge import probes
from swarm.core.evidence import Proof
from swarm.errors import PeerError
from swarm.interfaces import BlobInfo, IBlobStore, IPeerClient
from swarm.model.digest import Digest
from swarm.model.grains import Grains
from swarm.model.peers import Peer, PeerID
from swarm.model.ranges import ByteRange
from swarm.services.progress import Counters
from swarm.services.tasks import within

Read = Callable[[int, int], Coroutine[Any, Any, bytes]]


class Challenger:
    """I have peers show that they hold what they say."""

    log = Logger()

    def __init__(
        self,
        store: IBlobStore,
        client: IPeerClient,
        *,
        barred: Callable[[PeerID, Digest], str | None],
        convict: Callable[[Peer, Proof], None],
        counters: Counters,
        clock: IReactorTime,
        random: Random,
        patience: float,
    ) -> None:
        """
        Begin.

        :param barred: why a peer is not to be asked for a blob, if it is not.
        :param convict: told of proofs.
        :param patience: seconds a peer has for all of it.
        """
        self.barred = barred
        self._store = store
        self._client = client
        self._convict = convict
        self._counters = counters
        self._clock = clock
        self._random = random
        self._patience = patience

    async def holds(self, peer: Peer, info: BlobInfo, read: Read) -> bool:
        """
        Does the peer, which says it has all of the blob, give the right bytes of it?

        :param read: reads our copy: ``read(offset, length)``.
        :raises LocalError: our own copy cannot be read, or turned out to be the damaged one.
        """
        self._counters.copies_challenged += 1
        try:
            wrong = await within(self._clock, self._patience, self._first_wrong(peer, info, read))
        except (PeerError, TookTooLong) as e:
            self._counters.copies_missing += 1
            self.log.info(
                "{name} does not show its copy: {error}", name=peer.name, error=str(e) or "too slow"
            )
            return False
        if wrong is None:
            return True
        if await self._ours_is_right(info, *wrong):
            self._counters.copies_refuted += 1
            self._counters.proofs += 1
            span, _ = wrong
            grain = Grains.of(info.size).at(span.start)
            self._convict(
                peer, Proof(peer.id, info.digest, grain, "data", "its copy differs from the proven one")
            )
        return False

    async def _first_wrong(self, peer: Peer, info: BlobInfo, read: Read) -> tuple[ByteRange, bytes] | None:
        for span in probes(info.size, self._random):
            ours = await read(span.start, len(span))
            theirs = await self._client.sample(peer, info.digest, info.size, span)
            if theirs != ours:
                return span, theirs
        return None

    async def _ours_is_right(self, info: BlobInfo, span: ByteRange, theirs: bytes) -> bool:
        """Our disk may be the one that lies: read all of it again before anybody is blamed."""
        if not await self._store.verify(info.digest):
            return False
        reader = await self._store.open(info.digest)
        try:
            await reader.available(span.start, span.stop)
            return await reader.read(span.start, len(span)) != theirs
        finally:
            reader.close()

"""A node's workers, wired: what they are told, which of its ports they serve, what they may serve there.

Decides nothing about a connection (:mod:`swarm.workers.crew`). A node without workers has this too, and
then every port is listened on as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from random import Random
from typing import Any, Protocol

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IStreamServerEndpoint

from swarm.config import Config
from swarm.interfaces import ITombstones
from swarm.model.digest import Digest
from swarm.peering.credentials import Credentials
from swarm.peering.reads import Uploads
from swarm.services.tasks import Tasks
from swarm.storage.layout import Layout
from swarm.web.site import StreamingSite
from swarm.workers.crew import Crew, Granted
from swarm.workers.dealing import Dealing
from swarm.workers.granting import Opens, grant
from swarm.workers.messages import Orders


class Store(Opens, Protocol):
    """What is needed of the store."""

    @property
    def tombstones(self) -> ITombstones:
        """See :class:`swarm.interfaces.ITombstones`."""

    async def verify(self, digest: Digest) -> object:
        """See :meth:`swarm.interfaces.IBlobStore.verify`."""


class Workforce:
    """
    I am the node's processes.

    :param mirrors: public URLs of other nodes now.
    """

    def __init__(
        self,
        config: Config,
        store: Store,
        credentials: Credentials,
        *,
        mirrors: Callable[[], Iterable[str]],
        reactor: Any,
        random: Random,
        tasks: Tasks,
    ) -> None:
        self._config = config
        self._store = store
        self._credentials = credentials
        self._mirrors = mirrors
        self._reactor = reactor
        self.crew = Crew(
            config.workers - 1,
            config.crew,
            orders=self._orders,
            grant=self._grant,
            verify=store.verify,
            credentials=credentials,
            reactor=reactor,
            random=random,
            tasks=tasks,
        )

    @property
    def serving(self) -> int:
        """Processes that serve, the node's own among them."""
        return 1 + self.crew.serving

    @property
    def restarts(self) -> int:
        """Workers that ended and were started again."""
        return self.crew.restarts

    @property
    def refusals(self) -> int:
        """Connections of peers that TLS ended, in all processes."""
        return self._credentials.refusals + self.crew.refusals

    def take_counts(self, door: bytes) -> Callable[[], Iterator[tuple[str, int, int, int]]]:
        """What workers answered at a door, as :data:`swarm.api.metrics.Elsewhere`."""
        return lambda: self.crew.take_counts(door)

    def share(
        self, endpoint: IStreamServerEndpoint, door: bytes, site: StreamingSite
    ) -> IStreamServerEndpoint:
        """The endpoint to listen with, so that workers serve clients of ``site`` that come in there."""
        if self.crew.wanted == 0:
            return endpoint
        return Dealing(endpoint, door, site, self.crew, self._reactor)

    def start(self) -> Uploads:
        """Start the workers; what counts the answers with blob bytes of all processes."""
        tally = self.crew.start() if self.crew.wanted else None
        return Uploads() if tally is None else tally.uploads

    async def stop(self, sites: Sequence[StreamingSite]) -> None:
        """End the workers when they are done; the node's own clients are given the time that theirs are."""
        if self.crew.wanted == 0:
            return  # nobody knows by whom he is served: so it matters only where there are any
        drained = [Deferred.fromCoroutine(site.drain(self._config.crew.drain)) for site in sites]
        await self.crew.stop()
        for each in drained:
            await each

    async def _grant(self, digest: Digest) -> Granted | None:
        return await grant(self._store, self._store.tombstones, digest)

    def _orders(self) -> Orders:
        config = self._config
        return Orders(
            deny="" if "get" in config.deny else Layout(str(config.data)).deny("get"),
            tokens=None if config.tokens is None else str(config.tokens),
            mirrors=tuple(self._mirrors()),
            drain=config.crew.drain,
            blobs=config.crew.blobs,
            limits=attrs.asdict(config.web),
            cluster=config.cluster,
            peering=attrs.asdict(config.peering),
            tls=attrs.asdict(self._credentials.settings),
        )

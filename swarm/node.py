"""One node: everything is wired here, once.

Decides who gets what and in which order things start and stop; nothing else. Time, network, threads
and randomness come in as arguments, so the same node runs on the real reactor and in a simulation.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

import attrs
from prometheus_client import CollectorRegistry
from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import (
    IListeningPort,
    IProtocolFactory,
    IStreamClientEndpoint,
    IStreamServerEndpoint,
)
from twisted.logger import Logger
from twisted.python.failure import Failure

from swarm import __version__
from swarm.api.app import PublicAPI, Services
from swarm.api.media import MediaLimits, MediaProbe
from swarm.api.metalink import PieceHashes
from swarm.api.metrics import DelayMetrics, GrainMetrics, NodeCollector, WebMetrics
from swarm.api.status import NodeFacts
from swarm.api.tokens import Guard
from swarm.config import BadConfig, Config
from swarm.core.roster import Roster
from swarm.core.standing import Standing
from swarm.errors import LocalError, Malformed
from swarm.groundwork import read_credentials, read_endpoint, read_peer_list, read_tokens
from swarm.hashing import Sha512
from swarm.hashing.sha512 import load as load_sha512
from swarm.interfaces import RunBlocking
from swarm.model.digest import Digest
from swarm.model.peers import Address, Peer, PeerID
from swarm.peering.client import Introduction, PeerClient
from swarm.peering.resolving import CarefulReactor
from swarm.peering.server import PeerServer, PeerServices
from swarm.peering.tls import client_endpoint, peer_id_of, server_endpoint
from swarm.services.challenging import Challenger
from swarm.services.custodian import Custodian
from swarm.services.deletion import Deletion
from swarm.services.fetcher import Fetcher
from swarm.services.membership import Membership
from swarm.services.pulse import measure_delay
from swarm.services.replicator import Replicator
from swarm.services.tasks import Tasks
from swarm.services.whereabouts import Whereabouts
from swarm.storage.disk import Disk
from swarm.storage.filesystem import FilesystemStore
from swarm.web.site import StreamingSite
from swarm.workers.messages import PEERS, PUBLIC
from swarm.workforce import Workforce


@attrs.frozen
class Walls:
    """What a node meets the world with. A simulation brings its own; everybody else keeps these."""

    disk: Disk = attrs.Factory(Disk)
    listen: Callable[..., IStreamServerEndpoint] = server_endpoint
    dial: Callable[..., IStreamClientEndpoint] = client_endpoint
    identify: Callable[[Any], PeerID] = peer_id_of
    hashing: Callable[[], Sha512] = load_sha512


def create_node(
    reactor: Any,
    config: Config,
    *,
    random: Random,
    run_blocking: RunBlocking,
    fatal: Callable[[str], None] = lambda reason: None,
    walls: Walls | None = None,
) -> Node:
    """
    Build a node. Its identity is read (or, for a first lone node, made) now; the rest happens when it starts.

    :param fatal: told why the node could not start.
    :param walls: the disk and mutual TLS, unless others are given.
    :raises IdentityError: certificates that cannot be used.
    :raises BadConfig: half an identity among the settings.
    """
    return Node(
        reactor, config, random=random, run_blocking=run_blocking, fatal=fatal, walls=walls or Walls()
    )


class Node(Service):
    """I am the parts of one node and the order they start and stop in."""

    log = Logger()

    def __init__(
        self,
        reactor: Any,
        config: Config,
        *,
        random: Random,
        run_blocking: RunBlocking,
        fatal: Callable[[str], None],
        walls: Walls,
    ) -> None:
        self.config = config
        self._walls = walls
        self._reactor = reactor
        self._run_blocking = run_blocking
        self._fatal = fatal
        self._sites: tuple[StreamingSite, ...] = ()
        self._ports: list[IListeningPort] = []
        self._tasks = Tasks()
        self._starting: Deferred[None] | None = None
        self._up = False

        self._endpoints = {
            "peer": read_endpoint(reactor, "peer", config.peer),
            "http": read_endpoint(reactor, "http", config.http),
        }
        tokens = read_tokens(config)
        self.credentials = read_credentials(reactor, config)
        self.whereabouts = Whereabouts(
            config.name,
            lambda: self.credentials.peer_id,
            advertise=config.advertise,
            public_url=config.public_url,
            secure=config.http.startswith(("ssl:", "tls:")),
            clock=reactor,
        )
        sha512 = walls.hashing()
        self.log.info("hashing: {how}", how=sha512.description)
        self.store = FilesystemStore(
            str(config.data),
            attrs.evolve(config.store, quota=config.quota, reserve=config.reserve, deny=config.deny),
            clock=reactor,
            sha512=sha512,
            run_blocking=run_blocking,
            random=random,
            disk=walls.disk,
        )
        self.client = PeerClient(
            dial=self._dial,
            identify=walls.identify,
            introduce=self._introduce,
            clock=reactor,
            limits=config.peering,
        )
        self.membership = Membership(
            self.client,
            Roster(
                self.credentials.peer_id,
                config.name,
                random=random,
                refuse=lambda address: self.whereabouts.policy().refuse(address),
            ),
            config.membership,
            cluster=config.cluster,
            me=self.whereabouts.describe,
            join=config.join,
            read_list=lambda: run_blocking(read_peer_list, config),
            book=self.store.peers,
            clock=reactor,
            tasks=self._tasks,
            came=self._came,
        )
        registry = CollectorRegistry()
        self.fetcher = Fetcher(
            self.store,
            self.store.tombstones,
            self.client,
            self.membership.live,
            Standing(),
            config.pull,
            config.dispatch,
            me=lambda: self.credentials.peer_id,
            clock=reactor,
            random=random,
            tasks=self._tasks,
            midstates=sha512.provides_midstates,
            acquainted=self.membership.acquainted,
            watch=GrainMetrics(registry),
        )
        self.replicator = Replicator(
            self.store,
            self.store.hints,
            self.store.tombstones,
            self.client,
            self.membership,
            Challenger(
                self.store,
                self.client,
                barred=self.fetcher.holders.barred,
                convict=self.fetcher.holders.convict,
                counters=self.fetcher.counters,
                clock=reactor,
                random=random,
                patience=config.replication.challenge,
            ),
            config.replication,
            name=config.name,
            me=lambda: self.credentials.peer_id,
            public_url=self.whereabouts.public_url,
            copies=config.copies,
            clock=reactor,
            random=random,
            tasks=self._tasks,
        )
        self.deletion = Deletion(
            self.store,
            self.store.tombstones,
            self.client,
            lambda: tuple(each.peer for each in self.membership.known()),
            config.deletion,
            name=config.name,
            clock=reactor,
            forget=self._forget,
        )
        self.custodian = Custodian(
            self.store, self.fetcher.pull, config.custodian, clock=reactor, tasks=self._tasks
        )
        self.peer_server = PeerServer(
            PeerServices(
                self.store,
                self.store.tombstones,
                self.fetcher,
                self.deletion,
                self.membership,
                self.custodian,
            ),
            cluster=config.cluster,
            identify=walls.identify,
            clock=reactor,
            limits=config.peering,
        )
        self.workforce = Workforce(
            config,
            self.store,
            self.credentials,
            mirrors=lambda: self.api.mirrors(),
            reactor=reactor,
            random=random,
            tasks=self._tasks,
        )
        peers_elsewhere = self.workforce.take_counts(PEERS)
        self._peer_metrics = WebMetrics(registry, "swarm_peer", elsewhere=peers_elsewhere)
        self._delays = DelayMetrics(registry)
        registry.register(
            NodeCollector(
                usage=self.store.usage,
                counters=lambda: self.fetcher.counters,
                peers=lambda: len(self.membership.live()),
                pulls=lambda: len(self.fetcher.pulls()),
                hints=lambda: self.replicator.hints_pending,
                refusals=lambda: self.workforce.refusals,
                certificate_days=self.credentials.days_left,
                revocation_list_days=lambda: self.credentials.identity.crl_days_left(reactor.seconds()),
                workers=lambda: self.workforce.serving,
                worker_restarts=lambda: self.workforce.restarts,
            )
        )
        self.api = PublicAPI(
            Services(self.store, self.fetcher, self.replicator, self.deletion, self.membership),
            NodeFacts(
                config.name,
                config.cluster,
                __version__,
                self.credentials.peer_id.hex,
                sha512.description,
                config.public_url,
                certificate_ends=lambda: reactor.seconds() + self.credentials.days_left() * 86400,
                not_ready=lambda: () if self._up else ("the node is starting",),
                workers=lambda: (self.workforce.serving, config.workers),
            ),
            guard=Guard(tokens, clock=reactor),
            media=MediaProbe(reactor, clock=reactor, limits=MediaLimits()),
            pieces=PieceHashes(run_blocking=run_blocking),
            registry=registry,
            clock=reactor,
            elsewhere=self.workforce.take_counts(PUBLIC),
        )

    # -- starting and stopping --------------------------------------------------------

    def startService(self) -> None:
        """Start in the background; :attr:`_fatal` hears of what prevents it."""
        super().startService()
        self._starting = Deferred.fromCoroutine(self._start())
        self._starting.addErrback(self._failed)

    async def _start(self) -> None:
        config = self.config
        await self.store.start()
        await self.membership.recall()
        self._sites = (self.peer_server.site(config.web, self._peer_metrics), self.api.site(config.web))
        peers, public = self._sites
        plain = self.workforce.share(self._endpoints["peer"], PEERS, peers)
        secured = self._walls.listen(plain, self.credentials, clock=self._reactor)
        self.whereabouts.peer = (await self._listen("peer", secured, peers)).getHost()
        shared = self.workforce.share(self._endpoints["http"], PUBLIC, public)
        self.whereabouts.http = (await self._listen("http", shared, public)).getHost()
        self.peer_server.uploads = self.workforce.start()
        for address in config.advertise:
            if not self.credentials.identity.covers(address.host):
                self.log.warn("our certificate does not name {host}: peers will refuse it", host=address.host)
        start = self._tasks.start
        start("membership", self.membership.run())
        start("measuring delays", measure_delay(self._delays.late, clock=self._reactor))
        start("watching credentials", self.credentials.watch(run_blocking=self._run_blocking))
        start("delivering hints", self.replicator.deliver_hints())
        start("delivering tombstones", self.deletion.deliver_forever())
        start("resuming pulls", self.fetcher.resume_unfinished())
        self._up = True
        self.log.info(
            "{name} ({id}) serves {http} and peers at {peer}",
            name=config.name,
            id=self.credentials.peer_id.short,
            http=self.whereabouts.public_url() or config.http,
            peer=self._introduce().mgmt_addr,
        )

    async def _listen(
        self, setting: str, endpoint: IStreamServerEndpoint, site: IProtocolFactory
    ) -> IListeningPort:
        try:
            port: IListeningPort = await endpoint.listen(site)
        except (CannotListenError, OSError, OverflowError) as e:  # no port has more than 16 bits
            raise BadConfig(f"{setting}: {e}") from e
        self._ports.append(port)
        return port

    def _failed(self, failure: Failure) -> None:
        if failure.check(LocalError):  # an operator's mistake needs no traceback
            self.log.critical("the node cannot start: {reason}", reason=failure.getErrorMessage())
        else:
            self.log.failure("the node cannot start", failure=failure)
        self._fatal(failure.getErrorMessage())

    def stopService(self) -> Deferred[None]:
        """Stop listening, end pulls so that they can be resumed, close the store."""
        super().stopService()
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        self._up = False
        if self._starting is not None:
            self._starting.cancel()
        for port in self._ports:
            await _maybe(port.stopListening())
        await self.workforce.stop(self._sites)
        for site in self._sites:
            site.disconnect()
        await self.fetcher.stop()
        await self._tasks.stop()
        self.client.close()
        await self.store.stop()

    def reread(self) -> None:
        """SIGHUP: read the peer list and the credentials again."""
        self._tasks.start("rereading", self._reread())

    async def _reread(self) -> None:
        try:
            await self.membership.refresh()
        except (LocalError, Malformed) as e:
            self.log.error("peer list: {error}; the one in force stays", error=e)
        if problem := await self.credentials.reload(run_blocking=self._run_blocking):
            self.log.critical("keeping the last good identity: {problem}", problem=problem)

    # -- what the parts are told --------------------------------------------------------

    async def _forget(self, digest: Digest) -> None:
        """A blob is being deleted: nobody pulls it, now or later."""
        self.custodian.forget(digest)
        await self.fetcher.forget(digest)

    def _came(self, peer: Peer) -> None:
        self.replicator.peer_came(peer)
        self.deletion.peer_came(peer)
        self.fetcher.peer_came(peer)

    def _dial(self, address: Address, expected: PeerID | None) -> IStreamClientEndpoint:
        reactor = self._reactor
        if address not in self.membership.configured:
            reactor = CarefulReactor(reactor, self.whereabouts.policy().refuse_ip)
        return self._walls.dial(
            reactor,
            address,
            self.credentials,
            expected=expected,
            timeout=self.config.peering.connect,
        )

    def _introduce(self) -> Introduction:
        me = self.whereabouts.describe()
        return Introduction(me.name, self.config.cluster, me.public_addr, me.mgmt_addr, me.others)


async def _maybe(result: Any) -> None:
    if result is not None:
        await result

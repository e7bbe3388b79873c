"""Keeps the roster up to date: greets peers when due, listens to who greets us, re-reads the peer list.

Decides nothing about who counts as alive, whom to greet when, or which learned addresses may be
dialled (``core.roster``, ``core.addresses``); it asks, greets and passes the answers on.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable
from typing import Any

from attrs import frozen
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from swarm.core.addresses import HTTPS
from swarm.core.roster import PeerState, Roster
from swarm.errors import Fault, LocalError, Malformed, PeerError
from swarm.interfaces import IPeerBook, IPeerClient
from swarm.model.messages import (
    ClusterDocument,
    Node,
    advertised_address,
    parse_advertised,
)
from swarm.model.peers import Address, Peer, PeerID, parse_node_name
from swarm.services.tasks import Signal, Tasks, sleep


@frozen
class MembershipSettings:
    """Seconds and counts; how often peers are greeted is ``core.roster.RosterSettings``."""

    tick: float = 0.5  # how often the roster is asked whom to greet
    greetings_at_once: int = 16
    note_every: float = 3600.0  # when peers met were last alive is kept over restarts, at least so often
    reread_every: float = 2.0  # how often the peer list is looked at for changes


class Membership:
    """I know who else is in the swarm."""

    log = Logger()

    def __init__(
        self,
        client: IPeerClient,
        roster: Roster,
        settings: MembershipSettings,
        *,
        cluster: str,
        me: Callable[[], Node],
        join: Iterable[Address],
        read_list: Callable[[], Coroutine[Any, Any, str | None]],
        book: IPeerBook,
        clock: IReactorTime,
        tasks: Tasks,
        came: Callable[[Peer], None],
    ) -> None:
        """
        :param me: what this node says of itself.
        :param read_list: the text of the ``--peers`` file; None without one.
        :param book: where peers met are kept over restarts.
        :param came: told of each peer that is new or back.
        """
        self._client = client
        self._roster = roster
        self._settings = settings
        self._cluster = cluster
        self._me = me
        self._join = tuple(join)
        self._read_list = read_list
        self._book = book
        self._noted: frozenset[Peer] = frozenset()  # what the book says
        self._noted_at = clock.seconds()
        self._noting = False
        self._clock = clock
        self._tasks = tasks
        self._came = came
        self._listed: tuple[Address, ...] = ()
        self._seen: str | None = None  # what the list said when it was read last, good or not
        self._trouble = ""  # with the list, as logged last
        self._greeting: set[Address] = set()
        self._settled = False  # was everybody known at the start greeted once?
        self._met = Signal()

    # -- running ------------------------------------------------------------------

    async def run(self) -> None:
        """Greet and re-read for ever; ends only by cancellation."""
        next_read = self._clock.seconds()
        self._roster.configure(self._configured(), next_read)  # whatever the list is like
        while True:
            now = self._clock.seconds()
            if now >= next_read:
                next_read = now + self._settings.reread_every
                await self._reread()
            for address in self._roster.due(now):
                if len(self._greeting) >= self._settings.greetings_at_once:
                    break
                if address not in self._greeting:
                    self._greeting.add(address)
                    self._tasks.start("greeting", self._greet_due(address))
            self._settle()
            self._roster.forget(now)
            await self._note(now)
            await sleep(self._clock, self._settings.tick)

    async def recall(self) -> None:
        """Know again whom an earlier run met; once, before anybody is answered."""
        now = self._clock.seconds()
        try:
            met = await self._book.load()
        except LocalError as e:
            self.log.error("cannot read whom this node met: {error}", error=e)
            return
        for peer, last_alive in met:
            self._roster.remember(peer, last_alive, now)
        self._noted = frozenset(peer for peer, _ in met)

    async def acquainted(self) -> bool:
        """
        Wait until everybody known at the start was greeted once, whether it answered or not.

        :return: False if that was so already. Before it is, what nobody seems to have may just be with
            somebody who was not met yet.
        """
        if self._settled:
            return False
        while not self._settled:
            await self._met.wait()
        return True

    def _settle(self) -> None:
        if not (self._settled or self._greeting or self._roster.due(self._clock.seconds())):
            self._settled = True
            self._met.fire()

    async def _note(self, now: float) -> None:
        """Keep whom we met, when that changed or is old."""
        met = self._roster.met()
        peers = frozenset(peer for peer, _ in met)
        if self._noting or (peers == self._noted and now - self._noted_at < self._settings.note_every):
            return
        self._noting, self._noted, self._noted_at = True, peers, now
        try:
            await self._book.save(met)
        except LocalError as e:
            self.log.error("cannot note whom this node met: {error}", error=e)
        finally:
            self._noting = False

    async def refresh(self) -> tuple[str, ...]:
        """
        Re-read the peer list now.

        :return: the configured addresses now in force.
        :raises Malformed: a line that is no address; the list in force stays.
        :raises LocalError: the file cannot be read.
        """
        return self._take_list(await self._read_list())

    async def join(self, address: Address) -> None:
        """
        Greet an address now; who answers is a peer from now on.

        :raises PeerError: nobody admissible answers there, or it belongs to another cluster.
        """
        await self._greet(address)

    # -- what is asked ----------------------------------------------------------------

    def live(self) -> tuple[Peer, ...]:
        """Peers that are alive."""
        return self._roster.live(self._clock.seconds())

    def known(self) -> tuple[PeerState, ...]:
        """All peers, with how they are doing."""
        return self._roster.known(self._clock.seconds())

    @property
    def configured(self) -> frozenset[Address]:
        """Addresses the operator named."""
        return frozenset((*self._join, *self._listed))

    def unanswered(self) -> tuple[tuple[Address, str], ...]:
        """Configured addresses where nobody ever answered, and why."""
        return self._roster.unanswered()

    def expected(self) -> int:
        """How many peers copies may be planned on: those met, and those the operator named."""
        return self._roster.established() + len(self._roster.unanswered())

    def document(self) -> dict[str, Any]:
        """The cluster document of the contract."""
        return ClusterDocument(
            self._cluster,
            self._me(),
            tuple(
                Node(
                    each.peer.name,
                    each.peer.id,
                    _host_port(each.peer.public_url),
                    str(each.peer.address),
                    int(each.last_alive or 0),
                )
                for each in self.known()
            ),
        ).to_json()

    # -- what is told -------------------------------------------------------------------

    def greeted(
        self,
        peer: PeerID,
        name: str,
        public_addr: str,
        mgmt_addr: str,
        remote_host: str,
        others: Iterable[str] = (),
    ) -> None:
        """
        A node, its identity proven, introduced itself.

        :param remote_host: the IP address it called from: stands in for an address without a host.
        :param others: where else it says it can be reached.
        :raises Malformed: a name or address that is none.
        """
        address = advertised_address(parse_advertised(mgmt_addr), remote_host)
        more = [advertised_address(parse_advertised(each), remote_host) for each in others]
        url = _url(public_addr, remote_host)
        now = self._clock.seconds()
        if self._roster.greeted(peer, parse_node_name(name), address, now, public_url=url, others=more):
            self._welcome(peer)

    # -- inside ---------------------------------------------------------------------------

    def _configured(self) -> tuple[Address, ...]:
        return tuple(dict.fromkeys((*self._join, *self._listed)))

    def _take_list(self, text: str | None) -> tuple[str, ...]:
        self._seen = text
        self._listed = parse_peer_list(text or "")
        self._roster.configure(self._configured(), self._clock.seconds())
        return tuple(map(str, self._configured()))

    async def _reread(self) -> None:
        try:
            text = await self._read_list()
            if text != self._seen:
                self._take_list(text)
        except (LocalError, Malformed) as e:
            if str(e) != self._trouble:  # said once, not at every look
                self.log.error("peer list: {error}; the one in force stays", error=e)
            self._trouble = str(e)
        else:
            self._trouble = ""

    async def _greet_due(self, address: Address) -> None:
        try:
            await self._greet(address)
        except PeerError as e:
            self._roster.failed(
                address, f"{e.fault.value}: {e.detail}" if e.detail else e.fault.value, self._clock.seconds()
            )
            self.log.debug("greeting {address}: {error}", address=address, error=e)
        finally:
            self._greeting.discard(address)
            self._settle()

    async def _greet(self, address: Address) -> None:
        peer, answer = await self._client.greet(address, full=True)
        try:
            document = ClusterDocument.from_json(answer)
        except Malformed as e:
            raise PeerError(peer, Fault.GARBLED, str(e)) from e
        if document.cluster != self._cluster:
            raise PeerError(
                peer, Fault.FOREIGN, f"it is in {document.cluster!r}, we are in {self._cluster!r}"
            )
        now = self._clock.seconds()
        url = _url(document.me.public_addr, address.host)
        news = self._roster.answered(address, peer, document.me.name, now, public_url=url)
        if document.me.others:
            self._roster.told(peer, _elsewhere((document.me.mgmt_addr, *document.me.others)), now)
        rumors = [
            (node.id, node.name, where)
            for node in document.peers
            for where in _elsewhere((node.mgmt_addr, *node.others))
        ]
        self._roster.gossip(rumors, now)
        if news:
            self._welcome(peer)

    def _welcome(self, peer: PeerID) -> None:
        for each in self.live():
            if each.id == peer:
                self.log.info(
                    "{name} ({peer}) is here, at {address}",
                    name=each.name,
                    peer=peer.short,
                    address=each.address,
                )
                self._tasks.start("noting a peer", self._note(self._clock.seconds()))
                self._came(each)


def parse_peer_list(text: str) -> tuple[Address, ...]:
    """
    Read a ``--peers`` file: one ``HOST:PORT`` a line, ``#`` comments.

    :raises Malformed: naming the line.
    """
    addresses = []
    for number, line in enumerate(text.splitlines(), 1):
        if entry := line.partition("#")[0].strip():
            try:
                addresses.append(Address.parse(entry))
            except Malformed as e:
                raise Malformed(f"line {number}: {e}") from e
    return tuple(addresses)


def _elsewhere(told: Iterable[str]) -> list[Address]:
    """Addresses with a host: where ``:port`` is, only who was greeted so knows."""
    return [Address.parse(each) for each in told if not each.startswith(":")]


def _url(public_addr: str, host: str) -> str:
    if not public_addr:
        return ""
    address = advertised_address(public_addr, host)
    return f"{'https' if address.port == HTTPS else 'http'}://{address}"


def _host_port(url: str) -> str:
    return url.partition("://")[2].rstrip("/")

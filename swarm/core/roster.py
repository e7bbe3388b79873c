"""Who is in the swarm, as far as this node knows: peers by identity, and addresses to greet.

Decides who counts as alive, what of the gossip to remember, how peers are called so that no two
look alike, and which address is to be greeted when. Does not greet, and trusts nobody: a name is a
claim, an address a hint; only an identity proven by TLS makes or moves an entry.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from random import Random
from typing import TypeGuard

from attrs import define, evolve, field, frozen

from swarm.core.backoff import Backoff
from swarm.model.messages import MOST_ADDRESSES
from swarm.model.peers import Address, Peer, PeerID

#: Failed greetings are repeated within seconds at first, every five minutes in the end.
GREETING_BACKOFF = Backoff(base=2.0, cap=300.0, floor=0.5)
_LONGEST_NAME = 64


class Knowledge(enum.IntEnum):
    """How a peer or an address became known; more is worth more."""

    GOSSIP = 0  # another node says so
    GREETED = 1  # it introduced itself, its identity proven
    CONFIGURED = 2  # the operator says so: never forgotten, never refused


class Condition(enum.Enum):
    """How a peer is doing."""

    ALIVE = "alive"
    SILENT = "silent"  # heard of it once, not lately
    UNREACHED = "unreached"  # never heard of it ourselves, or not for very long


@frozen
class RosterSettings:
    """
    Limits; times in seconds.

    :param greet_every: between greetings of a peer that answers, give or take a quarter.
    :param silent_after: without a sign of life a peer is silent.
    :param unreached_after: and then unreached.
    :param forget_after: and then forgotten, unless configured.
    :param strikes: failed greetings in a row that make a peer silent at once.
    :param gossip: most addresses taken from one message.
    :param addresses: most addresses kept per peer.
    :param peers: most peers kept, and most addresses learned and not yet answered.
    """

    greet_every: float = 30.0
    silent_after: float = 90.0
    unreached_after: float = 3600.0
    forget_after: float = 7 * 24 * 3600.0
    strikes: int = 2
    gossip: int = 64
    addresses: int = MOST_ADDRESSES
    peers: int = 1024
    backoff: Backoff = GREETING_BACKOFF


@frozen
class PeerState:
    """A peer as shown: its name made unique."""

    peer: Peer
    state: str  # a value of Condition
    last_alive: float | None
    detail: str
    source: Knowledge


@define
class _Entry:
    peer: Peer  # its name as claimed; its address the one that worked last
    source: Knowledge
    since: float
    last_alive: float | None = None


@define
class _Target:
    """An address to greet."""

    source: Knowledge
    due: float
    since: float
    owner: PeerID | None = None  # who answers there, or is said to
    failures: int = 0
    detail: str = "not greeted yet"


@define
class Roster:
    """The table. ``refuse`` says why not to dial a learned address (``AddressPolicy.refuse``)."""

    me: PeerID
    name: str
    random: Random = field(kw_only=True)
    refuse: Callable[[Address], str | None] = field(kw_only=True)
    settings: RosterSettings = field(factory=RosterSettings, kw_only=True)
    _entries: dict[PeerID, _Entry] = field(factory=dict, init=False)
    _targets: dict[Address, _Target] = field(factory=dict, init=False)
    _ourselves: set[Address] = field(factory=set, init=False)

    # -- what is told ---------------------------------------------------------

    def configure(self, addresses: Iterable[Address], now: float) -> None:
        """These addresses are the operator's, and only these; peers that still answer stay."""
        configured = set(addresses)
        for address in configured - self._ourselves:
            target = self._targets.setdefault(address, _Target(Knowledge.CONFIGURED, now, now))
            target.source = Knowledge.CONFIGURED
        for address, target in list(self._targets.items()):
            if target.source is Knowledge.CONFIGURED and address not in configured:
                target.source = Knowledge.GREETED
                if target.owner is None:
                    del self._targets[address]
        still = {target.owner for target in self._targets.values() if target.source is Knowledge.CONFIGURED}
        for peer, entry in self._entries.items():
            if entry.source is Knowledge.CONFIGURED and peer not in still:
                entry.source = Knowledge.GREETED

    def remember(self, peer: Peer, last_alive: float, now: float) -> None:
        """An earlier run of this node met the peer: it counts as silent, and is greeted, until it answers."""
        if peer.id == self.me or peer.id in self._entries or len(self._entries) >= self.settings.peers:
            return
        silent = now - self.settings.silent_after - 1.0
        self._entries[peer.id] = _Entry(peer, Knowledge.GREETED, now, min(last_alive, silent))
        # No policy is asked: it answered there, its identity proven.
        target = self._targets.setdefault(peer.address, _Target(Knowledge.GREETED, now, now))
        target.owner = target.owner or peer.id

    def answered(
        self, address: Address, peer: PeerID, name: str, now: float, *, public_url: str = ""
    ) -> bool:
        """
        Somebody answered our greeting at an address, its identity proven.

        :return: is that news: a peer we did not know, or that was not alive?
        """
        if peer == self.me:
            self._ourselves.add(address)
            self._targets.pop(address, None)
            self._move_others_from(address, peer)
            return False
        news = not self._alive(peer, now)
        target = self._targets.setdefault(address, _Target(Knowledge.GREETED, now, now))
        target.owner, target.failures, target.detail = peer, 0, ""
        target.due = now + self.settings.greet_every * self.random.uniform(0.75, 1.25)
        self._move_others_from(address, peer)
        who = Peer(peer, name, address, public_url)
        return self._heard(who, max(target.source, Knowledge.GREETED), now) and news

    def told(self, peer: PeerID, addresses: Iterable[Address], now: float) -> None:
        """Where else a peer says it can be reached: hints, greeted once where we know it no longer works."""
        for address in islice(addresses, self.settings.addresses):
            if peer in self._entries:
                self._learn(address, peer, Knowledge.GREETED, now, further=True)

    def greeted(
        self,
        peer: PeerID,
        name: str,
        address: Address,
        now: float,
        *,
        public_url: str = "",
        others: Iterable[Address] = (),
    ) -> bool:
        """
        Somebody greeted us, its identity proven, the address only claimed.

        While it is alive at one address, another that it claims is greeted before it replaces the first.
        Two may claim one address for a moment: the answer to the greeting decides.

        :param others: see :meth:`told`.
        :return: see :meth:`answered`.
        """
        if peer == self.me:
            return False
        known = self._entries.get(peer)
        news = not self._alive(peer, now)
        if self._learn(address, peer, Knowledge.GREETED, now):
            # Greet back at once, but not those that are alive: two nodes would never stop.
            target = self._targets[address]
            if news or target.failures:
                target.due = min(target.due, now)
        elif known is None:
            return False  # nowhere to reach it, so it is of no use to us
        else:
            address = known.peer.address
        where = address if known is None or news else known.peer.address
        heard = self._heard(Peer(peer, name, where, public_url), Knowledge.GREETED, now)
        self.told(peer, others, now)
        return heard and news

    def gossip(self, rumors: Iterable[tuple[PeerID, str, Address]], now: float) -> int:
        """
        Take what another node says of others: (identity, name, address).

        :return: how many addresses were new to us and kept; they are due for a greeting.
        """
        learned = 0
        for count, (peer, name, address) in enumerate(rumors):
            if count >= self.settings.gossip:
                break
            if peer == self.me or address in self._targets:
                continue
            if self._learn(address, peer, Knowledge.GOSSIP, now):
                learned += 1
                self._entries.setdefault(peer, _Entry(Peer(peer, name, address), Knowledge.GOSSIP, now))
        return learned

    def failed(self, address: Address, detail: str, now: float) -> None:
        """A greeting failed; ``detail`` is for people."""
        target = self._targets.get(address)
        if target is not None:
            target.failures += 1
            target.detail = detail
            target.due = now + self.settings.backoff.delay(target.failures, random=self.random)

    def forget(self, now: float) -> None:
        """Drop what was not heard of for long; call it now and then."""
        horizon = now - self.settings.forget_after
        for peer, entry in list(self._entries.items()):
            seen = entry.since if entry.last_alive is None else entry.last_alive
            if entry.source is not Knowledge.CONFIGURED and seen < horizon:
                del self._entries[peer]
        for address, target in list(self._targets.items()):
            if (
                target.source is not Knowledge.CONFIGURED
                and target.owner not in self._entries
                and target.since < horizon
            ):
                del self._targets[address]

    # -- what is asked --------------------------------------------------------

    def due(self, now: float) -> tuple[Address, ...]:
        """Addresses to greet now, configured ones first; one per live peer unless another is configured."""
        waiting = [
            (-target.source, target.due, address)
            for address, target in self._targets.items()
            if target.due <= now and not self._spare(address, target, now)
        ]
        return tuple(address for _, _, address in sorted(waiting))

    def live(self, now: float) -> tuple[Peer, ...]:
        """Peers that are alive."""
        return tuple(peer for peer, entry in self._named() if self._condition(entry, now) is Condition.ALIVE)

    def known(self, now: float) -> tuple[PeerState, ...]:
        """All peers, in the order they became known; a name taken already gets a suffix from the identity."""
        states = []
        for peer, entry in self._named():
            target = self._targets.get(peer.address)
            detail = target.detail if target is not None else ""
            condition = self._condition(entry, now).value
            states.append(PeerState(peer, condition, entry.last_alive, detail, entry.source))
        return tuple(states)

    def met(self) -> tuple[tuple[Peer, float], ...]:
        """Peers that were heard of directly, and when last: what is worth remembering."""
        return tuple(
            (peer, entry.last_alive) for peer, entry in self._named() if entry.last_alive is not None
        )

    def _named(self) -> Iterator[tuple[Peer, _Entry]]:
        taken = {self.name}
        for identity, entry in self._entries.items():
            peer = entry.peer
            name = peer.name if peer.name not in taken else _unique(peer.name, identity, taken)
            taken.add(name)
            yield (peer if name == peer.name else evolve(peer, name=name)), entry

    def established(self) -> int:
        """How many peers were ever heard of directly: what copies may be planned on. Rumors don't count."""
        return sum(entry.last_alive is not None for entry in self._entries.values())

    def unanswered(self) -> tuple[tuple[Address, str], ...]:
        """Configured addresses where nobody ever answered, and why."""
        return tuple(
            (address, target.detail)
            for address, target in self._targets.items()
            if target.owner is None and target.source is Knowledge.CONFIGURED
        )

    # -- inside ---------------------------------------------------------------

    def _heard(self, peer: Peer, source: Knowledge, now: float) -> bool:
        """Note a sign of life; False if the table is full."""
        entry = self._entries.get(peer.id)
        if entry is None:
            if len(self._entries) >= self.settings.peers and not self._make_room():
                return False
            entry = self._entries[peer.id] = _Entry(peer, source, now)
        entry.peer = peer
        entry.source = max(entry.source, source)
        entry.last_alive = now
        return True

    def _move_others_from(self, address: Address, owner: PeerID) -> None:
        """Only one node answers at an address: who else was believed there lives elsewhere or nowhere."""
        for peer, entry in list(self._entries.items()):
            if peer != owner and entry.peer.address == address:
                other = next((each for each, t in self._targets.items() if t.owner == peer), None)
                if other is None:
                    del self._entries[peer]
                else:
                    entry.peer = evolve(entry.peer, address=other)

    def _make_room(self) -> bool:
        """Somebody real is here: the oldest rumor goes."""
        rumor = next((peer for peer, each in self._entries.items() if each.source is Knowledge.GOSSIP), None)
        if rumor is not None:
            del self._entries[rumor]
        return rumor is not None

    def _learn(
        self, address: Address, peer: PeerID, source: Knowledge, now: float, *, further: bool = False
    ) -> bool:
        """
        Keep a claimed address if it may be dialled and there is room for it.

        :param further: it is not the one the peer prefers, and takes no place but of one that failed.
        """
        target = self._targets.get(address)
        if target is not None:
            return target.owner in (None, peer) or not self._alive(target.owner, now)
        if address in self._ourselves or self.refuse(address) is not None:
            return False
        same = [each for each, target in self._targets.items() if target.owner == peer]
        learned = sum(target.source is Knowledge.GOSSIP for target in self._targets.values())
        if source is Knowledge.GOSSIP:
            if len(same) >= self.settings.addresses or learned >= self.settings.peers:
                return False
            if peer not in self._entries and len(self._entries) >= self.settings.peers:
                return False
        elif len(same) >= self.settings.addresses:
            # It speaks for itself: what failed most often, or was learned first, makes room.
            spare = [
                each
                for each in same
                if self._targets[each].source is not Knowledge.CONFIGURED
                and (self._targets[each].failures or not further)
            ]
            if not spare:
                return False
            del self._targets[max(spare, key=lambda each: self._targets[each].failures)]
        self._targets[address] = _Target(source, now, now, owner=peer)
        return True

    def _alive(self, peer: PeerID | None, now: float) -> TypeGuard[PeerID]:
        entry = self._entries.get(peer) if peer is not None else None
        return entry is not None and self._condition(entry, now) is Condition.ALIVE

    def _condition(self, entry: _Entry, now: float) -> Condition:
        if entry.last_alive is None or now - entry.last_alive > self.settings.unreached_after:
            return Condition.UNREACHED
        target = self._targets.get(entry.peer.address)
        struck = target is not None and target.failures >= self.settings.strikes
        if struck or now - entry.last_alive > self.settings.silent_after:
            return Condition.SILENT
        return Condition.ALIVE

    def _spare(self, address: Address, target: _Target, now: float) -> bool:
        """Is it another way to a peer that is alive where we know it, and did not fail there last?"""
        if target.source is Knowledge.CONFIGURED or not self._alive(target.owner, now):
            return False
        where = self._entries[target.owner].peer.address
        return where != address and where in self._targets and not self._targets[where].failures


def _unique(name: str, peer: PeerID, taken: set[str]) -> str:
    for digits in (0, 6, 12):
        shown = f"{name[: _LONGEST_NAME - digits - 1]}~{peer.hex[:digits]}" if digits else name
        if shown not in taken:
            return shown
    return peer.hex

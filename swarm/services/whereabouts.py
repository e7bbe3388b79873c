"""Where this node may be found, as it tells others, and which addresses they may send it to.

Decides how a listening port becomes an address for peers: an operator's word first, else where it
listens; a wildcard becomes ``:port``, "where you see me". A public API on loopback is told to nobody but
peers on loopback.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from urllib.parse import urlsplit

from twisted.internet.interfaces import IAddress, IReactorTime

from swarm.core.addresses import HTTPS, AddressPolicy, is_loopback
from swarm.model.messages import MOST_ADDRESSES, Node
from swarm.model.peers import Address, PeerID

_WILDCARDS = ("", "0.0.0.0", "::")


class Whereabouts:
    """
    I describe this node.

    :ivar http: where the public API listens, once it does; ``peer``: the peer port. They stay when it stops.
    """

    def __init__(
        self,
        name: str,
        me: Callable[[], PeerID],
        *,
        advertise: Sequence[Address],
        public_url: str,
        secure: bool,
        clock: IReactorTime,
    ) -> None:
        """
        :param public_url: the operator's word; may be empty.
        :param secure: the public port speaks TLS.
        """
        self.http: IAddress | None = None
        self.peer: IAddress | None = None
        self._name = name
        self._me = me
        self._advertise = tuple(advertise)
        self._given_url = public_url
        self._scheme = "https" if secure else "http"
        self._clock = clock

    def describe(self) -> Node:
        """This node's part of the cluster document and its greetings."""
        return Node(
            self._name,
            self._me(),
            self._public_addr(),
            self._peer_addr(),
            int(self._clock.seconds()),
            self._other_addrs(),
        )

    def public_url(self) -> str:
        """How clients elsewhere reach the public API; empty if they don't."""
        if self._given_url:
            return self._given_url
        address = self._listens_at()
        if address.startswith(":"):
            address = f"{self._advertise[0].host}{address}" if self._advertise else ""
        return f"{self._scheme}://{address}" if address else ""

    def policy(self) -> AddressPolicy:
        """Which learned addresses may be dialled."""
        own = self._own()
        return AddressPolicy(own=own, loopback=any(map(is_loopback, own)))

    def _own(self) -> frozenset[Address]:
        host, port = _listening(self.peer)
        here = () if not port or host in _WILDCARDS else (Address(host, port),)
        return frozenset((*self._advertise, *here))

    def _peer_addr(self) -> str:
        if self._advertise:
            return str(self._advertise[0])
        host, port = _listening(self.peer)
        return f":{port}" if host in _WILDCARDS else str(Address(host, port))

    def _other_addrs(self) -> tuple[str, ...]:
        """What else the operator named, as much of it as others keep."""
        return tuple(dict.fromkeys(map(str, self._advertise)))[1:MOST_ADDRESSES]

    def _public_addr(self) -> str:
        """
        ``host:port`` of the public API for others, ``:port``, or nothing.

        They take it for plain HTTP, unless the port is that of HTTPS.
        """
        if self._given_url:
            url = urlsplit(self._given_url)
            return str(Address(url.hostname or "", url.port or (HTTPS if url.scheme == "https" else 80)))
        secure = self._scheme == "https" and _listening(self.http)[1] != HTTPS
        return "" if secure else self._listens_at()

    def _listens_at(self) -> str:
        host, port = _listening(self.http)
        if not port:
            return ""
        if host in _WILDCARDS:
            return f":{port}"
        here = Address(host, port)
        peers_elsewhere = not any(map(is_loopback, self._own()))
        return "" if is_loopback(here) and peers_elsewhere else str(here)


def _listening(where: IAddress | None) -> tuple[str, int]:
    return getattr(where, "host", ""), getattr(where, "port", 0)

"""Which addresses this node may dial when somebody else named them.

A learned address is a hint from a peer, and dialling it is a request made from *our* place in
the network (SSRF). Configured addresses are the operator's word and are not asked about here.
Does not resolve names: who dials a learned name resolves it once, asks :meth:`AddressPolicy.refuse_ip`
about what came out, and connects to that IP and no other (or DNS rebinding gets around all this).
"""

from __future__ import annotations

import ipaddress
import re
from functools import lru_cache

from attrs import frozen

from swarm.model.peers import Address

#: The port at which peers take a public API for one with TLS: they are told ``host:port`` and no more.
HTTPS = 443

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

#: Cloud metadata services outside of 169.254.0.0/16 (AWS over IPv6, Alibaba, Oracle's old one).
METADATA = frozenset(
    ipaddress.ip_address(each) for each in ("fd00:ec2::254", "100.100.100.200", "192.0.0.192")
)

#: IPv6 that carries an IPv4 address, or may: the IPv4 rules would not see it.
_TUNNELS = tuple(
    ipaddress.IPv6Network(each)
    for each in ("::ffff:0:0/96", "::/96", "64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32")
)

# The WHATWG's rule for hosts that resolvers take for IPv4: the last label is a number, 0x7f too.
_ENDS_IN_NUMBER = re.compile(r"(?:.*\.)?(?:\d+|0[xX][0-9a-fA-F]*)\.?", re.ASCII)


@frozen
class AddressPolicy:
    """
    What learned addresses are refused.

    :param own: this node's own addresses: never dialled.
    :param loopback: does this node itself advertise a loopback address? Then its peers live there.
    :param networks: if any, the only ones learned addresses may lie in.
    :param names: may learned addresses be host names?
    """

    own: frozenset[Address] = frozenset()
    loopback: bool = False
    networks: tuple[IPNetwork, ...] = ()
    names: bool = True

    def refuse(self, address: Address) -> str | None:
        """Why not to dial a learned address; None if it may be dialled (a name: once resolved)."""
        if address in self.own:
            return "it is our own"
        try:
            ip = ipaddress.ip_address(address.host)
        except ValueError:
            return self._refuse_name(address.host)
        return self.refuse_ip(ip)

    def refuse_ip(self, ip: IPAddress) -> str | None:
        """Why not to connect to an IP address that somebody else named or a name resolved to."""
        if isinstance(ip, ipaddress.IPv6Address):
            if ip.scope_id is not None:
                return "it has a zone"
            if not (ip.is_loopback or ip.is_unspecified) and any(ip in tunnel for tunnel in _TUNNELS):
                return "it wraps an IPv4 address"
        if ip.is_unspecified:
            return "it is unspecified"
        if ip.is_loopback:
            return None if self.loopback else "it is loopback"
        if ip.is_link_local:
            return "it is link-local"
        if ip.is_multicast:
            return "it is multicast"
        if ip in METADATA:
            return "it is a metadata service"
        if isinstance(ip, ipaddress.IPv4Address) and (ip.is_reserved or ip.packed[0] == 0):
            return "it is reserved"
        if self.networks and not any(ip.version == each.version and ip in each for each in self.networks):
            return "it lies in none of the networks allowed"
        return None

    def _refuse_name(self, host: str) -> str | None:
        if _ENDS_IN_NUMBER.fullmatch(host):
            return "it is an odd spelling of an IP address"
        if not self.names:
            return "it is a name"
        name = host.rstrip(".").lower()
        if (name == "localhost" or name.endswith(".localhost")) and not self.loopback:
            return "it is loopback"
        return None


@lru_cache(1024)  # asked with every greeting, of each of a few addresses
def is_loopback(address: Address) -> bool:
    """Is this a loopback address as we would advertise it? For ``AddressPolicy.loopback``."""
    try:
        return ipaddress.ip_address(address.host).is_loopback
    except ValueError:
        return address.host.lower() == "localhost"

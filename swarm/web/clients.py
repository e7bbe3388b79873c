"""Who is at the other end of a connection, as far as its address tells."""

from __future__ import annotations

import ipaddress
from functools import lru_cache

from twisted.internet.address import UNIXAddress
from twisted.internet.interfaces import IAddress


def _ip(address: IAddress | None) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    host = getattr(address, "host", None)
    return _parsed(host) if isinstance(host, str) else None


@lru_cache(1024)  # several times with each request; most come from few clients
def _parsed(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        parsed = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None
    return getattr(parsed, "ipv4_mapped", None) or parsed


def is_local(address: IAddress | None) -> bool:
    """Is this a client on our own machine: loopback or a UNIX socket?"""
    if isinstance(address, UNIXAddress):
        return True
    ip = _ip(address)
    return ip is not None and ip.is_loopback


def client_key(address: IAddress | None) -> str | None:
    """
    What counts as one client: an IPv4 address, an IPv6 /64.

    :return: None for local clients. A reverse proxy is one, and stands for many.
    """
    ip = _ip(address)
    if ip is None or ip.is_loopback:
        return None
    if ip.version == 6:
        return str(ipaddress.ip_network((ip, 64), strict=False))
    return str(ip)


def client_name(address: IAddress | None) -> str:
    """The address for people and logs."""
    return str(getattr(address, "host", None) or "local")

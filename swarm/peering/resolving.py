"""Dialling a host name that somebody else named: looked up once, each address judged before it is dialled.

Decides nothing about which addresses are fit: ``core.addresses`` does. Without this a name that points
at an address we would refuse (or is changed to, DNS rebinding) would get around that policy.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.interfaces import (
    IAddress,
    IHostnameResolver,
    IHostResolution,
    IReactorPluggableNameResolver,
    IResolutionReceiver,
)
from twisted.logger import Logger
from zope.interface import implementer

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


@implementer(IResolutionReceiver)
class _Fit:
    """Passes on only addresses that may be dialled."""

    log = Logger()

    def __init__(self, receiver: IResolutionReceiver, refuse: Callable[[IPAddress], str | None]) -> None:
        self._receiver = receiver
        self._refuse = refuse

    def resolutionBegan(self, resolutionInProgress: IHostResolution) -> None:
        self._receiver.resolutionBegan(resolutionInProgress)

    def addressResolved(self, address: IAddress) -> None:
        host = getattr(address, "host", "")
        reason = self._refuse(ipaddress.ip_address(host))
        if reason is None:
            self._receiver.addressResolved(address)
        else:
            self.log.info("not dialling {host}: {reason}", host=host, reason=reason)

    def resolutionComplete(self) -> None:
        self._receiver.resolutionComplete()


@implementer(IHostnameResolver)
class _Resolver:
    def __init__(self, resolver: IHostnameResolver, refuse: Callable[[IPAddress], str | None]) -> None:
        self._resolver = resolver
        self._refuse = refuse

    def resolveHostName(
        self,
        resolutionReceiver: IResolutionReceiver,
        hostName: str,
        portNumber: int = 0,
        addressTypes: Sequence[type[IAddress]] | None = None,
        transportSemantics: str = "TCP",
    ) -> IHostResolution:
        return self._resolver.resolveHostName(
            _Fit(resolutionReceiver, self._refuse), hostName, portNumber, addressTypes, transportSemantics
        )


@implementer(IReactorPluggableNameResolver)
class CarefulReactor:
    """A reactor for endpoints whose host names resolve to fit addresses only; all else is the given one's."""

    def __init__(self, reactor: Any, refuse: Callable[[IPAddress], str | None]) -> None:
        """
        :param refuse: why not to dial an address; None if it may be (``AddressPolicy.refuse_ip``).
        """
        self._reactor = reactor
        self.nameResolver = _Resolver(reactor.nameResolver, refuse)

    def installNameResolver(self, resolver: IHostnameResolver) -> IHostnameResolver:
        """See :class:`~twisted.internet.interfaces.IReactorPluggableNameResolver`."""
        before: IHostnameResolver = self._reactor.installNameResolver(resolver)
        return before

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)

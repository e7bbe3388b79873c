"""Which fault a broken connection is: the one place where Twisted's network errors are read."""

from __future__ import annotations

from twisted.internet.defer import TimeoutError
from twisted.internet.error import ConnectError, ConnectionClosed, DNSLookupError, UnsupportedAddressFamily
from twisted.web.client import ResponseFailed, ResponseNeverReceived
from twisted.web.http import PotentialDataLoss

from swarm.errors import Fault, PeerError
from swarm.model.peers import PeerID
from swarm.peering.tls import tls_fault

_NETWORK = (ConnectError, ConnectionClosed, DNSLookupError, UnsupportedAddressFamily, OSError)

_STATUS = {404: Fault.MISSING, 421: Fault.FOREIGN, 503: Fault.BUSY}


def fault_of(peer: PeerID | None, error: BaseException) -> PeerError | None:
    """
    Name what the network, TLS or Twisted's HTTP client says of a peer.

    TLS 1.3 rejects late: that the peer does not trust *us* is seen only on the first read.

    :return: None if ``error`` is no matter of networks.
    """
    if isinstance(error, PeerError):
        return error
    if words := tls_fault(error):
        return PeerError(peer, Fault.UNTRUSTED, words)
    if isinstance(error, TimeoutError):
        return PeerError(peer, Fault.SILENT, "took too long")
    if isinstance(error, _NETWORK):
        return PeerError(peer, Fault.UNREACHABLE, str(error) or type(error).__name__)
    if isinstance(error, PotentialDataLoss):
        return PeerError(peer, Fault.TRUNCATED, "a body without a length")
    reasons = [failure.value for failure in getattr(error, "reasons", ())]
    if not reasons:
        return None
    if not any(isinstance(reason, _NETWORK) for reason in reasons):
        # Twisted's parser gave up; its own words are about Python.
        return PeerError(peer, Fault.GARBLED, "not HTTP") if isinstance(error, ResponseFailed) else None
    if isinstance(error, ResponseFailed) and not isinstance(error, ResponseNeverReceived):
        return PeerError(peer, Fault.TRUNCATED, "the connection ended in the answer")
    return PeerError(peer, Fault.UNREACHABLE, str(reasons[0]) or type(reasons[0]).__name__)


def fault_of_status(status: int) -> Fault:
    """Name a status that is no success."""
    return _STATUS.get(status, Fault.REFUSED)

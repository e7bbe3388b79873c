"""Which fault a broken connection is: the one place where Twisted's and OpenSSL's errors are read."""

from __future__ import annotations

from OpenSSL import SSL
from service_identity import CertificateError, VerificationError
from twisted.internet.defer import CancelledError, TimeoutError
from twisted.internet.error import ConnectError, ConnectionClosed, DNSLookupError, UnsupportedAddressFamily
from twisted.python.failure import Failure

from swarm.errors import Fault, PeerError
from swarm.model.peers import PeerID


def unreachable(peer: PeerID | None, failure: Failure) -> Exception:
    """
    What to raise for a connection that could not be made, or that broke before any answer.

    TLS 1.3 rejects late: that they do not trust *us* is seen only on the first read.

    :return: a :class:`PeerError`; whatever is no matter of networks comes back as it is.
    """
    error = failure.value
    if isinstance(error, PeerError | CancelledError):
        return error
    if isinstance(error, SSL.Error | VerificationError | CertificateError):
        return PeerError(peer, Fault.UNTRUSTED, _text(error))
    if isinstance(error, TimeoutError):
        return PeerError(peer, Fault.SILENT, "took too long")
    if isinstance(
        error, ConnectError | ConnectionClosed | DNSLookupError | UnsupportedAddressFamily | OSError
    ):
        return PeerError(peer, Fault.UNREACHABLE, _text(error))
    assert isinstance(error, Exception)
    return error


def _text(error: BaseException) -> str:
    if isinstance(error, SSL.Error) and error.args and error.args[0]:
        return ", ".join(str(each[-1]) for each in error.args[0])
    return str(error) or type(error).__name__

"""Which certificates speak for a peer.

A peer is admitted when its certificate chains to one of our CAs, is in date, names both
clientAuth and serverAuth, is not revoked, and its key is on the allow-list where there is one.
A dialer also wants the SAN to name the host it dialled and, where it knows it, the key it expects.
The same rules judge a handshake under way (``swarm.peering.tls``) and, after a change of
trust, the connections already made.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from attrs import field, frozen
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from OpenSSL import SSL, crypto

from swarm import pki
from swarm.model.peers import PeerID
from swarm.peering.identity import Identity, host_refusal

_Codes = SSL.X509VerificationCodes

CHAIN_FAULTS: Final = {
    _Codes.ERR_CERT_HAS_EXPIRED: "its certificate, or one above it, has expired",
    _Codes.ERR_CERT_NOT_YET_VALID: "its certificate is not valid yet",
    _Codes.ERR_CERT_REVOKED: "its certificate is revoked",
    _Codes.ERR_CRL_HAS_EXPIRED: "our revocation list has expired, so nobody can be cleared",
    _Codes.ERR_CRL_NOT_YET_VALID: "our revocation list is not valid yet",
    _Codes.ERR_UNABLE_TO_GET_CRL: "we have no revocation list of the CA that signed its certificate",
    _Codes.ERR_CRL_SIGNATURE_FAILURE: "our revocation list was not signed by the CA it names",
    _Codes.ERR_DEPTH_ZERO_SELF_SIGNED_CERT: "its certificate is self-signed",
    _Codes.ERR_SELF_SIGNED_CERT_IN_CHAIN: "a CA we do not trust signed its certificate",
    _Codes.ERR_UNABLE_TO_GET_ISSUER_CERT: "a CA we do not know signed its certificate",
    _Codes.ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY: "a CA we do not know signed its certificate",
    _Codes.ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE: "a CA we do not know signed its certificate",
    _Codes.ERR_CERT_SIGNATURE_FAILURE: "its certificate carries a false signature",
    _Codes.ERR_INVALID_PURPOSE: "its certificate's key usages do not allow this role",
    _Codes.ERR_INVALID_CA: "something that is not a CA signed its certificate",
}
"""OpenSSL's verification errors in words; others are named by their number."""

_PASSING: Final = frozenset(
    {
        _Codes.ERR_CERT_HAS_EXPIRED,
        _Codes.ERR_CERT_NOT_YET_VALID,
        _Codes.ERR_CERT_REVOKED,
        _Codes.ERR_CRL_HAS_EXPIRED,
        _Codes.ERR_CRL_NOT_YET_VALID,
        _Codes.ERR_UNABLE_TO_GET_CRL,
    }
)
"""What a newer file from the same CA mends: no reason not to start."""


def chain_fault(code: int) -> str:
    """Words for an ``X509_V_ERR`` number."""
    return CHAIN_FAULTS.get(code, f"its certificate does not verify (OpenSSL error {code})")


@frozen(eq=False)
class Admission:
    """The rules in force under one identity."""

    identity: Identity
    store: crypto.X509Store = field(init=False, repr=False)

    @store.default
    def _trust_store(self) -> crypto.X509Store:
        store = crypto.X509Store()
        trust(store, self.identity)
        return store

    def leaf_refusal(
        self, certificate: x509.Certificate, *, host: str | None = None, expected: PeerID | None = None
    ) -> str | None:
        """
        Judge a certificate whose chain, dates and revocation are known to be good.

        :param host: the dialled name or address; None for those who dialled us.
        :param expected: whose key it must be, where known.
        :return: why it is refused; None if it is not.
        """
        try:
            lacking = pki.lacking_purposes(certificate)
            peer_id = pki.peer_id(certificate)
        except (ValueError, UnsupportedAlgorithm):  # cryptography is stricter than OpenSSL
            return "its certificate cannot be read"
        if lacking:
            return f"its certificate does not name the extended key usage {' and '.join(lacking)}"
        if self.identity.allowed is not None and peer_id not in self.identity.allowed:
            return f"its key {peer_id.short} is not on the allow-list"
        if host is not None and (refusal := host_refusal(certificate, host)):
            return refusal
        if expected is not None and peer_id != expected:
            return f"its key is {peer_id.short}, not the expected {expected.short}"
        return None

    def refusal(self, certificate: x509.Certificate, chain: Sequence[x509.Certificate] = ()) -> str | None:
        """
        Judge a certificate from scratch, now.

        :param chain: the other certificates the peer sent.
        :return: why it is refused; None if it is not.
        """
        code = self._verify(certificate, chain)
        return chain_fault(code) if code else self.leaf_refusal(certificate)

    def own_fault(self) -> str | None:
        """Why our own CAs do not vouch for our own certificate; None if they do, leaving aside time."""
        code = self._verify(self.identity.certificate, self.identity.intermediates)
        return chain_fault(code) if code and code not in _PASSING else None

    def _verify(self, certificate: x509.Certificate, chain: Sequence[x509.Certificate]) -> int:
        context = crypto.X509StoreContext(
            self.store,
            crypto.X509.from_cryptography(certificate),
            [crypto.X509.from_cryptography(each) for each in chain],
        )
        try:
            context.verify_certificate()
        except crypto.X509StoreContextError as e:
            return int(e.errors[0])
        return 0


def trust(store: crypto.X509Store, identity: Identity) -> None:
    """Put an identity's CAs and revocation lists into a new, empty store."""
    for authority in identity.authorities:
        store.add_cert(crypto.X509.from_cryptography(authority))
    subjects = {authority.subject for authority in identity.authorities}
    flags = 0
    # A bundle may hold an intermediate CA alone: then the chain ends there, below its root.
    partial = any(authority.issuer not in subjects for authority in identity.authorities)
    if partial:
        flags |= crypto.X509StoreFlags.PARTIAL_CHAIN
    if identity.crls:
        for crl in identity.crls:
            store.add_crl(crl)
        flags |= crypto.X509StoreFlags.CRL_CHECK
        if not partial:  # the CA a chain ends at has no issuer here whose list could clear it
            flags |= crypto.X509StoreFlags.CRL_CHECK_ALL
    store.set_flags(flags)

"""What this node shows to others and whom it trusts, as one value read from files.

Decides whether the files make a usable identity. An identity that time made useless (expired, not
yet valid) is still loaded, so that the rest of the node works; :meth:`Identity.complaints` says so.
Who is admitted with it is decided in ``swarm.peering.admission``; when files are read
again, in ``swarm.peering.tls``.
"""

from __future__ import annotations

import stat
from pathlib import Path

from attrs import evolve, field, frozen
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes
from service_identity import CertificateError, VerificationError
from service_identity.cryptography import verify_certificate_hostname, verify_certificate_ip_address
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.logger import Logger

from swarm import pki
from swarm.errors import IdentityError
from swarm.model.peers import PeerID

_log = Logger()

_DAY = 86400.0


@frozen
class IdentityPaths:
    """The files of an identity. All that are named must exist, except ``optional`` ones."""

    ca: Path
    cert: Path
    key: Path
    crl: Path | None = None
    allow: Path | None = None
    optional: frozenset[Path] = frozenset()

    @classmethod
    def in_directory(cls, path: Path) -> IdentityPaths:
        """The layout of ``swarm.pki.directory``; ``crl.pem`` and ``allow`` need not be there."""
        crl, allow = path / pki.CRL, path / pki.ALLOW
        optional = frozenset({crl, allow})
        return cls(path / pki.CA, path / pki.CERTIFICATE, path / pki.KEY, crl, allow, optional)

    def requiring(self, crl: Path | None = None, allow: Path | None = None) -> IdentityPaths:
        """The same with another ``crl`` or ``allow``, where given; what is given must exist."""
        optional = self.optional - {crl, allow}
        return evolve(self, crl=crl or self.crl, allow=allow or self.allow, optional=optional)

    @property
    def all(self) -> tuple[Path, ...]:
        """Every file that may matter."""
        return tuple(path for path in (self.ca, self.cert, self.key, self.crl, self.allow) if path)


@frozen(eq=False)
class Identity:
    """This node's certificate and key, and what it trusts. Immutable; a change makes a new one."""

    certificate: x509.Certificate
    key: CertificateIssuerPrivateKeyTypes = field(repr=False)
    authorities: tuple[x509.Certificate, ...]
    intermediates: tuple[x509.Certificate, ...] = ()
    crls: tuple[x509.CertificateRevocationList, ...] = ()
    """Empty: no revocation checks. Else every peer must be cleared by a current list."""
    allowed: frozenset[PeerID] | None = None
    """None: everybody the CA signed."""
    peer_id: PeerID = field(init=False)
    name: str = field(init=False)

    @peer_id.default
    def _own_peer_id(self) -> PeerID:
        return pki.peer_id(self.certificate)

    @name.default
    def _own_name(self) -> str:
        return pki.common_name(self.certificate)

    def days_left(self, now: float) -> float:
        """Days until our certificate, or the first one above it, expires; negative after it."""
        chain = [self.certificate, *self.intermediates]
        issuers = {certificate.issuer for certificate in chain}
        chain += [ca for ca in self.authorities if ca.subject in issuers]
        return (min(each.not_valid_after_utc for each in chain).timestamp() - now) / _DAY

    def crl_days_left(self, now: float) -> float | None:
        """Days until a revocation list expires and nobody is admitted any more; None without."""
        ends = [crl.next_update_utc.timestamp() for crl in self.crls if crl.next_update_utc]
        return (min(ends) - now) / _DAY if ends else None

    def covers(self, host: str) -> bool:
        """Would a peer that dials this name or address accept our certificate?"""
        return host_refusal(self.certificate, host) is None

    def complaints(self, now: float) -> tuple[str, ...]:
        """Why peers refuse us, or we refuse all of them, at ``now``: things only the operator can mend."""
        found = []
        if now < self.certificate.not_valid_before_utc.timestamp():
            found.append(f"our certificate is not valid before {self.certificate.not_valid_before_utc}")
        if self.days_left(now) < 0:
            found.append(f"our certificate or its CA expired {-self.days_left(now):.1f} days ago")
        crl_days = self.crl_days_left(now)
        if crl_days is not None and crl_days < 0:
            found.append(f"a revocation list expired {-crl_days:.1f} days ago: no peer is admitted")
        for crl in self.crls:
            listed = crl.get_revoked_certificate_by_serial_number(self.certificate.serial_number)
            if listed is not None and crl.issuer == self.certificate.issuer:
                found.append("our certificate is revoked")
        return tuple(found)


def load(paths: IdentityPaths) -> Identity:
    """
    Read an identity. May block on the disk.

    :raises IdentityError: a file is missing or wrong; says which and why.
    """
    certificate, *intermediates = pki.read_certificates(paths.cert)
    key = pki.read_private_key(paths.key)
    if pki.peer_id(key.public_key()) != pki.peer_id(certificate):
        raise IdentityError(paths.key, f"is not the key of the first certificate in {paths.cert}")
    _check_mode(paths.key)
    authorities = pki.read_certificates(paths.ca)
    try:
        lacking = pki.lacking_purposes(certificate)
        leaves = [pki.common_name(each) for each in authorities if not pki.is_authority(each)]
    except ValueError as e:
        raise IdentityError(paths.cert, f"has extensions nobody can read ({e})") from e
    if lacking:
        raise IdentityError(
            paths.cert, f"lacks the extended key usage {' and '.join(lacking)}: no peer would admit it"
        )
    if leaves:
        raise IdentityError(paths.ca, f"{leaves[0]!r} is not the certificate of a CA")
    crls = pki.read_crls(paths.crl) if paths.crl and _wanted(paths, paths.crl) else ()
    for crl in crls:
        issuers = [each for each in (*authorities, *intermediates) if each.subject == crl.issuer]
        if issuers and not any(_signed(crl, issuer) for issuer in issuers):
            raise IdentityError(paths.crl, "holds a revocation list that the CA it names did not sign")
    return Identity(
        certificate=certificate,
        key=key,
        authorities=authorities,
        intermediates=tuple(intermediates),
        crls=crls,
        allowed=pki.read_allow_list(paths.allow) if paths.allow and _wanted(paths, paths.allow) else None,
    )


def host_refusal(certificate: x509.Certificate, host: str) -> str | None:
    """
    Why a certificate does not speak for a host, by RFC 6125 rules (SAN only, never the CN).

    :param host: DNS name in ASCII, or IPv4/IPv6 address.
    :return: the reason; None if it does.
    """
    try:
        if isIPAddress(host) or isIPv6Address(host):
            verify_certificate_ip_address(certificate, host)
        else:
            verify_certificate_hostname(certificate, host)
    except (VerificationError, CertificateError, ValueError):
        try:
            named = ", ".join(pki.hosts(certificate)) or "no host at all"
        except ValueError:
            named = "something unreadable"
        return f"its certificate is not for {host} but for {named}"
    return None


def _wanted(paths: IdentityPaths, path: Path) -> bool:
    return path not in paths.optional or path.exists()


def _signed(crl: x509.CertificateRevocationList, issuer: x509.Certificate) -> bool:
    key = issuer.public_key()
    return crl.is_signature_valid(key)  # type: ignore[arg-type]  # of a CA, hence able to sign


def _check_mode(path: Path) -> None:
    # A warning, not a refusal: secrets mounted into containers are often 0444 and cannot be changed there.
    mode = path.stat().st_mode
    if stat.S_IMODE(mode) & 0o077:
        _log.warn("the private key {path} can be read by other users: chmod 600 {path}", path=str(path))

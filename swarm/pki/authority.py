"""A swarm's own certificate authority: what it signs, and for how long.

Pure but for the key generator's and the serial numbers' randomness, which must come from
the operating system. Where the results are stored is decided in ``swarm.pki.directory``.

Keys are ECDSA P-256 unless asked otherwise: every TLS 1.3 implementation must have it
(RFC 8446, 9.1), which cannot be said of Ed25519.
"""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Iterable, Sequence
from enum import Enum

from attrs import field, frozen
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519
from cryptography.hazmat.primitives.asymmetric.types import (
    CertificateIssuerPrivateKeyTypes,
    CertificatePublicKeyTypes,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from swarm.errors import Malformed
from swarm.model.peers import Address, parse_node_name
from swarm.pki.parsing import common_name, hosts

AUTHORITY_DAYS = 3650
NODE_DAYS = 90
CRL_DAYS = 365
"""Long, since an expired list stops a swarm, and what it lists expires sooner anyway."""

BACKDATED = datetime.timedelta(hours=1)
"""How far another node's clock may be behind ours without refusing a new certificate."""


class KeyType(Enum):
    """What keys are made of."""

    ECDSA = "ecdsa"
    ED25519 = "ed25519"


def generate_key(key_type: KeyType = KeyType.ECDSA) -> CertificateIssuerPrivateKeyTypes:
    """Make a new private key."""
    match key_type:
        case KeyType.ECDSA:
            return ec.generate_private_key(ec.SECP256R1())
        case KeyType.ED25519:
            return ed25519.Ed25519PrivateKey.generate()


@frozen
class Authority:
    """A CA certificate and its key."""

    certificate: x509.Certificate
    key: CertificateIssuerPrivateKeyTypes = field(repr=False)

    @classmethod
    def create(
        cls,
        name: str,
        *,
        now: datetime.datetime,
        days: float = AUTHORITY_DAYS,
        key_type: KeyType = KeyType.ECDSA,
        key: CertificateIssuerPrivateKeyTypes | None = None,
        serial: int | None = None,
    ) -> Authority:
        """
        Make a new self-signed CA.

        :param key: None: a new one of ``key_type``; ``serial``: None: a random one.
        :raises Malformed: a name no certificate can carry.
        """
        key = key or generate_key(key_type)
        subject = _subject(name)
        public = key.public_key()
        certificate = (
            _dated(now, now + datetime.timedelta(days=days), serial)
            .subject_name(subject)
            .issuer_name(subject)
            .public_key(public)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(authority=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .sign(key, _hash_for(key))
        )
        return cls(certificate, key)

    def issue(
        self,
        name: str,
        at: Sequence[str],
        public_key: CertificatePublicKeyTypes,
        *,
        now: datetime.datetime,
        days: float = NODE_DAYS,
        serial: int | None = None,
    ) -> x509.Certificate:
        """
        Sign a node's certificate: CN is its name, SAN where it may be dialled, EKU client and server.

        It never outlives the CA's own certificate.

        :param at: DNS names and IP addresses, at least one.
        :param serial: None: a random one.
        :raises Malformed: a bad name or host, no host, or a CA that has expired.
        """
        expires = min(now + datetime.timedelta(days=days), self.certificate.not_valid_after_utc)
        if expires <= now:
            raise Malformed(f"the CA expired on {self.certificate.not_valid_after_utc:%Y-%m-%d}")
        return (
            _dated(now, expires, serial)
            .subject_name(_subject(parse_node_name(name)))
            .issuer_name(self.certificate.subject)
            .public_key(public_key)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(authority=False), critical=True)
            .add_extension(
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]),
                critical=False,
            )
            .add_extension(x509.SubjectAlternativeName(alternative_names(at)), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
            .add_extension(self._key_identifier(), critical=False)
            .sign(self.key, _hash_for(self.key))
        )

    def renew(
        self,
        old: x509.Certificate,
        *,
        now: datetime.datetime,
        days: float = NODE_DAYS,
        at: Sequence[str] = (),
    ) -> x509.Certificate:
        """
        Sign a certificate's key again with new dates: the PeerID stays.

        :param at: new hosts; empty: those it had.
        :raises Malformed: as :meth:`issue`.
        """
        key: CertificatePublicKeyTypes = old.public_key()
        return self.issue(common_name(old), at or hosts(old), key, now=now, days=days)

    def revocation_list(
        self,
        previous: x509.CertificateRevocationList | None = None,
        revoke: Iterable[x509.Certificate] = (),
        *,
        now: datetime.datetime,
        days: float = CRL_DAYS,
    ) -> x509.CertificateRevocationList:
        """
        Sign a revocation list: the previous one's entries, and more.

        :param days: after these, nodes that use the list refuse everybody until they get a newer one.
        :raises Malformed: a certificate that another CA signed.
        """
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.certificate.subject)
            .last_update(now - BACKDATED)
            .next_update(now + datetime.timedelta(days=days))
            .add_extension(self._key_identifier(), critical=False)
            .add_extension(x509.CRLNumber(_number(previous) + 1), critical=False)
        )
        listed = {}
        for entry in previous or ():
            listed[entry.serial_number] = entry
        for certificate in revoke:
            try:
                certificate.verify_directly_issued_by(self.certificate)
            except (ValueError, TypeError, InvalidSignature) as e:
                raise Malformed(f"{common_name(certificate)!r} was not signed by this CA") from e
            listed.setdefault(
                certificate.serial_number,
                x509.RevokedCertificateBuilder()
                .serial_number(certificate.serial_number)
                .revocation_date(now)
                .build(),
            )
        for entry in listed.values():
            builder = builder.add_revoked_certificate(entry)
        return builder.sign(self.key, _hash_for(self.key))

    def _key_identifier(self) -> x509.AuthorityKeyIdentifier:
        try:
            own = self.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
        except x509.ExtensionNotFound:
            return x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key())
        return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own.value)


def alternative_names(at: Sequence[str]) -> list[x509.GeneralName]:
    """
    The SAN of a node reachable at these DNS names and IP addresses.

    :raises Malformed: none given, or one is neither.
    """
    if not at:
        raise Malformed("a node's certificate needs at least one host name or IP address")
    names: list[x509.GeneralName] = []
    for host in dict.fromkeys(at):
        try:
            names.append(x509.IPAddress(ipaddress.ip_address(host)))
        except ValueError:
            wild = host.removeprefix("*.")
            names.append(x509.DNSName(host.removesuffix(wild) + Address.parse(f"{wild}:1").host))
    return names


def _subject(name: str) -> x509.Name:
    try:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    except ValueError as e:
        raise Malformed(f"a certificate's name has 1–64 bytes: {name[:80]!r}") from e


def _dated(now: datetime.datetime, expires: datetime.datetime, serial: int | None) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .serial_number(x509.random_serial_number() if serial is None else serial)
        .not_valid_before(now - BACKDATED)
        .not_valid_after(expires)
    )


def _usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _hash_for(key: CertificateIssuerPrivateKeyTypes) -> hashes.SHA256 | None:
    pure = isinstance(key, ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey)
    return None if pure else hashes.SHA256()


def _number(crl: x509.CertificateRevocationList | None) -> int:
    if crl is None:
        return 0
    try:
        return crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
    except x509.ExtensionNotFound:
        return 0

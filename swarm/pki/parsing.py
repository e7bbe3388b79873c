"""Reading certificates, keys, revocation lists and allow-lists, ours or anybody's.

Decides what a file must hold and says which file is wrong and why. Whether a peer is
admitted is decided in ``swarm.peering.admission``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.types import (
    CertificateIssuerPrivateKeyTypes,
    PublicKeyTypes,
)
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from swarm.errors import IdentityError, Malformed
from swarm.model.peers import PeerID
from swarm.pki.files import read_file

PURPOSES = {
    ExtendedKeyUsageOID.CLIENT_AUTH: "clientAuth",
    ExtendedKeyUsageOID.SERVER_AUTH: "serverAuth",
}
"""The extended key usages a node's certificate must name, both, by OID."""


# -- files --------------------------------------------------------------------


def read_certificates(path: Path) -> tuple[x509.Certificate, ...]:
    """
    Read every certificate of a PEM file, in order; at least one.

    :raises IdentityError: missing, unreadable, or no certificate in it.
    """
    data = read_file(path)
    try:
        return tuple(x509.load_pem_x509_certificates(data))
    except ValueError as e:
        raise IdentityError(path, f"holds no readable PEM certificate ({e})") from e


def read_private_key(path: Path) -> CertificateIssuerPrivateKeyTypes:
    """
    Read an unencrypted PEM private key that can sign (PKCS #8, SEC 1 or PKCS #1).

    :raises IdentityError: missing, encrypted, or no such key.
    """
    data = read_file(path)
    try:
        key = load_pem_private_key(data, password=None)
    except TypeError as e:
        raise IdentityError(
            path, f"is encrypted; store it without a passphrase: openssl pkey -in {path} -out NEW"
        ) from e
    except (ValueError, UnsupportedAlgorithm) as e:
        raise IdentityError(path, "holds no readable PEM private key") from e
    if not hasattr(key, "sign"):
        raise IdentityError(path, "holds a key that cannot sign")
    return key  # type: ignore[return-value]  # it signs, which is what that union stands for


def read_crls(path: Path) -> tuple[x509.CertificateRevocationList, ...]:
    """
    Read every revocation list of a PEM file; at least one.

    :raises IdentityError: missing, unreadable, or no revocation list in it.
    """
    begin, end = b"-----BEGIN X509 CRL-----", b"-----END X509 CRL-----"
    crls = []
    for part in read_file(path).split(begin)[1:]:
        body, found, _ = part.partition(end)
        try:
            crls.append(x509.load_pem_x509_crl(begin + body + found + b"\n"))
        except ValueError as e:
            raise IdentityError(path, f"holds an unreadable revocation list ({e})") from e
    if not crls:
        raise IdentityError(path, "holds no PEM revocation list")
    return tuple(crls)


def read_allow_list(path: Path) -> frozenset[PeerID]:
    """
    Read PeerIDs, one a line (64 hex digits); ``#`` begins a comment. May be empty: then nobody is allowed.

    :raises IdentityError: missing, or a line is something else.
    """
    allowed = set()
    for number, line in enumerate(read_file(path).decode("utf-8", "replace").splitlines(), 1):
        text = line.partition("#")[0].strip()
        if text:
            try:
                allowed.add(PeerID.parse(text))
            except Malformed as e:
                raise IdentityError(path, f"line {number}: {e}") from e
    return frozenset(allowed)


# -- what a certificate says ---------------------------------------------------


def peer_id(key: x509.Certificate | PublicKeyTypes) -> PeerID:
    """SHA-256 of the SubjectPublicKeyInfo of a key, or of a certificate's key."""
    public = key.public_key() if isinstance(key, x509.Certificate) else key
    spki = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return PeerID(hashlib.sha256(spki).digest())


def common_name(certificate: x509.Certificate) -> str:
    """The last CN of the subject, or ``""``: for people, never for decisions."""
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    value = names[-1].value if names else ""
    return value if isinstance(value, str) else value.decode("utf-8", "replace")


def hosts(certificate: x509.Certificate) -> tuple[str, ...]:
    """
    DNS names and IP addresses of the SAN, as text, in the certificate's order.

    :raises ValueError: extensions that cannot be parsed.
    """
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    return tuple(str(name.value) for name in names if isinstance(name, x509.DNSName | x509.IPAddress))


def purposes(certificate: x509.Certificate) -> tuple[str, ...]:
    """
    Extended key usages: ``clientAuth``, ``serverAuth``, dotted OIDs for others; empty if none are named.

    :raises ValueError: extensions that cannot be parsed.
    """
    try:
        usages = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return ()
    return tuple(PURPOSES.get(usage, usage.dotted_string) for usage in usages)


def lacking_purposes(certificate: x509.Certificate) -> Sequence[str]:
    """
    Which of clientAuth and serverAuth a certificate fails to name.

    :raises ValueError: extensions that cannot be parsed.
    """
    named = purposes(certificate)
    return [purpose for purpose in PURPOSES.values() if purpose not in named]


def is_authority(certificate: x509.Certificate) -> bool:
    """
    May it sign others (basicConstraints CA)?

    :raises ValueError: extensions that cannot be parsed.
    """
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False

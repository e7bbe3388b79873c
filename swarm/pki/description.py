"""What certificates, revocation lists and keys say, for people and for machines.

Decides only how it is told; nothing here is a decision about trust.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from swarm.errors import IdentityError
from swarm.pki.directory import ALLOW, CA, CERTIFICATE, CRL
from swarm.pki.files import read_file
from swarm.pki.parsing import (
    common_name,
    hosts,
    is_authority,
    lacking_purposes,
    peer_id,
    purposes,
    read_allow_list,
    read_certificates,
    read_crls,
    read_private_key,
)


def describe(path: Path, now: datetime.datetime) -> list[dict[str, Any]]:
    """
    Tell what is in a PEM file, or in the files of an identity or an authority.

    :param path: a file, or a directory laid out as in ``swarm.pki.directory``.
    :return: JSON objects, one for each certificate, list or key; each has ``kind`` and ``file``.
    :raises IdentityError: nothing readable there.
    """
    if path.is_dir():
        files = [path / name for name in (CERTIFICATE, CA, CRL, ALLOW) if (path / name).exists()]
        if not files:
            raise IdentityError(path, "holds neither an identity nor an authority")
        return [each for file in files for each in describe(file, now)]
    return [{**each, "file": str(path)} for each in _describe_file(path, now)]


def lines(described: dict[str, Any]) -> Iterator[str]:
    """One object of :func:`describe`, for people."""
    yield f"{described['kind']} {described.get('name', '')}".rstrip()
    for key, value in described.items():
        if key in ("kind", "name") or value in ([], None, ""):
            continue
        label = key.replace("_", " ")
        if key == "problems":
            yield from (f"  PROBLEM      {problem}" for problem in value)
        elif isinstance(value, list):
            yield f"  {label:<12} {', '.join(map(str, value))}"
        else:
            yield f"  {label:<12} {value}"


def _describe_file(path: Path, now: datetime.datetime) -> list[dict[str, Any]]:
    data = read_file(path)
    found: list[dict[str, Any]] = []
    if b"-----BEGIN CERTIFICATE-----" in data:
        try:
            found += [_certificate(each, now) for each in read_certificates(path)]
        except ValueError as e:
            raise IdentityError(path, f"has extensions nobody can read ({e})") from e
    if b"-----BEGIN X509 CRL-----" in data:
        found += [_crl(each, now) for each in read_crls(path)]
    if b"PRIVATE KEY-----" in data:
        public = read_private_key(path).public_key()
        found.append({"kind": "private key", "key": _key(public), "peer_id": peer_id(public).hex})
    if not found and path.name == ALLOW:
        allowed = sorted(each.hex for each in read_allow_list(path))
        found.append({"kind": "allow-list", "peer_ids": allowed})
    if not found:
        raise IdentityError(path, "holds no PEM certificate, revocation list or private key")
    return found


def _certificate(certificate: x509.Certificate, now: datetime.datetime) -> dict[str, Any]:
    authority = is_authority(certificate)
    problems = []
    if now < certificate.not_valid_before_utc:
        problems.append("not valid yet")
    if now > certificate.not_valid_after_utc:
        problems.append("expired")
    if not authority:
        problems += [f"does not name {purpose}: peers refuse it" for purpose in lacking_purposes(certificate)]
        if not hosts(certificate):
            problems.append("names no host: nobody can dial it")
    issuers = certificate.issuer.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    return {
        "kind": "CA certificate" if authority else "node certificate",
        "name": common_name(certificate),
        "hosts": list(hosts(certificate)),
        "purposes": list(purposes(certificate)),
        "not_before": certificate.not_valid_before_utc.isoformat(),
        "not_after": certificate.not_valid_after_utc.isoformat(),
        "days_left": _days(certificate.not_valid_after_utc, now),
        "peer_id": peer_id(certificate).hex,
        "key": _key(certificate.public_key()),
        "issuer": str(issuers[-1].value) if issuers else certificate.issuer.rfc4514_string(),
        "serial": f"{certificate.serial_number:x}",
        "sha256": certificate.fingerprint(hashes.SHA256()).hex(),
        "problems": problems,
    }


def _crl(crl: x509.CertificateRevocationList, now: datetime.datetime) -> dict[str, Any]:
    expires = crl.next_update_utc
    return {
        "kind": "revocation list",
        "name": crl.issuer.rfc4514_string(),
        "revoked": [f"{entry.serial_number:x}" for entry in crl],
        "not_before": crl.last_update_utc.isoformat(),
        "not_after": expires.isoformat() if expires else None,
        "days_left": _days(expires, now) if expires else None,
        "problems": ["expired: who uses it admits nobody"] if expires and now > expires else [],
    }


def _days(until: datetime.datetime, now: datetime.datetime) -> float:
    return round((until - now) / datetime.timedelta(days=1), 1)


def _key(key: Any) -> str:
    if isinstance(key, ec.EllipticCurvePublicKey):
        return f"ECDSA {key.curve.name}"
    if isinstance(key, rsa.RSAPublicKey):
        return f"RSA {key.key_size}"
    return type(key).__name__.removeprefix("_").removesuffix("PublicKey")

"""Where identities and authorities live on disk.

An *identity* is a directory a node starts from (``DATA/identity``)::

    ca.pem      the certificates of the CA(s) this node trusts
    cert.pem    its own certificate, then any intermediate ones
    key.pem     its private key, 0600
    crl.pem     optional: revocation lists; once there, only peers a current list clears are admitted
    allow       optional: PeerIDs (SHA-256 of the key, 64 hex digits), one a line; only they are admitted

An *authority* is a directory ``swarm pki`` works in::

    ca.pem, ca-key.pem         the CA and its key; keep the key off the nodes
    crl.pem                    what it revoked; copy it to the nodes' identities
    nodes/NAME/                an identity for each node, ready to be copied to its ``DATA/identity``
    issued/SERIAL.pem          every certificate it signed, so that a key is revoked as a whole

A node that finds no identity makes both in one directory: it works at once, and
``swarm pki issue DATA/identity OTHER`` lets a second node join it.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from attrs import frozen
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from swarm.errors import IdentityError, Malformed
from swarm.model.peers import Address, parse_node_name
from swarm.pki.authority import (
    AUTHORITY_DAYS,
    CRL_DAYS,
    NODE_DAYS,
    Authority,
    KeyType,
    generate_key,
)
from swarm.pki.files import PUBLIC, SECRET, sync_directory, write_file
from swarm.pki.parsing import is_authority, peer_id, read_certificates, read_crls, read_private_key

CA = "ca.pem"
CA_KEY = "ca-key.pem"
CERTIFICATE = "cert.pem"
KEY = "key.pem"
CRL = "crl.pem"
ALLOW = "allow"
NODES = "nodes"
ISSUED = "issued"


@frozen
class AuthorityDirectory:
    """A CA and what it signed, on disk."""

    path: Path
    authority: Authority

    @classmethod
    def create(
        cls,
        path: Path,
        name: str = "swarm CA",
        *,
        now: datetime.datetime,
        days: float = AUTHORITY_DAYS,
        key_type: KeyType = KeyType.ECDSA,
    ) -> AuthorityDirectory:
        """
        Make a new CA in a directory that has none.

        :raises IdentityError: there is one already, or the disk refuses.
        :raises Malformed: a bad name.
        """
        for existing in (path / CA, path / CA_KEY):
            if existing.exists():
                raise IdentityError(existing, "exists already; a CA is never overwritten")
        authority = Authority.create(name, now=now, days=days, key_type=key_type)
        write_key(path / CA_KEY, authority.key)
        write_file(path / CA, _pem(authority.certificate), mode=PUBLIC)
        return cls(path, authority)

    @classmethod
    def open(cls, path: Path) -> AuthorityDirectory:
        """
        Open an existing one, made by us or with openssl.

        :raises IdentityError: a file is missing or wrong.
        """
        certificate = read_certificates(path / CA)[0]
        key = read_private_key(path / CA_KEY)
        if peer_id(key.public_key()) != peer_id(certificate):
            raise IdentityError(path / CA_KEY, f"is not the key of {path / CA}")
        if not is_authority(certificate):
            raise IdentityError(path / CA, "is not the certificate of a CA")
        return cls(path, Authority(certificate, key))

    def node(self, name: str) -> Path:
        """
        The directory of a node's identity.

        :raises Malformed: not a node name, or one that is no directory name.
        """
        if parse_node_name(name) in (".", ".."):
            raise Malformed(f"a node cannot be called {name!r}")
        return self.path / NODES / name

    def issue(
        self,
        name: str,
        at: Sequence[str],
        *,
        now: datetime.datetime,
        days: float = NODE_DAYS,
        key_type: KeyType = KeyType.ECDSA,
        out: Path | None = None,
    ) -> Path:
        """
        Make a node's identity: key, certificate, the CA's certificate and its current revocation list.

        :param out: where; ``nodes/NAME`` below this directory if None.
        :return: the identity's directory.
        :raises IdentityError: the node has one already, or the disk refuses.
        :raises Malformed: a bad name or host.
        """
        directory = self.node(name) if out is None else out
        for existing in (directory / KEY, directory / CERTIFICATE):
            if existing.exists():
                raise IdentityError(existing, "exists already; renew it, or remove it first")
        key = generate_key(key_type)
        certificate = self.authority.issue(name, at, key.public_key(), now=now, days=days)
        self._record(certificate)
        write_key(directory / KEY, key)
        if directory != self.path:
            write_file(directory / CA, _pem(self.authority.certificate), mode=PUBLIC)
        write_file(directory / CERTIFICATE, _pem(certificate), mode=PUBLIC)
        if directory != self.path and (self.path / CRL).exists():
            write_file(directory / CRL, _pem(*read_crls(self.path / CRL)), mode=PUBLIC)
        return directory

    def certificate_of(self, name_or_file: str) -> Path:
        """
        Where the certificate of a node is: a file as given, or a node's by its name.

        :raises IdentityError: neither.
        """
        given = Path(name_or_file)
        if given.is_file():
            return given
        with contextlib.suppress(Malformed):
            issued = self.node(name_or_file) / CERTIFICATE
            if issued.is_file():
                return issued
        raise IdentityError(given, f"is neither a certificate file nor a node in {self.path / NODES}")

    def renew(
        self,
        certificate: Path,
        *,
        now: datetime.datetime,
        days: float = NODE_DAYS,
        at: Sequence[str] = (),
    ) -> x509.Certificate:
        """
        Replace a certificate by one with new dates for the same key, in place.

        Needs the old certificate only, so the key need never leave its node.

        :raises IdentityError: the file is missing or wrong, or another CA signed it.
        :raises Malformed: a bad host, or an expired CA.
        """
        old = read_certificates(certificate)[0]
        if old.issuer != self.authority.certificate.subject:
            raise IdentityError(certificate, f"was not signed by the CA in {self.path}")
        new = self.authority.renew(old, now=now, days=days, at=at)
        self._record(new)
        write_file(certificate, _pem(new), mode=PUBLIC, replace=True)
        return new

    def revoke(
        self, certificates: Sequence[Path], *, now: datetime.datetime, days: float = CRL_DAYS
    ) -> x509.CertificateRevocationList:
        """
        Add certificates to ``crl.pem``, with all others issued for their keys; with none, only new dates.

        A revoked certificate stays revoked. To keep a key out for ever, use an allow-list.

        :raises IdentityError: a file is missing or wrong.
        :raises Malformed: a certificate another CA signed.
        """
        path = self.path / CRL
        previous = read_crls(path)[0] if path.exists() else None
        named = [read_certificates(file)[0] for file in certificates]
        keys = {peer_id(certificate) for certificate in named}
        revoked = [*named, *(each for each in self._issued() if keys and peer_id(each) in keys)]
        crl = self.authority.revocation_list(previous, revoked, now=now, days=days)
        write_file(path, _pem(crl), mode=PUBLIC, replace=True)
        return crl

    def _record(self, certificate: x509.Certificate) -> None:
        file = self.path / ISSUED / f"{certificate.serial_number:x}.pem"
        write_file(file, _pem(certificate), mode=PUBLIC)

    def _issued(self) -> list[x509.Certificate]:
        return [read_certificates(file)[0] for file in sorted((self.path / ISSUED).glob("*.pem"))]


def ensure_identity(path: Path, name: str, at: Sequence[str] = (), *, now: datetime.datetime) -> bool:
    """
    Make an identity with a CA of its own where there is none, so that a lone node works at once.

    It lives as long as its CA, since nobody would renew it. Besides ``at`` it answers for the
    node's name and for loopback.

    :param path: ``DATA/identity``.
    :return: True if one was made now.
    :raises IdentityError: half an identity is there already, or the disk refuses.
    :raises Malformed: a bad name or host.
    """
    needed = (path / CA, path / CERTIFICATE, path / KEY)
    missing = [file for file in needed if not file.exists()]
    if not missing:
        return False
    try:
        present = sorted(path.iterdir()) if path.exists() else []
        if present:
            raise IdentityError(missing[0], f"is missing, while {present[0].name} is there")
        staging = path.with_name(f".{path.name}.new")  # one rename: no half identity after a crash
        shutil.rmtree(staging, ignore_errors=True)
        _make_lone(staging, name, at, now)
        os.rename(staging, path)
        sync_directory(path.parent)
    except OSError as e:
        raise IdentityError(path, f"cannot be made ({e.strerror})") from e
    return True


def _make_lone(path: Path, name: str, at: Sequence[str], now: datetime.datetime) -> None:
    ca_name = f"swarm CA of {name}".encode()[:64].decode("utf-8", "ignore")
    directory = AuthorityDirectory.create(path, ca_name, now=now)
    hosts = [*at, "localhost", "127.0.0.1", "::1"]
    with contextlib.suppress(Malformed):
        hosts.append(Address.parse(f"{name}:1").host)
    directory.issue(name, hosts, now=now, days=AUTHORITY_DAYS, out=path)


def write_key(path: Path, key: CertificateIssuerPrivateKeyTypes) -> None:
    """
    Store a private key, unencrypted PKCS #8, readable by its owner only.

    :raises IdentityError: something is there already, or the disk refuses.
    """
    data = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    write_file(path, data, mode=SECRET)


def _pem(*objects: x509.Certificate | x509.CertificateRevocationList) -> bytes:
    return b"".join(each.public_bytes(Encoding.PEM) for each in objects)

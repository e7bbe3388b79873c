"""An identity in bytes, for another process of the same node and for nobody else: the key is among them.

Not the files again: they may hold by now what this node refused, say a directory without the revocation
list it began with, and a process that started later would believe them. So there is one reader of files,
with the checks it makes, and what it accepted is what all processes of the node use.
"""

from __future__ import annotations

import json
import os

from cryptography import x509
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from swarm.model.peers import PeerID
from swarm.peering.identity import Identity


def pack(identity: Identity) -> bytes:
    """For :func:`unpack`."""
    key = identity.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    allowed = identity.allowed
    return json.dumps(
        {
            "certificate": _pem(identity.certificate),
            "key": key.decode(),
            "authorities": [_pem(each) for each in identity.authorities],
            "intermediates": [_pem(each) for each in identity.intermediates],
            "crls": [_pem(each) for each in identity.crls],
            "allowed": None if allowed is None else sorted(each.hex for each in allowed),
        }
    ).encode()


def unpack(data: bytes) -> Identity:
    """What :func:`pack` was given."""
    read = json.loads(data)
    allowed = read["allowed"]
    return Identity(
        certificate=_certificate(read["certificate"]),
        key=load_pem_private_key(read["key"].encode(), None),  # type: ignore[arg-type]  # a certificate has it
        authorities=tuple(map(_certificate, read["authorities"])),
        intermediates=tuple(map(_certificate, read["intermediates"])),
        crls=tuple(x509.load_pem_x509_crl(each.encode()) for each in read["crls"]),
        allowed=None if allowed is None else frozenset(map(PeerID.parse, allowed)),
    )


def put_in_memory(identity: Identity) -> int:
    """
    Pack it into a file that is nowhere, of any length.

    :return: a descriptor, to be sent and closed by the caller.
    """
    descriptor = os.memfd_create("swarm-identity", os.MFD_CLOEXEC)
    with open(os.dup(descriptor), "wb") as file:
        file.write(pack(identity))
    return descriptor


def take_from_memory(descriptor: int) -> Identity:
    """The identity that :func:`put_in_memory` put there; closes the descriptor."""
    with open(descriptor, "rb") as file:
        return unpack(os.pread(file.fileno(), os.fstat(file.fileno()).st_size, 0))


def _pem(shown: x509.Certificate | x509.CertificateRevocationList) -> str:
    return shown.public_bytes(Encoding.PEM).decode()


def _certificate(pem: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate(pem.encode())

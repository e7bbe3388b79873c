"""What one process of a node knows of its identity, another one knows too, and admits the same peers."""

from __future__ import annotations

import os

import pytest

from swarm.peering.admission import Admission
from swarm.peering.identity import IdentityPaths, load
from swarm.peering.packing import pack, put_in_memory, take_from_memory, unpack
from swarm.pki import read_certificates
from tests.peering.conftest import KINDS, OpenSSLWorld


@pytest.mark.parametrize("kind", ["alpha", "rsa", "ed25519", "chained"])
@pytest.mark.parametrize("strict", [False, True])
def test_everything_arrives(world: OpenSSLWorld, kind: str, strict: bool) -> None:
    key = world.key("below" if kind == "chained" else kind)
    paths = IdentityPaths(world.cert("ca"), world.cert(kind), key)
    if strict:
        allow = world.path / f"allow-{kind}"
        allow.write_text("ab" * 32 + "\n" + "00" * 32)
        paths = paths.requiring(crl=world.path / "crl.pem", allow=allow)
    identity = load(paths)
    read = unpack(pack(identity))
    assert read.certificate == identity.certificate and read.peer_id == identity.peer_id
    assert read.key.private_numbers() == identity.key.private_numbers() if kind == "rsa" else True  # type: ignore[union-attr]  # of an RSA key
    assert read.key.public_key() == identity.key.public_key()
    assert read.authorities == identity.authorities and read.intermediates == identity.intermediates
    assert read.crls == identity.crls and bool(read.crls) == strict
    assert read.allowed == identity.allowed and (read.allowed is None) != strict


def test_it_admits_whom_the_first_admits(world: OpenSSLWorld) -> None:
    paths = IdentityPaths(world.cert("ca"), world.cert("alpha"), world.key("alpha"))
    identity = load(paths.requiring(crl=world.path / "crl.pem"))
    ours, theirs = Admission(identity), Admission(unpack(pack(identity)))
    for kind in (*KINDS, "rogue", "below", "self-signed"):
        certificate = read_certificates(world.cert(kind))[0]
        assert ours.refusal(certificate) == theirs.refusal(certificate)


def test_it_is_read_from_a_descriptor_as_often_as_it_is_sent(world: OpenSSLWorld) -> None:
    identity = load(IdentityPaths(world.cert("ca"), world.cert("alpha"), world.key("alpha")))
    descriptor = put_in_memory(identity)
    assert not os.get_inheritable(descriptor)
    for _ in range(2):
        copy = os.dup(descriptor)
        assert take_from_memory(copy).peer_id == identity.peer_id
        with pytest.raises(OSError, match="Bad file"):
            os.fstat(copy)
    os.close(descriptor)

"""Reading what others wrote: everything is either understood or an error that names the file."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import x25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from swarm.errors import IdentityError
from swarm.model.peers import PeerID
from swarm.pki import (
    Authority,
    AuthorityDirectory,
    generate_key,
    hosts,
    is_authority,
    lacking_purposes,
    purposes,
    read_allow_list,
    read_certificates,
    read_crls,
    read_private_key,
)
from swarm.pki.description import describe, lines

NOW = datetime.datetime(2026, 11, 20, 12, tzinfo=datetime.UTC)

READERS: list[Callable[[Path], Any]] = [
    read_certificates,
    read_private_key,
    read_crls,
    read_allow_list,
    lambda path: describe(path, NOW),
]

PEM_LIKE = st.sampled_from(["CERTIFICATE", "PRIVATE KEY", "X509 CRL", "ENCRYPTED PRIVATE KEY"]).flatmap(
    lambda label: st.binary(max_size=80).map(
        lambda body: f"-----BEGIN {label}-----\n{body.hex()}\n-----END {label}-----\n".encode()
    )
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(READERS), st.binary(max_size=200) | PEM_LIKE)
def test_no_bytes_surprise_a_reader(tmp_path: Path, read: Callable[[Path], Any], data: bytes) -> None:
    (tmp_path / "file").write_bytes(data)
    try:
        read(tmp_path / "file")
    except IdentityError as e:
        assert str(tmp_path / "file") in str(e)


@given(st.sets(st.binary(min_size=32, max_size=32)), st.text("ab \t", max_size=3))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_an_allow_list_is_read_as_written(tmp_path: Path, keys: set[bytes], blank: str) -> None:
    text = "".join(f"{blank if not blank.strip() else ''}{key.hex()}  # {blank}\n\n" for key in sorted(keys))
    (tmp_path / "allow").write_text(text)
    assert read_allow_list(tmp_path / "allow") == {PeerID(key) for key in keys}


def test_all_of_a_bundle_is_read_in_order(tmp_path: Path) -> None:
    authorities = [Authority.create(f"ca {n}", now=NOW) for n in range(3)]
    pems = [each.certificate.public_bytes(Encoding.PEM) for each in authorities]
    (tmp_path / "bundle").write_bytes(b"some text before\n" + b"# and between\n".join(pems))
    assert read_certificates(tmp_path / "bundle") == tuple(each.certificate for each in authorities)
    crls = [each.revocation_list(now=NOW) for each in authorities]
    (tmp_path / "crls").write_bytes(b"".join(each.public_bytes(Encoding.PEM) for each in crls))
    assert read_crls(tmp_path / "crls") == tuple(crls)


def test_a_key_that_cannot_sign_is_refused(tmp_path: Path) -> None:
    key = x25519.X25519PrivateKey.generate()
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (tmp_path / "key").write_bytes(pem)
    with pytest.raises(IdentityError, match="cannot sign"):
        read_private_key(tmp_path / "key")


def test_what_a_bare_certificate_does_not_say_is_empty() -> None:
    key = generate_key()
    name = x509.Name([])
    bare = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(NOW)
        .not_valid_after(NOW + datetime.timedelta(days=1))
    )
    certificate = bare.sign(key, hashes.SHA256())
    assert hosts(certificate) == purposes(certificate) == ()
    assert not is_authority(certificate)
    assert lacking_purposes(certificate) == ["clientAuth", "serverAuth"]


def test_a_description_names_every_problem(tmp_path: Path) -> None:
    directory = AuthorityDirectory.create(tmp_path / "ca", now=NOW, days=10)
    directory.revoke([], now=NOW, days=5)
    node = directory.issue("n1", ["n1.example"], now=NOW, days=3)
    assert [each["problems"] for each in describe(node, NOW)] == [[], [], []]
    (node / "allow").write_text("ab" * 32)
    later = describe(node, NOW + datetime.timedelta(days=6))
    assert [each["problems"] for each in later[:3]] == [
        ["expired"],
        [],
        ["expired: who uses it admits nobody"],
    ]
    assert later[3]["peer_ids"] == ["ab" * 32]
    assert describe(node, NOW - datetime.timedelta(days=1))[0]["problems"] == ["not valid yet"]
    told = "\n".join(line for each in later for line in lines(each))
    assert "node certificate n1" in told and "PROBLEM      expired" in told and "-3.0" in told
    with pytest.raises(IdentityError, match="neither an identity nor an authority"):
        describe(tmp_path, NOW)

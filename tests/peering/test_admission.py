"""The rules alone, without connections."""

from __future__ import annotations

import datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import ExtensionOID, NameOID

from swarm.model.peers import PeerID
from swarm.peering.admission import Admission, chain_fault
from swarm.peering.identity import Identity, host_refusal
from swarm.pki import Authority, generate_key, peer_id

NOW = datetime.datetime.now(datetime.UTC)
DAY = datetime.timedelta(days=1)
AUTHORITY = Authority.create("ca", now=NOW)


def signed(authority: Authority = AUTHORITY) -> x509.Certificate:
    return authority.issue("n", ["n.example"], generate_key().public_key(), now=NOW)


def rules(allowed: frozenset[PeerID] | None = None, revoke: x509.Certificate | None = None) -> Admission:
    key = generate_key()
    certificate = AUTHORITY.issue("us", ["us.example"], key.public_key(), now=NOW)
    crls = (AUTHORITY.revocation_list(revoke=[revoke], now=NOW),) if revoke else ()
    return Admission(Identity(certificate, key, (AUTHORITY.certificate,), crls=crls, allowed=allowed))


def test_who_the_ca_signed_is_admitted() -> None:
    assert rules().refusal(signed()) is None
    assert rules().own_fault() is None


def test_a_ca_of_the_same_name_is_another_ca() -> None:
    assert (
        rules().refusal(signed(Authority.create("ca", now=NOW)))
        == "a CA we do not know signed its certificate"
    )


def test_revoked_is_revoked_and_others_are_not() -> None:
    bad, good = signed(), signed()
    assert rules(revoke=bad).refusal(bad) == "its certificate is revoked"
    assert rules(revoke=bad).refusal(good) is None


def test_an_allow_list_admits_its_keys_also_after_renewal() -> None:
    certificate = signed()
    admission = rules(allowed=frozenset({peer_id(certificate)}))
    assert admission.refusal(certificate) is None
    assert admission.refusal(AUTHORITY.renew(certificate, now=NOW)) is None
    assert "not on the allow-list" in str(admission.refusal(signed()))
    assert "not on the allow-list" in str(rules(allowed=frozenset()).refusal(certificate))


def test_the_dialer_asks_for_host_and_key() -> None:
    certificate = signed()
    leaf_refusal = rules().leaf_refusal
    assert leaf_refusal(certificate, host="n.example", expected=peer_id(certificate)) is None
    assert "not for m.example" in str(leaf_refusal(certificate, host="m.example"))
    assert "not the expected" in str(leaf_refusal(certificate, expected=peer_id(signed())))


@pytest.mark.parametrize("oid", [ExtensionOID.EXTENDED_KEY_USAGE, ExtensionOID.SUBJECT_ALTERNATIVE_NAME])
def test_extensions_nobody_can_read_admit_nobody(oid: x509.ObjectIdentifier) -> None:
    key = generate_key()
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "n.example")]))
        .issuer_name(AUTHORITY.certificate.subject)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(NOW - DAY)
        .not_valid_after(NOW + DAY)
        .add_extension(x509.UnrecognizedExtension(oid, b"\x30\x03garbage"), critical=False)
        .sign(AUTHORITY.key, hashes.SHA256())
    )
    assert rules().refusal(certificate) is not None
    assert rules().leaf_refusal(certificate) == "its certificate cannot be read"
    if oid == ExtensionOID.SUBJECT_ALTERNATIVE_NAME:
        assert host_refusal(certificate, "n.example") == (
            "its certificate is not for n.example but for something unreadable"
        )


def test_what_openssl_says_is_put_in_words_or_numbered() -> None:
    assert chain_fault(10) == "its certificate, or one above it, has expired"
    assert "OpenSSL error 999" in chain_fault(999)

"""What our CA signs, checked by cryptography and by openssl."""

from __future__ import annotations

import datetime
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from swarm.errors import Malformed
from swarm.model.peers import Address
from swarm.pki import Authority, KeyType, common_name, generate_key, hosts, peer_id, purposes
from swarm.pki.authority import BACKDATED, alternative_names
from swarm.pki.files import write_file

NOW = datetime.datetime(2026, 11, 20, 12, tzinfo=datetime.UTC)
DAY = datetime.timedelta(days=1)


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority.create("test CA", now=NOW)


def issued(authority: Authority, name: str = "n1", days: float = 90) -> x509.Certificate:
    return authority.issue(name, ["n1.example", "10.0.0.1"], generate_key().public_key(), now=NOW, days=days)


def test_a_node_certificate_says_who_where_and_what_for(authority: Authority) -> None:
    certificate = issued(authority)
    assert common_name(certificate) == "n1"
    assert hosts(certificate) == ("n1.example", "10.0.0.1")
    assert purposes(certificate) == ("clientAuth", "serverAuth")
    assert certificate.not_valid_before_utc == NOW - BACKDATED
    assert certificate.not_valid_after_utc == NOW + 90 * DAY
    certificate.verify_directly_issued_by(authority.certificate)


def test_nothing_outlives_its_ca(authority: Authority) -> None:
    assert issued(authority, days=36500).not_valid_after_utc == authority.certificate.not_valid_after_utc
    with pytest.raises(Malformed, match="the CA expired on 2036"):
        authority.issue("n", ["n.example"], generate_key().public_key(), now=NOW + 4000 * DAY)


def test_renewal_keeps_key_name_and_hosts(authority: Authority) -> None:
    old = issued(authority)
    new = authority.renew(old, now=NOW + 80 * DAY, days=30)
    assert peer_id(new) == peer_id(old)
    assert (common_name(new), hosts(new)) == (common_name(old), hosts(old))
    assert new.serial_number != old.serial_number
    assert new.not_valid_after_utc == NOW + 110 * DAY
    assert hosts(authority.renew(old, now=NOW, at=["other.example"])) == ("other.example",)


def test_revocations_accumulate(authority: Authority) -> None:
    one, two = issued(authority), issued(authority)
    first = authority.revocation_list(revoke=[one], now=NOW)
    second = authority.revocation_list(first, [two, one], now=NOW + DAY)
    assert [entry.serial_number for entry in second] == [one.serial_number, two.serial_number]
    numbers = [
        crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number for crl in (first, second)
    ]
    assert numbers == [1, 2]
    entry = second.get_revoked_certificate_by_serial_number(one.serial_number)
    assert entry is not None and entry.revocation_date_utc == NOW, "the first date stays"


def test_only_its_own_certificates_are_revoked(authority: Authority) -> None:
    for other in (Authority.create("other CA", now=NOW), Authority.create("test CA", now=NOW)):
        with pytest.raises(Malformed, match="not signed by this CA"):
            authority.revocation_list(revoke=[issued(other)], now=NOW)


@pytest.mark.parametrize("key_type", KeyType)
def test_keys_are_of_the_kind_asked_for(key_type: KeyType) -> None:
    kinds = {KeyType.ECDSA: ec.EllipticCurvePrivateKey, KeyType.ED25519: ed25519.Ed25519PrivateKey}
    key = generate_key(key_type)
    assert isinstance(key, kinds[key_type])
    authority = Authority.create("ca", now=NOW, key_type=key_type)
    authority.issue("n", ["n.example"], key.public_key(), now=NOW)
    assert not list(authority.revocation_list(now=NOW))


@pytest.mark.parametrize("key_type", KeyType)
@pytest.mark.parametrize("purpose", ["sslclient", "sslserver"])
def test_strict_openssl_agrees(
    tmp_path: Path, need_program: Callable[[str], str], key_type: KeyType, purpose: str
) -> None:
    now = datetime.datetime.now(datetime.UTC)
    authority = Authority.create("ca", now=now, key_type=key_type)
    certificate = authority.issue("n", ["n.example"], generate_key(key_type).public_key(), now=now)
    for name, each in {
        "ca": authority.certificate,
        "cert": certificate,
        "crl": authority.revocation_list(now=now),
    }.items():
        write_file(tmp_path / name, each.public_bytes(Encoding.PEM), mode=0o600)
    command = [need_program("openssl"), "verify", "-x509_strict", "-purpose", purpose, "-CAfile", "ca"]
    command += ["-crl_check_all", "-CRLfile", "crl", "-verify_hostname", "n.example", "cert"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["", "a b", "a/b", "x" * 65, "é" * 40])
def test_a_bad_name_is_malformed(authority: Authority, name: str) -> None:
    with pytest.raises(Malformed):
        authority.issue(name, ["n.example"], generate_key().public_key(), now=NOW)


@pytest.mark.parametrize(
    "host", ["", "a b", "-", "a..b", "10.0.0.1/8", "*", "*.*.example", "a.*.example", "é.example"]
)
def test_a_bad_host_is_malformed(host: str) -> None:
    with pytest.raises(Malformed):
        alternative_names([host])


def test_a_node_needs_a_host() -> None:
    with pytest.raises(Malformed, match="at least one"):
        alternative_names([])


@given(
    st.lists(
        st.from_regex(r"\A(\*\.)?[a-z][a-z0-9-]{0,8}[a-z0-9](\.[a-z]{2,5}){0,2}\Z")
        | st.ip_addresses().map(str),
        min_size=1,
    )
)
def test_hosts_are_kept_as_given_once(given_hosts: list[str]) -> None:
    names = [str(name.value) for name in alternative_names(given_hosts)]
    assert names == list(dict.fromkeys(given_hosts))


@given(st.text(max_size=20))
def test_any_text_is_a_host_or_malformed(text: str) -> None:
    try:
        [name] = alternative_names([text])
    except Malformed:
        return
    if isinstance(name, x509.DNSName):
        Address.parse(f"{name.value.removeprefix('*.')}:1")


def test_a_ca_without_key_identifier_signs_all_the_same() -> None:
    key = generate_key()
    bare = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "bare")]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "bare")]))
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(NOW)
        .not_valid_after(NOW + DAY)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    authority = Authority(bare, key)
    certificate = authority.issue("n", ["n.example"], generate_key().public_key(), now=NOW)
    certificate.verify_directly_issued_by(bare)
    assert authority.revocation_list(revoke=[certificate], now=NOW).is_signature_valid(key.public_key())

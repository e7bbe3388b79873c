"""Identities and authorities on disk: complete or absent, never overwritten, keys for their owner only."""

from __future__ import annotations

import datetime
import os
import runpy
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from swarm.errors import IdentityError, Malformed
from swarm.pki import (
    AuthorityDirectory,
    common_name,
    ensure_identity,
    hosts,
    peer_id,
    read_certificates,
    read_crls,
    read_private_key,
)
from swarm.pki.description import describe
from swarm.pki.files import write_file

NOW = datetime.datetime(2026, 11, 20, 12, tzinfo=datetime.UTC)
DAY = datetime.timedelta(days=1)


@pytest.fixture
def directory(tmp_path: Path) -> AuthorityDirectory:
    return AuthorityDirectory.create(tmp_path / "ca", now=NOW)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def contents(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}


# -- files -----------------------------------------------------------------------


def test_a_file_appears_whole_with_its_mode_whatever_the_umask(tmp_path: Path) -> None:
    for umask in (0o000, 0o077):
        before = os.umask(umask)
        try:
            write_file(tmp_path / f"key{umask}", b"secret", mode=0o600)
            write_file(tmp_path / f"cert{umask}", b"public", mode=0o644)
        finally:
            os.umask(before)
        assert mode(tmp_path / f"key{umask}") == 0o600 and mode(tmp_path / f"cert{umask}") == 0o644
    assert len(list(tmp_path.iterdir())) == 4, "no left-over"


def test_nothing_is_overwritten_unless_asked(tmp_path: Path) -> None:
    write_file(tmp_path / "f", b"one", mode=0o600)
    with pytest.raises(IdentityError, match="exists already"):
        write_file(tmp_path / "f", b"two", mode=0o600)
    assert contents(tmp_path) == {"f": b"one"}
    write_file(tmp_path / "f", b"two", mode=0o600, replace=True)
    assert contents(tmp_path) == {"f": b"two"}


def test_a_disk_that_refuses_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(IdentityError, match="cannot be written"):
        write_file(tmp_path / "file" / "below", b"", mode=0o600)


# -- authorities -----------------------------------------------------------------


def test_an_authority_is_opened_as_it_was_made(directory: AuthorityDirectory) -> None:
    again = AuthorityDirectory.open(directory.path)
    assert again.authority.certificate == directory.authority.certificate
    assert mode(directory.path / "ca-key.pem") == 0o600


def test_an_authority_is_never_overwritten(directory: AuthorityDirectory) -> None:
    before = contents(directory.path)
    for missing in (None, "ca.pem"):
        if missing:
            (directory.path / missing).unlink()
            del before[missing]
        with pytest.raises(IdentityError, match="never overwritten"):
            AuthorityDirectory.create(directory.path, now=NOW)
        assert contents(directory.path) == before


def test_an_authority_with_another_ones_key_is_not_opened(
    directory: AuthorityDirectory, tmp_path: Path
) -> None:
    other = AuthorityDirectory.create(tmp_path / "other", now=NOW)
    (other.path / "ca-key.pem").rename(directory.path / "ca-key.pem")
    with pytest.raises(IdentityError, match="is not the key of"):
        AuthorityDirectory.open(directory.path)


def test_a_node_certificate_is_no_authority(directory: AuthorityDirectory) -> None:
    node = directory.issue("n1", ["n1"], now=NOW)
    (node / "cert.pem").replace(node / "ca.pem")
    (node / "key.pem").replace(node / "ca-key.pem")
    with pytest.raises(IdentityError, match="not the certificate of a CA"):
        AuthorityDirectory.open(node)


# -- nodes -----------------------------------------------------------------------


def test_an_issued_identity_is_complete(directory: AuthorityDirectory) -> None:
    node = directory.issue("n1", ["n1.example"], now=NOW)
    assert sorted(contents(node)) == ["ca.pem", "cert.pem", "key.pem"]
    assert mode(node / "key.pem") == 0o600 and mode(node) == 0o700
    certificate = read_certificates(node / "cert.pem")[0]
    assert peer_id(read_private_key(node / "key.pem").public_key()) == peer_id(certificate)
    assert read_certificates(node / "ca.pem") == (directory.authority.certificate,)


def test_an_identity_is_never_overwritten(directory: AuthorityDirectory) -> None:
    node = directory.issue("n1", ["n1.example"], now=NOW)
    before = contents(node)
    with pytest.raises(IdentityError, match="renew it, or remove it first"):
        directory.issue("n1", ["n1.example"], now=NOW)
    assert contents(node) == before


@pytest.mark.parametrize("name", ["..", ".", "a/b", "../x", ""])
def test_a_name_stays_in_its_directory(directory: AuthorityDirectory, name: str) -> None:
    with pytest.raises(Malformed):
        directory.issue(name, ["n.example"], now=NOW)
    with pytest.raises((IdentityError, Malformed)):
        directory.certificate_of(name)


def test_renewal_replaces_the_certificate_only(directory: AuthorityDirectory) -> None:
    node = directory.issue("n1", ["n1.example"], now=NOW)
    before = contents(node)
    for where in ("n1", str(node / "cert.pem")):
        new = directory.renew(directory.certificate_of(where), now=NOW + 30 * DAY)
        assert read_certificates(node / "cert.pem") == (new,)
        assert peer_id(new) == peer_id(read_private_key(node / "key.pem").public_key())
    after = contents(node)
    assert {name for name in before if before[name] != after[name]} == {"cert.pem"}


def test_another_cas_certificate_is_not_renewed(directory: AuthorityDirectory, tmp_path: Path) -> None:
    other = AuthorityDirectory.create(tmp_path / "other", "other CA", now=NOW)
    node = other.issue("n1", ["n1"], now=NOW)
    with pytest.raises(IdentityError, match="was not signed by the CA"):
        directory.renew(node / "cert.pem", now=NOW)


def test_revoking_a_node_revokes_all_that_was_issued_for_its_key(directory: AuthorityDirectory) -> None:
    """A certificate from before a renewal is as good as the new one to who stole the key."""
    node = directory.issue("n1", ["n1"], now=NOW)
    directory.issue("n2", ["n2"], now=NOW)
    first = read_certificates(node / "cert.pem")[0]
    second = directory.renew(node / "cert.pem", now=NOW)
    crl = directory.revoke([directory.certificate_of("n1")], now=NOW)
    assert {entry.serial_number for entry in crl} == {first.serial_number, second.serial_number}
    again = directory.revoke([], now=NOW + DAY)
    assert {entry.serial_number for entry in again} == {entry.serial_number for entry in crl}
    assert read_crls(directory.path / "crl.pem") == (again,)
    assert (directory.issue("n3", ["n3"], now=NOW) / "crl.pem").exists(), "new nodes get the list"


# -- a lone node -----------------------------------------------------------------


def test_a_lone_node_gets_an_identity_once(tmp_path: Path) -> None:
    identity = tmp_path / "data" / "identity"
    assert ensure_identity(identity, "lone", ["10.0.0.7"], now=NOW)
    before = contents(identity)
    assert not ensure_identity(identity, "other", now=NOW + 99 * DAY)
    assert contents(identity) == before
    certificate = read_certificates(identity / "cert.pem")[0]
    assert common_name(certificate) == "lone"
    assert hosts(certificate) == ("10.0.0.7", "localhost", "127.0.0.1", "::1", "lone")
    assert certificate.not_valid_after_utc > NOW + 3000 * DAY
    assert mode(identity / "key.pem") == mode(identity / "ca-key.pem") == 0o600
    assert [each.name for each in identity.parent.iterdir()] == ["identity"]


def test_a_lone_node_can_let_others_join(tmp_path: Path) -> None:
    ensure_identity(tmp_path / "identity", "lone", now=NOW)
    node = AuthorityDirectory.open(tmp_path / "identity").issue("second", ["second"], now=NOW)
    assert read_certificates(node / "ca.pem") == read_certificates(tmp_path / "identity" / "ca.pem")


def test_an_issued_identity_is_left_alone(directory: AuthorityDirectory) -> None:
    node = directory.issue("n1", ["n1"], now=NOW)
    before = contents(node)
    assert not ensure_identity(node, "n1", now=NOW)
    assert contents(node) == before


@pytest.mark.parametrize("missing", ["ca.pem", "cert.pem", "key.pem"])
def test_half_an_identity_is_an_error_that_names_the_file(
    directory: AuthorityDirectory, missing: str
) -> None:
    node = directory.issue("n1", ["n1"], now=NOW)
    (node / missing).unlink()
    with pytest.raises(IdentityError, match="is missing") as caught:
        ensure_identity(node, "n1", now=NOW)
    assert caught.value.path == node / missing


def test_a_crash_while_making_an_identity_leaves_none(tmp_path: Path) -> None:
    """What a crash left is thrown away; an empty directory an operator made is used."""
    left = tmp_path / ".identity.new"
    left.mkdir()
    (left / "ca.pem").write_text("half")
    (tmp_path / "identity").mkdir()
    assert ensure_identity(tmp_path / "identity", "é", now=NOW)
    assert hosts(read_certificates(tmp_path / "identity" / "cert.pem")[0])[-1] == "::1"
    assert not left.exists()


def test_a_ca_made_by_bare_openssl_works_as_ours(tmp_path: Path, need_program: Callable[[str], str]) -> None:
    """RSA, no key identifier, and a revocation list without a number."""
    openssl = need_program("openssl")
    config = "[req]\ndistinguished_name=dn\nx509_extensions=ext\n[dn]\n[ext]\nbasicConstraints=CA:TRUE\n"
    (tmp_path / "cnf").write_text(config + "[ca]\ndefault_ca=d\n[d]\ndatabase=index\ndefault_md=sha256\n")
    (tmp_path / "index").touch()

    def run(*arguments: str) -> None:
        subprocess.run([openssl, *arguments], cwd=tmp_path, check=True, capture_output=True, timeout=60)

    files = ["-keyout", "ca-key.pem", "-out", "ca.pem"]
    run("req", "-x509", "-config", "cnf", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=x", *files)
    signer = ["-cert", "ca.pem", "-keyfile", "ca-key.pem"]
    run("ca", "-config", "cnf", "-gencrl", "-crldays", "9", *signer, "-out", "crl.pem")

    directory = AuthorityDirectory.open(tmp_path)
    now = datetime.datetime.now(datetime.UTC)
    directory.issue("n1", ["n1.example"], now=now, days=9)
    run("verify", "-crl_check", "-CRLfile", "crl.pem", "-CAfile", "ca.pem", "nodes/n1/cert.pem")
    directory.revoke([directory.certificate_of("n1")], now=now)
    with pytest.raises(subprocess.CalledProcessError):
        run("verify", "-crl_check", "-CRLfile", "crl.pem", "-CAfile", "ca.pem", "nodes/n1/cert.pem")
    kinds = [(each["kind"], each.get("key", "")) for each in describe(tmp_path, now)]
    assert kinds == [("CA certificate", "RSA 2048"), ("revocation list", "")]


def test_the_throw_away_certificates_start_a_node(tmp_path: Path) -> None:
    """What the README of ``certs`` promises."""
    script = Path(__file__).parents[2] / "certs" / "make_certs.py"
    make = runpy.run_path(str(script))["main"]
    make(tmp_path)
    for name in ("alpha", "beta", "gamma"):
        certificate = read_certificates(tmp_path / "nodes" / name / "cert.pem")[0]
        assert hosts(certificate) == (name, "localhost", "127.0.0.1", "::1")
    with pytest.raises(IdentityError, match="never overwritten"):
        make(tmp_path)


def test_a_disk_that_refuses_makes_no_identity(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(IdentityError):
        ensure_identity(tmp_path / "file" / "identity", "n", now=NOW)
    identity = tmp_path / "identity"
    identity.mkdir()
    (identity / "allow").touch()
    with pytest.raises(IdentityError, match="is missing, while allow is there"):
        ensure_identity(identity, "n", now=NOW)

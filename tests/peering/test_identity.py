"""Which files make an identity, and what is said about those that do not."""

from __future__ import annotations

import datetime
import shutil
from pathlib import Path
from typing import Any

import pytest
from twisted.logger import globalLogPublisher

from swarm.errors import IdentityError
from swarm.model.peers import PeerID
from swarm.peering.identity import Identity, IdentityPaths, host_refusal, load
from swarm.pki import Authority, AuthorityDirectory, generate_key, peer_id, read_certificates

NOW = datetime.datetime(2026, 11, 20, 12, tzinfo=datetime.UTC)
DAY = 86400.0


def paths(world: Any, kind: str = "alpha", **changed: Any) -> IdentityPaths:
    files = {"ca": world.cert("ca"), "cert": world.cert(kind), "key": world.key(kind)}
    return IdentityPaths(**{**files, **changed})


def made(days: float = 90, ca_days: float = 365, crl_days: float | None = None) -> Identity:
    """An identity of our own making."""
    authority = Authority.create("ca", now=NOW, days=ca_days)
    key = generate_key()
    certificate = authority.issue("alpha", ["alpha.example"], key.public_key(), now=NOW, days=days)
    crls = () if crl_days is None else (authority.revocation_list(now=NOW, days=crl_days),)
    return Identity(certificate, key, (authority.certificate,), crls=crls)


def at(days: float) -> float:
    return NOW.timestamp() + days * DAY


# -- good files ------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["alpha", "rsa", "ed25519", "expired", "not yet"])
def test_openssl_made_files_are_an_identity_also_out_of_date(world: Any, kind: str) -> None:
    """Out of date, the rest of the node still works; complaints tell."""
    identity = load(paths(world, kind))
    assert identity.name == kind
    assert identity.peer_id == peer_id(read_certificates(world.cert(kind))[0])
    assert bool(identity.complaints(datetime.datetime.now().timestamp())) == (kind in ("expired", "not yet"))


def test_a_chain_follows_the_certificate_in_the_same_file(world: Any) -> None:
    identity = load(paths(world, "below", cert=world.path / "chained.pem"))
    assert [each.subject for each in identity.intermediates] == [identity.certificate.issuer]


def test_optional_files_are_used_when_they_are_there(world: Any, tmp_path: Path) -> None:
    AuthorityDirectory.create(tmp_path / "ca", now=NOW).issue("n", ["n.example"], now=NOW, out=tmp_path / "n")
    files = IdentityPaths.in_directory(tmp_path / "n")
    assert load(files).allowed is None and load(files).crls == ()
    (tmp_path / "n" / "allow").write_text("# nobody\n")
    assert load(files).allowed == frozenset()
    (tmp_path / "n" / "allow").write_text(f"{'AB' * 32} # one\n\n")
    assert load(files).allowed == {PeerID.parse("ab" * 32)}


def test_a_file_that_is_asked_for_is_required_wherever_it_lies(world: Any, tmp_path: Path) -> None:
    """An option that names a missing list must not mean "no list"."""
    AuthorityDirectory.create(tmp_path / "ca", now=NOW).issue("n", ["n.example"], now=NOW, out=tmp_path / "n")
    files = IdentityPaths.in_directory(tmp_path / "n")
    for path in (tmp_path / "n" / "crl.pem", tmp_path / "elsewhere"):
        with pytest.raises(IdentityError, match="cannot be read"):
            load(files.requiring(crl=path))
        with pytest.raises(IdentityError, match="cannot be read"):
            load(files.requiring(allow=path))
    assert load(files.requiring()).crls == ()


def test_the_key_is_never_shown(world: Any) -> None:
    identity = load(paths(world))
    assert "key=" not in repr(identity) and "PrivateKey" not in repr(identity)


def test_a_key_others_can_read_is_warned_of(world: Any, tmp_path: Path) -> None:
    key = tmp_path / "key.pem"
    shutil.copy(world.key("alpha"), key)
    for mode, warned in ((0o600, False), (0o640, True), (0o604, True)):
        key.chmod(mode)
        events: list[Any] = []
        globalLogPublisher.addObserver(events.append)
        try:
            load(paths(world, key=key))
        finally:
            globalLogPublisher.removeObserver(events.append)
        assert any("chmod" in str(event.get("log_format")) for event in events) == warned


def test_a_node_knows_where_it_can_be_dialled(world: Any) -> None:
    identity = load(paths(world))
    assert identity.covers("localhost") and identity.covers("127.0.0.1") and identity.covers("::1")
    assert not identity.covers("10.0.0.1") and not identity.covers("other.example")


# -- wrong files -----------------------------------------------------------------


@pytest.mark.parametrize("which", ["ca", "cert", "key", "crl", "allow"])
def test_a_missing_named_file_is_named(world: Any, tmp_path: Path, which: str) -> None:
    with pytest.raises(IdentityError, match=r"absent.*No such file") as caught:
        load(paths(world, **{which: tmp_path / "absent"}))
    assert caught.value.path == tmp_path / "absent"


@pytest.mark.parametrize("which", ["ca", "cert", "key", "crl", "allow"])
@pytest.mark.parametrize("content", [b"garbage", b"-----BEGIN CERTIFICATE-----\nAAAA\n", b"\x00\xff" * 99])
def test_garbage_is_named(world: Any, tmp_path: Path, which: str, content: bytes) -> None:
    (tmp_path / "bad").write_bytes(content)
    with pytest.raises(IdentityError) as caught:
        load(paths(world, **{which: tmp_path / "bad"}))
    assert caught.value.path == tmp_path / "bad"


def test_an_encrypted_key_says_how_to_decrypt_it(world: Any, tmp_path: Path) -> None:
    for options in (("pkey", "-aes256"), ("ec", "-aes256")):  # PKCS #8 and the older form
        out = tmp_path / "encrypted.pem"
        world(*options, "-in", world.key("alpha"), "-passout", "pass:secret", "-out", out)
        with pytest.raises(IdentityError, match=r"encrypted.*openssl pkey"):
            load(paths(world, key=out))


def test_key_and_certificate_belong_together(world: Any) -> None:
    with pytest.raises(IdentityError, match="is not the key of") as caught:
        load(paths(world, key=world.key("beta")))
    assert caught.value.path == world.key("beta")


@pytest.mark.parametrize(
    ("kind", "lacking"),
    [
        ("client only", "serverAuth"),
        ("server only", "clientAuth"),
        ("no purpose", "clientAuth and serverAuth"),
    ],
)
def test_a_certificate_no_peer_would_admit_is_refused(world: Any, kind: str, lacking: str) -> None:
    with pytest.raises(IdentityError, match=lacking):
        load(paths(world, kind))


def test_the_bundle_holds_cas_only(world: Any) -> None:
    with pytest.raises(IdentityError, match="'beta' is not the certificate of a CA"):
        load(paths(world, ca=world.cert("beta")))


def test_a_revocation_list_must_be_signed_by_the_ca_it_names(world: Any) -> None:
    assert load(paths(world, crl=world.path / "crl.pem")).crls
    with pytest.raises(IdentityError, match="did not sign"):
        load(paths(world, crl=world.path / "rogue-crl.pem"))


def test_an_allow_list_names_its_bad_line(world: Any, tmp_path: Path) -> None:
    (tmp_path / "allow").write_text(f"{'ab' * 32}\nalpha\n")
    with pytest.raises(IdentityError, match="line 2"):
        load(paths(world, allow=tmp_path / "allow"))


def test_no_file_is_read_without_end(world: Any) -> None:
    with pytest.raises(IdentityError, match="longer than"):
        load(paths(world, ca=Path("/dev/zero")))


# -- time ------------------------------------------------------------------------


def test_days_are_counted_to_the_first_expiry() -> None:
    assert made(days=90).days_left(at(0)) == 90
    assert made(days=90).days_left(at(91)) == -1
    assert made(days=90, ca_days=30).days_left(at(0)) == 30
    assert made().crl_days_left(at(0)) is None
    assert made(crl_days=10).crl_days_left(at(4)) == 6


def test_complaints_begin_and_end_with_the_dates() -> None:
    identity = made(days=90, crl_days=100)
    assert identity.complaints(at(0)) == identity.complaints(at(89)) == ()
    assert "not valid before" in identity.complaints(at(-1))[0]
    assert "expired" in identity.complaints(at(91))[0]
    assert len(identity.complaints(at(101))) == 2
    assert "revocation list expired" in made(crl_days=3).complaints(at(4))[0]


def test_a_node_knows_that_it_was_revoked() -> None:
    authority = Authority.create("ca", now=NOW)
    key = generate_key()
    certificate = authority.issue("alpha", ["a.example"], key.public_key(), now=NOW)
    crl = authority.revocation_list(revoke=[certificate], now=NOW)
    identity = Identity(certificate, key, (authority.certificate,), crls=(crl,))
    assert identity.complaints(at(1)) == ("our certificate is revoked",)


# -- names -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("san", "host", "good"),
    [
        ("a.example", "a.example", True),
        ("a.example", "A.EXAMPLE", True),
        ("a.example", "b.example", False),
        ("a.example", "x.a.example", False),
        ("*.a.example", "x.a.example", True),
        ("*.a.example", "x.y.a.example", False),
        ("*.a.example", "a.example", False),
        ("10.0.0.1", "10.0.0.1", True),
        ("10.0.0.1", "10.0.0.2", False),
        ("fd00::1", "fd00::1", True),
        ("fd00::1", "fd00:0::1", True),
        ("fd00::1", "fd00::2", False),
        ("localhost", "127.0.0.1", False),
        ("node_1", "node_1", True),
    ],
)
def test_the_san_decides_who_a_certificate_speaks_for(san: str, host: str, good: bool) -> None:
    authority = Authority.create("ca", now=NOW)
    certificate = authority.issue("host.example", [san], generate_key().public_key(), now=NOW)
    refusal = host_refusal(certificate, host)
    assert (refusal is None) == good, refusal
    assert host_refusal(certificate, "host.example") is not None, "a CN never counts"
    assert good or (refusal is not None and san in refusal)

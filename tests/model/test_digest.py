from __future__ import annotations

import base64
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.errors import Malformed
from swarm.model.digest import Digest

digests = st.binary(min_size=64, max_size=64).map(Digest)
EMPTY = (
    "cf83e1357eefb8bdf1542850d66d8007d620e4050b5715dc83f4a921d36ce9ce"
    "47d0d13c5d85f2b0ff8318d2877eec2f63b931bd47417a81a538327af927da3e"
)


@given(digests)
def test_every_spelling_is_read_back(digest: Digest) -> None:
    assert Digest.parse(digest.hex) == Digest.parse(digest.hex.upper()) == digest
    assert Digest.parse(str(digest)) == digest
    assert Digest.from_base64url(digest.base64url) == digest
    assert Digest.from_digest_field(digest.repr_digest) == digest
    assert digest.etag == f'"{digest.hex}"' and digest.hex.startswith(digest.short)
    assert digest.short in repr(digest) and digest.hex not in repr(digest)


@given(st.binary(max_size=200))
def test_it_is_sha512(data: bytes) -> None:
    assert Digest.of(data).raw == hashlib.sha512(data).digest()


def test_the_empty_blob_has_its_well_known_name() -> None:
    assert Digest.of(b"").hex == EMPTY


def test_the_spellings_never_change() -> None:
    digest = Digest(bytes(range(64)))
    assert Digest.parse(digest.hex.upper()) == Digest.from_base64url(digest.base64url) == digest
    assert str(digest) == digest.hex == bytes(range(64)).hex() and digest.short == "000102030405"
    assert digest.etag == f'"{digest.hex}"'
    assert digest.base64url.startswith("AAECAwQFBgcICQoLDA0ODxAR") and digest.base64url.endswith("PD0-Pw")
    assert Digest.from_digest_field("sha-512=:" + base64.b64encode(digest.raw).decode() + ":") == digest


@pytest.mark.parametrize(
    "text",
    ["", "0" * 127, "0" * 129, "g" * 128, " " + "0" * 127, "0" * 128 + "\n", "٠" * 128, "0x" + "0" * 126],
)
def test_anything_but_128_hex_digits_is_refused(text: str) -> None:
    with pytest.raises(Malformed):
        Digest.parse(text)


@given(st.text())
def test_any_text_is_an_id_or_malformed(text: str) -> None:
    for parse in (Digest.parse, Digest.from_base64url, Digest.from_digest_field):
        try:
            digest = parse(text)
        except Malformed:
            continue
        assert digest is None or len(digest.raw) == 64


@pytest.mark.parametrize("text", ["", "AAAA", "!" * 86, "é" * 86, "A" * 85, "A" * 88])
def test_base64url_of_another_length_or_alphabet_is_refused(text: str) -> None:
    with pytest.raises(Malformed):
        Digest.from_base64url(text)


class TestDigestField:
    ours = Digest.of(b"x")

    def test_other_algorithms_are_passed_over(self) -> None:
        assert Digest.from_digest_field("sha-256=:AAAA:") is None
        assert Digest.from_digest_field("") is None
        assert Digest.from_digest_field(f"sha-256=:AAAA:, {self.ours.repr_digest} ") == self.ours
        assert Digest.from_digest_field(f"{self.ours.repr_digest},md5=:AAAA:") == self.ours

    def test_the_key_may_be_upper_case(self) -> None:
        assert Digest.from_digest_field(self.ours.repr_digest.replace("sha", "SHA")) == self.ours

    @pytest.mark.parametrize(
        "value",
        [
            "sha-512",
            "sha-512=",
            "sha-512=::",
            "sha-512=:AAAA:",
            "sha-512=:A:",
            "sha-512=:" + "A" * 89 + ":",
            "sha-512=" + base64.b64encode(bytes(64)).decode(),
            "sha-512=:" + base64.b64encode(bytes(65)).decode() + ":",
            "sha-512=:" + base64.urlsafe_b64encode(b"\xff" * 64).decode() + ":",
        ],
    )
    def test_a_sha_512_that_is_no_digest_is_refused(self, value: str) -> None:
        with pytest.raises(Malformed):
            Digest.from_digest_field(value)

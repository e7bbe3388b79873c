"""Every way to hash agrees with hashlib, or with FIPS 180-4 written out."""

from __future__ import annotations

import functools
import hashlib
import itertools
import os
import random
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.errors import StoreFailed
from swarm.hashing import PlainSha512, Sha512, load
from swarm.hashing import sha512 as module
from swarm.model.digest import Digest
from swarm.model.grains import MAX_GRAIN, MIN_GRAIN, Grains
from swarm.model.midstates import IV, Midstates

from . import reference

SHA512 = load()
PLAIN: Sha512 = PlainSha512(os.preadv)
MIB = 1 << 20
SIZES = [0, 1, 127, 128, MIB - 1, MIB, MIB + 1, 2 * MIB, 3 * MIB - 128, 3 * MIB + 5]

both = pytest.mark.parametrize("sha512", [SHA512, PLAIN], ids=["midstates", "plain"])


@functools.cache
def sample(size: int) -> bytes:
    return random.Random(size).randbytes(size)


@contextmanager
def on_disk(data: bytes) -> Iterator[int]:
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.flush()
        yield file.fileno()


def test_the_iv_of_the_model_is_that_of_the_standard() -> None:
    assert reference.IV == IV


def test_the_oracle_agrees_with_hashlib() -> None:
    for size in (0, 1, 111, 112, 128, 240, 300):
        assert reference.end_state(sample(size), 0, IV, True) == hashlib.sha512(sample(size)).digest()


@given(
    sha512=st.sampled_from([SHA512, PLAIN]),
    data=st.binary(max_size=600),
    cuts=st.lists(st.integers(0, 600), max_size=5),
    kind=st.integers(0, 3),
)
def test_any_pieces_in_any_kind_of_buffer_hash_like_the_whole(
    sha512: Sha512, data: bytes, cuts: list[int], kind: int
) -> None:
    wrap = [bytes, bytearray, memoryview, lambda piece: memoryview(bytearray(piece))][kind]
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    hasher = sha512.hasher()
    for start, stop in itertools.pairwise(edges):
        hasher.update(wrap(data[start:stop]))  # type: ignore[operator]  # four callables of one shape
    assert hasher.size == len(data)
    assert hasher.digest() == hasher.digest() == Digest.of(data)


@given(
    data=st.binary(max_size=500),
    start=st.binary(min_size=64, max_size=64),
    blocks=st.one_of(st.integers(0, 40), st.integers(0, 2**63 // 128), st.just(2**61 // 128)),
    last=st.booleans(),
)
def test_a_grain_hashes_from_any_state_at_any_offset_as_the_standard_says(
    data: bytes, start: bytes, blocks: int, last: bool
) -> None:
    """The offsets reach past 2**61 bytes, where the bit counter needs its second word."""
    if not last:
        data = data[: len(data) // 128 * 128]
    expected = reference.end_state(data, blocks * 128, start, last)
    assert SHA512.end_state(data, blocks * 128, start, last) == expected
    assert SHA512.end_state(memoryview(data), blocks * 128, start, last) == expected
    with on_disk(b"before" + data) as fd, on_disk(b"") as empty:
        shifted = load(preadv=lambda fd, buffers, offset: os.preadv(fd, buffers, offset - blocks * 128 + 6))
        assert shifted.end_state_of(fd, blocks * 128, len(data), start, last) == expected
        assert SHA512.end_state_of(empty, 0, 0, start, True) == reference.end_state(b"", 0, start, True)


@pytest.mark.parametrize("size", SIZES)
def test_recorded_midstates_verify_each_grain_alone_and_in_any_order(size: int) -> None:
    data = sample(size)
    with on_disk(data) as fd:
        digest, midstates = SHA512.prove(fd, size)
        assert digest == Digest.of(data) == SHA512.digest_of(fd, size)
        assert midstates is not None
        assert midstates.grains == Grains.of(size)
        assert Midstates.decode(midstates.encode()) == midstates
        grains = midstates.grains
        for index in reversed(range(grains.count)):
            end = SHA512.end_state_of(
                fd, grains.start(index), grains.length(index), midstates.before(index), index == grains.last
            )
            assert end == midstates.after(index, digest.raw)
            plain = SHA512.plain_of(fd, grains.start(index), grains.length(index))
            assert plain == hashlib.sha512(data[grains.start(index) : grains.stop(index)]).digest()


@pytest.mark.parametrize("index", range(4))
def test_one_flipped_bit_is_seen_in_its_own_grain_only(index: int) -> None:
    size = 3 * MIB + 5
    data = bytearray(sample(size))
    hasher = SHA512.hasher()
    hasher.update(data)
    digest, midstates = hasher.digest(), hasher.midstates()
    assert midstates is not None
    data[index * MIB + 3] ^= 1
    grains = midstates.grains
    wrong = [
        grain
        for grain in range(grains.count)
        if SHA512.end_state(
            memoryview(data)[grains.start(grain) : grains.stop(grain)],
            grains.start(grain),
            midstates.before(grain),
            grain == grains.last,
        )
        != midstates.after(grain, digest.raw)
    ]
    assert wrong == [index]


@given(size=st.integers(0, 9000), pieces=st.integers(1, 3000), data=st.data())
def test_the_list_of_an_unknown_length_is_the_one_of_that_length(
    size: int, pieces: int, data: st.DataObject
) -> None:
    """Scaled down: grains of 128 B to 2 KiB, at most 8 of them below the largest."""

    def grain_size(size: int) -> int:
        grain = 128
        while grain < 2048 and grain * 8 < size:
            grain *= 2
        return grain

    def cut(size: int) -> Grains:
        return Grains(size, grain_size(size))

    blob = sample(9000)[:size]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "MIN_GRAIN", 128)
        patch.setattr(module, "grain_size", grain_size)
        patch.setattr(module.Grains, "of", staticmethod(cut))
        hasher = SHA512.hasher()
        for at in range(0, size, pieces):
            hasher.update(blob[at : at + pieces])
            if data.draw(st.booleans()):
                hasher.midstates()  # looking changes nothing
        midstates = hasher.midstates()
    assert midstates is not None
    assert midstates.grains == cut(size)
    for index in range(midstates.grains.count):
        prefix = blob[: midstates.grains.start(index)]
        assert midstates.before(index) == reference.end_state(prefix, 0, IV, False)


def test_midstates_of_two_thousand_and_one_grains_are_thinned_once() -> None:
    """The real sizes, once: 2,000 MiB and a byte have grains of 2 MiB. Zeros compress well in memory."""
    step = bytes(MIB)
    hasher = SHA512.hasher()
    for _ in range(2000):
        hasher.size += MIB - 128  # as if these bytes had been hashed: only the bookkeeping is looked at
        hasher.update(step[:128])
    assert hasher.size == 2000 * MIB
    hasher.update(b"x")
    midstates = hasher.midstates()
    assert midstates is not None
    assert (midstates.grains.grain, midstates.grains.count) == (2 * MIB, 1001)
    assert MIN_GRAIN == MIB < MAX_GRAIN


@both
def test_hashing_a_file_in_steps_equals_hashing_it_at_once(sha512: Sha512) -> None:
    data = sample(3 * MIB + 5)
    with on_disk(data) as fd:
        hasher = sha512.hasher()
        hasher.update_from(fd, 100)
        hasher.update_from(fd, 0)
        hasher.update(data[100:200])
        hasher.update_from(fd, len(data) - 200)
        assert hasher.digest() == Digest.of(data)
        assert (hasher.digest(), hasher.midstates()) == sha512.prove(fd, len(data))


@both
def test_a_file_shorter_than_its_blob_is_a_failed_store(sha512: Sha512) -> None:
    with on_disk(b"12345") as fd:
        for attempt in (
            lambda: sha512.prove(fd, 6),
            lambda: sha512.digest_of(fd, 6),
            lambda: sha512.plain_of(fd, 3, 3),
            lambda: sha512.end_state_of(fd, 0, 6, IV, True),
            lambda: sha512.hasher().update_from(fd, 6),
        ):
            with pytest.raises(StoreFailed):
                attempt()


@both
def test_an_error_of_the_disk_comes_through(sha512: Sha512) -> None:
    with pytest.raises(OSError):
        sha512.digest_of(-1, 1)


def test_the_fallback_knows_no_midstates_but_verifies_a_blob_of_one_grain() -> None:
    data = sample(1000)
    hasher = PLAIN.hasher()
    hasher.update(data)
    assert hasher.midstates() is None
    assert PLAIN.end_state(data, 0, IV, True) == Digest.of(data).raw
    with on_disk(data) as fd:
        assert PLAIN.end_state_of(fd, 0, 1000, IV, True) == Digest.of(data).raw
    with pytest.raises(AssertionError):
        PLAIN.end_state(data, 128, IV, True)


def test_many_threads_share_one_object() -> None:
    from concurrent.futures import ThreadPoolExecutor

    data = sample(3 * MIB + 5)
    with on_disk(data) as fd:
        digest, midstates = SHA512.prove(fd, len(data))
        assert midstates is not None
        grains = midstates.grains

        def verify(index: int) -> bool:
            start, length = grains.start(index), grains.length(index)
            end = SHA512.end_state_of(fd, start, length, midstates.before(index), index == grains.last)
            return end == midstates.after(index, digest.raw)

        with ThreadPoolExecutor(4) as pool:
            assert all(pool.map(verify, list(range(grains.count)) * 8))

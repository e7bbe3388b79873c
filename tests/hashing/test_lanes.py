"""Grains hashed side by side come out as one after the other, and a library that errs is not used."""

from __future__ import annotations

import ctypes.util
import hashlib
import os
import random
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import swarm.compiled
from swarm.errors import StoreFailed
from swarm.hashing import MidstateSha512, Stretch, lanes, libcrypto, load
from swarm.hashing.lanes import Lanes
from swarm.hashing.libcrypto import Library
from swarm.model.midstates import IV

from . import reference

BLOCK = 128
LENGTH = 1 << 20
DATA = random.Random(0).randbytes(LENGTH)


def library() -> Library:
    found = libcrypto.find()
    assert found is not None
    return found


PLAINLY = MidstateSha512(library(), os.preadv)


@pytest.fixture(scope="module")
def fd() -> Iterator[int]:
    with tempfile.TemporaryFile() as file:
        file.write(DATA)
        file.flush()
        yield file.fileno()


@pytest.fixture(scope="module")
def loaded(compiled: str) -> Lanes:
    found = Lanes(compiled)
    if not found.kernels:
        pytest.skip("this processor has neither AVX2 nor AVX-512")
    return found


@pytest.fixture(scope="module")
def by_kernel(compiled: str, loaded: Lanes) -> list[MidstateSha512]:
    """As it is used, and with each kernel by itself, worthwhile or not."""
    made = [MidstateSha512(library(), os.preadv, loaded)]
    for kernel in loaded.kernels:
        single = Lanes(compiled)
        single.kernels = [lanes.Kernel(kernel.number, kernel.lanes, kernel.name, worthwhile=1)]
        made.append(MidstateSha512(library(), os.preadv, single))
    return made


stretches = st.builds(
    lambda block, blocks, tail, start, last: (block * BLOCK, blocks * BLOCK + tail * last, start, last),
    block=st.integers(0, 100),
    blocks=st.integers(0, 9),
    tail=st.integers(0, BLOCK - 1),
    start=st.none() | st.binary(min_size=64, max_size=64),
    last=st.booleans(),
)


@given(wanted=st.lists(stretches, max_size=17))
def test_any_number_from_any_states_and_of_any_lengths_is_what_libcrypto_says(
    wanted: list[tuple[int, int, bytes | None, bool]], fd: int, by_kernel: list[MidstateSha512]
) -> None:
    asked = [Stretch(fd, *each) for each in wanted]
    expected = PLAINLY.end_states_of(asked)
    for each, end in zip(asked, expected, strict=True):
        data = DATA[each.offset : each.offset + each.length]
        if each.start is None:
            assert end == hashlib.sha512(data).digest()
        else:
            assert end == PLAINLY.end_state(data, each.offset, each.start, each.last)
    for sha512 in by_kernel:
        assert sha512.end_states_of(asked) == expected


@given(starts=st.lists(st.binary(min_size=64, max_size=64), min_size=1, max_size=17))
def test_one_block_from_any_state_is_what_the_standard_says(
    starts: list[bytes], fd: int, by_kernel: list[MidstateSha512]
) -> None:
    asked = [Stretch(fd, i * BLOCK, BLOCK, start, False) for i, start in enumerate(starts)]
    expected = [
        reference.end_state(DATA[i * BLOCK : (i + 1) * BLOCK], i * BLOCK, start, False)
        for i, start in enumerate(starts)
    ]
    for sha512 in by_kernel:
        assert sha512.end_states_of(asked) == expected


@pytest.mark.parametrize("count", range(1, 18))
def test_many_steps(count: int, fd: int, by_kernel: list[MidstateSha512]) -> None:
    """Long enough to be read in several, of lengths that end in the middle of one."""
    asked = [Stretch(fd, 3 * BLOCK * i, LENGTH // 2 - 70_000 * (i % 3) - i, IV, True) for i in range(count)]
    expected = PLAINLY.end_states_of(asked)
    for sha512 in by_kernel:
        assert sha512.end_states_of(asked) == expected


def test_several_files_at_once(by_kernel: list[MidstateSha512]) -> None:
    blobs = [random.Random(n).randbytes(5000) for n in range(8)]
    with tempfile.TemporaryDirectory() as directory:
        files = [Path(directory, str(n)) for n in range(8)]
        for file, blob in zip(files, blobs, strict=True):
            file.write_bytes(blob)
        fds = [os.open(file, os.O_RDONLY) for file in files]
        try:
            ends = by_kernel[0].end_states_of([Stretch(fd, 0, 5000, None) for fd in fds])
        finally:
            for each in fds:
                os.close(each)
    assert ends == [hashlib.sha512(blob).digest() for blob in blobs]


def test_threads_share_one_object(fd: int, by_kernel: list[MidstateSha512]) -> None:
    asked = [Stretch(fd, BLOCK * i, LENGTH // 2, IV, False) for i in range(8)]
    expected = PLAINLY.end_states_of(asked)
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(by_kernel[0].end_states_of, [asked] * 16)) == [expected] * 16


def test_a_file_that_ends_early_is_a_failed_store(fd: int, by_kernel: list[MidstateSha512]) -> None:
    asked = [Stretch(fd, offset, LENGTH // 2, IV, False) for offset in (0, LENGTH // 2 + BLOCK, BLOCK)]
    for sha512 in by_kernel:
        with pytest.raises(StoreFailed):
            sha512.end_states_of(asked)


def test_an_error_of_the_disk_comes_through(fd: int, by_kernel: list[MidstateSha512]) -> None:
    asked = [Stretch(number, 0, LENGTH // 2, IV, False) for number in (fd, -1, fd)]
    for sha512 in by_kernel:
        with pytest.raises(OSError):
            sha512.end_states_of(asked)


def test_as_many_lanes_as_there_is_work_for(loaded: Lanes) -> None:
    for count in range(1, loaded.most + 1):
        kernel = loaded.kernel(count)
        assert kernel.lanes >= count
        assert not any(count <= each.lanes < kernel.lanes for each in loaded.kernels)
    assert loaded.kernel(100).lanes == loaded.most


# -- which library -----------------------------------------------------------------------------


def find(monkeypatch: pytest.MonkeyPatch, *places: str) -> Lanes | None:
    monkeypatch.setattr(swarm.compiled, "places", lambda *_: iter(places))
    return lanes.find(library())


def test_a_good_one_is_used_and_said_to_be(
    monkeypatch: pytest.MonkeyPatch, compiled: str, loaded: Lanes
) -> None:
    found = find(monkeypatch, "/nonexistent.so", ctypes.util.find_library("c") or "", __file__, compiled)
    assert found is not None and found.most == loaded.most
    sha512 = load()
    assert sha512.together == loaded.most
    assert f"{loaded.most} at a time" in sha512.description


def test_none_is_no_misfortune(monkeypatch: pytest.MonkeyPatch) -> None:
    assert find(monkeypatch) is None
    sha512 = load()
    assert sha512.provides_midstates and sha512.together == 1
    assert "one grain at a time" in sha512.description


def test_reading_by_other_means_is_not_bypassed(monkeypatch: pytest.MonkeyPatch, compiled: str) -> None:
    monkeypatch.setattr(swarm.compiled, "places", lambda *_: iter((compiled,)))
    assert load(preadv=lambda fd, buffers, offset: 0).together == 1


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("0x428a2f98d728ae22", "0x428a2f98d728ae23"),
        ("ROTATE(y, 61)", "ROTATE(y, 62)"),
        ("0xe8", "0xe9"),
        ("(x ^ y) & (y ^ z)", "(x ^ y) & (x ^ z)"),
        ("[lane] + done * BLOCK", "[lane]"),
        ("states + 64 * lane", "states + 64 * (count - 1 - lane)"),
        ("7, 6, 5, 4, 3, 2, 1, 0,", "0, 1, 2, 3, 4, 5, 6, 7,"),
    ],
)
def test_one_that_errs_is_not_used(
    monkeypatch: pytest.MonkeyPatch, build: Callable[..., str], loaded: Lanes, old: str, new: str
) -> None:
    if old == "0xe8" and loaded.most < 8:
        pytest.skip("this processor does not come that way")
    assert find(monkeypatch, build((old, new))) is None


def test_one_without_kernels_is_not_used(monkeypatch: pytest.MonkeyPatch, build: Callable[..., str]) -> None:
    """What there is for other processors."""
    assert find(monkeypatch, build(("defined(__x86_64__)", "0"))) is None


def test_one_that_cannot_be_tested_is_not_used(monkeypatch: pytest.MonkeyPatch, compiled: str) -> None:
    def refuse(name: str) -> int:
        raise PermissionError(name)

    monkeypatch.setattr(os, "memfd_create", refuse)
    assert find(monkeypatch, compiled) is None


def test_what_is_installed_has_them() -> None:
    """Where there is a compiler, as on the build machine, ``pip install`` builds them."""
    if not os.environ.get("CI") or " avx2 " not in Path("/proc/cpuinfo").read_text():
        pytest.skip("only the build machine must have a compiler, and AVX2 is needed")
    assert lanes.find(library()) is not None

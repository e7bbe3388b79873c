"""Several grains hashed side by side, in the lanes of a vector register.

Decides where the compiled library (``lanes.c``) is, whether it is believed, and how grains share its lanes.
Not what becomes of a grain's last bytes, nor what is done where there is no library: see
:class:`swarm.hashing.sha512.MidstateSha512`. It is optional: built where a C compiler is, found beside this
module, and used only if each of its kernels agrees with libcrypto when it is loaded.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
from collections.abc import Sequence
from itertools import count

from attrs import frozen

from swarm import compiled
from swarm.hashing.libcrypto import BLOCK, Computation, Library, address_of
from swarm.model.midstates import IV

_MOST_LANES = 8

#: Blocks of each lane that are read and then hashed: eight times 64 KiB stay in a core's own cache.
_STEP = (64 << 10) // BLOCK

#: What the kernels need, in the order of their numbers in ``lanes.c``.
_NAMES = ("AVX2", "AVX-512", "AVX-512")

#: The fewest grains that each is worth using for. With two, AVX2 costs 1.05 of what libcrypto does for one
#: after the other, with three 0.75; AVX-512 0.65 with two.
_WORTHWHILE = (3, 2, 2)


@frozen
class Stretch:
    """Bytes of a file to be hashed: a grain, or what is hashed for itself."""

    fd: int
    offset: int
    """Of its first byte in the file; in a grain, as many bytes led to ``start``."""
    length: int
    start: bytes | None
    """The chaining value to go on from; None: SHA-512 of these bytes alone is wanted."""
    last: bool = True
    """Does the message end here? Then its end is not a chaining value but the digest."""


@frozen
class Kernel:
    """The code for one set of instructions."""

    number: int
    lanes: int
    name: str
    worthwhile: int
    """With fewer runs, libcrypto is better."""


class Lanes:
    """The kernels of one loaded library that this processor can run. For any thread."""

    def __init__(self, path: str) -> None:
        """
        :raises OSError: it cannot be loaded.
        :raises AttributeError: it is another library.
        """
        shared = ctypes.CDLL(path)
        shared.swarm_lanes.argtypes = [ctypes.c_int]
        self._hash = shared.swarm_lanes_hash
        self._hash.argtypes = [
            ctypes.c_int,
            ctypes.c_int,
            ctypes.c_void_p,
            ctypes.c_void_p,
            ctypes.c_void_p,
            ctypes.c_uint64,
            ctypes.c_void_p,
            ctypes.c_size_t,
        ]
        self.kernels = [
            Kernel(number, lanes, name, worthwhile)
            for number, name, worthwhile in zip(count(), _NAMES, _WORTHWHILE, strict=False)
            if (lanes := shared.swarm_lanes(number)) in range(2, _MOST_LANES + 1)
        ]
        self._idle: list[ctypes.Array[ctypes.c_char]] = []

    @property
    def most(self) -> int:
        """As many grains at once are best; 0 if this processor has none of the kernels' instructions."""
        return max((kernel.lanes for kernel in self.kernels), default=0)

    @property
    def description(self) -> str:
        """For the log: with what, and how wide."""
        widest = self.kernel(self.most)
        return f"{widest.lanes} at a time with {widest.name}"

    def kernel(self, runs: int) -> Kernel:
        """The best one for so many: the last of the narrowest that have room for all, or the widest."""
        room = min(runs, self.most)
        lanes = min(kernel.lanes for kernel in self.kernels if kernel.lanes >= room)
        return [kernel for kernel in self.kernels if kernel.lanes == lanes][-1]

    def advance(self, stretches: Sequence[Stretch]) -> list[tuple[int, bytes]] | None:
        """
        Hash whole blocks of each as far as that is quicker than one after the other.

        :return: for each, how many of its bytes were hashed (a multiple of 128) and the chaining value there;
            None if reading failed: one after the other will tell whose fault it is.
        """
        done = [0] * len(stretches)
        states = [each.start or IV for each in stretches]
        while True:
            left = {i: (each.length - done[i]) // BLOCK for i, each in enumerate(stretches)}
            most = sorted((i for i in left if left[i]), key=left.__getitem__, reverse=True)[: self.most]
            if not most or len(most) < (kernel := self.kernel(len(most))).worthwhile:
                return list(zip(done, states, strict=True))
            blocks = left[most[-1]]
            ends = self.run(
                kernel,
                [stretches[i].fd for i in most],
                [stretches[i].offset + done[i] for i in most],
                [states[i] for i in most],
                blocks,
            )
            if ends is None:
                return None
            for i, end in zip(most, ends, strict=True):
                states[i] = end
                done[i] += blocks * BLOCK

    def run(
        self,
        kernel: Kernel,
        fds: Sequence[int],
        offsets: Sequence[int],
        starts: Sequence[bytes],
        blocks: int,
        step: int = _STEP,
    ) -> list[bytes] | None:
        """The chaining values after so many blocks of each; None if reading failed. The GIL is released."""
        lanes = len(fds)
        states = ctypes.create_string_buffer(b"".join(starts), 64 * lanes)
        try:
            buffer = self._idle.pop()  # of a list, both are atomic
        except IndexError:
            buffer = ctypes.create_string_buffer(_MOST_LANES * (_STEP + 1) * BLOCK)
        failed = self._hash(
            kernel.number,
            lanes,
            (ctypes.c_int * lanes)(*fds),
            (ctypes.c_int64 * lanes)(*offsets),
            states,
            blocks,
            buffer,
            step,
        )
        self._idle.append(buffer)
        return None if failed else [states.raw[at : at + 64] for at in range(0, 64 * lanes, 64)]


def find(library: Library) -> Lanes | None:
    """A compiled library with at least one kernel for this processor, all of which pass the self-test."""
    for place in compiled.places(__file__, "_lanes"):
        try:
            lanes = Lanes(place)
        except (OSError, AttributeError):
            continue
        if lanes.kernels and self_test(lanes, library):
            return lanes
    return None


def self_test(lanes: Lanes, library: Library) -> bool:
    """Does each kernel agree with libcrypto, with all lanes and with fewer, from any states, in steps?"""
    blocks = 5
    try:
        fd = os.memfd_create("swarm-lanes")
    except OSError:
        return False
    try:
        data = hashlib.shake_128(b"swarm").digest((_MOST_LANES + blocks) * BLOCK)
        os.write(fd, data)
        starts = [hashlib.sha512(bytes([lane])).digest() for lane in range(_MOST_LANES)]
        offsets = [lane * BLOCK for lane in range(_MOST_LANES)]
        expected = []
        for start, offset in zip(starts, offsets, strict=True):
            one = Computation(library)
            one.resume(start, 0)
            address, anchor = address_of(data[offset : offset + blocks * BLOCK])
            one.feed(address, blocks * BLOCK)
            del anchor
            expected.append(one.state())
        return all(
            lanes.run(kernel, [fd] * used, offsets[:used], starts[:used], blocks, step=2) == expected[:used]
            for kernel in lanes.kernels
            for used in range(1, kernel.lanes + 1)
        )
    finally:
        os.close(fd)

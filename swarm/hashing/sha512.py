"""Hash blobs and single grains, from memory or from a descriptor.

:func:`load` gives the one object everything that hashes is built with. With a usable libcrypto it knows
chaining values, and with compiled lanes it hashes several grains side by side; without libcrypto it is plain
``hashlib``, and a pull ends with a pass over the whole file instead.
All methods block, release the GIL while hashing, and may be called from any thread.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from typing import Protocol

from swarm.errors import StoreFailed
from swarm.hashing import lanes
from swarm.hashing.lanes import Lanes, Stretch
from swarm.hashing.libcrypto import Computation, Library, address_of, find
from swarm.model.digest import Digest
from swarm.model.grains import MIN_GRAIN, Grains, grain_size
from swarm.model.midstates import IV, Midstates

#: Bytes a read. Less is no faster, and each piece is two more occasions to wait for the interpreter's lock.
_PIECE = 1 << 20


class Preadv(Protocol):
    """``os.preadv``, or a simulated disk's."""

    def __call__(self, fd: int, buffers: list[memoryview], offset: int, /) -> int:
        """Fill the buffers from ``offset``; how many bytes there were, 0 at the end of the file."""


class Hasher(Protocol):
    """One blob being hashed in order. For one thread at a time."""

    @property
    def size(self) -> int:
        """Bytes taken so far."""

    def update(self, data: bytes | bytearray | memoryview) -> None:
        """Take the next bytes."""

    def update_from(self, fd: int, length: int) -> None:
        """
        Read the next ``length`` bytes, at offset :attr:`size` of a file, and take them.

        :raises StoreFailed: the file is shorter.
        :raises OSError: reading failed.
        """

    def digest(self) -> Digest:
        """The id of the bytes so far."""

    def midstates(self) -> Midstates | None:
        """The chaining values at the grain that the size so far demands; None if they are not known."""


class Sha512(Protocol):
    """What the store and the pulls hash with."""

    @property
    def provides_midstates(self) -> bool:
        """Can it start from, and record, chaining values?"""

    @property
    def description(self) -> str:
        """One line for the log at start."""

    @property
    def together(self) -> int:
        """So many grains at once cost least CPU each; 1: it makes no difference."""

    def hasher(self) -> Hasher:
        """Begin a blob."""

    def end_state(self, data: bytes | memoryview, offset: int, start: bytes, last: bool) -> bytes:
        """
        Hash one grain in memory, as if ``offset`` bytes had led to the chaining value ``start``.

        :return: the chaining value after it; the digest of the whole blob if it is the ``last`` grain.
        """

    def end_state_of(self, fd: int, offset: int, length: int, start: bytes, last: bool) -> bytes:
        """
        The same for ``length`` bytes at ``offset`` of a file.

        :raises StoreFailed: the file is shorter.
        :raises OSError: reading failed.
        """

    def end_states_of(self, stretches: Sequence[Stretch]) -> list[bytes]:
        """
        What :meth:`end_state_of` or :meth:`plain_of` give for each, :attr:`together` at a time where that is
        quicker. Raises as :meth:`end_state_of`, for any of them.
        """

    def plain_of(self, fd: int, offset: int, length: int) -> bytes:
        """SHA-512 of ``length`` bytes at ``offset`` alone. Raises as :meth:`end_state_of`."""

    def prove(self, fd: int, size: int) -> tuple[Digest, Midstates | None]:
        """Hash the first ``size`` bytes of a file. Raises as :meth:`end_state_of`."""

    def digest_of(self, fd: int, size: int) -> Digest:
        """The id alone. Raises as :meth:`end_state_of`."""


class _Pieces:
    """Reads a file in pieces, into buffers that are used again and again: as many as threads read at once."""

    def __init__(self, preadv: Preadv) -> None:
        self._preadv = preadv
        self._idle: list[memoryview] = []

    def of(self, fd: int, offset: int, length: int) -> Iterator[memoryview]:
        """The bytes asked for; a piece is good until the next is taken."""
        try:
            buffer = self._idle.pop()  # of a list, both are atomic
        except IndexError:
            buffer = memoryview(bytearray(_PIECE))
        try:
            while length:
                taken = self._preadv(fd, [buffer[: min(length, _PIECE)]], offset)
                if taken == 0:
                    raise StoreFailed(f"the file ends at {offset}, {length} bytes early")
                yield buffer[:taken]
                offset += taken
                length -= taken
        finally:
            self._idle.append(buffer)


class _FromFiles:
    """What both kinds do the same way."""

    together = 1

    def __init__(self, preadv: Preadv) -> None:
        self._pieces = _Pieces(preadv)

    def plain_of(self, fd: int, offset: int, length: int) -> bytes:
        plain = hashlib.sha512()
        for piece in self._pieces.of(fd, offset, length):
            plain.update(piece)
        return plain.digest()

    def digest_of(self, fd: int, size: int) -> Digest:
        return Digest(self.plain_of(fd, 0, size))


class MidstateSha512(_FromFiles):
    """SHA-512 that knows its chaining values: libcrypto through ctypes, with lanes where there are any."""

    provides_midstates = True

    def __init__(self, library: Library, preadv: Preadv, lanes: Lanes | None = None) -> None:
        """:param lanes: only with the real ``preadv``, which they do not call."""
        super().__init__(preadv)
        self._library = library
        self._lanes = lanes
        self.together = 1 if lanes is None else lanes.most
        side_by_side = "one grain at a time" if lanes is None else f"grains {lanes.description}"
        self.description = f"SHA-512 with midstates from {library.source}, {side_by_side}"

    def hasher(self) -> Hasher:
        return _RecordingHasher(Computation(self._library), self._pieces)

    def prove(self, fd: int, size: int) -> tuple[Digest, Midstates | None]:
        hasher = self.hasher()
        hasher.update_from(fd, size)
        return hasher.digest(), hasher.midstates()

    def end_state(self, data: bytes | memoryview, offset: int, start: bytes, last: bool) -> bytes:
        return self._end(iter((data,)), offset, start, last)

    def end_state_of(self, fd: int, offset: int, length: int, start: bytes, last: bool) -> bytes:
        return self._go_on(Stretch(fd, offset, length, start, last), 0, start)

    def end_states_of(self, stretches: Sequence[Stretch]) -> list[bytes]:
        advanced = None if self._lanes is None else self._lanes.advance(stretches)
        if advanced is None:
            advanced = [(0, each.start or IV) for each in stretches]
        return [self._go_on(each, *reached) for each, reached in zip(stretches, advanced, strict=True)]

    def _go_on(self, stretch: Stretch, done: int, state: bytes) -> bytes:
        """Hash what is left of it after so many bytes."""
        last, before = stretch.last, stretch.offset
        if stretch.start is None:
            last, before = True, 0
        if done == stretch.length and not last:
            return state
        pieces = self._pieces.of(stretch.fd, stretch.offset + done, stretch.length - done)
        return self._end(pieces, before + done, state, last)

    def _end(self, pieces: Iterator[bytes | memoryview], offset: int, start: bytes, last: bool) -> bytes:
        computation = Computation(self._library)
        computation.resume(start, offset)
        for piece in pieces:
            if len(piece):
                address, _anchor = address_of(piece)
                computation.feed(address, len(piece))
        return computation.final() if last else computation.state()


class PlainSha512(_FromFiles):
    """SHA-512 by ``hashlib`` alone: no chaining values."""

    provides_midstates = False

    def __init__(self, preadv: Preadv) -> None:
        super().__init__(preadv)
        self.description = "SHA-512 without midstates (no usable libcrypto): pulls end with a second pass"

    def hasher(self) -> Hasher:
        return _PlainHasher(self._pieces)

    def prove(self, fd: int, size: int) -> tuple[Digest, Midstates | None]:
        return self.digest_of(fd, size), None

    def end_state(self, data: bytes | memoryview, offset: int, start: bytes, last: bool) -> bytes:
        self._check(offset, start, last)
        return hashlib.sha512(data).digest()

    def end_state_of(self, fd: int, offset: int, length: int, start: bytes, last: bool) -> bytes:
        self._check(offset, start, last)
        return self.plain_of(fd, offset, length)

    def end_states_of(self, stretches: Sequence[Stretch]) -> list[bytes]:
        return [
            self.plain_of(each.fd, each.offset, each.length)
            if each.start is None
            else self.end_state_of(each.fd, each.offset, each.length, each.start, each.last)
            for each in stretches
        ]

    def _check(self, offset: int, start: bytes, last: bool) -> None:
        # The only grain that hashlib can verify is the one that is the whole blob.
        assert offset == 0 and start == IV and last, "ask provides_midstates first"


class _RecordingHasher:
    """Keeps the chaining value at each grain boundary, and fewer of them as the blob grows.

    The grain follows from the size alone and never shrinks as the size grows, so recording at the
    grain of the bytes so far, and dropping every other value when it doubles, always ends with the
    list for the final size, and never holds more than 2,000 values below 31 GiB.
    """

    def __init__(self, computation: Computation, pieces: _Pieces) -> None:
        self.size = 0
        self._computation = computation
        self._pieces = pieces
        self._grain = MIN_GRAIN
        self._states = bytearray()

    def update(self, data: bytes | bytearray | memoryview) -> None:
        left = len(data)
        if not left:
            return
        address, _anchor = address_of(data)
        while left:
            step = min(left, self._grain - self.size % self._grain)
            self._computation.feed(address, step)
            self.size += step
            address += step
            left -= step
            if self.size % self._grain == 0:
                self._states += self._computation.state()
                self._thin(grain_size(self.size))

    def update_from(self, fd: int, length: int) -> None:
        for piece in self._pieces.of(fd, self.size, length):
            self.update(piece)

    def digest(self) -> Digest:
        return Digest(self._computation.final())

    def midstates(self) -> Midstates | None:
        grains = Grains.of(self.size)
        self._thin(grains.grain)
        # A size that is a multiple of the grain has recorded one value more: the one at its end.
        return Midstates(grains, bytes(self._states[: 64 * grains.last]))

    def _thin(self, grain: int) -> None:
        while self._grain < grain:
            states = self._states
            self._states = bytearray().join(states[at : at + 64] for at in range(64, len(states), 128))
            self._grain *= 2


class _PlainHasher:
    """``hashlib`` as a :class:`Hasher`."""

    def __init__(self, pieces: _Pieces) -> None:
        self.size = 0
        self._plain = hashlib.sha512()
        self._pieces = pieces

    def update(self, data: bytes | bytearray | memoryview) -> None:
        self._plain.update(data)
        self.size += len(data)

    def update_from(self, fd: int, length: int) -> None:
        for piece in self._pieces.of(fd, self.size, length):
            self.update(piece)

    def digest(self) -> Digest:
        return Digest(self._plain.digest())

    def midstates(self) -> Midstates | None:
        return None


def load(*, preadv: Preadv = os.preadv) -> Sha512:
    """The best SHA-512 this machine has; log its ``description``."""
    library = find()
    if library is None:
        return PlainSha512(preadv)
    return MidstateSha512(library, preadv, lanes.find(library) if preadv is os.preadv else None)

"""libcrypto's SHA-512 through ctypes, with its state laid open.

``hashlib`` hides the chaining value; ``SHA512_CTX`` shows it, and its layout is public and unchanged
since OpenSSL 0.9.8. ``ctypes.CDLL`` releases the GIL during each call. The functions are deprecated
in OpenSSL 3 and may be missing in other builds, so nothing here is used before :func:`self_test` agrees.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import hashlib
import importlib.util
import struct
from collections.abc import Iterator

BLOCK = 128
_STATE = struct.Struct(">8Q")
_SONAMES = ("libcrypto.so.3", "libcrypto.so.1.1", "libcrypto.so")


class _Context(ctypes.Structure):
    """``SHA512_CTX`` of ``openssl/sha.h``, with room to spare in case a fork's is longer."""

    _fields_ = (
        ("h", ctypes.c_uint64 * 8),
        ("Nl", ctypes.c_uint64),
        ("Nh", ctypes.c_uint64),
        ("d", ctypes.c_uint64 * 16),
        ("num", ctypes.c_uint),
        ("md_len", ctypes.c_uint),
        ("spare", ctypes.c_uint64 * 16),
    )


class Computation:
    """One SHA-512 under way. For one thread at a time."""

    __slots__ = ("_context", "_library")

    def __init__(self, library: Library) -> None:
        self._library = library
        self._context = _Context()
        library.init(ctypes.byref(self._context))

    def resume(self, start: bytes, offset: int) -> None:
        """Go on as if ``offset`` bytes (a multiple of 128) had led to the chaining value ``start``."""
        assert len(start) == 64 and offset % BLOCK == 0
        context = self._context
        context.h[:] = _STATE.unpack(start)
        context.Nh, context.Nl = divmod(offset * 8, 1 << 64)

    def feed(self, address: int, length: int) -> None:
        """Take ``length`` bytes of memory; the GIL is released meanwhile."""
        self._library.update(ctypes.byref(self._context), address, length)

    def state(self) -> bytes:
        """The chaining value, big endian; only after a multiple of 128 bytes."""
        assert self._context.num == 0
        return _STATE.pack(*self._context.h)

    def final(self) -> bytes:
        """The digest of all bytes so far; more may follow."""
        copy = _Context.from_buffer_copy(self._context)
        out = ctypes.create_string_buffer(64)
        self._library.final(out, ctypes.byref(copy))
        return out.raw


class Library:
    """The three functions of one loaded libcrypto."""

    def __init__(self, shared: ctypes.CDLL, source: str) -> None:
        """:raises AttributeError: it does not export them."""
        self.source = source
        self.init = shared.SHA512_Init
        self.init.argtypes = [ctypes.c_void_p]
        self.update = shared.SHA512_Update
        self.update.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t]
        self.final = shared.SHA512_Final
        self.final.argtypes = [ctypes.c_void_p, ctypes.c_void_p]


def address_of(data: bytes | bytearray | memoryview) -> tuple[int, object]:
    """
    Where the (not empty, contiguous) bytes lie, and what keeps them there while it is referenced.

    Only a read-only view has to be copied: ctypes cannot point into one.
    """
    if isinstance(data, memoryview) and data.readonly:
        data = bytes(data)
    if isinstance(data, bytes):
        return ctypes.cast(ctypes.c_char_p(data), ctypes.c_void_p).value or 0, data
    anchor = ctypes.c_char.from_buffer(data)
    return ctypes.addressof(anchor), anchor


def _places() -> Iterator[str | None]:
    # dlsym on _hashlib also searches what it is linked to: the libcrypto this Python itself uses.
    # A Python with everything built in has no such file; then the program itself is asked.
    spec = importlib.util.find_spec("_hashlib")
    yield spec.origin if spec is not None and spec.has_location else None
    yield ctypes.util.find_library("crypto")
    yield from _SONAMES


def find() -> Library | None:
    """The first libcrypto that passes the self-test; None if there is none."""
    for place in _places():
        try:
            library = Library(ctypes.CDLL(place), place or "the Python program")
        except (OSError, AttributeError):
            continue
        if self_test(library):
            return library
    return None


def self_test(library: Library) -> bool:
    """Does it agree with hashlib, in one go, in pieces, and through a saved chaining value?"""
    sample = bytes(range(256)) * 3
    for length in (0, 1, 3, 111, 112, 127, 128, 129, 255, 256, 768):
        data = sample[:length]
        expected = hashlib.sha512(data).digest()
        for cut in (0, length // 2, length // BLOCK * BLOCK):
            whole = Computation(library)
            _feed(whole, data[:cut])
            if cut % BLOCK == 0:
                rest = Computation(library)
                rest.resume(whole.state(), cut)
                _feed(rest, data[cut:])
                if rest.final() != expected:
                    return False
            _feed(whole, data[cut:])
            if whole.final() != expected:
                return False
    return True


def _feed(computation: Computation, data: bytes) -> None:
    if data:
        address, anchor = address_of(data)
        computation.feed(address, len(data))
        del anchor

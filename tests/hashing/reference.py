"""FIPS 180-4 SHA-512 written out, slow and plain: the oracle where hashlib cannot be one.

Its round constants are computed from their definition (fractional parts of cube roots of primes), so
that it shares nothing with the code under test.
"""

from __future__ import annotations

import math
import struct

_MASK = (1 << 64) - 1


def _primes(count: int) -> list[int]:
    found: list[int] = []
    candidate = 2
    while len(found) < count:
        if all(candidate % prime for prime in found):
            found.append(candidate)
        candidate += 1
    return found


def _cube_root(value: int) -> int:
    low, high = 0, 1 << (value.bit_length() // 3 + 2)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if middle**3 <= value else (low, middle)
    return low


_PRIMES = _primes(80)
_K = [_cube_root(prime << 192) & _MASK for prime in _PRIMES]
IV = struct.pack(">8Q", *(math.isqrt(prime << 128) & _MASK for prime in _PRIMES[:8]))


def _turn(word: int, by: int) -> int:
    return (word >> by | word << (64 - by)) & _MASK


def _compress(state: bytes, block: bytes) -> bytes:
    words = list(struct.unpack(">16Q", block))
    for t in range(16, 80):
        x, y = words[t - 15], words[t - 2]
        small0 = _turn(x, 1) ^ _turn(x, 8) ^ x >> 7
        small1 = _turn(y, 19) ^ _turn(y, 61) ^ y >> 6
        words.append((small1 + words[t - 7] + small0 + words[t - 16]) & _MASK)
    before = struct.unpack(">8Q", state)
    a, b, c, d, e, f, g, h = before
    for k, word in zip(_K, words, strict=True):
        big1 = _turn(e, 14) ^ _turn(e, 18) ^ _turn(e, 41)
        first = (h + big1 + (e & f ^ ~e & g) + k + word) & _MASK
        big0 = _turn(a, 28) ^ _turn(a, 34) ^ _turn(a, 39)
        second = (big0 + (a & b ^ a & c ^ b & c)) & _MASK
        a, b, c, d, e, f, g, h = (first + second) & _MASK, a, b, c, (d + first) & _MASK, e, f, g
    return struct.pack(
        ">8Q", *((x + y) & _MASK for x, y in zip(before, (a, b, c, d, e, f, g, h), strict=True))
    )


def end_state(data: bytes, offset: int, start: bytes, last: bool) -> bytes:
    """What ``Sha512.end_state`` must say."""
    if last:
        bits = (offset + len(data)) * 8
        data += b"\x80" + bytes((111 - len(data)) % 128) + bits.to_bytes(16, "big")
    assert len(data) % 128 == 0
    state = start
    for at in range(0, len(data), 128):
        state = _compress(state, data[at : at + 128])
    return state

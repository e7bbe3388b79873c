"""Receiving and decrypting in one call: ``records.c``, for TLS over a socket of this process.

Decides whether that can be done, not when: :class:`swarm.peering.lean.LeanTLS` does, and goes on by itself
where it cannot. It takes the compiled library (see ``swarm.compiled``), a pyOpenSSL that has its functions,
its connection and what that reads from where it has them today, and a transport that is Twisted's own TCP. An
error in it could not pass for right bytes: TLS would not open them, and no grain would be believed.
"""

from __future__ import annotations

import ctypes
import enum
from contextlib import suppress
from typing import Any, ClassVar, Final

from OpenSSL import _util
from OpenSSL.SSL import Connection
from twisted.internet.interfaces import ISSLTransport
from twisted.internet.tcp import Connection as TCPConnection

from swarm import compiled

PIECE: Final = 1 << 16
"""Bytes received at a time: they, OpenSSL's copy and their plain text stay in a core's own cache."""

SLACK: Final = PIECE + (1 << 16)
"""Room beyond what is to be received: it ends when less is left than a piece can become."""


class Ending(enum.IntEnum):
    """Why nothing more came, by the numbers of ``records.c``."""

    LATER = 0
    """The socket is empty, or there is no more room: when it is readable there is more."""
    DONE = 1
    """The other end closed."""
    LOST = 2
    """The socket failed."""
    TOLD = 3
    """OpenSSL has something to say that is no record: ask it."""


class _Functions(ctypes.Structure):
    """``struct openssl``."""

    _fields_: ClassVar = [(name, ctypes.c_void_p) for name in ("SSL_read", "SSL_get_error", "BIO_write")]


def _functions() -> _Functions | None:
    """pyOpenSSL's, which are nobody else's; None if they are not to be had in the way they are today."""
    try:
        from cryptography.hazmat.bindings._rust import _openssl  # not public: it may go

        return _Functions(
            *(_address(_util.ffi.addressof(_openssl.lib, each[0])) for each in _Functions._fields_)
        )
    except (ImportError, AttributeError, TypeError):
        return None


def _address(pointer: Any) -> int:
    return int(_util.ffi.cast("uintptr_t", pointer))


def load(path: str) -> Any:
    """
    ``swarm_records_receive`` of the library at a path.

    :raises OSError: it cannot be loaded.
    :raises AttributeError: it is another library.
    """
    receive = ctypes.CDLL(path).swarm_records_receive
    receive.argtypes = [
        *(ctypes.c_void_p,) * 3,
        ctypes.c_int,
        *(ctypes.c_void_p, ctypes.c_size_t) * 2,
        ctypes.POINTER(ctypes.c_int),
    ]
    receive.restype = ctypes.c_size_t
    return receive


def _installed() -> Any:
    """The one that was built, or None."""
    for place in compiled.places(__file__, "_records"):
        with suppress(OSError, AttributeError):
            return load(place)
    return None


FUNCTIONS = _functions()
RECEIVE = _installed()
_ENDING = ctypes.c_int()
_STAGING = ctypes.create_string_buffer(PIECE)  # for one call: there is one reactor, and it waits for it


class Records:
    """One connection's. Its handshake must be over, and nothing may be left of what TCP received before."""

    def __init__(self, connection: Connection, tcp: TCPConnection) -> None:
        """Only where :func:`records_of` finds that it can be."""
        assert FUNCTIONS is not None
        self._where = (
            ctypes.byref(FUNCTIONS),
            _address(connection._ssl),
            _address(connection._into_ssl),
            tcp.fileno(),
            ctypes.addressof(_STAGING),
            PIECE,
        )

    def receive(self, most: int) -> tuple[memoryview, Ending]:
        """
        Decrypt what the socket has, about ``most`` bytes if it has more; they are yours.

        The interpreter's lock is free meanwhile.
        """
        memory = _util.no_zero_allocator("char[]", most + SLACK)
        got = RECEIVE(*self._where, _address(memory), most + SLACK, ctypes.byref(_ENDING))
        return memoryview(_util.ffi.buffer(memory, got)), Ending(_ENDING.value)


def records_of(connection: Connection, transport: object) -> Records | None:
    """What receives for a connection over a transport; None if that is not possible."""
    if (
        RECEIVE is None
        or FUNCTIONS is None
        or not isinstance(transport, TCPConnection)
        or ISSLTransport.providedBy(transport)  # TLS in TLS
        or not (hasattr(connection, "_ssl") and hasattr(connection, "_into_ssl"))
    ):
        return None
    return Records(connection, transport)


__all__ = ["PIECE", "Ending", "Records", "records_of"]

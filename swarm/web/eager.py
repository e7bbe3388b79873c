"""Writing to a TCP connection now instead of in the reactor's next turn.

A Twisted transport buffers what it is given, asks the reactor to be told when the socket takes it, and
sends it in the next turn: for a small response that costs more than making the response (measured:
``docs/performance.md``). When nothing is buffered, the bytes can go to the socket at once and in order;
what the socket does not take goes the usual way, and so does whatever goes wrong.

Whether anything is buffered Twisted does not tell in public: the two names read here belong to its
``FileDescriptor``, and are read of :class:`~twisted.internet.tcp.Server` itself and of nothing else. TLS,
UNIX sockets and transports in memory are written to as ever.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from twisted.internet.tcp import Server


def eager_send(transport: Any) -> Callable[[memoryview], object]:
    """
    The quickest way to write to ``transport``.

    :return: takes bytes in memory that may be used again at once. The transport's producer hears when it
        is full, as with ``write``.
    """
    if type(transport) is not Server:
        return lambda data: transport.write(bytes(data))
    send = transport.getHandle().send

    def write(data: memoryview) -> None:
        sent = 0
        if not transport.dataBuffer and not transport._tempDataLen and transport.connected:
            with suppress(OSError):  # full, or broken: the transport finds out and says so
                sent = send(data)
        if sent < len(data):
            transport.write(bytes(data[sent:]))

    return write

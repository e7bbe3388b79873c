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

import os
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from twisted.internet.tcp import Connection, Server
from zope.interface import Interface


class IGathers(Interface):
    """A transport that gathers small writes for a moment."""

    def gatheredOut() -> None:
        """Pass on what was gathered."""


def urge(transport: Any) -> None:
    """
    Send what was written to a connection now, not in the reactor's next turns but one.

    For what somebody waits for while this node goes on with something else: a peer that is asked
    begins meanwhile.
    """
    while (below := getattr(transport, "transport", None)) is not None:
        if IGathers.providedBy(transport):
            transport.gatheredOut()
        transport = below
    if isinstance(transport, Connection) and transport.connected and not transport.disconnecting:
        transport.doWrite()  # what goes wrong the reactor finds out by itself, and says so


def eager_send(transport: Any) -> Callable[[bytes | memoryview], object]:
    """
    The quickest way to write to ``transport``.

    :return: takes bytes in memory that may be used again at once. The transport's producer hears when it
        is full, as with ``write``.
    """
    if type(transport) is not Server:
        return lambda data: transport.write(bytes(data))
    send = transport.getHandle().send

    def write(data: bytes | memoryview) -> None:
        sent = 0
        if _idle(transport):
            with suppress(OSError):  # full, or broken: the transport finds out and says so
                sent = send(data)
        if sent < len(data):
            transport.write(bytes(data[sent:]))

    return write


def eager_file(transport: Any) -> Callable[[bytes, int, int], bool]:
    """
    The quickest way to write a head and a file behind it: the kernel copies the file, and nobody else.

    :return: takes the head, the file's descriptor and its size. False, and nothing is written: there is no
        such way, or not now. The file is read here where the socket does not take all of it; if it
        cannot be, the connection is aborted.
    """
    if type(transport) is not Server:
        return lambda head, file, size: False
    connection = transport.getHandle()

    def write(head: bytes, file: int, size: int) -> bool:
        if not _idle(transport):
            return False
        try:
            begun = connection.send(head, socket.MSG_MORE)
        except OSError:
            return False
        sent = 0
        if begun == len(head):
            with suppress(OSError):  # full, broken, or the file's fault: reading on will tell
                sent = os.sendfile(connection.fileno(), file, 0, size)
        if sent < size:
            _write_rest(transport, head[begun:], file, sent, size)
        return True

    return write


def _idle(transport: Any) -> bool:
    return not transport.dataBuffer and not transport._tempDataLen and bool(transport.connected)


def _write_rest(transport: Any, head: bytes, file: int, sent: int, size: int) -> None:
    try:
        rest = os.pread(file, size - sent, sent)
    except OSError:
        rest = b""
    if len(rest) < size - sent:
        transport.abortConnection()  # a response that ends is correct
    else:
        transport.write(head + rest)

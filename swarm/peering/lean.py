"""TLS for bulk: Twisted's own TLS transport, with a chunk instead of a record as the unit of work.

Decides how bytes move between TCP, OpenSSL and a protocol, and nothing about who may connect: handshake,
alerts, the end of a connection and back-pressure are :class:`~twisted.protocols.tls.TLSMemoryBIOProtocol`'s,
the certificates ``swarm.peering.connection``'s. ``TLSSettings.lean`` chooses; the same tests run over both.

What it saves. Stock Twisted slices, encrypts and passes on each record of 16 KiB by itself. Contexts
of ours let OpenSSL take all of a write (no ``SSL_MODE_ENABLE_PARTIAL_WRITE``), so a chunk of 256 KiB
costs one call and one write to TCP: 0.25 s of CPU a GiB instead of 0.44 (encryption alone: 0.2).
Received records are decrypted one behind the other into one piece of memory, so that what is above them runs
once for sixteen of them, and pyOpenSSL's ``recv`` (a buffer, a copy and six lines of Python for each) not at
all; from a socket of ours they are even received in the same call, where :mod:`swarm.peering.records` can.
What is sent goes back likewise, through one piece of memory and right to the socket. What is called for that
is not public; where a later pyOpenSSL calls it otherwise, it is ``recv``, ``send`` and ``bio_read``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from OpenSSL import _util
from OpenSSL.SSL import Connection, Error, WantReadError, ZeroReturnError
from twisted.internet.interfaces import ITCPTransport, ITransport
from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST
from twisted.internet.tcp import Connection as TCPConnection
from twisted.protocols.tls import BufferingTLSTransport, TLSMemoryBIOFactory
from twisted.python.failure import Failure
from zope.interface import Interface, implementer

from swarm.peering.records import Ending, Records, records_of
from swarm.web.eager import IGathers, eager_send
from swarm.web.straight import ITakesViews

RECORD: Final = 1 << 14
"""Most bytes of plain text in a TLS record (RFC 8446, 5.1)."""

CHUNK: Final = 1 << 18
"""Bytes that pass through OpenSSL at a time, either way. Its buffers grow to this and stay so."""

_OVERHEAD: Final = 4096
"""More than the records of a chunk add to it (22 bytes each), with an alert or a key update."""


class IRecordsReceiver(Interface):
    """A protocol that would rather have records than have them joined for it."""

    def recordsReceived(records: Sequence[bytes | memoryview]) -> None:
        """
        Bytes came: what ``dataReceived(b"".join(records))`` would be told, without the copy.

        At least one piece, none of them empty, in all no more than the transport's ``bufferSize`` and 128
        KiB; they are the receiver's to keep. Only where TLS is lean: the protocol needs its
        ``dataReceived`` too.
        """


def _openssl() -> tuple[Any, Any, Any] | None:
    """``SSL_read``, memory for it, and how to look into that; None if pyOpenSSL has them elsewhere."""
    try:
        Connection._raise_ssl_error  # noqa: B018  # is it there?
        return _util.lib.SSL_read, _util.no_zero_allocator, _util.ffi.buffer
    except AttributeError:
        return None


OPENSSL = _openssl()


def _sending() -> tuple[Any, Any, Any, Any] | None:
    """``SSL_write``, how to point at bytes, ``BIO_read``, and memory for that; None if they are elsewhere."""
    try:
        Connection._raise_ssl_error  # noqa: B018  # is it there?
        memory = _util.ffi.new("char[]", CHUNK + _OVERHEAD)
        return _util.lib.SSL_write, _util.ffi.from_buffer, _util.lib.BIO_read, memory
    except AttributeError:
        return None


SENDING = _sending()


@implementer(ITakesViews, IGathers)
class LeanTLS(BufferingTLSTransport):
    """
    One TLS connection.

    Overridden are the three inner loops of :class:`~twisted.protocols.tls.TLSMemoryBIOProtocol`, and what
    the reactor calls when TCP has something; small writes are still gathered into one record a turn by its
    subclass.
    """

    _tlsConnection: Connection | None  # type: ignore[assignment]  # connectionLost makes it None
    transport: Any  # whatever it is, it is a consumer and a transport
    _producer: Any
    _fed = CHUNK  # bytes TCP received last: these, with what was there of a record, are all that can come out
    _records: Records | None = None  # once the handshake is over, where that is possible

    def makeConnection(self, transport: ITransport) -> None:
        """TCP is up."""
        if ITCPTransport.providedBy(transport):
            # Twisted hands the kernel 128 KiB a turn of the loop: three turns for each chunk of ours.
            transport.SEND_LIMIT = 2 * CHUNK  # type: ignore[attr-defined]  # FileDescriptor has it, no interface
        self._send = eager_send(transport)
        super().makeConnection(transport)

    def gatheredOut(self) -> None:
        """See :class:`~swarm.web.eager.IGathers`."""
        self._aggregator.flush()

    def writeView(self, view: memoryview) -> None:
        """See :class:`~swarm.web.straight.ITakesViews`."""
        self._aggregator.flush()
        if self._producer is not None or not self.disconnecting:
            self._write(view)

    def _checkHandshakeStatus(self) -> None:
        """The handshake may be over; from then on what the reactor calls for more bytes is ours."""
        super()._checkHandshakeStatus()
        if self._handshakeDone and self._records is None and not self._aborted:
            assert self._tlsConnection is not None, "there is one until TLS is lost"
            self._records = records_of(self._tlsConnection, self.transport)
            if self._records is not None:
                self.transport.doRead = self._receive

    def _receive(self) -> Exception | None:
        """Receive and decrypt in one call; in place of the transport's ``doRead``."""
        if self._lostTLSConnection or self._aborted or self._appSendBuffer:
            return TCPConnection.doRead(self.transport)  # what comes may be for what waits to be sent
        assert self._records is not None
        received, ending = self._records.receive(self.transport.bufferSize)
        if received:
            self._deliver([received if len(received) >= CHUNK else bytes(received)])
        if ending is Ending.DONE:
            return CONNECTION_DONE
        if ending is Ending.LOST:
            return CONNECTION_LOST
        if ending is Ending.TOLD:
            self._flushReceiveBIO()
        elif self._tlsConnection is not None:
            self._flushSendBIO()
        return None

    def dataReceived(self, data: bytes) -> None:
        """TCP received; in pieces that stay in the cache, and do not make OpenSSL's buffer grow."""
        self._fed = min(CHUNK, len(data))
        if len(data) <= CHUNK:
            super().dataReceived(data)
            return
        view = memoryview(data)
        for at in range(0, len(data), CHUNK):
            if self._lostTLSConnection or self._aborted:
                return
            super().dataReceived(view[at : at + CHUNK])

    def _write(self, data: bytes | memoryview) -> None:
        """Encrypt and pass on; keep what OpenSSL does not take before the handshake is done."""
        at = 0
        while at < len(data) and not self._lostTLSConnection:
            assert self._tlsConnection is not None, "there is one until TLS is lost"
            piece = data if len(data) <= CHUNK else memoryview(data)[at : at + CHUNK]
            try:
                at += self._encrypt(self._tlsConnection, piece)
            except WantReadError:
                self._bufferedWrite(bytes(data[at:]))
                return
            except Error:
                self._tlsShutdownFinished(Failure())
                return
            self._flushSendBIO()

    def _flushSendBIO(self) -> None:
        """Pass on everything OpenSSL has to say."""
        out = getattr(self._tlsConnection, "_from_ssl", None)
        if SENDING is not None and out is not None:
            self._pass_on(out)
            return
        while self._tlsConnection is not None:
            try:
                data = self._tlsConnection.bio_read(CHUNK + _OVERHEAD)
            except WantReadError:
                return
            self.transport.write(data)
            if len(data) < CHUNK + _OVERHEAD:
                return

    def _encrypt(self, connection: Connection, piece: bytes | memoryview) -> int:
        """What ``connection.send`` does; why it failed is asked only where it did."""
        if SENDING is None or not hasattr(connection, "_ssl"):
            return connection.send(piece)
        write, at, _, _ = SENDING
        taken: int = write(connection._ssl, at(piece), len(piece))
        if taken <= 0:
            connection._raise_ssl_error(connection._ssl, taken)
        return taken

    def _pass_on(self, out: Any) -> None:
        """What ``bio_read`` and ``write`` do, through memory that is kept, right to the socket."""
        assert SENDING is not None
        _, _, read, memory = SENDING
        view = memoryview(_util.ffi.buffer(memory))
        while (count := read(out, memory, len(view))) > 0:
            if self._aborted:  # nobody shall take it for a good end: lost with the connection, as ever
                self.transport.write(bytes(view[:count]))
            else:
                self._send(view[:count])
            if count < len(view):
                return

    def _flushReceiveBIO(self) -> None:
        """Decrypt what came, hand it over, and see to what OpenSSL made of the end of it."""
        while not self._lostTLSConnection:
            records, ending = self._decrypt()
            if records and not self._aborted:
                self._deliver(records)
            if self._lostTLSConnection or ending is WantReadError:
                break
            if ending is ZeroReturnError:
                self._shutdownTLS()
                self._tlsShutdownFinished(None)
            elif isinstance(ending, Failure):
                self._tlsShutdownFinished(ending)
        self._flushSendBIO()

    def _tlsShutdownFinished(self, reason: Failure | None) -> None:
        """TLS is over. Nothing would ever pause a producer again, and TCP would wait for it to be done."""
        super()._tlsShutdownFinished(reason)
        producer, self._producer = self._producer, None
        if producer is not None:
            self.transport.unregisterProducer()
            producer.stopProducing()

    def _decrypt(self) -> tuple[list[bytes | memoryview], type[Error] | Failure | None]:
        """
        Up to a chunk of records, and why there are no more; None: there may be.

        Told without the exception itself: it holds this frame, hence the records, and the frame that
        would hold it, so that only the garbage collector could free them (70 MB in a pull).
        """
        assert self._tlsConnection is not None, "there is one until TLS is lost"
        records: list[bytes | memoryview] = []
        try:
            if OPENSSL is not None and hasattr(self._tlsConnection, "_ssl"):
                self._decrypt_straight(self._tlsConnection, records)
            else:
                for _ in range(CHUNK // RECORD):
                    records.append(self._tlsConnection.recv(RECORD))
        except WantReadError:
            return records, WantReadError
        except ZeroReturnError:
            return records, ZeroReturnError
        except Error:
            return records, Failure()
        return records, None

    def _decrypt_straight(self, connection: Connection, into: list[bytes | memoryview]) -> None:
        """What ``connection.recv`` does, for all records at once. Raises as it does, at the end of them."""
        assert OPENSSL is not None
        read, allocate, look = OPENSSL
        ssl, size, got = connection._ssl, self._fed + RECORD, 0
        memory = allocate("char[]", size)
        while got < size and (more := read(ssl, memory + got, size - got)) > 0:
            got += more
        if got:
            view = memoryview(look(memory, got))
            into.append(view if got > size // 2 else bytes(view))  # who keeps little shall not keep much
        connection._raise_ssl_error(ssl, more)

    def _deliver(self, records: list[bytes | memoryview]) -> None:
        protocol: Any = self.wrappedProtocol
        if IRecordsReceiver.providedBy(protocol):
            protocol.recordsReceived(records)
        else:
            protocol.dataReceived(b"".join(records))


class LeanTLSFactory(TLSMemoryBIOFactory):
    """Adds lean TLS to the connections of a factory."""

    protocol = LeanTLS


__all__ = ["CHUNK", "RECORD", "IRecordsReceiver", "LeanTLS", "LeanTLSFactory"]

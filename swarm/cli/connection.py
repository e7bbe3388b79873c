"""HTTP to one node, over the standard library: starts fast and needs no reactor.

Decides how a request is framed, how an early refusal is heard (``Expect: 100-continue``), and what
an error answer says in one line. It follows no redirect, so a token goes to no other host.
"""

from __future__ import annotations

import http.client
import io
import json
import socket
import ssl
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any, Protocol, Self
from urllib.parse import urlsplit

from swarm.cli.session import Failure

#: Seconds: to connect; of silence while an answer is read (a node may pull before it can answer);
#: and for the answer to a PUT, which comes after the bytes are durable here and at its peers.
CONNECT_TIMEOUT = 10.0
SILENCE_TIMEOUT = 120.0
DURABLE_TIMEOUT = 3600.0
#: Seconds to wait for ``100 Continue``: a proxy may swallow it (RFC 9110, 10.1.1).
CONTINUE_TIMEOUT = 2.0
DOCUMENT_LIMIT = 16 << 20
_REASON_LIMIT = 64 << 10
_INTERIM_LIMIT = 16 << 10
PIECE = 1 << 20


class Refused(Failure):
    """The node answered with an error status."""

    def __init__(self, status: int, reason: str, retry_after: float | None = None) -> None:
        super().__init__(reason)
        self.status = status
        self.retry_after = retry_after


class Unreachable(Failure):
    """No node there, or the connection broke."""


class Answer(Protocol):
    """The part of ``http.client.HTTPResponse`` that is used here."""

    status: int

    def read(self, amt: int | None = None, /) -> bytes: ...

    def getheader(self, name: str, /) -> str | None: ...


class Connection:
    """One keep-alive connection to a node's public API."""

    def __init__(self, url: str, token: str = "", *, context: ssl.SSLContext | None = None) -> None:
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError as e:
            raise Failure(f"not a URL of a node: {url}") from e
        if parts.scheme not in ("http", "https") or not host or parts.query or parts.fragment:
            raise Failure(f"not a URL of a node: {url}")
        self.url = url.rstrip("/")
        self._prefix = parts.path.rstrip("/")
        self._token = token
        if parts.scheme == "https":
            context = context or ssl.create_default_context()
            self._http: http.client.HTTPConnection = http.client.HTTPSConnection(
                host, port, timeout=CONNECT_TIMEOUT, context=context
            )
        else:
            self._http = http.client.HTTPConnection(host, port, timeout=CONNECT_TIMEOUT)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; the next request opens another."""
        self._http.close()

    def request(
        self, method: str, path: str, headers: Mapping[str, str] | None = None, body: bytes | None = None
    ) -> Answer:
        """
        Send a request and read the head of its answer, whatever its status.

        The body must be read, or the connection closed, before the next request.

        :raises Unreachable: no connection, or no answer.
        """
        try:
            self._send_head(method, path, {**(headers or {}), **_length(body)})
            if body:
                self._http.send(body)
            return self._http.getresponse()
        except (OSError, http.client.HTTPException) as e:
            self.close()
            raise Unreachable(f"{self.url}: {_why(e)}") from e

    def upload(
        self, path: str, pieces: Iterator[bytes], length: int | None, headers: Mapping[str, str]
    ) -> Answer:
        """
        PUT a body that is produced piece by piece; a refusal is heard before the first piece is asked for.

        :param length: bytes in all, or None to send chunks until ``pieces`` ends.
        :raises Unreachable: no connection, or it broke and the node did not say why.
        """
        framing = {"Transfer-Encoding": "chunked"} if length is None else {"Content-Length": str(length)}
        try:
            self._send_head("PUT", path, {**headers, **framing, "Expect": "100-continue"})
            early = self._await_continue()
        except (OSError, http.client.HTTPException) as e:
            self.close()
            raise Unreachable(f"{self.url}: {_why(e)}") from e
        if early is not None:
            self.close()
            return early
        try:
            self._send_pieces(pieces, chunked=length is None)
        except OSError as e:
            # Refused in mid-body: the answer may have arrived before the connection was cut.
            return self._last_words(e)
        assert self._http.sock is not None
        self._http.sock.settimeout(DURABLE_TIMEOUT)
        try:
            return self._http.getresponse()
        except (OSError, http.client.HTTPException) as e:
            self.close()
            raise Unreachable(f"{self.url}: {_why(e)}") from e

    def document(self, method: str, path: str, headers: Mapping[str, str] | None = None) -> dict[str, Any]:
        """
        Send a request whose answer is a JSON object.

        :raises Refused: the status is not a success.
        :raises Unreachable: no connection, or no answer.
        """
        answer = self.request(method, path, {"Accept": "application/json", **(headers or {})})
        return read_document(answer)

    def _send_head(self, method: str, path: str, headers: Mapping[str, str]) -> None:
        if self._http.sock is None:
            self._http.connect()
            assert self._http.sock is not None
            self._http.sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self._http.sock.settimeout(SILENCE_TIMEOUT)
        self._http.putrequest(method, self._prefix + path, skip_accept_encoding=True)
        if self._token:
            self._http.putheader("Authorization", f"Bearer {self._token}")
        for name, value in headers.items():
            self._http.putheader(name, value)
        self._http.endheaders()

    def _await_continue(self) -> Answer | None:
        """Read one interim answer. None: send the body. Otherwise the node's final answer."""
        sock = self._http.sock
        sock.settimeout(CONTINUE_TIMEOUT)
        head = b""
        try:
            # Byte by byte, so that nothing of a later answer is swallowed.
            while not head.endswith(b"\r\n\r\n"):
                byte = sock.recv(1)
                if not byte or len(head) > _INTERIM_LIMIT:
                    raise http.client.RemoteDisconnected("the node closed the connection")
                head += byte
        except TimeoutError:
            if head:
                raise
            return None
        finally:
            sock.settimeout(SILENCE_TIMEOUT)
        status, _, rest = head.partition(b"\r\n")
        try:
            code = int(status.split(b" ")[1])
        except (IndexError, ValueError) as e:
            raise http.client.BadStatusLine(status.decode("latin-1")) from e
        if code == 100:
            return None
        return _Early(code, http.client.parse_headers(io.BytesIO(rest)), sock)

    def _send_pieces(self, pieces: Iterator[bytes], *, chunked: bool) -> None:
        sock = self._http.sock
        for piece in pieces:
            if chunked and piece:
                sock.sendall(b"%x\r\n" % len(piece))
                sock.sendall(piece)
                sock.sendall(b"\r\n")
            elif piece:
                sock.sendall(piece)
        if chunked:
            sock.sendall(b"0\r\n\r\n")

    def _last_words(self, broken: OSError) -> Answer:
        try:
            return self._http.getresponse()
        except (OSError, http.client.HTTPException):
            self.close()
            raise Unreachable(f"{self.url}: {_why(broken)}") from broken


class _Early:
    """A final answer in place of ``100 Continue``."""

    def __init__(self, status: int, headers: http.client.HTTPMessage, sock: socket.socket) -> None:
        self.status = status
        self._headers = headers
        declared = headers.get("Content-Length", "")
        length = int(declared[:9]) if declared.isascii() and declared.isdigit() else 0
        self._body = io.BytesIO(_read_exactly(sock, min(length, _REASON_LIMIT)))

    def read(self, amt: int | None = None, /) -> bytes:
        return self._body.read(amt)

    def getheader(self, name: str, /) -> str | None:
        return self._headers.get(name)


def _read_exactly(sock: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count and (more := sock.recv(count - len(data))):
        data += more
    return data


def read_document(answer: Answer) -> dict[str, Any]:
    """
    Read a whole answer that should be a JSON object.

    :raises Refused: the status is not a success.
    """
    if not 200 <= answer.status < 300:
        raise refusal(answer)
    return read_json(answer)


def read_json(answer: Answer) -> dict[str, Any]:
    """
    Read a whole answer that should be a JSON object, whatever its status.

    :raises Failure: it is something else, or breaks off.
    """
    try:
        document = json.loads(_read_whole(answer) or b"{}")
    except (OSError, http.client.HTTPException) as e:
        raise Unreachable(f"the answer broke off: {_why(e)}") from e
    except (ValueError, RecursionError) as e:
        raise Failure("the node's answer is not JSON") from e
    if not isinstance(document, dict):
        raise Failure("the node's answer is not a JSON object")
    return document


def _read_whole(answer: Answer) -> bytes:
    body = answer.read(DOCUMENT_LIMIT)
    declared = answer.getheader("Content-Length")
    if declared is not None and declared != str(len(body)):
        raise http.client.IncompleteRead(body)
    return body


def refusal(answer: Answer) -> Refused:
    """What an error answer says, as one line."""
    try:
        body = answer.read(_REASON_LIMIT)
    except (OSError, http.client.HTTPException):
        body = b""
    try:
        document = json.loads(body)
        detail = str(document.get("detail") or document.get("error") or "")
    except (ValueError, AttributeError, RecursionError):
        detail = ""
    title = http.client.responses.get(answer.status, "")
    wait = answer.getheader("Retry-After") or ""
    retry_after = float(wait[:6]) if wait.isascii() and wait.isdigit() else None
    said = f"{detail} ({answer.status})" if detail else f"the node answered {answer.status} {title}".rstrip()
    return Refused(answer.status, said, retry_after)


def _length(body: bytes | None) -> dict[str, str]:
    return {} if body is None else {"Content-Length": str(len(body))}


def _why(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not accepted: {error.verify_message}"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__

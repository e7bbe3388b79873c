"""Who may do what on the public API.

Without a tokens file anybody may read and only clients on this machine may write, but no web page
from elsewhere that a browser on this machine shows: DNS rebinding makes such a page local. With a
file, the file alone decides, for local clients too: a reverse proxy makes every client local. A line is::

    SHA256-HEX get,put,delete,admin [until=2027-01-31T00:00:00Z]   # comment
    anonymous  get                                                 # without any token

The hash is of the token's bytes (``printf %s "$TOKEN" | sha256sum``), so the file holds no secrets.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from datetime import UTC, datetime
from pathlib import Path

from attrs import frozen
from twisted.internet.interfaces import IAddress, IReactorTime
from twisted.logger import Logger

from swarm.errors import Malformed
from swarm.web.clients import is_local
from swarm.web.errors import Refusal

SCOPES = frozenset(["get", "put", "delete", "admin"])
_LINE = re.compile(r"([0-9a-fA-F]{64}|anonymous)\s+([a-z,]+)(?:\s+until=(\S+))?")
_BEARER = re.compile(r"bearer +(\S{1,1024})", re.IGNORECASE)
_LOCAL_ORIGIN = re.compile(r"https?://(localhost|127(\.\d{1,3}){3}|\[::1\])(:\d{1,5})?", re.ASCII)
_CHALLENGE = 'Bearer realm="swarm"'


@frozen
class Grant:
    """What one token may do; ``until`` in seconds since the epoch, None for ever."""

    digest: bytes | None  # None: what needs no token
    scopes: frozenset[str]
    until: float | None = None


def parse_tokens(text: str) -> tuple[Grant, ...]:
    """
    Read a tokens file.

    :raises Malformed: a line that is not one; names the line's number, never its content.
    """
    grants = []
    for number, line in enumerate(text.splitlines(), 1):
        line = line.partition("#")[0].strip()
        if not line:
            continue
        match = _LINE.fullmatch(line)
        scopes = frozenset(match[2].split(",")) if match else frozenset()
        if match is None or not scopes <= SCOPES:
            raise Malformed(f"tokens file, line {number}: SHA256-HEX get,put,delete,admin [until=TIME]")
        digest = None if match[1] == "anonymous" else bytes.fromhex(match[1])
        grants.append(Grant(digest, scopes, _time(match[3], number) if match[3] else None))
    return tuple(grants)


def _time(text: str, number: int) -> float:
    try:
        time = datetime.fromisoformat(text)
    except ValueError as e:
        raise Malformed(f"tokens file, line {number}: until=2027-01-31T00:00:00Z") from e
    return (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()


class Tokens:
    """
    The grants of a file, read again whenever it changes.

    A file that became unreadable or wrong keeps the grants it had, and the log says so.

    :raises Malformed, OSError: at construction.
    """

    log = Logger()

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp = self._look()
        self._grants = parse_tokens(path.read_text("utf-8"))

    def grants(self) -> tuple[Grant, ...]:
        """What is granted now."""
        try:
            stamp = self._look()
            if stamp != self._stamp:
                self._stamp = stamp
                self._grants = parse_tokens(self._path.read_text("utf-8"))
                self.log.info("{count} tokens in force", count=len(self._grants))
        except (OSError, Malformed, UnicodeDecodeError):
            self.log.failure("tokens stay as they were")
        return self._grants

    def _look(self) -> tuple[int, int, int]:
        stat = self._path.stat()
        return stat.st_mtime_ns, stat.st_size, stat.st_ino


class Guard:
    """Decides whether a request may use a scope. Authority comes before existence, length and all else."""

    def __init__(self, tokens: Tokens | None, *, clock: IReactorTime) -> None:
        self._tokens = tokens
        self._clock = clock

    def open_to_all(self, scope: str) -> bool:
        """Would :meth:`check` let anybody have this scope now, with no token and from anywhere?"""
        if self._tokens is None:
            return scope == "get"
        now = self._clock.seconds()
        return any(
            grant.digest is None and scope in grant.scopes and (grant.until is None or now < grant.until)
            for grant in self._tokens.grants()
        )

    def check(
        self, scope: str, client: IAddress | None, authorization: str | None, origin: str | None = None
    ) -> None:
        """
        Judge a request.

        :param origin: the ``Origin`` field; browsers send it with every write, others don't.
        :raises Refusal: 401 without a valid token, 403 with one that lacks the scope.
        """
        if self._tokens is None:
            if scope == "get":
                return
            if not is_local(client):
                raise Refusal(403, "only clients on this machine may write: this node has no tokens")
            if origin is not None and not _LOCAL_ORIGIN.fullmatch(origin):
                raise Refusal(403, "a page from elsewhere may not write: this node has no tokens")
            return
        now = self._clock.seconds()
        grants = [g for g in self._tokens.grants() if g.until is None or now < g.until]
        if any(g.digest is None and scope in g.scopes for g in grants):
            return
        if authorization is None:
            raise Refusal(401, "a bearer token is needed", ("WWW-Authenticate", _CHALLENGE))
        held = [g for g in grants if g.digest is not None and _matches(g.digest, authorization)]
        if not held:
            challenge = f'{_CHALLENGE}, error="invalid_token"'
            raise Refusal(401, "not a valid token", ("WWW-Authenticate", challenge))
        if not any(scope in g.scopes for g in held):
            challenge = f'{_CHALLENGE}, error="insufficient_scope", scope="{scope}"'
            raise Refusal(403, f"the token has no scope {scope}", ("WWW-Authenticate", challenge))


def _matches(digest: bytes, authorization: str) -> bool:
    match = _BEARER.fullmatch(authorization.strip())
    if match is None:
        return False
    return hmac.compare_digest(hashlib.sha256(match[1].encode()).digest(), digest)

"""Fetch one blob so that a wrong file can never be taken for it.

Decides how a download begins, resumes, is proven and published. The bytes go to ``NAME.part``; what
a broken download left there is hashed first and the rest asked for with ``Range`` and ``If-Range``.
Only when the SHA-512 of all of it is the id is the file synced and renamed. What the node is asked,
:mod:`swarm.cli.connection` decides.
"""

from __future__ import annotations

import fcntl
import hashlib
import http.client
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

from attrs import define, field

from swarm.cli.connection import PIECE, Answer, Connection, Refused, Unreachable, refusal
from swarm.cli.meter import Meter
from swarm.cli.session import Failure
from swarm.errors import Malformed
from swarm.model.digest import Digest
from swarm.model.ranges import parse_content_range

#: Attempts in a row that bring not one byte before giving up, and the longest pause between two, in seconds.
ATTEMPTS = 5
LONGEST_PAUSE = 30.0


class WrongBytes(Failure):
    """The node sent other bytes than the id names; nothing was kept."""


@define
class Download:
    """A blob on its way from a node into a file, or to a pipe.

    ``sleep`` is how it waits between attempts, in seconds.
    """

    connection: Connection
    digest: Digest
    meter: Meter
    sleep: Callable[[float], None] = time.sleep
    _hash: hashlib._Hash = field(factory=hashlib.sha512, init=False)
    _at: int = field(default=0, init=False)

    def to_file(self, target: Path) -> int:
        """
        Fetch into ``target``, which appears whole and proven or not at all.

        :return: its size in bytes.
        :raises Failure: refused, unreachable for too long, wrong bytes, or another download of it runs.
        """
        part = target.with_name(target.name + ".part")
        descriptor = os.open(part, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        with open(descriptor, "r+b", buffering=0) as file:
            _lock(file, part)
            try:
                self._into(file, part)
            except BaseException:
                if not os.fstat(file.fileno()).st_size:  # nothing to go on from
                    part.unlink(missing_ok=True)
                raise
            os.replace(part, target)
        _sync_directory(target.parent)
        return self._at

    def _into(self, file: IO[bytes], part: Path) -> None:
        resumed = self._rehash(file)
        self._fetch(file.write, lambda: _empty(file))
        if self._hash.digest() != self.digest.raw and resumed:
            # What lay here may have been the damaged half: once more, from nothing.
            self._begin_again(lambda: _empty(file))
            self._fetch(file.write, lambda: _empty(file))
        if self._hash.digest() != self.digest.raw:
            part.unlink()
            raise WrongBytes(
                f"{self.connection.url}: the bytes hash to {self._hash.hexdigest()[:12]}…, wrong"
            )
        os.fsync(file.fileno())

    def to_pipe(self, write: Callable[[bytes], object]) -> int:
        """
        Hand the bytes on as they come; the last piece only once all of them are proven.

        :return: how many there were.
        :raises Failure: as :meth:`to_file`; whoever reads the pipe then misses the end.
        """
        held = b""

        def pass_on(piece: bytes) -> int:
            nonlocal held
            if held:
                write(held)
            held = piece
            return len(piece)

        self._fetch(pass_on, None)
        if self._hash.digest() != self.digest.raw:
            raise WrongBytes(
                f"{self.connection.url}: the bytes hash to {self._hash.hexdigest()[:12]}…, wrong"
            )
        write(held)
        return self._at

    def _rehash(self, file: IO[bytes]) -> bool:
        """Hash what an earlier download left; is there any?"""
        with Meter("checking what is here", os.fstat(file.fileno()).st_size, shown=self.meter.shown) as meter:
            while piece := file.read(PIECE):
                self._hash.update(piece)
                self._at += len(piece)
                meter.advance(len(piece))
        return self._at > 0

    def _begin_again(self, empty: Callable[[], None] | None) -> None:
        if empty is None:
            raise Failure("the node does not continue where it stopped, and a pipe cannot be rewound")
        empty()
        self._hash = hashlib.sha512()
        self._at = 0

    def _fetch(self, write: Callable[[bytes], int | None], empty: Callable[[], None] | None) -> None:
        """Ask until the end is reached; patience ends after :data:`ATTEMPTS` without progress."""
        failures = 0
        while True:
            before = self._at
            try:
                if self._attempt(write, empty):
                    return
                problem: Failure = Unreachable(f"{self.connection.url}: the body ended early")
                pause = 1.0
            except (Refused, Unreachable) as e:
                if isinstance(e, Refused) and e.status != 503:
                    raise
                problem, pause = e, getattr(e, "retry_after", None) or 1.0
            self.connection.close()
            failures = 0 if self._at > before else failures + 1
            if failures >= ATTEMPTS:
                raise problem
            self.sleep(min(pause * 2 ** max(failures - 1, 0), LONGEST_PAUSE))

    def _attempt(self, write: Callable[[bytes], int | None], empty: Callable[[], None] | None) -> bool:
        """One request; True when the blob's end was reached."""
        headers = {"Accept-Encoding": "identity"}
        if self._at:
            headers |= {"Range": f"bytes={self._at}-", "If-Range": self.digest.etag}
        answer = self.connection.request("GET", f"/{self.digest.hex}", headers)
        if answer.status == 416 and self._at:
            # Either all of it is here already, or what is here is longer than the blob.
            if answer.getheader("Content-Range") == f"bytes */{self._at}":
                self.connection.close()
                return True
            self.connection.close()
            self._begin_again(empty)
            return False
        if answer.status == 200 and self._at:
            self._begin_again(empty)
        elif answer.status not in (200, 206):
            raise refusal(answer)
        total = self._total(answer)
        self.meter.reach(self._at, total)
        return self._body(answer, total, write)

    def _total(self, answer: Answer) -> int | None:
        if (tag := answer.getheader("ETag")) is not None and tag != self.digest.etag:
            raise WrongBytes(f"{self.connection.url}: the answer is another blob")
        if answer.getheader("Content-Encoding") not in (None, "identity"):
            raise WrongBytes(f"{self.connection.url}: the answer is encoded")
        if answer.status == 200:
            length = answer.getheader("Content-Length") or ""
            return int(length[:19]) if length.isascii() and length.isdigit() else None
        try:
            interval, total = parse_content_range(answer.getheader("Content-Range") or "")
        except Malformed as e:
            raise WrongBytes(f"{self.connection.url}: {e}") from e
        if interval.start != self._at or interval.stop != total:
            raise WrongBytes(f"{self.connection.url}: the answer is another range than the one asked for")
        return total

    def _body(self, answer: Answer, total: int | None, write: Callable[[bytes], int | None]) -> bool:
        while total is None or self._at < total:
            try:
                piece = answer.read(PIECE if total is None else min(PIECE, total - self._at))
            except http.client.IncompleteRead as e:
                piece = e.partial
            except (OSError, http.client.HTTPException):
                return False
            if not piece:
                return total is None
            self._hash.update(piece)
            view = memoryview(piece)
            while view:
                view = view[write(bytes(view)) or len(view) :]
            self._at += len(piece)
            self.meter.advance(len(piece))
        answer.read(0)
        return True


def _lock(file: IO[bytes], part: Path) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as e:
        raise Failure(f"{part}: another swarm get is writing it") from e
    # The other one may have finished, and renamed the file, between our open and our lock.
    try:
        same = os.path.samestat(os.fstat(file.fileno()), os.lstat(part))
    except FileNotFoundError:
        same = False
    if not same:
        raise Failure(f"{part}: another swarm get has just finished it")


def _empty(file: IO[bytes]) -> None:
    file.seek(0)
    file.truncate()


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

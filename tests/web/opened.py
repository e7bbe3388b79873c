"""A blob in a plain file, and a site that sends it: for what needs sockets and descriptors."""

from __future__ import annotations

import os
from pathlib import Path
from random import Random
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

from swarm.errors import StoreFailed
from swarm.interfaces import BlobInfo
from swarm.model.digest import Digest
from swarm.testing.memory import MemoryReader
from swarm.web.bodies import conditions_of, send
from swarm.web.errors import answer_error
from swarm.web.limits import WebLimits
from swarm.web.ranges import select
from swarm.web.request import StreamingRequest
from swarm.web.site import StreamingSite

BLOB = Random(1).randbytes(10 << 20)  # more than a socket takes
DIGEST = Digest.of(BLOB)


class FileReader(MemoryReader):
    """
    The bytes, by descriptor and by method.

    :ivar straight: may the descriptor be used?
    :ivar aside: bytes that were had by method. A few may be at any time: what the kernel happens not to
        have in memory does not go straight.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(BlobInfo(DIGEST, len(BLOB)), BLOB)
        self.file = os.open(path, os.O_RDWR)
        self.straight = True
        self.cut = False
        self.aside = 0

    def fileno(self) -> int:
        return self.file if self.straight and not self.closed else -1

    def read_now(self, offset: int, length: int) -> bytes | None:
        if self.cut:
            return None
        self.aside += length
        return super().read_now(offset, length)

    async def read(self, offset: int, length: int) -> bytes:
        if self.cut:
            raise StoreFailed("the file is shorter than its blob")
        return await super().read(offset, length)

    def truncate(self, size: int) -> None:
        os.ftruncate(self.file, size)
        self.cut = True

    def close(self) -> None:
        super().close()
        os.close(self.file)


class Hours(Clock):
    """Time is the test's; but the sockets are real, and so is the next turn of the reactor."""

    def callLater(self, when: float, what: Any, *a: Any, **kw: Any) -> Any:  # named as in Twisted
        return super().callLater(when, what, *a, **kw) if when else reactor.callLater(0, what, *a, **kw)


class Files(Resource):
    """Answers with one file; canceled with the connection, as Klein would."""

    isLeaf = True

    def __init__(self, path: Path, limits: WebLimits | None = None) -> None:
        super().__init__()
        path.write_bytes(BLOB)
        self.path = path
        self.clock = Hours()
        self.site = StreamingSite(
            self, admit=_admit, clock=self.clock, limits=limits or WebLimits(), observer=self
        )
        self.readers: list[FileReader] = []
        self.requests: list[StreamingRequest] = []
        self.sent: list[int] = []

    def answered(self, request: StreamingRequest) -> None:
        self.sent.append(request.sentLength)

    def rejected(self, status: int) -> None:
        raise AssertionError(status)

    def render(self, request: Any) -> Any:
        self.readers.append(FileReader(self.path))
        self.requests.append(request)
        sending = Deferred.fromCoroutine(self._send(request, self.readers[-1]))
        gone = request.notifyFinish()
        gone.addErrback(lambda _: sending.cancel())
        sending.addErrback(lambda failure: failure.check(CancelledError) or answer_error(request, failure))
        return NOT_DONE_YET

    async def _send(self, request: StreamingRequest, reader: FileReader) -> None:
        etag, size = reader.info.digest.etag, reader.info.size
        await send(request, reader, select(request.method.decode(), conditions_of(request), etag, size))


async def _admit(request: StreamingRequest) -> None:
    """Admits everything."""

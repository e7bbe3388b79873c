"""Readers of a blob that is still arriving.

Decides when a byte may leave the node (promise 3: a response that completes is correct): a grain once
it passed its check; the end of a response only once the bytes it ends on are beyond doubt
(``trust.trusted``), and at the end of the blob only once they are proven. If a grain that was handed
out is taken back, the reader fails, and with it the response.
"""

from __future__ import annotations

from typing import Protocol

from twisted.internet.defer import Deferred
from zope.interface import implementer

from swarm.errors import LocalError, PullFailed
from swarm.interfaces import BlobInfo, IBlobReader
from swarm.model.ranges import ByteRange, RangeSet

#: Bytes of a response that wait until its end is beyond doubt.
HELD_BACK = 64 << 10


class Arriving(Protocol):
    """What a reader needs of a pull."""

    error: LocalError | None

    @property
    def info(self) -> BlobInfo:
        """The blob; its size is a claim until the pull is proven."""

    def verified_to(self, offset: int) -> int:
        """Where the run of verified bytes from ``offset`` ends."""

    def released_to(self, offset: int) -> int:
        """The same, for bytes that may leave: two peers speak for them, while lists are to be compared."""

    def beyond_doubt(self, span: ByteRange) -> bool:
        """May a response end on these bytes?"""

    def want(self, reader: object, span: ByteRange) -> None:
        """Move these bytes to the front."""

    def changed(self) -> Deferred[None]:
        """Fires when more was verified, or the pull ended."""

    def read_now(self, offset: int, length: int) -> bytes | None:
        """See ``IPartial``."""

    async def read(self, offset: int, length: int) -> bytes:
        """See ``IPartial``."""

    def leave(self, reader: object) -> None:
        """The reader is done."""


@implementer(IBlobReader)
class PullReader:
    """I read one response's bytes from a running pull."""

    def __init__(self, pull: Arriving, window: int) -> None:
        self.info = pull.info
        self._pull = pull
        self._window = window
        self._given = RangeSet()
        self._error: LocalError | None = None
        self._closed = False

    async def available(self, offset: int, stop: int) -> int:
        """See :class:`IBlobReader`."""
        pull = self._pull
        wanted: ByteRange | None = None
        while True:
            if error := self._error or pull.error:
                raise error
            limit = min(stop, pull.released_to(offset))
            if limit == stop and not self._may_end(offset, stop):
                limit = max(offset, stop - HELD_BACK)
            if limit > offset or offset == stop:
                self._given.add(offset, limit)
                return limit
            here = pull.verified_to(offset) >= stop
            span = self._proof_of(stop) if here else ByteRange(offset, min(stop, offset + self._window))
            if span is not None and span != wanted:
                pull.want(self, span)
                wanted = span
            await pull.changed()

    def _proof_of(self, stop: int) -> ByteRange | None:
        """What proves bytes that only one peer vouches for: everything after them, from the end backwards."""
        return ByteRange(stop, self.info.size) if stop < self.info.size else None

    def _may_end(self, offset: int, stop: int) -> bool:
        first = offset
        for run in self._given:
            if run.start <= offset <= run.stop:
                first = run.start
        return first == stop or self._pull.beyond_doubt(ByteRange(first, stop))

    def read_now(self, offset: int, length: int) -> bytes | None:
        """See :class:`IBlobReader`."""
        return self._pull.read_now(offset, length)

    async def read(self, offset: int, length: int) -> bytes:
        """See :class:`IBlobReader`."""
        return await self._pull.read(offset, length)

    def fileno(self) -> int:
        """No sendfile from a file that is still being written."""
        return -1

    def taken_back(self, span: ByteRange) -> None:
        """A grain proved wrong after all: if I gave any of it away, I fail."""
        if any(run.start < span.stop and span.start < run.stop for run in self._given):
            self._error = PullFailed(self.info.digest, ("bytes already sent proved wrong",))

    def close(self) -> None:
        """See :class:`IBlobReader`."""
        if not self._closed:
            self._closed = True
            self._pull.leave(self)

"""Readers of a blob that is still arriving, for peers.

Peers judge for themselves, and nothing convicts who passed on what it was made to believe
(``swarm.core.parties``). So they get every grain once it is accepted, where readers of the public port wait
with the end of a response until it is beyond doubt (``reading``). If a grain is taken back after all,
the responses that touch it break off.
"""

from __future__ import annotations

from typing import Protocol

from zope.interface import implementer

from swarm.errors import LocalError, PullFailed
from swarm.interfaces import BlobInfo, IBlobReader
from swarm.model.ranges import ByteRange, RangeSet


class Source(Protocol):
    """What such a reader needs of a pull; see ``reading.Arriving``."""

    error: LocalError | None

    @property
    def info(self) -> BlobInfo:
        """The blob; its size is a claim until the pull is proven."""

    def verified_to(self, offset: int) -> int:
        """Where the run of accepted bytes from ``offset`` ends."""

    def read_now(self, offset: int, length: int) -> bytes | None:
        """See ``IPartial``."""

    async def read(self, offset: int, length: int) -> bytes:
        """See ``IPartial``."""

    def leave(self, reader: object) -> None:
        """The reader is done."""


@implementer(IBlobReader)
class PassingReader:
    """I read what one answer to a peer passes on. I wait for nothing, and move nothing to the front."""

    def __init__(self, pull: Source) -> None:
        self.info = pull.info
        self._pull = pull
        self._touched = RangeSet()
        self._error: LocalError | None = None
        self._closed = False

    async def available(self, offset: int, stop: int) -> int:
        """See :class:`IBlobReader`: what is not accepted any more is not waited for."""
        self._touched.add(offset, stop)
        limit = min(stop, self._pull.verified_to(offset))
        if limit == offset < stop:
            self.taken_back(ByteRange(offset, stop))
        self._check()
        return max(offset, limit)

    def read_now(self, offset: int, length: int) -> bytes | None:
        """See :class:`IBlobReader`."""
        self._check()
        return self._pull.read_now(offset, length)

    async def read(self, offset: int, length: int) -> bytes:
        """See :class:`IBlobReader`."""
        data = await self._pull.read(offset, length)
        self._check()
        return data

    def fileno(self) -> int:
        """No sendfile: who sends so is not asked before each piece."""
        return -1

    def taken_back(self, span: ByteRange) -> None:
        """Bytes proved wrong after all: if they are any of mine, I fail."""
        if any(self._touched.overlap(span.start, span.stop)):
            self._error = PullFailed(self.info.digest, ("bytes passed on proved wrong",))

    def close(self) -> None:
        """See :class:`IBlobReader`."""
        if not self._closed:
            self._closed = True
            self._pull.leave(self)

    def _check(self) -> None:
        if error := self._error or self._pull.error:
            raise error

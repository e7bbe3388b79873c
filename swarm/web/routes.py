"""What the routes of every HTTP door share: ids in paths, and bodies on their way to the store."""

from __future__ import annotations

from werkzeug.routing import BaseConverter

from swarm.interfaces import IBlobWriter
from swarm.model.digest import Digest


class DigestConverter(BaseConverter):
    """``<id:digest>``: 128 hex digits of either case."""

    regex = "[0-9a-fA-F]{128}"

    def to_python(self, value: str) -> Digest:
        """The id."""
        return Digest.parse(value)


class WriterSink:
    """A request's body that goes into an :class:`IBlobWriter`; a :class:`~swarm.web.request.BodySink`."""

    def __init__(self, writer: IBlobWriter) -> None:
        self._writer = writer

    def write(self, data: bytes) -> None:
        """Take bytes; see :meth:`~swarm.interfaces.IBlobWriter.write`."""
        self._writer.write(data)

    def lagging(self) -> bool:
        """Is the disk behind?"""
        return self._writer.lagging()

    async def caught_up(self) -> None:
        """Wait for the disk."""
        await self._writer.caught_up()

    def abort(self) -> None:
        """Keep nothing."""
        self._writer.abort()

"""What the short path answers with: the full way's fields, while anybody may read.

Decides nothing of its own: authority is :mod:`swarm.api.tokens`'s, the switches are the store's, the
fields are :mod:`swarm.api.fields`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from twisted.web.http_headers import Headers

from swarm.api.fields import blob_fields
from swarm.api.tokens import Guard
from swarm.errors import MethodDenied
from swarm.interfaces import BlobInfo


class Switches(Protocol):
    """What an operator may switch off; ``IBlobStore`` is one."""

    def check_allowed(self, method: str) -> None:
        """See :meth:`swarm.interfaces.IBlobStore.check_allowed`."""


class PlainReads:
    """
    An :class:`~swarm.web.short_path.Answers`.

    :param mirrors: public URLs of other nodes now.
    """

    def __init__(self, switches: Switches, guard: Guard, mirrors: Callable[[], Sequence[str]]) -> None:
        self._switches = switches
        self._guard = guard
        self._mirrors = mirrors
        self._basis: tuple[str, ...] = ()

    def readable(self) -> bool:
        """May anybody read any blob now, without a token?"""
        try:
            self._switches.check_allowed("get")
        except MethodDenied:
            return False
        return self._guard.open_to_all("get")

    def basis(self) -> tuple[str, ...]:
        """What the fields depend on beside the blob: the mirrors."""
        mirrors = tuple(self._mirrors())
        if mirrors != self._basis:
            self._basis = mirrors
        return self._basis

    def fields(self, info: BlobInfo) -> bytes:
        """The head of an answer from after ``Date`` to its end."""
        headers = Headers()
        for name, value in (*blob_fields(info, self._basis), ("Content-Length", str(info.size))):
            headers.addRawHeader(name, value)
        lines = [
            b"%s: %s\r\n" % (name, value) for name, values in headers.getAllRawHeaders() for value in values
        ]
        return b"".join([*lines, b"\r\n"])

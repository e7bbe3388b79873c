"""Where everything lies below the data directory (CONTRACT, "On disk"). Paths only, no I/O.

``blobs``, ``partial`` and ``quarantine`` must be on one volume: files move between them by link
and rename.
"""

from __future__ import annotations

import os.path
import re
from typing import Any

from attrs import Factory, field, frozen

from swarm.model.digest import Digest

_TWO = re.compile(r"[0-9a-f]{2}", re.ASCII)
_ID = re.compile(r"[0-9a-f]{128}", re.ASCII)

#: The files of one blob.
DATA, MIDSTATES, NAMES = "data", "midstates", "names"
FORBIDDEN, MISSING = "403", "404"

#: Temporary files of a disk without unnamed ones; whatever bears this at start is thrown away.
INCOMING = ".incoming-"


def _below(name: str) -> Any:
    """One path, put together once: a small PUT needs thirty."""
    return Factory(lambda layout: os.path.join(layout.root, name), takes_self=True)


@frozen
class Layout:
    """The paths of one data directory."""

    root: str
    blobs: str = field(init=False, default=_below("blobs"))
    """The tree of complete blobs."""
    partial: str = field(init=False, default=_below("partial"))
    """Pulls that can be resumed."""
    quarantine: str = field(init=False, default=_below("quarantine"))
    """Damaged blobs, by id, kept aside for a person to look at."""
    catalog: str = field(init=False, default=_below("catalog.sqlite"))
    """The SQLite file."""
    lock: str = field(init=False, default=_below("lock"))
    """Held by the one process that writes here."""

    def deny(self, method: str) -> str:
        """The switch that refuses ``method`` node-wide."""
        return os.path.join(self.root, f"deny{method}")

    def fan_out(self, digest: Digest) -> tuple[str, str]:
        """The two shared directories above a blob's own, outer one first."""
        name = digest.hex
        outer = f"{self.blobs}/{name[:2]}"
        return outer, f"{outer}/{name[2:4]}"

    def blob(self, digest: Digest) -> str:
        """The blob's own directory."""
        name = digest.hex  # asked for several times with each request: no joining by pieces
        return f"{self.blobs}/{name[:2]}/{name[2:4]}/{name}"

    def file(self, digest: Digest, name: str) -> str:
        """One file of a blob: ``data``, ``midstates``, ``names``, ``403`` or ``404``."""
        return f"{self.blob(digest)}/{name}"

    def damaged(self, digest: Digest) -> str:
        """Where a damaged blob's bytes go."""
        return f"{self.quarantine}/{digest.hex}"


def is_fan_out(name: str) -> bool:
    """Is this the name of a shared directory?"""
    return _TWO.fullmatch(name) is not None


def digest_of_name(name: str) -> Digest | None:
    """The id a directory in ``blobs`` (or a file in ``quarantine``) is named after."""
    return Digest.parse(name) if _ID.fullmatch(name) else None

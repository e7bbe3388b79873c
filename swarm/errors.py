"""Everything that can go wrong, as types.

The tree splits by whose fault it is: :class:`LocalError` is ours (a full disk, a
refused request, a missing blob), :class:`PeerError` is another node's. What HTTP
status an error becomes is decided in ``swarm.web.errors`` and nowhere else.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from swarm.model.digest import Digest
    from swarm.model.peers import PeerID


class SwarmError(Exception):
    """The root: nothing of ours is raised that is not one of these."""


class Malformed(SwarmError, ValueError):
    """Input that no parser of ours accepts; the text says what and why."""


# -- ours ---------------------------------------------------------------------


class LocalError(SwarmError):
    """This node cannot do what was asked of it."""


class BlobMissing(LocalError):
    """
    No such blob here (and, where peers were asked, nowhere).

    :ivar nothing: there is nothing of it here at all, so no operator's marker either.
    """

    def __init__(self, digest: Digest, detail: str = "no such blob", *, nothing: bool = False) -> None:
        super().__init__(f"{detail}: {digest.short}")
        self.digest = digest
        self.detail = detail
        self.nothing = nothing


class BlobForbidden(LocalError):
    """An operator put a ``403`` marker on this id."""

    def __init__(self, digest: Digest) -> None:
        super().__init__(f"forbidden: {digest.short}")
        self.digest = digest


class MethodDenied(LocalError):
    """A node-wide switch refuses this kind of request (``get``, ``put`` or ``delete``)."""

    def __init__(self, method: str) -> None:
        super().__init__(f"{method} is disabled on this node")
        self.method = method


class DigestMismatch(LocalError):
    """The bytes do not hash to what was promised; nothing was kept."""

    def __init__(self, expected: str, actual: str) -> None:
        super().__init__(f"the bytes hash to {actual[:16]}…, not to {expected[:16]}…")
        self.expected = expected
        self.actual = actual


class LengthMismatch(LocalError):
    """The body ended before, or went on after, its declared length."""


class StorageFull(LocalError):
    """Quota, reserve or the disk itself leaves no room; nothing was kept."""


class VolumeReadOnly(LocalError):
    """An earlier EIO (or a failed fsync) closed the volume for writing."""


class StoreFailed(LocalError):
    """The disk refused an operation now; what was being written is not stored."""


class Overloaded(LocalError):
    """Come back in ``retry_after`` seconds."""

    def __init__(self, detail: str, retry_after: int = 5) -> None:
        super().__init__(detail)
        self.retry_after = retry_after


class PullFailed(LocalError):
    """Peers hold the blob, yet no proven copy could be made; ``reasons`` names each peer's part."""

    def __init__(self, digest: Digest, reasons: tuple[str, ...]) -> None:
        super().__init__(f"cannot pull {digest.short}: " + ("; ".join(reasons) or "no source left"))
        self.digest = digest
        self.reasons = reasons


class IdentityError(LocalError):
    """A certificate, key, CA bundle, revocation list or allow-list that cannot be used; names the file."""

    def __init__(self, path: object, detail: str) -> None:
        super().__init__(f"{path}: {detail}")
        self.path = path
        self.detail = detail


def said(error: OSError) -> str:
    """What the system said of a file, for people: without its number."""
    name = "" if error.filename is None else f"{error.filename}: "
    return f"{name}{error.strerror}" if error.strerror else str(error)


# -- theirs -------------------------------------------------------------------


class Fault(enum.Enum):
    """What a peer did wrong, classified before anybody is blamed (ANCHORS D8)."""

    UNREACHABLE = "unreachable"  # no connection, or it broke before an answer
    UNTRUSTED = "untrusted"  # TLS: their certificate, or ours in their eyes
    SILENT = "silent"  # no bytes for too long
    TRUNCATED = "truncated"  # the body ended early
    MISSING = "missing"  # 404: a fact, not a fault; negative cache
    BUSY = "busy"  # 503
    REFUSED = "refused"  # another status
    WRONG_RANGE = "wrong range"  # a 206 with another range or total, or a 200
    CODED = "content coding"  # a Content-Encoding or Transfer-Encoding on blob bytes
    VALIDATOR = "validator"  # ETag or Repr-Digest that names another blob
    OVERSIZED = "oversized"  # head, 1xx chatter or body past the budget
    GARBLED = "garbled"  # not HTTP, not JSON, not a midstate list
    FOREIGN = "foreign cluster"  # answers, but belongs to another swarm


class PeerError(SwarmError):
    """Another node did not do its part."""

    def __init__(
        self, peer: PeerID | None, fault: Fault, detail: str = "", *, retry_after: int | None = None
    ) -> None:
        who = peer.short if peer is not None else "unknown peer"
        super().__init__(f"{who}: {fault.value}" + (f" ({detail})" if detail else ""))
        self.peer = peer
        self.fault = fault
        self.detail = detail
        self.retry_after = retry_after  # seconds a BUSY peer asked for

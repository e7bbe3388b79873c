"""What an operator may choose about the store."""

from __future__ import annotations

import os
import resource

from attrs import Factory, frozen


@frozen
class StoreSettings:
    """Sizes in bytes, times in seconds."""

    quota: int | None = None
    """The most that blobs, partial pulls and writes under way may hold together."""

    reserve: int = 1 << 30
    """Free space of the volume that is never taken."""

    deny: frozenset[str] = frozenset()
    """Methods refused node-wide: of ``get``, ``put``, ``delete``."""

    verify_after: float = 7 * 86400.0
    """Bytes last verified longer ago are verified again before they are served."""

    lag: int = 4 << 20
    """A write whose hash is further behind asks its sender to pause; it holds so much in memory."""

    unwritten: int = 64 << 20
    """So does one of which the disk has yet to take more than this from the page cache."""

    batch: int = 256 << 10
    """A write gathers this much before it goes to the disk."""

    open_files: int = Factory(lambda: min(1024, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 16))
    """Blobs that stay open after a read, for the next one; each takes two descriptors. 0: none."""

    small: int = 64 << 10
    """A declared body of at most this waits in memory until all of it is there."""

    hashers: int = Factory(lambda: len(os.sched_getaffinity(0)))
    """Grains of pulls hashed at once, all pulls together; more than there are cores gains nothing."""

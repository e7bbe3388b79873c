"""How a node's process treats memory and open files. Decided once at start, for a process of its own.

Two habits of CPython on glibc cost a node that moves bulk. The collector walks everything that was
imported again and again, although none of it is ever garbage: a few percent of a pull, and tens of
milliseconds at once in which the reactor does nothing. And malloc gives blocks of 256 KiB and more
back to the kernel when they are freed and faults them in anew a moment later: 50,000 page faults for
each GiB pulled. And the usual limit of 1024 open files is there for programs that use ``select``.
"""

from __future__ import annotations

import ctypes
import gc
import linecache
import resource
from typing import Final

_M_TRIM_THRESHOLD: Final = -1  # malloc.h
_M_MMAP_THRESHOLD: Final = -3

_KEPT: Final = 8 << 20
"""Free memory at the end of the heap that is kept."""

_LARGE: Final = 4 << 20
"""Blocks from this size on are given back at once; the node's buffers are smaller."""

_OPEN: Final = 65536
"""Open files enough for any node; where nothing forbids it, the kernel allows a thousand million."""


def allow_open_files() -> int:
    """Raise the process's own limit of open files as far as it may be, and say what it is now."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _OPEN if hard == resource.RLIM_INFINITY else min(hard, _OPEN)
    if soft == resource.RLIM_INFINITY or soft >= most:
        return soft
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    return most


def settle() -> None:
    """Call once, when all modules are imported. Where there is no glibc, only the collector is told."""
    linecache.clearcache()  # attrs keeps the source of all that it generated, 0.8 MB; files are read again
    gc.collect()
    gc.freeze()
    gc.set_threshold(5000, 20, 20)
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    mallopt(_M_MMAP_THRESHOLD, _LARGE)
    mallopt(_M_TRIM_THRESHOLD, _KEPT)

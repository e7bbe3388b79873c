"""The store keeps its contract with real threads under a real reactor."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import ParamSpec, TypeVar

import pytest_twisted
from twisted.internet import reactor
from twisted.internet.threads import deferToThread

from swarm.testing.contracts import (
    blobstore_contract,
    hints_contract,
    peer_book_contract,
    tombstones_contract,
)
from tests.contracts.rigs import filesystem

_P = ParamSpec("_P")
_T = TypeVar("_T")


async def in_a_thread(function: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
    """``run_blocking`` as a node has it."""
    return await deferToThread(function, *args, **kwargs)


threaded = partial(filesystem, run_blocking=in_a_thread, clock=reactor)

TestThreadedStore = blobstore_contract(threaded, pytest_twisted.ensureDeferred)
TestThreadedHints = hints_contract(threaded, pytest_twisted.ensureDeferred)
TestThreadedPeerBook = peer_book_contract(threaded, pytest_twisted.ensureDeferred)
TestThreadedTombstones = tombstones_contract(threaded, pytest_twisted.ensureDeferred)

"""Catches what goes past the arguments of a node: the global reactor, clock and randomness.

Whatever is found makes a run fail: it would make it another run the next time.
"""

from __future__ import annotations

import os
import random
import secrets
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType, ModuleType
from typing import Any

_REACTOR = (
    *("callLater", "callFromThread", "callInThread", "callWhenRunning", "getThreadPool", "spawnProcess"),
    *(
        "listenTCP",
        "connectTCP",
        "listenUNIX",
        "connectUNIX",
        "listenUDP",
        "listenMulticast",
        "addReader",
        "addWriter",
    ),
)
_GLOBALS: tuple[tuple[ModuleType, tuple[str, ...]], ...] = (
    (time, ("time", "monotonic", "time_ns", "monotonic_ns")),
    (os, ("urandom",)),
    (uuid, ("uuid1", "uuid4")),
    (secrets, ("token_bytes", "token_hex", "token_urlsafe", "randbelow", "choice")),
    (random, ("random", "uniform", "randint", "randrange", "choice", "sample", "shuffle", "getrandbits")),
)


@contextmanager
def only_what_is_injected() -> Iterator[list[str]]:
    """Gives a list of all uses of globals while the block runs."""
    found: list[str] = []
    undo: list[Callable[[], None]] = []

    def watch(owner: Any, name: str, suspicious: Callable[[FrameType], bool]) -> None:
        original = getattr(owner, name, None)
        if original is None:
            return
        was_own = name in vars(owner)

        def watched(*args: Any, **kwargs: Any) -> Any:
            frame = sys._getframe(1)
            if suspicious(frame):
                found.append(f"{getattr(owner, '__name__', 'reactor')}.{name} by {_stack(frame)}")
            return original(*args, **kwargs)

        setattr(owner, name, watched)
        undo.append(lambda: setattr(owner, name, original) if was_own else delattr(owner, name))

    reactor = sys.modules.get("twisted.internet.reactor")
    for name in _REACTOR:
        if reactor is not None:
            watch(reactor, name, lambda frame: True)
    for module, names in _GLOBALS:
        for name in names:
            watch(module, name, _is_ours)
    try:
        yield found
    finally:
        for each in undo:
            each()


def _is_ours(frame: FrameType) -> bool:
    """Is this the product? The test kit and libraries may, where it changes no event."""
    name = str(frame.f_globals.get("__name__"))
    return name.startswith("swarm.") and not name.startswith("swarm.testing")


def _stack(frame: FrameType | None) -> str:
    callers: list[str] = []
    while frame is not None and len(callers) < 6:
        callers.append(f"{frame.f_globals.get('__name__')}:{frame.f_lineno}")
        frame = frame.f_back
    return " < ".join(callers)

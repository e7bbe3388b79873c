"""A progress display for work that takes longer than a second, and only on a terminal.

Decides when something is drawn; how it looks is in :mod:`swarm.cli.picture`. Without a terminal every
method does nothing.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from attrs import frozen

from swarm.cli.session import printable

if TYPE_CHECKING:
    from swarm.cli.picture import Picture

#: Seconds of work before anything is drawn.
PATIENCE = 1.0


@frozen
class SourceLine:
    """What one peer brought so far: bytes, bytes a second, and its state in a word."""

    name: str
    bytes: int
    rate: float
    state: str
    detail: str = ""

    @classmethod
    def from_document(cls, each: dict[str, Any]) -> SourceLine:
        """Read one of ``pull.sources`` in ``/{id}/locations``; what is missing reads as nothing."""
        return cls(
            printable(str(each.get("name", "")), 40),
            _number(each.get("bytes")),
            float(_number(each.get("rate"))),
            printable(str(each.get("state", "")), 20),
            printable(str(each.get("detail", "")), 80),
        )


class Meter:
    """One bar. Use as a context manager; thread-safe, because the display begins on a timer."""

    def __init__(self, title: str, total: int | None, *, done: int = 0, shown: bool | None = None) -> None:
        self._title = printable(title, 40)
        self._total = total
        self._done = done
        self._shown = sys.stderr.isatty() if shown is None else shown
        self._lock = threading.Lock()
        self._timer: threading.Timer | None = None
        self._picture: Picture | None = None
        self._sources: tuple[SourceLine, ...] = ()

    @property
    def shown(self) -> bool:
        """Is anybody watching?"""
        return self._shown

    def __enter__(self) -> Self:
        if self._shown:
            self._timer = threading.Timer(PATIENCE, self._begin)
            self._timer.daemon = True
            self._timer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer.join()
        with self._lock:
            if self._picture is not None:
                self._picture.close()
                self._picture = None

    def advance(self, count: int) -> None:
        """``count`` more bytes are done."""
        self.reach(self._done + count, self._total)

    def reach(self, done: int, total: int | None) -> None:
        """``done`` of ``total`` bytes are done, whatever was said before."""
        with self._lock:
            self._done, self._total = done, total
            self._update()

    def rename(self, title: str) -> None:
        """The work goes on, with something else."""
        with self._lock:
            self._title = printable(title, 40)
            self._update()

    def sources(self, lines: Iterable[SourceLine]) -> None:
        """Show these peers under the bar."""
        with self._lock:
            self._sources = tuple(lines)
            if self._picture is not None:
                self._picture.list(self._sources)

    def _begin(self) -> None:
        from swarm.cli.picture import Picture

        with self._lock:
            self._picture = Picture(self._title, self._done, self._total, self._sources)

    def _update(self) -> None:
        if self._picture is not None:
            self._picture.update(self._title, self._done, self._total)


def _number(value: Any) -> int:
    return int(value) if isinstance(value, int | float) and 0 <= value < 2**63 else 0

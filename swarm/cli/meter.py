"""A progress display for work that takes longer than a second, and only on a terminal.

Decides what is drawn: one bar with rate and time left, and below it a line for each peer of a
running pull. Without a terminal every method does nothing.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from attrs import frozen

from swarm.cli.session import printable, size_text

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.live import Live
    from rich.progress import Progress, TaskID

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
        self._progress: Progress | None = None
        self._task: TaskID | None = None
        self._live: Live | None = None
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
            if self._live is not None:
                self._live.stop()

    def advance(self, count: int) -> None:
        """``count`` more bytes are done."""
        self._done += count
        if self._progress is not None and self._task is not None:
            self._progress.advance(self._task, count)

    def restart(self, done: int, total: int | None) -> None:
        """The work begins at ``done`` of ``total`` bytes, whatever was said before."""
        self._done, self._total = done, total
        if self._progress is not None and self._task is not None:
            self._progress.reset(self._task, total=total, completed=done)

    def sources(self, lines: Iterable[SourceLine]) -> None:
        """Show these peers under the bar."""
        self._sources = tuple(lines)
        with self._lock:
            if self._live is not None:
                self._live.update(self._picture())

    def _begin(self) -> None:
        from rich.console import Console
        from rich.live import Live
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
            TransferSpeedColumn,
        )

        with self._lock:
            self._progress = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                DownloadColumn(binary_units=True),
                TransferSpeedColumn(),
                TimeRemainingColumn(),
            )
            self._task = self._progress.add_task(self._title, total=self._total, completed=self._done)
            console = Console(stderr=True)
            self._live = Live(
                self._picture(),
                console=console,
                refresh_per_second=8,
                transient=True,
                redirect_stdout=sys.stdout.isatty(),
            )
            self._live.start()

    def _picture(self) -> RenderableType:
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        assert self._progress is not None
        table = Table.grid(padding=(0, 2))
        for each in self._sources:
            words = (each.name, size_text(each.bytes), f"{size_text(each.rate)}/s", each.state, each.detail)
            table.add_row(*(Text(word) for word in ("  ", *words)))
        return Group(self._progress, table)


def _number(value: Any) -> int:
    return int(value) if isinstance(value, int | float) and 0 <= value < 2**63 else 0

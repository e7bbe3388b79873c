"""How progress is drawn on a terminal: rich, imported only when there is something to draw."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from swarm.cli.session import size_text

if TYPE_CHECKING:
    from swarm.cli.meter import SourceLine


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text("" if task.speed is None else f"{size_text(task.speed)}/s", style="progress.data.speed")


class Picture:
    """A bar with rate and time left, and below it a line for each source; gone when closed."""

    def __init__(self, title: str, done: int, total: int | None, sources: Sequence[SourceLine]) -> None:
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            DownloadColumn(binary_units=True),
            _Rate(),
            TimeRemainingColumn(),
        )
        self._task = self._progress.add_task(title, total=total, completed=done)
        self._live = Live(
            self._draw(sources),
            console=Console(stderr=True),
            refresh_per_second=8,
            transient=True,
            redirect_stdout=sys.stdout.isatty(),
        )
        self._live.start()

    def update(self, title: str, done: int, total: int | None) -> None:
        """The work has come so far."""
        self._progress.update(self._task, description=title, completed=done, total=total)

    def list(self, sources: Sequence[SourceLine]) -> None:
        """Show these under the bar."""
        self._live.update(self._draw(sources))

    def close(self) -> None:
        """Give the terminal back."""
        self._live.stop()

    def _draw(self, sources: Sequence[SourceLine]) -> RenderableType:
        table = Table.grid(padding=(0, 2))
        for each in sources:
            words = (each.name, size_text(each.bytes), f"{size_text(each.rate)}/s", each.state, each.detail)
            table.add_row(*(Text(word) for word in ("  ", *words)))
        return Group(self._progress, table)

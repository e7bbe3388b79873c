"""How long a download stands still, on a machine that has more to do than this.

A download stands still while no byte of it comes. Wall time alone would blame the node for every other
program on the machine, so three things are kept: all of it; the part in which every thread that could have
done something was asleep; and the bytes that other downloads got meanwhile. Asleep is who waits for an event;
who wants a core or a disk and has to wait for it is not. Decides nothing about what is too long. Times are
seconds.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Protocol

from attrs import define, field, frozen

#: A look around this often; a gap between two looks counts as no more than twice that.
EVERY = 0.05


class Moving(Protocol):
    """What is watched."""

    @property
    def at(self) -> int:
        """Bytes that came so far."""

    @property
    def ended(self) -> bool:
        """Did it end, either way?"""


@frozen
class Pause:
    """
    A stretch in which nothing came: at which byte, for how long in all, and how long all were asleep.

    :ivar passed: bytes that came for others meanwhile.
    """

    at: int = 0
    wall: float = 0.0
    asleep: float = 0.0
    passed: int = 0


@define
class Standing:
    """One download: the pause it is in, and the longest in each respect."""

    now: Pause = Pause(-1)
    worst: Pause = Pause()
    _others: int = 0

    def look(self, at: int, others: int, seconds: float, asleep: bool) -> None:
        """
        So many seconds after the last look it has ``at`` bytes.

        :param others: bytes all others have.
        :param asleep: were all asleep when looked at?
        """
        if at != self.now.at:
            self.now, self._others = Pause(at), others
            return
        slept = min(seconds, 2 * EVERY) if asleep else 0.0
        self.now = Pause(at, self.now.wall + seconds, self.now.asleep + slept, others - self._others)
        self.worst = Pause(
            at if self.now.wall > self.worst.wall else self.worst.at,
            max(self.now.wall, self.worst.wall),
            max(self.now.asleep, self.worst.asleep),
            max(self.now.passed, self.worst.passed),
        )


def asleep(pids: Iterable[int], but: int | None = None) -> bool:
    """
    Does every thread of these processes wait for an event?

    :param but: a thread that does not count: the one that asks.
    """
    for pid in pids:
        for stat in Path(f"/proc/{pid}/task").glob("*/stat"):
            try:
                state = stat.read_text().rpartition(")")[2].split()[0]
            except OSError:  # it ended meanwhile
                continue
            if state not in "SIT" and stat.parent.name != str(but):
                return False
    return True


@define
class Watch:
    """
    Looks at downloads in a thread of its own, as long as the block lasts.

    :param pids: the processes that take part, now.
    :param stands: called once for each download that stands still for longer than ``limit`` asleep,
        while it does.
    """

    pids: Callable[[], Iterable[int]]
    limit: float
    stands: Callable[[Moving, Pause], None]
    standing: dict[int, Standing] = field(factory=dict, init=False)
    _watched: list[Moving] = field(factory=list, init=False)
    _told: set[int] = field(factory=set, init=False)
    _over: threading.Event = field(factory=threading.Event, init=False)
    _thread: threading.Thread = field(init=False)

    def __enter__(self) -> Watch:
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *args: object) -> None:
        self._over.set()
        self._thread.join()

    def add(self, download: Moving) -> None:
        """Watch it, until it ends."""
        self.standing[id(download)] = Standing()
        self._watched.append(download)

    def of(self, download: Moving) -> Standing:
        """How it went so far."""
        return self.standing[id(download)]

    def _run(self) -> None:
        last = time.monotonic()
        while not self._over.wait(EVERY):
            still = asleep(self.pids(), threading.get_native_id())
            now = time.monotonic()
            every = sum(download.at for download in self._watched)
            for download in tuple(self._watched):
                if download.ended:
                    continue
                standing = self.of(download)
                at = download.at
                standing.look(at, every - at, now - last, still)
                if standing.now.asleep > self.limit and id(download) not in self._told:
                    self._told.add(id(download))
                    self.stands(download, standing.now)
            last = now

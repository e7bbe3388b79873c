"""When what a pull verified is made durable.

Decides the pace: a crash loses at most what no journal record covers (promise 4), so a record is
begun whenever enough came together or some time passed, and :attr:`Saving.unsaved` tells the pull when
to stop reading from peers because the disk cannot follow.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IReactorTime

from swarm.errors import LocalError
from swarm.interfaces import IPartial
from swarm.services.tasks import Tasks, sleep


class Saving:
    """
    I checkpoint one pull, never twice at once.

    :ivar unsaved: bytes of marked grains that no durable record covers yet.
    """

    def __init__(
        self,
        partial: IPartial,
        *,
        every: float,
        bytes_: int,
        clock: IReactorTime,
        tasks: Tasks,
        saved: Callable[[], None],
        failed: Callable[[LocalError], None],
    ) -> None:
        """
        :param every: seconds after which a record is due, however little there is,
        :param bytes_: and bytes after which one is due at once.
        :param saved: told whenever ``unsaved`` sank.
        """
        self.unsaved = 0
        self._partial = partial
        self._every = every
        self._bytes = bytes_
        self._clock = clock
        self._tasks = tasks
        self._saved = saved
        self._failed = failed
        self._busy = False

    def marked(self, length: int) -> None:
        """A grain of so many bytes was marked."""
        self.unsaved += length
        if self.unsaved >= self._bytes and not self._busy:
            self._begin()

    async def run(self) -> None:
        """Save what is there every so often; ends only by cancellation."""
        while True:
            await sleep(self._clock, self._every)
            if self.unsaved and not self._busy:
                self._begin()

    def _begin(self) -> None:
        self._busy = True
        self._tasks.start("making a pull durable", self._save())

    async def _save(self) -> None:
        covered = self.unsaved
        try:
            await self._partial.checkpoint()
        except LocalError as e:
            self._failed(e)
            return
        finally:
            self._busy = False
        self.unsaved -= covered
        self._saved()
        if self.unsaved >= self._bytes:
            self._begin()

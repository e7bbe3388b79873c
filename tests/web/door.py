"""A door for tests: a site whose decisions and answers the test makes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

from swarm.errors import StorageFull
from swarm.testing.wire import Wire
from swarm.web.limits import WebLimits
from swarm.web.request import BodySink, StreamingRequest
from swarm.web.site import StreamingSite


class Sink:
    """Takes a body and does as told."""

    def __init__(self, full_after: int | None = None) -> None:
        self.data = bytearray()
        self.aborted = False
        self.behind = False
        self.waiting: Deferred[None] | None = None
        self.full_after = full_after

    def write(self, data: bytes) -> None:
        assert not self.aborted
        self.data += data
        if self.full_after is not None and len(self.data) > self.full_after:
            raise StorageFull("no room")

    def lagging(self) -> bool:
        return self.behind

    async def caught_up(self) -> None:
        self.waiting = Deferred()
        await self.waiting

    def abort(self) -> None:
        self.aborted = True

    def catch_up(self) -> None:
        self.behind = False
        assert self.waiting is not None
        self.waiting.callback(None)


class Leaf(Resource):
    """Remembers what it saw; answers at once, or holds the paths it is told to."""

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[bytes, bytes, bytes]] = []
        self.hold: set[bytes] = set()
        self.held: dict[bytes, StreamingRequest] = {}

    def render(self, request: Any) -> Any:
        sink = request.take_sink()
        body = bytes(sink.data) if sink is not None else request.content.read()
        self.seen.append((request.method, request.uri, body))
        if request.path in self.hold:
            self.held[request.path] = request
            return NOT_DONE_YET
        request.write(b"ok " + request.path)
        request.finish()
        return NOT_DONE_YET


class Door:
    """
    The site.

    :ivar decide: what ``admit`` returns, raises or awaits.
    :ivar statuses: of all responses.
    """

    def __init__(self, limits: WebLimits | None = None) -> None:
        self.clock = Clock()
        self.leaf = Leaf()
        self.limits = limits or WebLimits()
        self.decide: Callable[[StreamingRequest], Any] = lambda request: None
        self.statuses: list[int] = []
        self.site = StreamingSite(
            self.leaf, admit=self._admit, clock=self.clock, limits=self.limits, observer=self
        )

    async def _admit(self, request: StreamingRequest) -> BodySink | None:
        outcome = self.decide(request)
        if isinstance(outcome, Deferred):
            outcome = await outcome
        if isinstance(outcome, Exception):
            raise outcome
        assert outcome is None or isinstance(outcome, Sink)
        return outcome

    def answered(self, request: StreamingRequest) -> None:
        self.statuses.append(request.code)

    def sent(self, method: str, size: int) -> None:
        self.statuses.append(200)

    def rejected(self, status: int) -> None:
        self.statuses.append(status)

    def wire(self, **kwargs: Any) -> Wire:
        return Wire(self.site, **kwargs)

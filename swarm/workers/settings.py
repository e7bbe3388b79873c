"""How long the other processes of a node may take for what they do; seconds."""

from __future__ import annotations

import resource

from attrs import Factory, frozen

from swarm.core.backoff import Backoff


@frozen
class WorkerSettings:
    """Times of one worker; counts of what it may keep."""

    #: From its start until it says that it serves. One that takes longer is killed and started again.
    start: float = 60.0
    #: It confirms each connection it is given; one that does not for so long is killed, and what it did
    #: not confirm is served by the node itself.
    silence: float = 10.0
    #: When the node stops, responses under way may go on for this long.
    drain: float = 5.0
    #: A worker that served for this long before it ended starts again at once.
    settled: float = 60.0
    #: Blobs a worker keeps open; each takes two descriptors.
    blobs: int = Factory(lambda: min(1024, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 8))
    #: Between a worker's end and its successor's start; doubles while they keep ending.
    restart: Backoff = Factory(lambda: Backoff(base=0.5, cap=60.0, floor=0.1))

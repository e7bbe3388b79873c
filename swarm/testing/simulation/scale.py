"""The world in miniature: small grains, and every size and rate in proportion.

A protocol does not care how large a grain is, but hashing does: with grains of 32 KiB instead of 1 MiB a
run costs a thirtieth of the bytes and keeps its number of grains, spans, segments and checkpoints.
Some runs keep the real sizes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from attrs import frozen

from swarm.core.dispatch import DispatchSettings
from swarm.hashing import sha512
from swarm.model import grains
from swarm.peering.credentials import TLSSettings
from swarm.peering.limits import PeerLimits
from swarm.services.membership import MembershipSettings
from swarm.services.pull import PullSettings
from swarm.services.replicator import ReplicationSettings
from swarm.services.settings import FetchSettings
from swarm.storage.settings import StoreSettings
from swarm.web.limits import WebLimits

_REAL = grains.MIN_GRAIN
_HOLD_THE_GRAIN: tuple[Any, ...] = (grains, sha512)


@frozen
class Scale:
    """How much smaller everything is: a power of two."""

    down: int = 1

    def size(self, real: float) -> int:
        """So many bytes (or bytes a second) stand for ``real`` ones."""
        return max(1, int(real / self.down))

    def settings(self) -> dict[str, Any]:
        """Settings of a node that have to do with bytes; and ticks that only cost events, less often."""
        store, web, peering, dispatch = StoreSettings(), WebLimits(), PeerLimits(), DispatchSettings()
        pull = PullSettings()
        return {
            "store": StoreSettings(hashers=2, lag=self.size(store.lag), batch=self.size(store.batch)),
            "web": WebLimits(chunk=self.size(web.chunk)),
            "peering": PeerLimits(batch=self.size(peering.batch)),
            "pull": FetchSettings(
                pull=PullSettings(
                    reader_window=self.size(pull.reader_window),
                    unhashed_limit=self.size(pull.unhashed_limit),
                    checkpoint_bytes=self.size(pull.checkpoint_bytes / 8),
                    unsaved_limit=self.size(pull.unsaved_limit),
                )
            ),
            "dispatch": DispatchSettings(
                largest_span=self.size(dispatch.largest_span),
                in_flight=self.size(dispatch.in_flight),
                duplicate_most=self.size(dispatch.duplicate_most),
            ),
            "replication": ReplicationSettings(
                answer_rate=self.size(ReplicationSettings().answer_rate), tick=2.0
            ),
            "tls": TLSSettings(poll_interval=10.0),
            "membership": MembershipSettings(tick=2.0, reread_every=20.0),
        }

    @contextmanager
    def applied(self) -> Iterator[None]:
        """While the block runs, blobs are cut accordingly."""
        try:
            self._cut(self.size(_REAL))
            yield
        finally:
            self._cut(_REAL)

    def _cut(self, grain: int) -> None:
        for module in _HOLD_THE_GRAIN:
            assert isinstance(module.MIN_GRAIN, int)
            module.MIN_GRAIN = grain

"""Prometheus text: what is counted of requests, and what is read off the services when scraped.

The registry is given, never the library's global one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import attrs
from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

from swarm.interfaces import Usage
from swarm.services.progress import Counters

if TYPE_CHECKING:
    from swarm.web.request import StreamingRequest

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_METHODS = frozenset(["GET", "HEAD", "PUT", "POST", "DELETE", "OPTIONS"])
_DAY = 86_400.0


class WebMetrics:
    """Counts responses; an :class:`~swarm.web.site.Observer`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._requests = Counter(
            "swarm_http_requests", "Responses by method and status", ["method", "code"], registry=registry
        )
        self._sent = Counter("swarm_http_sent_bytes", "Bytes of response bodies", registry=registry)
        self._received = Counter("swarm_http_received_bytes", "Bytes of request bodies", registry=registry)

    def answered(self, request: StreamingRequest) -> None:
        """A response was written."""
        method = request.method.decode("ascii", "replace")
        self._requests.labels(method if method in _METHODS else "other", str(request.code)).inc()
        self._sent.inc(request.sentLength)
        self._received.inc(request.received)

    def rejected(self, status: int) -> None:
        """What was no request was answered."""
        self._requests.labels("none", str(status)).inc()


class GrainMetrics:
    """How long grains take from request to verified, and who sends bad ones."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._latency = Histogram(
            "swarm_grain_seconds",
            "From asking for a grain to its verification",
            buckets=(0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100),
            registry=registry,
        )
        self._bad = Counter(
            "swarm_verification_failures", "Grains that proved wrong", ["peer_class"], registry=registry
        )

    def verified(self, seconds: float) -> None:
        """A grain passed."""
        self._latency.observe(seconds)

    def failed(self, peer_class: str) -> None:
        """A grain did not: ``liar`` (proven), ``suspect`` (not yet) or ``self`` (our disk)."""
        self._bad.labels(peer_class).inc()


class NodeCollector(Collector):
    """Reads counters and usage when scraped, so that nobody has to keep two of them."""

    def __init__(
        self,
        *,
        usage: Callable[[], Usage],
        counters: Callable[[], Counters],
        peers: Callable[[], int],
        pulls: Callable[[], int],
        certificate_seconds: Callable[[], float | None],
    ) -> None:
        self._usage = usage
        self._counters = counters
        self._peers = peers
        self._pulls = pulls
        self._certificate_seconds = certificate_seconds

    def collect(self) -> Iterable[Metric]:
        """What the registry asks for."""
        usage = self._usage()
        yield _gauge("swarm_store_blobs", "Complete blobs", usage.blobs)
        yield _gauge("swarm_store_bytes", "Bytes of complete blobs", usage.bytes)
        yield _gauge("swarm_store_partials", "Unfinished pulls on disk", usage.partials)
        yield _gauge("swarm_store_free_bytes", "Free space of the volume", usage.free)
        yield _gauge("swarm_store_read_only", "1 after the disk failed", usage.read_only is not None)
        yield _gauge("swarm_peers_live", "Peers heard of lately", self._peers())
        yield _gauge("swarm_pulls_running", "Pulls under way", self._pulls())
        left = self._certificate_seconds()
        if left is not None:
            yield _gauge("swarm_certificate_days", "Days until our certificate ends", left / _DAY)
        for name, value in attrs.asdict(self._counters()).items():
            words = name.replace("_", " ")
            yield CounterMetricFamily(f"swarm_{name}", f"Since start: {words}", value=value)


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value=float(value))


def exposition(registry: CollectorRegistry) -> bytes:
    """What ``GET /metrics`` answers."""
    return bytes(generate_latest(registry))

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


#: Method, status, responses and bytes of their bodies, each time only what is new.
Elsewhere = Callable[[], Iterable[tuple[str, int, int, int]]]


class WebMetrics(Collector):
    """
    Counts the responses of one door; an :class:`~swarm.web.site.Observer`.

    :param door: how the metrics' names begin: ``swarm_http`` is the public API, ``swarm_peer`` the peer port.
    :param elsewhere: what other processes answered at this door.
    """

    def __init__(
        self, registry: CollectorRegistry, door: str = "swarm_http", *, elsewhere: Elsewhere = tuple
    ) -> None:
        labels = ["method", "code"]
        self._requests = Counter(f"{door}_requests", "Responses by method and status", labels, registry=None)
        self._sent = Counter(f"{door}_sent_bytes", "Bytes of response bodies", registry=None)
        self._received = Counter(f"{door}_received_bytes", "Bytes of request bodies", registry=None)
        self._plain: dict[str, int] = {"GET": 0, "HEAD": 0}
        self._plain_sent = 0
        self._counters: dict[tuple[bytes, int], Counter] = {}
        self._elsewhere = elsewhere
        registry.register(self)

    def collect(self) -> Iterable[Metric]:
        """What the registry asks for: what was answered here, and elsewhere since it last asked."""
        for method, code, count, sent in self._elsewhere():
            self._requests.labels(method, str(code)).inc(count)
            self._sent.inc(sent)
        for method, count in self._plain.items():
            if count:
                self._requests.labels(method, "200").inc(count)
                self._plain[method] = 0
        self._sent.inc(self._plain_sent)
        self._plain_sent = 0
        for counter in (self._requests, self._sent, self._received):
            yield from counter.collect()

    def answered(self, request: StreamingRequest) -> None:
        """A response was written."""
        self._counter(request.method, request.code).inc()
        self._sent.inc(request.sentLength)
        self._received.inc(request.received)

    def _counter(self, method: bytes, code: int) -> Counter:
        """Kept, for finding one by its labels takes ten times as long as to count; there are few."""
        counter = self._counters.get((method, code))
        if counter is None:
            name = method.decode("ascii", "replace")
            counter = self._requests.labels(name if name in _METHODS else "other", str(code))
            if name in _METHODS:
                self._counters[method, code] = counter
        return counter

    def sent(self, method: str, size: int) -> None:
        """The short path answered; added up here, for a counter costs a tenth of such an answer."""
        self._plain[method] += 1
        self._plain_sent += size

    def rejected(self, status: int) -> None:
        """What was no request was answered."""
        self._requests.labels("none", str(status)).inc()


class GrainMetrics:
    """How long grains take, and whose are bad; a :class:`~swarm.services.progress.GrainWatch`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._latency = Histogram(
            "swarm_grain_seconds",
            "From asking for a grain to its verification",
            buckets=(0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100),
            registry=registry,
        )
        self._bad = Counter(
            "swarm_bad_grains",
            "Grains that proved wrong: of a liar, a suspect, self",
            ["whose"],
            registry=registry,
        )

    def verified(self, seconds: float) -> None:
        """A grain passed."""
        self._latency.observe(seconds)

    def failed(self, whose: str) -> None:
        """A grain did not."""
        self._bad.labels(whose).inc()


class DelayMetrics:
    """How long events wait for the reactor's thread."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._delay = Histogram(
            "swarm_reactor_delay_seconds",
            "How late a timer was that fires once a second",
            buckets=(0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3),
            registry=registry,
        )

    def late(self, seconds: float) -> None:
        """A timer fired so late."""
        self._delay.observe(seconds)


class NodeCollector(Collector):
    """Reads counters and usage when scraped, so that nobody has to keep two of them."""

    def __init__(
        self,
        *,
        usage: Callable[[], Usage],
        counters: Callable[[], Counters],
        peers: Callable[[], int],
        pulls: Callable[[], int],
        hints: Callable[[], int],
        refusals: Callable[[], int],
        certificate_days: Callable[[], float | None],
        revocation_list_days: Callable[[], float | None],
        workers: Callable[[], int],
        worker_restarts: Callable[[], int],
    ) -> None:
        self._usage = usage
        self._counters = counters
        self._peers = peers
        self._pulls = pulls
        self._hints = hints
        self._refusals = refusals
        self._certificate_days = certificate_days
        self._revocation_list_days = revocation_list_days
        self._workers = workers
        self._worker_restarts = worker_restarts

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
        yield _gauge("swarm_hints_pending", "Blobs put here that lack copies elsewhere", self._hints())
        yield _gauge("swarm_workers", "Processes that serve reads, the node's own included", self._workers())
        ended = "Workers that ended and were started again"
        yield CounterMetricFamily("swarm_worker_restarts", ended, value=self._worker_restarts())
        for name, text, days in (
            ("certificate", "our certificate ends", self._certificate_days()),
            (
                "revocation_list",
                "our revocation list ends and no peer is admitted",
                self._revocation_list_days(),
            ),
        ):
            if days is not None:
                yield _gauge(f"swarm_{name}_days", f"Days until {text}", days)
        refused = "Connections between peers that TLS ended, whichever side refused"
        yield CounterMetricFamily("swarm_peer_refusals", refused, value=self._refusals())
        for name, value in attrs.asdict(self._counters()).items():
            words = name.replace("_", " ")
            yield CounterMetricFamily(f"swarm_{name}", f"Since start: {words}", value=value)


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value=float(value))


def exposition(registry: CollectorRegistry) -> bytes:
    """What ``GET /metrics`` answers."""
    return bytes(generate_latest(registry))

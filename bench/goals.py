"""The goals of the project for speed, P1 to P14: what is measured, beside whom, and how good is good.

Values only. The numbers were set before the node was written, from throw-away prototypes of its hot
paths; a figure that misses its goal stays in the table and says by how much.
"""

from __future__ import annotations

from attrs import frozen

WALL, CPU = "time", "CPU seconds"


@frozen
class Goal:
    """One number to reach. ``limit`` is the most, or for ``more`` the least, that reaches it."""

    key: str
    work: str
    beside: str
    limit: float
    unit: str = "×"
    more: bool = False

    def reached(self, value: float) -> bool:
        """Is this good enough?"""
        return value >= self.limit if self.more else value <= self.limit

    def missed_by(self, value: float) -> float:
        """How far off, as a share of the goal; 0 if it is reached."""
        if self.reached(value):
            return 0.0
        return (self.limit - value if self.more else value - self.limit) / self.limit


_PULL = "pull, verify and store 1 GiB from 3 nodes over mutual TLS"
_PEAK = "peak memory of a node"

GOALS = (
    Goal("P1 tmpfs", f"{_PULL}, on tmpfs: {WALL}", "aria2c --checksum, 3 nginx, mutual TLS, tmpfs", 0.38),
    Goal("P1 ext4", f"{_PULL}, on the disk: {WALL}", "aria2c --checksum, the same disk", 0.18),
    Goal("P2", f"{_PULL}: {WALL}", "libtorrent 2, v1, plain text, 3 seeds", 0.70),
    Goal("P3", f"{_PULL}: {WALL}", "cp, then openssl dgst -sha512", 0.85),
    Goal("P4 verified", f"receiving, with verification: {CPU}", "aria2c --checksum, tmpfs", 0.50),
    Goal("P4 unverified", f"receiving, without verification: {CPU}", "aria2c without, tmpfs", 0.45),
    Goal("P4 delay", "reactor delay during a pull, p99", "–", 10.0, "ms"),
    Goal("P5", f"sending from 3 nodes over mutual TLS: {CPU}", "3 nginx, mutual TLS", 1.0),
    Goal("P6 rate", "GET of 1 GiB, plain HTTP: throughput", "nginx, sendfile", 1.0, more=True),
    Goal("P6 CPU", f"GET of 1 GiB, plain HTTP: server's {CPU}", "nginx, sendfile", 1.1),
    Goal("P7 one", "GET of 1 KiB, one process: requests/s", "nginx, 2 workers", 0.6, more=True),
    Goal("P7 one p99", "GET of 1 KiB, one process: p99 latency", "nginx, 2 workers", 2.0),
    Goal("P7 workers", "GET of 1 KiB, --workers 2: requests/s", "nginx, 2 workers", 1.0, more=True),
    Goal("P7 workers p99", "GET of 1 KiB, --workers 2: p99 latency", "nginx, 2 workers", 2.0),
    Goal("P8", "GET of 64 KiB, one process: requests/s", "nginx, 2 workers", 1.0, more=True),
    Goal("P8 workers", "GET of 64 KiB, --workers 2: requests/s", "nginx, 2 workers", 1.0, more=True),
    Goal("P9", f"PUT of 1 GiB, hashed and fsynced: {WALL}", "openssl dgst -sha512 alone", 1.10),
    Goal("P9 small", "durable PUTs of 1 KiB", "–", 2000.0, "/s", more=True),
    Goal("P10 pull", f"{_PEAK} that pulls and serves 10 GiB", "–", 80.0, "MB"),
    Goal("P10 serve", f"{_PEAK} that takes in and serves 10 GiB", "–", 80.0, "MB"),
    Goal("P10 slow", f"{_PEAK} with 200 slow readers", "–", 160.0, "MB"),
    Goal("P11 twice", "bytes fetched twice after kill -9 at half of 1 GiB", "–", 64.0, "MiB"),
    Goal("P11 first", "from start-up to the first new byte of that pull", "–", 1.0, "s"),
    Goal("P12 put", "PUT p50 with 10⁶ blobs", "the same with 10³", 1.2),
    Goal("P12 get", "GET p50 with 10⁶ blobs", "the same with 10³", 1.2),
    Goal("P12 sources", "pull from 50 sources", "the same from 3", 1.2),
    Goal("P12 20 ms", "pull from sources 20 ms away: share of the link", "the link's rate", 0.9, more=True),
    Goal("P12 100 ms", "pull from sources 100 ms away: share of the link", "the link's rate", 0.9, more=True),
    Goal("P12 mixed", "pull from sources of mixed rates: share of the links", "their sum", 0.9, more=True),
    Goal("P12 tail", "the last 1 % of such a pull: share of its time", "–", 5.0, "%"),
    Goal("P13", "start-up with 10⁶ blobs, to /ready", "–", 2.0, "s"),
    Goal("P14 first", "first byte of a cold blob through a node", "nginx proxy_cache", 1.5),
    Goal("P14 seek", "first byte from the middle of a cold blob", "nginx proxy_cache", 1.5),
    Goal("P14 ffmpeg", "ffmpeg's first frame of a cold video", "nginx proxy_cache", 1.5),
    Goal("P14 ffmpeg seek", "ffmpeg's first frame from the middle of it", "nginx proxy_cache", 1.5),
)

BY_KEY = {goal.key: goal for goal in GOALS}

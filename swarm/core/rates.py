"""How fast a source is, and what is usual for it.

Measures; what follows from a measurement is decided in ``swarm.core.dispatch`` and
``swarm.core.stragglers``. Times are seconds of the caller's clock, rates bytes a second.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque

_SAMPLES = 32  # the window is kept as this many lumps, however small the reads are


class Rate:
    """
    The mean rate over the last ``window`` bytes, by the wall time in which they came.

    Only time spent waiting for bytes counts: :meth:`begin` starts the clock when something is
    asked of an idle source, :meth:`rest` stops it. Bursts (many reads in one turn of the
    reactor) cost no accuracy, because lumps are weighted by time, not counted.

    :param window: bytes remembered.
    :param enough: bytes after which the rate counts as known; or else one second of waiting.
    """

    __slots__ = ("_bytes", "_enough", "_last", "_lumps", "_seconds", "_window", "total")

    def __init__(self, window: int, enough: int) -> None:
        self._window = window
        self._enough = enough
        self._lumps: deque[tuple[float, int]] = deque()
        self._seconds = 0.0
        self._bytes = 0
        self._last: float | None = None
        self.total = 0

    def begin(self, now: float) -> None:
        """Something was asked; waiting counts from here unless it counts already."""
        if self._last is None:
            self._last = now

    def rest(self, now: float) -> None:
        """Nothing is asked any more; what was waited in vain has counted."""
        self._seconds = self._waited(now)
        self._last = None

    def add(self, count: int, now: float) -> None:
        """``count`` bytes came."""
        last = self._last
        waited = now - last if last is not None and now > last else 0.0
        self._last = now
        self.total += count
        self._bytes += count
        self._seconds += waited
        lumps = self._lumps
        if lumps and lumps[-1][1] * _SAMPLES < self._window:
            seconds, size = lumps[-1]
            lumps[-1] = (seconds + waited, size + count)
        else:
            lumps.append((waited, count))
        while len(lumps) > 1 and self._bytes - lumps[0][1] >= self._window:
            seconds, size = lumps.popleft()
            self._bytes -= size
            self._seconds -= seconds

    def at(self, now: float) -> float | None:
        """Bytes a second, the present silence included; None while unknown."""
        last, seconds = self._last, self._seconds
        if last is not None and now > last:  # as ``_waited``, which all sources' rates would call each time
            seconds += now - last
        if self._bytes < self._enough and (self._bytes == 0 or seconds < 1.0):
            return None
        return self._bytes / (seconds if seconds > 1e-6 else 1e-6)

    def lately(self, now: float) -> float:
        """
        The same over no more than the last ``enough`` bytes or a little more; 0 if none came.

        A connection doubles its rate each round trip at first: then this is nearer to what it can do.
        """
        count, seconds = 0, self._waited(now) - self._seconds
        for waited, size in reversed(self._lumps):
            count, seconds = count + size, seconds + waited
            if count >= self._enough:
                break
        return count / max(seconds, 1e-6)

    def ceiling(self, now: float) -> float:
        """What an unknown rate must be below: else ``enough`` bytes would be here by now."""
        return self._enough / max(self._waited(now), 1e-6)

    def _waited(self, now: float) -> float:
        last = self._last
        return self._seconds + (now - last) if last is not None and now > last else self._seconds


class Quantiles:
    """Order statistics of the last ``size`` values."""

    __slots__ = ("_recent", "_size", "_sorted")

    def __init__(self, size: int = 64) -> None:
        self._size = size
        self._recent: deque[float] = deque()
        self._sorted: list[float] = []

    def add(self, value: float) -> None:
        """Note a value; the oldest is forgotten when there are too many."""
        if len(self._recent) == self._size:
            oldest = self._recent.popleft()
            del self._sorted[bisect_left(self._sorted, oldest)]
        self._recent.append(value)
        insort(self._sorted, value)

    def at(self, quantile: float, default: float) -> float:
        """The value that the fraction ``quantile`` of the values does not exceed; ``default`` if none."""
        values = self._sorted
        return values[min(len(values) - 1, int(quantile * len(values)))] if values else default

"""One source of a running pull: its spans, its measured rate, and when it may be asked again.

Values, and rows of ``swarm.core.table``. All times are the caller's seconds.
"""

from __future__ import annotations

from attrs import define, field, frozen

from swarm.core.rates import Quantiles, Rate
from swarm.errors import Fault
from swarm.model.peers import PeerID
from swarm.model.ranges import ByteRange, RangeSet

#: Who was not reached may be back at any moment; who answered badly will do so again.
AWAY = (Fault.UNREACHABLE, Fault.SILENT)


@frozen
class Span:
    """Ask ``peer`` for ``range``, in one bounded Range request. ``duplicate``: another is asked too."""

    id: int
    peer: PeerID
    range: ByteRange
    duplicate: bool = False


@frozen
class Shorten:
    """
    Take no byte at or past ``stop`` of this span: its tail goes to another source.

    The span is the last asked of its peer. A request cannot be taken back, so its lane ends there:
    ask this peer's later spans on a new one. ``stop`` may be the span's start: then it is off
    altogether, and its lane ends with the span before it. The table forgets the span by itself
    once it is full to ``stop``.
    """

    span: int
    stop: int


@frozen
class Abort:
    """
    Close the lane of ``peer`` now; all ``spans`` asked of it are off and already forgotten here.

    ``reason`` is ``silence`` (no bytes for too long: the peer's fault), ``lost`` (another source was
    first) or ``slow`` (another source will finish sooner).
    """

    peer: PeerID
    spans: tuple[int, ...]
    reason: str


@define(eq=False)
class Flight:
    """A span under way. ``at`` is the next byte to come; ``stop`` may be moved down."""

    span: Span
    at: int
    stop: int
    asked: float  # when the peer could begin to answer it
    heard: float  # the last sign of life
    expected: float  # when its first byte should come, by what is known of its source
    pipelined: bool = False  # asked behind another: its first byte tells nothing of the way there
    cold: bool = False  # asked on a new lane
    started: bool = False
    rival: Flight | None = None  # the other one after the same bytes, while both fly
    whole: bool = False  # a grain on parole, to come from one source: never cut, never asked twice
    lost: bool = False  # its bytes are here already; it is only drained

    @property
    def left(self) -> int:
        """Bytes still to come."""
        return self.stop - self.at

    def awaited(self, now: float) -> float:
        """Seconds until the first byte should come; 0 if it came, or is late."""
        return 0.0 if self.started else max(0.0, self.expected - now)

    def silence(self, now: float) -> float:
        """Seconds without a sign of life, not counting the usual way there and back."""
        return max(0.0, now - (self.heard if self.started else max(self.heard, self.expected)))


@define(eq=False)
class Feed:
    """One source. ``have`` is None for a complete one."""

    peer: PeerID
    rate: Rate
    have: RangeSet | None = None
    flights: list[Flight] = field(factory=list)  # in the order they were asked
    outstanding: int = 0  # bytes asked and not yet here
    gaps: Quantiles = field(factory=Quantiles)  # seconds between arrivals
    cold: bool = True  # what is asked next needs a new lane
    warm_lag: float | None = None  # seconds to a first byte, asked while nothing else was,
    cold_lag: float | None = None  # and the same on a new lane
    failures: int = 0  # in a row
    busy: int = 0  # in a row
    deflected: int = 0  # in a row: asked by it to choose something else
    silences: int = 0  # in a row
    rests_until: float = 0.0
    spared_until: float = 0.0  # not even asked before this if nobody else brings anything
    detail: str = ""

    @property
    def snubbed(self) -> bool:
        """It fell silent; until it delivers a span it gets single grains, one at a time."""
        return self.silences > 0

    @property
    def answering(self) -> bool:
        """Are bytes of it coming in?"""
        return bool(self.flights) and self.flights[0].started

    @property
    def misses(self) -> int:
        """How often in a row it did not deliver, for whatever reason."""
        return self.failures + self.busy + self.silences

    @property
    def lag(self) -> float | None:
        """
        Seconds to the first byte of what is asked now, if nothing is before it; None while unknown.

        A new lane costs three round trips (TCP, TLS, the request) where a warm one costs one.
        """
        if self.cold:
            return self.warm_lag * 3 if self.cold_lag is None and self.warm_lag else self.cold_lag
        return self.cold_lag / 2 if self.warm_lag is None and self.cold_lag else self.warm_lag

    def answered(self, flight: Flight, seconds: float) -> None:
        """The first byte of a flight that was asked alone came after so long."""
        if flight.cold:
            self.cold_lag = _mean(self.cold_lag, seconds)
        else:
            self.warm_lag = _mean(self.warm_lag, seconds)

    def can_serve(self, wanted: ByteRange) -> bool:
        """Does the source claim every byte of it?"""
        return self.have is None or self.have.covers(wanted.start, wanted.stop)

    def slots(self, now: float) -> int:
        """
        How many spans may be asked of it at once: one streaming, one queued behind it.

        The second as soon as the first begins to come, measured or not: waiting for the measure would
        cost a round trip, and what was never answered holds up a single grain.
        """
        if now < self.rests_until:
            return 0
        if self.snubbed:
            return 1
        return 2 if self.answering or self.rate.at(now) is not None else 1

    def open_slots(self, now: float) -> int:
        """How many more spans may be asked of it; negative after a slot was withdrawn."""
        return self.slots(now) - len(self.flights)

    def patience(self, least: float, factor: float, most: float, first_byte: float) -> float:
        """
        Seconds of silence that are too long: max(``least``, ``factor`` × the usual gap), doubled per silence.

        :param first_byte: the usual time to first byte, which counts before any byte came.
        """
        usual = self.gaps.at(0.95, 0.0) if self.flights[0].started else first_byte
        return min(most, max(least, factor * usual) * 2.0**self.silences)

    def state(self, now: float) -> str:
        """For people: active, probing, idle, snubbed or resting."""
        if now < self.rests_until:
            return "resting"
        if self.snubbed:
            return "snubbed"
        if not self.flights:
            return "idle"
        return "probing" if self.rate.at(now) is None else "active"

    def rest(self, now: float, seconds: float, *, quiet: float, owed: float = 0.0) -> None:
        """
        Leave it alone for some time.

        :param seconds: as long as others bring something.
        :param quiet: the longest, while nobody does.
        :param owed: the least, in any case.
        """
        self.rests_until = now + max(owed, seconds)
        self.spared_until = now + max(owed, min(quiet, seconds))

    def delivered(self) -> None:
        """A span came through: whatever went wrong before is forgiven."""
        self.failures = self.busy = self.silences = self.deflected = 0
        self.detail = ""


def _mean(before: float | None, value: float) -> float:
    """Half of it is the newest value."""
    return value if before is None else (before + value) / 2


def rest_after(failures: int, *, strikes: int, pause: float, most: float, longest: float) -> float:
    """
    Seconds to leave a source alone after its n-th failure in a row.

    min(``most``, n²) below ``strikes`` failures; from there ``pause``, doubling, up to ``longest``.
    """
    if failures < strikes:
        return min(most, float(failures**2))
    return min(longest, pause * 2.0 ** min(failures - strikes, 16))

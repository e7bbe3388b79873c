"""Whatever comes in whatever pieces: no exception, and pieces change nothing."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from .door import Door, Sink

LINES = st.sampled_from(
    [
        b"GET / HTTP/1.1\r\n",
        b"PUT /f HTTP/1.1\r\n",
        b"POST /%41?a=b HTTP/1.1\r\n",
        b"HEAD / HTTP/1.0\r\n",
        b"OPTIONS * HTTP/1.1\r\n",
        b"GET http://h/ HTTP/1.1\r\n",
        b"Host: h\r\n",
        b"Content-Length: 5\r\n",
        b"Content-Length: 0\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Expect: 100-continue\r\n",
        b"Connection: close\r\n",
        b" folded\r\n",
        b"X: y\r\n",
        b"\r\n",
        b"\n",
        b"\r",
        b"hello",
        b"5\r\nhello\r\n",
        b"0\r\n\r\n",
        b"ffffffff\r\n",
    ]
)
STREAMS = st.lists(st.one_of(LINES, LINES, LINES, st.binary(max_size=20)), max_size=25).map(b"".join)


def outcome(stream: bytes, cuts: list[int]) -> tuple[object, ...]:
    """What a door did with a stream cut into pieces."""
    door = Door()
    sinks: list[Sink] = []

    def decide(request: object) -> Sink | None:
        if getattr(request, "method", b"") != b"PUT":
            return None
        sinks.append(Sink())
        return sinks[-1]

    door.decide = decide
    wire = door.wire()
    edges = sorted({0, len(stream), *(cut % (len(stream) + 1) for cut in cuts)})
    for start, stop in itertools.pairwise(edges):
        wire.send(stream[start:stop])
    ended = wire.disconnected
    wire.hang_up()
    assert door.clock.getDelayedCalls() == [] and door.site.connections == 0
    unfinished = [sink for sink in sinks if not sink.aborted]
    puts = [seen for seen in door.leaf.seen if seen[0] == b"PUT"]
    assert len(unfinished) == len(puts), "a sink is finished by its handler or aborted"
    return tuple(door.statuses), tuple(door.leaf.seen), bytes(wire.received), ended


@given(STREAMS, st.lists(st.integers(0, 10_000), max_size=12))
def test_how_a_stream_is_cut_changes_nothing(stream: bytes, cuts: list[int]) -> None:
    assert outcome(stream, cuts) == outcome(stream, []) == outcome(stream, list(range(len(stream))))


@given(st.binary(max_size=300))
def test_noise_is_no_more_than_refused(noise: bytes) -> None:
    statuses, seen, _, _ = outcome(noise, [])
    assert seen == () and set(statuses) <= {400}

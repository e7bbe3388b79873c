"""The reader of answers: what is accepted, what each deviation is called, and that cuts do not matter."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.errors import Fault, Malformed
from swarm.model.digest import Digest
from swarm.model.ranges import ByteRange, RangeSet
from swarm.peering.http1 import Answered, Answers, Arrived, Broken, Event, Head, Told

BLOB = bytes(range(256)) * 4
DIGEST = Digest.of(BLOB)
SIZE = len(BLOB)
SPAN = ByteRange(100, 300)


def reader(*spans: ByteRange, head: int = 1024, refusal: int = 512, batch: int = 64) -> Answers:
    answers = Answers(DIGEST, SIZE, head_limit=head, refusal_limit=refusal, batch=batch)
    for span in spans:
        answers.expect(span)
    return answers


def ok(span: ByteRange = SPAN, **changed: str | None) -> bytes:
    """A right 206; ``changed`` replaces (or with None removes) fields, ``-`` in names written ``_``."""
    fields: dict[str, str | None] = {
        "content_range": span.content_range(SIZE),
        "content_length": str(len(span)),
        "etag": DIGEST.etag,
    }
    fields.update(changed)
    lines = [f"{k.replace('_', '-')}: {v}" for k, v in fields.items() if v is not None]
    return ("HTTP/1.1 206 Partial Content\r\n" + "".join(f"{line}\r\n" for line in lines) + "\r\n").encode()


def bare(status: int, *lines: str, body: bytes = b"") -> bytes:
    return f"HTTP/1.1 {status} x\r\n".encode() + "".join(f"{x}\r\n" for x in lines).encode() + b"\r\n" + body


def feed(answers: Answers, data: bytes, cuts: Sequence[int] = ()) -> list[Event]:
    events: list[Event] = []
    edges = [0, *sorted(c for c in cuts if c < len(data)), len(data)]
    for start, stop in itertools.pairwise(edges):
        if events and isinstance(events[-1], Broken):
            break
        events += answers.receive([data[start:stop]])
    return events


def arrived(events: Sequence[Event]) -> dict[int, bytes]:
    """Offset of each byte handed over, so that order and gaps show."""
    return {e.offset: b"".join(e.views) for e in events if isinstance(e, Arrived)}


def whole(events: Sequence[Event], span: ByteRange) -> bytes:
    at, out = span.start, b""
    for offset, data in arrived(events).items():
        assert offset == at
        at += len(data)
        out += data
    return out


def body(span: ByteRange) -> bytes:
    return BLOB[span.start : span.stop]


@given(st.lists(st.integers(0, 700)))
def test_cuts_do_not_matter(cuts: list[int]) -> None:
    second = ByteRange(0, 50)
    stream = bare(100) + ok() + body(SPAN) + ok(second) + body(second)
    events = feed(reader(SPAN, second), stream, cuts)
    assert [e for e in events if isinstance(e, Answered)] == [Answered(), Answered()]
    done = events.index(Answered())
    assert whole(events[:done], SPAN) == body(SPAN)
    assert whole(events[done:], second) == body(second)


@given(st.lists(st.integers(0, 700)), st.integers(1, 5))
def test_it_does_not_matter_how_many_pieces_come_at_once(cuts: list[int], group: int) -> None:
    stream, answers = ok() + body(SPAN) + ok() + body(SPAN), reader(SPAN, SPAN)
    edges = [0, *sorted(c for c in set(cuts) - {0} if c < len(stream)), len(stream)]
    pieces = [stream[start:stop] for start, stop in itertools.pairwise(edges)]
    events = [
        event for at in range(0, len(pieces), group) for event in answers.receive(pieces[at : at + group])
    ]
    done = events.index(Answered())
    assert whole(events[:done], SPAN) == whole(events[done:], SPAN) == body(SPAN)
    assert events[-1] == Answered()


@given(st.binary(max_size=400), st.lists(st.integers(0, 400)))
def test_noise_never_passes_for_an_answer(noise: bytes, cuts: list[int]) -> None:
    events = feed(reader(SPAN), noise, cuts)
    assert all(isinstance(e, Broken) for e in events)


@given(st.data())
def test_a_damaged_head_is_refused_or_harmless(data: st.DataObject) -> None:
    """Whatever one byte does to a head, no other bytes than the span's many ever come out."""
    head = bytearray(ok())
    head[data.draw(st.integers(0, len(head) - 1))] = data.draw(st.integers(0, 255))
    events = feed(reader(SPAN), bytes(head) + body(SPAN))
    if Answered() in events:
        assert len(whole(events, SPAN)) == len(SPAN)


def test_bytes_come_in_batches_and_at_the_end() -> None:
    events = feed(reader(SPAN, batch=64), ok() + body(SPAN), range(0, 1000, 10))
    sizes = [sum(map(len, e.views)) for e in events if isinstance(e, Arrived)]
    assert all(64 <= size < 84 for size in sizes[:-1])
    assert sum(sizes) == len(SPAN)


def test_views_share_memory_with_what_was_received() -> None:
    answers = reader(SPAN)
    answers.receive([ok()])
    piece = body(SPAN)[:70]
    (event,) = answers.receive([piece])
    assert isinstance(event, Arrived)
    assert event.views[0].obj is piece


def test_what_was_held_back_is_handed_over_when_the_connection_ends() -> None:
    answers = reader(SPAN)
    assert arrived(feed(answers, ok() + body(SPAN)[:10])) == {}
    assert answers.begun and answers.delivering
    assert arrived(answers.flush()) == {100: body(SPAN)[:10]}
    assert answers.flush() == ()


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        (ok(content_range="bytes 100-298/1024"), Fault.WRONG_RANGE),
        (ok(content_range="bytes 101-300/1024"), Fault.WRONG_RANGE),
        (ok(content_range="bytes 100-299/1025"), Fault.WRONG_RANGE),
        (ok(content_range="bytes 100-299/*"), Fault.WRONG_RANGE),
        (ok(content_range=None), Fault.WRONG_RANGE),
        (ok(content_length=None), Fault.WRONG_RANGE),
        (ok(content_length="199"), Fault.WRONG_RANGE),
        (ok(content_length="+200"), Fault.GARBLED),
        (ok(content_length="200, 200"), Fault.GARBLED),
        (ok(Content_Length="200"), Fault.GARBLED),
        (ok(content_encoding="gzip"), Fault.CODED),
        (ok(content_encoding="identity"), Fault.CODED),
        (ok(transfer_encoding="chunked"), Fault.CODED),
        (ok(etag='"abc"'), Fault.VALIDATOR),
        (ok(etag="W/" + DIGEST.etag), Fault.VALIDATOR),
        (ok(repr_digest=Digest.of(b"").repr_digest), Fault.VALIDATOR),
        (ok(repr_digest="sha-512=x"), Fault.GARBLED),
        (bare(200, "Content-Length: 1024"), Fault.WRONG_RANGE),
        (bare(301, "Location: /elsewhere", "Content-Length: 0"), Fault.REFUSED),
        (bare(401, "Content-Length: 0"), Fault.REFUSED),
        (bare(500, "Content-Length: 0"), Fault.REFUSED),
        (bare(421, "Content-Length: 0"), Fault.FOREIGN),
        (bare(416, "Content-Range: bytes */77", "Content-Length: 0"), Fault.WRONG_RANGE),
        (bare(416, "Content-Length: 0"), Fault.WRONG_RANGE),
        (bare(101), Fault.GARBLED),
        (bare(404, "Content-Length: 513"), Fault.OVERSIZED),
        (b"HTTP/1.0 206 x\r\n\r\n", Fault.GARBLED),
        (b"HTTP/1.1 206\n\r\n\r\n", Fault.GARBLED),
        (b"ICY 200 OK\r\n\r\n", Fault.GARBLED),
        (b"HTTP/1.1 206 x\r\n folded: x\r\n\r\n", Fault.GARBLED),
        (b"HTTP/1.1 206 x\r\nno colon\r\n\r\n", Fault.GARBLED),
        (b"HTTP/1.1 206 x\r\nblank : x\r\n\r\n", Fault.GARBLED),
        (b"HTTP/1.1 206 x\r\na: \x00\r\n\r\n", Fault.GARBLED),
        (b"HTTP/1.1 206 x\r\na: b\nc: d\r\n\r\n", Fault.GARBLED),
        (b"x" * 5000, Fault.OVERSIZED),
        (bare(100) * 100, Fault.OVERSIZED),
        (bare(206, *[f"x-{i}: {'a' * 50}" for i in range(30)]), Fault.OVERSIZED),
        (ok() + body(SPAN) + b"!", Fault.GARBLED),
        (ok(swarm_have="bytes=0-x"), Fault.GARBLED),
        (ok(swarm_have=f"bytes=0-{SIZE}"), Fault.GARBLED),
        (bare(503, "Content-Length: 0", "Swarm-Have: all"), Fault.GARBLED),
    ],
)
@pytest.mark.parametrize("step", [1, 7, 100_000])
def test_each_deviation_has_its_name(answer: bytes, fault: Fault, step: int) -> None:
    events = feed(reader(SPAN), answer, range(step, len(answer), step))
    end = events[-1]
    if events[:-1] and step < len(answer) and isinstance(events[-2], Answered):
        # cut right behind the body: the answer was complete before the surplus was seen
        assert answer.endswith(b"!")
    assert isinstance(end, Broken)
    assert end.fault is fault


def test_the_budget_covers_a_head_to_the_last_byte() -> None:
    size = len(ok())
    assert Answered() in feed(reader(SPAN, head=size), ok() + body(SPAN))
    assert isinstance(feed(reader(SPAN, head=size - 1), ok() + body(SPAN))[-1], Broken)
    assert isinstance(feed(reader(SPAN, head=size + 10), bare(100) + ok())[-1], Broken)


def test_the_budget_is_per_answer() -> None:
    answers = reader(*[SPAN] * 10, head=len(ok()))
    events = feed(answers, (ok() + body(SPAN)) * 10)
    assert events.count(Answered()) == 10


def test_what_the_peer_has_is_told_before_its_bytes() -> None:
    heads = (ok(swarm_have="bytes=0-511"), ok(swarm_have="bytes=0-511"), ok(swarm_have="bytes="), ok())
    events = feed(reader(*[SPAN] * 4), b"".join(head + body(SPAN) for head in heads))
    kinds = [event.have if isinstance(event, Told) else type(event) for event in events]
    had = RangeSet([ByteRange(0, 512)])
    assert [each for each in kinds if each is not Arrived] == [
        had, Answered, had, Answered, RangeSet(), Answered, None, Answered,
    ]  # fmt: skip
    assert kinds[1] is Arrived, "bytes come after it"
    assert kinds[0] is [each for each in kinds if each == had][1], "told again, it is not read again"


def test_a_refusal_may_tell_it_and_says_nothing_if_it_does_not() -> None:
    busy, missing = (
        bare(503, "Content-Length: 0"),
        bare(416, f"Content-Range: bytes */{SIZE}", "Content-Length: 0"),
    )
    for answer in (busy, missing):
        told = answer[:-2] + b"Swarm-Have: bytes=0-99\r\n\r\n"
        events = feed(reader(SPAN), told)
        assert events[0] == Told(RangeSet([ByteRange(0, 100)])) and len(events) == 2
        assert [type(event) for event in feed(reader(SPAN), answer)] == [Answered]
    gone = bare(404, "Content-Length: 0", "Swarm-Have: bytes=0-99")
    assert [type(event) for event in feed(reader(SPAN), gone)] == [Answered]


def test_the_whole_blob_may_come_as_200() -> None:
    everything = ByteRange(0, SIZE)
    events = feed(reader(everything), bare(200, f"Content-Length: {SIZE}") + BLOB)
    assert whole(events, everything) == BLOB


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (bare(404, "Content-Length: 9", body=b"not found"), Answered(Fault.MISSING, "404")),
        (bare(404, "Content-Length: 0"), Answered(Fault.MISSING, "404")),
        (bare(404), Answered(Fault.MISSING, "404", reusable=False)),
        (
            bare(404, "Transfer-Encoding: chunked", body=b"0\r\n\r\n"),
            Answered(Fault.MISSING, "404", reusable=False),
        ),
        (
            bare(404, "Content-Length: 0", "Connection: foo, Close"),
            Answered(Fault.MISSING, "404", reusable=False),
        ),
        (
            bare(416, "Content-Range: bytes */1024", "Content-Length: 0"),
            Answered(Fault.MISSING, "not these bytes yet"),
        ),
        (bare(503, "Content-Length: 0", "Retry-After: 7"), Answered(Fault.BUSY, "503", 7)),
        (bare(503, "Content-Length: 0", "Retry-After: 999999"), Answered(Fault.BUSY, "503", 3600)),
        (bare(503, "Content-Length: 0", "Retry-After: soon"), Answered(Fault.BUSY, "503")),
    ],
)
def test_a_refusal_is_read_to_its_end_and_the_next_answer_follows(answer: bytes, told: Answered) -> None:
    events = feed(reader(SPAN, SPAN), answer + ok() + body(SPAN))
    assert events[0] == told
    assert (events[-1] == Answered()) is told.reusable


def test_the_last_answer_says_so() -> None:
    events = feed(reader(SPAN), ok(connection="close") + body(SPAN))
    assert events[-1] == Answered(reusable=False)


def test_bytes_nobody_asked_for() -> None:
    (event,) = reader().receive([b"x"])
    assert isinstance(event, Broken) and event.fault is Fault.GARBLED


def test_a_head_keeps_repeated_fields() -> None:
    head = Head.parse(b"HTTP/1.1 200 \r\nA: 1\r\na:  2 \r\nb:")
    assert head.fields["a"] == ("1", "2")
    with pytest.raises(Malformed):
        head.one("a")

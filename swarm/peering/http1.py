"""Reading a peer's answers to range requests: strict HTTP/1.1, and no I/O.

Decides what counts as the bytes that were asked for, and which :class:`~swarm.errors.Fault` it is
when they are something else. Does not decide what happens to the peer, nor when its time is up.

Written for two properties general clients lack: every byte a hostile peer sends counts against a
budget, and the middle of a body costs one method call and no copy for all the TLS records that came at once.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Mapping, Sequence

from attrs import field, frozen

from swarm.errors import Fault, Malformed
from swarm.model.digest import Digest
from swarm.model.ranges import ByteRange, RangeSet, parse_content_range, parse_have

_STATUS = re.compile(rb"HTTP/1\.1 ([1-5][0-9][0-9])(?: [\t\x20-\x7e\x80-\xff]*)?")
_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_NO_VALUE = re.compile(rb"[^\t\x20-\x7e\x80-\xff]")
_LENGTH = re.compile(r"\d{1,19}", re.ASCII)
_UNSATISFIED = re.compile(r"bytes \*/(\d{1,19})", re.ASCII)
_SECONDS = re.compile(r"\d{1,6}", re.ASCII)
_LONGEST_RETRY = 3600


@frozen
class Told:
    """What the peer says it has by now, before the bytes or the refusal that its answer is; None: all."""

    have: RangeSet | None
    given: RangeSet | None = None  # of a holder of all: what it gave to others, if it says so


@frozen
class Arrived:
    """Bytes of the span under way, in order; the views hold on to what the transport gave."""

    offset: int
    views: Sequence[memoryview] = field(repr=False)


@frozen
class Answered:
    """The answer under way is complete. With ``fault`` it was a framed refusal: MISSING or BUSY."""

    fault: Fault | None = None
    detail: str = ""
    retry_after: int | None = None
    reusable: bool = True  # may more answers follow on this connection?


@frozen
class Broken:
    """The peer did something that ends the connection."""

    fault: Fault
    detail: str


Event = Told | Arrived | Answered | Broken


@frozen
class Head:
    """Status and fields of one answer; names in lower case, values stripped."""

    status: int
    fields: Mapping[str, tuple[str, ...]]

    @classmethod
    def parse(cls, block: bytes) -> Head:
        """
        Read status line and fields, without the empty line that ends them.

        :raises Malformed: bare CR or LF, a folded line, a name that is no token, control
            characters, another version. Nothing is repaired (RFC 9112 section 2.2).
        """
        status_line, *lines = block.split(b"\r\n")
        match = _STATUS.fullmatch(status_line)
        if match is None:
            raise Malformed("not an HTTP/1.1 status line")
        fields: dict[str, tuple[str, ...]] = {}
        for line in lines:
            name, colon, value = line.partition(b":")
            if not colon or not _NAME.fullmatch(name) or _NO_VALUE.search(value):
                raise Malformed("not a header field")
            key = name.decode("ascii").lower()
            fields[key] = (*fields.get(key, ()), value.strip(b" \t").decode("latin-1"))
        return cls(int(match[1]), fields)

    def one(self, name: str) -> str | None:
        """
        The value of a field that may be there once.

        :raises Malformed: it is there twice.
        """
        values = self.fields.get(name, ())
        if len(values) > 1:
            raise Malformed(f"{len(values)} {name} fields")
        return values[0] if values else None

    @property
    def length(self) -> int | None:
        """
        ``Content-Length``.

        :raises Malformed: not one plain number.
        """
        value = self.one("content-length")
        if value is None:
            return None
        if not _LENGTH.fullmatch(value):
            raise Malformed("an impossible Content-Length")
        return int(value)

    @property
    def retry_after(self) -> int | None:
        """``Retry-After`` in seconds, at most an hour; dates and nonsense are None."""
        values = self.fields.get("retry-after", ())
        seconds = int(values[0]) if len(values) == 1 and _SECONDS.fullmatch(values[0]) else None
        return None if seconds is None else min(seconds, _LONGEST_RETRY)

    @property
    def closes(self) -> bool:
        """Is this the last answer on the connection?"""
        options = ",".join(self.fields.get("connection", ())).lower()
        return "close" in (option.strip() for option in options.split(","))


class Answers:
    """I turn what one connection receives into events, in the order of what was asked.

    After a :class:`Broken` or an :class:`Answered` that is not reusable, nothing more may be
    received.
    """

    def __init__(self, digest: Digest, size: int, *, head_limit: int, refusal_limit: int, batch: int) -> None:
        self._digest = digest
        self._size = size
        self._head_limit = head_limit
        self._refusal_limit = refusal_limit
        self._batch = batch
        self._asked: deque[ByteRange] = deque()
        self._head = bytearray()
        self._spent = 0  # bytes of 1xx answers before this head
        self._left = 0  # bytes of the body still to come; 0 while reading a head
        self._refused: Answered | None = None  # the body is to be thrown away, then this is told
        self._closes = False
        self._offset = 0
        self._views: list[memoryview] = []
        self._held = 0
        self._have: tuple[str, RangeSet] = "", RangeSet()  # as it was told last; mostly it is told again

    def expect(self, span: ByteRange) -> None:
        """A request for ``span`` was sent."""
        self._asked.append(span)

    @property
    def begun(self) -> bool:
        """Has any byte of the answer under way arrived?"""
        return bool(self._left or self._head or self._spent)

    @property
    def delivering(self) -> bool:
        """Are bytes of the span coming, rather than a head or the body of a refusal?"""
        return self._left > 0 and self._refused is None

    def receive(self, pieces: Sequence[bytes | memoryview]) -> Sequence[Event]:
        """Take what the transport received, in as many pieces as it came in."""
        count = sum(map(len, pieces))
        if count >= self._left or self._refused is not None:
            return self._receive_edge(memoryview(pieces[0] if len(pieces) == 1 else b"".join(pieces)))
        self._left -= count
        self._views += map(memoryview, pieces)
        self._held += count
        return () if self._held < self._batch else (self._flush(),)

    def flush(self) -> Sequence[Event]:
        """What has arrived of a body and was held back."""
        return (self._flush(),) if self._held else ()

    def _receive_edge(self, data: memoryview) -> Sequence[Event]:
        events: list[Event] = []
        while data:
            try:
                if self._left:
                    data = self._body(data, events)
                elif self._asked:
                    data = self._read_head(data, events)
                else:
                    raise _Break(Fault.GARBLED, "bytes that nobody asked for")
            except _Break as e:
                events.append(Broken(e.fault, e.detail))
                break
            except Malformed as e:
                events.append(Broken(Fault.GARBLED, str(e)))
                break
            if events and isinstance(events[-1], Answered) and not events[-1].reusable:
                break
        return events

    def _body(self, data: memoryview, events: list[Event]) -> memoryview:
        taken, rest = data[: self._left], data[self._left :]
        self._left -= len(taken)
        if self._refused is None:
            self._views.append(taken)
            self._held += len(taken)
            if self._held >= self._batch or not self._left:
                events.append(self._flush())
        if not self._left:
            if rest and len(self._asked) == 1:
                raise _Break(Fault.GARBLED, "bytes past the end of the answer")
            events.append(self._finish())
        return rest

    def _finish(self) -> Answered:
        self._asked.popleft()
        answered, self._refused = self._refused or Answered(reusable=not self._closes), None
        return answered

    def _flush(self) -> Arrived:
        arrived = Arrived(self._offset, self._views)
        self._offset += self._held
        self._views, self._held = [], 0
        return arrived

    def _read_head(self, data: memoryview, events: list[Event]) -> memoryview:
        head, had = self._head, len(self._head)
        head += data[: self._head_limit - self._spent - had]
        end = head.find(b"\r\n\r\n", max(0, had - 3))
        if end < 0:
            if self._spent + len(head) >= self._head_limit:
                raise _Break(Fault.OVERSIZED, f"more than {self._head_limit} bytes of head")
            return data[len(data) :]
        rest = data[end + 4 - had :]
        block, self._head = bytes(head[:end]), bytearray()
        answer = Head.parse(block)
        if answer.status == 101:
            raise _Break(Fault.GARBLED, "a switch of protocols nobody asked for")
        if answer.status < 200:
            self._spent += end + 4
            return rest
        self._spent = 0
        self._judge(answer)
        self._hear(answer, events)
        if not self._left:
            events.append(self._finish())
        return rest

    def _judge(self, head: Head) -> None:
        """Is this the span that was asked for, or a refusal that leaves the connection usable?"""
        self._closes = head.closes
        missing = _missing(head, self._size)
        if missing or head.status == 503:
            self._refuse(head, missing)
            return
        span = self._asked[0]
        if "content-encoding" in head.fields or "transfer-encoding" in head.fields:
            raise _Break(Fault.CODED, "blob bytes come as they are")
        if head.status == 206:
            value = head.one("content-range")
            if value is None:
                raise _Break(Fault.WRONG_RANGE, "a 206 without Content-Range")
            try:
                got = parse_content_range(value)
            except Malformed as e:
                raise _Break(Fault.WRONG_RANGE, str(e)) from e
            if got != (span, self._size):
                raise _Break(Fault.WRONG_RANGE, f"asked {span.header}, got {value}")
        elif head.status == 200:
            if span != ByteRange(0, self._size):
                raise _Break(Fault.WRONG_RANGE, "the whole blob instead of a range")
        elif head.status == 416:
            raise _Break(Fault.WRONG_RANGE, "416: it knows the blob with another size")
        elif head.status == 421:
            raise _Break(Fault.FOREIGN, "421")
        else:
            raise _Break(Fault.REFUSED, str(head.status))
        self._check_validators(head)
        length = head.length
        if length != len(span):
            raise _Break(Fault.WRONG_RANGE, f"Content-Length {length} for {len(span)} bytes")
        self._left, self._offset = length, span.start

    def _hear(self, head: Head, events: list[Event]) -> None:
        """A holder that answers with bytes and does not say which it has has them all."""
        value, given = head.one("swarm-have"), head.one("swarm-given")
        if value is None:
            if self._refused is None or (given is not None and head.status == 503):
                events.append(Told(None, None if given is None else parse_have(given, self._size)))
        elif head.status != 404:
            if value != self._have[0]:
                self._have = value, parse_have(value, self._size)
            events.append(Told(self._have[1]))

    def _check_validators(self, head: Head) -> None:
        etag = head.one("etag")
        if etag is not None and etag != self._digest.etag:
            raise _Break(Fault.VALIDATOR, "the ETag names other bytes")
        for value in head.fields.get("repr-digest", ()):
            if Digest.from_digest_field(value) not in (None, self._digest):
                raise _Break(Fault.VALIDATOR, "Repr-Digest names other bytes")

    def _refuse(self, head: Head, missing: str) -> None:
        """Remember a 404, 416 or 503; its body, if framed and short, is read and dropped."""
        framed = "transfer-encoding" not in head.fields
        length = head.length if framed else None
        if length is not None and length > self._refusal_limit:
            raise _Break(Fault.OVERSIZED, f"{length} bytes to say {head.status}")
        self._left = length or 0
        self._refused = Answered(
            Fault.MISSING if missing else Fault.BUSY,
            missing or "503",
            head.retry_after,
            reusable=length is not None and not self._closes,
        )


def _missing(head: Head, size: int) -> str:
    """Why these bytes are not there although the peer plays fair: no blob, or not these bytes of it yet."""
    if head.status == 404:
        return "404"
    if head.status == 416:
        total = _UNSATISFIED.fullmatch(head.one("content-range") or "")
        if total is not None and int(total[1]) == size:
            return "not these bytes yet"
    return ""


class _Break(Exception):
    """Ends the reading; told as :class:`Broken`."""

    def __init__(self, fault: Fault, detail: str) -> None:
        super().__init__(detail)
        self.fault = fault
        self.detail = detail

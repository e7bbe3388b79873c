"""The short path: plain reads of blobs that are open already, answered where they are parsed.

A request takes it when it is nothing but ``GET`` or ``HEAD`` of ``/{id}`` in lower case with the fields every
client sends, whole in what was just received, and the store has the blob open (``IBlobStore.opened``:
unmarked, unchanged and proven, asked anew for each request). Everything else goes the full way,
unchanged, and it is the full way that opens a blob for the next time. So whatever is decided here is
"the usual answer, or not mine"; the answer itself is the full way's, its fields come from the same function.

Measured beside the full way: ``docs/performance.md``. Three things make it cheap. A client repeats its
fields word for word, so they are judged once for each wording. Head and body are put together in one
buffer that is used again and again, and given to the kernel in one call. And nothing is counted, timed
or looked up that the full way would not count, time or look up.

What many ask for in the same words at the same time is answered to all of them with what was found for
the first, until the reactor looks for bytes again. Their requests were here before anything was looked at,
so each answer is still of a moment between its request and itself. Nothing is kept any longer.

Fair: a connection gets ``_ANSWERS`` and about ``WebLimits.chunk`` bytes in one turn of the reactor, and
nothing more once its transport is full. How a connection waits is :mod:`swarm.web.channel`'s.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Protocol

from attrs import frozen
from twisted.internet.interfaces import IReactorTime

from swarm.interfaces import BlobInfo, IOpenBlob
from swarm.web.strict import is_host

if TYPE_CHECKING:
    from swarm.web.channel import Channel

#: Answers to one connection before the others have their turn.
_ANSWERS = 16
#: The longest fields worth remembering, in bytes, and how many wordings of them.
_WORDS, _WORDINGS = 1024, 512
#: Bytes from which the kernel copies a body itself; below, one call to it is worth more than no copy.
_FILE = 16 << 10
#: Answers that are kept for who else asks in the same turn; so many for nothing, and none is for a second.
_SAID = 64
#: Room for the head of an answer.
_HEAD = 8 << 10

_VERSION = b" HTTP/1.1\r\n"
_FIELD = re.compile(rb"([A-Za-z0-9-]+):[ \t]*([\x20-\x7e]*?)[ \t]*")
#: Fields that change nothing about the answer. All others are the full way's, also those it ignores.
_USUAL = frozenset(
    b"host connection user-agent accept accept-encoding accept-language accept-charset cache-control pragma "
    b"referer origin dnt priority upgrade-insecure-requests sec-fetch-dest sec-fetch-mode sec-fetch-site "
    b"sec-fetch-user sec-gpc sec-ch-ua sec-ch-ua-mobile sec-ch-ua-platform via forwarded x-forwarded-for "
    b"x-forwarded-host x-forwarded-proto x-real-ip".split()
)


class Blobs(Protocol):
    """Where open blobs come from; ``IBlobStore`` is one."""

    def opened(self, key: bytes) -> IOpenBlob | None:
        """See :meth:`swarm.interfaces.IBlobStore.opened`."""


class Answers(Protocol):
    """What the full way knows of plain reads."""

    def readable(self) -> bool:
        """May anybody read any blob now, without a token?"""

    def basis(self) -> object:
        """
        What the fields of an answer depend on beside the blob; the same object while they stay the same.

        Asked for once a second at most.
        """

    def fields(self, info: BlobInfo) -> bytes:
        """By that basis: the lines of an answer's head after ``Date``, each ended, and the empty one."""


@lru_cache(_WORDINGS)
def usual(fields: bytes) -> bool:
    """
    Is this what every client sends, with exactly one fit ``Host``?

    :param fields: the lines of a head after the first, without the last line end.
    """
    hosts = 0
    for line in fields.split(b"\r\n"):
        field = _FIELD.fullmatch(line)
        if field is None or (name := field[1].lower()) not in _USUAL:
            return False
        if name == b"host":
            hosts += 1
            if not is_host(field[2]):
                return False
        elif name == b"connection" and field[2].lower() != b"keep-alive":
            return False
    return hosts == 1


@frozen
class _Said:
    """An answer that was given in this turn: its bytes, or its head and the file that follows."""

    blob: IOpenBlob
    whole: bytes
    file: int
    method: str
    size: int


class ShortPath:
    """
    The short path of one door.

    :param limit: blobs of more bytes go the full way, which sends a chunk at a time: a slow client
        holds no more memory of this node on one way than on the other.
    :param date: the ``Date`` of now.
    :param count: told of each answer: method, and bytes of its body.
    """

    def __init__(
        self,
        blobs: Blobs,
        answers: Answers,
        *,
        clock: IReactorTime,
        limit: int,
        date: Callable[[], bytes],
        count: Callable[[str, int], None],
    ) -> None:
        self._blobs = blobs
        self._answers = answers
        self._limit = limit
        self._date = date
        self._count = count
        self._buffer = memoryview(bytearray(_HEAD + limit))
        self._clock = clock
        self._second = -1
        self._basis: object = None
        self._start = b""
        self._said: dict[bytes, _Said] = {}
        self._worth = _SAID

    def answer(self, channel: Channel, data: bytes, *, fresh: bool) -> int:
        """
        Answer the plain reads ``data`` begins with, as many as the channel may have answered now.

        :param fresh: the reactor just read some of it. Answers to what waited are not kept for others: the
            reactor may look for further requests before it forgets them.
        :return: bytes of ``data`` that are done with; the rest is the full way's unless the channel waits.
        """
        if self._said and (said := self._said.get(data)) is not None and self._again(channel, said):
            self._worth = _SAID
            return len(data)
        at = spent = 0
        for _ in range(_ANSWERS):
            taken = self._one(channel, data, at, fresh)
            if not taken:
                return at
            at, size = taken
            spent += size
            if at == len(data) or channel.full:
                return at
            if spent > self._limit:
                break
        channel.yield_turn()
        return at

    def forget(self) -> None:
        """What was said before must not answer who asks from now on."""
        self._said.clear()

    def _again(self, channel: Channel, said: _Said) -> bool:
        if said.blob.doubted:
            return False
        if said.file < 0:
            channel.send_whole(said.whole)
        elif not channel.send_file(said.whole, said.file, said.size):
            return False
        self._count(said.method, said.size)
        return True

    def _one(self, channel: Channel, data: bytes, at: int, fresh: bool) -> tuple[int, int] | None:
        """Answer the read at ``at``: where it ends and what was sent; None if it is not one of ours."""
        if data.startswith(b"GET /", at):
            key, method = at + 5, "GET"
        elif data.startswith(b"HEAD /", at):
            key, method = at + 6, "HEAD"
        else:
            return None
        line = key + 128
        first = line + len(_VERSION)
        stop = data.find(b"\r\n\r\n", line)
        if data[line:first] != _VERSION or not first <= stop <= first + _WORDS:
            return None
        if not usual(data[first:stop]):
            return None
        blob = self._blobs.opened(data[key:line])
        if blob is None or blob.size > self._limit or not self._answers.readable():
            return None
        head = self._head(blob)
        size = 0 if method == "HEAD" else blob.size
        end = len(head) + size
        file = blob.in_memory() if size >= _FILE else -1
        if file >= 0 and channel.send_file(head, file, size):
            whole = memoryview(head)
        else:
            file = -1
            whole = self._buffer[:end]
            whole[: len(head)] = head
            if size and not blob.fill(whole[len(head) :]):
                return None
            channel.send_whole(whole)
        self._count(method, size)
        alone = not at and stop + 4 == len(data)
        if self._worth and fresh and alone and len(whole) <= _FILE and len(self._said) < _SAID:
            self._worth -= 1
            if not self._said:
                self._clock.callLater(0, self._said.clear)
            self._said[data] = _Said(blob, bytes(whole), file, method, size)
        return stop + 4, end

    def _head(self, blob: IOpenBlob) -> bytes:
        second = int(self._clock.seconds())
        if second != self._second:
            self._second = second
            self._worth = _SAID
            self._basis = self._answers.basis()
            self._start = b"HTTP/1.1 200 OK\r\nDate: " + self._date() + b"\r\n"
        if blob.fields_of is not self._basis:
            blob.fields, blob.fields_of = self._answers.fields(blob.info), self._basis
        return self._start + blob.fields

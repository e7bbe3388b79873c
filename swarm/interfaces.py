"""The ports between what runs (``services``, ``api``) and the walls (``storage``, ``peering``).

Each port has a real implementation and an in-memory twin in ``swarm.testing``; both pass the
same suite in ``swarm.testing.contracts``. Offsets are bytes, half-open; times are seconds.
``async`` methods may be cancelled: they release what they hold and nothing half-done stays visible.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any, ParamSpec, Protocol, TypeVar

from attrs import frozen
from zope.interface import Attribute, Interface

from swarm.model.digest import Digest
from swarm.model.filenames import Filename
from swarm.model.grains import Grains
from swarm.model.holdings import Holding
from swarm.model.midstates import Midstates
from swarm.model.peers import Address, Peer, PeerID
from swarm.model.ranges import ByteRange, RangeSet

_P = ParamSpec("_P")
_T = TypeVar("_T")


class RunBlocking(Protocol):
    """Run a function that may block (disk, hashing) off the reactor's thread."""

    def __call__(
        self, function: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs
    ) -> Coroutine[Any, Any, _T]:
        """Call it in a worker thread; its exception is raised here."""


# -- storage ------------------------------------------------------------------


@frozen
class BlobInfo:
    """What the store knows of a complete blob."""

    digest: Digest
    size: int
    names: tuple[Filename, ...] = ()

    @property
    def filename(self) -> Filename | None:
        """The newest name, the one shown."""
        return self.names[-1] if self.names else None


@frozen
class Stored:
    """The outcome of a finished write."""

    info: BlobInfo
    new: bool


@frozen
class Usage:
    """The state of the volume, for ``/ready`` and ``/metrics``."""

    blobs: int
    bytes: int
    partials: int
    free: int
    quota: int | None
    reserve: int
    read_only: str | None = None  # the reason, once EIO or a failed fsync closed it


class IBlobReader(Interface):
    """Bytes of one blob, complete or still arriving. Close it exactly once."""

    info: BlobInfo = Attribute("BlobInfo: digest, size, names.")

    async def available(offset: int, stop: int) -> int:
        """
        Wait until the byte at ``offset`` may be released, and say up to where (``<= stop``).

        Nothing is waited for where ``offset`` is ``stop``: then it only says if what was handed out is bad.
        At once ``stop`` for a complete blob that was proven lately; one whose proof is old is proven
        on the way. A pull answers as grains are verified, and moves what is asked for to the front of
        its queue.

        :raises PullFailed: the bytes will not come, or some already handed out proved wrong.
        :raises BlobMissing: a copy that was to be proven on the way is damaged, and no longer held.
        :raises StoreFailed: the disk failed.
        """

    def read_now(offset: int, length: int) -> bytes | None:
        """Up to ``length`` available bytes if that cannot block (page cache); None: use :meth:`read`."""

    async def read(offset: int, length: int) -> bytes:
        """
        Exactly ``length`` available bytes, read in a thread.

        :raises StoreFailed: the disk failed, or the file is shorter than its blob.
        """

    def fileno() -> int:
        """A descriptor of the bytes for sendfile, or -1; -1 too while some of them must still be proven."""

    def close() -> None:
        """Let go; a pull nobody reads any more may be slowed, never undone."""


class IOpenBlob(Interface):
    """
    A complete, proven blob that is open already: for answers that wait for no thread.

    Not closed by who uses it, and used only where it was asked for, before the reactor goes on.
    """

    info: BlobInfo = Attribute("BlobInfo: digest, size, names.")
    size: int = Attribute("Bytes of the blob.")
    doubted: bool = Attribute("It was closed, or something of the blob was changed by this node.")
    fields: bytes = Attribute("For who answers with it: the head of its answers, once made.")
    fields_of: object = Attribute("For who made `fields`: what they were made from.")

    def current() -> bool:
        """Would :meth:`IBlobStore.open` find the very same now, proven and unmarked? Never blocks."""

    def fill(buffer: memoryview) -> bool:
        """Put the first ``len(buffer)`` bytes there, if that cannot block; False: open a reader."""

    def in_memory() -> int:
        """A descriptor of the bytes for sendfile, if all were in memory less than a second ago; or -1."""


class IBlobWriter(Interface):
    """A PUT on its way to disk: hashed while it is written, invisible until finished."""

    received: int = Attribute("Bytes taken so far.")

    def write(data: bytes) -> None:
        """
        Take bytes; never blocks for long.

        :raises StorageFull, StoreFailed, LengthMismatch: the write is over; call :meth:`abort`.
        """

    def lagging() -> bool:
        """Is the disk or the hash more than 64 MiB behind? Then pause, and await :meth:`caught_up`."""

    async def caught_up() -> None:
        """Wait until no longer lagging."""

    async def finish(name: Filename | None = None) -> Stored:
        """
        Prove and publish: hash complete, compared, fsynced with every directory above it.

        An existing equal blob is made durable too and answered with ``new=False``; a damaged
        one is replaced.

        :raises DigestMismatch, LengthMismatch, StorageFull, VolumeReadOnly, StoreFailed:
            nothing was kept.
        """

    def abort() -> None:
        """Throw the bytes away; harmless after :meth:`finish`."""


class IPartial(Interface):
    """A pull on its way to disk; survives a crash by its journal.

    The journal lags the data, never leads it: a record is written after the grain it names is durable.
    """

    digest: Digest = Attribute("The blob's id.")
    grains: Grains = Attribute("Its cut; the size is still a claim.")
    journaled: Sequence[int] = Attribute(
        "Grains the journal named when this was opened; not yet re-verified."
    )

    def write(offset: int, data: Iterable[memoryview]) -> None:
        """
        Put bytes at ``offset``, vectored.

        :raises StorageFull, StoreFailed:
        """

    async def end_states(
        index: int, starts: Sequence[bytes | None], *, at_leisure: bool = False
    ) -> tuple[bytes, ...]:
        """
        Hash one grain from the disk once per start, in threads.

        A chaining value as start gives the chaining value at the grain's end (for the last
        grain: the final digest). ``None`` gives the plain SHA-512 of the grain's bytes.

        :param at_leisure: nobody waits for just this one: it may come some milliseconds later, if it costs
            less then.
        """

    async def hash_all() -> Digest:
        """SHA-512 of all bytes in order: the proof where midstates cannot be computed."""

    async def recheck(index: int) -> tuple[bytes | None, bytes] | None:
        """
        Re-verify a journaled grain against its own record.

        :return: ``(start, end)`` as passed to :meth:`mark`, or None if the disk holds other bytes.
        """

    def mark(index: int, start: bytes | None, end: bytes) -> None:
        """Note that a grain was verified from ``start`` to ``end``; journaled by the next checkpoint."""

    def unmark(index: int) -> None:
        """Take a mark back: the grain will be fetched again. Later records win over earlier ones."""

    async def checkpoint() -> None:
        """Make marked grains durable, then their records (fdatasync data, append, fdatasync journal)."""

    async def publish(midstates: Midstates | None, names: Sequence[Filename] = ()) -> Stored:
        """Make the proven bytes a blob, as durably as a PUT, and forget the partial."""

    async def discard() -> None:
        """Delete data and journal."""

    def read_now(offset: int, length: int) -> bytes | None:
        """Up to ``length`` bytes if that cannot block (page cache); None: use :meth:`read`."""

    async def read(offset: int, length: int) -> bytes:
        """Exactly ``length`` bytes, read in a thread; also after :meth:`publish`, until :meth:`close`."""

    def close() -> None:
        """Close descriptors; the files stay for the next start."""


class IBlobStore(Interface):
    """Complete blobs, their names, markers and midstates, and partial pulls."""

    async def start() -> None:
        """Open or create everything; must not walk all blobs."""

    async def stop() -> None:
        """Close everything; writers and partials still open are abandoned (partials stay on disk)."""

    def usage() -> Usage:
        """Counters kept in memory; cheap."""

    def check_allowed(method: str) -> None:
        """:raises MethodDenied: ``DATA/deny{method}`` exists or ``--deny`` names it (get, put, delete)."""

    def check_room(length: int) -> None:
        """:raises StorageFull, VolumeReadOnly: ``length`` more bytes would break quota or reserve."""

    async def open(digest: Digest) -> IBlobReader:
        """
        A reader of a complete blob.

        A blob whose file was changed behind the store's back is verified first. One that was last
        verified longer ago than the settings allow is verified first or while it is read. A damaged
        one goes to quarantine.

        :raises BlobMissing: not here, or marked ``404``, or found damaged.
        :raises BlobForbidden: marked ``403``.
        """

    def opened(key: bytes) -> IOpenBlob | None:
        """
        The blob, if it was opened before and :meth:`open` would find the very same again.

        :param key: the id as 128 lowercase hex digits.
        :return: None says nothing about whether the blob is here.
        """

    async def stat(digest: Digest) -> BlobInfo | None:
        """Size and names of a complete blob; None if absent. Ignores markers."""

    async def check_markers(digest: Digest) -> None:
        """:raises BlobForbidden, BlobMissing: an operator's ``403``/``404`` marker, held or not."""

    async def writer(length: int | None, expect: Digest | None = None) -> IBlobWriter:
        """
        Begin a write of ``length`` bytes (None: unknown, metered as it grows).

        :raises StorageFull, VolumeReadOnly, StoreFailed:
        """

    async def partial(digest: Digest, size: int) -> IPartial:
        """
        Begin or resume a pull; a left-over of another size is discarded.

        :raises StorageFull, VolumeReadOnly, StoreFailed:
        """

    def begun(digest: Digest) -> int | None:
        """The size of the pull that is under way or was left unfinished; None: there is none. From memory."""

    async def unfinished() -> Sequence[tuple[Digest, int]]:
        """Pulls with a valid journal left by an earlier run: (id, size). Others are cleaned away."""

    async def midstates(digest: Digest) -> Midstates | None:
        """The stored list, computed now if it is missing; None: not here, or it cannot be computed."""

    async def add_name(digest: Digest, name: Filename) -> None:
        """
        Append a name durably unless it is already the newest.

        :raises BlobMissing:
        """

    async def delete(digest: Digest) -> BlobInfo:
        """
        Remove a blob durably; markers stay. Readers that have it open finish.

        :raises BlobMissing:
        """

    async def sync_removal(digest: Digest) -> None:
        """
        Make an earlier removal durable, whoever began it; a blob that is here stays.

        :raises VolumeReadOnly, StoreFailed:
        """

    async def verify(digest: Digest) -> bool:
        """
        Re-read and re-hash; a damaged blob goes to ``quarantine/`` and counts as absent.

        :raises BlobMissing:
        """

    async def digests(after: Digest | None = None, limit: int = 1000) -> Sequence[Digest]:
        """Ids held, in order, a page at a time."""


class IHintStore(Interface):
    """Durable notes: "this blob still lacks copies; try again". Survive crashes."""

    async def add(digest: Digest, copies: int) -> None:
        """Remember; durable when this returns."""

    async def remove(digest: Digest) -> None:
        """Forget."""

    async def pending() -> Sequence[tuple[Digest, int]]:
        """All hints: (id, copies wanted)."""


class IPeerBook(Interface):
    """Whom this node met, kept over restarts: who is away then is still owed copies and tombstones."""

    async def save(met: Sequence[tuple[Peer, float]]) -> None:
        """
        Replace what is kept: peers, and when each was last alive, in seconds since 1970.

        :raises LocalError: the disk refuses; what was kept stays.
        """

    async def load() -> Sequence[tuple[Peer, float]]:
        """
        What was saved last, in the order it was given.

        :raises LocalError: it cannot be read.
        """


class ITombstones(Interface):
    """Which blobs were deleted from the whole swarm, and which nodes have yet to hear of it.

    Each id has a generation, 0 until its first swarm-wide deletion. A copy belongs to the generation
    in force when it was stored, so a tombstone that arrives late never removes a newer copy.
    """

    def generation(digest: Digest) -> int:
        """The newest generation known; from memory."""

    def buried(digest: Digest) -> bool:
        """Deleted, and not known to be put again since? Then it is pulled only from who has a newer copy."""

    async def bury(digest: Digest, generation: int, owed_to: Iterable[PeerID] = ()) -> None:
        """
        Record a tombstone that opens ``generation``; an older one than known changes nothing. Durable.

        :param owed_to: peers that have yet to hear of it, recorded with it or not at all; see :meth:`owe`.
        """

    async def revive(digest: Digest, generation: int) -> None:
        """A copy of ``generation`` (or newer than known) was stored: no longer buried. Durable."""

    async def owe(digest: Digest, peers: Iterable[PeerID]) -> None:
        """These peers have not confirmed the newest tombstone yet. Durable."""

    async def paid(digest: Digest, peer: PeerID) -> None:
        """One has."""

    async def owed() -> Sequence[tuple[Digest, int, PeerID]]:
        """All that is still to be delivered: (id, generation, to whom)."""


# -- peers --------------------------------------------------------------------


#: Told what a peer has of a blob (None: all), and what of it a complete holder gave to others, if it says so.
Told = Callable[[RangeSet | None, RangeSet | None], None]


def untold(have: RangeSet | None, given: RangeSet | None) -> None:
    """Who does not want to know what a peer has by now."""


class ILane(Interface):
    """One keep-alive connection to one peer for one pull."""

    peer: Peer = Attribute("Who is at the other end.")

    async def fetch(span: ByteRange, sink: Callable[[int, Sequence[memoryview]], None]) -> None:
        """
        Fetch exactly ``span``, handing bytes to ``sink(offset, views)`` as they come, in order.

        A second call may be made while one is under way: its request is sent at once and its
        body follows on the same connection. What ``sink`` raises aborts the connection and is raised here.

        :raises PeerError: classified (see ``Fault``); the lane is dead after any but MISSING and BUSY.
        """

    def pause() -> None:
        """Stop reading from the socket (the disk lags)."""

    def resume() -> None:
        """Go on reading."""

    def close() -> None:
        """End the connection now; fetches under way fail with CancelledError."""


class IPeerClient(Interface):
    """Everything this node asks of another, over mutual TLS. All of it times out."""

    async def locate(peer: Peer, digest: Digest) -> Holding | None:
        """
        HEAD: what the peer has of the blob; None if nothing.

        :raises PeerError:
        """

    async def midstates(peer: Peer, digest: Digest, size: int) -> Midstates:
        """:raises PeerError: MISSING, or GARBLED if it is not a list for ``size``."""

    def lane(
        peer: Peer,
        digest: Digest,
        size: int,
        told: Told = untold,
    ) -> ILane:
        """
        A lane to the peer; it connects on its first fetch.

        :param told: called with what the peer says in each answer that it has by then (None: all), before
            ``sink`` gets a byte of that answer.
        """

    async def sample(peer: Peer, digest: Digest, size: int, span: ByteRange) -> bytes:
        """
        A few bytes of a blob that the peer says it has all of.

        :raises PeerError: MISSING if it has only a part by now, so that its bytes are no evidence.
        """

    async def push(
        peer: Peer,
        info: BlobInfo,
        read: Callable[[int, int], Coroutine[Any, Any, bytes]],
        generation: int = 0,
    ) -> bool:
        """
        PUT a replica, reading it through ``read(offset, length)``.

        :return: True if the peer stored it now, False if it was there already. Either way it
            said so after the bytes were verified and durable.
        :raises PeerError:
        """

    async def report_corrupt(peer: Peer, digest: Digest, reason: str) -> None:
        """Advise a peer that its copy is bad, so that it verifies itself. :raises PeerError:"""

    async def delete(peer: Peer, digest: Digest, generation: int) -> bool:
        """Deliver a tombstone; True once the peer has it durably. :raises PeerError:"""

    async def greet(address: Address, full: bool) -> tuple[PeerID, dict[str, Any]]:
        """
        POST /cluster/: introduce ourselves at an address.

        :return: who answered there, proven by TLS, and its cluster document.
        :raises PeerError:
        """


__all__ = [
    "BlobInfo",
    "IBlobReader",
    "IBlobStore",
    "IBlobWriter",
    "IHintStore",
    "ILane",
    "IOpenBlob",
    "IPartial",
    "IPeerBook",
    "IPeerClient",
    "ITombstones",
    "RunBlocking",
    "Stored",
    "Told",
    "Usage",
    "untold",
]

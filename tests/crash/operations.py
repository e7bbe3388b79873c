"""What a store promises something about, each as an operation: what was there before, and what is done.

An operation may be done again after it was cut short, as a client would do it; then it must succeed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from swarm.errors import Fault, LocalError, PeerError, StoreFailed
from swarm.model.digest import Digest
from swarm.model.filenames import Filename
from swarm.model.peers import Address, Peer, PeerID
from swarm.services.deletion import Deletion, DeletionSettings
from swarm.storage.adopt import Outcome
from swarm.testing.contracts import MIB, pattern, put
from tests.contracts.rigs import on_the_spot
from tests.crash.plays import Play, blob, named
from tests.storage.test_work import Threads

GRAIN = 4096
"""With :data:`SMALLER`; one sector of the simulated disk."""

SMALLER = MIB // GRAIN

SMALL, EMPTY, OTHER, BIG = pattern(3000, 1), b"", pattern(700, 2), pattern(3 * GRAIN + 700, 3)
NEAR = Peer(PeerID(b"n" * 32), "near", Address.parse("127.0.0.1:1"))
AWAY = Peer(PeerID(b"a" * 32), "away", Address.parse("127.0.0.1:2"))

_Act = Callable[[Play], Coroutine[Any, Any, None]]


async def nothing(play: Play) -> None:
    """Nothing was there before."""


@frozen
class Operation:
    """
    One thing a store does.

    :ivar before: what the disk holds already; all of it went well.
    :ivar starts: the operation starts the store itself.
    :ivar ends: it stops it.
    :ivar promises: told of success although a sync failed, its outside would be lied to.
    """

    act: _Act
    before: _Act = nothing
    starts: bool = False
    ends: bool = False
    promises: bool = True
    weight: int = 1
    """Its platters are so many times as much work as others'."""

    @property
    def name(self) -> str:
        """For people."""
        return self.act.__name__


# -- what is there before ---------------------------------------------------------


async def held(play: Play) -> None:
    """Two blobs, one of several grains."""
    await play.put(SMALL, "before")
    await play.put(BIG, "before")


async def damaged(play: Play) -> None:
    """One of the two has a bit flipped."""
    await held(play)
    play.damage(BIG)


async def deleted_everywhere(play: Play) -> None:
    """A tombstone that a peer has yet to hear of."""
    await held(play)
    await delete_everywhere(play)


async def begun(play: Play) -> None:
    """A pull of which two grains were saved."""
    partial = await play.store.partial(Digest.of(BIG), len(BIG))
    await _bring(play, partial, range(2))
    partial.close()


async def begun_and_put(play: Play) -> None:
    """A pull whose blob was put meanwhile."""
    await begun(play)
    await held(play)


async def hinted(play: Play) -> None:
    """A note that a blob lacks copies."""
    await held(play)
    await hint(play, 2)


async def dtfc_store(play: Play) -> None:
    """Another program's store: a blob with names, a marked one, and a marker of one that is not there."""
    for data, names, marker in ((SMALL, b"one\ntwo\n", ""), (OTHER, b"", "403"), (None, b"", "404")):
        place = Path(play.data, "old")
        for two in _pairs(Digest.of(data or b"not there").hex):
            place /= two
        _plant(play, place / "filename", names)
        if data is not None:
            _plant(play, place / "data", data)
        if marker:
            _plant(play, place / marker, b" ")


def _pairs(digits: str) -> list[str]:
    return [digits[at : at + 2] for at in range(0, len(digits), 2)]


def _plant(play: Play, path: Path, content: bytes) -> None:
    disk, made = play.disk, []
    while not path.parent.exists() and not made:
        made = [each for each in reversed(path.parents) if not each.exists()]
        for each in made:
            disk.mkdir(str(each))
            disk.fsync_dir(str(each.parent))
    fd = disk.create(str(path))
    if content:
        disk.pwritev(fd, [content], 0)
    disk.fsync(fd)
    disk.close(fd)
    disk.fsync_dir(str(path.parent))
    play.told.known((("source", str(path.relative_to(play.data))), content))


# -- PUT --------------------------------------------------------------------------


async def put_new(play: Play) -> None:
    """One small, one empty, one of several grains; then a second name by a second PUT."""
    await play.put(SMALL, "small")
    await play.put(EMPTY, "empty")
    await play.put(BIG, "big")
    await play.put(SMALL, "klein")


async def put_over_damage(play: Play) -> None:
    """A PUT brings a damaged blob back."""
    await play.put(BIG, "healed")


async def put_together(play: Play) -> None:
    """Several PUTs that wait together while another one is committed."""
    threads, outcomes = Threads(), list[object]()
    play.store._work._run_blocking = threads
    Deferred.fromCoroutine(play.put(OTHER, "leader")).addBoth(outcomes.append)
    leading, threads.queue = threads.queue, []
    for data in (EMPTY, SMALL, BIG):
        Deferred.fromCoroutine(play.put(data, "together")).addBoth(outcomes.append)
        threads.all()
    threads.queue = leading + threads.queue
    threads.all()
    play.store._work._run_blocking = on_the_spot
    assert len(outcomes) == 4, "somebody waits for ever"
    for each in outcomes:
        if isinstance(each, Failure):
            each.raiseException()


async def put_again(play: Play) -> None:
    """What was deleted everywhere is put anew."""
    digest, stones = Digest.of(BIG), play.store.tombstones
    play.told.in_order = []
    with play.told.change(blob(BIG), named(BIG, "again"), (("tombstone", digest.hex), (1, 0))):
        await put(play.store, BIG, "again")
        await stones.revive(digest, stones.generation(digest))


# -- pulls ------------------------------------------------------------------------


async def pull(play: Play) -> None:
    """Grain by grain, with checkpoints; resumed if some of it is there."""
    digest = Digest.of(BIG)
    if await play.store.stat(digest) is not None:
        return
    partial = await play.store.partial(digest, len(BIG))
    try:
        for index in partial.journaled:
            assert await partial.recheck(index) is not None, "a journaled grain is not there"
        await _bring(play, partial, range(2))
        await _bring(play, partial, range(2, partial.grains.count))
        with play.told.change(blob(BIG), named(BIG, "pulled")):
            await partial.publish(None, (Filename.parse("pulled"),))
    finally:
        partial.close()


async def resume(play: Play) -> None:
    """The same, where some of it is there."""
    await pull(play)


async def _bring(play: Play, partial: Any, grains: Sequence[int]) -> None:
    missing = [each for each in grains if each not in partial.journaled]
    for index in missing:
        start = partial.grains.start(index)
        partial.write(start, [memoryview(BIG)[start : partial.grains.stop(index)]])
        (end,) = await partial.end_states(index, [None])
        partial.mark(index, None, end)
    with play.told.change(*(_grain(index) for index in missing)):
        await partial.checkpoint()


def _grain(index: int, value: bool | None = True) -> Any:
    return ("grain", Digest.of(BIG).hex, index), value


async def discard(play: Play) -> None:
    """A pull is given up."""
    with play.told.change(*(_grain(index, None) for index in range(2))):
        partial = await play.store.partial(Digest.of(BIG), len(BIG))
        try:
            await partial.discard()
        finally:
            partial.close()


async def tidy_up(play: Play) -> None:
    """What is left of a pull that nobody needs any more."""
    with play.told.change(*(_grain(index, None) for index in range(2))):
        assert not await play.store.unfinished()


# -- taking away ------------------------------------------------------------------


async def delete_here(play: Play) -> None:
    """As a DELETE."""
    await play.delete(BIG)


class _Peers:
    """One of two peers can be reached."""

    async def delete(self, peer: Peer, digest: Digest, generation: int) -> None:
        if peer is AWAY:
            raise PeerError(peer.id, Fault.UNREACHABLE)


def _deletion(play: Play) -> Any:
    if play.deletion is None:
        play.deletion = _new_deletion(play)
    return play.deletion


def _new_deletion(play: Play) -> Deletion:
    client: Any = _Peers()
    stones, clock, forget = play.store.tombstones, play.rig.clock, lambda digest: nothing(play)
    peers = [NEAR, AWAY]
    return Deletion(
        play.store, stones, client, lambda: peers, DeletionSettings(), name="us", clock=clock, forget=forget
    )


async def delete_everywhere(play: Play) -> None:
    """As a DELETE of all copies: the tombstone and who is owed it, before anything is gone."""
    digest = Digest.of(BIG)
    buried = ("tombstone", digest.hex), (1, 1)
    near, away = (("owed", digest.hex, peer.id.raw.hex()) for peer in (NEAR, AWAY))
    play.told.in_order = [buried, (away, True), (blob(BIG)[0], None)]
    for kind in (play.told.on_disk, play.told.here):
        kind.setdefault(near, {None}).add(True)
    with play.told.change(buried, (away, True), *play.gone(BIG)):
        done = await _deletion(play).everywhere(digest)
    assert play.told.dead or "near" in done.confirmed
    with suppress(LocalError):  # it was told; whether that could be noted is another matter
        owed = {peer for _, _, peer in await play.store.tombstones.owed()}
        if NEAR.id not in owed and not play.told.dead:
            play.told.known((near, None))


async def obey_tombstone(play: Play) -> None:
    """A peer says that a blob was deleted everywhere."""
    digest = Digest.of(BIG)
    buried = ("tombstone", digest.hex), (1, 1)
    play.told.in_order = [buried, (blob(BIG)[0], None)]
    with play.told.change(buried, *play.gone(BIG)):
        await _deletion(play).ordered(digest, 1)


# -- what belongs to a blob -------------------------------------------------------


async def add_name(play: Play) -> None:
    """A second name."""
    with play.told.change(named(SMALL, "after")):
        await play.store.add_name(Digest.of(SMALL), Filename.parse("after"))


async def verify_damaged(play: Play) -> None:
    """A damaged blob is put into quarantine."""
    if await play.store.stat(Digest.of(BIG)) is not None:
        assert not await play.store.verify(Digest.of(BIG))


async def derive_midstates(play: Play) -> None:
    """The list is computed, and kept."""
    with suppress(FileNotFoundError):
        os.unlink(play.rig.layout.file(Digest.of(BIG), "midstates"))
    assert await play.store.midstates(Digest.of(BIG)) is not None


# -- import -----------------------------------------------------------------------


async def adopt(play: Play, *, hard_links: bool = False) -> None:
    """Another program's store is taken in."""
    facts = [blob(SMALL), named(SMALL, "one"), named(SMALL, "two"), blob(OTHER)]
    forbidden, missing = Digest.of(OTHER).hex, Digest.of(b"not there").hex
    facts += [(("marker", forbidden, "403"), True), (("marker", missing, "404"), True)]
    with play.told.change(*facts):
        found = [each async for each in play.store.adopt(f"{play.data}/old", hard_links=hard_links)]
        failed = [each for each in found if each.outcome is Outcome.FAILED]
        if failed or len(found) < 3:  # what could not be looked at is logged
            raise StoreFailed("try again")


async def adopt_by_hard_links(play: Play) -> None:
    """The same, sharing the files."""
    await adopt(play, hard_links=True)


# -- what exists in the catalog only ----------------------------------------------


async def hint(play: Play, copies: int = 3) -> None:
    """A blob lacks copies."""
    digest = Digest.of(SMALL)
    with play.told.change((("hint", digest.hex), copies)):
        await play.store.hints.add(digest, copies)


async def drop_hint(play: Play) -> None:
    """It no longer does."""
    with play.told.change((("hint", Digest.of(SMALL).hex), None)):
        await play.store.hints.remove(Digest.of(SMALL))


async def meet_peers(play: Play) -> None:
    """Whom to greet after a restart."""
    for met in ([NEAR], [NEAR, AWAY]):
        with play.told.change(*((("peer", peer.id.raw.hex()), True) for peer in met)):
            await play.store.peers.save([(peer, 1.0) for peer in met])


# -- lifetime ---------------------------------------------------------------------


async def first_start(play: Play) -> None:
    """Where there was nothing."""
    await play.store.start()


async def stop(play: Play) -> None:
    """In good order; the next start believes it."""
    await play.store.stop()


OPERATIONS = (
    Operation(put_new),
    Operation(put_over_damage, damaged),
    Operation(put_together),
    Operation(put_again, deleted_everywhere),
    Operation(pull),
    Operation(resume, begun),
    Operation(discard, begun),
    Operation(tidy_up, begun_and_put, promises=False),
    Operation(delete_here, held),
    Operation(delete_everywhere, held),
    Operation(obey_tombstone, held),
    Operation(add_name, held),
    Operation(verify_damaged, damaged, promises=False),
    Operation(derive_midstates, held, promises=False),
    Operation(adopt, dtfc_store, weight=32),
    Operation(adopt_by_hard_links, dtfc_store, weight=32),
    Operation(hint, hinted),
    Operation(drop_hint, hinted),
    Operation(meet_peers),
    Operation(first_start, starts=True),
    Operation(stop, held, ends=True),
)

"""Power is lost at every call to the disk, SQLite's included, in every operation that promises something.

Each time many of the platters that may be left are looked at: read without the node's code, then started,
and the operation is done again. ``SWARM_CRASH_IMAGES`` says how many; those that are equal count once.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from random import Random

import pytest

from swarm.storage.disk import Disk
from swarm.testing.contracts import at_once
from swarm.testing.simulation.disk import PowerLoss
from swarm.testing.simulation.scale import Scale
from swarm.testing.simulation.sqlite import Databases
from tests.crash.operations import OPERATIONS, SMALLER, Operation
from tests.crash.plays import CrashDisk, Play, databases, prepared

IMAGES = int(os.environ.get("SWARM_CRASH_IMAGES", "8"))


@pytest.fixture(autouse=True, scope="module")
def simulated() -> Iterator[Databases]:
    with databases() as found, Scale(SMALLER).applied():
        yield found


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda each: each.name)
def test_what_was_answered_survives_and_the_node_goes_on(operation: Operation, simulated: Databases) -> None:
    at, images, through = 0, 0, False
    seen: set[bytes] = set()
    while not through:
        with prepared(operation, simulated) as (play, disk):
            disk.at = at
            with suppress(PowerLoss):
                at_once(operation.act(play))
            through = not play.told.dead
            play.fall()
            tries = range(max(1, IMAGES // operation.weight))
            images += sum(_survives(operation, play, disk, f"{at} {n}", seen) for n in tries)
        at += 1
    assert at > 1
    assert images > 1, "one platter shows nothing"


def _survives(operation: Operation, play: Play, disk: CrashDisk, seed: str, seen: set[bytes]) -> bool:
    """Look at one platter; False if an equal one was seen when the same had been said."""
    key = sha256(repr(sorted(play.told.on_disk.items(), key=repr)).encode())
    for path, content in sorted(disk.survivor(Random(seed)).items()):
        key.update(b"%s %d " % (path.encode(), len(content)))
        key.update(content)
    if key.digest() in seen:
        return False
    seen.add(key.digest())
    root = Path(play.data).parent / seed.replace(" ", "-")
    root.mkdir()
    disk.rebooted(str(root), Random(seed)).release()
    after = Play(str(root), Disk(), play.told.copy())
    after.check(power=True)
    goes_on(operation, after, power=True)
    return True


def goes_on(operation: Operation, play: Play, *, power: bool) -> None:
    """A node starts there, finds everything, does the operation again and ends in good order."""
    if not operation.starts:
        at_once(play.store.start())
        at_once(play.store.unfinished())  # a node's next step: it tidies up
        play.check_started(power=power)
    at_once(operation.act(play))
    if not operation.ends:
        play.check_started(power=power)
        at_once(play.store.stop())
    again = Play(play.data, play.disk, play.told)
    at_once(again.store.start())
    assert not again.store._catalog.doubts, "it did not end in good order"
    again.check_started(power=power)
    assert not again.left_over(), "temporary files stay"
    at_once(again.store.stop())
    assert not again.descriptors(), "a descriptor leaked"

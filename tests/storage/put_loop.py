"""A process that puts blobs until it is killed: prints ``put ID`` and ``gone ID`` once each is promised.

python put_loop.py DATA SEED
"""

from __future__ import annotations

import sys
from random import Random

from twisted.internet.task import Clock

from swarm.hashing import load
from swarm.model.filenames import Filename
from swarm.storage.filesystem import FilesystemStore
from swarm.storage.settings import StoreSettings
from swarm.testing.contracts import at_once


async def on_the_spot(function, /, *args, **kwargs):  # type: ignore[no-untyped-def]  # a RunBlocking
    return function(*args, **kwargs)


async def loop(store: FilesystemStore, random: Random) -> None:
    held = []
    while True:
        data = random.randbytes(random.choice([0, 10, 5000, 300_000, (1 << 20) + 77]))
        writer = await store.writer(len(data) if random.random() < 0.5 else None)
        for at in range(0, len(data), 100_000):
            writer.write(data[at : at + 100_000])
        stored = await writer.finish(Filename.parse(f"{len(held)}"))
        tell("put", stored.info.digest.hex)
        held.append(stored.info.digest)
        if random.random() < 0.2:
            digest = held.pop(random.randrange(len(held)))
            tell("going", digest.hex)
            if await store.stat(digest) is not None:
                await store.delete(digest)
            tell("gone", digest.hex)


def tell(*words: str) -> None:
    sys.stdout.write(" ".join(words) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    clock = Clock()
    clock.advance(1_700_000_000)
    store = FilesystemStore(
        sys.argv[1],
        StoreSettings(reserve=0),
        clock=clock,
        sha512=load(),
        run_blocking=on_the_spot,
        random=Random(1),
    )
    at_once(store.start())
    at_once(loop(store, Random(sys.argv[2])))

"""What the node grants its workers: blobs its own store has open, and only while it would serve them."""

from __future__ import annotations

from typing import Protocol

from swarm.interfaces import IBlobReader, ITombstones
from swarm.model.digest import Digest
from swarm.peering.reads import life
from swarm.storage.open_files import OpenBlob
from swarm.workers.crew import Granted
from swarm.workers.messages import Entry


class Opens(Protocol):
    """What is needed of the store."""

    async def open(self, digest: Digest) -> IBlobReader:
        """See :meth:`swarm.interfaces.IBlobStore.open`."""

    def opened(self, key: bytes) -> OpenBlob | None:
        """See :meth:`swarm.interfaces.IBlobStore.opened`."""


async def grant(store: Opens, tombstones: ITombstones, digest: Digest) -> Granted | None:
    """
    Open a blob for a worker.

    :return: None: the store does not keep it open, so the node has to look each time itself.
    :raises SwarmError: it is not here, marked, or cannot be opened.
    """
    key = digest.hex.encode("ascii")
    blob = store.opened(key)
    if blob is None:
        (await store.open(digest)).close()
        blob = store.opened(key)
    if blob is None:
        return None
    lent = blob.lend()
    names = tuple(name.text for name in blob.info.names)
    entry = Entry(
        blob.size,
        names,
        lent.directory_at,
        lent.file_at,
        lent.since,
        lent.until,
        life(tombstones, digest),
    )
    return Granted(entry, (lent.file.number, lent.directory.number), lent.close)

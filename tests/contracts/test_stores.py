"""Both twins of the storage ports keep the same contract."""

from __future__ import annotations

from swarm.testing.contracts import (
    blobstore_contract,
    hints_contract,
    peer_book_contract,
    tombstones_contract,
)
from tests.contracts.rigs import filesystem, memory

TestMemoryStore = blobstore_contract(memory)
TestMemoryHints = hints_contract(memory)
TestMemoryPeerBook = peer_book_contract(memory)
TestMemoryTombstones = tombstones_contract(memory)

TestFilesystemStore = blobstore_contract(filesystem)
TestFilesystemHints = hints_contract(filesystem)
TestFilesystemPeerBook = peer_book_contract(filesystem)
TestFilesystemTombstones = tombstones_contract(filesystem)

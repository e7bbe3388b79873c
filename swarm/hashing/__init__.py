"""SHA-512 with chaining values at grain boundaries: what verifies one grain alone, on any core.

Decides how bytes are hashed; not what a result is worth (``swarm.core.trust``) nor which thread works.
"""

from __future__ import annotations

from swarm.hashing.lanes import Stretch
from swarm.hashing.sha512 import Hasher, MidstateSha512, PlainSha512, Sha512, load

__all__ = ["Hasher", "MidstateSha512", "PlainSha512", "Sha512", "Stretch", "load"]

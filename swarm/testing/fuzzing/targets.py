"""All targets by name."""

from __future__ import annotations

from collections.abc import Mapping

from swarm.testing.fuzzing import connections, documents, fields
from swarm.testing.fuzzing.target import Target

TARGETS: Mapping[str, Target] = {**connections.BY_NAME, **fields.BY_NAME, **documents.BY_NAME}

"""All targets by name."""

from __future__ import annotations

from collections.abc import Mapping

from swarm.testing.fuzzing.connections import CONNECTIONS
from swarm.testing.fuzzing.documents import DOCUMENTS
from swarm.testing.fuzzing.fields import FIELDS
from swarm.testing.fuzzing.target import Target

TARGETS: Mapping[str, Target] = {each.name: each for each in (*CONNECTIONS, *FIELDS, *DOCUMENTS)}

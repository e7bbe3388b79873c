"""``python -m swarm.testing.fuzzing.one NAME [libFuzzer's options]``: atheris upon one target.

A process of its own for each, as libFuzzer ends the process it runs in. What is imported here is imported
with a counter at each branch.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

from swarm.testing.fuzzing.target import Target

_COUNTED = ("swarm.model", "swarm.web", "swarm.peering", "swarm.api", "swarm.storage", "swarm.config")


def main() -> None:
    """Does not return; exits with a status other than 0 when a promise was broken."""
    name, *options = sys.argv[1:]
    atheris: Any = importlib.import_module("atheris")  # an extra: most who test have no need of it
    with atheris.instrument_imports(
        include=[*_COUNTED, "swarm.workers", "swarm.core.addresses", "twisted.web.http"]
    ):
        target: Target = importlib.import_module("swarm.testing.fuzzing.targets").TARGETS[name]
    from twisted.logger import globalLogBeginner

    globalLogBeginner.beginLoggingTo([], redirectStandardIO=False)
    atheris.Setup([sys.argv[0], *options], target.check)
    atheris.Fuzz()


if __name__ == "__main__":
    main()

"""``python -m swarm.testing.fuzzing.one FAMILY NAME [libFuzzer's options]``: atheris upon one target.

A process of its own for each, as libFuzzer ends the process it runs in. What is imported here is imported
with a counter at each branch, which takes its time: so only the module that the target's family is.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from typing import Any

from swarm.testing.fuzzing.target import Target


def main() -> None:
    """Does not return; exits with a status other than 0 when a promise was broken."""
    family, name, *options = sys.argv[1:]
    atheris: Any = importlib.import_module("atheris")  # an extra: most who test have no need of it
    with atheris.instrument_imports(include=["swarm", "twisted.web.http"]):
        targets: Mapping[str, Target] = importlib.import_module(family).BY_NAME
    from twisted.logger import globalLogBeginner

    globalLogBeginner.beginLoggingTo([], redirectStandardIO=False)
    atheris.Setup([sys.argv[0], *options], targets[name].check)
    atheris.Fuzz()


if __name__ == "__main__":
    main()

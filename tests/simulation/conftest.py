"""Until logging begins, Twisted keeps thousands of events, and with them nodes that died long ago."""

from __future__ import annotations

import pytest
from twisted.logger import globalLogBeginner


@pytest.fixture(autouse=True, scope="session")
def nobody_keeps_the_log() -> None:
    """Begin with nobody listening; what a run logs is for its witness."""
    globalLogBeginner.beginLoggingTo([], redirectStandardIO=False)

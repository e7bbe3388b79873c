#!/usr/bin/env python3
"""Make a throw-away CA and three node identities for this machine, to try things out.

    python certs/make_certs.py [DIRECTORY]

Nothing is overwritten: remove the directory's ``*.pem``, ``nodes`` and ``issued`` first to begin anew.
"""

from __future__ import annotations

import datetime
import sys
from pathlib import Path

from swarm.errors import SwarmError
from swarm.pki import AuthorityDirectory

NODES = ("alpha", "beta", "gamma")
HOSTS = ("localhost", "127.0.0.1", "::1")


def main(directory: Path) -> None:
    """Make everything below ``directory``."""
    now = datetime.datetime.now(datetime.UTC)
    authority = AuthorityDirectory.create(directory, "throw-away swarm CA", now=now, days=30)
    for name in NODES:
        identity = authority.issue(name, (name, *HOSTS), now=now, days=30)
        sys.stdout.write(f"{identity}\n")


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
    except SwarmError as e:
        sys.exit(f"make_certs: {e}")

"""``twistd swarm``: reads options, hands over to :func:`swarm.node.create_node`.

The only module that imports the reactor.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any

from twisted.application.service import IService
from twisted.internet.protocol import Factory
from twisted.logger import Logger
from twisted.python import usage

from swarm import __version__
from swarm.config import load
from swarm.errors import LocalError, Malformed


class Options(usage.Options):
    """Every option is also a key in the ``--config`` file; a flag wins."""

    synopsis = "[options]"
    optParameters = [  # noqa: RUF012 - Twisted's own convention
        ["config", "c", None, "TOML file with settings; unknown keys are an error"],
        ["data", "d", None, "directory for everything the node keeps [./swarm-data]"],
        ["name", "n", None, "name of this node, unique in the swarm [host name]"],
        ["cluster", None, None, "name of the swarm; others are never talked to [swarm]"],
        ["http", None, None, "public HTTP API, a server endpoint [tcp:7040:interface=127.0.0.1]"],
        ["peer", None, None, "peer port, mutual TLS, a server endpoint [tcp:7041:interface=127.0.0.1]"],
        ["public-url", None, None, "URL under which clients reach the public API, told to peers"],
        ["ca", None, None, "PEM: the swarm's CA certificates [DATA/identity]"],
        ["cert", None, None, "PEM: this node's certificate [DATA/identity]"],
        ["key", None, None, "PEM: this node's key [DATA/identity]"],
        ["crl", None, None, "PEM: revoked certificates [DATA/identity, if there]"],
        ["allow", None, None, "SPKI SHA-256 of admitted peers, one a line [DATA/identity, if there]"],
        ["peers", None, None, "peer list, one HOST:PORT a line; re-read when it changes and on SIGHUP"],
        ["quota", None, None, "most bytes the node stores, such as 500GiB [no limit]"],
        ["reserve", None, None, "free space the node never takes [1GiB]"],
        ["tokens", None, None, "bearer tokens for the public API [only loopback may write]"],
        ["copies", None, None, "copies of a blob wanted in all, this node's included [2]"],
        ["workers", None, None, "processes that serve reads on both ports, this one included [1]"],
    ]

    def __init__(self) -> None:
        super().__init__()
        self.many: dict[str, list[str]] = {}

    def opt_advertise(self, address: str) -> None:
        """HOST:PORT under which peers reach this node's peer port; repeatable [from --peer]"""
        self.many.setdefault("advertise", []).append(address)

    def opt_join(self, address: str) -> None:
        """HOST:PORT of a peer to greet at start; repeatable"""
        self.many.setdefault("join", []).append(address)

    def opt_deny(self, methods: str) -> None:
        """get,put,delete: methods refused on the whole node with 403"""
        self.many.setdefault("deny", []).append(methods)

    def opt_version(self) -> None:
        """Show the version and exit."""
        print(f"swarm {__version__}")  # noqa: T201 - this is the answer
        raise SystemExit(0)

    def flags(self) -> dict[str, Any]:
        """What was given, by the name of the setting."""
        given = {key.replace("-", "_"): value for key, value in self.items() if value is not None}
        given.pop("config", None)
        return given | self.many


def makeService(options: Options) -> IService:
    """
    Build the node.

    :raises SystemExit: a setting that cannot be, a certificate that cannot be read; one line says which.
    """
    from twisted.internet import reactor as global_reactor

    from swarm import footprint
    from swarm.groundwork import thread_pool
    from swarm.node import create_node
    from swarm.steady import Steady

    reactor: Any = global_reactor
    reactor.seconds = Steady(reactor.seconds, time.monotonic).seconds
    Factory.noisy = False  # two log lines a connection are of no use

    def fatal(reason: str) -> None:
        # Not sys.stderr: that is the log by now, and the log may go elsewhere.
        print(f"swarm: cannot start: {reason}", file=sys.__stderr__)
        # twistd knows no exit status of its own for a service that fails once it runs.
        reactor.addSystemEventTrigger("after", "shutdown", os._exit, 1)
        reactor.callWhenRunning(reactor.stop)

    Logger(namespace=__name__).info("open files: at most {most}", most=footprint.allow_open_files())
    try:
        path = options["config"]
        config = load(options.flags(), Path(path) if path else None)
        node = create_node(
            reactor,
            config,
            random=random.SystemRandom(),
            run_blocking=thread_pool(reactor),
            fatal=fatal,
        )
    except (LocalError, Malformed) as e:
        # twistd would print a UsageError from here with its traceback.
        raise SystemExit(f"swarm: {e}") from e
    footprint.settle()
    signal.signal(signal.SIGHUP, lambda *_: reactor.callFromThread(node.reread))
    return node

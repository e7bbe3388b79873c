"""Where a worker begins: ``python -m swarm.workers``, started by a node and by nobody else.

The other place that imports the reactor, beside :mod:`swarm.tap`: it is another process. It finds its
messages and its counts as descriptors 3 and 4, ends with the node however that ends, and leaves signals
from a terminal to the node.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import sys
import time
from typing import Any

from twisted.internet import reactor as global_reactor
from twisted.internet.threads import deferToThreadPool
from twisted.logger import globalLogBeginner, textFileLogObserver

from swarm import footprint
from swarm.steady import Steady
from swarm.workers.station import Station
from swarm.workers.tally import Tally

#: Where the node puts them.
CONTROL, TALLY = 3, 4
_THREADS = 4
_PR_SET_PDEATHSIG = 1


def end() -> None:
    """At once: whoever is still being answered was given the time there is."""
    os._exit(0)


def die_with_the_node() -> None:
    """Even where the end of file on the messages cannot be read: stopped, or in an endless loop."""
    libc = ctypes.CDLL(None, use_errno=True)
    if hasattr(libc, "prctl"):
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def main() -> None:
    """Serve until told otherwise."""
    die_with_the_node()
    reactor: Any = global_reactor
    reactor.seconds = Steady(reactor.seconds, time.monotonic).seconds
    reactor.suggestThreadPoolSize(_THREADS)

    async def run_blocking(function: Any, /, *args: Any, **kwargs: Any) -> Any:
        return await deferToThreadPool(reactor, reactor.getThreadPool(), function, *args, **kwargs)

    # The node adds the time, and which worker it was.
    globalLogBeginner.beginLoggingTo([textFileLogObserver(sys.stderr, timeFormat=None)])
    station = Station(
        reactor,
        socket.socket(fileno=CONTROL),
        Tally(TALLY, int(sys.argv[1])),
        run_blocking=run_blocking,
        end=end,
    )
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: reactor.callFromThread(station.leave, ordered=False))
    footprint.settle()
    reactor.run(installSignalHandlers=False)


if __name__ == "__main__":
    main()

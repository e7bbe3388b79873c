"""A bad network: a TCP relay between two nodes that delays, throttles, cuts and corrupts as told.

``python -m swarm.testing.relays PORT TARGET_PORT``, both on 127.0.0.1. It takes orders from stdin,
a line each, in force at once for connections there are and to come:

``delay SECONDS``      every piece waits this long in each direction
``rate BYTES``         at most so many bytes a second in each direction, of each connection; 0: any
``freeze``, ``thaw``   nothing moves; everything moves again
``cut``                reset all connections there are
``half``               end what comes from the target, on all there are, and go on in the other direction
``close``, ``open``    refuse new connections; take them again
``corrupt BYTES``      in each direction, flip a bit every so many bytes; 0: none
"""

from __future__ import annotations

import contextlib
import socket
import struct
import sys
import threading
import time
from typing import NoReturn

from attrs import define, field

_PIECE = 32 << 10


@define(eq=False)
class Pair:
    """Two connected sockets."""

    near: socket.socket
    far: socket.socket

    def reset(self) -> None:
        """End both at once, with RST."""
        for each in (self.near, self.far):
            with contextlib.suppress(OSError):
                each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                each.shutdown(socket.SHUT_RD)
                each.close()

    def half_close(self) -> None:
        """The near side hears no more, but may go on talking."""
        with contextlib.suppress(OSError):
            self.near.shutdown(socket.SHUT_WR)


@define
class Relay:
    """The orders in force and the connections there are."""

    port: int
    target: int
    delay: float = 0.0
    rate: int = 0
    corrupt: int = 0
    taking: bool = True
    moving: threading.Event = field(factory=threading.Event)
    pairs: set[Pair] = field(factory=set)

    def obey(self, line: str) -> None:
        """Take an order."""
        order, _, value = line.strip().partition(" ")
        if order == "delay":
            self.delay = float(value)
        elif order == "rate":
            self.rate = int(value)
        elif order == "corrupt":
            self.corrupt = int(value)
        elif order in ("freeze", "thaw"):
            (self.moving.clear if order == "freeze" else self.moving.set)()
        elif order in ("open", "close"):
            self.taking = order == "open"
        elif order == "cut":
            for pair in tuple(self.pairs):
                pair.reset()
        elif order == "half":
            for pair in tuple(self.pairs):
                pair.half_close()
        else:
            raise SystemExit(f"no such order: {line!r}")

    def serve_for_ever(self) -> NoReturn:
        """Accept and connect."""
        self.moving.set()
        with socket.create_server(("127.0.0.1", self.port), backlog=128) as listening:
            sys.stdout.write("listening\n")
            sys.stdout.flush()
            while True:
                near, _ = listening.accept()
                far = socket.socket()
                pair = Pair(near, far)
                if not self.taking:
                    pair.reset()
                    continue
                threading.Thread(target=self._connect, args=(pair,), daemon=True).start()

    def _connect(self, pair: Pair) -> None:
        try:
            pair.far.connect(("127.0.0.1", self.target))
        except OSError:
            pair.reset()
            return
        self.pairs.add(pair)
        back = threading.Thread(target=self._pump, args=(pair.far, pair.near), daemon=True)
        back.start()
        self._pump(pair.near, pair.far)
        back.join()
        self.pairs.discard(pair)
        for each in (pair.near, pair.far):
            each.close()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        passed = 0
        with contextlib.suppress(OSError):
            while data := source.recv(_PIECE):
                self.moving.wait()
                if self.delay:
                    time.sleep(self.delay)
                if self.rate:
                    time.sleep(len(data) / self.rate)
                if self.corrupt and passed // self.corrupt != (passed + len(data)) // self.corrupt:
                    data = bytes([*data[:-1], data[-1] ^ 1])
                passed += len(data)
                sink.sendall(data)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)


def main() -> NoReturn:
    """Run until stdin ends."""
    relay = Relay(int(sys.argv[1]), int(sys.argv[2]))
    threading.Thread(target=relay.serve_for_ever, daemon=True).start()
    for line in sys.stdin:
        relay.obey(line)
    raise SystemExit(0)


if __name__ == "__main__":
    main()

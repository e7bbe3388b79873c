"""A long wire: packets from one TUN device come out of another, later.

``python -m bench.network_relay FD:FD:SECONDS …``, a wire each: two open TUN devices (see
``network_hosts``) and how long a packet takes from one to the other, either way. Stands in for netem,
which not every kernel has. It decides nothing but when: no packet is lost, reordered or changed here,
and how fast they may come is decided before, by the shaper on the sending device.

A line ``INDEX SECONDS`` on stdin gives a wire another delay, for packets to come.

Devices have ``IFF_VNET_HDR`` and all offloads, so what is one read here may be 64 KiB of one TCP
stream; that is why a loop in Python carries several Gbit/s. Delays are kept to about a tenth of a
millisecond on an idle machine: ``select`` takes microseconds where ``epoll`` takes milliseconds.
"""

from __future__ import annotations

import os
import select
import sys
from collections import deque
from time import monotonic

from attrs import define, field

_LARGEST = (64 << 10) + 64  # a packet of 64 KiB and its virtio header
_AT_ONCE = 32  # packets read from one device before the others have a turn


@define(eq=False)
class Way:
    """One direction of a wire, and what is on it: (when it arrives, packet)."""

    source: int
    sink: int
    delay: float
    packets: deque[tuple[float, bytes]] = field(factory=deque)

    def take(self) -> None:
        """Packets that were sent begin their way."""
        for _ in range(_AT_ONCE):
            try:
                packet = os.read(self.source, _LARGEST)
            except BlockingIOError:
                return
            self.packets.append((monotonic() + self.delay, packet))

    def give(self) -> None:
        """Packets that arrive now are received."""
        now = monotonic()
        while self.packets and self.packets[0][0] <= now:
            try:
                os.write(self.sink, self.packets.popleft()[1])
            except OSError:
                return  # the device is down: so is the wire


def relay(wires: list[tuple[int, int, float]]) -> None:
    """Carry packets until stdin ends."""
    ways = [way for a, b, delay in wires for way in (Way(a, b, delay), Way(b, a, delay))]
    by_source = {way.source: way for way in ways}
    while True:
        due = min((way.packets[0][0] for way in ways if way.packets), default=None)
        wait = None if due is None else max(0.0, due - monotonic())
        for ready in select.select([0, *by_source], [], [], wait)[0]:
            if ready:
                by_source[ready].take()
            elif line := sys.stdin.readline():
                index, seconds = line.split()
                for way in ways[2 * int(index) : 2 * int(index) + 2]:
                    way.delay = float(seconds)
            else:
                return
        for way in ways:
            way.give()


def main() -> None:
    """Read the command line."""
    wires = []
    for argument in sys.argv[1:]:
        a, b, delay = argument.split(":")
        wires.append((int(a), int(b), float(delay)))
    relay(wires)


if __name__ == "__main__":
    main()

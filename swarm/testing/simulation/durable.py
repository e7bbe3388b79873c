"""A file of the simulated disk: what it holds, and what of that is on the platter.

Decides what may be left of a file when power is lost: each sector, and the length, as written last or as
synced last. Instead of a copy at every sync, each change notes what it overwrites: most files are
written, synced once and never changed again.
"""

from __future__ import annotations

import os
from random import Random

from attrs import define, field

SECTOR = 4096


@define(eq=False)
class File:
    """
    A file, by a descriptor of my own, to look at what was written.

    :ivar durable: how many bytes it had when it was synced last.
    :ivar lies: an fsync failed: the kernel holds its pages for clean.
    """

    fd: int
    durable: int = 0
    lies: bool = False
    _overwritten: list[tuple[int, bytes]] = field(factory=list, init=False, repr=False)

    def __del__(self) -> None:
        os.close(self.fd)

    def latest(self) -> bytes:
        """What was written, synced or not."""
        return os.pread(self.fd, os.fstat(self.fd).st_size, 0)

    def changes(self, offset: int, length: int) -> None:
        """Bytes from ``offset`` on are about to be written, or cut off."""
        if length > 0 and offset < self.durable:
            before = os.pread(self.fd, min(length, self.durable - offset), offset)
            if before:  # else it was cut off before
                self._overwritten.append((offset, before))

    def sync(self) -> None:
        """All of it is durable, unless the kernel believes that it is already."""
        if not self.lies:
            self._overwritten.clear()
            self.durable = os.fstat(self.fd).st_size

    def rot(self, offset: int) -> None:
        """A bit flips on the platter; no date changes."""
        fd = os.open(f"/proc/self/fd/{self.fd}", os.O_RDWR)
        try:
            found = os.fstat(fd)
            os.pwrite(fd, bytes([os.pread(fd, 1, offset)[0] ^ 0x10]), offset)
            os.utime(fd, ns=(found.st_mtime_ns, found.st_mtime_ns))
        finally:
            os.close(fd)
        self.sync()

    def synced(self) -> bytes:
        """What is on the platter for certain."""
        data = bytearray(self.latest()[: self.durable])
        data.extend(bytes(self.durable - len(data)))
        for offset, before in reversed(self._overwritten):
            data[offset : offset + len(before)] = before
        return bytes(data)

    def survivor(self, random: Random) -> bytes:
        """What may be left of it."""
        latest, synced = self.latest(), self.synced()
        if latest == synced:
            return latest
        length = random.choice([len(latest), len(synced)])
        sectors = []
        for at in range(0, length, SECTOR):
            sector = random.choice([latest, synced])[at : at + SECTOR]
            sectors.append(sector.ljust(min(SECTOR, length - at), b"\0"))
        return b"".join(sectors)

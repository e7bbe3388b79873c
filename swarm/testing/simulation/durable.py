"""A file of the simulated disk: what it holds, and what of that is on the platter.

Decides what may be left of a file when power is lost: each sector, and the length, as written last or as
synced last. Instead of a copy at every sync, each change notes what it overwrites: most files are
written, synced once and never changed again.
"""

from __future__ import annotations

import os
import stat
from random import Random

from attrs import define, field

SECTOR = 4096


@define(eq=False)
class File:
    """
    A file, by a descriptor of my own, to look at what was written.

    :ivar durable: how many bytes it had when it was synced last.
    """

    fd: int
    durable: int = 0
    _platter: bytes | None = field(default=None, init=False, repr=False)
    """Since a sync failed: what is there, as the kernel takes for clean what it could not write."""
    _again: list[tuple[int, int]] = field(factory=list, init=False, repr=False)
    """What was written since, and so is not clean: offsets and lengths."""
    _overwritten: list[tuple[int, bytes]] = field(factory=list, init=False, repr=False)

    def __del__(self) -> None:
        os.close(self.fd)

    def latest(self) -> bytes:
        """What was written, synced or not."""
        return os.pread(self.fd, os.fstat(self.fd).st_size, 0)

    def changes(self, offset: int, length: int) -> None:
        """Bytes from ``offset`` on are about to be written, or cut off."""
        if self._platter is not None:
            self._again.append((offset, length))
            return
        if length > 0 and offset < self.durable:
            before = os.pread(self.fd, min(length, self.durable - offset), offset)
            if before:  # else it was cut off before
                self._overwritten.append((offset, before))

    def sync(self) -> None:
        """All of it is durable, but what the kernel takes for clean since a sync failed."""
        if self._platter is not None:
            latest = self.latest()
            platter = bytearray(self._platter[: len(latest)].ljust(len(latest), b"\0"))
            for offset, length in self._again:
                sectors = slice(offset - offset % SECTOR, offset + length + -(offset + length) % SECTOR)
                platter[sectors] = latest[sectors]
            self._platter = bytes(platter)
            self._again.clear()
            return
        self._overwritten.clear()
        self.durable = os.fstat(self.fd).st_size

    def fail(self) -> None:
        """A sync fails. As on Linux the next one says nothing of it and writes none of what this lost."""
        if stat.S_ISREG(os.fstat(self.fd).st_mode):
            self._platter = self.synced()
        self._again.clear()

    def rot(self, offset: int) -> None:
        """A bit flips on the platter; no date changes."""
        fd = os.open(f"/proc/self/fd/{self.fd}", os.O_RDWR)
        try:
            found = os.fstat(fd)
            os.pwrite(fd, bytes([os.pread(fd, 1, offset)[0] ^ 0x10]), offset)
            os.utime(fd, ns=(found.st_mtime_ns, found.st_mtime_ns))
        finally:
            os.close(fd)
        self._overwritten.clear()
        self._platter, self.durable = None, os.fstat(self.fd).st_size

    def synced(self) -> bytes:
        """What is on the platter for certain."""
        if self._platter is not None:
            return self._platter
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

"""A disk whose power can be cut under a running node: ext4 on a loop device.

``cut`` stops the file system as a power cut does: from then on nothing reaches the device, not even its
log (``EXT4_IOC_SHUTDOWN``, as xfstests uses it), and what was only in memory is gone. ``mend`` mounts it
anew, which replays the log. A disk with a cache lies in a file of a second ext4, and that is the one that
is stopped: what the first wrote and never asked its device to flush is lost, too.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import subprocess
from pathlib import Path

from attrs import define, field

MIB = 1 << 20
_SHUTDOWN = 0x8004587D  # _IOR('X', 125, __u32)
_NO_LOG_FLUSH = 2
_GET_FREE_LOOP = 0x4C82
_SYS_ADMIN = 1 << 21
#: Nothing gets to the device for being old; only what is synced, or what the kernel has no room for.
_OPTIONS = "loop,commit=600,noauto_da_alloc"


def refusal() -> str | None:
    """Why this process may mount no loop device here; None: it may. Programs that lack are another matter."""
    status = Path("/proc/self/status").read_text()
    (capabilities,) = (int(line.split()[1], 16) for line in status.splitlines() if line.startswith("CapEff"))
    if not capabilities & _SYS_ADMIN:
        return "needs the right to mount"
    try:
        control = os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)
    except OSError as e:
        return f"needs a loop device ({errno.errorcode[e.errno or 0]})"
    try:
        fcntl.ioctl(control, _GET_FREE_LOOP)
    except OSError as e:
        return f"needs a loop device ({errno.errorcode[e.errno or 0]})"
    finally:
        os.close(control)
    return None


@define
class _Layer:
    """A file system in a file."""

    image: Path
    at: Path

    def make(self, size: int) -> None:
        # Written out: later nothing but the blocks themselves changes in what this lies on.
        with self.image.open("wb") as file:
            for _ in range(size // MIB):
                file.write(bytes(MIB))
            os.fsync(file.fileno())
        _run(
            "mkfs.ext4", "-q", "-F", "-E", "nodiscard,lazy_itable_init=0,lazy_journal_init=0", str(self.image)
        )
        self.at.mkdir(exist_ok=True)

    def mount(self) -> None:
        _run("mount", "-t", "ext4", "-o", _OPTIONS, str(self.image), str(self.at))

    def unmount(self) -> None:
        _run("umount", str(self.at))


@define
class Disk:
    """
    Mounted at ``at``; ``cached``: with a cache of its own that a cut empties.

    :param scratch: a directory for the images.
    """

    at: Path
    scratch: Path
    cached: bool = False
    _layers: list[_Layer] = field(factory=list)

    def make(self, size: int) -> None:
        """Make and mount it, for so many bytes."""
        self.scratch.mkdir(parents=True, exist_ok=True)
        top = self.scratch / "image"
        if self.cached:
            below = _Layer(top, self.scratch / "below")
            self._add(below, size + size // 2)
            top = below.at / "image"
        self._add(_Layer(top, self.at), size)

    def _add(self, layer: _Layer, size: int) -> None:
        layer.make(size)
        layer.mount()
        self._layers.append(layer)

    def cut(self) -> None:
        """Now; whoever uses it gets EIO from here on."""
        fd = os.open(self._layers[0].at, os.O_RDONLY)
        try:
            fcntl.ioctl(fd, _SHUTDOWN, struct.pack("I", _NO_LOG_FLUSH))
        finally:
            os.close(fd)

    def mend(self) -> None:
        """Power is back. Nobody may use it until then."""
        for layer in reversed(self._layers):
            layer.unmount()
        for layer in self._layers:
            layer.mount()

    def close(self) -> None:
        """Away with it, whatever state it is in."""
        while self._layers:
            subprocess.run(["umount", "-l", str(self._layers.pop().at)], check=False, capture_output=True)


def _run(*command: str) -> None:
    environment = {**os.environ, "PATH": os.environ.get("PATH", "") + ":/usr/sbin:/sbin"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, (command, done.stderr)

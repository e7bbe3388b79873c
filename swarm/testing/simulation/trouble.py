"""What a simulated disk may refuse, and from which call on: values only."""

from __future__ import annotations

import errno

from attrs import define

_WRITING = frozenset(["tmpfile", "create", "pwritev", "fallocate", "mkdir", "link_fd", "link"])

#: Kinds of trouble: the error, and the calls that fail.
TROUBLE = {
    "ENOSPC": (errno.ENOSPC, _WRITING),
    "EIO writing": (
        errno.EIO,
        frozenset(["pwritev", "fallocate", "ftruncate", "mkdir", "link_fd", "rename", "write_out"]),
    ),
    "EIO reading": (errno.EIO, frozenset(["preadv", "open_read"])),
    "EIO syncing": (errno.EIO, frozenset(["fsync", "fsync_dir", "sync_volume"])),
}


@define
class Trouble:
    """From some call on, so many calls of a kind fail."""

    kind: str
    after: int = 0
    lasts: int = 1 << 30

    def meets(self, call: str) -> int:
        """The error that this call gets; 0 if none."""
        error, calls = TROUBLE[self.kind]
        if call not in calls:
            return 0
        if self.after:
            self.after -= 1
            return 0
        self.lasts -= 1
        return error if self.lasts >= 0 else 0

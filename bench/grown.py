"""A store that holds very many blobs already, for the benches of growth; not a way to put any.

Makes the very files and rows that as many PUTs would have left, without their syncs: every blob has its own
directory and bytes, their ``names`` are links to a few files. About 100 microseconds a blob.
``python -m bench.grown DATA COUNT``
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from swarm.model.digest import Digest
from swarm.storage.catalog import Catalog, Entry
from swarm.storage.disk import Disk
from swarm.storage.layout import DATA, NAMES, Layout

_ROWS = 20_000
_LINKS = 60_000  # ext4 allows 65,000 names a file


def bytes_of(number: int) -> bytes:
    """The bytes of a grown store's blob."""
    return b"blob %d of a grown store\n" % number


def grow(data: Path, count: int) -> None:
    """Make ``data``, which must not exist, a stopped node's directory with ``count`` blobs."""
    layout = Layout(str(data))
    for path in (layout.blobs, layout.partial, layout.quarantine):
        Path(path).mkdir(parents=True)
    catalog = Catalog(layout.catalog, disk=Disk())
    catalog.open()
    catalog.settle(catalog.doubts)
    entries = []
    for entry in _made(layout, count):
        entries.append(entry)
        if len(entries) == _ROWS:
            catalog.record_all(entries)
            entries.clear()
    catalog.record_all(entries)
    catalog.close()
    os.sync()


def _made(layout: Layout, count: int) -> Iterator[Entry]:
    now, known, names = time.time(), set[str](), ""
    for number in range(count):
        content = bytes_of(number)
        digest = Digest.of(content)
        for path in layout.fan_out(digest):
            if path not in known:
                os.mkdir(path, 0o700)
                known.add(path)
        os.mkdir(layout.blob(digest), 0o700)
        fd = os.open(layout.file(digest, DATA), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o440)
        os.write(fd, content)
        modified = os.fstat(fd).st_mtime_ns
        os.close(fd)
        if number % _LINKS == 0:
            names = layout.file(digest, NAMES)
            Path(names).write_bytes(b"grown.txt\n")
        else:
            os.link(names, layout.file(digest, NAMES))
        yield Entry(digest, len(content), modified, now)


if __name__ == "__main__":
    grow(Path(sys.argv[1]), int(sys.argv[2]))

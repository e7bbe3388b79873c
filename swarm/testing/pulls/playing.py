"""Plays rounds with real nodes: three holders, the first behind a relay, and two who pull.

Each download is read to its end, hashed if it is a whole one, and watched. When one stands still for longer
than allowed, what its nodes do at that moment is written down: their pulls, and the stacks of their threads
if ``py-spy`` is there. Sizes are bytes, times seconds.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random

from attrs import define, field, frozen

from swarm.testing.blobs import make_file
from swarm.testing.outsiders import Outsider, outsiders_of
from swarm.testing.processes import Node, Swarm, swarm_in
from swarm.testing.pulls.rounds import MIB, Reading, Round
from swarm.testing.pulls.standing import Moving, Pause, Watch

_PIECE = MIB // 4
_SLOW = MIB  # bytes a second
_LONG = 300.0  # a download that takes longer failed


@frozen
class Blob:
    """One that all holders have."""

    digest: str
    size: int


@define(eq=False)
class Download:
    """A GET, in a thread of its own. ``wrong`` says what was wrong with it."""

    node: Node
    blob: Blob
    start: int
    later: float
    at: int = 0
    ended: bool = False
    wrong: str = ""
    thread: threading.Thread = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.thread = threading.Thread(target=self._run, daemon=True)

    def __str__(self) -> str:
        return f"{self.blob.size} bytes at {self.node.name} from {self.start}"

    def _run(self) -> None:
        try:
            self.wrong = self._read()
        except (OSError, http.client.HTTPException) as e:
            self.wrong = repr(e)
        finally:
            self.ended = True

    def _read(self) -> str:
        connection = http.client.HTTPConnection("127.0.0.1", self.node.http_port, timeout=_LONG)
        sha = hashlib.sha512()
        with contextlib.closing(connection):
            fields = {"Range": f"bytes={self.start}-"} if self.start else {}
            connection.request("GET", f"/{self.blob.digest}", headers=fields)
            response = connection.getresponse()
            if response.status != (206 if self.start else 200):
                return f"{response.status} {response.read(500)!r}"
            while piece := response.read(_PIECE):
                sha.update(piece)
                self.at += len(piece)
        if self.at != self.blob.size - self.start:
            return f"{self.at} bytes came"
        return "wrong bytes" if not self.start and sha.hexdigest() != self.blob.digest else ""


@frozen
class Played:
    """How a download went; ``worst`` is its worst pause in each respect, ``at`` the longest of all."""

    what: str
    seconds: float
    worst: Pause
    wrong: str


@define
class Stage:
    """The nodes, and the blobs the holders have."""

    holders: list[Node]
    pullers: list[Node]
    relay: Outsider
    blobs: list[Blob]
    evidence: Path
    limit: float

    def play(self, drawn: Round) -> list[Played]:
        """One round; afterwards no puller has any of the blobs."""
        own = os.getpid()
        pids = [*(node.pid for node in (*self.holders, *self.pullers)), self.relay.process.pid, own]
        downloads = [self._download(each) for each in drawn.readings]
        began = time.monotonic()
        took: dict[int, float] = {}
        over = threading.Event()
        trouble = threading.Thread(target=self._trouble, args=(drawn, over))
        with Watch(lambda: pids, self.limit, self._note) as watch:
            trouble.start()
            for each in sorted(downloads, key=lambda each: each.later):
                time.sleep(max(0.0, began + each.later - time.monotonic()))
                watch.add(each)
                each.thread.start()
            for each in downloads:
                each.thread.join(_LONG)
                took[id(each)] = time.monotonic() - began - each.later
            over.set()
            trouble.join()
        missing = self._forget(downloads)
        return [
            Played(
                str(each),
                took[id(each)],
                watch.of(each).worst,
                each.wrong if each.ended else f"not over after {_LONG:g} s",
            )
            for each in downloads
        ] + [Played(what, _LONG, Pause(), "not stored") for what in missing]

    def _download(self, reading: Reading) -> Download:
        return Download(self.pullers[reading.puller], self.blobs[reading.blob], reading.start, reading.later)

    def _trouble(self, drawn: Round, over: threading.Event) -> None:
        """Until the downloads are over."""
        victim = self.holders[0]
        if drawn.trouble == "slow":
            self.relay.order(f"rate {_SLOW}")
        while drawn.trouble in ("stopped", "again") and not over.wait(drawn.when):
            victim.kill(signal.SIGSTOP)
            over.wait(drawn.lasting)
            victim.kill(signal.SIGCONT)
            if drawn.trouble == "stopped":
                break
        over.wait()
        self.relay.order("rate 0")

    def _forget(self, downloads: list[Download]) -> list[str]:
        """
        All pulls end and all copies go, so that the next round begins as this one did.

        :return: which blobs were not there, long after the last reader had what it wanted.
        """
        missing: list[str] = []
        for node, blob in {
            (each.node.name, each.blob): (each.node, each.blob) for each in downloads
        }.values():
            deadline = time.monotonic() + _LONG
            while not node.has(blob.digest) and time.monotonic() < deadline:
                time.sleep(0.02)
            if node.request("DELETE", f"/{blob.digest}")[0] != 200:
                missing.append(f"{blob.size} bytes at {node.name}")
        return missing

    def _note(self, download: Moving, pause: Pause) -> None:
        """It stands still right now."""
        assert isinstance(download, Download)
        with self.evidence.open("a") as out:
            out.write(f"\n=== {download}: nothing for {pause.wall:.1f} s at {pause.at}\n")
            with contextlib.suppress(OSError, ValueError):
                where = download.node.request("GET", f"/{download.blob.digest}/locations", timeout=10)[2]
                out.write(json.dumps(json.loads(where), indent=1) + "\n")
            for node in (download.node, *self.holders):
                out.write(f"--- {node.name}\n{_stacks(node)}\n")


def _stacks(node: Node) -> str:
    spy = shutil.which("py-spy")
    if spy is None:
        return "(no py-spy)"
    done = subprocess.run(
        [spy, "dump", "--pid", str(node.pid)], capture_output=True, text=True, timeout=30, check=False
    )
    return done.stdout or done.stderr


@contextlib.contextmanager
def stage(directory: Path, sizes: tuple[int, ...], limit: float) -> Iterator[Stage]:
    """Nodes that all know each other, and blobs of these sizes at each holder; gone when the block ends."""
    with swarm_in(directory / "swarm") as swarm, outsiders_of(swarm) as outsiders:
        first, relay = outsiders.behind_relay("holder0", "--copies=1")
        holders = [first]
        for name in ("holder1", "holder2"):
            holders.append(swarm.add(name, "--copies=1", join=tuple(holders)))
        blobs = [_store(holders, directory / "blob", size) for size in sizes]
        pullers: list[Node] = []
        for name in ("puller0", "puller1"):
            pullers.append(swarm.add(name, "--copies=1", join=(*holders, *pullers)))
        Swarm.wait_acquainted([*holders, *pullers])
        yield Stage(holders, pullers, relay, blobs, directory / "stood-still.txt", limit)


def _store(holders: list[Node], path: Path, size: int) -> Blob:
    blob = Blob(make_file(path, size, Random(size)), size)
    for holder in holders:
        with path.open("rb") as file:
            status, _, answer = holder.request("PUT", f"/{blob.digest}", file)
        assert status in (200, 201, 202), (holder.name, status, answer)
    path.unlink()
    return blob

"""``swarm demo``: four real nodes on this machine show what swarm does, and whether it held.

Decides where the demonstration lives (``.demo`` below the working directory, and nowhere else), and
that nothing of it stays: processes, files, also after an interruption. What is shown, and what must
hold, is in :mod:`swarm.cli.story`.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from attrs import define, field

from swarm.cli.session import Failure, printable

if TYPE_CHECKING:
    from swarm.testing.processes import Node, Swarm

NAMES = ("alpha", "beta", "gamma", "delta")
_MARKER = ".swarm-demo"
#: Starts a program that ends when this process does, however that ends (prctl's PR_SET_PDEATHSIG).
_WITH_US = "import ctypes, os, sys; ctypes.CDLL(None).prctl(1, 9); os.execv(sys.argv[1], sys.argv[1:])"


@click.command()
@click.argument("file", required=False, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--size",
    "mebibytes",
    type=click.IntRange(min=64),
    default=256,
    show_default=True,
    help="MiB to generate.",
)
@click.option("--keep", is_flag=True, help="Leave .demo (data, certificates, logs) in place.")
def demo(file: Path | None, mebibytes: int, keep: bool) -> None:
    """Four nodes store FILE (or a generated one), lose a process and a good copy, and still deliver it."""
    from swarm.cli.story import tell

    stage = Stage(Path(".demo").resolve())
    with _interruptible(), stage.set_up(keep) as swarm:
        try:
            tell(stage, swarm, file.resolve() if file is not None else None, mebibytes << 20)
        except Failure:
            stage.summarize()
            raise
        stage.summarize()
        click.echo(f"\nAll of it held, in {time.monotonic() - stage.began:.0f} seconds.")


class NotOurs(Failure):
    """The directory is not there for the taking."""


@define
class Stage:
    """Where the demonstration happens, what it says, and what held so far."""

    directory: Path
    began: float = field(factory=time.monotonic)
    held: list[tuple[bool, str]] = field(factory=list)

    def say(self, text: str) -> None:
        """A line of the story."""
        click.echo(f"{time.monotonic() - self.began:6.1f} s  {printable(text)}")

    def check(self, held: bool, claim: str) -> None:
        """Something that must hold: noted for the summary; what does not hold ends the story."""
        self.held.append((held, claim))
        if not held:
            raise Failure(f"this did not hold: {claim}")

    def wait(self, condition: Callable[[], Any], claim: str, within: float = 120.0) -> None:
        """As :meth:`check`, for what comes true after a while."""
        deadline = time.monotonic() + within
        while not condition():
            if time.monotonic() > deadline:
                self.check(False, f"{claim} (not within {within:.0f} s)")
            time.sleep(0.02)

    @contextlib.contextmanager
    def set_up(self, keep: bool) -> Iterator[Swarm]:
        """The directory and a swarm without nodes; afterwards neither is left, unless something failed."""
        from http.client import HTTPException

        from swarm.testing.processes import swarm_in

        try:
            with self._claimed(), swarm_in(self.directory / "swarm") as swarm:
                yield swarm
        except NotOurs:
            raise
        except (Failure, AssertionError, HTTPException) as e:
            click.echo(f"\nWhat the nodes wrote is in {self.directory}/swarm/*/log", err=True)
            if isinstance(e, Failure):
                raise
            first, *rest = str(e).strip().splitlines()
            raise Failure(" ".join([first, *rest[-1:]])) from e
        except BaseException:
            shutil.rmtree(self.directory, ignore_errors=True)
            raise
        if not keep:
            shutil.rmtree(self.directory)

    @contextlib.contextmanager
    def _claimed(self) -> Iterator[None]:
        """An empty directory that is ours alone; one that is somebody's, or in use, is not touched."""
        if self.directory.exists() and not (self.directory / _MARKER).exists():
            raise NotOurs(f"{self.directory} exists and is no demo's; move it away")
        self.directory.mkdir(exist_ok=True)
        with (self.directory / _MARKER).open("a") as marker:
            try:
                fcntl.flock(marker, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as e:
                raise NotOurs(f"another demo runs in {self.directory}") from e
            for left in self.directory.iterdir():
                if left.is_dir():
                    shutil.rmtree(left)
                elif left.name != _MARKER:
                    left.unlink()
            (self.directory / "tmp").mkdir()
            yield

    def start(self, swarm: Swarm, *options: str) -> list[Node]:
        """Four nodes that know each other."""
        wrapper = (sys.executable, "-c", _WITH_US)
        environment = {"TMPDIR": str(self.directory / "tmp")}
        nodes: list[Node] = []
        for name in NAMES:
            joined = swarm.add(name, *options, join=tuple(nodes), environment=environment, wrapper=wrapper)
            nodes.append(joined)
            self.say(f"{name}: process {joined.pid}, {joined.url}, peers at {joined.address}")
        swarm.wait_acquainted(nodes)
        return nodes

    def summarize(self) -> None:
        """What held, a line each."""
        click.echo()
        for held, claim in self.held:
            click.echo(f"  {'held' if held else 'FAILED'}   {printable(claim)}")


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Ends by SIGTERM or a closed terminal clean up as Ctrl-C does."""

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    signals = (signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(number, interrupt) for number in signals]
    os.environ.pop("SWARM_TOKEN", None)
    try:
        yield
    finally:
        for number, handler in zip(signals, before, strict=True):
            signal.signal(number, handler)

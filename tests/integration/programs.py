"""How the tests of this directory run other people's programs, and a tap between them and a node."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import threading
import time
from pathlib import Path

from attrs import define, field, frozen

LONG = 120.0  # seconds until a program is taken to hang; never a measure of speed


@frozen
class Ran:
    """What a program left: exit status, standard output and error."""

    code: int
    out: bytes
    err: str

    @property
    def text(self) -> str:
        """Standard output as text."""
        return self.out.decode()


def run(
    *command: str | Path, cwd: Path | None = None, env: dict[str, str] | None = None, given: bytes = b""
) -> Ran:
    """Run a program to its end, whatever that is; ``given`` is its standard input."""
    done = subprocess.run(
        [str(each) for each in command],
        cwd=cwd,
        env=env,
        input=given,
        capture_output=True,
        timeout=LONG,
        check=False,
    )
    return Ran(done.returncode, done.stdout, done.stderr.decode(errors="replace"))


def done(*command: str | Path, cwd: Path | None = None) -> Ran:
    """Run a program that must succeed."""
    ran = run(*command, cwd=cwd)
    assert ran.code == 0, (ran.code, ran.err[-2000:], ran.out[-500:])
    return ran


def status(curl: str, *arguments: str | Path) -> str:
    """What ``curl`` got for a request: the status, with its body thrown away."""
    return run(curl, "-sS", "-o", os.devnull, "-w", "%{http_code}", *arguments).text


@define
class Tap:
    """A TCP relay to ``port`` on loopback: ``budget`` bytes come back through it, then the rest is held.

    What must happen with few bytes can so be told from what happens by chance. Where others give up on
    somebody who is held, ``pace`` (bytes a second) leaves time instead.
    """

    port: int
    budget: int = 1 << 60
    pace: float | None = None
    _listener: socket.socket = field(init=False)
    _changed: threading.Condition = field(factory=threading.Condition)
    _sockets: list[socket.socket] = field(factory=list)
    _closed: bool = False

    def __attrs_post_init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def address(self) -> str:
        """Where to connect to."""
        return f"127.0.0.1:{self._listener.getsockname()[1]}"

    def wait_until_dry(self) -> None:
        """Wait until everything that may pass has passed."""
        with self._changed:
            assert self._changed.wait_for(lambda: self.budget <= 0, LONG), "nobody asked for that much"

    def open(self) -> None:
        """Let everything through."""
        with self._changed:
            self.budget, self.pace = 1 << 60, None
            self._changed.notify_all()

    def close(self) -> None:
        """End all connections."""
        self._closed = True
        self.open()
        for each in (self._listener, *self._sockets):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                self._sockets.append(near)
                try:
                    far = socket.create_connection(("127.0.0.1", self.port))
                except OSError:
                    near.close()
                    continue
                self._sockets.append(far)
                for source, sink, metered in ((near, far, False), (far, near, True)):
                    threading.Thread(target=self._relay, args=(source, sink, metered), daemon=True).start()

    def _relay(self, source: socket.socket, sink: socket.socket, metered: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 14):
                if metered:
                    self._spend(len(data))
                sink.sendall(data)
        for each in (source, sink):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def _spend(self, count: int) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self.budget > 0)
            self.budget -= count
            self._changed.notify_all()
            if self.pace is not None:
                time.sleep(count / self.pace)  # with the lock: all connections share the pace


def noise(size: int) -> bytes:
    """Bytes no two blobs share."""
    return os.urandom(size)

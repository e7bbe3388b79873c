"""libtorrent 2 as a rival: three seeds and a leecher, each a process, plain text over TCP.

Decides its settings, the friendliest known: no discovery, no encryption, no uTP, deep request queues,
large buffers, two hashing threads. libtorrent comes from PyPI (``pip install '.[bench]'``).

``python -m bench.torrents seed PORT TORRENT DIRECTORY`` and ``leech TORRENT DIRECTORY PORT…`` are the
processes.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from attrs import frozen

from bench.measure import Failed, cpu_of
from bench.outcome import CLIENT, SERVER, WALL
from bench.rivals import Missing
from swarm.testing.processes import child_environment, free_port

_ROOT = Path(__file__).parent.parent
_SETTINGS = {
    "enable_dht": False,
    "enable_lsd": False,
    "enable_upnp": False,
    "enable_natpmp": False,
    "enable_outgoing_utp": False,
    "enable_incoming_utp": False,
    "allow_multiple_connections_per_ip": True,
    "send_buffer_watermark": 16 << 20,
    "send_buffer_watermark_factor": 150,
    "send_buffer_low_watermark": 1 << 20,
    "max_out_request_queue": 3000,
    "max_allowed_in_request_queue": 8000,
    "request_queue_time": 3,
    "unchoke_slots_limit": -1,
    "connection_speed": 500,
    "out_enc_policy": 2,
    "in_enc_policy": 2,
    "hashing_threads": 2,
    "aio_threads": 4,
    "max_queued_disk_bytes": 64 << 20,
    "send_socket_buffer_size": 4 << 20,
    "recv_socket_buffer_size": 4 << 20,
    "no_atime_storage": True,
    "alert_mask": 0,
    "rate_limit_ip_overhead": False,
}


def library() -> Any:
    """libtorrent. :raises Missing:"""
    try:
        import libtorrent
    except ImportError:
        raise Missing("libtorrent is not installed (pip install '.[bench]')") from None
    return libtorrent


def make_torrent(source: Path, torrent: Path) -> None:
    """A v1 torrent of one file, in pieces of 4 MiB. :raises Missing:"""
    lt = library()
    files = lt.file_storage()
    lt.add_files(files, str(source))
    made = lt.create_torrent(files, piece_size=4 << 20, flags=lt.create_torrent.v1_only)
    lt.set_piece_hashes(made, str(source.parent))
    torrent.write_bytes(lt.bencode(made.generate()))


@frozen
class Seeds:
    """Three running seeds."""

    torrent: Path
    ports: tuple[int, ...]
    pids: tuple[int, ...]

    def leech(self, directory: Path, *, within: float = 120) -> dict[str, float]:
        """One whole download, checked piece by piece. The start of Python does not count. :raises Failed:"""
        serving = cpu_of(self.pids)
        arguments = ["leech", str(self.torrent), str(directory), *map(str, self.ports)]
        try:
            done = _run(arguments).communicate(timeout=within)
        except subprocess.TimeoutExpired as e:
            raise Failed("libtorrent did not end in time") from e
        try:
            said = json.loads(done[0])
        except ValueError as e:
            raise Failed(f"libtorrent: {done[0][-300:]!r}") from e
        return {WALL: said["wall"], CLIENT: said["cpu"], SERVER: cpu_of(self.pids) - serving}


@contextmanager
def seeds(source: Path, count: int = 3) -> Iterator[Seeds]:
    """
    Seed a file.

    :raises Missing: there is no libtorrent.
    """
    torrent = source.with_suffix(".torrent")
    make_torrent(source, torrent)
    ports = tuple(free_port() for _ in range(count))
    running = [_run(["seed", str(port), str(torrent), str(source.parent)]) for port in ports]
    try:
        for each in running:
            assert each.stdout is not None
            if each.stdout.readline().strip() != b"ready":
                raise Failed("a libtorrent seed did not start")
        yield Seeds(torrent, ports, tuple(each.pid for each in running))
    finally:
        for each in running:
            each.kill()
            each.communicate()


def _run(arguments: Sequence[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "bench.torrents", *arguments],
        cwd=_ROOT,
        env=child_environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )


def _session(lt: Any, port: int) -> Any:
    return lt.session({**_SETTINGS, "listen_interfaces": f"127.0.0.1:{port}"})


def _add(lt: Any, session: Any, torrent: str, directory: str, flags: Any) -> Any:
    parameters = lt.add_torrent_params()
    parameters.ti = lt.torrent_info(torrent)
    parameters.save_path = directory
    parameters.flags = flags
    return session.add_torrent(parameters)


def _seed(port: int, torrent: str, directory: str) -> None:
    lt = library()
    session = _session(lt, port)
    handle = _add(lt, session, torrent, directory, lt.torrent_flags.seed_mode)
    while not handle.status().is_seeding:
        time.sleep(0.05)
    time.sleep(0.5)
    print("ready", flush=True)
    sys.stdin.read()  # until our parent ends


def _leech(torrent: str, directory: str, ports: Sequence[int]) -> None:
    lt = library()
    busy, start = time.process_time(), time.perf_counter()
    flags = lt.torrent_flags
    session = _session(lt, free_port())
    handle = _add(lt, session, torrent, directory, flags.default_flags & ~flags.auto_managed & ~flags.paused)
    for port in ports:
        handle.connect_peer(("127.0.0.1", port))
    while not handle.status().is_seeding:
        time.sleep(0.005)
    print(json.dumps({"wall": time.perf_counter() - start, "cpu": time.process_time() - busy}), flush=True)
    os._exit(0)  # what a session does at its end is not measured


if __name__ == "__main__":
    if sys.argv[1] == "seed":
        _seed(int(sys.argv[2]), *sys.argv[3:5])
    else:
        _leech(sys.argv[2], sys.argv[3], [int(port) for port in sys.argv[4:]])

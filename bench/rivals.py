"""The programs we are measured beside: nginx as a server and as a cache, aria2, wrk.

Decides their settings, which are the friendliest known to them: sendfile, an open file cache,
large output buffers, no access log, two workers, AES-128 as on our side.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from attrs import frozen

from bench.measure import Failed, tree
from swarm.testing.processes import free_port

#: The Debian package of each program, to tell who lacks it.
PACKAGES = {
    "aria2c": "aria2",
    "curl": "curl",
    "ffmpeg": "ffmpeg",
    "nginx": "nginx-light",
    "openssl": "openssl",
    "sha512sum": "coreutils",
    "wrk": "wrk",
}


class Missing(Exception):
    """A program is not installed; its row is left out, and the report says so."""


def need(program: str) -> str:
    """Where a program is. :raises Missing:"""
    found = shutil.which(program, path="/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin")
    if found is None:
        raise Missing(f"{program} is not installed (apt-get install {PACKAGES.get(program, program)})")
    return found


@frozen
class Nginx:
    """A running nginx; its ports in the order they were asked for."""

    process: subprocess.Popen[bytes]
    http_port: int
    tls_ports: tuple[int, ...] = ()

    @property
    def pids(self) -> list[int]:
        """The master and its workers."""
        return tree(self.process.pid)

    @property
    def url(self) -> str:
        """Plain HTTP."""
        return f"http://127.0.0.1:{self.http_port}"


@contextmanager
def nginx(directory: Path, root: Path, identity: Path, *, servers: int = 0) -> Iterator[Nginx]:
    """
    Serve ``root`` over HTTP, ``/put/`` for PUT too, and on further ports over mutual TLS 1.3.

    :param identity: a directory with ca.pem, cert.pem and key.pem.
    :raises Missing: there is no nginx.
    """
    http_port, tls_ports = free_port(), tuple(free_port() for _ in range(servers))
    tls = "".join(
        f"""
    server {{
        listen 127.0.0.1:{port} ssl;
        root {root};
        ssl_certificate {identity}/cert.pem;
        ssl_certificate_key {identity}/key.pem;
        ssl_client_certificate {identity}/ca.pem;
        ssl_verify_client on;
        ssl_protocols TLSv1.3;
        ssl_conf_command Ciphersuites TLS_AES_128_GCM_SHA256;
    }}"""
        for port in tls_ports
    )
    plain = f"""
    server {{
        listen 127.0.0.1:{http_port};
        root {root};
        location /put/ {{ dav_methods PUT DELETE; create_full_put_path on; }}
    }}"""
    with _started(directory, plain + tls) as process:
        yield Nginx(process, http_port, tls_ports)


@contextmanager
def caching_nginx(directory: Path, origins: Sequence[int], identity: Path, slice_: str) -> Iterator[Nginx]:
    """
    A ``proxy_cache`` on plain HTTP in front of origins that speak mutual TLS, in slices, so that a range
    of a cold file costs a slice and not the file.

    :param origins: ports of 127.0.0.1.
    :raises Missing: there is no nginx.
    """
    http_port = free_port()
    servers = "".join(f"server 127.0.0.1:{port}; " for port in origins)
    text = f"""
    proxy_cache_path {directory}/cache levels=1:2 keys_zone=cold:10m max_size=20g use_temp_path=off;
    upstream origins {{ {servers} keepalive 16; }}
    server {{
        listen 127.0.0.1:{http_port};
        location / {{
            slice {slice_};
            proxy_cache cold;
            proxy_cache_key $uri$is_args$args$slice_range;
            proxy_cache_valid 200 206 1h;
            proxy_set_header Range $slice_range;
            proxy_set_header Connection "";
            proxy_http_version 1.1;
            proxy_pass https://origins;
            proxy_ssl_certificate {identity}/cert.pem;
            proxy_ssl_certificate_key {identity}/key.pem;
            proxy_ssl_trusted_certificate {identity}/ca.pem;
            proxy_ssl_verify on;
            proxy_ssl_name localhost;
            proxy_ssl_protocols TLSv1.3;
        }}
    }}"""
    with _started(directory, text) as process:
        yield Nginx(process, http_port)


@contextmanager
def _started(directory: Path, servers: str) -> Iterator[subprocess.Popen[bytes]]:
    program = need("nginx")
    directory.mkdir(parents=True, exist_ok=True)
    temporary = "".join(
        f"    {kind}_temp_path {directory}/tmp;\n"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (directory / "nginx.conf").write_text(f"""
daemon off;
{_user()}
worker_processes 2;
pid {directory}/pid;
error_log {directory}/error.log error;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    sendfile on;
    tcp_nopush on;
    keepalive_requests 100000000;
    client_max_body_size 0;
    client_body_buffer_size 256k;
    output_buffers 2 256k;
    open_file_cache max=100;
{temporary}{servers}
}}
""")
    with (directory / "out").open("wb") as out:
        process = subprocess.Popen(
            [program, "-c", str(directory / "nginx.conf"), "-e", str(directory / "error.log")],
            stdout=out,
            stderr=out,
        )
    try:
        for _ in range(200):
            if process.poll() is not None:
                raise Failed((directory / "out").read_text() + (directory / "error.log").read_text())
            if len(tree(process.pid)) >= 3:
                break
            time.sleep(0.05)
        time.sleep(0.3)
        yield process
    finally:
        process.terminate()
        process.wait()


def _user() -> str:
    """Only a master that is root may name the workers' user; files of root's are to be read."""
    return "user root;" if os.geteuid() == 0 else ""


def aria2(urls: Sequence[str], out: Path, identity: Path, sha512: str | None) -> list[str]:
    """The command that pulls one file from several servers at once, one connection each. :raises Missing:"""
    return [
        need("aria2c"),
        "--quiet",
        "--no-conf",
        "--allow-overwrite=true",
        "--file-allocation=falloc",
        f"--split={len(urls)}",
        "--max-connection-per-server=1",
        "--min-split-size=1M",
        f"--ca-certificate={identity}/ca.pem",
        f"--certificate={identity}/cert.pem",
        f"--private-key={identity}/key.pem",
        f"--dir={out.parent}",
        f"--out={out.name}",
        *([f"--checksum=sha-512={sha512}"] if sha512 else []),
        *urls,
    ]


def wrk(url: str, *, seconds: float, connections: int = 32, script: Path | None = None) -> list[str]:
    """The command that asks as often as it can, from one thread. :raises Missing:"""
    return [
        need("wrk"),
        "--threads=1",
        f"--connections={connections}",
        f"--duration={seconds:.0f}s",
        "--latency",
        *([f"--script={script}"] if script else []),
        url,
    ]


_UNITS = {"us": 1e-3, "ms": 1.0, "s": 1e3, "m": 6e4}


def parse_wrk(text: str) -> tuple[float, float]:
    """
    What wrk prints: requests/s, and p99 latency in ms.

    :raises Failed: not every answer was a good one, or this is nothing wrk prints.
    """
    rate = re.search(r"^Requests/sec:\s+([\d.]+)", text, re.MULTILINE)
    tail = re.search(r"^\s+99%\s+([\d.]+)(us|ms|s|m)\s*$", text, re.MULTILINE)
    bad = re.search(r"^\s*(Non-2xx or 3xx responses: .*|Socket errors: .*)$", text, re.MULTILINE)
    if rate is None or tail is None or bad is not None:
        raise Failed(f"wrk: {bad[1] if bad else text[-300:]}")
    return float(rate[1]), float(tail[1]) * _UNITS[tail[2]]

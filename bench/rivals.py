"""The programs we are measured beside: nginx as a server of blobs, with and without mutual TLS.

Decides their settings, which are the friendliest known to them: sendfile, an open file cache,
large output buffers, no access log.
"""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from attrs import frozen

from swarm.testing.processes import free_port


class Missing(Exception):
    """A program is not installed; its row is left out, and the report says so."""


def need(program: str) -> str:
    """Where a program is. :raises Missing:"""
    found = shutil.which(program, path="/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin")
    if found is None:
        raise Missing(f"{program} is not installed")
    return found


@frozen
class Nginx:
    """A running nginx."""

    process: subprocess.Popen[bytes]
    http_port: int
    tls_ports: tuple[int, ...]

    @property
    def pids(self) -> list[int]:
        """Its workers: they do the work."""
        pid = self.process.pid
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
        return [int(child) for child in text.split()]


@contextmanager
def nginx(directory: Path, root: Path, identity: Path, *, servers: int) -> Iterator[Nginx]:
    """
    Serve ``root`` over HTTP, and on ``servers`` further ports over mutual TLS 1.3.

    :param identity: a directory with ca.pem, cert.pem and key.pem.
    """
    directory.mkdir(parents=True, exist_ok=True)
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
    temporary = "".join(
        f"    {kind}_temp_path {directory}/tmp;\n"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (directory / "nginx.conf").write_text(f"""
daemon off;
user root;
worker_processes 2;
pid {directory}/pid;
error_log {directory}/error.log warn;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    sendfile on;
    tcp_nopush on;
    keepalive_requests 1000000;
    client_max_body_size 0;
    client_body_buffer_size 256k;
    output_buffers 2 256k;
    open_file_cache max=100;
{temporary}    server {{
        listen 127.0.0.1:{http_port};
        root {root};
        location /put/ {{ dav_methods PUT DELETE; create_full_put_path on; }}
    }}
{tls}
}}
""")
    with (directory / "out").open("wb") as out:
        process = subprocess.Popen(
            [need("nginx"), "-c", str(directory / "nginx.conf"), "-e", str(directory / "error.log")],
            stdout=out,
            stderr=out,
        )
    try:
        running = Nginx(process, http_port, tls_ports)
        for _ in range(100):
            if process.poll() is not None:
                raise RuntimeError((directory / "out").read_text() + (directory / "error.log").read_text())
            if len(running.pids) >= 2:
                break
            time.sleep(0.05)
        time.sleep(0.3)
        yield running
    finally:
        process.terminate()
        process.wait()


def aria2(urls: Sequence[str], out: Path, identity: Path, sha512: str | None) -> list[str]:
    """The command that pulls one file from several servers at once, one connection each."""
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

"""Where a figure was taken: the machine, the programs' versions, the commit."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path

from bench.rivals import Missing, need

ROOT = Path(__file__).parent.parent

#: How each program is asked for its version.
_VERSIONS = {
    "nginx": "-v",
    "aria2c": "--version",
    "curl": "--version",
    "wrk": "--version",
    "openssl": "version",
    "ffmpeg": "-version",
}


def facts(disk: Path, memory: Path) -> dict[str, str]:
    """What a reader must know to compare figures with their own."""
    return {
        "CPU": f"{len(os.sched_getaffinity(0))} cores, {_cpu()}",
        "memory": f"{_meminfo('MemTotal') / 2**30:.1f} GiB",
        "kernel": f"Linux {platform.release()}",
        "disk": filesystem(disk),
        "tmpfs": filesystem(memory),
        "load before": " ".join(f"{load:.2f}" for load in os.getloadavg()),
        "versions": ", ".join(versions()),
    }


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.machine()


def _meminfo(what: str) -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith(f"{what}:"):
            return int(line.split()[1]) * 1024
    return 0


def available_memory() -> int:
    """Bytes that could be had without swapping."""
    return _meminfo("MemAvailable")


def filesystem(path: Path) -> str:
    """The kind of filesystem a path lies on."""
    best, kind = "", "unknown"
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, point, this, *_ = line.split()
        inside = path.resolve() == Path(point) or Path(point) in path.resolve().parents
        if inside and len(point) >= len(best):
            best, kind = point, this
    return kind


def versions() -> list[str]:
    """Ours and what the others say they are."""
    ours = [f"Python {platform.python_version()}"]
    for name in ("Twisted", "pyOpenSSL", "cryptography", "libtorrent"):
        try:
            ours.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return [*ours, *(said for name, flag in _VERSIONS.items() if (said := _said(name, flag)))]


def _said(name: str, flag: str) -> str:
    """``nginx/1.22.1`` and ``aria2 version 1.36.0`` both become a name and a number."""
    try:
        done = subprocess.run([need(name), flag], capture_output=True, text=True, timeout=20)
    except (Missing, OSError, subprocess.TimeoutExpired):
        return ""
    words = (done.stdout or done.stderr).replace("/", " ").replace("version", " ").split()
    number = next((word for word in words if word[:1].isdigit()), "")
    return f"{name} {number}"


def commit() -> str:
    """The checkout's commit, and whether the code differs from it."""

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=20)
        return done.stdout.strip()

    try:
        head = git("rev-parse", "--short=12", "HEAD")
        changed = git("status", "--porcelain", "--untracked-files=no", "--", "swarm", "twisted", "bench/*.py")
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return f"{head}, with changes" if changed else head or "unknown"

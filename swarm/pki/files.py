"""How certificates, keys and revocation lists reach the disk: whole or not at all.

Decides permissions (a key is 0600 from its first byte) and that nothing is overwritten unless the
caller says so. What is in the files is decided in ``swarm.pki.authority``.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from swarm.errors import IdentityError

PUBLIC = 0o644
SECRET = 0o600

MOST = 4 * 1024 * 1024
"""No certificate, bundle or revocation list of ours comes near it (bytes)."""


def write_file(path: Path, data: bytes, *, mode: int, replace: bool = False) -> None:
    """
    Put ``data`` at ``path`` durably; no reader ever sees a part of it.

    :param mode: permissions, not widened by the umask.
    :param replace: an existing file may be replaced; otherwise it is an error.
    :raises IdentityError: the file exists, or the disk refuses.
    """
    try:
        _make(path.parent, 0o700)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # 0600, O_EXCL
        try:
            with open(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fchmod(handle, mode)
                os.fsync(handle)
            if replace:
                os.replace(name, path)
            else:
                _link_new(name, path)
        finally:
            Path(name).unlink(missing_ok=True)
        sync_directory(path.parent)
    except OSError as e:
        raise IdentityError(path, f"cannot be written ({e.strerror})") from e


def read_file(path: Path) -> bytes:
    """
    Read a small file.

    :raises IdentityError: it is missing, unreadable or longer than :data:`MOST`.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MOST + 1)
    except OSError as e:
        raise IdentityError(path, f"cannot be read ({e.strerror})") from e
    if len(data) > MOST:
        raise IdentityError(path, f"is longer than {MOST} bytes")
    return data


def _link_new(name: str, path: Path) -> None:
    try:
        os.link(name, path)  # unlike a rename it fails where something is
    except FileExistsError as e:
        raise IdentityError(path, "exists already, and is never overwritten") from e


def _make(path: Path, mode: int = 0o777) -> None:
    """Make a directory and those above it, durably."""
    if not path.is_dir():
        _make(path.parent)
        path.mkdir(mode, exist_ok=True)
        sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """
    Make the names in a directory durable.

    :raises OSError:
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

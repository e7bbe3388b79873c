"""Keys and certificates: what was answered survives a power cut, and what fails leaves what was there."""

from __future__ import annotations

import datetime
import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from swarm.errors import IdentityError
from swarm.pki import AuthorityDirectory, ensure_identity, peer_id, read_certificates, read_private_key

NOW = datetime.datetime(2030, 1, 1, tzinfo=datetime.UTC)
LATER = NOW + datetime.timedelta(days=30)


class Kernel:
    """Sees what is done below a directory: which names are not durable yet; the ``k``-th call fails."""

    def __init__(self, root: Path, patch: pytest.MonkeyPatch) -> None:
        self.root = str(root)
        self.unsynced: set[str] = set()
        self.calls, self.k = 0, 0
        for name in ("mkdir", "link", "rename", "replace", "fsync", "fchmod"):
            patch.setattr(os, name, self._watched(name, getattr(os, name)))

    def _watched(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def watched(*arguments: Any, **options: Any) -> Any:
            target = arguments[-1] if name in ("link", "rename", "replace") else arguments[0]
            fd = isinstance(target, int)
            path = os.readlink(f"/proc/self/fd/{target}") if fd else os.fspath(target)
            if not path.startswith(self.root):
                return call(*arguments, **options)
            self.calls += 1
            if self.calls == self.k:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            result = call(*arguments, **options)
            if name == "fsync":
                self.unsynced.discard(path)
            elif not fd:
                self.unsynced.add(os.path.dirname(path))
            return result

        return watched


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Kernel]:
    with monkeypatch.context() as patch:
        yield Kernel(tmp_path, patch)


def test_whatever_pki_answered_is_durable_with_all_directories_above(tmp_path: Path, kernel: Kernel) -> None:
    authority = AuthorityDirectory.create(tmp_path / "a" / "ca", now=NOW)
    assert not kernel.unsynced
    node = authority.issue("paris", ["127.0.0.1"], now=NOW)
    assert not kernel.unsynced
    authority.renew(node / "cert.pem", now=LATER)
    authority.revoke([node / "cert.pem"], now=LATER)
    assert not kernel.unsynced


def test_so_is_the_identity_that_a_lone_node_makes(tmp_path: Path, kernel: Kernel) -> None:
    ensure_identity(tmp_path / "data" / "identity", "lone", now=NOW)
    assert not kernel.unsynced & {str(tmp_path), str(tmp_path / "data")}


def test_a_renewal_that_fails_at_any_call_leaves_a_pair_that_fits(tmp_path: Path, kernel: Kernel) -> None:
    authority = AuthorityDirectory.create(tmp_path / "ca", now=NOW)
    node = authority.issue("paris", ["127.0.0.1"], now=NOW)
    failures = 0
    while True:
        kernel.calls, kernel.k = 0, failures + 1
        try:
            authority.renew(node / "cert.pem", now=LATER)
        except IdentityError:
            failures += 1
        else:
            break
        key = read_private_key(node / "key.pem").public_key()
        (certificate,) = read_certificates(node / "cert.pem")
        assert peer_id(key) == peer_id(certificate)
        assert sorted(each.name for each in node.iterdir()) == ["ca.pem", "cert.pem", "key.pem"]
    assert failures >= 6


def test_an_identity_that_could_not_be_made_is_made_at_the_next_start(tmp_path: Path, kernel: Kernel) -> None:
    k, failed = 0, True
    while failed:
        k += 1
        kernel.calls, kernel.k = 0, k
        path = tmp_path / str(k) / "identity"
        try:
            ensure_identity(path, "lone", now=NOW)
        except IdentityError:
            kernel.k = 0
            ensure_identity(path, "lone", now=NOW)
        else:
            failed = False
        key = read_private_key(path / "key.pem").public_key()
        assert peer_id(key) == peer_id(read_certificates(path / "cert.pem")[0])
    assert k > 15

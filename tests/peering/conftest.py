"""Certificates as an operator makes them with openssl alone: good ones, and each wrong kind."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from swarm.peering.credentials import TLSSettings

CONFIG = """
[ca]
default_ca = ours
[ours]
database = {db}/index.txt
rand_serial = yes
new_certs_dir = {db}
default_md = sha256
policy = any
copy_extensions = none
unique_subject = no
default_crl_days = 30
[any]
commonName = supplied
"""

BOTH = "extendedKeyUsage=clientAuth,serverAuth"
HERE = "subjectAltName=DNS:localhost,IP:127.0.0.1,IP:::1"

#: name → (extensions, further arguments of ``openssl ca``)
KINDS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "alpha": (f"{HERE}\n{BOTH}", ("-days", "30")),
    "beta": (f"{HERE}\n{BOTH}", ("-days", "30")),
    "revoked": (f"{HERE}\n{BOTH}", ("-days", "30")),
    "expired": (f"{HERE}\n{BOTH}", ("-startdate", "20200101000000Z", "-enddate", "20210101000000Z")),
    "not yet": (f"{HERE}\n{BOTH}", ("-startdate", "20900101000000Z", "-enddate", "20910101000000Z")),
    "client only": (f"{HERE}\nextendedKeyUsage=clientAuth", ("-days", "30")),
    "server only": (f"{HERE}\nextendedKeyUsage=serverAuth", ("-days", "30")),
    "any purpose": (f"{HERE}\nextendedKeyUsage=anyExtendedKeyUsage", ("-days", "30")),
    "no purpose": (HERE, ("-days", "30")),
    "other name": (f"subjectAltName=DNS:other.example\n{BOTH}", ("-days", "30")),
    "other address": (f"subjectAltName=IP:127.0.0.2\n{BOTH}", ("-days", "30")),
    "address as name": (f"subjectAltName=DNS:127.0.0.1\n{BOTH}", ("-days", "30")),
    "no name": (BOTH, ("-days", "30")),
    "rsa": (f"{HERE}\n{BOTH}", ("-days", "30")),
    "ed25519": (f"{HERE}\n{BOTH}", ("-days", "30")),
    "weak": (f"{HERE}\n{BOTH}", ("-days", "30")),
}


class OpenSSLWorld:
    """A directory with two CAs of the same name, an intermediate one, and a certificate of each kind."""

    settings: TLSSettings | None = None

    def __init__(self, path: Path, openssl: str) -> None:
        self.path = path
        self._openssl = openssl
        self.make_ca("ca")
        self.make_ca("rogue-ca")
        for kind, (extensions, arguments) in KINDS.items():
            self.issue(kind, extensions, arguments)
        self.issue("rogue", f"{HERE}\n{BOTH}", ("-days", "30"), ca="rogue-ca")
        self.issue("middle", "basicConstraints=critical,CA:TRUE\nkeyUsage=keyCertSign", ("-days", "30"))
        self._ca_home("middle")
        self.issue("below", f"{HERE}\n{BOTH}", ("-days", "20"), ca="middle")
        chained = self.cert("below").read_bytes() + self.cert("middle").read_bytes()
        (path / "chained.pem").write_bytes(chained)
        self("req", "-x509", *self._new("self-signed"), "-days", "9", "-addext", HERE, "-addext", BOTH)
        self.ca("ca", "-revoke", self.cert("revoked"))
        self.ca("ca", "-gencrl", "-out", path / "crl.pem")
        self.ca("rogue-ca", "-gencrl", "-out", path / "rogue-crl.pem")
        self.ca("ca", "-gencrl", "-crlsec", "1", "-out", path / "short-crl.pem")

    def cert(self, kind: str) -> Path:
        return self.path / f"{kind}.pem"

    def key(self, kind: str) -> Path:
        return self.path / f"{kind}-key.pem"

    def __call__(self, *arguments: str | Path) -> str:
        """Run ``openssl``; fails the test if it fails."""
        command = [self._openssl, *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, cwd=self.path, timeout=60)
        assert done.returncode == 0, (command, done.stderr)
        return done.stdout

    def ca(self, ca: str, *arguments: str | Path) -> None:
        config = self.path / f"{ca}.cnf"
        self("ca", "-batch", "-config", config, "-cert", self.cert(ca), "-keyfile", self.key(ca), *arguments)

    def make_ca(self, name: str) -> None:
        self("req", "-x509", *self._new(name, "the same name"), "-days", "300")
        self._ca_home(name)

    def issue(self, kind: str, extensions: str, arguments: tuple[str, ...], ca: str = "ca") -> None:
        request = self.path / f"{kind}.csr"
        self("req", *self._new(kind)[:-1], request)
        (self.path / f"{kind}.ext").write_text(extensions)
        self.ca(ca, "-in", request, "-out", self.cert(kind), "-extfile", f"{kind}.ext", "-notext", *arguments)

    def _ca_home(self, name: str) -> None:
        home = self.path / f"{name}.db"
        home.mkdir()
        (home / "index.txt").touch()
        (self.path / f"{name}.cnf").write_text(CONFIG.format(db=home))

    def _new(self, kind: str, common_name: str = "") -> tuple[str | Path, ...]:
        match kind:
            case "rsa":
                algorithm = ["-newkey", "rsa:2048"]
            case "weak":
                algorithm = ["-newkey", "rsa:1024"]
            case "ed25519":
                algorithm = ["-newkey", "ed25519"]
            case _:
                algorithm = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
        subject = ("-subj", f"/CN={common_name or kind}", "-keyout", self.key(kind))
        return ("-nodes", *algorithm, *subject, "-out", self.cert(kind))


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory, need_program: Callable[[str], str]) -> OpenSSLWorld:
    """Everything openssl can make, once for all tests."""
    return OpenSSLWorld(tmp_path_factory.mktemp("openssl"), need_program("openssl"))

"""Other people's TLS against ours, with certificates made by ``swarm pki``: curl, wget, aria2 and nginx."""

from __future__ import annotations

import datetime
import hashlib
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.error import ConnectError
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.utils import getProcessOutputAndValue
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import Site

from swarm.model.peers import Address, PeerID
from swarm.peering.credentials import Credentials
from swarm.peering.identity import IdentityPaths
from swarm.peering.tls import client_endpoint, peer_id_of, server_endpoint
from swarm.pki import AuthorityDirectory, KeyType

pytestmark = pytest.mark.filterwarnings("error::DeprecationWarning")

BODY = hashlib.sha512(b"body").digest() * 40_000  # 2.4 MiB
HOSTS = ["localhost", "127.0.0.1"]


class Blob(Resource):
    """Answers everything with the same bytes and remembers who asked."""

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[PeerID] = []

    def render_GET(self, request: Any) -> bytes:
        self.asked.append(peer_id_of(request.transport))
        return BODY


@pytest.fixture(params=list(KeyType), ids=lambda each: each.value)
def authority(request: pytest.FixtureRequest, tmp_path: Path) -> AuthorityDirectory:
    now = datetime.datetime.now(datetime.UTC)
    directory = AuthorityDirectory.create(tmp_path / "ca", now=now, key_type=request.param)
    for name in ("node", "client"):
        directory.issue(name, HOSTS, now=now, key_type=request.param)
    return directory


@pytest.fixture
def served(authority: AuthorityDirectory) -> Iterator[tuple[str, Blob]]:
    """A peer port: its URL and what it serves."""
    credentials = Credentials.load(IdentityPaths.in_directory(authority.node("node")), clock=reactor)
    plain = TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1")
    blob = Blob()
    site = Site(blob, reactor=reactor)
    port = pytest_twisted.blockon(server_endpoint(plain, credentials, clock=reactor).listen(site))
    yield f"https://localhost:{port.getHost().port}/blob", blob
    pytest_twisted.blockon(port.stopListening())


CLIENTS = {
    "curl": ["-sSf", "--max-time", "30", "--cacert", "{ca}", "--cert", "{cert}", "--key", "{key}"],
    "wget": ["-q", "--tries=1", "--ca-certificate={ca}", "--certificate={cert}", "--private-key={key}"],
    "aria2c": ["-q", "--ca-certificate={ca}", "--certificate={cert}", "--private-key={key}"],
}
OUTPUT = {"curl": ["-o", "out"], "wget": ["-O", "out"], "aria2c": ["-x4", "-o", "out"]}
BARE = {
    "curl": ["-sSf", "--max-time", "30", "--cacert", "{ca}"],
    "wget": ["-q", "--tries=1", "--ca-certificate={ca}"],
    "aria2c": ["-q", "--max-tries=1", "--ca-certificate={ca}"],
}


@pytest.mark.parametrize("program", sorted(CLIENTS))
@pytest_twisted.ensureDeferred
async def test_a_program_with_a_certificate_gets_the_bytes_and_without_one_nothing(
    program: str,
    authority: AuthorityDirectory,
    served: tuple[str, Blob],
    tmp_path: Path,
    need_program: Callable[[str], str],
) -> None:
    url, blob = served
    identity = authority.node("client")
    files = {"ca": identity / "ca.pem", "cert": identity / "cert.pem", "key": identity / "key.pem"}

    async def run(options: list[str]) -> tuple[int, bytes]:
        arguments = [each.format(**files) for each in options] + OUTPUT[program] + [url]
        running = getProcessOutputAndValue(need_program(program), arguments, path=str(tmp_path))
        _out, err, code = await running.addTimeout(60, reactor)
        return code, err

    code, _ = await run(BARE[program])
    assert code != 0 and not blob.asked
    (tmp_path / "out").unlink(missing_ok=True)
    code, err = await run(CLIENTS[program])
    assert code == 0, err
    assert (tmp_path / "out").read_bytes() == BODY
    client = Credentials.load(IdentityPaths.in_directory(identity), clock=reactor)
    assert set(blob.asked) == {client.peer_id}


NGINX = """
daemon off; master_process off; pid nginx.pid; error_log error.log;
events {{ }}
http {{
  access_log off;
  client_body_temp_path t1; proxy_temp_path t2; fastcgi_temp_path t3; uwsgi_temp_path t4; scgi_temp_path t5;
  server {{
    listen 127.0.0.1:{port} ssl; root {root};
    ssl_protocols TLSv1.3; ssl_verify_client on;
    ssl_certificate {identity}/cert.pem; ssl_certificate_key {identity}/key.pem;
    ssl_client_certificate {identity}/ca.pem;
  }}
}}
"""


@pytest.fixture
def nginx(authority: AuthorityDirectory, tmp_path: Path, need_program: Callable[[str], str]) -> Iterator[int]:
    """An nginx with a node's identity that wants certificates: its port."""
    program = need_program("nginx")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    (tmp_path / "blob").write_bytes(BODY)
    config = NGINX.format(port=port, root=tmp_path, identity=authority.node("node"))
    (tmp_path / "nginx.conf").write_text(f"user root;\n{config}" if tmp_path.owner() == "root" else config)
    process = subprocess.Popen([program, "-p", str(tmp_path), "-c", "nginx.conf"], stderr=subprocess.DEVNULL)
    yield port
    process.send_signal(signal.SIGTERM)
    process.wait(20)


class Get(Protocol):
    """One request; everything that comes back."""

    def __init__(self) -> None:
        self.answer = b""
        self.peer: PeerID | None = None
        self.done: Deferred[BaseException] = Deferred()

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.write(b"GET /blob HTTP/1.1\r\nHost: n\r\nConnection: close\r\n\r\n")

    def dataReceived(self, data: bytes) -> None:
        self.peer = self.peer or peer_id_of(self.transport)
        self.answer += data

    def connectionLost(self, reason: Failure = None) -> None:  # type: ignore[assignment]  # Twisted's default
        self.done.callback(reason.value)


@pytest_twisted.ensureDeferred
async def test_we_dial_an_nginx_that_wants_certificates(authority: AuthorityDirectory, nginx: int) -> None:
    client = Credentials.load(IdentityPaths.in_directory(authority.node("client")), clock=reactor)
    node = Credentials.load(IdentityPaths.in_directory(authority.node("node")), clock=reactor)
    endpoint = client_endpoint(reactor, Address("localhost", nginx), client, expected=node.peer_id)
    for attempt in range(100):
        try:
            get: Any = await endpoint.connect(Factory.forProtocol(Get))
        except ConnectError:
            assert attempt < 99, "nginx did not come up"
            waiting: Deferred[None] = Deferred()
            reactor.callLater(0.05, waiting.callback, None)
            await waiting
        else:
            break
    await get.done.addTimeout(30, reactor)
    head, _, body = get.answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200") and body == BODY
    assert get.peer == node.peer_id

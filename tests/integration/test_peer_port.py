"""The peer port with plain tools: any HTTP program with a good certificate can speak it, none without.

All of it by a node of one process and by one with workers: who speaks to it cannot tell.
"""

from __future__ import annotations

import datetime
import json
import os
import shutil
import signal
import socket
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from swarm.model.midstates import Midstates
from swarm.pki.authority import KeyType
from swarm.pki.directory import AuthorityDirectory
from swarm.testing.processes import Node, Swarm, swarm_in, wait_until

from .programs import LONG, Tap, done, noise, run

MIB = 1 << 20
HOSTS = ["127.0.0.1", "localhost"]


@pytest.fixture(scope="module", params=[1, 3], ids=["one process", "workers"])
def processes(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture(scope="module")
def swarm(tmp_path_factory: pytest.TempPathFactory, processes: int) -> Iterator[Swarm]:
    with swarm_in(tmp_path_factory.mktemp(f"peer-port-{processes}") / "swarm") as made:
        yield made


def add(swarm: Swarm, processes: int, name: str, *options: str) -> Node:
    """A node all of whose processes serve."""
    node = swarm.add(name, "--copies=1", f"--workers={processes}", *options)
    wait_until(lambda: node.ready()["workers"]["serving"] == processes, "all serve", LONG)
    return node


@pytest.fixture(scope="module")
def node(swarm: Swarm, processes: int) -> Node:
    return add(swarm, processes, "node")


@pytest.fixture(scope="module")
def curl(swarm: Swarm, need_program: Callable[[str], str]) -> tuple[str, ...]:
    """curl with a certificate that the swarm's CA signed."""
    return with_certificate(need_program("curl"), swarm.authority.issue("stranger", ["127.0.0.1"], now=now()))


def now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


def with_certificate(program: str, identity: Path) -> tuple[str, ...]:
    options = ("--cacert", "ca.pem", "--cert", "cert.pem", "--key", "key.pem")
    return (program, "-sS", *(str(identity / each) if each.endswith(".pem") else each for each in options))


def url(node: Node, path: str) -> str:
    return f"https://{node.address}{path}"


def code(*command: str | Path) -> str:
    return run(*command, "-o", os.devnull, "-w", "%{http_code}").text


def test_a_bounded_range_is_all_there_is_to_it(node: Node, curl: tuple[str, ...], tmp_path: Path) -> None:
    data = noise(3 * MIB + 17)
    digest = node.put(data, "bytes.bin")
    at = url(node, f"/blobs/{digest}")
    head = tmp_path / "head"
    assert done(*curl, "-f", "-r", "1000000-1999999", "-D", head, at).out == data[1000000:2000000]
    text = head.read_text()
    assert " 206 " in text and f"Content-Range: bytes 1000000-1999999/{len(data)}" in text
    assert f'ETag: "{digest}"' in text and "Content-Encoding" not in text
    assert "Swarm-Names: bytes.bin" in text
    described = done(*curl, "-f", "-I", at).text
    assert f"Content-Length: {len(data)}" in described and "Swarm-Have" not in described
    assert code(*curl, "-r", f"{len(data)}-{len(data) + 9}", at) == "416"
    assert code(*curl, url(node, f"/blobs/{'0' * 128}")) == "404"


def test_the_midstate_list_decodes(node: Node, curl: tuple[str, ...]) -> None:
    data = noise(5 * MIB + 1)
    digest = node.put(data)
    got = done(*curl, "-f", url(node, f"/blobs/{digest}/midstates?grain={MIB}")).out
    midstates = Midstates.decode(got)
    assert (midstates.grains.size, midstates.grains.grain) == (len(data), MIB)
    assert got == (node.blob(digest).parent / "midstates").read_bytes()
    assert code(*curl, url(node, f"/blobs/{digest}/midstates?grain={2 * MIB}")) == "404"
    assert code(*curl, url(node, f"/blobs/{digest}/midstates?grain=x")) == "400"


def test_the_cluster_document_is_json(node: Node, curl: tuple[str, ...]) -> None:
    document = json.loads(done(*curl, "-f", url(node, "/cluster/")).out)
    assert document["Name"] == "swarm" and document["Me"]["Name"] == "node"
    assert document["Me"]["MgmtAddr"] == node.address
    assert document["Me"]["ID"] == node.ready()["id"]


def test_a_replica_is_pushed_with_curl(node: Node, curl: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "body").write_bytes(data := noise(2 * MIB))
    digest = run("sha512sum", tmp_path / "body").text.split()[0]
    put = (*curl, "-T", tmp_path / "body", "-H", "Swarm-Names: caf%C3%A9.bin")
    assert code(*put, url(node, f"/blobs/{digest}")) == "201"
    assert code(*put, url(node, f"/blobs/{digest}")) == "200"
    assert code(*put, url(node, f"/blobs/{'0' * 128}")) == "422"
    assert node.get(digest) == data
    assert "caf%C3%A9.bin" in node.request("HEAD", f"/{digest}")[1]["content-disposition"]
    assert not node.has("0" * 128)


def test_what_is_not_on_the_list_is_not_there(node: Node, curl: tuple[str, ...]) -> None:
    """Nothing of the public API, and above all no way to write without naming the bytes."""
    for path in ("/health", "/metrics", "/ready", "/", "/update/", f"/{'0' * 128}"):
        assert code(*curl, url(node, path)) == "404"
    assert code(*curl, "-X", "POST", url(node, f"/blobs/{'0' * 128}")) == "405"
    assert code(*curl, "-H", "Swarm-Cluster: other", url(node, "/cluster/")) == "421"


@pytest.mark.parametrize("kind", ["none", "self-signed", "another CA", "server only", "expired"])
def test_without_a_good_certificate_nothing_is_answered(
    node: Node, swarm: Swarm, need_program: Callable[[str], str], tmp_path: Path, kind: str
) -> None:
    """Certificates made with plain openssl: curl gets no byte, ``s_client`` shows the refusal."""
    curl, openssl = need_program("curl"), need_program("openssl")
    ca = swarm.authority.path / "ca.pem"
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    identity: tuple[str | Path, ...] = ("--cert", cert, "--key", key)
    if kind == "none":
        identity = ()
    elif kind == "another CA":
        stranger = AuthorityDirectory.create(tmp_path / "ca", now=now())
        made = stranger.issue("stranger", ["127.0.0.1"], now=now())
        key, cert = made / "key.pem", made / "cert.pem"
        identity = ("--cert", cert, "--key", key)
    else:
        usage = "serverAuth" if kind == "server only" else "serverAuth,clientAuth"
        subject = ("-subj", "/CN=stranger", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
        (tmp_path / "ext").write_text(f"subjectAltName=IP:127.0.0.1\nextendedKeyUsage={usage}\n")
        done(openssl, "req", "-new", *subject, "-keyout", key, "-out", tmp_path / "csr")
        signing: tuple[str | Path, ...] = (
            "-CA",
            ca,
            "-CAkey",
            swarm.authority.path / "ca-key.pem",
            "-CAcreateserial",
        )
        if kind == "self-signed":
            signing = ("-signkey", key)
        days = "-1" if kind == "expired" else "5"
        done(openssl, "x509", "-req", "-in", tmp_path / "csr", "-extfile", tmp_path / "ext", "-days", days,
             *signing, "-out", cert)  # fmt: skip
    got = run(curl, "-sS", "--cacert", ca, *identity, url(node, "/cluster/"))
    assert got.code != 0 and got.out == b""
    shown = () if kind == "none" else ("-cert", cert, "-key", key)
    connect = ("-connect", node.address, "-CAfile", ca, "-verify_return_error", "-quiet", "-ign_eof")
    asked = run(openssl, "s_client", *connect, *shown, given=b"GET /cluster/ HTTP/1.1\r\nHost: n\r\n\r\n")
    assert "verify error" not in asked.err  # we are who we say, and do not know them:
    assert "alert" in asked.err and asked.out == b""


def test_only_tls_1_3_is_spoken(node: Node, swarm: Swarm) -> None:
    context = ssl.create_default_context(cafile=str(swarm.authority.path / "ca.pem"))
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with (
        socket.create_connection(("127.0.0.1", node.peer_port)) as plain,
        pytest.raises((ssl.SSLError, ConnectionError)),
        context.wrap_socket(plain, server_hostname="127.0.0.1"),
    ):
        pass


def test_a_partial_holder_says_what_it_has_and_serves_that(
    swarm: Swarm, processes: int, curl: tuple[str, ...]
) -> None:
    """A node that pulls from another one, behind a tap."""
    other = swarm.add("other", "--copies=1", "--cluster=relay")
    tap = Tap(other.peer_port)
    other.kill(signal.SIGTERM)
    other.command.append(f"--advertise={tap.address}")
    other.start()
    relay = add(swarm, processes, "relay", "--cluster=relay", f"--join={tap.address}")
    try:
        wait_until(lambda: relay.ready()["peers"], "they know each other", LONG)
        data = noise(32 * MIB)
        digest = other.put(data)
        tap.pace = 4 * MIB
        at = url(relay, f"/blobs/{digest}")
        assert relay.get(digest, {"Range": "bytes=-100"}) == data[-100:]
        have = [
            line for line in done(*curl, "-f", "-I", at).text.splitlines() if line.startswith("Swarm-Have")
        ]
        first, last = have[0].rpartition("bytes=")[2].split(",")[-1].split("-")
        assert int(last) == len(data) - 1 and int(first) % MIB == 0
        assert done(*curl, "-f", "-r", f"{first}-{last}", at).out == data[int(first) :]
        assert code(*curl, "-r", "0-99", at) == "416"
        assert code(*curl, at) == "404"
        tap.open()
        assert relay.get(digest) == data
    finally:
        tap.close()
        relay.kill()
        other.kill()


@pytest.mark.parametrize("renewed", ["the same key", "another key"])
def test_a_certificate_is_renewed_while_the_node_runs(
    swarm: Swarm,
    node: Node,
    curl: tuple[str, ...],
    need_program: Callable[[str], str],
    tmp_path: Path,
    renewed: str,
) -> None:
    openssl = need_program("openssl")
    show = (openssl, "s_client", "-connect", node.address, "-CAfile", swarm.authority.path / "ca.pem")

    def shown() -> str:
        return run(*show).text.partition("-----END")[0].partition("-----BEGIN")[2]

    before, pid, installed = shown(), node.pid, swarm.authority.node("node")
    digest = node.put(noise(1000))
    if renewed == "the same key":
        swarm.authority.renew(installed / "cert.pem", now=now())
    else:
        made = swarm.authority.issue("node", HOSTS, now=now(), key_type=KeyType.ED25519, out=tmp_path / "new")
        for name in ("key.pem", "cert.pem"):  # for a moment they do not fit together
            shutil.copy(made / name, installed / name)
    wait_until(lambda: shown() not in ("", before), "the new certificate is shown", LONG)
    assert node.pid == pid and code(*curl, url(node, f"/blobs/{digest}")) == "200"


def test_a_revoked_certificate_is_refused_from_then_on(
    swarm: Swarm, processes: int, need_program: Callable[[str], str]
) -> None:
    identity = swarm.authority.issue("doomed", ["127.0.0.1"], now=now())
    swarm.authority.revoke([], now=now())  # an empty list, so that there is one
    node = add(swarm, processes, "strict", f"--crl={swarm.authority.path / 'crl.pem'}")
    doomed = with_certificate(need_program("curl"), identity)
    assert code(*doomed, url(node, "/cluster/")) == "200"
    swarm.authority.revoke([identity / "cert.pem"], now=now())
    wait_until(lambda: code(*doomed, url(node, "/cluster/")) == "000", "it is refused", LONG)

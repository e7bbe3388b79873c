"""What an operator does to a running swarm: files touched, lists edited, nodes taken away and back."""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import shutil
import signal
from collections.abc import Iterator

import pytest

from swarm.testing.processes import Node, Swarm, swarm_in, wait_until

from .programs import LONG, noise

MIB = 1 << 20


@pytest.fixture(scope="module")
def swarm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Swarm]:
    with swarm_in(tmp_path_factory.mktemp("operator") / "swarm") as made:
        yield made


@pytest.fixture(scope="module")
def nodes(swarm: Swarm) -> list[Node]:
    """Three that know each other and keep one copy, so that a test knows where it is."""
    (swarm.directory / "short.toml").write_text("[deletion]\nretry_every = 0.5\n")
    return swarm.full(3, "--copies=1", f"--config={swarm.directory / 'short.toml'}")


def answer(
    node: Node, method: str, path: str, body: bytes | Iterator[bytes] | None = None, **fields: str
) -> int:
    headers = {name.replace("_", "-"): value for name, value in fields.items()}
    return node.request(method, path, body, headers)[0]


def now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


def said(node: Node, method: str, path: str) -> tuple[int, dict[str, object]]:
    status, _, body = node.request(method, path)
    document: dict[str, object] = json.loads(body)
    return status, document


# -- switches and markers --------------------------------------------------------------


def test_switches_take_effect_at_once_and_so_does_their_end(nodes: list[Node]) -> None:
    node = nodes[0]
    digest = node.put(noise(1000))
    for method, path, body in (
        ("GET", f"/{digest}", None),
        ("PUT", "/name", b"x"),
        ("DELETE", f"/{digest}", None),
    ):
        switch = node.data / f"deny{method.lower()}"
        switch.touch()
        assert answer(node, method, path, body) == 403
        assert answer(node, "GET", "/health") == 200
        switch.unlink()
        assert answer(node, method, path, body) in (200, 201)


def test_a_node_that_denies_gets_gives_nothing_to_peers_either(nodes: list[Node]) -> None:
    digest = nodes[0].put(noise(1000))
    (nodes[0].data / "denyget").touch()
    assert answer(nodes[1], "GET", f"/{digest}") == 404
    (nodes[0].data / "denyget").unlink()
    wait_until(lambda: answer(nodes[1], "GET", f"/{digest}") == 200, "it is found again", LONG)


@pytest.mark.parametrize("held", [True, False])
def test_markers_hide_an_id_whether_it_is_here_or_elsewhere(nodes: list[Node], held: bool) -> None:
    node = nodes[0]
    digest = nodes[0 if held else 1].put(noise(1000))
    directory = node.blob(digest).parent
    directory.mkdir(parents=True, exist_ok=True)
    for marker in ("403", "404"):
        (directory / marker).touch()
        for method in ("GET", "HEAD"):
            assert answer(node, method, f"/{digest}") == int(marker)
        assert answer(node, "GET", f"/{digest}/locations") == int(marker)
        (directory / marker).unlink()
    absent = node.request("GET", f"/{'0' * 128}")
    (directory / "404").touch()
    marked = node.request("GET", f"/{digest}")
    (directory / "404").unlink()
    assert (marked[0], marked[2]) == (absent[0], absent[2])
    assert answer(node, "GET", f"/{digest}") == 200


def test_options_deny_too(swarm: Swarm) -> None:
    node = swarm.add("archive", "--copies=1", "--cluster=archive", "--deny=put,delete")
    assert answer(node, "PUT", "/name", b"x") == 403
    assert answer(node, "DELETE", f"/{'0' * 128}") == 403
    assert answer(node, "GET", f"/{'0' * 128}") == 404
    node.kill()


# -- tokens ----------------------------------------------------------------------------


def test_tokens_are_read_again_when_the_file_changes(swarm: Swarm) -> None:
    tokens = swarm.directory / "tokens"

    def grant(*lines: str) -> None:
        """As an editor does: a new file in the place of the old."""
        (swarm.directory / "tokens.new").write_text("\n".join(lines) + "\n")
        os.replace(swarm.directory / "tokens.new", tokens)

    def line(token: str, scopes: str, more: str = "") -> str:
        return f"{hashlib.sha256(token.encode()).hexdigest()} {scopes} {more}"

    grant(line("key", "get,put,delete"), line("old", "get,put", "until=2020-01-01T00:00:00Z"))
    node = swarm.add("guarded", "--copies=1", "--cluster=guarded", f"--tokens={tokens}")
    body = noise(1000)
    path = f"/{hashlib.sha512(body).hexdigest()}"
    assert answer(node, "PUT", "/f", body) == 401
    assert answer(node, "PUT", "/f", body, Authorization="Bearer old") == 401
    assert answer(node, "PUT", "/f", body, Authorization="Bearer key") == 201
    assert answer(node, "GET", path) == 401
    assert answer(node, "PUT", "/refreshpeers.html", Authorization="Bearer key") == 403
    assert answer(node, "GET", "/health") == answer(node, "GET", "/metrics") == 200
    grant("anonymous get", line("new", "admin"))
    assert answer(node, "GET", path) == 200
    assert answer(node, "DELETE", path, Authorization="Bearer key") == 401
    assert answer(node, "PUT", "/refreshpeers.html", Authorization="Bearer new") == 200
    grant("not a line")
    assert answer(node, "GET", path) == 200  # what was in force stays
    assert "tokens stay as they were" in node.log
    node.kill()


# -- deleting ----------------------------------------------------------------------------


def test_a_delete_is_for_this_node_and_a_put_brings_the_blob_back(nodes: list[Node]) -> None:
    data = noise(2 * MIB)
    digest = nodes[0].put(data, "name.bin")
    assert nodes[1].get(digest) == data
    wait_until(lambda: nodes[1].has(digest), "what was pulled is published", LONG)
    status, document = said(nodes[0], "DELETE", f"/{digest}")
    assert (status, document["deleted"], document["length"]) == (200, True, len(data))
    assert not nodes[0].has(digest) and nodes[1].has(digest)
    assert answer(nodes[0], "GET", f"/{digest}/nopeerload") == 404
    assert nodes[0].get(digest) == data  # from the other one
    for node in nodes[:2]:
        assert answer(node, "DELETE", f"/{digest}") == 200  # also where it is being published right now
    assert answer(nodes[0], "DELETE", f"/{digest}") == 404
    assert answer(nodes[0], "GET", f"/{digest}") == 404
    assert nodes[0].put(data) == digest and nodes[0].get(digest) == data


def test_a_tombstone_reaches_a_node_that_was_away(swarm: Swarm, nodes: list[Node]) -> None:
    here, there, away = nodes
    data = noise(2 * MIB)
    digest = here.put(data)
    for node in nodes:
        assert node.get(digest) == data
    wait_until(lambda: all(node.has(digest) for node in nodes), "what was pulled is published", LONG)
    away.kill()
    status, document = said(here, "DELETE", f"/{digest}/allpeers")
    assert (status, document["deleted"]) == (202, True)
    assert set(document["confirmed"]) == {here.name, there.name}  # type: ignore[call-overload]
    assert document["pending"] == [away.name]
    assert not here.has(digest) and not there.has(digest) and away.has(digest)
    here.restart()  # what is owed survives that
    away.start()
    wait_until(lambda: not away.has(digest), "the tombstone arrived", LONG)
    for node in nodes:
        assert answer(node, "GET", f"/{digest}") == 404
    swarm.wait_acquainted(nodes, within=LONG)
    assert here.put(data) == digest  # a new life, here only; the others still know the tombstone
    assert there.get(digest) == data and away.get(digest) == data
    status, document = said(there, "DELETE", f"/{digest}/allpeers")
    assert (status, document["pending"]) == (200, [])
    assert not any(node.has(digest) for node in nodes)


# -- peers -------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["by itself", "SIGHUP", "refreshpeers"])
def test_the_peer_list_is_read_again(swarm: Swarm, nodes: list[Node], how: str) -> None:
    peers = swarm.directory / f"peers-{how}"
    peers.write_text("# nobody yet\n")
    slow = swarm.directory / "slow.toml"
    slow.write_text("[membership]\nreread_every = 3600\n" if how != "by itself" else "")
    node = swarm.add(how.replace(" ", "-"), f"--peers={peers}", f"--config={slow}")
    assert node.ready()["peers"] == []
    peers.write_text(f"# one\n{nodes[0].address}  # and its comment\n")
    if how == "SIGHUP":
        node.kill(signal.SIGHUP)
    elif how == "refreshpeers":
        status, document = said(node, "PUT", "/refreshpeers.html")
        assert (status, document) == (200, {"peers": [nodes[0].address]})
        peers.write_text("no address\n")
        assert answer(node, "PUT", "/refreshpeers.html") == 400
    wait_until(
        lambda: {each["name"] for each in node.ready()["peers"]} >= {each.name for each in nodes},
        "it met them all",
        LONG,
    )
    node.kill(signal.SIGTERM)


def test_sighup_renews_certificates_whatever_the_peer_list_is_like(swarm: Swarm) -> None:
    peers = swarm.directory / "peers-broken"
    peers.write_text("127.0.0.1:1\n")
    slow = swarm.directory / "still.toml"
    slow.write_text("[membership]\nreread_every = 3600\n")
    node = swarm.add("hup", f"--peers={peers}", f"--config={slow}", "--cluster=hup")
    peers.write_text("no address\n")
    certificate = swarm.authority.node("hup") / "cert.pem"
    certificate.write_text("no certificate\n")
    node.kill(signal.SIGHUP)
    wait_until(lambda: "keeping the last good identity" in node.log, "it looked", LONG)
    assert "peer list: line 1: " in node.log and "Traceback" not in node.log
    assert answer(node, "GET", "/ready") == 200
    node.kill(signal.SIGTERM)


def test_clusters_never_mix(swarm: Swarm, nodes: list[Node]) -> None:
    """The same CA, each told of the other, and a blob that only the other has."""
    other = swarm.add("stranger", "--cluster=other", "--copies=2", join=(nodes[0],))
    wait_until(lambda: "foreign cluster" in other.log or other.ready()["peers"] == [], "they met", LONG)
    data = noise(1000)
    digest = nodes[0].put(data)
    assert answer(other, "GET", f"/{digest}") == 404
    theirs = other.put(noise(1000))
    assert answer(nodes[0], "GET", f"/{theirs}") == 404
    for node in (nodes[0], other):
        names = {each["name"] for each in node.ready()["peers"] if each["state"] == "alive"}
        assert names.isdisjoint({"stranger"} if node is not other else {each.name for each in nodes})
    other.kill()


def test_too_few_copies_are_said_and_made_up_for(swarm: Swarm) -> None:
    lone = swarm.add("lone", "--copies=2", "--cluster=pair")
    late = swarm.add("late", "--copies=2", "--cluster=pair", join=(lone,))
    swarm.wait_acquainted([lone, late])
    late.kill()
    status, _, body = lone.request("PUT", "/f", data := noise(MIB))
    assert (status, json.loads(body)["holders"]) == (202, ["lone"])
    digest = hashlib.sha512(data).hexdigest()
    late.start()
    wait_until(lambda: late.has(digest), "the hint was delivered", LONG)
    assert late.blob(digest).read_bytes() == data
    for node in (lone, late):
        node.kill()


# -- room --------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", ["--quota=3MiB", "--reserve=1000PiB"])
def test_no_room_is_507_and_keeps_nothing(swarm: Swarm, nodes: list[Node], limit: str) -> None:
    node = swarm.add(limit[2:5], limit, "--copies=1", join=(nodes[0],))
    small, large = noise(MIB), noise(4 * MIB)
    if limit.startswith("--quota"):
        digest = node.put(small)
        assert node.get(digest) == small
        assert node.put(small) == digest  # it is here already
    assert answer(node, "PUT", "/large", large) == 507
    chunked = iter([large[:MIB], large[MIB:]])  # of unknown length: refused on the way
    assert answer(node, "PUT", "/large", chunked) == 507
    elsewhere = nodes[0].put(large)
    wait_until(lambda: node.ready()["peers"] != [], "they know each other", LONG)
    assert answer(node, "GET", f"/{elsewhere}") == 507
    assert not node.has(elsewhere) and not node.has(hashlib.sha512(large).hexdigest())
    assert node.ready()["ready"] is True
    node.kill()


def test_a_full_node_counts_only_what_it_keeps(swarm: Swarm) -> None:
    node = swarm.add("counting", "--quota=3MiB", "--copies=1", "--cluster=counting")
    for _ in range(4):
        digest = node.put(noise(2 * MIB))
        assert answer(node, "PUT", "/f", noise(2 * MIB)) == 507
        assert answer(node, "DELETE", f"/{digest}") == 200
    assert node.ready()["usage"]["bytes"] == 0
    node.kill()


# -- keeping -----------------------------------------------------------------------------


def test_a_directory_copied_elsewhere_is_a_backup(swarm: Swarm) -> None:
    """Of a running node, with plain tools; the catalog is rebuilt from the files."""
    node = swarm.add("original", "--copies=1", "--cluster=backup")
    blobs = [noise(MIB + n) for n in range(3)]
    digests = [node.put(data, f"{n}.bin") for n, data in enumerate(blobs)]
    restored = swarm.add("restored", "--copies=1", "--cluster=backup", start=False)
    restored.data.mkdir()
    shutil.copytree(node.data / "blobs", restored.data / "blobs")
    node.kill()
    restored.start()
    for digest, data in zip(digests, blobs, strict=True):
        assert restored.get(digest) == data
        assert ".bin" in restored.request("HEAD", f"/{digest}")[1]["content-disposition"]
    wait_until(lambda: restored.ready()["usage"]["blobs"] == 3, "all are counted", LONG)
    restored.kill()

"""The peer port of nodes with ``--workers``: processes killed, stopped, held up, told whom not to trust."""

from __future__ import annotations

import contextlib
import datetime
import http.client
import json
import os
import signal
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from swarm.pki import peer_id, read_certificates
from swarm.testing.processes import Node, Swarm, swarm_in, wait_until

from .programs import LONG, Tap, noise

MIB = 1 << 20
SETTLED = 0.1  # so long after a change of its directory a blob is not granted; see Disk.settled_at


@pytest.fixture
def swarm(tmp_path: Path) -> Iterator[Swarm]:
    with swarm_in(tmp_path / "swarm") as swarm:
        yield swarm


def now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


def add(
    swarm: Swarm,
    name: str = "node",
    *options: str,
    workers: int = 3,
    settings: str = "",
    join: tuple[Node, ...] = (),
) -> Node:
    """A node all of whose processes serve."""
    node = swarm.add(name, f"--workers={workers}", *options, join=join, start=False)
    if settings:
        (node.directory / "swarm.toml").write_text(settings)
        node.command.append("--config=swarm.toml")
    node.start()
    wait_serving(node, workers)
    return node


def wait_serving(node: Node, count: int) -> None:
    wait_until(lambda: node.ready()["workers"]["serving"] == count, "all serve", LONG)


def workers(node: Node) -> list[psutil.Process]:
    found = psutil.Process(node.pid).children()
    return [each for each in found if "swarm.workers" in each.cmdline()]


class Peer:
    """A connection with a certificate."""

    def __init__(self, node: Node, identity: Path, *, buffer: int = 0) -> None:
        context = ssl.create_default_context(cafile=str(identity / "ca.pem"))
        context.load_cert_chain(identity / "cert.pem", identity / "key.pem")
        self.node = node
        self.http = http.client.HTTPSConnection("127.0.0.1", node.peer_port, timeout=LONG, context=context)
        plain = socket.socket()
        if buffer:
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        plain.settimeout(LONG)
        plain.connect(("127.0.0.1", node.peer_port))
        self.port = plain.getsockname()[1]
        self.http.sock = context.wrap_socket(plain, server_hostname="127.0.0.1")

    def ask(
        self, path: str, method: str = "GET", body: bytes | None = None, **fields: str
    ) -> tuple[int, bytes]:
        self.http.request(
            method, path, body, {name.replace("_", "-"): value for name, value in fields.items()}
        )
        response = self.http.getresponse()
        return response.status, response.read()

    def owner(self) -> int:
        """Which process has the other end now."""
        for process in (psutil.Process(self.node.pid), *workers(self.node)):
            with contextlib.suppress(psutil.NoSuchProcess):
                for each in process.net_connections("tcp"):
                    if each.raddr and each.raddr.port == self.port and each.status != "LISTEN":
                        return process.pid
        return 0

    def cut(self) -> bool:
        """Has the other end hung up? Nothing may be under way."""
        self.http.sock.settimeout(0.05)
        try:
            return self.http.sock.recv(1) == b""
        except TimeoutError:
            return False
        except OSError:
            return True
        finally:
            self.http.sock.settimeout(LONG)


def guest(swarm: Swarm, name: str = "stranger") -> Path:
    return swarm.authority.issue(name, ["127.0.0.1"], now=now())


def test_a_connection_stays_with_its_worker_whatever_is_asked(swarm: Swarm) -> None:
    node, identity = add(swarm), guest(swarm)
    data, other = noise(3 * MIB), noise(2 * MIB + 7)
    digest = node.put(data, "a.bin")
    time.sleep(SETTLED)
    peers = [Peer(node, identity) for _ in range(6)]
    pids = {each.pid for each in workers(node)}
    import hashlib

    pushed = hashlib.sha512(other).hexdigest()
    for peer in peers:
        owner = peer.owner()
        assert peer.ask(f"/blobs/{digest}", Range="bytes=5-99") == (206, data[5:100])
        assert json.loads(peer.ask("/cluster/")[1])["Me"]["Name"] == "node"
        assert peer.ask(f"/blobs/{digest}") == (200, data)
        assert (
            peer.ask(f"/blobs/{digest}/midstates")[1] == (node.blob(digest).parent / "midstates").read_bytes()
        )
        assert peer.ask(f"/blobs/{pushed}", "PUT", other)[0] in (200, 201)
        assert peer.ask(f"/blobs/{pushed}", Range="bytes=-7") == (206, other[-7:])
        assert peer.ask(f"/blobs/{'0' * 128}")[0] == 404
        assert peer.owner() == owner
    owners = [peer.owner() for peer in peers]
    assert set(owners) <= pids | {node.pid}
    assert {owners.count(each) for each in pids} == {2}, "each has as many as the others"
    metrics = node.metrics()
    assert metrics['swarm_peer_requests_total{code="206",method="GET"}'] == 12
    assert metrics['swarm_peer_requests_total{code="404",method="GET"}'] == 6
    assert metrics["swarm_peer_sent_bytes_total"] > 6 * len(data)
    assert "Traceback" not in node.log


def test_nodes_with_workers_pull_push_replicate_and_delete_everywhere(swarm: Swarm) -> None:
    made: list[Node] = []
    for index in range(3):
        made.append(add(swarm, f"node{index}", "--copies=2", workers=2, join=tuple(made)))
    swarm.wait_acquainted(made, within=LONG)
    data = noise(20 * MIB + 5)
    status, _, answer = made[0].request("PUT", "/a.bin", data)
    assert status == 201 and len(json.loads(answer)["holders"]) == 2  # by a push through a worker
    digest = json.loads(answer)["sha512"]
    assert [node.get(digest) for node in made] == [data] * 3  # by a pull from two
    wait_until(lambda: all(node.has(digest) for node in made), "all have it", LONG)
    status, _, answer = made[1].request("DELETE", f"/{digest}/allpeers")
    assert status == 200, answer
    assert [node.request("GET", f"/{digest}")[0] for node in made] == [404] * 3
    assert not any(node.has(digest) for node in made)
    assert made[2].put(data) == digest  # a new life, which workers tell of
    assert made[0].get(digest) == data
    for node in made:
        assert "Traceback" not in node.log
        assert node.metrics().get('swarm_bad_grains_total{whose="liar"}', 0) == 0


def test_markers_switches_and_deletions_count_at_once_for_peers(swarm: Swarm) -> None:
    node, identity = add(swarm), guest(swarm)
    digest = node.put(noise(3000))
    peers = [Peer(node, identity) for _ in range(6)]

    def all_get(status: int) -> None:
        assert [peer.ask(f"/blobs/{digest}", Range="bytes=0-9")[0] for peer in peers] == [status] * 6

    for marker, status in (
        (node.blob(digest).with_name("403"), 403),
        (node.blob(digest).with_name("404"), 404),
        (node.data / "denyget", 403),
    ):
        time.sleep(SETTLED)
        all_get(206)
        marker.touch()
        all_get(status)
        marker.unlink()
    all_get(206)
    assert node.request("DELETE", f"/{digest}")[0] == 200
    all_get(404)


@pytest.mark.parametrize("by", ["revocation", "allow-list"])
def test_who_may_no_longer_is_cut_off_by_every_process_and_others_stay(swarm: Swarm, by: str) -> None:
    identity, doomed = guest(swarm), guest(swarm, "doomed")
    swarm.authority.revoke([], now=now())  # an empty list, so that there is one
    keys = {each: peer_id(read_certificates(each / "cert.pem")[0]).hex for each in (identity, doomed)}
    allow = swarm.directory / "allow"
    allow.write_text("\n".join(keys.values()))
    node = add(swarm, "node", f"--crl={swarm.authority.path / 'crl.pem'}", f"--allow={allow}")
    digest = node.put(noise(MIB))
    time.sleep(SETTLED)
    staying = [Peer(node, identity) for _ in range(3)]
    going = [Peer(node, doomed) for _ in range(6)]
    for peer in (*staying, *going):
        assert peer.ask(f"/blobs/{digest}", Range="bytes=0-9")[0] == 206
    assert len({peer.owner() for peer in going}) == 3
    if by == "revocation":
        swarm.authority.revoke([doomed / "cert.pem"], now=now())
    else:
        allow.write_text(keys[identity])
    wait_until(lambda: all(peer.cut() for peer in going), "they are cut off", LONG)
    refused = 0
    for _ in range(6):
        with contextlib.suppress(OSError, http.client.HTTPException):
            assert Peer(node, doomed).ask("/cluster/") is None
        refused += 1
        assert Peer(node, identity).ask(f"/blobs/{digest}", Range="bytes=0-9")[0] == 206
    assert [peer.ask(f"/blobs/{digest}", Range="bytes=0-9")[0] for peer in staying] == [206] * 3
    wait_until(lambda: node.metrics()["swarm_peer_refusals_total"] == refused, "all are counted", LONG)
    # A worker that starts now is told by the node, not by files.
    for each in workers(node):
        each.kill()
    (allow if by == "allow-list" else swarm.authority.path / "crl.pem").write_text("nonsense")
    wait_until(lambda: node.metrics()["swarm_worker_restarts_total"] == 2, "they are gone", LONG)
    wait_serving(node, 3)
    for _ in range(6):
        with contextlib.suppress(OSError, http.client.HTTPException):
            assert Peer(node, doomed).ask("/cluster/") is None
        assert Peer(node, identity).ask(f"/blobs/{digest}", Range="bytes=0-9")[0] == 206


def test_workers_killed_under_a_pull_cost_time_and_nobody_his_name(swarm: Swarm) -> None:
    """Each source is behind a tap, so that the pull takes long enough."""
    data = noise(48 * MIB)
    taps: list[Tap] = []
    full: list[Node] = []
    try:
        for index in range(2):
            node = swarm.add(f"full{index}", "--copies=1", "--workers=3", start=False)
            taps.append(Tap(node.peer_port))
            node.command.append(f"--advertise={taps[-1].address}")
            node.start()
            wait_serving(node, 3)
            full.append(node)
            digest = node.put(data)
        empty = swarm.add("empty", "--copies=1", *(f"--join={tap.address}" for tap in taps))
        wait_until(lambda: len(empty.ready()["peers"]) == 2, "they know each other", LONG)
        for tap in taps:
            tap.pace = 6 * MIB
        got: list[bytes] = []
        pulling = threading.Thread(target=lambda: got.append(empty.get(digest)))
        pulling.start()
        for _ in range(3):
            time.sleep(0.7)
            for node in full:
                for each in workers(node):
                    with contextlib.suppress(psutil.NoSuchProcess):
                        each.kill()
        for tap in taps:
            tap.open()
        pulling.join(LONG)
        assert got == [data]
        assert "convict" not in empty.log and "Traceback" not in empty.log
        assert not any("bad_grains_total" in name and value for name, value in empty.metrics().items())
        for node in full:
            wait_serving(node, 3)
            assert "Traceback" not in node.log
    finally:
        for tap in taps:
            tap.close()


def test_two_hundred_slow_readers_hold_little_and_leave_nothing(swarm: Swarm) -> None:
    node, identity = add(swarm, settings="[peering]\nuploads = 300\n"), guest(swarm)
    digest = node.put(noise(16 * MIB))
    time.sleep(SETTLED)
    processes = [psutil.Process(node.pid), *workers(node)]
    for _ in range(6):
        assert Peer(node, identity).ask(f"/blobs/{digest}", Range="bytes=0-99999")[0] == 206
    before = [(each.memory_info().rss, each.num_fds()) for each in processes]
    readers = [Peer(node, identity, buffer=65536) for _ in range(200)]
    for reader in readers:
        reader.http.request("GET", f"/blobs/{digest}")
    answers = [reader.http.getresponse() for reader in readers]
    assert all(len(answer.read(100_000)) == 100_000 for answer in answers)
    grown = sum(each.memory_info().rss for each in processes) - sum(rss for rss, _ in before)
    assert grown < 200 * 2 * MIB
    assert answers[0].read() and readers[0].ask("/cluster/")[0] == 200  # one of them goes on
    for index, reader in enumerate(readers):
        if index % 2:  # with answers unread: a reset
            reader.http.close()
        else:  # says goodbye, and reads no more
            with contextlib.suppress(OSError):
                reader.http.sock.settimeout(0.001)
                reader.http.sock.unwrap()
            reader.http.close()
    del answers
    for process, (_, fds) in zip(processes, before, strict=True):
        wait_until(lambda: process.num_fds() <= fds + 4, "nothing is left of them", LONG)  # noqa: B023 - used at once
    assert "Traceback" not in node.log


def test_who_says_goodbye_in_the_middle_is_let_go(swarm: Swarm) -> None:
    """TLS's own half close: our side ends the connection, too, as the node itself does."""
    node, identity = add(swarm, workers=2), guest(swarm)
    digest = node.put(noise(16 * MIB))
    time.sleep(SETTLED)
    peers = [Peer(node, identity, buffer=65536) for _ in range(4)]
    for path, peer in zip((f"/blobs/{digest}", "/cluster/") * 2, peers, strict=True):
        peer.http.request("GET", path)
        peer.http.sock.settimeout(0.2)
        with contextlib.suppress(OSError):
            peer.http.sock.unwrap()
    wait_until(lambda: not any(peer.owner() for peer in peers), "they are let go", LONG)
    assert "Traceback" not in node.log


@pytest.mark.parametrize("letter", ["k", "K"], ids=["theirs alone", "both"])
def test_keys_are_updated_between_answers(
    swarm: Swarm, need_program: Callable[[str], str], tmp_path: Path, letter: str
) -> None:
    node, identity = add(swarm, workers=2), guest(swarm)
    digest = node.put(noise(4 * MIB))
    time.sleep(SETTLED)
    command = [need_program("openssl"), "s_client", "-connect", node.address]
    command += ["-CAfile", str(identity / "ca.pem"), "-cert", str(identity / "cert.pem")]
    command += ["-key", str(identity / "key.pem")]
    out, messages = tmp_path / "out", tmp_path / "messages"
    with out.open("wb") as stdout, messages.open("wb") as stderr:
        program = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=stdout, stderr=stderr)
    try:
        assert program.stdin is not None
        for turn, path in enumerate((f"/blobs/{digest}", "/cluster/", f"/blobs/{digest}"), 1):
            program.stdin.write(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            program.stdin.flush()
            wait_until(lambda: out.read_bytes().count(b"HTTP/1.1 200 OK") == turn, "an answer", LONG)  # noqa: B023 - used at once
            program.stdin.write(letter.encode() + b"\n")
            program.stdin.flush()
            wait_until(lambda: messages.read_bytes().count(b"KEYUPDATE") == turn, "new keys", LONG)  # noqa: B023 - used at once
        data = node.blob(digest).read_bytes()
        wait_until(lambda: out.read_bytes().count(data) == 2, "all of it", LONG)
    finally:
        program.kill()
        program.wait()
        assert program.stdin is not None
        program.stdin.close()


def test_a_stop_lets_peers_be_answered_and_waits_for_nobody_for_ever(swarm: Swarm) -> None:
    node, identity = add(swarm, settings="[crew]\ndrain = 4.0\n"), guest(swarm)
    data = noise(40 * MIB)
    digest = node.put(data)
    time.sleep(SETTLED)
    peers = [Peer(node, identity, buffer=65536) for _ in range(6)]
    slow, stuck, idle = peers[:3], peers[3:5], peers[5]
    assert idle.ask("/cluster/")[0] == 200
    for peer in (*slow, *stuck):
        peer.http.request("GET", f"/blobs/{digest}")
    answers = [peer.http.getresponse() for peer in slow]
    received = [answer.read(MIB) for answer in answers]
    stopping = threading.Thread(target=node.kill, args=(signal.SIGTERM,))
    stopping.start()
    assert idle.http.sock.recv(1) == b""
    whole: list[bytes] = [b""] * len(slow)

    def read(index: int) -> None:
        whole[index] = received[index] + answers[index].read()

    readers = [threading.Thread(target=read, args=(index,)) for index in range(len(slow))]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join(LONG)
    assert whole == [data] * 3
    stopping.join(LONG)
    assert node.process is not None and node.process.returncode in (0, -signal.SIGTERM)
    for peer in stuck:
        with pytest.raises((OSError, http.client.HTTPException)):
            peer.http.getresponse().read()
    assert "Traceback" not in node.log


def test_a_worker_told_to_end_is_replaced_and_its_peers_come_back(swarm: Swarm) -> None:
    node, identity = add(swarm, workers=2), guest(swarm)
    digest = node.put(noise(MIB))
    time.sleep(SETTLED)
    peers = [Peer(node, identity) for _ in range(4)]
    [before] = workers(node)
    os.kill(before.pid, signal.SIGTERM)
    wait_until(lambda: not before.is_running(), "it ended", LONG)
    wait_until(lambda: [peer.cut() for peer in peers].count(True) == 2, "its peers know", LONG)
    assert Peer(node, identity).ask(f"/blobs/{digest}", Range="bytes=0-9")[0] == 206
    wait_serving(node, 2)

"""``--workers``: several processes behind one port, which nobody should notice but by the speed."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from swarm.testing.processes import Node, Swarm, swarm_in, wait_until

SETTLED = 0.1  # so long after a change of its directory a blob is not granted; see Disk.settled_at
LONG = 180.0


@pytest.fixture
def swarm(tmp_path: Path) -> Iterator[Swarm]:
    with swarm_in(tmp_path) as swarm:
        yield swarm


def add(swarm: Swarm, *options: str, workers: int = 2, settings: str = "", name: str = "node") -> Node:
    """A node all of whose workers serve."""
    node = swarm.add(name, f"--workers={workers}", *options, start=False)
    if settings:
        (node.directory / "swarm.toml").write_text(settings)
        node.command.append("--config=swarm.toml")
    node.start()
    wait_serving(node, workers)
    return node


def wait_serving(node: Node, count: int) -> None:
    wait_until(lambda: node.ready()["workers"] == {"serving": count, "wanted": count}, "all serve", LONG)


def workers(node: Node) -> list[psutil.Process]:
    found = psutil.Process(node.pid).children()
    return [each for each in found if "swarm.workers" in each.cmdline()]


class Client:
    """A connection that stays."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.http = http.client.HTTPConnection("127.0.0.1", node.http_port, timeout=LONG)
        self.http.connect()

    def ask(
        self, path: str, method: str = "GET", body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> tuple[int, bytes]:
        self.http.request(method, path, body, headers or {})
        response = self.http.getresponse()
        return response.status, response.read()

    def owner(self) -> int:
        """Which process has the other end now."""
        port = self.http.sock.getsockname()[1]
        for process in (psutil.Process(self.node.pid), *workers(self.node)):
            with contextlib.suppress(psutil.NoSuchProcess):
                for each in process.net_connections("tcp"):
                    if each.raddr and each.raddr.port == port and each.status != "LISTEN":
                        return process.pid
        return 0


def guests(node: Node, path: str, count: int) -> list[Client]:
    """Connections that a worker serves."""
    found, others = list[Client](), list[Client]()
    while len(found) < count:
        client = Client(node)
        status, _ = client.ask(path)
        assert status == 200
        # The others stay open meanwhile, or the node would always have the fewest.
        (found if client.owner() != node.pid else others).append(client)
    return found


def put(node: Node, data: bytes) -> str:
    digest = node.put(data)
    time.sleep(SETTLED)
    return digest


def test_connections_are_dealt_evenly_and_counted_together(swarm: Swarm) -> None:
    node = add(swarm, workers=3)
    data = os.urandom(3000)
    digest = put(node, data)
    before = node.metrics().get('swarm_http_requests_total{code="200",method="GET"}', 0)
    clients = [Client(node) for _ in range(9)]
    for _ in range(5):
        for client in clients:
            assert client.ask(f"/{digest}") == (200, data)
    owners = Counter(client.owner() for client in clients)
    assert sorted(owners) == sorted([node.pid, *(each.pid for each in workers(node))])
    assert max(owners.values()) - min(owners.values()) <= 1
    after = node.metrics()
    # The request for /metrics itself is counted the next time.
    assert after['swarm_http_requests_total{code="200",method="GET"}'] - before == 45 + 1
    assert after["swarm_http_sent_bytes_total"] >= 45 * 3000
    assert after["swarm_workers"] == 3 and after["swarm_worker_restarts_total"] == 0


def test_a_worker_answers_like_the_node(swarm: Swarm) -> None:
    node = add(swarm)
    data = os.urandom(700_000)
    digest = put(node, data)
    [client] = guests(node, f"/{digest}", 1)
    own = Client(node)
    own.ask("/health")
    assert own.owner() == node.pid
    for path, headers in (
        (f"/{digest}", {}),
        (f"/{digest}/nopeerload", {}),
        (f"/{digest}", {"Range": "bytes=5-99"}),
        (f"/{digest}", {"Range": "bytes=1-5, 9-20, -7"}),
        (f"/{digest}", {"Range": "bytes=700000-"}),
        (f"/{digest}", {"If-None-Match": f'"{digest}"'}),
        (f"/{digest}", {"If-Match": '"other"'}),
        (f"/{digest}", {"If-Range": '"other"', "Range": "bytes=0-0"}),
    ):
        for method in ("GET", "HEAD"):
            answers = []
            for each in (client, own):
                each.http.request(method, path, headers=headers)
                response = each.http.getresponse()
                fields = [field for field in response.getheaders() if field[0] != "Date"]
                answers.append((response.status, fields, response.read()))
            assert answers[0] == answers[1], (method, path, headers)
    assert client.owner() != node.pid and own.owner() == node.pid


def test_what_a_worker_cannot_answer_is_answered_by_the_node(swarm: Swarm) -> None:
    node = add(swarm)
    data, other = os.urandom(3000), os.urandom(300_000)
    digest = put(node, data)
    for path, status in (("/health", 200), ("/metrics", 200), (f"/{'0' * 128}", 404), ("/a/b", 404)):
        [client] = guests(node, f"/{digest}", 1)
        assert client.ask(path)[0] == status
        assert client.owner() == node.pid
        assert client.ask(f"/{digest}") == (200, data)
    [client] = guests(node, f"/{digest}", 1)
    assert client.ask("/name.bin", "PUT", other)[0] == 201
    [client] = guests(node, f"/{digest}", 1)
    assert client.ask("/name.bin", "PUT", other, {"Expect": "100-continue"})[0] == 200
    [client] = guests(node, f"/{digest}", 1)
    assert client.ask(f"/{digest.upper()}")[1] == data


def test_pipelined_requests_are_answered_in_order_across_processes(swarm: Swarm) -> None:
    node = add(swarm)
    data, big = os.urandom(900), os.urandom(5 << 20)
    digest, big_digest = put(node, data), put(node, big)
    get = f"GET /{digest} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
    get_big = f"GET /{big_digest} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
    write = b"PUT /f HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello"
    last = f"GET /{digest} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode()
    for whole in (get * 40 + get_big + get + write + get + last, get_big + write + get + get_big + last):
        for piece in (len(whole), 100, 7):
            [client] = guests(node, f"/{digest}", 1)
            sender = threading.Thread(target=send_in_pieces, args=(client.http.sock, whole, piece))
            sender.start()
            answers = b""
            while got := client.http.sock.recv(1 << 20):
                answers += got
            sender.join()
            stream, bodies = answers, []
            while stream:
                head, _, stream = stream.partition(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
                bodies.append(stream[:length])
                stream = stream[length:]
            wanted = [
                {get_big[:20]: big, get[:20]: data}.get(each[:20])
                for each in whole.replace(b"hello", b"").split(b"\r\n\r\n")[:-1]
            ]
            assert len(bodies) == len(wanted)
            assert all(want in (None, body) for want, body in zip(wanted, bodies, strict=True))


def test_a_client_may_ask_far_ahead(swarm: Swarm) -> None:
    node = add(swarm)
    data = os.urandom(900)
    digest = put(node, data)
    part = f"GET /{digest} HTTP/1.1\r\nHost: x\r\nRange: bytes=0-9\r\n\r\n".encode()
    plain = f"GET /{digest} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
    last = b"PUT /f HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello"
    [client] = guests(node, f"/{digest}", 1)
    count = 1500
    sender = threading.Thread(
        target=send_in_pieces, args=(client.http.sock, (part + plain) * count + last, 1 << 20)
    )
    sender.start()
    answers = b""
    while got := client.http.sock.recv(1 << 20):
        answers += got
    sender.join()
    assert answers.count(b"HTTP/1.1 206 ") == count
    assert answers.count(b"HTTP/1.1 200 ") == count and answers.count(data) == count
    assert answers.count(b"HTTP/1.1 201 ") == 1 and answers.endswith(b"}\n")


def send_in_pieces(connection: socket.socket, data: bytes, piece: int) -> None:
    for start in range(0, len(data), piece):
        connection.sendall(data[start : start + piece])
        if piece < 50:
            time.sleep(0.0005)


def test_markers_and_switches_by_hand_count_at_once_for_all(swarm: Swarm) -> None:
    node = add(swarm, workers=3)
    digest = put(node, os.urandom(3000))
    for marker, status in (
        (node.blob(digest).with_name("403"), 403),
        (node.blob(digest).with_name("404"), 404),
        (node.data / "denyget", 403),
    ):
        time.sleep(SETTLED)
        clients = guests(node, f"/{digest}", 4)
        marker.touch()
        assert [client.ask(f"/{digest}")[0] for client in clients] == [status] * 4
        marker.unlink()
        assert [client.ask(f"/{digest}")[0] for client in clients] == [200] * 4


def test_a_delete_is_answered_when_nobody_serves_the_blob_any_more(swarm: Swarm) -> None:
    node = add(swarm, workers=3)
    for round in range(3):
        data = os.urandom(3000)
        digest = put(node, data)
        gone, stop = threading.Event(), threading.Event()
        wrong: list[object] = []

        def hammer(digest: str = digest, data: bytes = data, gone=gone, stop=stop, wrong=wrong) -> None:
            client = Client(node)
            while not stop.is_set():
                late = gone.is_set()
                answer = client.ask(f"/{digest}/nopeerload")
                if (answer != (200, data) and answer[0] != 404) or (late and answer[0] == 200):
                    wrong.append((late, answer[0]))

        readers = [threading.Thread(target=hammer) for _ in range(6)]
        for reader in readers:
            reader.start()
        time.sleep(0.3)
        everywhere = "/allpeers" if round else ""
        assert node.request("DELETE", f"/{digest}{everywhere}")[0] == 200
        gone.set()
        time.sleep(0.3)
        stop.set()
        for reader in readers:
            reader.join(LONG)
        assert wrong == []


def test_a_killed_worker_harms_nobody_for_long(swarm: Swarm) -> None:
    node = add(swarm, workers=3)
    blobs = {put(node, data): data for data in (os.urandom(1000), os.urandom(400_000))}
    stop = threading.Event()
    wrong: list[object] = []
    done = [0, 0]

    def hammer() -> None:
        client = Client(node)
        while not stop.is_set():
            for digest, data in blobs.items():
                try:
                    answer = client.ask(f"/{digest}")
                except (OSError, http.client.HTTPException):
                    done[1] += 1
                    client.http.close()
                    client = Client(node)
                    continue
                done[0] += 1
                if answer != (200, data):
                    wrong.append((digest, answer[0], len(answer[1])))

    readers = [threading.Thread(target=hammer) for _ in range(6)]
    for reader in readers:
        reader.start()
    counted = 0.0
    try:
        for _ in range(3):
            wait_serving(node, 3)
            victim = workers(node)[0]
            victim.kill()
            wait_until(lambda victim=victim: not victim.is_running(), "it is gone", LONG)
            now = node.metrics()['swarm_http_requests_total{code="200",method="GET"}']
            assert now > counted
            counted = now
        wait_serving(node, 3)
    finally:
        stop.set()
        for reader in readers:
            reader.join(LONG)
    assert wrong == [] and done[0] > 100
    assert done[1] <= 3 * 6  # each death is noticed at most once by each reader
    metrics = node.metrics()
    assert metrics["swarm_worker_restarts_total"] == 3
    # All answers that arrived were counted, also those of the dead.
    assert metrics['swarm_http_requests_total{code="200",method="GET"}'] >= done[0]


def test_a_worker_that_hangs_is_replaced_and_its_clients_served_by_the_node(swarm: Swarm) -> None:
    node = add(swarm, settings="[crew]\nsilence = 1.0\n")
    data = os.urandom(3000)
    digest = put(node, data)
    [before] = workers(node)
    before.suspend()
    clients = [Client(node) for _ in range(4)]
    assert [client.ask(f"/{digest}") for client in clients] == [(200, data)] * 4
    assert {client.owner() for client in clients} == {node.pid}
    wait_until(lambda: [each.pid for each in workers(node)] not in ([], [before.pid]), "another", LONG)
    wait_serving(node, 2)


def test_a_worker_told_to_end_gives_its_clients_back(swarm: Swarm) -> None:
    node = add(swarm)
    data = os.urandom(3000)
    digest = put(node, data)
    clients = guests(node, f"/{digest}", 3)
    [before] = workers(node)
    before.terminate()
    wait_until(lambda: not before.is_running(), "it ended", LONG)
    assert [client.ask(f"/{digest}") for client in clients] == [(200, data)] * 3
    assert {client.owner() for client in clients} == {node.pid}
    wait_serving(node, 2)


def test_nothing_is_left_of_a_killed_node(swarm: Swarm) -> None:
    node = add(swarm, workers=3)
    left = workers(node)
    assert len(left) == 2
    left[0].suspend()
    node.kill()
    wait_until(lambda: not any(each.is_running() for each in left), "all are gone", LONG)
    node.start()
    wait_serving(node, 3)


def test_a_stop_lets_answers_end_and_waits_for_nobody_for_ever(swarm: Swarm) -> None:
    node = add(swarm, settings="[crew]\ndrain = 3.0\n")
    data = os.urandom(40 << 20)
    digest = put(node, data)
    slow, stuck, idle = guests(node, f"/{digest}", 3)
    nodes_own = Client(node)
    assert nodes_own.ask("/health")[0] == 200 and nodes_own.owner() == node.pid
    for client in (slow, stuck, nodes_own):
        client.http.request("GET", f"/{digest}")
    answers = [client.http.getresponse() for client in (slow, nodes_own)]
    received = [answer.read(1 << 20) for answer in answers]
    stopping = threading.Thread(target=node.kill, args=(signal.SIGTERM,))
    stopping.start()
    assert idle.http.sock.recv(1) == b""
    assert [start + answer.read() for start, answer in zip(received, answers, strict=True)] == [data, data]
    stopping.join(LONG)
    assert node.process is not None and node.process.returncode in (0, -signal.SIGTERM)
    with pytest.raises((OSError, http.client.HTTPException)):
        stuck.http.getresponse().read()


def test_a_reload_drops_nothing(swarm: Swarm) -> None:
    node = add(swarm)
    data = os.urandom(40 << 20)
    digest = put(node, data)
    [client] = guests(node, f"/{digest}", 1)
    pids = [each.pid for each in workers(node)]
    client.http.request("GET", f"/{digest}")
    answer = client.http.getresponse()
    received = answer.read(1 << 20)
    node.kill(signal.SIGHUP)
    for each in workers(node):
        each.send_signal(signal.SIGHUP)
    assert received + answer.read() == data
    assert client.ask("/health")[0] == 200
    assert [each.pid for each in workers(node)] == pids


def test_limits_of_connections_are_the_nodes(swarm: Swarm) -> None:
    node = add(swarm, workers=3, settings="[web]\nconnections = 10\n")
    digest = put(node, b"bytes")
    clients = [Client(node) for _ in range(9)]
    assert [client.ask(f"/{digest}")[0] for client in clients] == [200] * 9
    tenth = Client(node)
    assert tenth.ask("/health")[0] == 200
    with pytest.raises((OSError, http.client.HTTPException)):
        Client(node).ask("/health")
    for client in clients:
        client.http.close()

    def again() -> bool:
        try:
            return all(client.ask(f"/{digest}")[0] == 200 for client in [Client(node) for _ in range(9)])
        except (OSError, http.client.HTTPException):
            return False

    wait_until(again, "there is room again", LONG)


def test_tokens_count_in_workers(swarm: Swarm) -> None:
    import hashlib

    secret = hashlib.sha256(b"secret").hexdigest()
    (swarm.directory / "tokens").write_text(f"{secret} get,put\n")
    node = add(swarm, f"--tokens={swarm.directory / 'tokens'}")
    authorized = {"Authorization": "Bearer secret"}
    status, _, _ = node.request("PUT", "/f", b"bytes", authorized)
    assert status == 201
    time.sleep(SETTLED)
    digest = hashlib.sha512(b"bytes").hexdigest()
    clients = [Client(node) for _ in range(4)]
    assert [client.ask(f"/{digest}", headers=authorized)[0] for client in clients] == [200] * 4
    assert {client.owner() for client in clients} == {node.pid, workers(node)[0].pid}
    assert [client.ask(f"/{digest}")[0] for client in clients] == [401] * 4
    (swarm.directory / "tokens").write_text(f"{secret} put\n")
    assert [client.ask(f"/{digest}", headers=authorized)[0] for client in clients] == [403] * 4


def test_a_pull_begins_where_a_worker_has_nothing(swarm: Swarm) -> None:
    full = add(swarm, name="full")
    data = os.urandom(3 << 20)
    digest = put(full, data)
    empty = swarm.add("empty", "--workers=2", join=(full,))
    wait_serving(empty, 2)
    swarm.wait_acquainted([full, empty], within=LONG)
    clients = [Client(empty) for _ in range(4)]
    assert [client.ask(f"/{digest}") for client in clients] == [(200, data)] * 4


def test_slow_readers_do_not_fill_a_worker(swarm: Swarm) -> None:
    node = add(swarm)
    digest = put(node, os.urandom(16 << 20))
    clients = guests(node, f"/{digest}", 1)
    [worker] = workers(node)
    before = worker.memory_info().rss
    slow = [Client(node) for _ in range(60)]
    for client in slow:
        client.http.request("GET", f"/{digest}")
    time.sleep(1.0)
    assert worker.memory_info().rss - before < 64 << 20
    assert clients[0].ask(f"/{digest}", headers={"Range": "bytes=0-9"})[0] == 206
    for client in slow:  # with answers unread: a reset
        client.http.close()
    wait_until(lambda: worker.num_fds() < 30, "nothing is left of them", LONG)
    assert "Traceback" not in node.log


def test_clients_of_a_unix_socket_are_dealt_too(swarm: Swarm) -> None:
    node = swarm.add("node", "--workers=2", start=False)
    path = node.directory / "http"
    node.command = [each for each in node.command if not each.startswith("--http=")] + [f"--http=unix:{path}"]
    with (node.directory / "log").open("ab") as log:
        import subprocess

        node.process = subprocess.Popen(
            node.command, cwd=node.directory, stdout=log, stderr=log, env=node.environment
        )
    wait_until(lambda: "(pid" in node.log and " serves" in node.log and path.exists(), "it serves", LONG)
    for _ in range(6):
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(path))
            connection.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            answer = b""
            while got := connection.recv(4096):
                answer += got
            assert answer.startswith(b"HTTP/1.1 200 ") and answer.endswith(b"All systems go.\n")

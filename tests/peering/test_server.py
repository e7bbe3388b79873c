"""The peer port, as any HTTP client with a certificate sees it: raw requests over real mutual TLS."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import pytest
import pytest_twisted
from attrs import frozen
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.protocol import Factory, Protocol
from twisted.python.failure import Failure

from swarm.model.digest import Digest
from swarm.model.peers import PeerID
from swarm.model.ranges import RangeSet
from swarm.peering.limits import PeerLimits
from swarm.testing.contracts import pattern
from tests.peering.conftest import OpenSSLWorld
from tests.peering.nodes import SERVED, Node

DATA = pattern(3_000_000)
ID = Digest.of(DATA)
PATH = f"/blobs/{ID.hex}"


@frozen
class Answer:
    status: int
    fields: dict[str, str]
    body: bytes

    @property
    def detail(self) -> str:
        return str(json.loads(self.body)["detail"])


class Raw(Protocol):
    """Sends one request as it is, and keeps all that comes until the connection ends."""

    def __init__(self, request: bytes) -> None:
        self.got = bytearray()
        self.lost: Deferred[bytes] = Deferred()
        self._request = request

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.write(self._request)

    def dataReceived(self, data: bytes) -> None:
        self.got += data

    def connectionLost(self, reason: Failure | None = None) -> None:
        assert reason is not None
        if reason.check(ConnectionDone, ConnectionLost):
            self.lost.callback(bytes(self.got))
        else:
            self.lost.errback(reason)


@pytest_twisted.async_yield_fixture(params=SERVED)
async def node(world: OpenSSLWorld, request: pytest.FixtureRequest) -> AsyncIterator[Node]:
    node = Node(world, "beta", limits=PeerLimits(uploads=2), served=request.param)
    await node.listen()
    node.store.put(DATA, "three")
    yield node
    await node.stop()


@pytest.fixture
def asker(world: OpenSSLWorld) -> Node:
    """Has a certificate, and asks."""
    return Node(world, "alpha")


async def raw(asker: Node, node: Node, data: bytes) -> bytes:
    protocol = Raw(data)
    await asker.dial(node.peer.address, None).connect(Factory.forProtocol(lambda: protocol))
    return await protocol.lost.addTimeout(20, reactor)


async def ask(asker: Node, node: Node, request: str, *fields: str, body: bytes = b"") -> Answer:
    lines = [f"{request} HTTP/1.1", "Host: x", "Connection: close", *fields]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    data = await raw(asker, node, ("\r\n".join(lines) + "\r\n\r\n").encode() + body)
    head, _, rest = data.partition(b"\r\n\r\n")
    status, *got = head.decode("latin-1").split("\r\n")
    return Answer(
        int(status.split(" ")[1]),
        {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in got)},
        rest,
    )


@pytest_twisted.ensureDeferred
async def test_head_says_size_and_identity(node: Node, asker: Node) -> None:
    answer = await ask(asker, node, f"HEAD {PATH}")
    assert answer.status == 200
    assert answer.fields["content-length"] == str(len(DATA))
    assert answer.fields["etag"] == ID.etag
    assert answer.fields["repr-digest"] == ID.repr_digest
    assert answer.fields["swarm-names"] == "three"
    assert "swarm-have" not in answer.fields
    assert answer.body == b""
    assert (await ask(asker, node, f"HEAD /blobs/{Digest.of(b'').hex}")).status == 404


@pytest.mark.parametrize(
    ("value", "start", "stop"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=1000000-1999999", 1_000_000, 2_000_000),
        ("bytes=2999999-", 2_999_999, 3_000_000),
        ("bytes=-5", 2_999_995, 3_000_000),
        ("bytes=5-99999999", 5, 3_000_000),
    ],
)
@pytest_twisted.ensureDeferred
async def test_one_range_is_exact(node: Node, asker: Node, value: str, start: int, stop: int) -> None:
    answer = await ask(asker, node, f"GET {PATH}", f"Range: {value}")
    assert answer.status == 206
    assert answer.fields["content-range"] == f"bytes {start}-{stop - 1}/3000000"
    assert answer.fields["content-length"] == str(stop - start)
    assert answer.fields["etag"] == ID.etag
    assert "content-encoding" not in answer.fields and "transfer-encoding" not in answer.fields
    assert answer.body == DATA[start:stop]


@pytest_twisted.ensureDeferred
async def test_other_ranges(node: Node, asker: Node) -> None:
    answer = await ask(asker, node, f"GET {PATH}", "Range: bytes=3000000-")
    assert (answer.status, answer.fields["content-range"]) == (416, "bytes */3000000")
    answer = await ask(asker, node, f"GET {PATH}", "Range: bytes=" + ",".join(["0-"] * 1000))
    assert (answer.status, len(answer.body)) == (200, len(DATA))
    answer = await ask(asker, node, f"GET {PATH}")
    assert (answer.status, answer.body) == (200, DATA)


@pytest.mark.parametrize("pulls", [(), ("Swarm-Given: ?1",)], ids=["a plain tool", "a pull"])
@pytest_twisted.ensureDeferred
async def test_a_pull_is_told_what_others_were_given_and_a_plain_tool_waits_for_nobody(
    node: Node, asker: Node, pulls: tuple[str, ...]
) -> None:
    for _ in range(2):
        answer = await ask(asker, node, f"GET {PATH}", "Range: bytes=0-9", *pulls)
        assert (answer.status, answer.body) == (206, DATA[:10])
        assert answer.fields.get("swarm-given") == ("bytes=0-9" if pulls else None)


@pytest_twisted.ensureDeferred
async def test_a_partial_holder_gives_what_it_has_verified(node: Node, asker: Node) -> None:
    data = pattern(2_000_000, 7)
    have = RangeSet()
    have.add(0, 100)
    have.add(500, 1_000_000)
    digest = node.pull(data, have)
    path = f"/blobs/{digest.hex}"
    answer = await ask(asker, node, f"HEAD {path}")
    assert answer.fields["swarm-have"] == "bytes=0-99,500-999999"
    assert answer.fields["content-length"] == "2000000"
    answer = await ask(asker, node, f"GET {path}", "Range: bytes=500-999999")
    assert (answer.status, answer.body) == (206, data[500:1_000_000])
    assert answer.fields["swarm-have"] == "bytes=0-99,500-999999"
    answer = await ask(asker, node, f"GET {path}", "Range: bytes=99-100")
    assert (answer.status, answer.fields["content-range"]) == (416, "bytes */2000000")
    assert answer.fields["swarm-have"] == "bytes=0-99,500-999999"
    node.server.uploads.count = 2
    answer = await ask(asker, node, f"GET {path}", "Range: bytes=0-9")
    assert (answer.status, answer.fields["retry-after"]) == (503, "2")
    assert answer.fields["swarm-have"] == "bytes=0-99,500-999999"
    node.server.uploads.count = 0
    assert (await ask(asker, node, f"GET {path}")).status == 404
    assert (await ask(asker, node, f"GET {path}/midstates?grain=1048576")).status == 404


@pytest_twisted.ensureDeferred
async def test_midstates(node: Node, asker: Node) -> None:
    midstates = await node.store.midstates(ID)
    assert midstates is not None
    for query in ("", "?grain=1048576"):
        answer = await ask(asker, node, f"GET {PATH}/midstates{query}")
        assert (answer.status, answer.body) == (200, midstates.encode())
        assert answer.fields["content-type"] == "application/octet-stream"
    assert (await ask(asker, node, f"GET {PATH}/midstates?grain=2097152")).status == 404
    for query in ("grain=x", "grain=", "grain=1048576&grain=1048576"):
        assert (await ask(asker, node, f"GET {PATH}/midstates?{query}")).status in (400, 404)


@pytest_twisted.ensureDeferred
async def test_markers_and_switches_hold_for_peers_too(node: Node, asker: Node) -> None:
    node.store.markers[ID] = {"403"}
    for request in (f"HEAD {PATH}", f"GET {PATH}", f"GET {PATH}/midstates"):
        assert (await ask(asker, node, request)).status == 403
    node.store.markers[ID] = {"404"}
    assert (await ask(asker, node, f"GET {PATH}")).status == 404
    node.store.markers.clear()
    node.store.deny = {"get", "put", "delete"}
    assert (await ask(asker, node, f"GET {PATH}")).status == 403
    assert (await ask(asker, node, f"PUT {PATH}", body=DATA)).status == 403
    assert (await ask(asker, node, f"DELETE {PATH}", "Swarm-Generation: 1")).status == 403


@pytest_twisted.ensureDeferred
async def test_too_many_uploads_at_once_are_busy(node: Node, asker: Node) -> None:
    node.server.uploads.count = 2
    answer = await ask(asker, node, f"GET {PATH}", "Range: bytes=0-9")
    assert (answer.status, answer.fields["retry-after"]) == (503, "2")
    assert (await ask(asker, node, f"HEAD {PATH}")).status == 200
    assert "swarm-have" not in answer.fields
    node.server.uploads.count = 1
    answer = await ask(asker, node, f"GET {PATH}", "Range: bytes=0-9")
    assert answer.status == 206 and "swarm-have" not in answer.fields, "it has all of it"
    assert node.server.uploads.count == 1


@pytest_twisted.ensureDeferred
async def test_a_replica_is_verified_and_named(node: Node, asker: Node) -> None:
    data = pattern(1_500_000, 3)
    digest = Digest.of(data)
    fields = (f"Repr-Digest: {digest.repr_digest}", "Swarm-Names: a,%C3%BC")
    answer = await ask(asker, node, f"PUT /blobs/{digest.hex}", *fields, body=data)
    assert answer.status == 201
    assert json.loads(answer.body) == {"sha512": digest.hex, "length": len(data)}
    assert node.store.blobs[digest].data == data
    assert [name.text for name in node.store.blobs[digest].names] == ["a", "ü"]
    answer = await ask(asker, node, f"PUT /blobs/{digest.hex}", *fields, body=data)
    assert answer.status == 200
    assert [name.text for name in node.store.blobs[digest].names] == ["a", "ü"]


@pytest_twisted.ensureDeferred
async def test_wrong_bytes_are_422_and_leave_nothing(node: Node, asker: Node) -> None:
    digest = Digest.of(b"right")
    assert (await ask(asker, node, f"PUT /blobs/{digest.hex}", body=b"wrong")).status == 422
    field = f"Repr-Digest: {Digest.of(b'other').repr_digest}"
    assert (await ask(asker, node, f"PUT /blobs/{digest.hex}", field, body=b"right")).status == 422
    assert digest not in node.store.blobs
    assert not node.store.writing


@pytest_twisted.ensureDeferred
async def test_a_full_node_says_so_before_the_body(node: Node, asker: Node) -> None:
    node.store.quota = 100
    request = (
        f"PUT /blobs/{ID.hex} HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 3000000\r\n\r\n"
    )
    assert b"HTTP/1.1 507 " in (await raw(asker, node, request.encode()))[:20]


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        (("Content-Range: bytes 0-4/5",), 400),
        (("Content-Encoding: gzip",), 415),
        (("Swarm-Generation: -1",), 400),
        (("Swarm-Names: a%2Fb",), 400),
        (("Repr-Digest: sha-512=nonsense",), 400),
    ],
)
@pytest_twisted.ensureDeferred
async def test_malformed_pushes(node: Node, asker: Node, fields: tuple[str, ...], status: int) -> None:
    answer = await ask(asker, node, f"PUT /blobs/{Digest.of(b'right').hex}", *fields, body=b"right")
    assert answer.status == status


@pytest_twisted.ensureDeferred
async def test_a_push_needs_a_length(node: Node, asker: Node) -> None:
    assert (await ask(asker, node, f"PUT /blobs/{Digest.of(b'').hex}")).status == 411
    answer = await ask(asker, node, f"PUT /blobs/{Digest.of(b'').hex}", "Content-Length: 0")
    assert answer.status in (200, 201)


@pytest_twisted.ensureDeferred
async def test_a_tombstone_removes_older_copies_and_only_those(node: Node, asker: Node) -> None:
    assert (await ask(asker, node, f"DELETE {PATH}")).status == 400
    answer = await ask(asker, node, f"DELETE {PATH}", "Swarm-Generation: 2")
    assert (answer.status, json.loads(answer.body)["deleted"]) == (200, True)
    assert ID not in node.store.blobs
    answer = await ask(asker, node, f"PUT {PATH}", "Swarm-Generation: 1", body=DATA)
    assert answer.status == 410
    assert ID not in node.store.blobs
    assert (await ask(asker, node, f"PUT {PATH}", "Swarm-Generation: 2", body=DATA)).status == 201
    assert not node.store.tombstones.buried(ID)
    answer = await ask(asker, node, f"DELETE {PATH}", "Swarm-Generation: 1")
    assert (answer.status, json.loads(answer.body)["deleted"]) == (200, False)
    assert ID in node.store.blobs


@pytest_twisted.ensureDeferred
async def test_a_copy_deleted_while_it_arrives_does_not_stay(node: Node, asker: Node) -> None:
    data = pattern(500_000, 9)
    digest = Digest.of(data)
    finish = node.deletion.check_generation
    calls: list[int] = []

    def check(digest: Digest, generation: int) -> None:
        calls.append(generation)
        if len(calls) == 3:  # after its publication
            node.store.tombstones.known[digest] = (1, True)
        finish(digest, generation)

    node.deletion.check_generation = check  # type: ignore[method-assign]
    answer = await ask(asker, node, f"PUT /blobs/{digest.hex}", body=data)
    assert answer.status == 410
    assert digest not in node.store.blobs


@pytest_twisted.ensureDeferred
async def test_an_advice_names_its_sender_by_tls(node: Node, asker: Node) -> None:
    reason = b"grain 3\r\nis bad"
    answer = await ask(asker, node, f"POST {PATH}/corrupt", body=reason)
    assert answer.status == 202
    assert node.custodian.reports == [(asker.credentials.peer_id, ID, "grain 3 is bad")]
    assert (await ask(asker, node, f"POST {PATH}/corrupt", body=b"x" * 1025)).status == 413
    unknown = f"/blobs/{Digest.of(b'').hex}/corrupt"
    assert (await ask(asker, node, f"POST {unknown}", body=b"x")).status == 404
    assert len(node.custodian.reports) == 1


@pytest_twisted.ensureDeferred
async def test_greetings(node: Node, asker: Node) -> None:
    answer = await ask(asker, node, "GET /cluster/")
    assert json.loads(answer.body)["Name"] == "test"
    form = b"name=alpha&public-addr=a.example%3A80&mgmt-addr=%3A7041&request-full-update=true"
    answer = await ask(asker, node, "POST /cluster/", body=form)
    assert (answer.status, json.loads(answer.body)["Name"]) == (200, "test")
    me: PeerID = asker.credentials.peer_id
    assert node.membership.greetings == [(me, "alpha", "a.example:80", ":7041", "127.0.0.1")]
    several = form + b"&mgmt-addr=b.example%3A7041"
    assert (await ask(asker, node, "POST /cluster/", body=several)).status == 200
    assert node.membership.others == [(), ("b.example:7041",)]
    for bad in (b"", b"name=alpha", form + b"&name=beta", b"name=%ff&public-addr=&mgmt-addr=x:1"):
        assert (await ask(asker, node, "POST /cluster/", body=bad)).status == 400


@pytest_twisted.ensureDeferred
async def test_join(node: Node, asker: Node) -> None:
    assert (await ask(asker, node, "POST /join/", body=b"peer=b.example%3A7041")).status == 200
    assert [str(each) for each in node.membership.joined] == ["b.example:7041"]
    answer = await ask(asker, node, "POST /join/", body=b"peer=b.example%3A1")
    assert (answer.status, "nobody there" in answer.detail) == (502, True)
    for bad in (b"", b"peer=", b"peer=x", b"a=b&c=d", b"peer=a:1&peer=b:1", b"\xff"):
        assert (await ask(asker, node, "POST /join/", body=bad)).status == 400


@pytest_twisted.ensureDeferred
async def test_another_cluster_is_told_so(node: Node, asker: Node) -> None:
    for request in (f"HEAD {PATH}", f"GET {PATH}", "GET /cluster/", "POST /cluster/", f"PUT {PATH}"):
        assert (await ask(asker, node, request, "Swarm-Cluster: other")).status == 421
    assert (await ask(asker, node, f"HEAD {PATH}", "Swarm-Cluster: test")).status == 200


@pytest.mark.parametrize(
    ("request_line", "status"),
    [
        ("GET /", 404),
        ("POST /update/", 404),
        ("GET /blobs/", 404),
        ("GET /blobs/abc", 404),
        (f"GET /{ID.hex}", 404),
        ("GET /metrics", 404),
        (f"POST {PATH}", 405),
        (f"PUT {PATH}/midstates", 405),
        ("DELETE /cluster/", 405),
        ("GET /join/", 405),
        ("GET /cluster", 404),
        (f"GET {PATH}/../../etc/passwd", 404),
    ],
)
@pytest_twisted.ensureDeferred
async def test_the_inventory_of_routes_ends_here(
    node: Node, asker: Node, request_line: str, status: int
) -> None:
    assert (await ask(asker, node, request_line)).status == status


@pytest_twisted.ensureDeferred
async def test_upper_case_ids_name_the_same_blob(node: Node, asker: Node) -> None:
    assert (await ask(asker, node, f"HEAD /blobs/{ID.hex.upper()}")).status == 200


@pytest_twisted.ensureDeferred
async def test_without_a_certificate_nothing_is_answered(node: Node) -> None:
    """Also if somebody wires the port without TLS."""
    plain = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(node.site)
    for request in (f"GET {PATH}", "GET /cluster/", "GET /nowhere"):
        protocol = Raw(f"{request} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", plain.getHost().port)
        await endpoint.connect(Factory.forProtocol(lambda protocol=protocol: protocol))
        assert (await protocol.lost).startswith(b"HTTP/1.1 403 ")
    await plain.stopListening()

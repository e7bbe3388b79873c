"""Getting, putting and deleting blobs over the public API."""

from __future__ import annotations

import json
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from swarm.errors import Overloaded, PullFailed
from swarm.interfaces import BlobInfo
from swarm.model.digest import Digest
from swarm.model.filenames import Filename
from swarm.testing.memory import MemoryReader
from swarm.testing.wire import STRANGER

from .node import PEER, Node, request

BLOB = b"The quick brown fox jumps over the lazy dog. " * 500
ID = Digest.of(BLOB)
OTHER = Digest.of(b"another")


def stocked(name: str = "fox.txt", **kwargs: Any) -> Node:
    node = Node(**kwargs)
    node.store.put(BLOB, name)
    return node


# -- getting ------------------------------------------------------------------------


@pytest.mark.parametrize("path", [f"/{ID}", f"/{ID.hex.upper()}", f"/{ID}/nopeerload"])
def test_a_blob_comes_with_all_its_fields(path: str) -> None:
    response = stocked().ask("GET", path)
    assert (response.status, response.body) == (200, BLOB)
    fields = dict(response.fields)
    fields.pop("date")
    assert fields == {
        "accept-ranges": "bytes",
        "cache-control": "public, max-age=31536000, immutable",
        "content-disposition": 'attachment; filename="fox.txt"',
        "content-length": str(len(BLOB)),
        "content-type": "text/plain",
        "etag": f'"{ID}"',
        "referrer-policy": "no-referrer",
        "repr-digest": ID.repr_digest,
        "x-content-type-options": "nosniff",
    }


def test_head_is_get_without_the_body() -> None:
    node = stocked()
    head, get = node.ask("HEAD", f"/{ID}"), node.ask("GET", f"/{ID}")
    assert head.fields == get.fields and head.status == 200


def test_a_range_of_a_blob() -> None:
    response = stocked().ask("GET", f"/{ID}", "Range: bytes=4-8")
    assert (response.status, response.body) == (206, b"quick")
    assert response.fields["content-range"] == f"bytes 4-8/{len(BLOB)}"
    assert response.fields["repr-digest"] == ID.repr_digest  # of the whole, RFC 9530


def test_a_validator_saves_the_body() -> None:
    response = stocked().ask("GET", f"/{ID}", f'If-None-Match: "{ID}"')
    assert (response.status, response.body) == (304, b"")
    assert response.fields["etag"] == f'"{ID}"'


def test_an_unsatisfiable_range_says_the_size_and_caches_nothing() -> None:
    response = stocked().ask("GET", f"/{ID}", "Range: bytes=99999-")
    assert response.status == 416
    assert response.fields["content-range"] == f"bytes */{len(BLOB)}"
    assert "immutable" not in response.fields["cache-control"] and "etag" not in response.fields


@pytest.mark.parametrize(
    "name, kind, sandboxed",
    [
        ("a.jpg", "image/jpeg", False),
        ("a.html", "text/html", True),
        ("A.HTML", "text/html", True),
        ("a.svg", "image/svg+xml", True),
        ("a.xml", "text/xml", True),
        ("a.js", "text/javascript", True),
        ("a.xhtml", "application/xhtml+xml", True),
        ("a.tar.gz", "application/gzip", False),
        ("a.svgz", "application/gzip", False),
        ("a.mp4", "video/mp4", False),
        ("a.zzz", "application/octet-stream", False),
        ("README", "application/octet-stream", False),
        ("html", "application/octet-stream", False),
    ],
)
def test_the_type_follows_the_name_and_active_ones_are_sandboxed(
    name: str, kind: str, sandboxed: bool
) -> None:
    fields = stocked(name).ask("GET", f"/{ID}").fields
    assert fields["content-type"] == kind
    assert ("content-security-policy" in fields) is sandboxed
    assert fields["content-disposition"].startswith("attachment")


def test_a_name_of_any_script_travels() -> None:
    fields = stocked('Grüße "1".txt').ask("GET", f"/{ID}").fields
    assert "filename*=UTF-8''Gr%C3%BC%C3%9Fe%20%221%22.txt" in fields["content-disposition"]


def test_a_blob_without_a_name() -> None:
    node = Node()
    node.store.keep(BLOB)
    fields = node.ask("GET", f"/{ID}").fields
    assert fields["content-type"] == "application/octet-stream"
    assert "content-disposition" not in fields


def test_public_urls_of_peers_are_duplicates() -> None:
    node = stocked()
    node.membership.peers = (PEER,)
    link = node.ask("GET", f"/{ID}").fields["link"]
    assert f"<https://north.example/{ID}>; rel=duplicate; pri=1" in link
    assert f'</{ID}.meta4>; rel=describedby; type="application/metalink4+xml"' in link


def test_a_miss_is_pulled_and_nopeerload_is_not() -> None:
    node = Node()
    name = Filename.parse("fox.txt")
    node.fetcher.elsewhere[ID] = lambda: MemoryReader(BlobInfo(ID, len(BLOB), (name,)), BLOB)
    assert node.ask("GET", f"/{ID}").body == BLOB
    assert node.ask("GET", f"/{ID}/nopeerload").status == 404


def test_an_overloaded_node_says_when_to_come_back() -> None:
    node = Node()
    node.fetcher.error = Overloaded("too many pulls", retry_after=9)
    response = node.ask("GET", f"/{ID}")
    assert (response.status, response.fields["retry-after"]) == (503, "9")


def test_a_pull_that_failed_is_502_with_each_peers_part() -> None:
    node = Node()
    node.fetcher.error = PullFailed(ID, ("north: silent",))
    response = node.ask("GET", f"/{ID}")
    assert response.status == 502 and b"north: silent" in response.body


def test_a_lie_about_the_size_is_no_answer_while_another_size_is_tried() -> None:
    class Refuted(MemoryReader):
        async def available(self, offset: int, stop: int) -> int:
            node.fetcher.elsewhere[ID] = lambda: MemoryReader(BlobInfo(ID, len(BLOB)), BLOB)
            raise PullFailed(ID, ("liar: its bytes fail its own list",))

    node = Node()
    node.fetcher.elsewhere[ID] = lambda: Refuted(BlobInfo(ID, len(BLOB) + 9), BLOB + b"lies lies")
    assert node.ask("GET", f"/{ID}").status == 502
    node.fetcher.elsewhere[ID] = lambda: Refuted(BlobInfo(ID, len(BLOB) + 9), BLOB + b"lies lies")
    node.fetcher.more_sizes = True
    response = node.ask("GET", f"/{ID}")
    assert (response.status, response.fields["content-length"]) == (200, str(len(BLOB)))
    assert response.body == BLOB


@pytest.mark.parametrize("suffix", ["", "/nopeerload", "/locations", ".meta4", "/ffmetadata"])
def test_markers_answer_before_existence(suffix: str) -> None:
    for node in (stocked(), Node()):
        node.store.markers[ID] = {"403"}
        assert node.ask("GET", f"/{ID}{suffix}").status == 403
        node.store.markers[ID] = {"404"}
        marked = node.ask("GET", f"/{ID}{suffix}")
        del node.store.markers[ID]
        node.fetcher.elsewhere.clear()
        absent = Node().ask("GET", f"/{ID}/nopeerload")
        assert (marked.status, marked.body, marked.fields) == (404, absent.body, absent.fields)


@pytest.mark.parametrize(
    "method, path, switch",
    [
        ("GET", f"/{ID}", "get"),
        ("GET", f"/{OTHER}", "get"),
        ("HEAD", f"/{ID}/nopeerload", "get"),
        ("GET", f"/{ID}/locations", "get"),
        ("GET", f"/{ID}.meta4", "get"),
        ("PUT", "/x.txt", "put"),
        ("PUT", f"/{ID}", "put"),
        ("DELETE", f"/{ID}", "delete"),
        ("DELETE", f"/{OTHER}/allpeers", "delete"),
    ],
)
def test_switches_refuse_before_existence(method: str, path: str, switch: str) -> None:
    node = stocked()
    node.store.deny = {switch}
    assert node.ask(method, path, body=b"x" if method == "PUT" else None).status == 403
    node.store.deny = {"get", "put", "delete"} - {switch}
    assert node.ask(method, path, body=b"x" if method == "PUT" else None).status != 403


# -- putting ------------------------------------------------------------------------


def test_put_answers_with_everything_there_is_to_know() -> None:
    node = Node()
    response = node.ask("PUT", "/Gr%C3%BC%C3%9Fe.txt", body=BLOB)
    assert response.status == 201
    assert response.fields["location"] == f"/{ID}"
    assert json.loads(response.body) == {
        "sha512": ID.hex,
        "filename": "Grüße.txt",
        "length": len(BLOB),
        "content_type": "text/plain",
        "holders": ["here", "north"],
    }
    assert node.ask("GET", f"/{ID}").body == BLOB


def test_putting_again_is_200_and_a_lack_of_holders_202() -> None:
    node = Node()
    assert node.ask("PUT", "/a", body=BLOB).status == 201
    again = node.ask("PUT", "/b", body=BLOB)
    assert (again.status, json.loads(again.body)["filename"]) == (200, "b")
    node.replicator.reached = False
    lacking = node.ask("PUT", "/c", body=b"other")
    assert (lacking.status, json.loads(lacking.body)["holders"]) == (202, ["here"])


def test_a_chunked_put() -> None:
    node = Node()
    wire = node.wire()
    wire.send(request("PUT", "/f", "Transfer-Encoding: chunked"))
    for at in range(0, len(BLOB), 1000):
        piece = BLOB[at : at + 1000]
        wire.send(b"%x\r\n%s\r\n" % (len(piece), piece))
    wire.send(b"0\r\n\r\n")
    [response] = wire.responses()
    assert response.status == 201 and node.store.blobs[ID].data == BLOB


def test_an_empty_blob_is_ordinary() -> None:
    node = Node()
    assert node.ask("PUT", "/empty", body=b"").status == 201
    response = node.ask("GET", f"/{Digest.of(b'')}")
    assert (response.status, response.body) == (200, b"")


@pytest.mark.parametrize(
    "path, fields, status",
    [
        (f"/{ID}", (), 201),
        (f"/{ID.hex.upper()}", (), 201),
        (f"/{OTHER}", (), 422),
        ("/f", (f"Repr-Digest: {ID.repr_digest}",), 201),
        ("/f", (f"Content-Digest: {ID.repr_digest}",), 201),
        ("/f", (f"Repr-Digest: {OTHER.repr_digest}",), 422),
        ("/f", (f"Content-Digest: {OTHER.repr_digest}",), 422),
        ("/f", (f"Repr-Digest: {ID.repr_digest}", f"Content-Digest: {OTHER.repr_digest}"), 422),
        (f"/{ID}", (f"Repr-Digest: {OTHER.repr_digest}",), 422),
        ("/f", ("Repr-Digest: sha-256=:AAAA:",), 201),
        ("/f", ("Repr-Digest: sha-512=:AAAA:",), 400),
        ("/f", ("Repr-Digest: sha-512=nonsense",), 400),
    ],
)
def test_digests_are_checked_and_a_mismatch_keeps_nothing(
    path: str, fields: tuple[str, ...], status: int
) -> None:
    node = Node()
    assert node.ask("PUT", path, *fields, body=BLOB).status == status
    assert (ID in node.store.blobs) == (status == 201)
    assert not node.store.writing


@pytest.mark.parametrize(
    "path, fields, length, status",
    [
        ("/health", (), 1 << 40, 409),
        ("/f", (), 1 << 41, 507),
        ("/%2e%2e", (), 1 << 40, 400),
        (f"/{ID}", (f"Repr-Digest: {OTHER.repr_digest}",), 1 << 40, 422),
        ("/f", ("Content-Range: bytes 0-1/2",), 1 << 40, 400),
        ("/f", ("Content-Encoding: gzip",), 1 << 40, 415),
        ("/refreshpeers.html", (), 1 << 20, 413),
        ("/a/b", (), 1 << 40, 404),
        (f"/{ID}/allpeers", (), 1 << 40, 405),
    ],
)
def test_refusals_come_before_the_body_is_asked_for(
    path: str, fields: tuple[str, ...], length: int, status: int
) -> None:
    node = Node()
    wire = node.wire()
    wire.send(request("PUT", path, f"Content-Length: {length}", "Expect: 100-continue", *fields))
    assert b"100 Continue" not in wire.received
    assert [each.status for each in wire.responses()] == [status]
    assert wire.disconnected and not node.store.writing


def test_a_stranger_is_refused_before_the_body_and_nothing_is_stored() -> None:
    """RELIABILITY C.2: a GB from nobody leaves at most 64 KiB."""
    node = Node()
    wire = node.wire(STRANGER)
    wire.send(request("PUT", "/f", f"Content-Length: {1 << 30}") + bytes(1 << 20))
    assert [each.status for each in wire.responses()] == [403]
    assert not node.store.writing and not node.store.blobs


def test_the_body_is_asked_for_once_it_is_wanted() -> None:
    node = Node()
    wire = node.wire()
    wire.send(request("PUT", "/f", f"Content-Length: {len(BLOB)}", "Expect: 100-continue"))
    assert wire.received == b"HTTP/1.1 100 Continue\r\n\r\n"
    wire.send(BLOB)
    assert [each.status for each in wire.responses()] == [201]


def test_a_put_without_a_length_is_411() -> None:
    assert Node().ask("PUT", "/f").status == 411


def test_a_full_disk_midway_ends_a_chunked_put() -> None:
    node = Node()
    node.store.quota = 5000
    wire = node.wire()
    wire.send(request("PUT", "/f", "Transfer-Encoding: chunked"))
    wire.send(b"1000\r\n" + bytes(4096) + b"\r\n1000\r\n" + bytes(4096) + b"\r\n")
    assert [each.status for each in wire.responses()] == [507]
    assert not node.store.writing and not node.store.blobs


def test_a_client_that_leaves_midway_leaves_nothing() -> None:
    node = Node()
    wire = node.wire()
    wire.send(request("PUT", "/f", f"Content-Length: {len(BLOB)}") + BLOB[:-1])
    assert node.store.writing
    wire.hang_up()
    assert not node.store.writing and not node.store.blobs


def test_a_client_that_leaves_while_its_body_is_proven_leaves_nothing() -> None:
    node = Node()
    proving: Deferred[None] = Deferred()

    class Slow:
        """A writer whose proof takes time."""

        aborted = False

        def write(self, data: bytes) -> None: ...

        def lagging(self) -> bool:
            return False

        async def finish(self, name: object) -> None:
            await proving

        def abort(self) -> None:
            self.aborted = True

    writer = Slow()

    async def slow_writer(length: int | None, expect: Digest | None) -> Slow:
        return writer

    node.store.writer = slow_writer
    wire = node.wire()
    wire.send(request("PUT", "/f", body=BLOB))
    assert not wire.received
    wire.hang_up()
    assert writer.aborted


def test_a_volume_that_takes_no_writes_is_503() -> None:
    node = stocked()
    node.store.read_only = "EIO"
    response = node.ask("PUT", "/f", body=b"x")
    assert response.status == 503 and response.fields["retry-after"]
    assert node.ask("GET", f"/{ID}").status == 200


# -- deleting -----------------------------------------------------------------------


def test_deleting_here() -> None:
    node = stocked()
    response = node.ask("DELETE", f"/{ID}")
    assert (response.status, json.loads(response.body)) == (
        200,
        {"deleted": True, "sha512": ID.hex, "filename": "fox.txt", "length": len(BLOB)},
    )
    assert node.ask("DELETE", f"/{ID}").status == 404
    assert node.ask("PUT", "/fox.txt", body=BLOB).status == 201


def test_deleting_everywhere_says_who_confirmed() -> None:
    node = stocked()
    response = node.ask("DELETE", f"/{ID}/allpeers")
    assert response.status == 200
    assert json.loads(response.body) | {"confirmed": ["here"], "pending": []} == json.loads(response.body)
    node.deletion.pending = ("south",)
    response = node.ask("DELETE", f"/{ID}/allpeers")
    assert response.status == 202 and json.loads(response.body)["pending"] == ["south"]


# -- other forms of the name -----------------------------------------------------------


def test_an_ni_name_leads_to_the_id() -> None:
    response = Node().ask("GET", f"/.well-known/ni/sha-512/{ID.base64url}")
    assert (response.status, response.fields["location"]) == (307, f"/{ID}")

"""Metalink documents, read back by a parser that is not ours."""

from __future__ import annotations

import hashlib
from xml.etree import ElementTree

import pytest

from swarm.api.metalink import metalink
from swarm.interfaces import BlobInfo
from swarm.model.digest import Digest
from swarm.model.filenames import Filename
from swarm.testing.memory import MemoryReader

from .node import PEER, Node

NS = {"m": "urn:ietf:params:xml:ns:metalink"}
GRAIN = 1 << 20
BLOB = bytes(range(256)) * 4096 * 2 + b"tail"  # three grains, the last short
ID = Digest.of(BLOB)


def test_a_local_blob_has_piece_hashes_and_urls() -> None:
    node = Node()
    node.store.put(BLOB, "a & b.bin")
    node.membership.peers = (PEER,)
    response = node.ask("GET", f"/{ID}.meta4")
    assert response.fields["content-type"] == "application/metalink4+xml"
    file = ElementTree.fromstring(response.body).find("m:file", NS)
    assert file is not None and file.get("name") == "a & b.bin"
    assert file.findtext("m:size", None, NS) == str(len(BLOB))
    assert file.findtext("m:hash", None, NS) == ID.hex
    pieces = file.find("m:pieces", NS)
    assert pieces is not None and (pieces.get("length"), pieces.get("type")) == (str(GRAIN), "sha-256")
    expected = [hashlib.sha256(BLOB[at : at + GRAIN]).hexdigest() for at in range(0, len(BLOB), GRAIN)]
    assert [each.text for each in pieces] == expected
    assert [(each.text, each.get("priority")) for each in file.findall("m:url", NS)] == [
        (f"http://node.example/{ID}", "1"),
        (f"https://north.example/{ID}", "2"),
    ]


def test_piece_hashes_are_computed_once() -> None:
    node = Node()
    node.store.put(BLOB)
    first = node.ask("GET", f"/{ID}.meta4").body
    node.store.open = None  # only what is remembered can answer, given the blob's description
    reader = MemoryReader(BlobInfo(ID, len(BLOB)), b"not read again")

    async def described(digest: Digest) -> MemoryReader:
        return reader

    node.fetcher.open_local = described  # type: ignore[method-assign,assignment]
    assert node.ask("GET", f"/{ID}.meta4").body == first


def test_a_blob_elsewhere_has_no_piece_hashes_yet() -> None:
    node = Node()
    node.fetcher.elsewhere[ID] = lambda: MemoryReader(BlobInfo(ID, len(BLOB)), BLOB)
    response = node.ask("GET", f"/{ID}.meta4")
    assert response.status == 200 and b"<pieces" not in response.body
    assert ID.hex.encode() in response.body


@pytest.mark.parametrize("name", ['"><x>', "a'b\"c", "<&>"])
def test_names_cannot_break_out(name: str) -> None:
    info = BlobInfo(ID, 1, (Filename.parse(name),))
    file = ElementTree.fromstring(metalink(info, (), ['http://h/"<&>'])).find("m:file", NS)
    assert file is not None and file.get("name") == name
    assert file.findtext("m:url", None, NS) == 'http://h/"<&>'


def test_an_empty_blob_has_no_pieces() -> None:
    node = Node()
    digest = node.store.put(b"")
    assert b"<pieces" not in node.ask("GET", f"/{digest}.meta4").body

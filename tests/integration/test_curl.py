"""A stranger with curl: what the contract says of bytes, at a node that has them and at one that has not."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from email import message_from_bytes
from pathlib import Path
from urllib.parse import quote

import pytest

from swarm.testing.processes import Node, swarm_in

from .programs import LONG, done, noise, run, status

MIB = 1 << 20
TOKENS = {"reader": "get", "writer": "get,put"}


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Node]]:
    """``here`` has the only copies; ``cold`` pulls. ``guarded`` wants tokens, has a quota."""
    directory = tmp_path_factory.mktemp("curl")
    tokens = directory / "tokens"
    tokens.write_text(
        "".join(f"{hashlib.sha256(word.encode()).hexdigest()} {may}\n" for word, may in TOKENS.items())
    )
    with swarm_in(directory / "swarm") as swarm:
        here = swarm.add("here", "--copies=1")
        cold = swarm.add("cold", "--copies=1", join=(here,))
        guarded = swarm.add("guarded", "--copies=1", "--cluster=other", f"--tokens={tokens}", "--quota=1MiB")
        swarm.wait_acquainted([here, cold])
        yield {"here": here, "cold": cold, "guarded": guarded}


@pytest.fixture(scope="module")
def curl(need_program: Callable[[str], str]) -> str:
    return need_program("curl")


@pytest.fixture(params=["here", "cold"])
def server(request: pytest.FixtureRequest, nodes: dict[str, Node]) -> Node:
    """Asked for a blob that ``here`` has."""
    return nodes[request.param]


@pytest.fixture
def blob(nodes: dict[str, Node]) -> tuple[str, bytes]:
    """One of five MiB and a bit, that no node but ``here`` has seen."""
    data = noise(5 * MIB + 12345)
    return nodes["here"].put(data, "blob.bin"), data


# -- reading ------------------------------------------------------------------------


def test_a_get_is_whole_and_says_all_the_contract_says(
    server: Node, blob: tuple[str, bytes], curl: str, tmp_path: Path
) -> None:
    digest, data = blob
    got = done(curl, "-sSf", "-D", tmp_path / "head", f"{server.url}/{digest}")
    assert got.out == data
    head = (tmp_path / "head").read_text()
    sha512 = base64.b64encode(hashlib.sha512(data).digest()).decode()
    for line in (
        "HTTP/1.1 200 OK",
        f'ETag: "{digest}"',
        "Accept-Ranges: bytes",
        f"Content-Length: {len(data)}",
        f"Repr-Digest: sha-512=:{sha512}:",
        "Cache-Control: public, max-age=31536000, immutable",
        "X-Content-Type-Options: nosniff",
    ):
        assert f"{line}\r\n".lower() in head.lower().replace("\n", "\r\n").replace("\r\r", "\r"), line


def test_head_says_the_same_without_bytes(server: Node, blob: tuple[str, bytes], curl: str) -> None:
    digest, data = blob
    got = done(curl, "-sSfI", f"{server.url}/{digest}")
    assert f"content-length: {len(data)}" in got.text.lower() and f'etag: "{digest}"' in got.text.lower()


def test_a_broken_download_is_resumed(
    server: Node, blob: tuple[str, bytes], curl: str, tmp_path: Path
) -> None:
    digest, data = blob
    part = tmp_path / "part"
    part.write_bytes(data[: 2 * MIB + 1])
    got = done(
        curl, "-sSf", "-C", "-", "-o", part, "-w", "%{http_code} %{size_download}", f"{server.url}/{digest}"
    )
    assert got.text == f"206 {len(data) - 2 * MIB - 1}"
    assert part.read_bytes() == data


@pytest.mark.parametrize(
    ("asked", "start", "stop"),
    [("0-0", 0, 1), ("1000000-3999999", 1000000, 4000000), ("5242880-", 5242880, None), ("-100", -100, None)],
)
def test_one_range(
    server: Node, blob: tuple[str, bytes], curl: str, asked: str, start: int, stop: int | None, tmp_path: Path
) -> None:
    digest, data = blob
    got = done(curl, "-sSf", "-r", asked, "-D", tmp_path / "head", f"{server.url}/{digest}")
    assert got.out == data[start:stop]
    first = start % len(data) if start < 0 else start
    where = f"content-range: bytes {first}-{first + len(got.out) - 1}/{len(data)}"
    assert where in (tmp_path / "head").read_text().lower()


def test_several_ranges(server: Node, blob: tuple[str, bytes], curl: str, tmp_path: Path) -> None:
    digest, data = blob
    got = done(curl, "-sSf", "-r", "0-99,3000000-3000999,-50", "-D", tmp_path / "h", f"{server.url}/{digest}")
    head = (tmp_path / "h").read_bytes().partition(b"\r\n")[2]
    parts = message_from_bytes(head.strip() + b"\r\n\r\n" + got.out).get_payload()
    assert isinstance(parts, list)
    starts = (0, 3000000, len(data) - 50)
    for part, start, length in zip(parts, starts, (100, 1000, 50), strict=True):
        span = f"bytes {start}-{start + length - 1}/{len(data)}"
        assert not isinstance(part, str) and part["Content-Range"] == span
    for start, length in zip(starts, (100, 1000, 50), strict=True):
        assert data[start : start + length] in got.out


def test_a_range_past_the_end_is_416_and_says_the_size(
    server: Node, blob: tuple[str, bytes], curl: str, tmp_path: Path
) -> None:
    digest, data = blob
    assert status(curl, "-r", f"{len(data)}-", "-D", tmp_path / "head", f"{server.url}/{digest}") == "416"
    assert f"content-range: bytes */{len(data)}" in (tmp_path / "head").read_text().lower()


def test_conditions(server: Node, blob: tuple[str, bytes], curl: str) -> None:
    digest, _ = blob
    url = f"{server.url}/{digest}"
    for fields, expected in (
        ((f'If-None-Match: "{digest}"',), "304"),
        (('If-None-Match: "another"',), "200"),
        ((f'If-Match: "{digest}"',), "200"),
        (('If-Match: "another"',), "412"),
        (("Range: bytes=0-9", f'If-Range: "{digest}"'), "206"),
        (("Range: bytes=0-9", 'If-Range: "another"'), "200"),
        (("Range: bytes=0-9", "If-Range: Wed, 21 Oct 2015 07:28:00 GMT"), "200"),
    ):
        options = [word for each in fields for word in ("-H", each)]
        assert status(curl, *options, url) == expected, fields


def test_compression_is_never_applied_whatever_a_client_accepts(
    server: Node, nodes: dict[str, Node], curl: str, tmp_path: Path
) -> None:
    text = (b"a very compressible line\n" * 99999)[: 2 * MIB] + noise(8)
    packed = gzip.compress(text[:100000] + noise(8))
    for data, name in ((text, "lines.txt"), (packed, "lines.txt.gz")):
        digest = nodes["here"].put(data, name)
        got = done(curl, "-sSf", "--compressed", "-D", tmp_path / "head", f"{server.url}/{digest}")
        assert got.out == data
        assert "content-encoding" not in (tmp_path / "head").read_text().lower()


def test_an_id_in_capitals_and_an_ni_url_name_the_same_blob(
    server: Node, blob: tuple[str, bytes], curl: str
) -> None:
    digest, data = blob
    assert done(curl, "-sSf", f"{server.url}/{digest.upper()}").out == data
    named = base64.urlsafe_b64encode(bytes.fromhex(digest)).decode().rstrip("=")
    assert done(curl, "-sSfL", f"{server.url}/.well-known/ni/sha-512/{named}").out == data


def test_nopeerload_and_an_unknown_id_are_404(
    nodes: dict[str, Node], blob: tuple[str, bytes], curl: str
) -> None:
    digest, data = blob
    assert status(curl, f"{nodes['cold'].url}/{digest}/nopeerload") == "404"
    assert done(curl, "-sSf", f"{nodes['here'].url}/{digest}/nopeerload").out == data
    assert status(curl, f"{nodes['cold'].url}/{'0' * 128}") == "404"


def test_ten_clients_that_miss_the_same_id_cause_one_pull(
    nodes: dict[str, Node], curl: str, tmp_path: Path
) -> None:
    data = noise(12 * MIB)
    digest = nodes["here"].put(data)
    cold = nodes["cold"]
    before = cold.metrics()
    urls = [word for n in range(10) for word in (f"{cold.url}/{digest}", "-o", str(tmp_path / str(n)))]
    done(curl, "-sSf", "--parallel", "--parallel-immediate", "--parallel-max", "10", *urls)
    assert {(tmp_path / str(n)).read_bytes() == data for n in range(10)} == {True}
    after = cold.metrics()
    started = "swarm_pulls_started_total"
    assert after[started] - before[started] == 1
    received, sent = "swarm_bytes_received_total", "swarm_peer_sent_bytes_total"
    assert after[received] - before[received] < 1.1 * len(data)
    assert nodes["here"].metrics()[sent] >= len(data)


# -- writing ------------------------------------------------------------------------


def test_a_put_says_what_it_stored(nodes: dict[str, Node], curl: str, tmp_path: Path) -> None:
    data = noise(3 * MIB)
    (tmp_path / "film.mkv").write_bytes(data)
    got = done(curl, "-sSf", "-D", tmp_path / "head", "-T", tmp_path / "film.mkv", f"{nodes['here'].url}/")
    digest = hashlib.sha512(data).hexdigest()
    assert json.loads(got.out) == {
        "sha512": digest,
        "filename": "film.mkv",
        "length": len(data),
        "content_type": "video/x-matroska",
        "holders": ["here"],
    }
    head = (tmp_path / "head").read_text()
    assert " 201 " in head and f"Location: /{digest}" in head
    assert status(curl, "-T", tmp_path / "film.mkv", f"{nodes['here'].url}/") == "200"
    assert (nodes["here"].blob(digest)).read_bytes() == data


def test_a_pipe_of_unknown_length_is_stored(nodes: dict[str, Node], curl: str) -> None:
    data = noise(4 * MIB + 7)
    ran = subprocess.run(
        [curl, "-sSf", "-T", "-", f"{nodes['here'].url}/piped"],
        input=data,
        capture_output=True,
        timeout=LONG,
        check=True,
    )
    answer = json.loads(ran.stdout)
    assert (answer["sha512"], answer["length"]) == (hashlib.sha512(data).hexdigest(), len(data))


def test_an_empty_file_is_a_blob(nodes: dict[str, Node], curl: str, tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    put = run(curl, "-sSf", "-X", "PUT", "-H", "Content-Length: 0", f"{nodes['here'].url}/empty")
    digest = hashlib.sha512(b"").hexdigest()
    assert json.loads(put.out)["sha512"] == digest
    for node in (nodes["here"], nodes["cold"]):
        got = done(curl, "-sSf", "-w", "%{http_code}", f"{node.url}/{digest}")
        assert got.text == "200"


def test_a_body_that_is_not_what_was_promised_is_not_kept(
    nodes: dict[str, Node], curl: str, tmp_path: Path
) -> None:
    here, data = nodes["here"], noise(MIB)
    (tmp_path / "up").write_bytes(data)
    right, wrong = hashlib.sha512(data), hashlib.sha512(b"else")
    field = f"Repr-Digest: sha-512=:{base64.b64encode(wrong.digest()).decode()}:"
    assert status(curl, "-T", tmp_path / "up", f"{here.url}/{wrong.hexdigest()}") == "422"
    assert status(curl, "-H", field, "-T", tmp_path / "up", f"{here.url}/up") == "422"
    assert status(curl, f"{here.url}/{right.hexdigest()}") == "404"
    assert status(curl, "-T", tmp_path / "up", f"{here.url}/{right.hexdigest().upper()}") == "201"


@pytest.mark.parametrize("expect", ["Expect: 100-continue", "Expect:"])
def test_refusals_come_before_the_body(
    nodes: dict[str, Node], curl: str, tmp_path: Path, expect: str
) -> None:
    """With 100-continue no byte of the body is sent; without it the answer arrives all the same."""
    up = tmp_path / "up"
    with up.open("wb") as file:
        file.truncate(64 * MIB)
    guarded, here = nodes["guarded"], nodes["here"]
    (here.data / "denyput").touch()
    writer = ("-H", "Authorization: Bearer writer")
    cases: tuple[tuple[str, str, tuple[str, ...]], ...] = (
        ("401", f"{guarded.url}/f", ()),
        ("401", f"{guarded.url}/f", ("-H", "Authorization: Bearer guess")),
        ("403", f"{guarded.url}/f", ("-H", "Authorization: Bearer reader")),
        ("409", f"{guarded.url}/metrics", writer),
        ("507", f"{guarded.url}/f", writer),
        ("403", f"{here.url}/f", ()),  # by the switch
    )
    try:
        for code, url, extra in cases:
            form = "%{http_code} %{size_upload}"
            options = ("-H", expect, "--expect100-timeout", "60", *extra, "-o", os.devnull, "-w", form)
            got = run(curl, "-sS", *options, "-T", up, url).text.split()
            assert got[0] == code, (code, url, got)
            if expect != "Expect:":
                assert got[1] == "0", (code, url, got)
    finally:
        (here.data / "denyput").unlink()


def test_an_upload_that_is_welcome_waits_for_100_continue_and_gets_it(
    nodes: dict[str, Node], curl: str, tmp_path: Path
) -> None:
    (tmp_path / "up").write_bytes(noise(MIB))
    options = ("-v", "-H", "Expect: 100-continue", "--expect100-timeout", "60")
    got = run(curl, "-sS", *options, "-T", tmp_path / "up", f"{nodes['here'].url}/")
    assert "< HTTP/1.1 100 Continue" in got.err and "< HTTP/1.1 201 " in got.err


NAMES = [
    "grüße aus münchen.txt",
    "100% sure?.txt",
    'a "quoted" name.txt',
    "日本語.mkv",
    "semi;colon, comma & plus+.bin",
    "back\\slash",
    "e\u0301.txt",  # stored in NFC
]


@pytest.mark.parametrize("name", NAMES)
def test_any_name_goes_in_and_comes_out(nodes: dict[str, Node], curl: str, tmp_path: Path, name: str) -> None:
    """curl itself reads the field back: ``-J`` knows no RFC 8187, so its plain fallback must be harmless."""
    body = tmp_path / "body"
    body.write_bytes(noise(100))
    got = done(curl, "-sSf", "-T", body, f"{nodes['here'].url}/{quote(name, safe='')}")
    answer = json.loads(got.out)
    composed = name.replace("e\u0301", "\u00e9")
    assert answer["filename"] == composed
    for node in (nodes["here"], nodes["cold"]):
        head = done(curl, "-sSf", "-D", "-", "-o", os.devnull, f"{node.url}/{answer['sha512']}").text
        (disposition,) = [
            each for each in head.splitlines() if each.lower().startswith("content-disposition")
        ]
        if composed.isascii() and not set(composed) & set('%"\\'):
            assert f'filename="{composed}"' in disposition
        else:
            assert f"filename*=UTF-8''{quote(composed, safe='')}".lower() in disposition.lower()
    (tmp_path / "saved").mkdir()
    assert run(curl, "-sSfOJ", f"{nodes['here'].url}/{answer['sha512']}", cwd=tmp_path / "saved").code == 0
    (saved,) = (tmp_path / "saved").iterdir()
    assert saved.read_bytes() == body.read_bytes()


@pytest.mark.parametrize("path", ["%00", "a%2Fb", "%2e%2e", "%2e.", "a%0Ab", "x" * 256, "%ff"])
def test_no_other_name_does(nodes: dict[str, Node], curl: str, tmp_path: Path, path: str) -> None:
    (tmp_path / "body").write_bytes(b"body")
    url = f"{nodes['here'].url}/{path}"
    assert status(curl, "--path-as-is", "-T", tmp_path / "body", url) == "400"


@pytest.mark.parametrize("name", ["health", "health.html", "ready", "metrics", "fs", "find", ".well-known"])
def test_the_nodes_own_names_cannot_be_put(
    nodes: dict[str, Node], curl: str, tmp_path: Path, name: str
) -> None:
    (tmp_path / "body").write_bytes(b"body")
    assert status(curl, "-T", tmp_path / "body", f"{nodes['here'].url}/{name}") == "409"

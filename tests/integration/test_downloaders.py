"""Download programs: aria2 over several nodes by Metalink, wget; one node dies while it serves."""

from __future__ import annotations

import hashlib
import subprocess
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from swarm.model.grains import Grains
from swarm.testing.processes import Node, Swarm, free_port, swarm_in, wait_until

from .programs import LONG, Tap, done, noise

MIB = 1 << 20
METALINK = "{urn:ietf:params:xml:ns:metalink}"


@pytest.fixture(scope="module")
def swarm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Swarm]:
    with swarm_in(tmp_path_factory.mktemp("downloaders") / "swarm") as made:
        yield made


@pytest.fixture(scope="module")
def nodes(swarm: Swarm) -> list[Node]:
    return swarm.full(2)


def aria2(program: str, directory: Path, *arguments: str | Path) -> list[str]:
    options = [
        "--no-conf",
        "-d",
        str(directory),
        "-x4",
        "-k1M",
        "--file-allocation=none",
        "--summary-interval=0",
    ]
    return [program, *options, "--retry-wait=1", "--check-integrity=true", *map(str, arguments)]


def test_a_metalink_names_the_nodes_and_the_hash_of_every_piece(nodes: list[Node]) -> None:
    data = noise(3 * MIB + 5)
    digest = nodes[0].put(data, "a%20%26%20b.bin")
    status, head, document = nodes[0].request("GET", f"/{digest}.meta4")
    assert (status, head["content-type"]) == (200, "application/metalink4+xml")
    file = ElementTree.fromstring(document).find(f"{METALINK}file")
    assert file is not None and file.get("name") == "a & b.bin"
    assert file.findtext(f"{METALINK}size") == str(len(data))
    assert file.findtext(f"{METALINK}hash") == digest
    urls = [each.text for each in file.findall(f"{METALINK}url")]
    assert urls == [f"{node.url}/{digest}" for node in nodes]
    pieces = file.find(f"{METALINK}pieces")
    assert pieces is not None and pieces.get("type") == "sha-256"
    grains = Grains.of(len(data))
    assert pieces.get("length") == str(grains.grain)
    assert [each.text for each in pieces] == [
        hashlib.sha256(data[grains.start(n) : grains.stop(n)]).hexdigest() for n in range(grains.count)
    ]


def test_links_tell_where_else_the_blob_is(nodes: list[Node], need_program: Callable[[str], str]) -> None:
    digest = nodes[0].put(noise(1000))
    head = done(need_program("curl"), "-sSfI", f"{nodes[0].url}/{digest}").text
    assert f"Link: <{nodes[1].url}/{digest}>; rel=duplicate" in head
    assert f"Link: </{digest}.meta4>; rel=describedby" in head


def test_aria2_goes_on_when_a_node_is_killed_while_it_serves(
    swarm: Swarm, nodes: list[Node], need_program: Callable[[str], str], tmp_path: Path
) -> None:
    """The doomed node's public address is a tap that runs dry with much of the file still to come."""
    program = need_program("aria2c")
    port = free_port()
    tap = Tap(port, 4 * MIB)
    doomed = swarm.add(
        "doomed",
        f"--http=tcp:{port}:interface=127.0.0.1",
        f"--public-url=http://{tap.address}",
        join=tuple(nodes),
        start=False,
    )
    doomed.http_port = port
    doomed.start()
    try:
        swarm.wait_acquainted([*nodes, doomed])
        data = noise(24 * MIB)
        digest = doomed.put(data, "big.bin")
        # Whoever of the two was not chosen for the second copy pulls it now.
        for node in nodes:
            assert node.get(digest) == data
        document = tmp_path / "big.meta4"
        document.write_bytes(nodes[0].request("GET", f"/{digest}.meta4")[2])
        assert tap.address in document.read_text()
        with (tmp_path / "log").open("wb") as log:
            running = subprocess.Popen(
                aria2(program, tmp_path, "-s6", "-j6", "--split=6", "-M", document), stdout=log, stderr=log
            )
            tap.wait_until_dry()
            doomed.kill()
            tap.close()
            assert running.wait(LONG) == 0, (tmp_path / "log").read_text()[-2000:]
        assert (tmp_path / "big.bin").read_bytes() == data
    finally:
        tap.close()
        doomed.kill()


def test_aria2_mends_a_damaged_file_piece_by_piece(
    nodes: list[Node], need_program: Callable[[str], str], tmp_path: Path
) -> None:
    program = need_program("aria2c")
    data = noise(8 * MIB)
    digest = nodes[0].put(data, "mended.bin")
    bad = bytearray(data)
    bad[5 * MIB] ^= 1
    (tmp_path / "mended.bin").write_bytes(bad)
    (tmp_path / "m.meta4").write_bytes(nodes[0].request("GET", f"/{digest}.meta4")[2])
    sent = "swarm_http_sent_bytes_total"
    before = sum(node.metrics()[sent] for node in nodes)
    done(*aria2(program, tmp_path, "-V", "-M", tmp_path / "m.meta4"))
    assert (tmp_path / "mended.bin").read_bytes() == data
    assert sum(node.metrics()[sent] for node in nodes) - before < 5 * MIB


@pytest.mark.parametrize("which", [0, 1])
def test_wget_goes_on_with_a_part(
    nodes: list[Node], need_program: Callable[[str], str], tmp_path: Path, which: int
) -> None:
    program = need_program("wget")
    data = noise(4 * MIB)
    digest = nodes[0].put(data)
    part = tmp_path / "part"
    part.write_bytes(data[:MIB])
    got = done(program, "-c", "-S", "-O", part, f"{nodes[which].url}/{digest}")
    assert "206 Partial Content" in got.err and part.read_bytes() == data
    again = done(program, "-c", "-O", part, f"{nodes[which].url}/{digest}")  # 416: there is no more
    assert part.read_bytes() == data and "fully retrieved" in again.err


def test_wget_asks_again_when_a_node_is_killed_and_comes_back(
    swarm: Swarm, nodes: list[Node], need_program: Callable[[str], str], tmp_path: Path
) -> None:
    program = need_program("wget")
    data = noise(8 * MIB)
    digest = nodes[1].put(data)
    tap = Tap(nodes[1].http_port, 3 * MIB)
    part = tmp_path / "part"
    options = ["-q", "-c", "-t20", "--waitretry=1", "--retry-connrefused"]
    running = subprocess.Popen([program, *options, "-O", str(part), f"http://{tap.address}/{digest}"])
    try:
        tap.wait_until_dry()
        nodes[1].kill()
        nodes[1].start()
        tap.open()
        assert running.wait(LONG) == 0
        assert part.read_bytes() == data
    finally:
        running.kill()
        tap.close()
    wait_until(lambda: nodes[1].ready()["peers"], "it knows others again", LONG)

"""Seeking in a film through a node that has not got it: the asked-for bytes come first, and are right.

The only holder is behind a slow line, so a cold node that fetched from the front would still be at it.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from swarm.testing.processes import Node, Swarm, free_port, swarm_in, wait_until

from .programs import LONG, Tap, done, status

MIB = 1 << 20
SECONDS = 12
SOURCE = ("-f", "lavfi", "-i", f"testsrc=duration={SECONDS}:size=320x240:rate=10")
LARGE = 72 * MIB
PACE = 4 * MIB  # bytes a second: time enough for programs to start on a slow machine


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory, need_program: Callable[[str], str]) -> dict[str, Path]:
    """A small mp4 and mkv, and an mp4 of 72 MiB whose index is at its very end."""
    ffmpeg, directory = need_program("ffmpeg"), tmp_path_factory.mktemp("films")
    need_program("ffprobe")
    small = {"mp4": directory / "small.mp4", "mkv": directory / "small.mkv"}
    for path in small.values():
        codec = ("-c:v", "mpeg4", "-g", "10", "-b:v", "2M")
        done(ffmpeg, "-v", "error", *SOURCE, *codec, path)
    large = directory / "large.mp4"
    # Uncompressed, so that it is large; the index ("moov") of an mp4 comes last unless told otherwise.
    raw = ("-c:v", "rawvideo", "-pix_fmt", "yuv420p", "-s", "640x1024")
    done(
        ffmpeg,
        "-v",
        "error",
        *SOURCE[:-1],
        SOURCE[-1].replace("duration=12", "duration=8"),
        *raw,
        directory / "r.avi",
    )
    done(
        ffmpeg,
        "-v",
        "error",
        "-i",
        directory / "r.avi",
        "-c:v",
        "mjpeg",
        "-q:v",
        "1",
        "-an",
        directory / "j.mp4",
    )
    film = (directory / "j.mp4").read_bytes()
    assert film.rindex(b"moov") > film.index(b"mdat")
    large.write_bytes(padded(film, LARGE))
    for name in ("r.avi", "j.mp4"):
        (directory / name).unlink()
    return {**small, "large": large}


def padded(film: bytes, size: int) -> bytes:
    """The film with an ``mdat`` that has no picture in it between its pictures and its index."""
    at = film.rindex(b"moov") - 4
    room = size - len(film)
    box = b"\x00\x00\x00\x01mdat" + room.to_bytes(8, "big") + os.urandom(room - 16)
    return film[:at] + box + film[at:]


@pytest.fixture(scope="module")
def swarm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Swarm]:
    with swarm_in(tmp_path_factory.mktemp("media") / "swarm") as made:
        yield made


@pytest.fixture(scope="module")
def tap() -> Iterator[Tap]:
    made = Tap(free_port())
    yield made
    made.close()


@pytest.fixture(scope="module")
def holder(swarm: Swarm, tap: Tap) -> Node:
    """Peers reach it through the tap only."""
    node = swarm.add(
        "holder",
        "--copies=1",
        f"--peer=tcp:{tap.port}:interface=127.0.0.1",
        f"--advertise={tap.address}",
    )
    node.peer_port = int(tap.address.rpartition(":")[2])
    return node


@pytest.fixture(scope="module")
def cold(swarm: Swarm, holder: Node) -> Node:
    node = swarm.add("cold", "--copies=1", join=(holder,))
    swarm.wait_acquainted([holder, node])
    return node


def put(node: Node, path: Path) -> str:
    return node.put(path.read_bytes(), path.name)


def still_missing(node: Node, digest: str) -> int:
    """How many bytes the pull has yet to verify; 0 when it is over."""
    pull = json.loads(node.request("GET", f"/{digest}/locations")[2])["pull"]
    return 0 if pull is None else int(pull["size"] - pull["verified"])


def frames(ffmpeg: str, source: str | Path, start: str) -> str:
    """Checksums of the decoded pictures from ``start`` on."""
    seek = ("-ss", start, "-i", str(source), "-frames:v", "3", "-an", "-f", "framemd5", "-")
    text = done(ffmpeg, "-v", "error", *seek).text
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    assert len(lines) == 3
    return "\n".join(lines)


@pytest.mark.parametrize("kind", ["mp4", "mkv"])
def test_a_small_film_is_probed_and_decoded_through_a_cold_node(
    films: dict[str, Path], holder: Node, cold: Node, need_program: Callable[[str], str], kind: str
) -> None:
    ffmpeg, ffprobe = need_program("ffmpeg"), need_program("ffprobe")
    digest = put(holder, films[kind])
    show = ("-v", "error", "-print_format", "json", "-show_streams")
    assert done(ffprobe, *show, f"{cold.url}/{digest}").out == done(ffprobe, *show, films[kind]).out
    for start in ("0", "7.3", "11"):
        assert frames(ffmpeg, f"{cold.url}/{digest}", start) == frames(ffmpeg, films[kind], start)


def test_seeking_fetches_what_is_asked_for_first(
    films: dict[str, Path], holder: Node, cold: Node, tap: Tap, need_program: Callable[[str], str]
) -> None:
    """The index is 72 MiB away: in order it would come last."""
    ffmpeg, ffprobe = need_program("ffmpeg"), need_program("ffprobe")
    digest = put(holder, films["large"])
    url = f"{cold.url}/{digest}"
    expected = frames(ffmpeg, films["large"], "5")
    tap.pace = PACE
    probed = json.loads(done(ffprobe, "-v", "error", "-print_format", "json", "-show_format", url).out)
    assert float(probed["format"]["duration"]) == pytest.approx(8, abs=0.2)
    assert still_missing(cold, digest) > LARGE // 4
    assert frames(ffmpeg, url, "5") == expected
    assert still_missing(cold, digest) > 0
    tap.open()
    wait_until(lambda: cold.has(digest), "the pull goes on to its end", LONG)
    assert cold.blob(digest).read_bytes() == films["large"].read_bytes()


def test_a_range_in_the_middle_does_not_wait_for_what_is_before_it(
    holder: Node, cold: Node, tap: Tap
) -> None:
    data = os.urandom(LARGE)
    digest = holder.put(data)
    tap.pace = PACE
    # There is one holder, so these bytes are proven by what comes after them.
    start = LARGE // 6 * 5
    assert cold.get(digest, {"Range": f"bytes={start}-{start + 99}"}) == data[start : start + 100]
    assert still_missing(cold, digest) > LARGE // 2
    tap.open()
    assert cold.get(digest) == data


def test_a_client_that_leaves_does_not_end_the_pull_others_wait_for(
    holder: Node, cold: Node, tap: Tap
) -> None:
    data = os.urandom(24 * MIB)
    digest = holder.put(data)
    tap.budget = 8 * MIB
    with socket.create_connection(("127.0.0.1", cold.http_port)) as leaving:
        leaving.sendall(f"GET /{digest} HTTP/1.1\r\nHost: n\r\n\r\n".encode())
        assert leaving.recv(12) == b"HTTP/1.1 200"
    tap.open()
    assert cold.get(digest) == data
    assert cold.metrics()["swarm_pulls_failed_total"] == 0


def test_ffmetadata_of_a_film_that_is_elsewhere(
    films: dict[str, Path], holder: Node, swarm: Swarm, need_program: Callable[[str], str], cold: Node
) -> None:
    curl = need_program("curl")
    again = films["mkv"].read_bytes() + b"\xec\x80"  # an empty Void element: another id, the same film
    digest = holder.put(again, "again.mkv")
    answer = json.loads(done(curl, "-sSf", f"{cold.url}/{digest}/ffmetadata").out)
    assert answer["format"]["format_name"] == "matroska,webm"
    assert answer["streams"][0]["width"] == 320
    text = holder.put(b"no film\n" * 999)
    assert status(curl, f"{cold.url}/{text}/ffmetadata") == "415"
    assert status(curl, f"{cold.url}/{'1' * 128}/ffmetadata") == "404"

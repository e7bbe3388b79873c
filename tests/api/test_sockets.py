"""The API on real sockets with other people's clients: curl, aria2c, ffprobe."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor as installed
from twisted.internet import utils
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint, connectProtocol, serverFromString
from twisted.internet.protocol import Protocol
from twisted.internet.task import deferLater

from swarm.hashing.sha512 import load as load_sha512
from swarm.interfaces import BlobInfo
from swarm.model.digest import Digest
from swarm.storage.filesystem import FilesystemStore
from swarm.storage.settings import StoreSettings
from swarm.testing.memory import MemoryReader
from swarm.web.limits import WebLimits

from .node import Node, request, run_inline, sha256
from .test_short_path import Hasty

reactor: Any = installed
Need = Callable[[str], str]
BLOB = os.urandom(5 << 20)
ID = Digest.of(BLOB)


class Listening:
    """A node on a port of its own."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.port = reactor.listenTCP(0, node.site, interface="127.0.0.1")
        self.url = f"http://127.0.0.1:{self.port.getHost().port}"

    def close(self) -> None:
        self.node.site.disconnect()
        pytest_twisted.blockon(self.port.stopListening())


@pytest.fixture
def listen() -> Iterator[Callable[..., Listening]]:
    opened: list[Listening] = []

    def open_(**kwargs: Any) -> Listening:
        opened.append(Listening(Node(clock=reactor, process=reactor, **kwargs)))
        return opened[-1]

    yield open_
    for each in opened:
        each.close()


async def run(*command: str | Path) -> tuple[int, bytes, bytes]:
    """``(exit code, stdout, stderr)``; twenty seconds at most."""
    program, *arguments = map(str, command)
    out, err, code = await utils.getProcessOutputAndValue(
        program, arguments, env=os.environ, reactor=reactor
    ).addTimeout(20, reactor)
    return code, out, err


@pytest_twisted.ensureDeferred
async def test_curl_puts_gets_resumes_and_deletes(
    listen: Callable[..., Listening], need_program: Need, tmp_path: Path
) -> None:
    curl, up, down = need_program("curl"), tmp_path / "up.bin", tmp_path / "down.bin"
    up.write_bytes(BLOB)
    at = listen()
    code, out, _ = await run(curl, "-sS", "-T", up, f"{at.url}/")
    assert code == 0 and json.loads(out)["sha512"] == ID.hex and json.loads(out)["filename"] == "up.bin"
    down.write_bytes(BLOB[:1_000_000])
    code, _, _ = await run(curl, "-sSf", "-C", "-", "-o", down, f"{at.url}/{ID}")
    assert code == 0 and down.read_bytes() == BLOB
    code, out, _ = await run(curl, "-sS", "-X", "DELETE", f"{at.url}/{ID}")
    assert json.loads(out)["deleted"] is True
    code, out, _ = await run(curl, "-s", "-o", os.devnull, "-w", "%{http_code}", f"{at.url}/{ID}")
    assert out == b"404"


@pytest_twisted.ensureDeferred
async def test_curl_sends_no_byte_of_a_body_that_is_refused(
    listen: Callable[..., Listening], need_program: Need, tmp_path: Path
) -> None:
    curl, up, tokens = need_program("curl"), tmp_path / "up.bin", tmp_path / "tokens"
    with up.open("wb") as file:
        file.truncate(1 << 30)
    tokens.write_text(f"{sha256('secret')} get\n")
    at = listen(tokens=tokens)
    for extra, status in ([], "401"), (["-H", "Authorization: Bearer secret"], "403"):
        expect = ["-H", "Expect: 100-continue", "--expect100-timeout", "15"]
        wanted = "%{http_code} %{size_upload}"
        _, out, _ = await run(
            curl, "-sS", *expect, *extra, "-o", os.devnull, "-w", wanted, "-T", up, f"{at.url}/f"
        )
        assert out.decode() == f"{status} 0"


@pytest_twisted.ensureDeferred
async def test_curl_reads_a_refusal_although_it_is_sending(
    listen: Callable[..., Listening], need_program: Need, tmp_path: Path
) -> None:
    """Without 100-continue the body is on its way: a hasty close would reset the answer away."""
    curl, up, tokens = need_program("curl"), tmp_path / "up.bin", tmp_path / "tokens"
    with up.open("wb") as file:
        file.truncate(256 << 20)
    tokens.write_text("")
    at = listen(tokens=tokens)
    _, out, err = await run(
        curl, "-sS", "-H", "Expect:", "-o", os.devnull, "-w", "%{http_code}", "-T", up, f"{at.url}/f"
    )
    assert out == b"401", err


@pytest_twisted.ensureDeferred
async def test_aria2_follows_a_metalink_and_checks_its_pieces(
    listen: Callable[..., Listening], need_program: Need, tmp_path: Path
) -> None:
    aria2c, curl = need_program("aria2c"), need_program("curl")
    at = listen()
    at.node.store.put(BLOB, "blob.bin")
    meta = tmp_path / "blob.meta4"
    code, _, err = await run(curl, "-sSf", "-o", meta, f"{at.url}/{ID}.meta4")
    assert code == 0, err
    code, out, _ = await run(
        aria2c, "--no-conf", "-q", "-d", tmp_path, "-s", "4", "-x", "4", "-k", "1M", "--check-integrity=true",
        "--follow-metalink=false", "-M", meta,
    )  # fmt: skip
    assert code == 0, out
    assert hashlib.sha512((tmp_path / "blob.bin").read_bytes()).digest() == ID.raw


class FileReader(MemoryReader):
    """A blob in a file, with the descriptor ffprobe gets."""

    def __init__(self, path: Path) -> None:
        data = path.read_bytes()
        super().__init__(BlobInfo(Digest.of(data), len(data)), data)
        self._descriptor = os.open(path, os.O_RDONLY)

    def fileno(self) -> int:
        return self._descriptor

    def close(self) -> None:
        super().close()
        os.close(self._descriptor)


async def probe(at: Listening, curl: str, path: Path) -> tuple[str, bytes]:
    """Status and body of ``/{id}/ffmetadata`` for a file."""
    reader = FileReader(path)

    async def open_local(_: Digest) -> FileReader:
        return reader

    at.node.fetcher.open_local = open_local  # type: ignore[method-assign,assignment]
    _, out, _ = await run(curl, "-sS", "-w", "\n%{http_code}", f"{at.url}/{reader.info.digest}/ffmetadata")
    body, _, status = out.rpartition(b"\n")
    return status.decode(), body


@pytest_twisted.ensureDeferred
async def test_ffprobe_describes_media_and_nothing_else(
    listen: Callable[..., Listening], need_program: Need, tmp_path: Path
) -> None:
    ffmpeg, curl = need_program("ffmpeg"), need_program("curl")
    need_program("ffprobe")
    at = listen()
    for name in ("tone.wav", "tone.mp4", "tone.mkv", "tone.flac", "tone.ogg", "tone.mp3"):
        path = tmp_path / name
        code, _, err = await run(ffmpeg, "-v", "error", "-f", "lavfi", "-i", "sine=duration=1", path)
        assert code == 0, err
        status, body = await probe(at, curl, path)
        document = json.loads(body)
        assert (status, document["streams"][0]["codec_type"]) == ("200", "audio"), name
        assert "filename" not in document["format"]
    text = tmp_path / "text.txt"
    text.write_text("no media here\n" * 100)
    assert (await probe(at, curl, text))[0] == "415"


@pytest.mark.parametrize(
    "playlist",
    [
        "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile://{secret}\n#EXT-X-ENDLIST\n",
        "ffconcat version 1.0\nfile {secret}\n",
        "ffconcat version 1.0\nfile file:{secret}\n",
    ],
)
@pytest_twisted.ensureDeferred
async def test_a_playlist_opens_no_other_file(
    listen: Callable[..., Listening], need_program: Need, tmp_path: Path, playlist: str
) -> None:
    ffmpeg, curl = need_program("ffmpeg"), need_program("curl")
    need_program("ffprobe")
    secret = tmp_path / "secret.ts"  # what ffprobe follows a playlist to, unless told not to
    await run(ffmpeg, "-v", "error", "-f", "lavfi", "-i", "sine=duration=1", secret)
    blob = tmp_path / "blob"
    blob.write_text(playlist.format(secret=secret))
    assert (await probe(listen(), curl, blob))[0] == "415"


class Client(Protocol):
    """Sends as fast as it may, reads only when told."""

    def __init__(self) -> None:
        self.received = b""
        self.ended: Deferred[None] = Deferred()
        self.reading = True

    def connectionMade(self) -> None:
        if not self.reading:
            self.transport.pauseProducing()  # type: ignore[union-attr]

    def dataReceived(self, data: bytes) -> None:
        self.received += data

    def connectionLost(self, reason: Any = None) -> None:
        self.ended.callback(None)


async def connect(at: Listening, reading: bool = True) -> Any:
    client = Client()
    client.reading = reading
    endpoint = HostnameEndpoint(reactor, "127.0.0.1", at.port.getHost().port)
    return await connectProtocol(endpoint, client)


@pytest_twisted.ensureDeferred
async def test_a_client_that_never_reads_is_dropped_and_its_blob_closed(
    listen: Callable[..., Listening],
) -> None:
    at = listen(limits=WebLimits(progress=0.3))
    readers = []
    big = bytes(64 << 20)

    def opened() -> MemoryReader:
        readers.append(MemoryReader(BlobInfo(ID, len(big)), big))
        return readers[-1]

    at.node.fetcher.elsewhere[ID] = opened
    client = await connect(at, reading=False)
    client.transport.write(f"GET /{ID} HTTP/1.1\r\nHost: h\r\n\r\n".encode())
    while at.node.site.connections or not readers:
        await deferLater(reactor, 0.05)
    assert readers[0].closed
    client.transport.abortConnection()
    await client.ended


@pytest_twisted.ensureDeferred
async def test_a_flood_of_forms_takes_no_memory(listen: Callable[..., Listening]) -> None:
    """32 MiB urlencoded took stock twisted.web 810 MiB and four seconds (RELIABILITY 0.5)."""
    at = listen()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    client = await connect(at)
    kind = "Content-Type: application/x-www-form-urlencoded\r\nTransfer-Encoding: chunked"
    client.transport.write(f"POST /health HTTP/1.1\r\nHost: h\r\n{kind}\r\n\r\n".encode())
    piece = b"a=&" * 21845
    for _ in range(512):
        if client.ended.called:
            break
        client.transport.write(b"%x\r\n%s\r\n" % (len(piece), piece))
        await deferLater(reactor, 0)
    await client.ended
    assert client.received.startswith(b"HTTP/1.1 405 ")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10  # KiB


class Lagging:
    """A writer that is behind until the test says otherwise."""

    def __init__(self, writer: Any) -> None:
        self.writer = writer
        self.behind = True
        self.held: Deferred[None] = Deferred()

    def lagging(self) -> bool:
        return self.behind

    async def caught_up(self) -> None:
        await self.held

    def __getattr__(self, name: str) -> Any:
        return getattr(self.writer, name)


@pytest_twisted.ensureDeferred
async def test_an_upload_is_paused_while_the_disk_lags(listen: Callable[..., Listening]) -> None:
    at = listen()
    writers: list[Lagging] = []
    plain = at.node.store.writer

    async def writer(length: int | None, expect: Digest | None = None) -> Lagging:
        writers.append(Lagging(await plain(length, expect)))
        return writers[-1]

    at.node.store.writer = writer
    client = await connect(at)
    size = 64 << 20
    client.transport.write(f"PUT /f HTTP/1.1\r\nHost: h\r\nContent-Length: {size}\r\n\r\n".encode())
    client.transport.write(bytes(size))
    await deferLater(reactor, 0.3)
    assert 0 < writers[0].writer.received < 1 << 20  # what was in flight when it was paused
    writers[0].behind = False
    writers[0].held.callback(None)
    while b"\r\n\r\n" not in client.received:
        await deferLater(reactor, 0.01)
    assert client.received.startswith(b"HTTP/1.1 201 ")
    assert writers[0].writer.received == size
    client.transport.abortConnection()
    await client.ended


@pytest.mark.parametrize("kind", ["ssl", "unix"])
@pytest_twisted.ensureDeferred
async def test_other_endpoints_serve_as_well(need_program: Need, tmp_path: Path, kind: str) -> None:
    """CONTRACT: ``--http`` is any server endpoint; a UNIX socket's clients are local."""
    curl, openssl = need_program("curl"), need_program("openssl")
    key, cert, socket, up = (tmp_path / name for name in ("key.pem", "cert.pem", "socket", "up.bin"))
    up.write_bytes(BLOB)
    node = Node(clock=reactor, process=reactor)
    if kind == "ssl":
        subject = [
            "-subj",
            "/CN=localhost",
            "-days",
            "1",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
        ]
        code, _, err = await run(openssl, "req", "-x509", "-nodes", *subject, "-keyout", key, "-out", cert)
        assert code == 0, err
        description = f"ssl:0:privateKey={key}:certKey={cert}:interface=127.0.0.1"
    else:
        description = f"unix:{socket}"
    port = await serverFromString(reactor, description).listen(node.site)
    url = "http://localhost" if kind == "unix" else f"https://localhost:{port.getHost().port}"
    options = ["-sSk", "--http1.1"] if kind == "ssl" else ["-sS", "--unix-socket", socket]
    try:
        code, out, err = await run(curl, *options, "-T", up, f"{url}/f")
        assert code == 0 and json.loads(out)["sha512"] == ID.hex, err
        code, out, err = await run(curl, *options, "-r", "1000000-3999999", f"{url}/{ID}")
        assert code == 0 and out == BLOB[1_000_000:4_000_000], err
        code, out, _ = await run(curl, *options, "-X", "PUT", "-H", "Expect: 100-continue", "-H",
            f"Content-Length: {1 << 50}", "-w", "%{http_code}", "-o", os.devnull, f"{url}/f")  # fmt: skip
        assert out == b"507"
    finally:
        node.site.disconnect()
        await port.stopListening()


@pytest_twisted.ensureDeferred
async def test_a_small_answer_leaves_before_the_reactor_turns(tmp_path: Path) -> None:
    """Over plain TCP; that Twisted's transports still have the names eager_send() reads shows here too."""
    site = Node(clock=reactor).site
    port = reactor.listenTCP(0, site, interface="127.0.0.1")
    with socket.create_connection(("127.0.0.1", port.getHost().port)) as client:
        while not site.connections:
            await deferLater(reactor, 0.01)
        [channel] = site._channels
        client.settimeout(20)
        channel.send_whole(memoryview(b"now"))
        assert client.recv(10) == b"now"
        channel.transport.write(b"first ")
        channel.send_whole(memoryview(b"second"))
        client.setblocking(False)
        with pytest.raises(BlockingIOError):
            client.recv(100)
        said = b""
        while len(said) < 12:
            await deferLater(reactor, 0.01)
            with suppress(BlockingIOError):
                said += client.recv(100)
        assert said == b"first second"
    site.disconnect()
    await port.stopListening()


@pytest_twisted.ensureDeferred
async def test_a_pipelining_client_that_reads_late_gets_every_byte_in_order(tmp_path: Path) -> None:
    store = FilesystemStore(
        str(tmp_path),
        StoreSettings(reserve=0),
        clock=reactor,
        sha512=load_sha512(),
        run_blocking=run_inline,
        random=Random(1),
        disk=Hasty(),
    )
    await store.start()
    ids = []
    for size in (0, 1, 1000, 65_536, 200_000):
        writer = await store.writer(size)
        writer.write(BLOB[:size])
        ids.append((await writer.finish()).info.digest)
        (await store.open(ids[-1])).close()
    node = Node(store=store, clock=reactor)
    path = node.site.short_path
    assert path is not None
    taken: list[int] = []
    path._count = lambda method, size: taken.append(size)
    port = reactor.listenTCP(0, node.site, interface="127.0.0.1")
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
        client.connect(("127.0.0.1", port.getHost().port))
        client.setblocking(False)
        unsent = b"".join(request("GET", f"/{digest}") for digest in ids) * 6
        said = bytearray()
        while said.count(b"HTTP/1.1 200 OK\r\n") < 30 or not said.endswith(BLOB[199_000:200_000]):
            with suppress(BlockingIOError):
                unsent = unsent[client.send(unsent[:5000]) :]
            with suppress(BlockingIOError):
                said += client.recv(1 << 16)
            await deferLater(reactor, 0)
    rest = bytes(said)
    for digest in ids * 6:
        head, _, rest = rest.partition(b"\r\n\r\n")
        size = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
        assert Digest.of(rest[:size]) == digest
        rest = rest[size:]
    assert rest == b"" and len(taken) == 30
    node.site.disconnect()
    await port.stopListening()
    await store.stop()

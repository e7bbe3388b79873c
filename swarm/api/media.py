"""What ffprobe says of a blob.

The blob is a stranger's: ffprobe gets an open descriptor and no path, may open nothing else (a
playlist would name other files), knows no format that refers to others, and has limits.
"""

from __future__ import annotations

import json
import shutil
from typing import Any

from attrs import frozen
from twisted.internet.defer import Deferred, DeferredSemaphore
from twisted.internet.error import ProcessDone
from twisted.internet.interfaces import IReactorProcess, IReactorTime
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

from swarm.errors import Overloaded
from swarm.interfaces import IBlobReader
from swarm.web.errors import Refusal

#: Containers and streams that are whole in themselves: no playlists, no concatenations.
_FORMATS = (
    "aac,ac3,aiff,amr,ape,asf,au,avi,bmp_pipe,caf,dts,eac3,flac,flv,gif,h264,hevc,ico,ivf,j2k_pipe,"
    "jpeg_pipe,jpegxl_pipe,m4v,matroska,matroska,webm,mov,mov,mp4,m4a,3gp,3g2,mj2,mp3,mpeg,mpegts,"
    "mpegvideo,mxf,nut,ogg,png_pipe,rm,swf,tiff_pipe,tta,voc,w64,wav,webp_pipe,wv"
)


@frozen
class MediaLimits:
    """Seconds, bytes and how many at once."""

    timeout: float = 20.0
    output: int = 1 << 20
    probes: int = 2
    waiting: int = 16


class MediaProbe:
    """
    Runs ffprobe.

    :param program: looked up at every use, so that installing it needs no restart.
    """

    def __init__(
        self, process: IReactorProcess, *, clock: IReactorTime, program: str = "ffprobe", limits: MediaLimits
    ) -> None:
        self._process = process
        self._clock = clock
        self._program = program
        self._limits = limits
        self._slots = DeferredSemaphore(limits.probes)

    async def probe(self, reader: IBlobReader) -> dict[str, Any]:
        """
        Describe a complete local blob.

        :raises Refusal: 501 without ffprobe or a descriptor, 415 if it is not media.
        :raises Overloaded: too many wait, or it took too long.
        """
        path = shutil.which(self._program)
        if path is None:
            raise Refusal(501, "ffprobe is not installed on this node")
        if reader.fileno() < 0:
            raise Refusal(501, "this node cannot show the blob to ffprobe")
        if len(self._slots.waiting) >= self._limits.waiting:
            raise Overloaded("too many probes wait")
        await self._slots.acquire()
        try:
            return _described(await self._run(path, reader.fileno()))
        finally:
            self._slots.release()

    async def _run(self, path: str, descriptor: int) -> bytes:
        done: Deferred[bytes] = Deferred(lambda _: probe.kill())
        probe = _Probe(done, self._limits.output)
        arguments = [
            path, "-v", "error", "-protocol_whitelist", "file", "-format_whitelist", _FORMATS,
            "-print_format", "json", "-show_format", "-show_streams", "-i", "file:/dev/stdin",
        ]  # fmt: skip
        fds: dict[int, int | str] = {0: descriptor, 1: "r", 2: "r"}
        env = {"PATH": "/usr/bin:/bin"}
        self._process.spawnProcess(probe, path, arguments, env=env, path="/", childFDs=fds)
        done.addTimeout(self._limits.timeout, self._clock, lambda *_: Failure(Overloaded("ffprobe is slow")))
        return await done


class _Probe(ProcessProtocol):
    """Collects what ffprobe prints; kills it when that is too much."""

    def __init__(self, done: Deferred[bytes], limit: int) -> None:
        self._done = done
        self._limit = limit
        self._output = bytearray()

    def kill(self) -> None:
        if self.transport is not None and self.transport.pid is not None:
            self.transport.signalProcess("KILL")

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        if childFD == 1:
            self._output += data
        if len(self._output) > self._limit:
            self.kill()

    def processEnded(self, reason: Failure) -> None:
        if self._done.called:
            return
        if reason.check(ProcessDone) and len(self._output) <= self._limit:
            self._done.callback(bytes(self._output))
        else:
            self._done.errback(Refusal(415, "not media"))


def _described(output: bytes) -> dict[str, Any]:
    try:
        found = json.loads(output)
    except ValueError as e:
        raise Refusal(415, "not media") from e
    if not isinstance(found, dict) or not found.get("streams"):
        raise Refusal(415, "not media")
    form = found.get("format")
    if isinstance(form, dict):
        form.pop("filename", None)  # ours, and no news to the client
    return found

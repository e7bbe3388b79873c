"""How ffprobe is run: limits, time, and what counts as media. Real ffprobe is in test_sockets."""

from __future__ import annotations

import json
import shutil
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessDone, ProcessTerminated
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from swarm.api.media import MediaLimits, MediaProbe
from swarm.errors import Overloaded
from swarm.interfaces import BlobInfo
from swarm.model.digest import Digest
from swarm.testing.memory import MemoryReader
from swarm.web.errors import Refusal

PROGRAM = "true"  # any program that is surely there; it is never run here
GOOD = json.dumps({"streams": [{"codec_type": "audio"}], "format": {"filename": "/x", "duration": "1"}})


class Reader(MemoryReader):
    def fileno(self) -> int:
        return 42


class Processes:
    """Starts nothing; tests speak for the processes."""

    def __init__(self) -> None:
        self.started: list[Any] = []

    def spawnProcess(self, protocol: Any, executable: str, args: list[str], **kwargs: Any) -> None:
        self.started.append(protocol)
        protocol.arguments, protocol.kwargs, protocol.killed = args, kwargs, False
        protocol.transport = self
        self.pid = 1

    def signalProcess(self, signal: str) -> None:
        assert signal == "KILL"
        self.started[-1].killed = True


class Bench:
    def __init__(self, **limits: Any) -> None:
        self.clock, self.processes = Clock(), Processes()
        self.limits = MediaLimits(**limits)
        self.media = MediaProbe(self.processes, clock=self.clock, program=PROGRAM, limits=self.limits)

    def probe(self, reader: MemoryReader | None = None) -> Deferred[Any]:
        reader = reader or Reader(BlobInfo(Digest.of(b"x"), 1), b"x")
        return Deferred.fromCoroutine(self.media.probe(reader))

    def end(self, output: str, good: bool = True, index: int = -1) -> None:
        protocol = self.processes.started[index]
        protocol.childDataReceived(2, b"complaints")
        protocol.childDataReceived(1, output.encode())
        protocol.processEnded(Failure(ProcessDone(0) if good else ProcessTerminated(1)))


def status(outcome: Deferred[Any]) -> int:
    errors: list[Failure] = []
    outcome.addErrback(errors.append)
    error = errors[0].value
    assert isinstance(error, Refusal)
    return error.status


def test_the_blob_comes_as_a_descriptor_and_nothing_else_may_be_opened() -> None:
    bench = Bench()
    outcome = bench.probe()
    [started] = bench.processes.started
    assert started.arguments[0] == shutil.which(PROGRAM)
    assert started.arguments[-2:] == ["-i", "file:/dev/stdin"]
    assert started.kwargs["childFDs"] == {0: 42, 1: "r", 2: "r"}
    assert started.kwargs["env"] == {"PATH": "/usr/bin:/bin"}
    formats = started.arguments[started.arguments.index("-format_whitelist") + 1].split(",")
    assert not {"hls", "concat", "dash", "sdp", "image2", "applehttp", "ffmetadata"} & set(formats)
    bench.end(GOOD)
    results: list[Any] = []
    outcome.addCallback(results.append)
    assert results == [{"streams": [{"codec_type": "audio"}], "format": {"duration": "1"}}]


@pytest.mark.parametrize(
    "output, good",
    [(GOOD, False), ("{}", True), ('{"streams": []}', True), ("[]", True), ("nonsense", True), ("", True)],
)
def test_what_ffprobe_does_not_know_is_415(output: str, good: bool) -> None:
    bench = Bench()
    outcome = bench.probe()
    bench.end(output, good)
    assert status(outcome) == 415


def test_endless_output_is_killed() -> None:
    bench = Bench(output=100)
    outcome = bench.probe()
    bench.processes.started[0].childDataReceived(1, b"x" * 101)
    assert bench.processes.started[0].killed
    bench.processes.started[0].processEnded(Failure(ProcessTerminated(signal=9)))
    assert status(outcome) == 415


def test_a_slow_probe_is_killed_and_its_place_given_on() -> None:
    bench = Bench(probes=1)
    first, second = bench.probe(), bench.probe()
    assert len(bench.processes.started) == 1
    bench.clock.advance(bench.limits.timeout)
    assert bench.processes.started[0].killed
    bench.processes.started[0].processEnded(Failure(ProcessTerminated(signal=9)))
    first.addErrback(lambda failure: failure.trap(Overloaded))
    assert len(bench.processes.started) == 2
    bench.end(GOOD)
    assert second.called
    assert bench.clock.getDelayedCalls() == []


def test_a_client_that_leaves_takes_its_probe_along() -> None:
    bench = Bench()
    outcome = bench.probe()
    outcome.addErrback(lambda _: None)
    outcome.cancel()
    assert bench.processes.started[0].killed and bench.clock.getDelayedCalls() == []


def test_only_so_many_wait() -> None:
    bench = Bench(probes=1, waiting=1)
    bench.probe(), bench.probe()
    refused: list[Any] = []
    bench.probe().addErrback(lambda failure: refused.append(failure.trap(Overloaded)))
    assert refused == [Overloaded]


def test_a_blob_without_a_descriptor_is_501() -> None:
    assert status(Bench().probe(MemoryReader(BlobInfo(Digest.of(b"x"), 1), b"x"))) == 501

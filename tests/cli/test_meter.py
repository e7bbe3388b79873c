"""The progress display: only when somebody watches, only after a while, and clean."""

from __future__ import annotations

import threading
import time

import pytest

from swarm.cli import blobs
from swarm.cli import meter as module
from swarm.cli.meter import Meter, SourceLine
from swarm.cli.session import Session
from swarm.model.digest import Digest

DIGEST = Digest.parse("a" * 128)


def test_without_a_terminal_nothing_is_drawn(capsys, monkeypatch) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.0)
    with Meter("title", 10) as meter:
        meter.advance(10)
        meter.sources([SourceLine("beta", 1, 1.0, "busy")])
    assert not meter.shown
    assert capsys.readouterr() == ("", "")


def test_the_display_shows_the_bar_and_every_peer(capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = threading.Event()
    begin = Meter._begin

    def begin_and_tell(self: Meter) -> None:
        begin(self)
        drawn.set()

    monkeypatch.setattr(Meter, "_begin", begin_and_tell)
    monkeypatch.setattr(module, "PATIENCE", 0.0)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("FORCE_COLOR", "1")
    with Meter("first half", 1 << 21, done=1 << 19, shown=True) as meter:
        assert drawn.wait(10)
        meter.advance(1 << 20)
        meter.sources([SourceLine("beta", 5 << 20, 1 << 20, "fetching", "grain 3")])
        meter.reach(0, 1 << 22)
        meter.rename("a [bold]\x1b title")
    shown = capsys.readouterr().err
    assert "[bold]\N{REPLACEMENT CHARACTER} title" in shown
    assert "beta" in shown
    assert "1.0 MiB/s" in shown


def test_a_source_line_takes_whatever_a_node_says() -> None:
    each = {"name": "\x1b[2Jx", "bytes": "many", "rate": -3, "state": None}
    assert SourceLine.from_document(each) == SourceLine("\N{REPLACEMENT CHARACTER}[2Jx", 0, 0.0, "None")


def test_while_a_get_runs_the_nodes_peers_are_shown(node, capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    source = {"name": "gamma", "bytes": 3 << 20, "rate": 1 << 20, "state": "active", "detail": ""}
    pulls = [{"sha512": "0" * 128, "sources": []}, {"sha512": "a" * 128, "sources": [source]}]
    node.ready = (200, {"ready": True, "pulls": pulls})
    monkeypatch.setattr(module, "PATIENCE", 0.0)
    monkeypatch.setattr(blobs, "_LOOK_EVERY", 0.01)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("FORCE_COLOR", "1")
    shown = ""
    deadline = time.monotonic() + 30
    with Meter("get", 10, shown=True) as meter, blobs._watching(Session(node.url, False), DIGEST, meter):
        while "gamma" not in shown and time.monotonic() < deadline:
            time.sleep(0.01)
            shown += capsys.readouterr().err
    assert "gamma" in shown
    assert {path for _, path, _ in node.asked} == {"/ready"}

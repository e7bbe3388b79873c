"""After a crash a pull fetches nothing again that its journal has, and that is never far behind (P4)."""

from __future__ import annotations

import pytest

from swarm.services.saving import Saving
from swarm.storage.journal import Header, Replay
from swarm.testing.simulation.plan import Fault, Get, Plan, Put
from swarm.testing.simulation.runs import Outcome, replay
from swarm.testing.simulation.scale import Scale
from swarm.testing.simulation.wiretap import Wiretap

SIZE = 20 * (1 << 20) // 32


def cut_short(how: str, seed: int = 0) -> Outcome:
    """A blob that takes a minute over slow links; whoever pulls it dies after a third, and comes back."""
    nodes = ("n0", "n1", "n2", "n3")
    return replay(
        Plan(
            seed=seed,
            tls=False,
            scale=Scale(32),
            skew=0.0,
            bandwidth=(6e3, 6e3),
            nodes=nodes,
            liar=None,
            lists=False,
            lies=None,
            puts=(Put(1.0, "n0", 0, SIZE),),
            gets=tuple(Get(3.0, name, 0, None, 200.0) for name in nodes[1:]),
            deletes=(),
            faults=tuple(Fault(31.0, how, (name,), 2.0, 0.0) for name in nodes[1:]),
        )
    )


@pytest.mark.parametrize("how", ["kill", "power"])
def test_what_a_journal_has_is_not_fetched_again(how: str) -> None:
    done = cut_short(how)
    assert done.problems == ()
    assert done.probes["pulls_resumed"]
    assert done.refetched
    assert max(done.refetched) < SIZE / 4


def test_a_journal_that_is_never_written_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Saving, "_begin", lambda self: None)
    assert "no record of them" in "".join(cut_short("kill").problems)


def test_a_journal_that_is_never_read_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Header, "replay", lambda self, data: Replay({}, 0))
    assert "which its journal had" in "".join(cut_short("kill").problems)


def test_a_wiretap_hears_ranges_however_they_are_cut() -> None:
    blob = "ab" * 64
    asked = (
        b"PUT /blobs/%b HTTP/1.1\r\nContent-Length: 5\r\n\r\nGET /"
        b"HEAD /blobs/%b HTTP/1.1\r\n\r\n"
        b"GET /blobs/%b/midstates HTTP/1.1\r\n\r\n"
        b"GET /blobs/%b HTTP/1.1\r\nRange: bytes=100-103\r\n\r\n"
    ) % ((blob.encode(),) * 4)
    answered = (
        b"HTTP/1.1 100 Continue\r\n\r\n"
        b"HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\n{}"
        b"HTTP/1.1 200 OK\r\nContent-Length: 777\r\n\r\n"
        b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc"
        b"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 100-103/777\r\nContent-Length: 4\r\n\r\nwxyz"
    )
    for size in (1, 2, 7, 1000):
        heard: list[tuple[str, int, int]] = []
        tap = Wiretap(lambda digest, start, stop, heard=heard: heard.append((digest, start, stop)))  # type: ignore[misc]  # bound now
        for at in range(0, len(asked), size):
            tap.sent(asked[at : at + size])
        for at in range(0, len(answered), size):
            tap.received(answered[at : at + size])
        assert {digest for digest, _, _ in heard} == {blob}
        assert [heard[0][1], heard[-1][2]] == [100, 104]
        assert sum(stop - start for _, start, stop in heard) == 4

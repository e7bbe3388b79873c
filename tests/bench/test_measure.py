"""How samples are taken: in turn, and a case that fails costs its own row only."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench import measure, nodes, rivals
from bench.blobs import make_file, sha512_of
from bench.measure import Case, Failed, interleave
from bench.outcome import Sample


def say(text: str) -> None:
    """Nothing to anybody."""


def test_cases_run_in_turn_and_the_first_round_does_not_count() -> None:
    ran: list[str] = []

    def case(name: str) -> Case:
        def run() -> Sample:
            ran.append(name)
            return {"wall s": float(len(ran))}

        return Case(name, run, lambda: ran.append(f"after {name}"))

    first, second = interleave([case("a"), case("b")], 2, say, notes=[])
    assert ran == ["a", "after a", "b", "after b"] * 3
    assert first.values("wall s") == [5.0, 9.0]
    assert second.values("wall s") == [7.0, 11.0]


def test_a_case_that_fails_is_out_and_the_notes_say_why() -> None:
    left = [{"wall s": 1.0}]

    def fails() -> Sample:
        if not left:
            raise Failed("it is\nbroken")
        return left.pop()

    notes: list[str] = []
    good, bad = interleave([Case("good", lambda: {"wall s": 1.0}), Case("bad", fails)], 3, say, notes=notes)
    assert len(good.samples) == 3
    assert bad.samples == []
    assert notes == ["left out: bad: it is broken"]


def test_when_time_is_up_one_round_for_the_record_is_enough() -> None:
    notes: list[str] = []
    (row,) = interleave([Case("a", lambda: {"wall s": 1.0})], 7, say, notes=notes, until=0.0)
    assert len(row.samples) == 1
    assert notes == ["time was up after 1 of 7 rounds"]


def test_the_cpu_of_a_process_and_the_tree_of_it() -> None:
    busy = "print(sum(range(10**6)), flush=True); input()"
    child = subprocess.Popen([sys.executable, "-c", busy], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert child.stdout is not None and child.stdout.readline()
        assert child.pid in measure.tree(os.getpid())
        assert measure.cpu_of([child.pid]) > 0.0
        assert measure.peak_memory([child.pid]) > 1.0
    finally:
        child.kill()
        child.communicate()


def test_a_command_that_fails_or_lasts_is_named_and_gone() -> None:
    with pytest.raises(Failed, match=r"ended with 3: no$"):
        measure.command([sys.executable, "-c", "import sys; sys.stderr.write('no'); sys.exit(3)"])
    with pytest.raises(Failed, match=r"did not end within 0\.2 s"):
        measure.command([sys.executable, "-c", "import time; time.sleep(600)"], within=0.2)


def test_a_missing_program_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(rivals.PACKAGES, "no-such-program", "its-package")
    with pytest.raises(rivals.Missing, match="apt-get install its-package"):
        rivals.need("no-such-program")


def test_a_large_file_is_what_its_digest_says(tmp_path: Path) -> None:
    digest = make_file(tmp_path / "blob", (5 << 20) + 3)
    assert (tmp_path / "blob").stat().st_size == (5 << 20) + 3
    assert sha512_of(tmp_path / "blob") == digest


def test_options_that_nodes_know() -> None:
    assert nodes.knows("--copies")
    assert not nodes.knows("--no-such-option")

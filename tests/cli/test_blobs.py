"""put, get, stat, rm and verify, against a node that may misbehave."""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
import random
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.cli.blobs import safe_name

DATA = random.Random(7).randbytes(3 * (1 << 20) + 17)
ID = hashlib.sha512(DATA).hexdigest()


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_put_prints_the_id_and_names_the_blob_after_the_file(run, node, tmp_path) -> None:
    (tmp_path / "a b%c ü.bin").write_bytes(DATA)
    assert run("put", "a b%c ü.bin") == (0, ID + "\n", "")
    assert node.blobs == {ID: DATA}
    assert node.names[ID] == "a b%c ü.bin"


def test_put_of_several_files_prints_sha512sum_lines(run, tmp_path) -> None:
    (tmp_path / "one").write_bytes(b"1")
    (tmp_path / "two").write_bytes(b"")
    code, out, _ = run("put", "one", "two")
    assert code == 0
    one, two = (hashlib.sha512(data).hexdigest() for data in (b"1", b""))
    assert out == f"{one}  one\n{two}  two\n"


def test_put_of_standard_input_is_streamed_in_chunks(run, node, monkeypatch) -> None:
    class Pipe(io.BytesIO):
        def fileno(self) -> int:
            return 0  # what pytest puts there is no regular file

    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=Pipe(DATA)))
    code, out, err = run("put", "-", "--name", "from-a-pipe", "--json")
    assert (code, err) == (0, "")
    assert json.loads(out)["sha512"] == ID
    assert node.names[ID] == "from-a-pipe"
    assert node.asked[0][2]["transfer-encoding"] == "chunked"


def test_a_refusal_comes_before_the_body_is_sent(run, node, tmp_path) -> None:
    (tmp_path / "big").write_bytes(DATA)
    node.refuse_put = (507, "the quota is used up")
    code, out, err = run("put", "big")
    assert (code, out, err) == (1, "", "swarm: the quota is used up (507)\n")
    assert node.blobs == {}


def test_an_answer_with_another_id_is_a_failure(run, node, tmp_path) -> None:
    (tmp_path / "big").write_bytes(DATA)
    node.other_id = True
    code, out, err = run("put", "big")
    assert (code, out) == (1, "")
    assert "other bytes than were sent" in err


def test_too_few_copies_is_said_and_is_no_failure(run, node, tmp_path) -> None:
    (tmp_path / "big").write_bytes(DATA)
    node.status = 202
    code, out, err = run("put", "big")
    assert (code, out) == (0, ID + "\n")
    assert "more copies follow" in err


def test_the_expected_id_goes_along_as_a_digest(run, node, tmp_path) -> None:
    (tmp_path / "big").write_bytes(DATA)
    assert run("put", "big", "--id", ID.upper())[0] == 0
    assert node.asked[0][2]["repr-digest"].startswith("sha-512=:")


def test_a_token_is_sent_and_never_shown(run, node, tmp_path) -> None:
    (tmp_path / "token").write_text("s3cret-word\n")
    (tmp_path / "big").write_bytes(DATA)
    code, out, err = run("put", "big", "--token-file", "token")
    assert code == 0
    assert node.asked[0][2]["authorization"] == "Bearer s3cret-word"
    assert "s3cret" not in out + err


def test_get_takes_the_blobs_own_name(run, node, tmp_path) -> None:
    node.keep(DATA, "report.pdf")
    code, out, _ = run("get", ID)
    assert (code, out) == (0, "report.pdf: 3.0 MiB, verified\n")
    assert (tmp_path / "report.pdf").read_bytes() == DATA
    assert [path.name for path in tmp_path.iterdir()] == ["report.pdf"]


def test_get_of_an_empty_blob(run, node, tmp_path) -> None:
    digest = node.keep(b"", "nothing")
    assert run("get", digest, "-o", "x")[0] == 0
    assert (tmp_path / "x").read_bytes() == b""


def test_get_leaves_another_file_of_that_name_alone(run, node, tmp_path) -> None:
    node.keep(DATA, "report.pdf")
    (tmp_path / "report.pdf").write_bytes(b"mine")
    code, _, err = run("get", ID)
    assert code == 1
    assert "another file" in err
    assert (tmp_path / "report.pdf").read_bytes() == b"mine"


def test_get_of_what_is_here_already_fetches_nothing(run, node, tmp_path) -> None:
    node.keep(DATA, "report.pdf")
    (tmp_path / "report.pdf").write_bytes(DATA)
    assert run("get", ID)[0] == 0
    assert [path for method, path, _ in node.asked if method == "GET"] == []


def test_a_file_that_is_not_there_is_said_without_the_systems_number(run, node) -> None:
    code, _, complaint = run("put", "nofile")
    assert (code, complaint) == (1, "swarm: nofile: No such file or directory\n")


def test_get_of_what_nobody_has_leaves_nothing(run, node, tmp_path) -> None:
    code, _, complaint = run("get", ID, "-o", "x")
    assert code == 1 and "no such blob" in complaint
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("left", [1, 1 << 20, len(DATA) - 1, len(DATA)])
def test_get_resumes_a_partial_file(run, node, tmp_path, left) -> None:
    node.keep(DATA)
    (tmp_path / "x.part").write_bytes(DATA[:left])
    assert run("get", ID, "-o", "x")[0] == 0
    assert (tmp_path / "x").read_bytes() == DATA
    assert node.ranges() == [f"bytes={left}-"]


@pytest.mark.parametrize("left", [DATA[:100] + b"?" + DATA[101:4000], DATA + b"more", bytes(len(DATA))])
def test_a_partial_file_that_is_no_part_of_the_blob_is_fetched_anew(run, node, tmp_path, left) -> None:
    node.keep(DATA)
    (tmp_path / "x.part").write_bytes(left)
    assert run("get", ID, "-o", "x")[0] == 0
    assert (tmp_path / "x").read_bytes() == DATA


def test_get_goes_on_by_itself_when_the_connection_breaks(run, node, tmp_path) -> None:
    node.keep(DATA)
    node.cut_after = 1 << 20
    assert run("get", ID, "-o", "x")[0] == 0
    assert (tmp_path / "x").read_bytes() == DATA
    assert node.ranges() == [f"bytes={n << 20}-" for n in (1, 2, 3)]


def test_get_gives_up_when_nothing_more_comes_and_keeps_what_came(run, node, tmp_path) -> None:
    node.keep(DATA)
    node.cut_after = 0
    (tmp_path / "x.part").write_bytes(DATA[:5000])
    code, _, err = run("get", ID, "-o", "x")
    assert code == 1
    assert "ended early" in err
    assert (tmp_path / "x.part").read_bytes() == DATA[:5000]
    assert not (tmp_path / "x").exists()


def test_a_busy_node_is_asked_again(run, node, tmp_path) -> None:
    node.keep(DATA)
    node.busy = 3
    assert run("get", ID, "-o", "x")[0] == 0


def test_a_node_that_ignores_ranges_is_read_from_the_start(run, node, tmp_path) -> None:
    node.keep(DATA)
    node.ignore_ranges = True
    (tmp_path / "x.part").write_bytes(DATA[:4000])
    assert run("get", ID, "-o", "x")[0] == 0
    assert (tmp_path / "x").read_bytes() == DATA


def test_wrong_bytes_never_get_the_final_name(run, node, tmp_path) -> None:
    node.keep(DATA)
    node.corrupt = True
    (tmp_path / "x").write_bytes(b"older")
    code, out, err = run("get", ID, "-o", "x")
    assert (code, out) == (1, "")
    assert "wrong" in err
    assert (tmp_path / "x").read_bytes() == b"older"
    assert not (tmp_path / "x.part").exists()


def test_a_pipe_gets_the_end_only_when_all_is_proven(run, node) -> None:
    node.keep(DATA)
    assert run("get", ID, "-o", "-") == (0, DATA.decode("latin-1"), "")
    node.corrupt = True
    code, out, _ = run("get", ID, "-o", "-")
    assert code == 1
    assert len(out) < len(DATA)


def test_two_gets_of_one_file_do_not_mix(run, node, tmp_path) -> None:
    node.keep(DATA)
    with (tmp_path / "x.part").open("wb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        code, _, err = run("get", ID, "-o", "x")
    assert code == 1
    assert "another swarm get" in err


def test_a_part_file_that_is_a_link_is_not_followed(run, node, tmp_path) -> None:
    node.keep(DATA)
    (tmp_path / "precious").write_bytes(b"precious")
    (tmp_path / "x.part").symlink_to(tmp_path / "precious")
    assert run("get", ID, "-o", "x")[0] == 1
    assert (tmp_path / "precious").read_bytes() == b"precious"


@pytest.mark.parametrize(
    "hostile",
    [
        'attachment; filename="../../.bashrc"',
        "attachment; filename*=UTF-8''..%2F..%2Fetc%2Fpasswd",
        'attachment; filename=".ssh"',
        'attachment; filename="-rf"',
        "attachment; filename*=UTF-8''%1b%5b2Jgone",
        "attachment; filename*=UTF-8''%E2%80%AEfdp.exe",
        "attachment",
    ],
)
def test_a_hostile_name_is_replaced_by_the_id(run, node, tmp_path, hostile) -> None:
    node.keep(DATA)
    node.disposition = hostile
    assert run("get", ID)[0] == 0
    assert [path.name for path in tmp_path.iterdir()] == [ID]


@given(st.text())
def test_a_name_from_the_node_is_always_one_visible_segment(text: str) -> None:
    name = safe_name(text)
    quoted = safe_name(f'attachment; filename="{text}"')
    for each in (name, quoted):
        assert each is None or (each.isprintable() and "/" not in each and each[0] not in ".-")


def test_an_unknown_blob_is_a_failure_in_one_line(run) -> None:
    for command in (["get", ID, "-o", "x"], ["rm", ID], ["verify", ID]):
        code, out, err = run(*command)
        assert (code, out) == (1, "")
        assert err == "swarm: no such blob (404)\n"


def test_what_a_node_says_cannot_move_the_cursor(run, node, tmp_path) -> None:
    (tmp_path / "big").write_bytes(DATA)
    node.refuse_put = (403, "\x1b[2J\x1b]0;owned\x07no\nsecond line")
    _, _, err = run("put", "big")
    assert "\x1b" not in err
    assert err.count("\n") == 1


def test_no_id_is_a_usage_error(run) -> None:
    assert run("get", "abc")[0] == 2
    assert run("put")[0] == 2
    assert run("nonsense")[0] == 2


def test_no_node_is_a_failure_in_one_line(run) -> None:
    code, _, err = run("get", ID, "-o", "x", "--url", "http://127.0.0.1:9")
    assert code == 1
    assert err == "swarm: http://127.0.0.1:9: Connection refused\n"
    assert run("stat", ID, "--url", "ftp://there")[0] == 1


def test_stat_names_the_holders(run, node) -> None:
    node.keep(DATA)
    code, out, _ = run("stat", ID)
    assert code == 0
    assert f"({len(DATA)} bytes)" in out
    assert "alpha (complete)" in out
    assert run("stat", "0" * 128)[0] == 1


def test_rm_here_and_everywhere(run, node) -> None:
    node.keep(DATA)
    assert run("rm", ID)[0] == 0
    node.keep(DATA)
    code, out, _ = run("rm", ID, "--everywhere")
    assert code == 0
    assert "confirmed: alpha, beta" in out
    assert node.asked[-1][1] == f"/{ID}/allpeers"


def test_verify_a_file_and_a_copy(run, node, tmp_path) -> None:
    (tmp_path / "big").write_bytes(DATA)
    assert run("verify", "big", ID) == (0, "big: OK\n", "")
    assert run("verify", "big", "0" * 128)[0] == 1
    assert run("verify", "big")[0] == 1
    node.keep(DATA)
    assert run("verify", "big") == (0, "big: OK\n", "")
    assert run("verify", ID)[0] == 0
    node.corrupt = True
    assert run("verify", ID)[0] == 1

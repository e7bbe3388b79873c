"""status, peers and join."""

from __future__ import annotations

import json


def test_a_ready_node(run, node) -> None:
    node.ready = (
        200,
        {"ready": True, "reasons": [], "name": "alpha", "store": {"blobs": 3, "free": 1 << 30}},
    )
    code, out, err = run("status")
    assert (code, err) == (0, "")
    assert "is ready" in out
    assert "free: 1.0 GiB" in out


def test_a_node_that_is_not_ready_says_why(run, node) -> None:
    node.ready = (503, {"ready": False, "reasons": ["the volume is read-only: EIO"]})
    code, out, err = run("status", "--json")
    assert code == 1
    assert json.loads(out)["ready"] is False
    assert err == "swarm: not ready: the volume is read-only: EIO\n"


def test_peers_are_a_table(run, node) -> None:
    known = [
        {"name": "beta", "address": "127.0.0.1:7051", "state": "alive"},
        {"name": "gamma-long", "address": "127.0.0.1:7061", "state": "silent", "detail": "no answer"},
    ]
    node.ready = (200, {"peers": known})
    assert run("peers")[1] == (
        "beta        127.0.0.1:7051  alive\ngamma-long  127.0.0.1:7061  silent  no answer\n"
    )
    assert json.loads(run("peers", "--json")[1]) == {"peers": known}
    node.ready = (200, {"peers": []})
    assert run("peers")[1] == "no peers\n"


def test_join_needs_an_address_and_an_identity(run, tmp_path) -> None:
    assert run("join", "no-port")[0] == 2
    code, _, err = run("join", "127.0.0.1:7041", "--data", tmp_path)
    assert code == 1
    assert "identity" in err

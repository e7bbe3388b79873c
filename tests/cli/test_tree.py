"""ls and find over the sorted list of paths."""

from __future__ import annotations

import json

PATHS = ["/a/one", "/a/b/deep/er", "/a/b/x", "/a/b/\U0010ffff1", "/a/b0", "/a!", "/top", "/z/\x1b[2J"]


def test_ls_shows_one_level(run, node) -> None:
    node.paths = PATHS
    assert run("ls", "/a") == (0, "b/\nb0\none\n", "")
    assert run("ls")[1] == "a!\na/\ntop\nz/\n"


def test_ls_of_a_file_shows_it_and_of_nothing_fails(run, node) -> None:
    node.paths = PATHS
    assert run("ls", "/a/b/x") == (0, "/a/b/x\n", "")
    assert run("ls", "/nowhere")[0] == 1


def test_find_lists_a_prefix_and_cleans_it_for_the_terminal(run, node) -> None:
    node.paths = PATHS
    assert run("find", "/a/b/d") == (0, "/a/b/deep/er\n", "")
    assert run("find", "/a", "--limit", 2)[1] == "/a!\n/a/b/deep/er\n"
    assert "\x1b" not in run("find", "/z")[1]
    assert json.loads(run("find", "/z", "--json")[1]) == {"path": PATHS[-1]}


def test_a_node_without_a_tree_says_so(run) -> None:
    for command in ("ls", "find"):
        code, out, err = run(command, "/")
        assert (code, out) == (1, "")
        assert "serves no tree" in err
        assert err.count("\n") == 1

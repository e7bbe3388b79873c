"""Where a request ends that a worker brings to the node: known for certain, or not at all."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from swarm.workers.errands import body_length

NAMES = st.sampled_from(
    ["Content-Length", "content-length", "CONTENT-LENGTH", "Transfer-Encoding", "Upgrade", "Host", "Accept"]
)
VALUES = st.sampled_from(
    ["0", "5", "007", "999999999999999999", "1" * 19, "-1", "+5", "5, 5", "0x5", "", "a"]
)
FIELDS = st.lists(
    st.tuples(NAMES, st.sampled_from(["", " "]), st.sampled_from(["", " ", "\t"]), VALUES), max_size=4
)


@given(FIELDS)
@example([("Content-Length", "", " ", "5"), ("Content-Length", "", " ", "5")])
@example([("Content-Length", " ", "", "5")])
def test_a_length_is_told_where_one_field_says_it_plainly(fields: list[tuple[str, str, str, str]]) -> None:
    lines = [f"{name}{before}:{after}{value}{after}" for name, before, after, value in fields]
    head = "\r\n".join(["PUT /x HTTP/1.1", *lines, "", ""]).encode()
    lengths = [each for each in fields if each[0].lower() == "content-length"]
    if any(name in ("Transfer-Encoding", "Upgrade") for name, *_ in fields):
        wanted = None
    elif not lengths:
        wanted = 0
    else:
        _, before, _, value = lengths[0]
        plain = len(lengths) == 1 and not before and value.isdigit() and len(value) <= 18
        wanted = int(value) if plain else None
    assert body_length(head) == wanted


def test_a_name_that_only_looks_like_one_is_left_to_the_node() -> None:
    for line in (b"X-Content-Length: 5", b"A: content-length", b"A: b\r\n Content-Length: 5"):
        assert body_length(b"GET / HTTP/1.1\r\n%s\r\n\r\n" % line) is None

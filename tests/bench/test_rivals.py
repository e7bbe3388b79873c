"""What other programs print is read, or refused."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.measure import Failed
from bench.rivals import parse_wrk

GOOD = """Running 2s test @ http://127.0.0.1:8080/blob
  1 threads and 32 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency   310.52us  181.02us   4.01ms   89.51%
    Req/Sec   101.08k     4.27k  108.11k    66.67%
  Latency Distribution
     50%  264.00us
     75%  367.00us
     90%  512.00us
     99%    1.05ms
  211162 requests in 2.10s, 281.14MB read
Requests/sec: 100555.93
Transfer/sec:    133.88MB
"""


def test_a_good_run() -> None:
    assert parse_wrk(GOOD) == (100555.93, 1.05)


@pytest.mark.parametrize(("said", "ms"), [("997.00us", 0.997), ("12.30ms", 12.3), ("1.20s", 1200.0)])
def test_units(said: str, ms: float) -> None:
    assert parse_wrk(GOOD.replace("1.05ms", said))[1] == pytest.approx(ms)


@pytest.mark.parametrize(
    "line",
    ["  Non-2xx or 3xx responses: 12", "  Socket errors: connect 0, read 3, write 0, timeout 0"],
)
def test_one_bad_answer_is_no_figure(line: str) -> None:
    with pytest.raises(Failed, match=line.strip().split(":")[0]):
        parse_wrk(GOOD.replace("Requests/sec", f"{line}\nRequests/sec"))


@given(st.text())
def test_anything_else_is_refused(text: str) -> None:
    with contextlib.suppress(Failed):
        parse_wrk(text)

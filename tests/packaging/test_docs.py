"""What the pages in ``docs`` list is what the code has."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from swarm.api.app import PublicAPI
from swarm.api.metrics import DelayMetrics, GrainMetrics, NodeCollector, WebMetrics
from swarm.hashing.sha512 import load
from swarm.interfaces import Usage
from swarm.model.digest import Digest
from swarm.model.filenames import Filename
from swarm.model.grains import MAX_GRAIN, grain_size
from swarm.model.midstates import Midstates
from swarm.model.ranges import RangeSet
from swarm.peering.limits import PeerLimits
from swarm.peering.server import PeerServer
from swarm.peering.wire import encode_have, encode_names
from swarm.services.progress import Counters
from swarm.storage import journal, layout
from swarm.tap import Options
from swarm.web.limits import WebLimits

DOCS = Path(__file__).parents[2] / "docs"
OPERATING, PROTOCOL, DISK = (
    (DOCS / f"{name}.rst").read_text() for name in ("operating", "peer-protocol", "on-disk")
)


def part(page: str, name: str) -> str:
    """What lies between two comments."""
    return page.partition(f".. {name} begin")[2].partition(f".. {name} end")[0]


def first_column(table: str) -> list[str]:
    rows = re.findall(r"^   \* - (.*)$", table, re.MULTILINE)
    return [word for row in rows for word in re.findall(r"``([^`]+)``", row)]


def test_every_option_is_described() -> None:
    options = Options()
    known = {f"--{name}" for name in options.longOpt for name in [name.rstrip("=")]} - {"--help"}
    described = first_column(part(OPERATING, "options"))
    assert sorted(described) == sorted(known)


def test_every_metric_is_described() -> None:
    registry = CollectorRegistry()
    WebMetrics(registry)
    WebMetrics(registry, "swarm_peer")
    GrainMetrics(registry)
    DelayMetrics(registry)
    registry.register(
        NodeCollector(
            usage=lambda: Usage(0, 0, 0, 0, None, 0, None),
            counters=Counters,
            peers=int,
            pulls=int,
            hints=int,
            refusals=int,
            certificate_days=float,
            revocation_list_days=float,
            workers=int,
            worker_restarts=int,
        )
    )
    known = {family.name + ("_total" if family.type == "counter" else "") for family in registry.collect()}
    assert sorted(first_column(part(OPERATING, "metrics"))) == sorted(known)


def test_every_route_of_the_peer_port_is_described() -> None:
    known = set()
    for rule in PeerServer.app.url_map.iter_rules():
        path = rule.rule.replace("<id:digest>", "{id}")
        known |= {f"{method} {path}" for method in rule.methods or () if method != "OPTIONS"}
    table = PROTOCOL.partition(".. list-table:: Routes")[2].partition("``{id}`` is")[0]
    described = set(first_column(table))
    assert described == known - {"HEAD /cluster/", "HEAD /blobs/{id}/midstates"}


def test_limits_are_what_they_are() -> None:
    defaults = {"peering": PeerLimits(), "web": WebLimits()}
    rows = re.findall(r"``(\w+)\.(\w+)``\n     - (\d+)\n", part(PROTOCOL, "limits"))
    assert len(rows) == len(first_column(part(PROTOCOL, "limits"))) > 15
    for table, name, value in rows:
        assert getattr(defaults[table], name) == float(value), name


def test_vectors() -> None:
    block = part(PROTOCOL, "vectors").partition(".. code-block:: text")[2]
    vectors = [each.split() for each in block.strip().split("\n\n")]
    assert len(vectors) == 5
    for size, digest, *encoded in vectors:
        hasher = load().hasher()
        hasher.update(bytes(int(size)))
        assert hasher.digest().hex == digest
        midstates = Midstates.decode(bytes.fromhex("".join(encoded)))
        assert midstates.grains.size == int(size)
        if (computed := hasher.midstates()) is not None:
            assert computed == midstates


def test_grains() -> None:
    table = PROTOCOL.partition(".. list-table:: The grain of a size")[2].partition("The **midstate**")[0]
    rows = re.findall(r"\* - (\d+|above)\n     - (\d+)", table)
    assert len(rows) == 5
    for most, grain in rows[:-1]:
        assert grain_size(int(most)) == int(grain) != grain_size(int(most) + 1)
    assert int(rows[-1][1]) == MAX_GRAIN == grain_size(1 << 60)


def test_fields() -> None:
    empty = Digest.of(b"")
    assert f"ETag: {empty.etag}" in PROTOCOL and f"Repr-Digest: {empty.repr_digest}" in PROTOCOL
    names = (Filename.parse("a b.bin"), Filename.parse("größe, 100%.mkv"))
    assert f"Swarm-Names: {encode_names(names)}" in PROTOCOL
    have = RangeSet()
    have.add(0, 1 << 20)
    have.add(5 << 20, 7 << 20)
    assert f"Swarm-Have: {encode_have(have)}" in PROTOCOL


def test_the_layout_on_disk() -> None:
    names = (layout.DATA, layout.MIDSTATES, layout.NAMES, layout.FORBIDDEN, layout.MISSING)
    for name in (*(f"/{each}" for each in names), layout.INCOMING):
        assert name in DISK
    assert f"check 8        {journal.HEADER_LENGTH} bytes" in DISK
    assert f"check 8                               {journal.RECORD_LENGTH} bytes" in DISK


def test_the_schema_shown_is_the_one_in_use() -> None:
    source = (DOCS / "../swarm/storage/catalog.py").read_text()
    start, end = re.findall(r":(?:start-after|end-before): (.+)", DISK)
    assert source.count(start) == 1
    tables = re.findall(r"CREATE TABLE (\w+)", source.partition(start)[2].partition(end)[0])
    described = DISK.partition(":end-before:")[2].partition("``user_version``")[0]
    assert len(tables) > 5
    for table in tables:
        assert f"\n``{table}``\n" in described


def test_the_service_starts_a_node_with_options_that_exist() -> None:
    (line,) = re.findall(r"^ExecStart=(.*)$", (DOCS / "swarm.service").read_text(), re.MULTILINE)
    words = shlex.split(line)
    assert words[0].endswith("/twistd")
    Options().parseOptions(words[words.index("swarm") + 1 :])


def test_the_nginx_configuration_names_options_that_exist() -> None:
    (line,) = re.findall(r"^#   (--http .*)$", (DOCS / "nginx.conf").read_text(), re.MULTILINE)
    Options().parseOptions(shlex.split(line))


def test_the_example_configuration_is_one(tmp_path: Path) -> None:
    from swarm.config import load as load_config

    block = OPERATING.partition(".. code-block:: toml\n\n")[2].partition("\n.. options begin")[0]
    (tmp_path / "swarm.toml").write_text("\n".join(line[3:] for line in block.splitlines()))
    config = load_config({}, tmp_path / "swarm.toml")
    assert (config.name, config.copies, config.quota) == ("paris", 2, 2 * 10**12)


@pytest.mark.parametrize("table", re.findall(r"``\[(\w+)\]``", OPERATING))
def test_the_tables_of_the_configuration_exist(table: str) -> None:
    from swarm.config import load as load_config

    assert load_config({table: {}})


def test_every_route_of_the_public_api_is_described() -> None:
    page = (DOCS / "http-api.rst").read_text()
    known = set()
    for rule in PublicAPI.app.url_map.iter_rules():
        path = re.sub(r"<(?:id:)?(\w+)>", r"{\1}", rule.rule).replace("{digest}", "{id}")
        if rule.endpoint != "nothing":  # a name is for PUT only
            known |= {f"{method} {path}" for method in rule.methods or () if method != "OPTIONS"}
    table = page.partition(".. list-table:: Routes")[2].partition("Anything else is")[0]
    rows = re.findall(r"^   \* - (``.*)$", table, re.MULTILINE)
    assert sorted(word for row in rows for word in re.findall(r"``([^`]+)``", row)) == sorted(known)

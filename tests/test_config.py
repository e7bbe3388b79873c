"""Settings: every flag is a key, a flag wins, and what cannot be is an error that names the key."""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.config import BadConfig, Config, load, parse_size
from swarm.model.peers import Address
from swarm.tap import Options


def toml(tmp_path: Path, text: str) -> Path:
    """A file with settings."""
    path = tmp_path / "swarm.toml"
    path.write_text(text)
    return path


def test_nothing_said_gives_a_useful_lone_node() -> None:
    config = load({})
    assert config.data == Path("swarm-data")
    assert config.http == "tcp:7040:interface=127.0.0.1"
    assert config.peer == "tcp:7041:interface=127.0.0.1"
    assert (config.cluster, config.copies, config.reserve, config.quota) == ("swarm", 2, 1 << 30, None)


def test_every_kind_of_setting_is_read(tmp_path: Path) -> None:
    path = toml(
        tmp_path,
        """
        data = "/srv/swarm"
        name = "alpha"
        cluster = "films"
        public_url = "https://cache.example/"
        advertise = ["alpha.example:7041", "[2001:db8::1]:7041"]
        join = ["beta.example:7041"]
        peers = "/etc/swarm/peers"
        deny = ["put", "delete"]
        quota = "500 GiB"
        reserve = 0
        copies = 3
        workers = 4
        [pull]
        search_every = 5
        [pull.pull]
        patience = 60
        [web]
        connections = 10
        [dispatch]
        largest_span = 1048576
        """,
    )
    config = load({}, path)
    assert config.data == Path("/srv/swarm")
    assert config.advertise == (Address("alpha.example", 7041), Address("2001:db8::1", 7041))
    assert config.join == (Address("beta.example", 7041),)
    assert config.public_url == "https://cache.example"
    assert config.deny == {"put", "delete"}
    assert (config.quota, config.reserve, config.copies) == (500 << 30, 0, 3)
    assert config.workers == 4
    assert config.pull.search_every == 5.0
    assert config.pull.pull.patience == 60.0
    assert config.web.connections == 10
    assert config.dispatch.largest_span == 1 << 20


def test_a_flag_wins_over_the_file(tmp_path: Path) -> None:
    path = toml(tmp_path, 'name = "from-file"\ncopies = 5\n')
    config = load({"name": "from-flag"}, path)
    assert (config.name, config.copies) == ("from-flag", 5)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("nonsense = 1", "nonsense"),
        ("[pull]\nnonsense = 1", "pull.nonsense"),
        ("pull = 3", "pull"),
        ("[pull]\npull = 3", "pull.pull"),
        ("[pull.pull]\nnonsense = 1", "pull.pull.nonsense"),
        ("[pull]\nsearch_every = 'often'", "pull.search_every"),
        ("[pull]\nsearch_every = true", "pull.search_every"),
        ("[pull]\nsearch_every = -1", "pull.search_every"),
        ("[web]\nconnections = 1.5", "web.connections"),
        ("name = 3", "name"),
        ("name = ''", "name"),
        ("name = 'a b'", "name"),
        ("advertise = 'nowhere'", "advertise"),
        ("join = 3", "join"),
        ("join = ['x:0']", "join"),
        ("deny = ['post']", "deny"),
        ("quota = -1", "quota"),
        ("quota = true", "quota"),
        ("reserve = 'much'", "reserve"),
        ("copies = 0", "copies"),
        ("copies = 'two'", "copies"),
        ("workers = 0", "workers"),
        ("workers = 257", "workers"),
        ("[crew]\ndrain = -1", "crew.drain"),
        ("[crew]\nrestart = 1", "crew.restart"),
        ("public_url = 'ftp://x'", "public_url"),
    ],
)
def test_what_cannot_be_is_named(tmp_path: Path, text: str, named: str) -> None:
    with pytest.raises(BadConfig, match=named):
        load({}, toml(tmp_path, text))


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match=r"missing\.toml"):
        load({}, tmp_path / "missing.toml")
    with pytest.raises(BadConfig, match=r"swarm\.toml"):
        load({}, toml(tmp_path, "= ="))


@given(st.integers(0, 2**60))
def test_plain_numbers_are_bytes(number: int) -> None:
    assert parse_size(number) == parse_size(str(number)) == parse_size(f"{number}B") == number


@given(st.integers(0, 2**20), st.sampled_from("KMGTPkmgtp"))
def test_units_are_binary_with_an_i_and_decimal_without(number: int, unit: str) -> None:
    power = 1 + "kmgtp".index(unit.lower())
    assert parse_size(f"{number}{unit}iB") == parse_size(f"{number} {unit}i") == number * 1024**power
    assert parse_size(f"{number}{unit}B") == parse_size(f"{number} {unit}") == number * 1000**power


@given(st.text(max_size=8))
def test_anything_else_is_no_size(text: str) -> None:
    try:
        assert parse_size(text) >= 0
    except BadConfig as e:
        assert repr(text) in str(e)


def test_every_flag_is_a_setting() -> None:
    options = Options()
    options.parseOptions(["--name=x", "--join=a:1", "--join=b:2", "--deny=get,put", "--public-url=http://h"])
    config = load(options.flags())
    assert (config.name, len(config.join), config.deny) == ("x", 2, {"get", "put"})
    settings = {field.name for field in attrs.fields(Config)}
    given_as_flags = {row[0].replace("-", "_") for row in Options.optParameters} - {"config"}
    assert given_as_flags <= settings
    assert {"advertise", "join", "deny"} <= settings

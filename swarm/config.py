"""All settings of a node, frozen: TOML file, then flags (a flag wins).

Decides spelling and defaults, nothing else. Every limit and interval lives in the small settings
value of the part that uses it; here each is a TOML table (``[pull]``, ``[web]`` …) whose keys are
that value's fields. An unknown key, or a value of another type, is an error that names the key.
"""

from __future__ import annotations

import re
import socket
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

import attrs
from attrs import Factory, frozen

from swarm.core.dispatch import DispatchSettings
from swarm.errors import LocalError, Malformed
from swarm.model.peers import Address, parse_node_name
from swarm.peering.credentials import TLSSettings
from swarm.peering.limits import PeerLimits
from swarm.services.custodian import CustodianSettings
from swarm.services.deletion import DeletionSettings
from swarm.services.fetcher import FetchSettings
from swarm.services.membership import MembershipSettings
from swarm.services.replicator import ReplicationSettings
from swarm.storage.settings import StoreSettings
from swarm.web.limits import WebLimits
from swarm.workers.settings import WorkerSettings

_T = TypeVar("_T")
_SIZE = re.compile(r"(\d{1,19})\s*([KMGTP]i?)?B?", re.ASCII | re.IGNORECASE)
METHODS = ("get", "put", "delete")
MOST_WORKERS = 256


class BadConfig(LocalError):
    """A setting that cannot be; the text names it."""


@frozen
class Config:
    """What a node is told at start. Paths are as given: relative ones belong to the working directory."""

    data: Path = Path("swarm-data")
    name: str = Factory(lambda: socket.gethostname().partition(".")[0] or "node")
    cluster: str = "swarm"
    http: str = "tcp:7040:interface=127.0.0.1"
    peer: str = "tcp:7041:interface=127.0.0.1"
    advertise: tuple[Address, ...] = ()
    public_url: str = ""
    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    crl: Path | None = None
    allow: Path | None = None
    join: tuple[Address, ...] = ()
    peers: Path | None = None
    deny: frozenset[str] = frozenset()
    quota: int | None = None
    reserve: int = 1 << 30
    tokens: Path | None = None
    copies: int = 2
    workers: int = 1

    store: StoreSettings = Factory(StoreSettings)
    pull: FetchSettings = Factory(FetchSettings)
    dispatch: DispatchSettings = Factory(DispatchSettings)
    replication: ReplicationSettings = Factory(ReplicationSettings)
    membership: MembershipSettings = Factory(MembershipSettings)
    deletion: DeletionSettings = Factory(DeletionSettings)
    custodian: CustodianSettings = Factory(CustodianSettings)
    web: WebLimits = Factory(WebLimits)
    peering: PeerLimits = Factory(PeerLimits)
    crew: WorkerSettings = Factory(WorkerSettings)
    tls: TLSSettings = Factory(TLSSettings)


#: How each setting outside the tables is read from TOML; flags bring the same spellings as text.
_READ: Mapping[str, Callable[[Any], Any]] = {
    "data": lambda v: Path(_text(v)),
    "name": lambda v: parse_node_name(_text(v)),
    "cluster": lambda v: parse_node_name(_text(v)),
    "http": lambda v: _text(v),
    "peer": lambda v: _text(v),
    "advertise": lambda v: tuple(Address.parse(each) for each in _texts(v)),
    "public_url": lambda v: _url(v),
    "ca": lambda v: Path(_text(v)),
    "cert": lambda v: Path(_text(v)),
    "key": lambda v: Path(_text(v)),
    "crl": lambda v: Path(_text(v)),
    "allow": lambda v: Path(_text(v)),
    "join": lambda v: tuple(Address.parse(each) for each in _texts(v)),
    "peers": lambda v: Path(_text(v)),
    "deny": lambda v: _methods(v),
    "quota": lambda v: parse_size(v),
    "reserve": lambda v: parse_size(v),
    "tokens": lambda v: Path(_text(v)),
    "copies": lambda v: _count(v, 1000, "copies"),
    "workers": lambda v: _count(v, MOST_WORKERS, "workers"),
}


def load(flags: Mapping[str, Any], config: Path | None = None) -> Config:
    """
    Put a node's settings together.

    :param flags: what the command line said; keys as in the TOML file, absent if not given.
    :raises BadConfig: unreadable file, unknown key, impossible value; the text names the key.
    """
    settings: dict[str, Any] = {}
    if config is not None:
        try:
            settings.update(tomllib.loads(config.read_text("utf-8")))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as e:
            raise BadConfig(f"{config}: {e}") from e
    settings.update(flags)
    tables = {name: kind for name, kind in get_type_hints(Config).items() if name not in _READ}
    read: dict[str, Any] = {}
    for key, value in settings.items():
        if key in _READ:
            try:
                read[key] = _READ[key](value)
            except (Malformed, BadConfig) as e:
                raise BadConfig(f"{key}: {e}") from e
        elif key in tables:
            read[key] = _table(key, value, tables[key])
        else:
            raise BadConfig(f"unknown setting: {key}")
    return Config(**read)


def parse_size(value: Any) -> int:
    """
    Read a number of bytes: ``1073741824``, ``1GiB``, ``500 MB``.

    :raises BadConfig: anything else.
    """
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    match = _SIZE.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        raise BadConfig(f"not a number of bytes: {value!r}")
    unit = (match[2] or "").lower()
    if not unit:
        return int(match[1])
    base = 1024 if unit.endswith("i") else 1000
    scale: int = base ** (1 + "kmgtp".index(unit[0]))
    return int(match[1]) * scale


def _table(name: str, value: Any, kind: type[_T]) -> _T:
    if not isinstance(value, dict):
        raise BadConfig(f"{name}: must be a table")
    hints = get_type_hints(kind)
    read: dict[str, Any] = {}
    for key, each in value.items():
        if key not in hints:
            raise BadConfig(f"unknown setting: {name}.{key}")
        if attrs.has(hints[key]):
            read[key] = _table(f"{name}.{key}", each, hints[key])
            continue
        wanted = get_args(hints[key]) or (hints[key],)
        if float in wanted and isinstance(each, int) and not isinstance(each, bool):
            each = float(each)
        if not isinstance(each, wanted) or (isinstance(each, bool) and bool not in wanted):
            raise BadConfig(f"{name}.{key}: {each!r} is not {' or '.join(t.__name__ for t in wanted)}")
        if isinstance(each, int | float) and each < 0:
            raise BadConfig(f"{name}.{key}: {each!r} is negative")
        read[key] = each
    return kind(**read)


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise BadConfig(f"not a text: {value!r}")
    return value


def _texts(value: Any) -> list[str]:
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, list | tuple):
        raise BadConfig(f"not a list of texts: {value!r}")
    return [_text(each) for each in values]


def _url(value: Any) -> str:
    url = _text(value).rstrip("/")
    if not re.fullmatch(r"https?://[^\s/?#]+(/[^\s?#]*)?", url):
        raise BadConfig(f"not an http(s) URL: {value!r}")
    return url


def _methods(value: Any) -> frozenset[str]:
    methods = frozenset(part.strip().lower() for each in _texts(value) for part in each.split(","))
    if unknown := sorted(methods - set(METHODS)):
        raise BadConfig(f"can deny {', '.join(METHODS)}, not {', '.join(unknown)}")
    return methods


def _count(value: Any, most: int, of: str) -> int:
    text = str(value)
    if isinstance(value, bool) or not text.isascii() or not text.isdigit() or not 1 <= int(text) <= most:
        raise BadConfig(f"not a number of {of}: {value!r}")
    return int(text)

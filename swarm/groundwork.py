"""What a node stands on before it is wired: threads, and what its settings' words and files stand for."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import attrs
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IStreamServerEndpoint
from twisted.internet.threads import deferToThreadPool

from swarm.api.tokens import Tokens
from swarm.config import BadConfig, Config
from swarm.interfaces import RunBlocking
from swarm.peering.credentials import Credentials
from swarm.peering.identity import IdentityPaths
from swarm.pki.directory import ensure_identity

_P = ParamSpec("_P")
_T = TypeVar("_T")
THREADS = 16


def thread_pool(reactor: Any, size: int = THREADS) -> RunBlocking:
    """The reactor's own threads, as the port everything blocking goes through."""
    reactor.suggestThreadPoolSize(size)

    async def run_blocking(function: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
        pool = reactor.getThreadPool()
        result: _T = await deferToThreadPool(reactor, pool, function, *args, **kwargs)
        return result

    return run_blocking


def read_endpoint(reactor: Any, setting: str, description: str) -> IStreamServerEndpoint:
    """:raises BadConfig: that is none; names the setting."""
    try:
        endpoint: IStreamServerEndpoint = serverFromString(reactor, description)
    except Exception as e:  # whatever the parser of that kind of endpoint stumbles over
        raise BadConfig(f"{setting}: not a server endpoint such as tcp:7040: {description!r} ({e})") from e
    return endpoint


def read_tokens(config: Config) -> Tokens | None:
    """
    The tokens file, if there is one.

    :raises BadConfig: it cannot be read.
    """
    if config.tokens is None:
        return None
    try:
        return Tokens(config.tokens)
    except (OSError, UnicodeDecodeError) as e:
        raise BadConfig(f"tokens: {e}") from e


def read_peer_list(config: Config) -> str | None:
    """
    The file of peers, if there is one. May block on the disk.

    :raises BadConfig: it cannot be read.
    """
    if config.peers is None:
        return None
    try:
        return config.peers.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as e:
        raise BadConfig(f"{config.peers}: {e}") from e


def read_credentials(reactor: Any, config: Config) -> Credentials:
    """
    The node's identity; a first lone node makes its own.

    :raises IdentityError: certificates that cannot be used.
    :raises BadConfig: half an identity among the settings.
    """
    identity = IdentityPaths.in_directory(config.data / "identity")
    given = (config.ca, config.cert, config.key)
    if any(given):
        if config.ca is None or config.cert is None or config.key is None:
            raise BadConfig("ca, cert and key go together: give all three or none")
        identity = attrs.evolve(identity, ca=config.ca, cert=config.cert, key=config.key)
    else:
        now = datetime.datetime.fromtimestamp(reactor.seconds(), datetime.UTC)
        try:
            config.data.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as e:
            raise BadConfig(f"data: {e}") from e
        ensure_identity(
            config.data / "identity", config.name, [each.host for each in config.advertise], now=now
        )
    paths = identity.requiring(config.crl, config.allow)
    return Credentials.load(paths, clock=reactor, settings=config.tls)

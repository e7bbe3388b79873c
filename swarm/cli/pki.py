"""``swarm pki``: make a CA and certificates, look at them, renew and revoke them.

Works on files alone; no node is asked. What is written where is decided in ``swarm.pki.directory``.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from swarm.cli.session import Session
from swarm.errors import Malformed
from swarm.model.peers import parse_node_name
from swarm.pki.authority import AUTHORITY_DAYS, CRL_DAYS, NODE_DAYS, KeyType, alternative_names
from swarm.pki.description import describe, lines
from swarm.pki.directory import CA, CRL, AuthorityDirectory

_F = TypeVar("_F", bound=Callable[..., Any])


class _Parsed(click.ParamType[str]):
    """Text that one of our parsers accepts; otherwise a usage error."""

    def __init__(self, name: str, parse: Callable[[str], object]) -> None:
        self.name = name
        self._parse = parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            self._parse(value)
        except Malformed as e:
            self.fail(str(e), param, ctx)
        return str(value)


_HOST = _Parsed("host", lambda text: alternative_names([text]))
_NODE = _Parsed("name", parse_node_name)
_DIRECTORY = click.Path(file_okay=False, path_type=Path)
_json = click.option("--json", "as_json", is_flag=True, help="Answer in JSON.")
_hosts = click.option(
    "--host", "at", multiple=True, type=_HOST, help="DNS name or IP address peers dial it at; repeatable."
)
_key_type = click.option(
    "--key-type",
    type=click.Choice([each.value for each in KeyType]),
    default=KeyType.ECDSA.value,
    show_default=True,
    help="ecdsa (P-256) is understood by every TLS 1.3 program.",
)


def _days(default: int) -> Callable[[_F], _F]:
    return click.option(
        "--days",
        type=click.FloatRange(min=0, min_open=True, max=36500),
        default=default,
        show_default=True,
        help="How long it is valid.",
    )


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def pki() -> None:
    """Make and look at certificates.

    A swarm trusts one CA: make it with init, then issue an identity for each node and copy
    that directory to the node's DATA/identity. Keep ca-key.pem off the nodes.
    """


@pki.command()
@click.argument("directory", type=_DIRECTORY)
@click.option("--name", default="swarm CA", show_default=True, help="Name of the CA.")
@_days(AUTHORITY_DAYS)
@_key_type
@_json
def init(directory: Path, name: str, days: float, key_type: str, as_json: bool) -> None:
    """Make a CA in DIRECTORY; an existing one is never overwritten."""
    made = AuthorityDirectory.create(directory, name, now=_now(), days=days, key_type=KeyType(key_type))
    _answer(as_json, describe(made.path / CA, _now()))


@pki.command()
@click.argument("directory", type=_DIRECTORY)
@click.argument("name", type=_NODE)
@_hosts
@_days(NODE_DAYS)
@_key_type
@click.option("--out", type=_DIRECTORY, help="Where to put the identity.  [default: DIRECTORY/nodes/NAME]")
@_json
def issue(
    directory: Path,
    name: str,
    at: tuple[str, ...],
    days: float,
    key_type: str,
    out: Path | None,
    as_json: bool,
) -> None:
    """Make the identity of node NAME: key, certificate and the CA's certificate.

    Without --host it can be dialled by NAME only.
    """
    identity = AuthorityDirectory.open(directory).issue(
        name, at or (name,), now=_now(), days=days, key_type=KeyType(key_type), out=out
    )
    described = describe(identity, _now())[:1]
    if not as_json:
        click.echo(f"{identity} is ready: copy it to the node's DATA/identity")
    _answer(as_json, described)


@pki.command()
@click.argument("directory", type=_DIRECTORY)
@click.argument("node")
@_hosts
@_days(NODE_DAYS)
@_json
def renew(directory: Path, node: str, at: tuple[str, ...], days: float, as_json: bool) -> None:
    """Give NODE (a name, or its certificate file) a certificate with new dates, in place.

    Key and PeerID stay, and the key need not be here. A running node takes up the new file by itself.
    """
    authority = AuthorityDirectory.open(directory)
    file = authority.certificate_of(node)
    authority.renew(file, now=_now(), days=days, at=at)
    _answer(as_json, describe(file, _now())[:1])


@pki.command()
@click.argument("directory", type=_DIRECTORY)
@click.argument("node", nargs=-1)
@_days(CRL_DAYS)
@_json
def revoke(directory: Path, node: tuple[str, ...], days: float, as_json: bool) -> None:
    """Revoke the certificates of each NODE (a name, or a certificate file) in DIRECTORY/crl.pem.

    Naming a node revokes whatever was issued for its key, also before a renewal.
    Copy crl.pem to every node's DATA/identity; a running node cuts off who is revoked. Nodes that have a
    list admit nobody once it expires: run this again, without NODE, before that.
    """
    authority = AuthorityDirectory.open(directory)
    authority.revoke([authority.certificate_of(each) for each in node], now=_now(), days=days)
    _answer(as_json, describe(authority.path / CRL, _now()))


@pki.command()
@click.argument("file", type=click.Path(exists=True, path_type=Path))
@_json
def show(file: Path, as_json: bool) -> None:
    """Show a certificate, key or revocation list, or all of an identity's directory."""
    _answer(as_json, describe(file, _now()))


def _answer(as_json: bool, described: list[dict[str, Any]]) -> None:
    session = Session("", as_json)
    for each in described:
        session.answer(each, lines(each))


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)

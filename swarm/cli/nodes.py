"""``status peers join``: commands about a node.

``join`` speaks to the node's peer port with the node's own identity, since only the operator who may
read that may decide whom the node trusts to greet.
"""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import click

from swarm.cli.session import Failure, Session, node_options, size_text
from swarm.errors import Malformed
from swarm.model.peers import Address

DEFAULT_PEER_URL = "https://127.0.0.1:7041"
_DATA = click.Path(file_okay=False, path_type=Path)


@click.command()
@node_options
def status(session: Session) -> None:
    """Show whether the node is ready, and why not; exit 1 if it is not."""
    ready, document = _ready(session)
    reasons = [str(each) for each in document.get("reasons", ())]
    lines = [f"{session.url} is ready" if ready else f"{session.url} is not ready"]
    lines += [f"  {reason}" for reason in reasons]
    lines += _facts(document)
    session.answer(document, lines)
    if not ready:
        raise Failure("not ready: " + ("; ".join(reasons) or "the node gives no reason"))


@click.command()
@node_options
def peers(session: Session) -> None:
    """Show the peers of the node: name, address, state."""
    _, document = _ready(session)
    known = [each for each in document.get("peers", ()) if isinstance(each, dict)]
    rows = [
        tuple(str(each.get(key) or "") for key in ("name", "address", "state", "detail")) for each in known
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
    session.answer({"peers": known}, lines or ["no peers"])


def _ready(session: Session) -> tuple[bool, dict[str, Any]]:
    """``/ready``, whose answer is a document in either case."""
    from swarm.cli.connection import read_json, refusal

    with session.connect() as connection:
        answer = connection.request("GET", "/ready", {"Accept": "application/json"})
        if answer.status not in (200, 503):
            raise refusal(answer)
        return answer.status == 200, read_json(answer)


def _facts(document: dict[str, Any], indent: str = "  ") -> list[str]:
    """Everything else the node says about itself, a line each."""
    lines = []
    for key, value in document.items():
        if key in ("ready", "reasons", "peers"):
            continue
        if isinstance(value, dict):
            lines += [f"{indent}{key}", *_facts(value, indent + "  ")]
        elif isinstance(value, list):
            lines.append(f"{indent}{key}: {len(value)}")
        elif key in ("bytes", "free", "quota", "reserve") and isinstance(value, int):
            lines.append(f"{indent}{key}: {size_text(value)}")
        else:
            lines.append(f"{indent}{key}: {'none' if value is None else value}")
    return lines


@click.command()
@click.argument("address", metavar="HOST:PORT")
@click.option(
    "--data", type=_DATA, default="swarm-data", show_default=True, help="The node's data directory."
)
@click.option(
    "--peer-url", default=DEFAULT_PEER_URL, show_default=True, help="The node's own peer port, mutual TLS."
)
@click.option("--json", "as_json", is_flag=True, help="Answer in JSON.")
def join(address: str, data: Path, peer_url: str, as_json: bool) -> None:
    """Make the node of --data greet the peer at HOST:PORT, and stay in touch."""
    from swarm.cli.connection import Connection, read_document

    try:
        peer = Address.parse(address)
    except Malformed as e:
        raise click.UsageError(str(e)) from e
    with Connection(peer_url, context=_identity_of(data)) as connection:
        form = {"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"}
        answer = connection.request("POST", "/join/", form, urlencode({"peer": str(peer)}).encode())
        document = read_document(answer)
    Session(peer_url, as_json).answer(document or {"joined": str(peer)}, [f"joined {peer}"])


def _identity_of(data: Path) -> ssl.SSLContext:
    """TLS as the node of this data directory, to the node itself."""
    from swarm.pki import CA, CERTIFICATE, KEY

    identity = data / "identity"
    try:
        context = ssl.create_default_context(cafile=identity / CA)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.load_cert_chain(identity / CERTIFICATE, identity / KEY)
    except OSError as e:
        raise Failure(f"{identity}: no identity to speak with ({e.strerror or e})") from e
    return context

"""What every command that talks to a node shares: ``--url``, ``--json``, the token, clean output.

Decides nothing about any one command.
"""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from attrs import field, frozen

from swarm.errors import Malformed
from swarm.model.digest import Digest

if TYPE_CHECKING:
    from swarm.cli.connection import Connection

DEFAULT_URL = "http://127.0.0.1:7040"
_F = TypeVar("_F", bound=Callable[..., Any])


class Failure(click.ClickException):
    """The command could not do its work; the text is the one line that says why."""


def printable(text: str, limit: int = 500) -> str:
    """One line for a terminal: no text from a server or a file name moves the cursor or changes colors."""
    clean = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
    return clean if len(clean) <= limit else clean[:limit] + "…"


def size_text(count: float) -> str:
    """Bytes for people: ``1.4 GiB``."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(count) < 1024:
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


@frozen
class Session:
    """How to reach the node and how to answer the user."""

    url: str
    json: bool
    token: str = field(default="", repr=False)

    def connect(self) -> Connection:
        """A connection to the node; nothing is sent yet."""
        from swarm.cli.connection import Connection

        return Connection(self.url, self.token)

    def answer(self, document: Mapping[str, Any], lines: Iterable[str]) -> None:
        """Print the result: one JSON document a line for machines, or ``lines`` for people."""
        if self.json:
            click.echo(json.dumps(document, sort_keys=True))
            return
        for line in lines:
            click.echo(printable(line, limit=8192))


def _read_token(path: Path | None) -> str:
    text = path.read_text("utf-8") if path is not None else os.environ.get("SWARM_TOKEN", "")
    token = text.strip()
    if not token.isascii() or not token.isprintable() or " " in token:
        raise click.UsageError("a token is one word of visible ASCII characters")
    return token


def node_options(command: _F) -> _F:
    """Give a command ``--url``, ``--json`` and ``--token-file``, folded into a :class:`Session`."""

    @click.option(
        "--url", envvar="SWARM_URL", default=DEFAULT_URL, show_default=True, help="The node; or $SWARM_URL."
    )
    @click.option("--json", "as_json", is_flag=True, help="Answer in JSON.")
    @click.option(
        "--token-file",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        help="File with the bearer token; or $SWARM_TOKEN. Never an argument, which others could see.",
    )
    @functools.wraps(command)
    def wrapped(url: str, as_json: bool, token_file: Path | None, **given: Any) -> Any:
        return command(Session(url, as_json, _read_token(token_file)), **given)

    return wrapped  # type: ignore[return-value]  # click calls it by keyword; the types of the options stay


class DigestType(click.ParamType[Digest]):
    """An argument that is a blob's id."""

    name = "id"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Digest:
        try:
            return value if isinstance(value, Digest) else Digest.parse(str(value))
        except Malformed as e:
            self.fail(str(e), param, ctx)


DIGEST = DigestType()

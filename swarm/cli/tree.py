"""``ls find``: looks at the tree of paths over all nodes.

Both read ``GET /find/``, the sorted list of files. ``ls`` asks it for one directory and skips over
what lies deeper, so a directory of ten entries costs ten short answers, however large the tree.
"""

from __future__ import annotations

import http.client
from collections.abc import Iterator
from urllib.parse import urlencode

import click

from swarm.cli.connection import Answer, Connection, Unreachable, refusal
from swarm.cli.session import Failure, Session, node_options

_PIECE = 64 << 10
_LONGEST_LINE = 64 << 10
_LAST = "\U0010ffff"


@click.command()
@click.argument("path", default="/")
@node_options
def ls(session: Session, path: str) -> None:
    """List the directory PATH of the tree; directories end in '/'."""
    directory = "/" + path.strip("/") + "/" if path.strip("/") else "/"
    found = False
    with session.connect() as connection:
        for entry in _entries(connection, directory):
            found = True
            session.answer({"path": directory + entry, "directory": entry.endswith("/")}, [entry])
        if not found and directory != "/":
            # Not a directory: maybe a file.
            if next(_find(connection, prefix=directory[:-1], limit=1), None) != directory[:-1]:
                raise Failure(f"{path}: no such file or directory")
            session.answer({"path": directory[:-1], "directory": False}, [directory[:-1]])


@click.command()
@click.argument("prefix", default="/")
@click.option("--limit", type=click.IntRange(min=1), help="At most so many paths.")
@node_options
def find(session: Session, prefix: str, limit: int | None) -> None:
    """List every file of the tree whose path begins with PREFIX, sorted."""
    with session.connect() as connection:
        for path in _find(connection, prefix=prefix if prefix.startswith("/") else "/" + prefix, limit=limit):
            session.answer({"path": path}, [path])


def _entries(connection: Connection, directory: str) -> Iterator[str]:
    """The names right below ``directory``, sorted; those of directories end in ``/``."""
    after: str | None = None
    last = ""
    while True:
        first = next(_find(connection, prefix=directory, after=after, limit=1), None)
        if first is None or not first.startswith(directory) or (after is not None and first <= after):
            return
        name, slash, _ = first[len(directory) :].partition("/")
        if name + slash != last:
            last = name + slash
            yield last
            # Past all that lies below; what begins with Unicode's last character costs a step each.
            after = directory + last + _LAST if slash else first
        else:
            after = first


def _find(
    connection: Connection, *, prefix: str, after: str | None = None, limit: int | None = None
) -> Iterator[str]:
    asked = {"prefix": prefix, "after": after, "limit": limit}
    query = urlencode({key: value for key, value in asked.items() if value is not None})
    answer = connection.request("GET", f"/find/?{query}", {"Accept": "text/plain"})
    if answer.status == 404:
        answer.read()
        raise Failure(f"{connection.url} serves no tree of paths: blobs are reached by their id")
    if answer.status != 200:
        raise refusal(answer)
    yield from _lines(connection, answer)


def _lines(connection: Connection, answer: Answer) -> Iterator[str]:
    rest = b""
    try:
        while piece := answer.read(_PIECE):
            *lines, rest = (rest + piece).split(b"\n")
            yield from (line.decode("utf-8", "replace") for line in lines)
            if len(rest) > _LONGEST_LINE:
                raise Failure(f"{connection.url}: not a list of paths")
    except (OSError, http.client.HTTPException) as e:
        raise Unreachable(f"{connection.url}: the list broke off") from e
    if rest:
        yield rest.decode("utf-8", "replace")

"""``put get stat rm verify``: commands about one blob.

Decides their arguments and what they print; the transfers are in ``upload`` and ``download``.
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
import threading
from pathlib import Path
from typing import IO, Any
from urllib.parse import unquote

import click

from swarm.cli.session import DIGEST, Failure, Session, node_options, printable, size_text
from swarm.errors import Malformed
from swarm.model.digest import Digest
from swarm.model.filenames import Filename

#: Seconds between two looks at a running pull.
_LOOK_EVERY = 0.5


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(allow_dash=True))
@click.option("--name", help="Store under this name instead of the file's own (needed well for '-').")
@click.option("--id", "expected", type=DIGEST, help="Refuse anything but this blob.")
@node_options
def put(session: Session, files: tuple[str, ...], name: str | None, expected: Digest | None) -> None:
    """Store FILES ('-' is standard input) and print their ids."""
    if len(files) > 1 and (name or expected):
        raise click.UsageError("--name and --id are for a single file")
    with session.connect() as connection:
        for path in files:
            document = _put_one(session, connection, path, name, expected)
            line = str(document["sha512"])
            session.answer(document, [line if len(files) == 1 else f"{line}  {path}"])


def _put_one(
    session: Session, connection: Any, path: str, name: str | None, expected: Digest | None
) -> dict[str, Any]:
    from swarm.cli.meter import Meter
    from swarm.cli.upload import length_of, upload

    try:
        called = Filename.parse(name or ("stdin" if path == "-" else os.path.basename(os.path.abspath(path))))
    except Malformed as e:
        raise Failure(f"{path}: {e}") from e
    if path != "-" and os.path.isdir(path):
        raise Failure(f"{path}: is a directory")
    with sys.stdin.buffer if path == "-" else open(path, "rb", buffering=0) as file:
        length = length_of(file)
        with Meter(called.text, length) as meter:
            document = upload(connection, file, called.text, length, meter, expected)
    if document["status"] == 202:
        holders = ", ".join(str(each) for each in document.get("holders", ()))
        click.echo(printable(f"swarm: {called.text}: so far only on {holders}; more copies follow"), err=True)
    return document


@click.command()
@click.argument("digest", metavar="ID", type=DIGEST)
@click.option(
    "-o", "--output", help="Where to; '-' is standard output. Default: the blob's own name, or its id."
)
@node_options
def get(session: Session, digest: Digest, output: str | None) -> None:
    """Fetch the blob ID, verify it, and resume what an earlier get left unfinished."""
    from swarm.cli.download import Download
    from swarm.cli.meter import Meter

    with (
        session.connect() as connection,
        Meter(digest.short, None) as meter,
        _watching(session, digest, meter),
    ):
        download = Download(connection, digest, meter)
        if output == "-":
            size = download.to_pipe(sys.stdout.buffer.write)
            sys.stdout.buffer.flush()
            return
        target = Path(output) if output is not None else _own_name(connection, digest)
        if target.is_dir():
            target = target / _own_name(connection, digest)
        if output is None and target.exists():
            if _hash_file(target) != digest:
                raise Failure(f"{target}: is another file; choose a name with -o")
            size = target.stat().st_size
        else:
            size = download.to_file(target)
    session.answer(
        {"sha512": digest.hex, "length": size, "path": str(target)},
        [f"{target}: {size_text(size)}, verified"],
    )


class _watching:
    """While a get runs on a terminal: ask the node who brings it what, and show that."""

    def __init__(self, session: Session, digest: Digest, meter: Any) -> None:
        self._session = session
        self._digest = digest
        self._meter = meter
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> None:
        if self._meter.shown:
            self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()

    def _look(self) -> None:
        from swarm.cli.meter import SourceLine

        with self._session.connect() as connection:
            while not self._over.wait(_LOOK_EVERY):
                try:
                    # Not /locations, which would make the node ask all its peers.
                    pulls = connection.document("GET", "/ready").get("pulls", ())
                except Failure:
                    continue
                ours = [pull for pull in pulls if pull.get("sha512") == self._digest.hex]
                for each in ours[:1]:
                    self._meter.sources(map(SourceLine.from_document, each.get("sources", ())))


def _own_name(connection: Any, digest: Digest) -> Path:
    """The name the node knows the blob by, if it is harmless here; else the id."""
    answer = connection.request("HEAD", f"/{digest.hex}", {})
    answer.read()
    return Path(safe_name(answer.getheader("Content-Disposition") or "") or digest.hex)


def safe_name(disposition: str) -> str | None:
    """A file name from ``Content-Disposition``, or None when there is none that is harmless.

    Harmless: one segment, visible characters only, and neither hidden nor taken for an option.
    """
    match = re.search(r"filename\*=UTF-8''([^;\s]+)", disposition, re.IGNORECASE)
    quoted = re.search(r'filename="([^"\\]*)"', disposition, re.IGNORECASE)
    text = unquote(match[1]) if match else quoted[1] if quoted else ""
    try:
        name = Filename.parse(text).text
    except Malformed:
        return None
    if name.startswith((".", "-")) or "\\" in name or not name.isprintable() or name.endswith(".part"):
        return None
    return name


@click.command()
@click.argument("digest", metavar="ID", type=DIGEST)
@node_options
def stat(session: Session, digest: Digest) -> None:
    """Show size, type and holders of the blob ID."""
    from swarm.cli.connection import refusal

    with session.connect() as connection:
        located = connection.document("GET", f"/{digest.hex}/locations")
        head = connection.request("HEAD", f"/{digest.hex}/nopeerload", {})
        head.read()
        if head.status not in (200, 404):
            raise refusal(head)
    declared = head.getheader("Content-Length") or ""
    length = int(declared) if head.status == 200 and declared.isascii() and declared.isdigit() else None
    kind = head.getheader("Content-Type") if head.status == 200 else None
    document = {**located, "here": head.status == 200, "length": length, "content_type": kind}
    lines = [f"id      {digest.hex}"]
    if length is not None:
        lines += [f"size    {size_text(length)} ({length} bytes)", f"type    {kind or 'unknown'}"]
    places = [each for each in located.get("nodes", ()) if isinstance(each, dict)]
    lines += [
        f"{'' if at else 'held by':8}{each.get('name')} ({each.get('state')})"
        for at, each in enumerate(places)
    ]
    session.answer(document, lines)


@click.command()
@click.argument("digest", metavar="ID", type=DIGEST)
@click.option("--everywhere", is_flag=True, help="On every node, also those that are away now.")
@node_options
def rm(session: Session, digest: Digest, everywhere: bool) -> None:
    """Delete the blob ID from this node."""
    with session.connect() as connection:
        document = connection.document("DELETE", f"/{digest.hex}" + ("/allpeers" if everywhere else ""))
    lines = [f"deleted {digest.hex}"]
    for key in ("confirmed", "pending"):
        if names := document.get(key):
            lines.append(f"{key}: " + ", ".join(str(name) for name in names))
    session.answer(document, lines)


@click.command()
@click.argument("target", metavar="FILE|ID")
@click.argument("digest", metavar="[ID]", type=DIGEST, required=False)
@node_options
def verify(session: Session, target: str, digest: Digest | None) -> None:
    """Check a local FILE against ID, or read the blob ID from the node and hash it.

    A FILE without an ID is looked up at the node: does it keep these very bytes?
    """
    if not os.path.exists(target) and digest is None and re.fullmatch(r"[0-9a-fA-F]{128}", target):
        _verify_at_node(session, Digest.parse(target))
        return
    actual = _hash_file(Path(target))
    if digest is None:
        with session.connect() as connection:
            answer = connection.request("HEAD", f"/{actual.hex}/nopeerload", {})
            answer.read()
        if answer.status != 200:
            raise Failure(f"{target}: {session.url} does not keep {actual.hex}")
    elif actual != digest:
        raise Failure(f"{target}: hashes to {actual.hex}, not to {digest.hex}")
    session.answer({"path": target, "sha512": actual.hex, "ok": True}, [f"{target}: OK"])


def _verify_at_node(session: Session, digest: Digest) -> None:
    from swarm.cli.download import Download
    from swarm.cli.meter import Meter

    with session.connect() as connection, Meter(digest.short, None) as meter:
        size = Download(connection, digest, meter).to_pipe(len)
    session.answer(
        {"sha512": digest.hex, "length": size, "ok": True}, [f"{digest.hex}: OK, {size_text(size)}"]
    )


def _hash_file(path: Path) -> Digest:
    from swarm.cli.meter import Meter

    def read(file: IO[bytes]) -> Digest:
        running = hashlib.sha512()
        with Meter(path.name, os.fstat(file.fileno()).st_size) as meter:
            while piece := file.read(1 << 20):
                running.update(piece)
                meter.advance(len(piece))
        return Digest(running.digest())

    with path.open("rb", buffering=0) as file:
        return read(file)

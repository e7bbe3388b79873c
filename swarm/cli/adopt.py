"""``swarm import``: take in the store of a dtfc node, while no node runs on the data directory.

The one command that works on a node's files and not through its API: what it copies is already on
this machine. What is taken in, and how, is decided in :mod:`swarm.storage.adopt`.
"""

from __future__ import annotations

import datetime
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import click

from swarm.cli.session import Failure, Session, size_text

if TYPE_CHECKING:
    from swarm.config import Config
    from swarm.storage.adopt import Adopted

_DIRECTORY = click.Path(exists=True, file_okay=False, path_type=Path)
_P = ParamSpec("_P")
_T = TypeVar("_T")


@click.command("import")
@click.argument("source", metavar="DIR", type=_DIRECTORY)
@click.option(
    "--data",
    type=click.Path(file_okay=False, path_type=Path),
    help="The node's data directory.  [default: as in --config, or swarm-data]",
)
@click.option(
    "--config", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="The node's settings."
)
@click.option(
    "--hard-links",
    is_flag=True,
    help="Share files where the file system cannot share blocks. Then nobody may write to DIR any more.",
)
@click.option("--json", "as_json", is_flag=True, help="Answer in JSON, a line a blob.")
def import_(source: Path, data: Path | None, config: Path | None, hard_links: bool, as_json: bool) -> None:
    """Adopt the dtfc store in DIR: every blob is verified, DIR is not changed.

    Stop the node first. What the node holds already is skipped, so an interrupted import can be run again.
    """
    from swarm.config import load

    settings = load({} if data is None else {"data": str(data)}, config)
    session = Session("", as_json)
    counts: Counter[str] = Counter()
    size = 0

    def tell(each: Adopted) -> None:
        nonlocal size
        outcome = each.outcome.value
        counts[outcome] += 1
        size += each.size if outcome == "adopted" else 0
        document = {"sha512": each.digest.hex, "outcome": outcome, "length": each.size, "detail": each.detail}
        trouble = outcome in ("damaged", "failed")
        if as_json or trouble:
            session.answer(document, [f"{outcome} {each.path} {each.detail}".rstrip()])

    _run(settings, source, hard_links, tell)
    if not as_json:
        said = ", ".join(f"{count} {outcome}" for outcome, count in sorted(counts.items())) or "nothing there"
        session.answer({}, [f"{settings.data}: {said}; {size_text(size)} taken in"])
    if bad := counts["damaged"] + counts["failed"]:
        raise Failure(f"{bad} blobs were not taken in")


def _run(settings: Config, source: Path, hard_links: bool, tell: Callable[[Adopted], None]) -> None:
    """Open the store, adopt, close; everything on this thread, so it is over when this returns."""
    import attrs
    from twisted.internet.defer import Deferred
    from twisted.internet.task import Clock

    from swarm.hashing import load
    from swarm.storage.filesystem import FilesystemStore

    class WallClock(Clock):
        """Tells the time; nothing is ever scheduled."""

        def seconds(self) -> float:
            return datetime.datetime.now(datetime.UTC).timestamp()

    async def on_the_spot(function: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
        return function(*args, **kwargs)

    store = FilesystemStore(
        str(settings.data),
        attrs.evolve(settings.store, quota=settings.quota, reserve=settings.reserve),
        clock=WallClock(),
        sha512=load(),
        run_blocking=on_the_spot,
        random=random.SystemRandom(),
    )

    async def adopt() -> None:
        await store.start()
        try:
            adopted: AsyncIterator[Adopted] = store.adopt(str(source), hard_links=hard_links)
            async for each in adopted:
                tell(each)
        finally:
            await store.stop()

    outcome: list[Any] = []
    Deferred.fromCoroutine(adopt()).addBoth(outcome.append)
    assert outcome, "nothing in here waits"
    if outcome[0] is not None:
        outcome[0].raiseException()

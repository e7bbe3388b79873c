"""What a data directory says, read without any of the node's code; and what its outside was told.

A *fact* is a key and a value, None for what is not there:

=========================== ====================================================
("blob", id)                True, or "damaged"
("name", id, name)          True: a name of a blob that is there
("marker", id, "404")       True
("grain", id, index)        True: the pull's journal names it, and its bytes are there
("hint", id)                how many copies are wanted
("tombstone", id)           (generation, buried)
("owed", id, peer)          True
("peer", id)                True
("row", id)                 the generation that the catalog notes; not part of what is told
("source", path)            the bytes of a store that is imported
=========================== ====================================================
"""

from __future__ import annotations

import shutil
import sqlite3
import struct
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from hashlib import blake2b, sha512
from hmac import compare_digest
from pathlib import Path
from typing import Any

from attrs import define, evolve, field

Key = tuple[Any, ...]
Fact = tuple[Key, Any]

_HEADER = struct.Struct(">8s64sQI16s8s")
_RECORD = struct.Struct(">BI64s64s8s")


def read(root: str) -> dict[Key, Any]:
    """
    All facts of a directory that no node has open, or none that is writing.

    :raises AssertionError: a journal claims bytes that are not there.
    """
    facts: dict[Key, Any] = {}
    for place in Path(root).glob("blobs/??/??/*"):
        if (place / "data").exists():
            whole = sha512((place / "data").read_bytes()).hexdigest() == place.name
            facts["blob", place.name] = whole or "damaged"
            for name in _lines(place / "names"):
                facts["name", place.name, name] = True
        for marker in ("403", "404"):
            if (place / marker).exists():
                facts["marker", place.name, marker] = True
    for journal in Path(root).glob("partial/*.j"):
        for index in _journaled(journal):
            facts["grain", journal.stem, index] = True
    for file in Path(root, "old").rglob("*"):
        if file.is_file():
            facts["source", str(file.relative_to(root))] = file.read_bytes()
    return {**facts, **dict(_remembered(Path(root)))}


def _lines(names: Path) -> list[str]:
    return names.read_text("utf-8").splitlines() if names.exists() else []


def _journaled(journal: Path) -> Iterator[int]:
    content, part = journal.read_bytes(), journal.with_suffix(".part")
    if len(content) < _HEADER.size or not part.exists():
        return
    _, digest, size, grain, salt, check = _HEADER.unpack_from(content)
    if not compare_digest(check, _check(content[: _HEADER.size - 8])) or digest.hex() != journal.stem:
        return
    bytes_there = part.read_bytes()
    for number, at in enumerate(range(_HEADER.size, len(content) - _RECORD.size + 1, _RECORD.size)):
        record = content[at : at + _RECORD.size]
        kind, index, start, end, check = _RECORD.unpack(record)
        if not compare_digest(check, _check(struct.pack(">Q", number) + record[:-8], salt)):
            return
        assert (kind, start) == (1, bytes(64)), "these tests mark grains with their plain SHA-512"
        claimed = bytes_there[index * grain : min(size, (index + 1) * grain)]
        assert sha512(claimed).digest() == end, f"the journal names grain {index}, which is not there"
        yield index


def _check(data: bytes, key: bytes = b"") -> bytes:
    return blake2b(data, digest_size=8, key=key).digest()


def _remembered(root: Path) -> Iterator[Fact]:
    with _catalog(root) as database, suppress(sqlite3.DatabaseError):  # one that was never finished
        if not database.execute("SELECT 1 FROM sqlite_master WHERE name = 'hints'").fetchone():
            return
        for digest, generation in database.execute("SELECT digest, generation FROM blobs"):
            yield ("row", digest.hex()), generation
        for digest, copies in database.execute("SELECT digest, copies FROM hints"):
            yield ("hint", digest.hex()), copies
        for digest, *stone in database.execute("SELECT digest, generation, buried FROM tombstones"):
            yield ("tombstone", digest.hex()), tuple(stone)
        for digest, peer in database.execute("SELECT digest, peer FROM owed"):
            yield ("owed", digest.hex(), peer.hex()), True
        for (peer,) in database.execute("SELECT peer FROM peers"):
            yield ("peer", peer.hex()), True


@contextmanager
def _catalog(root: Path) -> Iterator[sqlite3.Connection]:
    """A copy: to look must change nothing."""
    with tempfile.TemporaryDirectory(dir=root.parent) as copy:
        for file in root.glob("catalog.sqlite*"):
            if not file.name.endswith("-shm"):
                shutil.copy(file, copy)
        with closing(sqlite3.connect(f"{copy}/catalog.sqlite")) as database:
            yield database


@define
class Told:
    """
    For each fact what it may be by now.

    :ivar on_disk: after power was lost.
    :ivar here: while nothing was lost but the process.
    :ivar in_order: facts each of which must be there before the next may be.
    """

    on_disk: dict[Key, set[Any]] = field(factory=dict)
    here: dict[Key, set[Any]] = field(factory=dict)
    in_order: list[Fact] = field(factory=list)
    dead: bool = False

    def die(self) -> None:
        """Power is lost: nothing that is still said reaches anybody."""
        self.dead = True

    def copy(self) -> Told:
        """What was told so far, to go on from."""
        on_disk, here = ({key: set(values) for key, values in each.items()} for each in self._both())
        return evolve(self, on_disk=on_disk, here=here, in_order=list(self.in_order), dead=False)

    def _both(self) -> tuple[dict[Key, set[Any]], dict[Key, set[Any]]]:
        return self.on_disk, self.here

    def known(self, *facts: Fact) -> None:
        """So it is, for good."""
        for key, value in facts:
            self.on_disk[key], self.here[key] = {value}, {value}

    @contextmanager
    def change(self, *facts: Fact, or_nothing: bool = False) -> Iterator[None]:
        """
        The block makes these true; if it ends otherwise, each is true or as before.

        :param or_nothing: if it is refused, all are as before: a new process sees that, too.
        """
        before = {key: set(self.here.get(key, {None})) for key, _ in facts}
        for allowed in self._both():
            for key, value in facts:
                allowed.setdefault(key, {None}).add(value)
        try:
            yield
        except Exception:
            if or_nothing and not self.dead:
                self.here.update(before)
            raise
        if not self.dead:
            self.known(*facts)

    @staticmethod
    def check_buried(truth: Mapping[Key, Any]) -> None:
        """:raises AssertionError: a started node keeps what was deleted everywhere."""
        for (kind, *rest), value in truth.items():
            if kind == "tombstone" and value[1] and truth.get(("blob", rest[0])):
                assert truth.get(("row", rest[0]), 0) >= value[0], "a deleted blob is back"

    def check(self, truth: Mapping[Key, Any], *, power: bool) -> None:
        """:raises AssertionError: what was told is not true, or what is there was never put there."""
        allowed = self.on_disk if power else self.here
        for key in allowed.keys() | truth.keys():
            may = allowed.get(key, {None})
            if key[0] == "row":
                continue
            value = truth.get(key)
            if (
                key[0] == "grain"
                and True in allowed.get(("blob", key[1]), ())
                and truth.get(("blob", key[1]))
            ):
                continue  # a pull that has become a blob needs no journal
            if key[0] == "name" and None in allowed.get(("blob", key[1]), {None}) and value is None:
                continue  # a blob that may be gone may have lost its names
            assert value in may, f"{key[0]} {key[1][:8]} {key[2:]}: {value}, not {may}"
        for (key, value), (later, then) in zip(self.in_order, self.in_order[1:], strict=False):
            if truth.get(later) == then:
                assert truth.get(key) == value, f"{later[0]} is {then} before {key[0]} is {value}"

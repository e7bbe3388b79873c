"""``DATA/catalog.sqlite``: what the store remembers beside the files.

Blob rows only save work (they say which file was verified when) and can be rebuilt from the
disk, so their commits are not fsynced. Hints, tombstones and peers exist nowhere else: theirs are.
How the database is opened and written to is :mod:`swarm.storage.database`'s.

Everything here blocks and may be called from any thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import apsw
from attrs import define, frozen

from swarm.errors import LocalError
from swarm.model.digest import Digest
from swarm.model.midstates import Midstates
from swarm.model.peers import Address, Peer, PeerID
from swarm.storage.database import Database
from swarm.storage.disk import Disk

_VERSION = 1
_SCHEMA = f"""
CREATE TABLE blobs(
    digest BLOB PRIMARY KEY, size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL,
    verified_at REAL NOT NULL, generation INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE totals(blobs INTEGER NOT NULL, bytes INTEGER NOT NULL);
INSERT INTO totals VALUES (0, 0);
CREATE TRIGGER blob_in AFTER INSERT ON blobs BEGIN
    UPDATE totals SET blobs = blobs + 1, bytes = bytes + NEW.size; END;
CREATE TRIGGER blob_out AFTER DELETE ON blobs BEGIN
    UPDATE totals SET blobs = blobs - 1, bytes = bytes - OLD.size; END;
CREATE TRIGGER blob_changed AFTER UPDATE OF size ON blobs BEGIN
    UPDATE totals SET bytes = bytes - OLD.size + NEW.size; END;
CREATE TABLE state(clean INTEGER NOT NULL);
INSERT INTO state VALUES (0); -- new: compare with whatever is on the disk
CREATE TABLE hints(digest BLOB PRIMARY KEY, copies INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE tombstones(
    digest BLOB PRIMARY KEY, generation INTEGER NOT NULL, buried INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE owed(digest BLOB NOT NULL, peer BLOB NOT NULL, PRIMARY KEY(digest, peer)) WITHOUT ROWID;
CREATE TABLE peers(
    peer BLOB NOT NULL, name TEXT NOT NULL, address TEXT NOT NULL, url TEXT NOT NULL,
    last_alive REAL NOT NULL);
PRAGMA user_version = {_VERSION};
"""
#: Came later; made where it is missing, and an older node leaves it alone.
_LISTS = """
CREATE TABLE IF NOT EXISTS lists(digest BLOB PRIMARY KEY, checksum BLOB NOT NULL) WITHOUT ROWID;
CREATE TRIGGER IF NOT EXISTS list_out AFTER DELETE ON blobs BEGIN
    DELETE FROM lists WHERE digest = OLD.digest; END;
"""
_RECORD = """
INSERT INTO blobs VALUES (?, ?, ?, ?, ?) ON CONFLICT(digest) DO UPDATE SET
    size = excluded.size, mtime_ns = excluded.mtime_ns,
    verified_at = excluded.verified_at, generation = excluded.generation
"""
_OWE = "INSERT OR IGNORE INTO owed VALUES (?, ?)"


@frozen
class Row:
    """What is remembered of one blob's file."""

    digest: Digest
    size: int
    mtime_ns: int
    verified_at: float
    """When its bytes were last proven, in seconds of the node's clock; 0: never."""
    generation: int
    """The blob's tombstone generation when this copy was stored."""


@frozen
class Entry:
    """A blob that was stored now; see :meth:`Catalog.record`."""

    digest: Digest
    size: int
    mtime_ns: int
    verified_at: float
    midstates: Midstates | None = None


@define
class Totals:
    """What all rows add up to; kept in memory."""

    blobs: int = 0
    bytes: int = 0


class Catalog(Database):
    """The tables."""

    def __init__(self, path: str, *, disk: Disk) -> None:
        super().__init__(path, disk=disk)
        self.totals = Totals()
        self.doubts = 0
        """How often rows may have gone missing, or been left over, since this was made."""
        self._settled = 0

    @property
    def incomplete(self) -> bool:
        """Must the disk be compared with the rows?"""
        return self.doubts > self._settled

    def settle(self, doubts: int) -> None:
        """The disk was compared, beginning when :attr:`doubts` was this."""
        self._settled = max(self._settled, doubts)

    # -- lifetime -------------------------------------------------------------

    def _prepare(self, database: apsw.Connection) -> None:
        (version,) = next(database.execute("PRAGMA user_version"))
        if version == 0:
            with database:
                database.execute(_SCHEMA)
        elif version != _VERSION:
            raise apsw.FormatError(f"catalog version {version}")
        with database:
            database.execute(_LISTS)
        (clean,) = next(database.execute("SELECT clean FROM state"))
        self.doubts += not clean
        database.execute("UPDATE state SET clean = 0")
        self._add_up(database)

    def _finish(self, database: apsw.Connection) -> None:
        """If nothing is open to doubt, the next start need not look at the disk."""
        if not self.incomplete:
            database.execute("PRAGMA synchronous = FULL; UPDATE state SET clean = 1")

    # -- blobs ----------------------------------------------------------------

    def row(self, digest: Digest) -> Row | None:
        """What is remembered of a blob; None also if the catalog cannot be read now."""

        def find(database: apsw.Connection) -> Row | None:
            found = database.execute("SELECT * FROM blobs WHERE digest = ?", (digest.raw,)).fetchone()
            return None if found is None else _row(found)

        try:
            return self.consult(find)
        except LocalError as e:
            self.log.warn("the catalog cannot be read: {error}", error=e)
            return None

    def record(
        self,
        digest: Digest,
        size: int,
        mtime_ns: int,
        verified_at: float,
        midstates: Midstates | None = None,
    ) -> None:
        """
        Remember a blob that was stored now, and so is of the generation in force.

        A failure only costs a verification later.

        :param midstates: a list that was proven to be this blob's; see :meth:`vouches`.
        """

        self.record_all([Entry(digest, size, mtime_ns, verified_at, midstates)])

    def record_all(self, entries: Sequence[Entry]) -> None:
        """As :meth:`record`, many in one transaction."""

        def put(database: apsw.Connection) -> None:
            for each in entries:
                found = database.execute(
                    "SELECT generation FROM tombstones WHERE digest = ?", (each.digest.raw,)
                ).fetchone()
                values = (
                    each.digest.raw, each.size, each.mtime_ns, each.verified_at, found[0] if found else 0
                )  # fmt: skip
                database.execute(_RECORD, values)
                self._vouch(database, each.digest, each.midstates)
            self._add_up(database)

        self._unimportant(put)

    def proven(
        self,
        digest: Digest,
        size: int,
        mtime_ns: int,
        verified_at: float,
        midstates: Midstates | None = None,
    ) -> None:
        """Remember a file that was here already; its generation stays what it was, at first 0."""

        def put(database: apsw.Connection) -> None:
            found = database.execute(
                "SELECT generation FROM blobs WHERE digest = ?", (digest.raw,)
            ).fetchone()
            database.execute(_RECORD, (digest.raw, size, mtime_ns, verified_at, found[0] if found else 0))
            self._vouch(database, digest, midstates)
            self._add_up(database)

        self._unimportant(put)

    def vouches(self, digest: Digest, encoded: bytes) -> bool | None:
        """
        Are these the bytes of the midstates that were proven with this blob? None: nothing is remembered.

        An id has only one right list, so what is remembered never grows old.
        """

        def find(database: apsw.Connection) -> bytes | None:
            found = database.execute("SELECT checksum FROM lists WHERE digest = ?", (digest.raw,)).fetchone()
            return None if found is None else bytes(found[0])

        try:
            known = self.consult(find)
        except LocalError as e:
            self.log.warn("the catalog cannot be read: {error}", error=e)
            return None
        return None if known is None else known == Digest.of(encoded).raw

    def _vouch(self, database: apsw.Connection, digest: Digest, midstates: Midstates | None) -> None:
        if midstates is not None and midstates.grains.count > 1:
            checksum = Digest.of(midstates.encode()).raw
            database.execute("INSERT OR REPLACE INTO lists VALUES (?, ?)", (digest.raw, checksum))

    def forget(self, digest: Digest) -> None:
        """The blob's file is gone, or about to be."""

        def drop(database: apsw.Connection) -> None:
            database.execute("DELETE FROM blobs WHERE digest = ?", (digest.raw,))
            self._add_up(database)

        self._unimportant(drop)

    def page(self, after: bytes, limit: int, below: bytes | None = None) -> Sequence[Row]:
        """Rows above ``after`` (and below ``below``), in the order of their ids."""

        def find(database: apsw.Connection) -> Sequence[Row]:
            found = database.execute(
                "SELECT * FROM blobs WHERE digest > ? AND digest < ? ORDER BY digest LIMIT ?",
                (after, below or b"\xff" * 65, limit),
            )
            return [_row(each) for each in found]

        return self.consult(find)

    def outlived(self) -> Sequence[Digest]:
        """Blobs whose tombstone is newer than they: a deletion that a crash cut short."""
        rows = self._read(
            "SELECT digest FROM blobs JOIN tombstones USING (digest)"
            " WHERE buried AND blobs.generation < tombstones.generation"
        )
        return [Digest(raw) for (raw,) in rows]

    def _add_up(self, database: apsw.Connection) -> None:
        self.totals.blobs, self.totals.bytes = next(database.execute("SELECT blobs, bytes FROM totals"))

    def _unimportant(self, operation: Callable[[apsw.Connection], object]) -> None:
        try:
            self.transact(operation, durable=False)
        except LocalError as e:
            self.doubts += 1
            self.log.warn("the catalog could not be written: {error}", error=e)

    @contextmanager
    def forgetting(self, digest: Digest) -> Iterator[None]:
        """:meth:`forget` a blob that the block takes away; if it cannot, the disk is to be compared."""
        self.forget(digest)
        try:
            yield
        except BaseException:
            self.doubts += 1
            raise

    # -- hints ----------------------------------------------------------------

    def put_hint(self, digest: Digest, copies: int) -> None:
        """Remember a hint. Durable."""
        self._write("INSERT OR REPLACE INTO hints VALUES (?, ?)", (digest.raw, copies))

    def drop_hint(self, digest: Digest) -> None:
        """Forget a hint. Durable."""
        self._write("DELETE FROM hints WHERE digest = ?", (digest.raw,))

    def hints(self) -> Sequence[tuple[Digest, int]]:
        """All hints, in the order of their ids."""
        rows = self._read("SELECT digest, copies FROM hints ORDER BY digest")
        return [(Digest(digest), copies) for digest, copies in rows]

    # -- tombstones -----------------------------------------------------------

    def put_tombstone(
        self, digest: Digest, generation: int, buried: bool, owed_to: Iterable[PeerID] = ()
    ) -> None:
        """Remember a tombstone as it now is, and who has yet to hear of it. Durable."""
        owed = [(digest.raw, peer.raw) for peer in owed_to]

        def put(database: apsw.Connection) -> None:
            values = (digest.raw, generation, int(buried))
            database.execute("INSERT OR REPLACE INTO tombstones VALUES (?, ?, ?)", values)
            database.executemany(_OWE, owed)

        self.transact(put, durable=True)

    def tombstones(self) -> Sequence[tuple[Digest, int, bool]]:
        """All of them: (id, generation, buried)."""
        rows = self._read("SELECT digest, generation, buried FROM tombstones")
        return [(Digest(digest), generation, bool(buried)) for digest, generation, buried in rows]

    def buried_at(self, digest: Digest) -> int:
        """The generation of the tombstone a blob lies under; 0 if it lies under none."""
        query = "SELECT generation FROM tombstones WHERE buried AND digest = ?"
        found = self.consult(lambda database: database.execute(query, (digest.raw,)).fetchone())
        return found[0] if found else 0

    def put_owed(self, digest: Digest, peers: Iterable[PeerID]) -> None:
        """These peers have yet to hear of the tombstone. Durable."""
        values = [(digest.raw, peer.raw) for peer in peers]
        self.transact(lambda database: database.executemany(_OWE, values), durable=True)

    def drop_owed(self, digest: Digest, peer: PeerID) -> None:
        """This one has."""
        self._write("DELETE FROM owed WHERE digest = ? AND peer = ?", (digest.raw, peer.raw))

    def owed(self) -> Sequence[tuple[Digest, PeerID]]:
        """All that is still to be delivered."""
        rows = self._read("SELECT digest, peer FROM owed ORDER BY digest, peer")
        return [(Digest(digest), PeerID(peer)) for digest, peer in rows]

    # -- peers ----------------------------------------------------------------

    def put_peers(self, met: Sequence[tuple[Peer, float]]) -> None:
        """Keep these instead of those before. Durable."""
        rows = [
            (peer.id.raw, peer.name, str(peer.address), peer.public_url, last_alive)
            for peer, last_alive in met
        ]

        def replace(database: apsw.Connection) -> None:
            database.execute("DELETE FROM peers")
            database.executemany("INSERT INTO peers VALUES (?, ?, ?, ?, ?)", rows)

        self.transact(replace, durable=True)

    def peers(self) -> Sequence[tuple[Peer, float]]:
        """What was kept last."""
        rows = self._read("SELECT peer, name, address, url, last_alive FROM peers ORDER BY rowid")
        return [
            (Peer(PeerID(raw), name, Address.parse(at), url), alive) for raw, name, at, url, alive in rows
        ]

    def _write(self, statement: str, values: tuple[bytes | int, ...]) -> None:
        self.transact(lambda database: database.execute(statement, values).fetchall(), durable=True)

    def _read(self, statement: str) -> list[tuple[Any, ...]]:
        return self.consult(lambda database: database.execute(statement).fetchall())


def _row(found: tuple[Any, ...]) -> Row:
    raw, size, mtime_ns, verified_at, generation = found
    return Row(Digest(raw), size, mtime_ns, verified_at, generation)

"""The catalog adds up, survives its own damage, and knows when it may be wrong."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest

from swarm.errors import StorageFull, StoreFailed
from swarm.model.digest import Digest
from swarm.model.grains import Grains
from swarm.model.midstates import Midstates
from swarm.model.peers import PeerID
from swarm.storage.catalog import Catalog, Row
from swarm.storage.disk import Disk

ONE, TWO, THREE = sorted(Digest.of(b"%d" % n) for n in range(3))


def opened(path: Path) -> Catalog:
    catalog = Catalog(str(path / "catalog.sqlite"), disk=Disk())
    catalog.open()
    return catalog


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    catalog = opened(tmp_path)
    yield catalog
    catalog.close()


def totals(catalog: Catalog) -> tuple[int, int]:
    return catalog.totals.blobs, catalog.totals.bytes


def test_totals_follow_every_row(catalog: Catalog) -> None:
    catalog.record(ONE, 10, 1, 5.0)
    catalog.record(TWO, 20, 1, 5.0)
    assert totals(catalog) == (2, 30)
    catalog.record(ONE, 15, 2, 6.0)
    assert totals(catalog) == (2, 35)
    assert catalog.row(ONE) == Row(ONE, 15, 2, 6.0, 0)
    catalog.forget(ONE)
    catalog.forget(ONE)
    assert totals(catalog) == (1, 20)
    assert catalog.row(ONE) is None


def test_pages_are_bounded_on_both_sides(catalog: Catalog) -> None:
    for digest in (THREE, ONE, TWO):
        catalog.record(digest, 1, 1, 1.0)
    assert [row.digest for row in catalog.page(b"", 2)] == [ONE, TWO]
    assert [row.digest for row in catalog.page(ONE.raw, 10)] == [TWO, THREE]
    assert [row.digest for row in catalog.page(b"", 10, THREE.raw)] == [ONE, TWO]


def test_a_clean_stop_leaves_nothing_to_doubt(tmp_path: Path) -> None:
    first = opened(tmp_path)
    assert first.incomplete  # new: there may be blobs without rows
    first.settle(first.doubts)
    first.record(ONE, 10, 1, 5.0)
    first.close()
    first.close()
    second = opened(tmp_path)
    assert not second.incomplete
    assert totals(second) == (1, 10)
    del second  # a crash: never closed
    assert opened(tmp_path).incomplete


def test_a_stop_before_the_comparison_ended_is_not_clean(tmp_path: Path) -> None:
    opened(tmp_path).close()
    assert opened(tmp_path).incomplete


def test_doubts_that_come_up_during_a_comparison_outlive_it(catalog: Catalog) -> None:
    began = catalog.doubts
    catalog.doubts += 1
    catalog.settle(began)
    assert catalog.incomplete
    catalog.settle(catalog.doubts)
    assert not catalog.incomplete


@pytest.mark.parametrize(
    "content",
    [b"no database at all " * 1000, b"SQLite format 3\0" + b"\xff" * 8000],
    ids=["garbage", "broken header"],
)
def test_a_damaged_file_is_set_aside_and_begun_anew(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "catalog.sqlite").write_bytes(content)
    catalog = opened(tmp_path)
    assert catalog.incomplete
    assert totals(catalog) == (0, 0)
    assert (tmp_path / "catalog.sqlite.damaged").read_bytes() == content
    catalog.put_hint(ONE, 2)
    assert catalog.hints() == [(ONE, 2)]
    catalog.close()


def test_damage_found_later_is_survived_too(tmp_path: Path) -> None:
    catalog = opened(tmp_path)
    for n in range(2000):
        catalog.record(Digest.of(b"%d" % n), 1, 1, 1.0)
    catalog.settle(catalog.doubts)
    catalog.close()
    path = tmp_path / "catalog.sqlite"
    whole = path.read_bytes()
    path.write_bytes(whole[:16384] + b"\xee" * (len(whole) - 16384))
    catalog = opened(tmp_path)
    assert list(catalog.page(b"", 5000)) == []
    assert catalog.incomplete
    catalog.record(ONE, 7, 1, 1.0)
    assert totals(catalog) == (1, 7)
    catalog.close()


@pytest.mark.parametrize("statement", ["PRAGMA user_version = 99", "DROP TABLE totals", "DELETE FROM state"])
def test_another_schema_is_set_aside_like_damage(tmp_path: Path, statement: str) -> None:
    opened(tmp_path).close()
    other = apsw.Connection(str(tmp_path / "catalog.sqlite"))
    other.execute(statement)
    other.close()
    catalog = opened(tmp_path)
    assert (tmp_path / "catalog.sqlite.damaged").exists()
    catalog.record(ONE, 7, 1, 1.0)
    assert totals(catalog) == (1, 7)
    catalog.close()


def test_a_deletion_cut_short_is_known(catalog: Catalog) -> None:
    catalog.record(ONE, 1, 1, 1.0)
    catalog.record(TWO, 1, 1, 1.0)
    for digest in (ONE, TWO, THREE):
        catalog.put_tombstone(digest, 1, True)
    catalog.record(TWO, 1, 1, 1.0)  # put again
    catalog.record(THREE, 1, 1, 1.0)
    assert catalog.outlived() == [ONE]
    assert catalog.buried_at(ONE) == 1
    catalog.put_tombstone(ONE, 1, False)
    assert catalog.outlived() == []
    assert catalog.buried_at(ONE) == 0


def test_what_must_be_durable_is_refused_loudly(tmp_path: Path) -> None:
    catalog = opened(tmp_path)
    catalog.close()
    with pytest.raises(StoreFailed):
        catalog.put_hint(ONE, 2)
    assert catalog.row(ONE) is None
    before = catalog.doubts
    catalog.record(ONE, 1, 1, 1.0)  # can be found again on the disk
    assert catalog.doubts == before + 1


def test_a_full_disk_is_said_so(catalog: Catalog) -> None:
    catalog.consult(lambda database: database.execute("PRAGMA max_page_count = 1").fetchall())

    def fill() -> None:
        for n in range(10_000):
            catalog.put_owed(ONE, [PeerID(Digest.of(b"%d-%d" % (n, m)).raw[:32]) for m in range(100)])

    with pytest.raises(StorageFull):
        fill()
    owed = len(catalog.owed())
    with pytest.raises(StorageFull):
        catalog.put_owed(ONE, [PeerID(Digest.of(b"%d" % n).raw[:32]) for n in range(5000)])
    assert len(catalog.owed()) == owed


def test_a_place_where_nothing_can_be_written_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreFailed):
        Catalog(str(tmp_path / "missing" / "catalog.sqlite"), disk=Disk()).open()


def test_a_list_is_vouched_for_as_long_as_its_blob_is_remembered(catalog: Catalog) -> None:
    known = Midstates(Grains.of(3 << 20), bytes(128))
    assert catalog.vouches(ONE, known.encode()) is None
    catalog.record(ONE, 3 << 20, 1, 5.0, known)
    assert catalog.vouches(ONE, known.encode()) is True
    assert catalog.vouches(ONE, known.encode() + b"?") is False
    catalog.proven(ONE, 3 << 20, 2, 6.0)
    assert catalog.vouches(ONE, known.encode()) is True
    catalog.proven(TWO, 3 << 20, 2, 6.0, known)
    assert catalog.vouches(TWO, known.encode()) is True
    catalog.forget(ONE)
    assert catalog.vouches(ONE, known.encode()) is None
    catalog.close()
    assert catalog.vouches(TWO, known.encode()) is None  # it cannot be asked


def test_a_catalog_from_before_there_were_lists_goes_on(tmp_path: Path) -> None:
    first = opened(tmp_path)
    first.record(ONE, 10, 1, 5.0)
    first.put_hint(ONE, 2)
    first.close()
    before = apsw.Connection(str(tmp_path / "catalog.sqlite"))
    before.execute("DROP TRIGGER list_out; DROP TABLE lists")
    before.close()
    second = opened(tmp_path)
    assert second.hints() == [(ONE, 2)]
    assert second.vouches(ONE, b"") is None
    second.forget(ONE)
    assert totals(second) == (0, 0)
    second.close()

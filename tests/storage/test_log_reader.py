"""Reading beside whoever writes: in order, bounded, and without holding anything up."""

import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.clock import ManualClock
from gateway.config import StorageSettings
from gateway.metrics import Metrics
from gateway.model.errors import NotFound
from gateway.model.reading import NewQuarantine, NewReading, TimeSource
from gateway.model.selection import Selection
from gateway.storage import log_reader
from gateway.storage.log import Log
from gateway.storage.log_reader import LogReader

SIZE = 100
"""Bytes of each payload here."""


@pytest.fixture
async def log(tmp_path: Path) -> AsyncIterator[Log]:
    settings = StorageSettings()
    async with Log.create(tmp_path / "log.db", settings, clock=ManualClock(), metrics=Metrics()) as log:
        yield log


@pytest.fixture
async def reader(log: Log) -> AsyncIterator[LogReader]:
    async with LogReader.open(log._path) as reader:
        yield reader


def new(log: Log, number: int, *, boot: str = "", seq: int | None = None) -> NewReading:
    payload = b'{"sensors":{},"seq":%d' % number
    payload += b" " * (SIZE - len(payload) - 1) + b"}"
    return NewReading(log.stream("acme", "k", boot), seq, number, TimeSource.CORRECTED, 1000 + number, 0, payload)


async def fill(log: Log, count: int) -> None:
    await log.append([new(log, number) for number in range(1, count + 1)])


async def test_what_is_committed_can_be_read_by_another_at_once(log: Log, reader: LogReader) -> None:
    await log.append([new(log, 7, boot="b", seq=3)])
    (one,) = await reader.read(0, limit=10)
    assert (one.row, one.organization_id, one.device_id, one.boot_id, one.seq) == (1, "acme", "k", "b", 3)
    assert (one.time_ms, one.time_source, one.received_at_ms) == (7, TimeSource.CORRECTED, 1007)
    assert (one.body, one.device_metadata, one.size_bytes) == ({"sensors": {}, "seq": 7}, {}, SIZE)


async def test_without_a_key_seq_is_what_the_board_said(log: Log, reader: LogReader) -> None:
    await log.append([new(log, 7)])
    (one,) = await reader.read(0, limit=10)
    assert (one.boot_id, one.seq) == (None, 7)


@pytest.mark.parametrize(
    ("after", "until", "limit", "rows"),
    [(0, None, 3, [1, 2, 3]), (4, None, 10, [5, 6]), (1, 3, 10, [2, 3]), (6, None, 10, []), (3, 3, 10, [])],
)
async def test_after_is_exclusive_and_until_inclusive(
    log: Log, reader: LogReader, after: int, until: int | None, limit: int, rows: list[int]
) -> None:
    await fill(log, 6)
    assert [one.row for one in await reader.read(after, until=until, limit=limit)] == rows


@pytest.mark.parametrize(
    ("max_bytes", "count"), [(1, 1), (SIZE, 1), (2 * SIZE - 1, 1), (2 * SIZE, 2), (3 * SIZE + 1, 3)]
)
async def test_a_read_is_bounded_in_bytes_but_never_empty(
    log: Log, reader: LogReader, max_bytes: int, count: int
) -> None:
    await fill(log, 5)
    assert len(await reader.read(0, limit=10, max_bytes=max_bytes)) == count


async def test_gaps_are_passed_over(log: Log, reader: LogReader, tmp_path: Path) -> None:
    await fill(log, 5)
    db = sqlite3.connect(tmp_path / "log.db")
    with db:
        db.execute("DELETE FROM device_telemetry_history WHERE id IN (1, 3)")
    db.close()
    assert [one.row for one in await reader.read(0, limit=2)] == [2, 4]
    assert await reader.count_after(2) == (2, 1004)


async def test_what_is_still_to_come_is_counted_with_the_age_of_its_first(log: Log, reader: LogReader) -> None:
    assert await reader.count_after(0) == (0, None)
    await fill(log, 5)
    assert await reader.count_after(0) == (5, 1001)
    assert await reader.count_after(3) == (2, 1004)
    assert await reader.count_after(5) == (0, None)


async def test_a_long_backlog_is_counted_whatever_has_left_it(
    log: Log, reader: LogReader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_reader, "_FEW_ROWS", 2)
    await fill(log, 10)
    assert [(await reader.count_after(row))[0] for row in (0, 1, 6, 8, 10)] == [10, 9, 4, 2, 0]
    db = sqlite3.connect(tmp_path / "log.db")
    with db:
        db.execute("DELETE FROM device_telemetry_history WHERE id <= 3")
    assert [await reader.count_after(row) for row in (0, 3, 4)] == [(7, 1004), (7, 1004), (6, 1005)]
    with db:
        db.execute("DELETE FROM device_telemetry_history WHERE id IN (6, 9)")
    db.close()
    assert [(await reader.count_after(row))[0] for row in (0, 3, 4, 6, 7)] == [5, 5, 4, 3, 2]


@pytest.mark.parametrize(("few", "unused"), [(6, "_COUNT_STREAMS"), (5, "_COUNT_FEW_STREAMS")])
async def test_of_an_organisation_only_the_end_of_the_log_is_counted_when_little_waits(
    log: Log, reader: LogReader, monkeypatch: pytest.MonkeyPatch, few: int, unused: str
) -> None:
    monkeypatch.setattr(log_reader, "_FEW_ROWS", few)
    monkeypatch.setattr(log_reader, unused, "is not asked")
    await fill(log, 10)
    for organization, expected in (("acme", (6, 1005)), ("other", (0, None))):
        selection = Selection(organizations=frozenset({organization}))
        assert await reader.count_after(4, selection) == expected


async def test_the_buffer_is_what_is_on_disk(log: Log, reader: LogReader, tmp_path: Path) -> None:
    empty = await reader.buffer()
    assert (empty.readings, empty.oldest_row, empty.newest_row, empty.quarantined) == (0, 0, 0, 0)
    await fill(log, 50)
    await log.append([NewQuarantine("acme", "k", "http", "code", "why", 1, b"\xff")])
    full = await reader.buffer()
    assert (full.readings, full.oldest_row, full.newest_row, full.quarantined) == (50, 1, 50, 1)
    assert full.bytes == sum((tmp_path / name).stat().st_size for name in ("log.db", "log.db-wal"))
    assert (await reader.newest_row(), await reader.log_uuid()) == (50, log.uuid)


async def test_quarantine_is_paged_oldest_first(log: Log, reader: LogReader) -> None:
    entries = [NewQuarantine("acme", "k", "http", "code", "why", number, b"\xff") for number in range(5)]
    await log.append(entries)
    first = await reader.quarantined(limit=2)
    assert first == [(1, entries[0]), (2, entries[1])]
    assert await reader.quarantined(after=2) == [(3, entries[2]), (4, entries[3]), (5, entries[4])]


async def test_a_reader_keeps_the_write_ahead_log_from_nothing(log: Log, reader: LogReader, tmp_path: Path) -> None:
    await fill(log, 50)
    await reader.read(0, limit=1)
    await reader.read(0, limit=10, max_bytes=1)
    await reader.count_after(0)
    await reader.cursors()
    db = sqlite3.connect(tmp_path / "log.db", timeout=0)
    busy, left, _ = db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    db.close()
    assert (busy, left) == (0, 0)


async def test_a_reader_cannot_write(reader: LogReader) -> None:
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        await reader.fetch("DELETE FROM device_telemetry_history")


async def test_reading_what_is_not_there_creates_nothing(tmp_path: Path) -> None:
    path = tmp_path / "none.db"
    with pytest.raises(NotFound, match=r"none\.db"):
        async with LogReader.open(path):
            pass
    assert not path.exists()

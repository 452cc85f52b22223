"""A damaged log: what comes back, under which ids, and what readers see meanwhile."""

import asyncio
import random
import shutil
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from gateway.clock import ManualClock
from gateway.config import StorageSettings
from gateway.metrics import Metrics
from gateway.model.errors import SchemaTooNew, StoreFailed
from gateway.model.status import Loss
from gateway.storage.commit_thread import Statements
from gateway.storage.cursors import Attempt
from gateway.storage.log import Log
from gateway.storage.log_reader import LogReader
from gateway.storage.repair.damage import beside
from gateway.storage.repair.exchange import DERIVED
from gateway.storage.repair.salvage import Chunk, is_copying
from gateway.storage.repair.sqlite_file import SqliteFile, Walk
from gateway.storage.repair.wreck import Wreck, tables
from gateway.storage.space import WAL_BYTES
from tests.extent import much
from tests.storage.repair.damaged import (
    PAGE,
    corrupt_files,
    fill,
    opened,
    overwrite,
    reading,
    rescue,
    salvaged,
    survivors,
)


async def check_random_pages(path: Path, rows: int, pages: int, seed: int) -> None:
    uuid = await fill(path, rows, cursor=rows // 2)
    hit = overwrite(path, pages, seed)
    right, wrong, open_s = await rescue(path)
    print(f"{right:,} of {rows:,} readings came back ({right / rows:.4%}), {wrong} wrong; pages {hit}")
    assert right >= rows * 0.999
    assert wrong == 0
    assert open_s < 5
    async with LogReader.open(path) as log:
        assert await log.log_uuid() == uuid
        assert [(cursor.name, cursor.position) for cursor in await log.cursors()] == [("cloud", rows // 2)]


@pytest.mark.parametrize("seed", [1, 2])
async def test_p6_random_pages_of_a_hundred_thousand_rows(tmp_path: Path, seed: int) -> None:
    """Twelve pages are the same share of readings as 99.9 % allow: a page holds seven or eight."""
    await check_random_pages(tmp_path / "log.db", 100_000, 12, seed)


@pytest.mark.timeout(300)
async def test_p6_twenty_random_pages_of_a_million_rows(tmp_path: Path) -> None:
    """A million with the thorough profile, else fewer, which are hit harder."""
    await check_random_pages(tmp_path / "log.db", much(250_000, 1_000_000), 20, 7)


@pytest.mark.parametrize("name", ["device_telemetry_history", "streams", "device_metadata", "meta", "cursors"])
async def test_a_lost_root_page_costs_nothing_but_what_was_on_it(tmp_path: Path, name: str) -> None:
    path = tmp_path / "log.db"
    await fill(path, 20_000, cursor=9_000)
    with closing(sqlite3.connect(path)) as db:
        (root,) = db.execute("SELECT rootpage FROM sqlite_schema WHERE name = ?", (name,)).fetchone()
    with path.open("r+b") as file:
        file.seek((root - 1) * PAGE)
        file.write(random.Random(root).randbytes(PAGE))
    right, wrong, _ = await rescue(path)
    assert (right, wrong) == (20_000, 0)


async def test_an_overwritten_header(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    uuid = await fill(path, 20_000, cursor=9_000)
    with path.open("r+b") as file:
        file.write(random.Random(0).randbytes(PAGE))
    right, wrong, _ = await rescue(path)
    assert (right, wrong) == (20_000, 0)
    async with LogReader.open(path) as log:
        assert await log.log_uuid() == uuid
        assert [cursor.position for cursor in await log.cursors()] == [9_000]


async def test_a_truncated_file(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    await fill(path, 20_000)
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.truncate(size * 2 // 3 + 1_234)
    right, wrong, _ = await rescue(path)
    print(f"{right:,} of 20,000")
    assert right > 20_000 * 0.6
    assert wrong == 0


async def test_an_empty_file_gets_another_log_id(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    uuid = await fill(path, 100)
    path.write_bytes(b"")
    told: list[str] = []
    async with opened(path, told) as log:
        await salvaged(log)
        assert log.uuid != uuid
        await log.append([reading(log, 101)])
        assert (await log.read(0, limit=10))[0].body["seq"] == 101
    assert "the file is empty" in told[0]


async def test_new_rows_are_above_all_old_ones_and_come_after_them(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    await fill(path, 5_000, cursor=4_000)
    overwrite(path, 1, 3)
    with path.open("r+b") as file:
        file.write(b"garbage!" * 8)
    async with opened(path) as log:
        cursor = await log.open_cursor("cloud", start="now")
        await log.append([reading(log, 5_001)])
        readings = await log.read(cursor.position, until=2**40, limit=2_000)
        seqs = [one.body["seq"] for one in readings]
        assert seqs == sorted(seqs)
        assert seqs[-1] == 5_001
        assert len(seqs) >= 980
        assert readings[-1].row > 5_000
        assert [one.row for one in readings[:-1]] == seqs[:-1]


async def test_what_is_sent_again_while_the_salvage_runs_is_not_there_twice(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    await fill(path, 8_000)
    with path.open("r+b") as file:
        file.write(b"garbage!" * 8)
    async with opened(path) as log:
        assert log.salvages
        await log.append([reading(log, seq) for seq in range(7_990, 8_003)])
        await salvaged(log)
        assert (await log.buffer()).readings == 8_002
        rows = {one.body["seq"]: one.row for one in await log.read(7_980, limit=100)}
        assert [rows[seq] for seq in range(7_990, 8_001)] == list(range(7_990, 8_001))
        assert rows[8_001] > 10_000_000


async def test_a_frozen_batch_is_still_the_same(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    await fill(path, 3_000, cursor=1_000)
    attempt = Attempt("cloud", "msg_1", 1_000, 1_500, 500, "ab" * 32, 5)
    async with opened(path) as log:
        await log.freeze(attempt)
    with path.open("r+b") as file:
        file.write(b"garbage!" * 8)
    async with opened(path) as log:
        assert (await log.open_cursor("cloud", start="now")).attempt == attempt
        assert len(await log.read(1_000, until=1_500, limit=500)) == 500


async def come_further(log: Log) -> None:
    """Wait until some thousand rows more are back, or all that can be."""
    before = log.salvages[0].frontier if log.salvages else 0
    async with asyncio.timeout(20):
        while log.salvages and log.salvages[0].frontier < before + 5_000:  # noqa: ASYNC110
            await asyncio.sleep(0.001)


async def test_a_salvage_goes_on_after_a_stop(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    await fill(path, 30_000)
    with path.open("r+b") as file:
        file.write(b"garbage!" * 8)
    stops = 0
    while True:
        async with opened(path) as log:
            await come_further(log)
            if not log.salvages:
                break
            assert log.last_row <= 30_000 or not is_copying(log.salvages)
            stops += 1
    assert stops
    assert survivors(path) == (30_000, 0)
    assert len(corrupt_files(tmp_path)) == 1


async def test_overflowing_payloads_come_back_and_broken_chains_do_not(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    await fill(path, 300, size=20_000)
    overwrite(path, 10, 4)
    async with opened(path) as log:
        if not log.salvages:
            log.care.report("a test says so")
        await salvaged(log)
    right, wrong = survivors(path, size=20_000)
    print(f"{right} of 300 readings of 20 kB; 10 of some 1,500 pages were overwritten")
    assert 288 <= right < 300
    assert wrong == 0


async def test_a_newer_schema_is_refused_and_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    await fill(path, 10)
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA user_version = 99")
    with pytest.raises(SchemaTooNew, match="schema 99"):
        async with opened(path):
            pass
    assert not corrupt_files(tmp_path)


async def test_a_locked_log_is_waited_for_and_then_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "log.db"
    await fill(path, 10)
    monkeypatch.setattr("gateway.storage.log.BUSY_TIMEOUT_S", 0.5)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("PRAGMA locking_mode = EXCLUSIVE")
        other.execute("BEGIN EXCLUSIVE")
        began = time.monotonic()
        with pytest.raises(StoreFailed, match="another program holds") as caught:
            async with opened(path):
                pass
        assert time.monotonic() - began >= 0.4
        assert "fuser" in caught.value.hint
    assert not corrupt_files(tmp_path)
    async with opened(path) as log:
        assert log.last_row == 10


async def test_tables_differ_in_form(tmp_path: Path) -> None:
    """A stray page is given to the table whose records have its form: two tables of one form would mix."""
    path = tmp_path / "log.db"
    await fill(path, 1)
    with closing(sqlite3.connect(path)) as db:
        forms = [
            (table.types, table.id_column)
            for table in tables(db).values()
            if table.has_rows and table.name not in {"salvages", *DERIVED}
        ]
    assert len(forms) == len(set(forms))


@pytest.mark.parametrize("seed", range(10))
async def test_no_damage_is_too_strange_to_be_read(tmp_path: Path, seed: int) -> None:
    """Single bytes in the pages' heads break pointers, counts and lengths in every way: nothing raises or runs away."""
    path = tmp_path / "log.db"
    await fill(path, 3_000, size=200 if seed % 2 else 9_000)
    with closing(sqlite3.connect(path)) as db:
        known = tables(db)
    rng = random.Random(seed)
    content = bytearray(path.read_bytes())
    for _ in range(2_000):
        page = rng.choice((rng.randrange(15), rng.randrange(len(content) // PAGE)))
        place = rng.choice((rng.randrange(24), rng.randrange(PAGE)))
        content[page * PAGE + place] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
    path.write_bytes(content)
    beside(path, "-wal").write_bytes(rng.randbytes(32 + 5 * (PAGE + 24)))
    with Wreck(path, known) as wreck:
        for name, table in known.items():
            wreck.all(name)
            if table.has_rows:
                wreck.highest(name)
                found = sum(1 for _ in wreck.rows(name, after=0, until=2**40))
                if name == "device_telemetry_history":
                    print(f"{found:,} of 3,000, {wreck.unreadable_rows:,} rows unreadable")
    async with opened(path) as log:
        log.care.report("a test says so")
        await log.append([reading(log, 3_001)])
        await salvaged(log)


async def test_pointer_map_pages_are_no_pages_of_a_tree(tmp_path: Path) -> None:
    """Page 2 and every 820th after it (4096 bytes, auto_vacuum), whatever they look like."""
    path = tmp_path / "log.db"
    await fill(path, 14_000)
    with SqliteFile(path) as file:
        leaf = next(file.scan(Walk(file.pages)))
        looks_like_a_leaf = file.page(leaf)
        last = file.pages
    assert last > 1_642
    with path.open("r+b") as raw:
        for number in (2, 822, 1_642):
            raw.seek((number - 1) * PAGE)
            raw.write(looks_like_a_leaf)
    with SqliteFile(path) as file:
        found = set(file.scan(Walk(file.pages)))
    assert leaf in found
    assert not found & {2, 822, 1_642}
    right, wrong, _ = await rescue_reported(path)
    assert (right, wrong) == (14_000, 0)


async def rescue_reported(path: Path) -> tuple[int, int, float]:
    """Salvage a log that somebody says is damaged."""
    async with opened(path) as log:
        log.care.report("a test says so")
        await salvaged(log)
    return *survivors(path), 0.0


async def test_erased_rows_do_not_come_back_from_free_pages(tmp_path: Path) -> None:
    """The number of their stream may be another device's by now."""
    path = tmp_path / "log.db"
    await fill(path, 20_000)
    with closing(sqlite3.connect(path)) as db:
        db.execute("DELETE FROM device_telemetry_history WHERE id <= 5000")
        db.commit()
        (root,) = db.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'device_telemetry_history'").fetchone()
    with path.open("r+b") as file:
        file.seek((root - 1) * PAGE)
        file.write(random.Random(root).randbytes(PAGE))
    async with opened(path) as log:
        await salvaged(log)
        readings = await log.read(0, limit=30_000)
    assert [one.row for one in readings] == list(range(5_001, 20_001))


async def test_what_else_the_log_holds_comes_along(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    await fill(path, 100, cursor=10)
    clock = ManualClock()
    async with Log.create(path, StorageSettings(), clock=clock, metrics=Metrics(), tell=lambda _: None) as log:
        await log.learn_clock()
        for one in await log.read(20, limit=3):
            await log.dead_letters.set_aside("cloud", one, "no", 7)
        await log.transact(Statements([("INSERT INTO losses VALUES (?, ?, ?, ?, ?, ?)", [("cloud", 3, 1, 3, 5, 6)])]))
        kept = await log.fetch("SELECT bytes FROM dead_letters_kept")
        log.care.report("a test says so")
        await salvaged(log)
        assert [one.reading.row for one in await log.dead_letters.provisional("cloud")] == [21, 22, 23]
        assert list(await log.fetch("SELECT bytes FROM dead_letters_kept")) == list(kept)
        assert await log.loss("cloud") == Loss(3, 1, 3, 5)
        await log.append([reading(log, 101)])
        await log.learn_clock()  # of the fresh log's own boot
    with closing(sqlite3.connect(path)) as db:
        epochs = db.execute("SELECT id, epoch_ms FROM gateway_boots ORDER BY id").fetchall()
        (boot,) = db.execute("SELECT gateway_boot FROM device_telemetry_history WHERE seq = 101").fetchone()
    assert len(epochs) == 3
    assert epochs[-1][0] == boot
    assert [epoch for _, epoch in epochs] == [None, *[clock.now - clock.monotonic] * 2]


async def test_a_look_at_every_page_is_taken_once_and_ends_with_the_gateway(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "log.db"
    await fill(path, 60_000)
    with closing(sqlite3.connect(path)) as db:
        known = tables(db)
        roots = db.execute("SELECT rootpage FROM sqlite_schema WHERE name IN ('device_telemetry_history', 'streams')")
        lost = [root for (root,) in roots]
    with path.open("r+b") as file:
        for root in lost:
            file.seek((root - 1) * PAGE)
            file.write(random.Random(root).randbytes(PAGE))
    scans = 0
    scan = SqliteFile.scan

    def counted(file: SqliteFile, *walks: Walk) -> Iterator[int]:
        nonlocal scans
        scans += 1
        yield from scan(file, *walks)

    with monkeypatch.context() as patched:
        patched.setattr(SqliteFile, "scan", counted)
        with Wreck(path, known) as wreck:
            assert list(wreck.rows("streams", after=0, until=2**40)) == []
            assert sum(1 for _ in wreck.rows("device_telemetry_history", after=0, until=2**40)) == 60_000
    assert scans == 1

    looking = asyncio.Event()
    loop = asyncio.get_running_loop()
    page = SqliteFile.page

    def slow(file: SqliteFile, number: int) -> bytes:
        if number > 1_000:
            loop.call_soon_threadsafe(looking.set)
            time.sleep(0.003)
        return page(file, number)

    monkeypatch.setattr(SqliteFile, "page", slow)
    async with opened(path) as log:
        if not log.salvages:
            log.care.report("a test says so")
        async with asyncio.timeout(10):
            await looking.wait()
        began = time.monotonic()
    assert time.monotonic() - began < 5


async def test_a_transaction_of_a_salvage_fits_into_the_write_ahead_log(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    await fill(path, 1_000, size=64_000)
    most = 0
    async with opened(path) as log:
        log.care.report("a test says so")
        while log.care.is_damaged or log.salvages:
            await asyncio.sleep(0.002)
            wal = beside(path, "-wal")
            most = max(most, wal.stat().st_size if wal.exists() else 0)
        assert (await log.buffer()).readings == 1_000
    print(f"write-ahead log: {most:,} bytes at most")
    assert most < WAL_BYTES * 1.1


async def test_a_salvage_that_is_stopped_when_all_is_done_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "log.db"
    await fill(path, 100)
    with path.open("r+b") as file:
        file.write(b"garbage!" * 8)
    told: list[str] = []
    salvage, written = Log.salvage, asyncio.Event()

    async def salvage_and_stop(log: Log, chunk: Chunk) -> bool:
        is_done = await salvage(log, chunk)
        if chunk.is_last:
            log.care.stop()
            written.set()
        return is_done

    monkeypatch.setattr(Log, "salvage", salvage_and_stop)
    async with opened(path, told):
        await written.wait()
    assert told[-1].startswith("100 readings were salvaged")


async def test_what_a_salvage_says_at_its_end_counts_what_it_did_before_a_stop(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    await fill(path, 30_000)
    overwrite(path, 30, 3)
    with path.open("r+b") as file:
        file.write(b"garbage!" * 8)
    shutil.copy(path, tmp_path / "same.db")
    told: list[str] = []
    async with opened(tmp_path / "same.db", told) as log:
        await salvaged(log)
    at_once = told[-1].partition(";")[2]
    told.clear()
    stops = 0
    while True:
        async with opened(path, told) as log:
            await come_further(log)
            if not log.salvages:
                break
            stops += log.salvages[0].rescued > 0
    assert stops
    async with LogReader.open(path) as log:
        stored = (await log.buffer()).readings
    assert told[-1].startswith(f"{stored:,} readings were salvaged from log.db.corrupt-")
    assert told[-1].partition(";")[2] == at_once

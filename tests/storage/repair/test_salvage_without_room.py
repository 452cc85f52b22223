"""A salvage on a disk that the damaged log has nearly filled: nothing stands still, and what is lost is counted."""

import asyncio
import shutil
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Literal

import pytest

from gateway.clock import ManualClock
from gateway.config import StorageSettings
from gateway.metrics import Metrics
from gateway.model.errors import StoreFailed
from gateway.storage.cursors import Attempt
from gateway.storage.log import Log
from gateway.storage.repair.salvage import is_copying
from gateway.storage.space import BALLAST_BYTES
from tests.storage.repair.damaged import fill, reading, salvaged

ROWS = 20_000
_DISK_BYTES = 60_000_000


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log of `ROWS` readings, which no destination has got."""
    path = tmp_path_factory.mktemp("whole") / "log.db"
    asyncio.run(fill(path, ROWS))
    return path


@asynccontextmanager
async def little_room(
    whole: Path, folder: Path, patched: pytest.MonkeyPatch, overflow: Literal["reject", "drop_oldest"], room: int
) -> AsyncIterator[Log]:
    """Open a copy of the log on a disk that has so much room beside it."""
    path = folder / "log.db"
    shutil.copy(whole, path)

    def free_bytes(_: Path) -> int:
        return max(0, _DISK_BYTES - sum(file.stat().st_size for file in folder.iterdir()))

    patched.setattr("gateway.storage.space.free_bytes", free_bytes)
    kept = _DISK_BYTES - path.stat().st_size - BALLAST_BYTES - room
    settings = StorageSettings(min_free_bytes=kept, overflow=overflow)
    async with Log.create(path, settings, clock=ManualClock(), metrics=Metrics(), tell=lambda _: None) as log:
        await log.open_cursor("cloud", start="oldest")
        log.bounds.tick()
        yield log


async def deliver(log: Log, position: int) -> list[int]:
    """Read what there is, freeze it, and let the cursor pass it."""
    rows: list[int] = []
    while log.last_row > position:
        until = log.last_row
        found = [one.row for one in await log.read(position, until=until, limit=1_000)]
        if found:
            attempt = Attempt("cloud", f"msg_{found[0]}", position, found[-1], len(found), "ab" * 32, 5)
            if not await log.freeze(attempt):
                continue
        position = found[-1] if found else until
        log.move_cursor("cloud", position)
        rows += found
    return rows


async def under_load(log: Log, rows: list[int]) -> int:
    """Send and deliver until the salvage has ended and all is delivered; returns how many were acknowledged."""
    acknowledged = 0
    async with asyncio.timeout(60):
        while log.care.is_damaged or log.salvages:
            log.bounds.tick()
            sent = [reading(log, 40_000 + acknowledged + number, size=4_000) for number in range(20)]
            try:
                await log.append(sent)
                acknowledged += len(sent)
            except StoreFailed:
                pass
            rows += await deliver(log, rows[-1] if rows else 0)
            await asyncio.sleep(0.02)
        while log.bounds.full is not None:
            log.bounds.tick()
            await asyncio.sleep(0.02)
    await log.append([reading(log, 30_000)])
    rows += await deliver(log, rows[-1])
    return acknowledged + 1


async def test_with_reject_everything_is_delivered_and_then_readings_are_taken_in_again(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with little_room(whole, tmp_path, monkeypatch, "reject", 6_000_000) as log:
        log.care.report("a test says so")
        rows: list[int] = []
        acknowledged = await under_load(log, rows)
        assert rows[:ROWS] == list(range(1, ROWS + 1))
        assert len(rows) == ROWS + acknowledged
        assert await log.loss("cloud") is None


async def test_with_drop_oldest_what_is_lost_is_counted_and_older_than_what_is_not(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with little_room(whole, tmp_path, monkeypatch, "drop_oldest", 6_000_000) as log:
        log.care.report("a test says so")
        rows: list[int] = []
        acknowledged = await under_load(log, rows)
        loss = await log.loss("cloud")
        lost = loss.readings if loss else 0
        print(f"{len(rows)} delivered, {acknowledged} taken in meanwhile, {lost} lost")
        assert rows == sorted(set(rows))
        assert len(rows) + lost == ROWS + acknowledged
        assert loss is None or loss.last_row <= ROWS


async def test_with_drop_oldest_and_a_dead_destination_the_salvage_gives_way_to_what_is_new(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with little_room(whole, tmp_path, monkeypatch, "drop_oldest", 6_000_000) as log:
        assert await log.freeze(Attempt("cloud", "msg_1", 0, 100, 100, "ab" * 32, 5))
        log.care.report("a test says so")
        acknowledged = 0
        async with asyncio.timeout(60):
            while log.care.is_damaged or log.salvages:
                log.bounds.tick()
                try:
                    await log.append([reading(log, 40_000 + acknowledged + n, size=4_000) for n in range(20)])
                    acknowledged += 20
                except StoreFailed:
                    await asyncio.sleep(0.02)
                loss = await log.loss("cloud")
                assert loss is None or loss.last_row <= ROWS, "nothing newer is lost before"
        rows = await deliver(log, 0)
        loss = await log.loss("cloud")
        assert loss is not None
        assert rows[:100] == list(range(1, 101)), "what is under way may have arrived: it cannot be counted as lost"
        assert len(rows) + loss.readings == ROWS + acknowledged


async def test_a_quiet_site_loses_nothing_for_the_sake_of_a_salvage(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`drop_oldest`, and a destination that is down for a while: no new reading wants the room."""
    async with little_room(whole, tmp_path, monkeypatch, "drop_oldest", 5_000_000) as log:
        log.care.report("a test says so")
        for _ in range(30):
            log.bounds.tick()
            await asyncio.sleep(0.05)
        rows: list[int] = []
        async with asyncio.timeout(60):
            while log.care.is_damaged or log.salvages:
                log.bounds.tick()
                rows += await deliver(log, rows[-1] if rows else 0)
                await asyncio.sleep(0.02)
        rows += await deliver(log, rows[-1])
        assert rows == list(range(1, ROWS + 1))
        assert await log.loss("cloud") is None


async def test_what_every_destination_has_had_is_not_copied(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does a repeat of it go out under a second id."""
    async with little_room(whole, tmp_path, monkeypatch, "reject", 6_000_000) as log:
        log.move_cursor("cloud", ROWS - 10)
        log.care.report("a test says so")
        await log.append([reading(log, seq) for seq in range(ROWS - 20, ROWS + 2)])
        log.bounds.tick()
        await salvaged(log)
        rows = [one.row for one in await log.read(0, limit=ROWS)]
        assert rows[:10] == list(range(ROWS - 9, ROWS + 1))
        assert len(rows) == 11


async def test_a_reader_that_waits_for_more_than_a_chunk_is_answered(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes up its frozen attempt, and delivers none of it before all of it is there."""
    async with little_room(whole, tmp_path, monkeypatch, "reject", 4_300_000) as log:
        log.care.report("a test says so")
        async with asyncio.timeout(20):
            readings = await log.read(0, until=2_500, limit=3_000)
        assert [one.row for one in readings] == list(range(1, 2_501))
        assert is_copying(log.salvages)


async def test_before_the_destinations_are_known_a_salvage_waits_for_room(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A command that opens the log beside no gateway knows none of them: nothing has been delivered for that."""
    path = tmp_path / "log.db"
    shutil.copy(whole, path)
    with path.open("r+b") as file:
        file.write(b"garbage!" * 8)
    monkeypatch.setattr("gateway.storage.space.Space.room_bytes", lambda *_: 5_000_000)
    async with Log.create(path, StorageSettings(), clock=ManualClock(), metrics=Metrics(), tell=lambda _: None) as log:
        await asyncio.sleep(0.5)
        assert log.salvages[0].frontier == 0
    monkeypatch.undo()
    async with Log.create(path, StorageSettings(), clock=ManualClock(), metrics=Metrics(), tell=lambda _: None) as log:
        await salvaged(log)
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT count(*) FROM device_telemetry_history").fetchone() == (ROWS,)

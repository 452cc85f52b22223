"""A log that turns out damaged while it is in use."""

import asyncio
import os
import sqlite3
import subprocess
import sys
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from gateway.config import StorageSettings
from gateway.model.errors import StoreFailed
from gateway.storage.bounds import Bounds
from gateway.storage.cursors import Attempt
from gateway.storage.log import Log
from gateway.storage.repair import exchange
from gateway.storage.space import WAL_BYTES, Pages, Space
from tests.cloud_sync.site import Scripted, Site, running, until
from tests.storage.repair.damaged import PAGE, corrupt_files, fill, opened, reading, salvaged

ATTEMPT = Attempt("cloud", "msg_1", 1_000, 1_500, 500, "ab" * 32, 5)

_SPOIL = """
import random, sys
path, first, last = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
with open(path, "r+b") as file:
    file.seek(first * 4096)
    file.write(random.Random(1).randbytes((last - first) * 4096))
"""


async def spoil(path: Path, first: int, last: int) -> None:
    """Overwrite pages from another process: closing the file in this one would drop SQLite's locks."""
    arguments = (sys.executable, "-c", _SPOIL, str(path), str(first), str(last))
    await asyncio.to_thread(subprocess.run, arguments, check=True)


def pages(path: Path) -> int:
    return path.stat().st_size // PAGE


async def test_a_commit_that_meets_damage_is_made_in_the_fresh_log(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    await fill(path, 20_000, cursor=1_000)
    told: list[str] = []
    async with opened(path, told) as log:
        uuid = log.uuid
        await log.open_cursor("cloud", start="oldest")
        await log.append([reading(log, 20_001)])
        log._files.writer.execute("PRAGMA shrink_memory")  # the start has looked at every stream
        await spoil(path, pages(path) // 2, pages(path))
        log.move_cursor("cloud", 1_000)
        async with asyncio.timeout(10):
            frozen, *appended = await asyncio.gather(
                log.freeze(ATTEMPT), *(log.append([reading(log, seq)]) for seq in range(20_002, 20_102))
            )
            while not corrupt_files(tmp_path):
                # The newest pages were in SQLite's memory: a key far from them is not.
                await log.append([reading(log, seq) for seq in range(30_000, 40_000, 37)])
        assert not any(appended)
        await salvaged(log)
        assert log.uuid == uuid
        seqs = {one.body["seq"] for one in await log.read(0, limit=100_000)}
        assert seqs >= set(range(20_001, 20_102))
        (cursor,) = await log.cursors()
        assert cursor.attempt == (ATTEMPT if frozen else None)  # its rows may not have been back yet: read again
        assert cursor.position == 1_000
        assert await log.freeze(ATTEMPT)
        (cursor,) = await log.cursors()
        assert cursor.attempt == ATTEMPT
    assert len(told) == 2


async def test_a_reader_that_meets_damage_gets_its_answer_from_the_fresh_log(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    await fill(path, 20_000)
    async with opened(path) as log:
        await spoil(path, 40, 60)
        found: list[int] = []
        position = 0
        async with asyncio.timeout(20):
            while position < 20_000:
                await log.wait_beyond(position)
                for one in await log.read(position, until=min(log.last_row, 20_000), limit=500):
                    found.append(one.row)
                    position = one.row
        assert len(found) >= 20_000 - 20 * 8
        assert found == sorted(set(found))
        assert len(corrupt_files(tmp_path)) == 1


async def test_a_reader_skips_nothing_that_was_readable(tmp_path: Path) -> None:
    """It asked before the exchange, and is answered after it: the rows it asked for have to be back first."""
    path = tmp_path / "log.db"
    await fill(path, 20_000)
    async with opened(path) as log:
        until = log.last_row
        log.care.report("a test says so")
        readings = await log.read(0, until=until, limit=30_000)
        assert [one.row for one in readings] == list(range(1, 20_001))


async def test_a_second_damage_during_a_salvage_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    await fill(path, 30_000)
    async with opened(path) as log:
        log.care.report("the first time")
        await until_copying(log)
        await log.append([reading(log, 30_001)])
        assert log.salvages[0].frontier < 30_000
        log.care.report("the second time")
        await log.append([reading(log, 30_002)])
        await salvaged(log)
        readings = await log.read(0, limit=40_000)
        assert [one.body["seq"] for one in readings] == list(range(1, 30_003))
        assert [one.row for one in readings][:30_000] == list(range(1, 30_001))
    assert len(corrupt_files(tmp_path)) == 2


async def until_copying(log: Log) -> None:
    async with asyncio.timeout(10):
        while not (log.salvages and log.salvages[0].rescued):  # noqa: ASYNC110
            await asyncio.sleep(0.001)


async def test_only_the_last_salvaged_log_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    await fill(path, 100)
    async with opened(path) as log:
        for _ in range(3):
            log.care.report("a test says so")
            await salvaged(log)
        assert (await log.buffer()).readings == 100
    assert len(corrupt_files(tmp_path)) == 1


async def test_while_there_is_no_room_for_a_fresh_log_nothing_is_acknowledged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "log.db"
    await fill(path, 1_000)
    failures = 2

    def replace_log(*arguments: Any) -> None:
        nonlocal failures
        if failures:
            failures -= 1
            raise OSError(28, "No space left on device")
        exchange.replace_log(*arguments)

    monkeypatch.setattr("gateway.storage.log_files.replace_log", replace_log)
    monkeypatch.setattr("gateway.storage.repair.care._RETRY_S", 0.2)
    async with opened(path) as log:
        log.care.report("a test says so")
        with pytest.raises(StoreFailed, match="No space left"):
            await log.append([reading(log, 1_001)])
        async with asyncio.timeout(20):
            while log.care.is_damaged:
                assert "could not be repaired yet" in " ".join(log.care.notices) or failures == 2
                await asyncio.sleep(0.01)
        await log.append([reading(log, 1_002)])
        await salvaged(log)
        assert log.failure is None
        assert [one.body["seq"] for one in await log.read(998, limit=10)] == [999, 1_000, 1_002]


async def test_p7_nobody_else_may_read_the_log_nor_what_is_set_aside(tmp_path: Path) -> None:
    def modes() -> dict[str, int]:
        return {file.name: file.stat().st_mode & 0o777 for file in tmp_path.iterdir()}

    path = tmp_path / "log.db"
    mask = os.umask(0o022)
    try:
        await fill(path, 100)
        async with opened(path) as log:
            assert set(modes()) == {"log.db", "log.db-wal", "log.db-shm"}
            assert set(modes().values()) == {0o600}
            await log.copy_to(tmp_path / "copy.db", lambda _left, _total: True)
            log.care.report("a test says so")
            await salvaged(log)
            (wreck,) = corrupt_files(tmp_path)
            assert set(modes().values()) == {0o600}
        for file in (path, wreck):
            file.chmod(0o644)  # by an earlier release
        async with opened(path):
            assert set(modes().values()) == {0o600}
    finally:
        os.umask(mask)


async def test_a_lost_cursor_starts_at_the_oldest_row(tmp_path: Path) -> None:
    """Rather twice under one id than not at all."""
    path = tmp_path / "log.db"
    await fill(path, 100, cursor=50)
    with closing(sqlite3.connect(path)) as db:
        (root,) = db.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'cursors'").fetchone()
    await spoil(path, root - 1, root)
    async with opened(path) as log:
        assert log.salvages
        await salvaged(log)
    async with opened(path):
        pass  # whoever opens no cursors, as a command, does not know which there were
    async with opened(path) as log:
        assert (await log.open_cursor("cloud", start="now")).position == 0
        await log.all_cursors_opened()
    async with opened(path) as log:
        assert (await log.open_cursor("another", start="now")).position > 0


async def with_a_backlog(path: Path, long: str) -> int:
    """Leave a log in which a destination has got 20 of 50 old readings, and the newer ones up to row 70.

    Returns the page (from 0) without which the cursor `long` cannot be read, and all others can.
    """
    await fill(path, 100)
    async with opened(path) as log:
        await log.open_cursor("another", start="now")
        await log.open_cursor("cloud", start="oldest")
        await log.split_cursor("cloud", 50)
        log.move_cursor("cloud/backlog", 20)
        log.move_cursor("cloud", 70)
        await log.append([reading(log, 101)])
    with closing(sqlite3.connect(path)) as db:
        db.execute("UPDATE cursors SET chosen = ? WHERE name = ?", ("7" * 10_000, long))
        db.commit()
    content = await asyncio.to_thread(path.read_bytes)
    return next(at // PAGE for at in range(0, len(content), PAGE) if content[at + 4 : at + 104] == b"7" * 100)


@pytest.mark.parametrize(
    ("spoilt", "cursor", "backlog"),
    [("cloud/backlog", 70, (0, 70)), ("cloud", 50, (20, 50)), ("another", 70, (20, 50))],
)
async def test_one_lost_cursor_costs_its_destination_nothing(
    tmp_path: Path, spoilt: str, cursor: int, backlog: tuple[int, int]
) -> None:
    path = tmp_path / "log.db"
    page = await with_a_backlog(path, spoilt)
    await spoil(path, page, page + 1)
    async with opened(path) as log:
        for _ in range(2):  # as the gateway does, and then the forwarder
            assert (await log.open_cursor("cloud", start="now")).position == cursor
            found = await log.open_backlog("cloud")
            assert found is not None
            assert (found.position, found.until) == backlog
            another = await log.open_cursor("another", start="now")
            await log.all_cursors_opened()
        behind = await log.open_backlog("another")
        assert (behind.position if behind else another.position) == 0, "whose was lost cannot be told"
        await salvaged(log)
    assert len(corrupt_files(tmp_path)) == 1


async def test_damage_before_every_cursor_was_opened_loses_none(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    page = await with_a_backlog(path, "another")
    async with opened(path) as log:
        await log.open_cursor("cloud", start="now")
        await spoil(path, page, page + 1)
        log.care.report("a reader met damage")
        await log.append([reading(log, 102)])
        assert (await log.open_cursor("another", start="now")).position == 0
        await salvaged(log)


async def test_a_stream_that_is_lost_on_disk_is_interned_anew(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    await fill(path, 200)
    with closing(sqlite3.connect(path)) as db:
        roots = db.execute("SELECT rootpage FROM sqlite_schema WHERE tbl_name = 'streams'").fetchall()
    async with opened(path) as log:
        await log.append([reading(log, 201)])
        stream = log.stream("default", "board-001", "boot-1")
        assert stream.row is not None
        for suffix in ("", "-wal"):
            for (root,) in roots:
                await spoil(path if not suffix else path.with_name("log.db-wal"), root - 1, root)
        log.care.report("a test says so")
        await log.append([reading(log, 301), reading(log, 302)])
        await salvaged(log)
        readings = await log.read(0, limit=1_000)
        assert [(one.device_id, one.body["seq"]) for one in readings[-2:]] == [("board-001", 301), ("board-002", 302)]


async def test_p2_p3_a_destination_gets_all_in_order_and_once_across_an_exchange(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    await fill(path, 30_000)
    destination = Scripted(batch_max_readings=100)
    async with opened(path) as log:
        site = Site(log)
        forwarder = site.forwarder(destination)
        async with running(forwarder):
            await until(lambda: len(destination.accepted) > 3_000)
            before = len(destination.accepted)
            log.care.report("a test says so")
            await log.append([reading(log, seq) for seq in range(30_001, 30_011)])
            async with asyncio.timeout(60):
                while len(destination.accepted) < 30_010:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            await asyncio.sleep(0.2)
        print(f"{before:,} delivered before the exchange, {len(destination.accepted):,} in all")
    assert before < 30_000
    assert destination.accepted[:30_000] == list(range(1, 30_001))
    assert len(destination.accepted) == 30_010
    assert len(set(destination.ids)) == len(destination.ids)


async def test_p5_a_salvaged_file_counts_and_is_the_first_to_leave(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    await fill(path, 5_000)
    async with opened(path) as log:
        log.care.report("a test says so")
        await salvaged(log)
        (wreck,) = corrupt_files(tmp_path)
        settings, pages = StorageSettings(), Pages(PAGE, 100, 0)
        counted = Space(settings, tmp_path, set)
        spared = Space(settings, tmp_path, lambda: {wreck.name})
        assert spared.room_bytes(pages) - counted.room_bytes(pages) >= wreck.stat().st_size
        spared.drop_wrecks({"log.db.corrupt-20000101T000000Z"})
        assert wreck.exists()
        with pytest.MonkeyPatch.context() as full:
            full.setattr(Space, "room_bytes", lambda *_: 0)
            log.bounds.tick()
            async with asyncio.timeout(20):
                while wreck.exists():  # noqa: ASYNC110
                    await asyncio.sleep(0.01)


async def test_p5_a_salvage_waits_for_room_and_bounds_wait_for_an_exchange(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    await fill(path, 5_000)
    async with opened(path) as log:
        await log.open_cursor("cloud", start="oldest")
        with pytest.MonkeyPatch.context() as full:
            full.setattr(Bounds, "has_plenty", lambda *_: False)
            log.care.report("a test says so")
            log.bounds.tick()
            await log.append([reading(log, 5_001)])
            async with asyncio.timeout(20):
                while not any("room again" in notice for notice in log.care.notices):  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            assert log.salvages[0].rescued == 1_000, "what a reader waits for"
        await salvaged(log)
        assert [one.body["seq"] for one in await log.read(4_999, limit=9)] == [5_000, 5_001]


async def test_damage_found_while_the_check_runs_is_repaired_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A check takes minutes on a card; nothing is acknowledged until the log has been exchanged."""
    path = tmp_path / "log.db"
    await fill(path, 100)

    def slow_check(db: sqlite3.Connection) -> str:
        db.execute("WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT count(*) FROM c").fetchall()
        return ""

    monkeypatch.setattr("gateway.storage.repair.check.quick_check_now", slow_check)
    async with opened(path) as log:
        log.care.check()
        await asyncio.sleep(0.2)
        log.care.report("a commit met damage")
        async with asyncio.timeout(20):
            await log.append([reading(log, 101)])
        await salvaged(log)
        assert (await log.buffer()).readings == 101


async def test_the_check_gives_way_before_the_write_ahead_log_outgrows_its_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "log.db"
    await fill(path, 1_000)
    checks = 0

    def long_check(db: sqlite3.Connection) -> str:
        nonlocal checks
        checks += 1
        if checks == 1:
            db.execute("BEGIN")
            db.execute("SELECT count(*) FROM device_telemetry_history").fetchall()
            db.execute(
                "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT count(*) FROM c"
            ).fetchone()
        return ""

    monkeypatch.setattr("gateway.storage.repair.check.quick_check_now", long_check)
    monkeypatch.setattr("gateway.storage.repair.care._CHECK_AGAIN_S", 0.5)
    seq = 2_000
    async with opened(path) as log:
        log.care.check()
        async with asyncio.timeout(30):
            while log.care.notices:
                if checks < 2:
                    await log.append([reading(log, seq + number, size=4_000) for number in range(100)])
                    seq += 100
                await asyncio.sleep(0.01)
        wal = (tmp_path / "log.db-wal").stat().st_size
        assert checks == 2
        assert wal < 2 * WAL_BYTES
        space, used = log.bounds._space, log.bounds._pages
        before = space.room_bytes(used)
        with (tmp_path / "log.db-wal").open("r+b") as file:
            file.truncate(3 * WAL_BYTES)
        assert space.room_bytes(used) <= before - (3 * WAL_BYTES - max(wal, WAL_BYTES)), "its real size is counted"
        with (tmp_path / "log.db-wal").open("r+b") as file:
            file.truncate(wal)


async def test_p2_a_split_in_the_middle_of_an_exchange_gives_no_reading_twice(tmp_path: Path) -> None:
    await fill(tmp_path / "log.db", 200)
    async with opened(tmp_path / "log.db") as log:
        await log.open_cursor("cloud", start="oldest")
        log._damaged("a page that a reader met")
        with suppress(StoreFailed):  # the fresh log may have the backlog already
            await log.split_cursor("cloud", 150)
        await salvaged(log)
        cursor = await log.open_cursor("cloud", start="oldest")
        backlog = await log.open_backlog("cloud")
        assert backlog is None or (backlog.position, backlog.until, cursor.position) == (0, 150, 150)
        assert backlog is not None or cursor.position == 0

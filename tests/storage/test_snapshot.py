"""The log is copied while everything goes on."""

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager, closing
from pathlib import Path

import pytest

from gateway.clock import ManualClock
from gateway.config import StorageSettings
from gateway.metrics import Metrics
from gateway.model.errors import AlreadyExists, StoreFailed
from gateway.storage.commit_thread import CommitThread, Following, Progress, Statements, Transaction
from gateway.storage.erase import erase
from gateway.storage.log import Log
from gateway.storage.snapshot import snapshot
from gateway.storage.space import WAL_BYTES, Pages, Space
from gateway.storage.state import State
from tests.cloud_sync.samples import append
from tests.cloud_sync.site import open_site
from tests.site import running_site
from tests.storage.repair.damaged import PAGE, corrupt_files, no_room


def check(path: Path) -> list[int]:
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        return [seq for (seq,) in db.execute("SELECT seq FROM device_telemetry_history ORDER BY id")]


async def test_commits_go_on_between_its_steps_and_are_in_the_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commits = 0
    attempt = CommitThread._attempt

    def counted(thread: CommitThread, transaction: Transaction) -> Exception | None:
        nonlocal commits
        commits += 1
        return attempt(thread, transaction)

    async with open_site(tmp_path / "log.db") as site:
        for turn in range(20):
            await append(site.log, 2_500, first_seq=2_500 * turn)
        monkeypatch.setattr(CommitThread, "_attempt", counted)
        steps: list[tuple[int, int]] = []

        def progress(left: int, _total: int) -> bool:
            steps.append((left, commits))
            return True

        copying = asyncio.create_task(site.log.copy_to(tmp_path / "copy.db", progress))
        stored, wal = 50_000, 0
        while not copying.done():
            await append(site.log, 100, first_seq=stored)
            stored += 100
            wal = max(wal, (tmp_path / "log.db-wal").stat().st_size)
        await copying
        assert steps[-1][0] == 0
        assert steps[-1][1] - steps[0][1] >= len(steps) // 4, "commits were let through between the steps"
        assert wal < WAL_BYTES, "no read transaction kept it from being used again"
    copied = check(tmp_path / "copy.db")
    assert copied == list(range(len(copied)))
    assert len(copied) > 50_000
    assert check(tmp_path / "log.db") == list(range(stored))


async def test_it_goes_on_after_each_commit_however_much_waits(tmp_path: Path) -> None:
    """Else it would not get on while boards send without a pause."""
    async with open_site(tmp_path / "log.db") as site:
        for turn in range(3):
            await append(site.log, 2_500, first_seq=2_500 * turn)
        writer = site.log._files.writer
        commits = 0
        steps: list[int] = []

        def one_more() -> Following | None:
            nonlocal commits
            commits += 1
            return (Statements([]), lambda _error, _goes_on: None) if commits < 1_000 else None

        def progress(_left: int, _total: int) -> bool:
            steps.append(commits)
            one = one_more()
            assert one is not None
            writer.commit_on(one, one_more)
            return True

        await site.log.copy_to(tmp_path / "copy.db", progress)
    assert len(steps) > 2
    assert steps == list(range(len(steps)))


async def test_an_erasure_meanwhile_is_carried_into_the_copy(tmp_path: Path) -> None:
    async with open_site(tmp_path / "log.db") as site:
        for turn in range(12):
            await append(site.log, 2_500, first_seq=2_500 * turn)
        copying = asyncio.create_task(site.log.copy_to(tmp_path / "copy.db", lambda _left, _total: True))
        async for _ in erase(site.log, "default", "esp32-kitchen"):
            pass
        await copying
    copied = check(tmp_path / "copy.db")
    assert copied == sorted(copied)


def slowly(_left: int, _total: int) -> bool:
    time.sleep(0.1)
    return True


async def test_a_log_that_is_closed_does_not_wait_for_its_copy(tmp_path: Path) -> None:
    async with open_site(tmp_path / "log.db") as site:
        await append(site.log, 5_000)
        await append(site.log, 5_000, first_seq=5_000)
        copying = asyncio.create_task(site.log.copy_to(tmp_path / "copy.db", slowly))
        await asyncio.sleep(0)
    with pytest.raises(StoreFailed):
        await copying


@asynccontextmanager
async def stored(folder: Path, readings: int) -> AsyncIterator[tuple[Log, State]]:
    async with (
        open_site(folder / "log.db") as site,
        State.open(folder / "state.db", b"k" * 32, clock=ManualClock(), tell=lambda _: None) as state,
    ):
        await state.add_device("default", "kitchen")
        await append(site.log, readings)
        yield site.log, state


def spoil(path: Path, page: int) -> None:
    with path.open("r+b") as file:
        file.seek(page * PAGE)
        file.write(b"?" * PAGE)


async def take(log: Log, state: State, folder: Path) -> None:
    async with aclosing(snapshot(log, state, folder, 0)) as steps:
        async for _ in steps:
            pass


async def test_a_damaged_page_is_told_of_now_and_not_when_the_backup_is_needed(tmp_path: Path) -> None:
    async with stored(tmp_path, 2_500):
        pass
    path = tmp_path / "log.db"
    spoil(path, path.stat().st_size // PAGE // 2)
    async with (
        Log.create(path, StorageSettings(), clock=ManualClock(), metrics=Metrics(), tell=lambda _: None) as log,
        State.open(tmp_path / "state.db", b"k" * 32, clock=ManualClock()) as state,
    ):
        assert not log.salvages, "nothing has met the damage yet"
        with pytest.raises(StoreFailed, match=r"The copy of log\.db is damaged .*"):
            await take(log, state, tmp_path)
        assert not (tmp_path / "snapshot").exists()
        await until_repaired(log)
        await take(log, state, tmp_path)
        assert (await log.buffer()).readings >= 2_480


async def until_repaired(log: Log) -> None:
    async with asyncio.timeout(20):
        while not corrupt_files(log.folder) or log.care.is_damaged or log.salvages:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_a_damaged_copy_of_the_state_is_told_of_and_the_state_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with stored(tmp_path, 10) as (log, state):
        copy_to, looks = State.copy_to, 0

        async def spoilt(state: State, path: Path) -> None:
            await copy_to(state, path)
            spoil(path, 1)

        async def copy(_: State) -> None:
            nonlocal looks
            looks += 1

        monkeypatch.setattr(State, "copy_to", spoilt)
        monkeypatch.setattr(State, "copy", copy)
        with pytest.raises(StoreFailed, match=r"The copy of state\.db is damaged"):
            await take(log, state, tmp_path)
        assert looks == 1
        assert not log.care._check


async def test_a_log_that_is_exchanged_meanwhile_is_not_copied_without_its_readings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Log, "_has_room", no_room)  # so that the salvage waits
    async with stored(tmp_path, 100) as (log, state):
        copy_to = Log.copy_to

        async def meets_damage(log: Log, path: Path, progress: Progress) -> None:
            log.care.report("a test says so")
            await copy_to(log, path, progress)

        monkeypatch.setattr(Log, "copy_to", meets_damage)
        with pytest.raises(StoreFailed, match="still being salvaged"):
            await take(log, state, tmp_path)


async def test_what_a_killed_process_left_goes_with_an_erasure_or_a_start_but_not_what_is_in_use(
    tmp_path: Path,
) -> None:
    left = tmp_path / "snapshot"
    async with (
        open_site(tmp_path / "log.db") as site,
        State.open(tmp_path / "state.db", b"k" * 32, clock=ManualClock()) as state,
    ):
        await append(site.log, 10)
        left.mkdir()
        (left / "log.db").write_bytes(b"left by a killed process")
        async for _ in erase(site.log, "default", "another-board"):
            pass
        assert not left.exists()
        async with aclosing(snapshot(site.log, state, tmp_path, 0)) as steps:
            while (await anext(steps)).folder is None:
                pass
            async for _ in erase(site.log, "default", "another-board"):
                pass
            assert len(check(left / "log.db")) == 10
    (tmp_path / "data" / "snapshot").mkdir(parents=True)
    (tmp_path / "data" / "snapshot" / "log.db").write_bytes(b"left by a killed process")
    async with running_site(tmp_path / "data"):
        assert not (tmp_path / "data" / "snapshot").exists()


def test_p5_a_copy_pushes_no_reading_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Space, "disk_free_bytes", lambda _: 2**50)
    space, pages = Space(StorageSettings(), tmp_path, set), Pages(4096, 100, 0)
    before = space.room_bytes(pages)
    (tmp_path / "snapshot").mkdir()
    (tmp_path / "snapshot" / "log.db").write_bytes(bytes(10_000_000))
    assert space.room_bytes(pages) == before


async def test_one_at_a_time_only_with_room_and_gone_afterwards(tmp_path: Path) -> None:
    async with (
        open_site(tmp_path / "log.db") as site,
        State.open(tmp_path / "state.db", b"k" * 32, clock=ManualClock()) as state,
    ):
        await append(site.log, 10)
        (tmp_path / "snapshot").mkdir()
        (tmp_path / "snapshot" / "log.db").write_bytes(b"left by a killed process")
        async with aclosing(snapshot(site.log, state, tmp_path, 0)) as steps:
            done = await anext(steps)
            while done.folder is None:
                done = await anext(steps)
            assert len(check(Path(done.folder) / "log.db")) == 10
            with pytest.raises(AlreadyExists):
                await anext(snapshot(site.log, state, tmp_path, 0))
            assert (Path(done.folder) / "state.db").exists()
        assert not (tmp_path / "snapshot").exists()
        with pytest.raises(StoreFailed, match="no room"):
            await anext(snapshot(site.log, state, tmp_path, 2**62))
        assert not (tmp_path / "snapshot").exists()

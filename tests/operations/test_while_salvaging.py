"""What must see or touch every reading waits until a damaged log has been salvaged."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.cli.gateway_link import connect
from gateway.config import Settings
from gateway.model.errors import StoreFailed
from gateway.operations.backup import take_snapshot
from gateway.operations.erase import erase_device
from gateway.operations.export import export_readings
from gateway.storage.erase import erase
from gateway.storage.log import Log
from gateway.storage.log_files import LogFiles, LogStart
from tests.storage.repair.damaged import corrupt_files, fill, no_room, opened, salvaged

UNFINISHED = """INSERT INTO salvages (file, reason, found_at_ms, floor, frontier, rescued, finished)
    VALUES ('log.db.corrupt-20261121T000000Z', 'a test says so', 0, 0, 0, 0, 0)"""


@pytest.mark.parametrize(
    ("operation", "parameters"),
    [
        (export_readings, {"devices": [], "from_ms": None, "to_ms": None, "after_id": None}),
        (erase_device, {"organization_id": "default", "device_id": "board-001"}),
        (take_snapshot, {}),
    ],
)
async def test_an_operation_that_would_miss_readings_says_so(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    operation: Callable[..., AsyncGenerator[Any, None]],
    parameters: dict[str, Any],
) -> None:
    monkeypatch.setattr(Log, "_has_room", no_room)  # so that the salvage waits
    await fill(tmp_path / "log.db", 10)
    async with opened(tmp_path / "log.db") as log:
        await log._execute((UNFINISHED, [()]))
    async with connect(Settings.model_validate({"gateway": {"data_dir": tmp_path}})) as link:
        with pytest.raises(StoreFailed, match="still being salvaged"):
            async for _ in link.stream(operation, **parameters):
                pass


async def test_p1_nothing_removes_a_damaged_log_before_the_fresh_one_tells_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It holds the only copy of the readings; opening the fresh one may take a while, or fail and be tried again."""
    await fill(tmp_path / "log.db", 1_000)
    opening, reopen = asyncio.Event(), LogFiles.open

    async def late(files: LogFiles) -> LogStart:
        await opening.wait()
        return await reopen(files)

    async with opened(tmp_path / "log.db") as log:
        monkeypatch.setattr(LogFiles, "open", late)
        log.care.report("a test says so")
        async with asyncio.timeout(20):
            while not corrupt_files(tmp_path):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert not log.bounds.drop_wrecks()
        assert corrupt_files(tmp_path)
        opening.set()
        await salvaged(log)
        assert (await log.buffer()).readings == 1_000
        assert log.bounds.drop_wrecks()
        assert not corrupt_files(tmp_path)


async def test_an_erasure_does_not_end_well_while_what_it_erased_may_come_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill(tmp_path / "log.db", 1_000)
    monkeypatch.setattr(Log, "_has_room", no_room)  # so that the salvage waits
    async with opened(tmp_path / "log.db") as log:

        async def meets_damage(_: Log) -> None:
            log.care.report("a test says so")

        monkeypatch.setattr("gateway.storage.erase._empty_wal", meets_damage)
        with pytest.raises(StoreFailed, match="still being salvaged"):
            async for _ in erase(log, "default", "board-001"):
                pass
        assert corrupt_files(tmp_path)


async def test_what_is_erased_is_in_no_damaged_log_either(tmp_path: Path) -> None:
    await fill(tmp_path / "log.db", 1_000)
    async with opened(tmp_path / "log.db") as log:
        log.care.report("a test says so")
        await salvaged(log)
        assert corrupt_files(tmp_path)
        steps = [step async for step in erase(log, "default", "board-001")]
        assert steps[-1].readings == 10
        assert not corrupt_files(tmp_path)
        assert len(await log.read(0, limit=2_000)) == 990

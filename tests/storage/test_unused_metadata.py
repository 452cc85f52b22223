"""Texts of device metadata leave with the last reading that uses them, and no other does."""

from pathlib import Path

from gateway.clock import ManualClock
from gateway.config import StorageSettings
from gateway.metrics import Metrics
from gateway.model.reading import NewReading, TimeSource
from gateway.storage.log import Log
from gateway.storage.reclaim import Reclaim
from gateway.storage.unused_metadata import DropUnusedMetadata
from tests.site import until
from tests.storage.repair.damaged import fill, opened, salvaged, survivors

HALL, ATTIC = '{"room":"hall"}', '{"room":"attic"}'


def reading(log: Log, seq: int, metadata: str) -> NewReading:
    stream = log.stream("default", "board", "boot-1")
    return NewReading(stream, seq, seq, TimeSource.DEVICE, seq, 0, b'{"sensors":{}}', None, metadata)


async def rooms(log: Log) -> list[object]:
    return [one.device_metadata["room"] for one in await log.read(0, limit=100)]


async def texts(log: Log) -> set[str]:
    return {text for (text,) in await log.fetch("SELECT json FROM device_metadata")}


async def sweep(log: Log) -> bool:
    """Take one step; returns whether it was the last."""
    step = DropUnusedMetadata(log.bounds.interned_metadata)
    await log.transact(step)
    return step.is_done


async def drop_oldest(log: Log, rows: int) -> None:
    step = Reclaim({}, rows, may_lose=False, now_ms=0)
    await log.transact(step)
    assert step.deleted == rows


async def test_a_text_leaves_with_the_last_row_that_uses_it(tmp_path: Path) -> None:
    async with opened(tmp_path / "log.db") as log:
        await log.append([reading(log, 1, HALL), reading(log, 2, ATTIC)])
        assert await sweep(log)
        await log.append([reading(log, 3, HALL)])
        assert await texts(log) == {HALL, ATTIC}
        await drop_oldest(log, 1)
        await sweep(log)
        assert await texts(log) == {HALL, ATTIC}
        await drop_oldest(log, 1)
        await sweep(log)
        assert (await texts(log), await rooms(log)) == ({HALL}, ["hall"])
        await log.append([reading(log, 4, ATTIC), reading(log, 5, HALL)])
        assert await rooms(log) == ["hall", "attic", "hall"]
        await drop_oldest(log, 3)
        await sweep(log)
        assert await texts(log) == set()
        await log.append([reading(log, 6, HALL)])
        assert await rooms(log) == ["hall"]


async def test_a_text_that_is_used_again_outlives_the_rows_it_had_before(tmp_path: Path) -> None:
    for seq in (1, 2):  # what is known in memory is gone after a restart
        async with opened(tmp_path / "log.db") as log:
            await log.append([reading(log, seq, HALL)])
            await sweep(log)
    async with opened(tmp_path / "log.db") as log:
        await log.append([reading(log, 3, HALL), reading(log, 4, ATTIC)])
        await drop_oldest(log, 2)
        await sweep(log)
        assert await rooms(log) == ["hall", "attic"]


async def test_a_step_is_bounded_and_the_next_tick_takes_the_next(tmp_path: Path) -> None:
    clock = ManualClock()
    async with Log.create(tmp_path / "log.db", StorageSettings(), clock=clock, metrics=Metrics()) as log:
        await log.append([reading(log, seq, f'{{"room":{seq}}}') for seq in range(1, 2_501)])
        log.bounds.tick()  # after the start
        await drop_oldest(log, 2_500)
        log.bounds.tick()
        await log.append([reading(log, 2_501, HALL)])
        assert len(await texts(log)) == 2_501, "once a day"
        clock.advance(24 * 3_600_000)
        log.bounds.tick()
        await log.append([reading(log, 2_502, HALL)])
        assert len(await texts(log)) == 501
        await until(lambda: log.bounds._metadata_due_ms <= clock.monotonic_ms(), "more may leave")
        log.bounds.tick()
        await log.append([reading(log, 2_503, HALL)])
        assert await texts(log) == {HALL}
        assert await rooms(log) == ["hall"] * 3


async def test_nothing_is_missing_that_a_salvage_brings_back(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    await fill(path, 20_000)
    async with opened(path) as log:
        await sweep(log)
        log.care.report("a test says so")
        await until(lambda: any(one.rescued for one in log.salvages), "something to be back")
        await sweep(log)
        await log.append([reading(log, 1, HALL)])
        while log.salvages:
            await sweep(log)
        await salvaged(log)
        await drop_oldest(log, 15_000)
        await sweep(log)
        assert (await log.read(20_000, limit=9))[0].device_metadata == {"room": "hall"}
    assert survivors(path) == (5_000, 1)

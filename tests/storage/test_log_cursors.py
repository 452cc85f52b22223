"""Where readers of the log stand, and what they are sending, is on disk when it is said to be."""

import asyncio
import time
from pathlib import Path

import pytest

from gateway.model.errors import StoreFailed
from gateway.storage.log import Log
from tests.site import FailingDisk, until
from tests.storage.small_log import Commits, attempt, new, opened, positions, query


async def test_a_cursor_starts_now_or_at_the_oldest_row(log: Log) -> None:
    await log.append([new(log, 1), new(log, 2)])
    assert (await log.open_cursor("late", start="now")).position == 2
    assert (await log.open_cursor("all", start="oldest")).position == 0
    await log.append([new(log, 3)])
    assert (await log.open_cursor("late", start="now")).position == 2


async def test_a_move_rides_along_with_the_next_commit(log: Log, tmp_path: Path, commits: Commits) -> None:
    await log.open_cursor("cloud", start="oldest")
    await log.append([new(log, 1), new(log, 2)])
    log.move_cursor("cloud", 1)
    log.move_cursor("cloud", 2)
    assert positions(tmp_path) == {"cloud": 0}
    await log.append([new(log, 3)])
    assert positions(tmp_path) == {"cloud": 2}
    assert commits.sizes == [2, 1]


async def test_a_move_that_nothing_takes_along_goes_alone_within_about_a_second(log: Log, tmp_path: Path) -> None:
    await log.open_cursor("cloud", start="oldest")
    await log.append([new(log, 1)])
    started = time.monotonic()
    log.move_cursor("cloud", 1)
    await until(lambda: positions(tmp_path) == {"cloud": 1}, "the move on disk")
    assert time.monotonic() - started < 5


async def test_a_move_survives_reopening(tmp_path: Path) -> None:
    async with opened(tmp_path) as log:
        await log.open_cursor("cloud", start="oldest")
        await log.append([new(log, 1)])
        log.move_cursor("cloud", 1)
    async with opened(tmp_path) as log:
        assert (await log.open_cursor("cloud", start="oldest")).position == 1


async def test_a_move_is_not_lost_by_a_failed_commit_nor_does_it_go_back(
    log: Log, tmp_path: Path, disk: FailingDisk
) -> None:
    await log.open_cursor("cloud", start="oldest")
    await log.append([new(log, seq) for seq in range(3)])
    disk.failing = True
    log.move_cursor("cloud", 1)
    failing = asyncio.create_task(log.append([new(log, 3)]))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    log.move_cursor("cloud", 2)  # while the commit with the first move is failing
    with pytest.raises(StoreFailed):
        await failing
    assert positions(tmp_path) == {"cloud": 0}
    disk.failing = False
    await log.append([new(log, 4)])
    assert positions(tmp_path) == {"cloud": 2}


async def test_a_move_that_failed_alone_is_tried_again(
    log: Log, tmp_path: Path, disk: FailingDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.storage.group_commit._MOVE_FLUSH_S", 0.02)
    await log.open_cursor("cloud", start="oldest")
    disk.failing = True
    log.move_cursor("cloud", 1)
    await until(lambda: disk.failed >= 2, "a second attempt")
    disk.failing = False
    await until(lambda: positions(tmp_path) == {"cloud": 1}, "the move on disk")


async def test_a_cursor_opened_again_is_where_its_reader_was_whatever_is_on_disk(log: Log, tmp_path: Path) -> None:
    """A crashed reader starts again within the gateway: it must not deliver twice."""
    await log.append([new(log, seq) for seq in range(4)])
    await log.open_cursor("cloud", start="oldest")
    await log.freeze(attempt("cloud", 0, 2))
    assert (await log.open_cursor("cloud", start="oldest")).attempt == attempt("cloud", 0, 2)
    log.move_cursor("cloud", 2)
    assert positions(tmp_path) == {"cloud": 0}
    again = await log.open_cursor("cloud", start="oldest")
    assert (again.position, again.attempt) == (2, None)


async def test_a_move_that_waits_while_a_cursor_is_split_does_not_take_it_back(log: Log, tmp_path: Path) -> None:
    await log.append([new(log, seq) for seq in range(3)])
    await log.open_cursor("cloud", start="oldest")
    log.move_cursor("cloud", 1)
    await log.split_cursor("cloud", 3)
    await log.append([new(log, 3)])
    assert positions(tmp_path) == {"cloud": 3, "cloud/backlog": 1}


async def test_a_dropped_cursor_starts_anew(log: Log, tmp_path: Path) -> None:
    await log.append([new(log, 1), new(log, 2)])
    await log.open_cursor("cloud", start="oldest")
    log.move_cursor("cloud", 2)
    await log.drop_cursor("cloud")
    assert positions(tmp_path) == {}
    for _ in range(2):
        assert (await log.open_cursor("cloud", start="oldest")).position == 0
    await log.append([new(log, 3)])
    assert positions(tmp_path) == {"cloud": 0}


async def test_a_dropped_cursor_does_not_come_back_with_the_move_of_a_commit_that_fails(
    log: Log, tmp_path: Path
) -> None:
    await log.append([new(log, 1), new(log, 2)])
    await log.open_cursor("cloud", start="oldest")
    log.move_cursor("cloud", 2)
    log.submit(new(log, 2**63), None)
    log._commit()
    await log.drop_cursor("cloud")
    assert (await log.open_cursor("cloud", start="oldest")).position == 0
    await log.append([new(log, 3)])
    assert positions(tmp_path) == {"cloud": 0}


async def test_a_cursor_that_cannot_be_written_is_no_cursor(log: Log, disk: FailingDisk) -> None:
    disk.failing = True
    with pytest.raises(StoreFailed):
        await log.open_cursor("cloud", start="oldest")
    disk.failing = False
    assert await log.cursors() == []
    await log.append([new(log, 1)])
    assert (await log.open_cursor("cloud", start="now")).position == 1


# Freezing


async def test_p2_an_attempt_is_on_disk_when_freeze_returns_and_survives_reopening(tmp_path: Path) -> None:
    async with opened(tmp_path) as log:
        await log.append([new(log, seq) for seq in range(4)])
        await log.open_cursor("cloud", start="oldest")
        await log.freeze(attempt("cloud", 0, 3))
        assert query(tmp_path, "SELECT batch_id, after_row, last_row FROM cursors") == [("batch-3", 0, 3)]
    async with opened(tmp_path) as log:
        (cursor,) = await log.cursors()
        assert (cursor.position, cursor.attempt) == (0, attempt("cloud", 0, 3))


async def test_p2_a_freeze_belongs_to_the_position_after_the_move_before_it(log: Log) -> None:
    await log.append([new(log, seq) for seq in range(4)])
    for name in ("cloud", "other"):
        await log.open_cursor(name, start="oldest")
        await log.freeze(attempt(name, 0, 2))
    log.move_cursor("cloud", 2)
    await log.freeze(attempt("cloud", 2, 4))
    cloud, other = await log.cursors()
    assert (cloud.position, cloud.attempt) == (2, attempt("cloud", 2, 4))
    assert (other.position, other.attempt) == (0, attempt("other", 0, 2))


async def test_a_freeze_that_is_not_on_disk_raises_and_can_be_repeated(log: Log, disk: FailingDisk) -> None:
    await log.open_cursor("cloud", start="oldest")
    await log.append([new(log, 1)])
    disk.failing = True
    with pytest.raises(StoreFailed):
        await log.freeze(attempt("cloud", 0, 1))
    disk.failing = False
    (cursor,) = await log.cursors()
    assert cursor.attempt is None
    await log.freeze(attempt("cloud", 0, 1))
    (cursor,) = await log.cursors()
    assert cursor.attempt == attempt("cloud", 0, 1)

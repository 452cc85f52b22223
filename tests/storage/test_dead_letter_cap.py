"""Dead letters stay below their cap; the oldest leave in the commit that adds one, and each is counted."""

import logging
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest

from gateway.clock import ManualClock
from gateway.config import StorageSettings
from gateway.metrics import Metrics
from gateway.model.errors import StoreFailed
from gateway.model.reading import NewReading, TimeSource
from gateway.model.status import Loss
from gateway.storage.dead_letter_cap import _OLDEST, size_sql
from gateway.storage.dead_letters import FrozenReplay
from gateway.storage.erase import erase
from gateway.storage.log import Log
from tests.site import FailingDisk

REASON = "HTTP 422"
BODY = {"note": "x" * 689}
LETTER_BYTES = 700 + len(REASON) + 300
"""What each dead letter of these tests takes."""


class Store:
    """A log with a cap, and what was counted."""

    def __init__(self, log: Log, path: Path, metrics: Metrics) -> None:
        self.log = log
        self.path = path
        self._metrics = metrics

    async def fill(self, count: int) -> None:
        stream = self.log.stream("default", "kitchen", "b1")
        first = self.log.last_row
        payload = b'{"note":"%b"}' % (b"x" * 689)
        seqs = range(first, first + count)
        await self.log.append([NewReading(stream, seq, 0, TimeSource.DEVICE, 0, 0, payload) for seq in seqs])

    async def refuse(self, row: int, destination: str = "cloud", *, provisional: bool = False) -> None:
        """Set a row aside, and unless it stays provisional let the cursor pass it."""
        (reading,) = await self.log.read(row - 1, limit=1)
        await self.log.dead_letters.set_aside(destination, reading, REASON, 0)
        if not provisional:
            self.log.move_cursor(destination, row)
            self.log._flush_moves()
            await self.log._idle.wait()

    async def kept(self, destination: str = "cloud") -> list[int]:
        return [letter.reading.row for letter in await self.log.dead_letters.letters(destination)]

    def dropped(self, destination: str = "cloud") -> float:
        labels = {"destination": destination, "reason": "dead_letters_full"}
        return self._metrics.registry.get_sample_value("neurogate_events_dropped_total", labels) or 0

    def ask(self, sql: str) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(self.path)) as db:
            return db.execute(sql).fetchall()

    def check_size(self) -> None:
        """The size that is kept must be that of the letters that are there."""
        counted = f"SELECT coalesce(sum({size_sql('d')}), 0) FROM dead_letters d"
        assert self.ask("SELECT bytes FROM dead_letters_kept") == self.ask(counted)


@asynccontextmanager
async def opened(path: Path, *, letters: int) -> AsyncIterator[Store]:
    settings = StorageSettings(dead_letters_max_bytes=letters * LETTER_BYTES, retention_days=0)
    metrics = Metrics()
    async with Log.create(path, settings, clock=ManualClock(), metrics=metrics) as log:
        for name in ("cloud", "archive"):
            log.bounds.readers[name] = 0
            await log.open_cursor(name, start="oldest")
        yield Store(log, path, metrics)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    """A log with room for five dead letters, and twenty readings to refuse."""
    async with opened(tmp_path / "log.db", letters=5) as store:
        await store.fill(20)
        yield store
        store.check_size()


async def test_p5_the_oldest_leave_and_every_one_is_counted(store: Store) -> None:
    for row in range(1, 13):
        await store.refuse(row)
        assert store.ask(f"SELECT bytes <= 5 * {LETTER_BYTES} FROM dead_letters_kept") == [(1,)]
    assert await store.kept() == [8, 9, 10, 11, 12]
    loss = await store.log.dead_letters.loss("cloud")
    assert loss == Loss(readings=7, first_row=1, last_row=7, since_ms=ManualClock().now)
    assert store.dropped() == 7


async def test_p5_what_just_fits_stays(store: Store) -> None:
    for row in range(1, 6):
        await store.refuse(row)
    assert await store.kept() == [1, 2, 3, 4, 5]
    assert await store.log.dead_letters.loss("cloud") is None


async def test_p5_losses_are_counted_for_whoever_had_refused_them(store: Store) -> None:
    for row in range(1, 5):
        await store.refuse(row, "archive")
    for row in range(1, 9):
        await store.refuse(row)
    assert (await store.kept("archive"), await store.kept()) == ([], [4, 5, 6, 7, 8])
    assert (store.dropped("archive"), store.dropped()) == (4, 3)
    losses = store.ask("SELECT destination, readings, first_row, last_row FROM dead_letter_losses")
    assert losses == [("archive", 4, 1, 4), ("cloud", 3, 1, 3)]


async def test_p5_it_leaves_in_the_commit_that_adds_one(store: Store, disk: FailingDisk) -> None:
    for row in range(1, 6):
        await store.refuse(row)
    disk.failing = True
    with pytest.raises(StoreFailed):
        await store.refuse(6)
    disk.failing = False
    assert await store.kept() == [1, 2, 3, 4, 5]
    assert (store.dropped(), await store.log.dead_letters.loss("cloud")) == (0, None)


async def test_p5_a_provisional_one_never_leaves(store: Store) -> None:
    await store.refuse(1, provisional=True)
    for row in range(1, 9):
        await store.refuse(row, "archive")
    assert (await store.kept(), await store.kept("archive")) == ([1], [5, 6, 7, 8])


async def test_p5_one_that_is_being_replayed_never_leaves(store: Store) -> None:
    for row in (1, 2):
        await store.refuse(row)
    letters = store.log.dead_letters
    await letters.request_replay([("cloud", 1), ("cloud", 2)])
    readings = await letters.requested("cloud", until=99, limit=9, max_bytes=9_999)
    await letters.freeze_replay("cloud", FrozenReplay("msg_1", "00", readings))
    for row in range(3, 13):
        await store.refuse(row)
    assert await store.kept() == [1, 2, 10, 11, 12]
    await letters.replayed("cloud", "msg_1", [1, 2])
    assert await letters.loss("cloud") == Loss(7, 3, 9, ManualClock().now)


async def test_p5_one_whose_replay_is_requested_leaves_last_but_it_does_leave(store: Store) -> None:
    for row in (1, 2, 3):
        await store.refuse(row, "archive")
    await store.log.dead_letters.request_replay([("archive", 1), ("archive", 2), ("archive", 3)])
    for row in range(1, 6):
        await store.refuse(row)
    assert (await store.kept("archive"), await store.kept()) == ([1, 2, 3], [4, 5])
    for row in range(6, 10):
        await store.refuse(row, provisional=True)  # these cannot leave
    assert (await store.kept("archive"), await store.kept()) == ([3], [6, 7, 8, 9])


async def test_p5_the_size_is_right_whatever_happens_to_a_letter(store: Store) -> None:
    letters = store.log.dead_letters
    for row in range(1, 6):
        await store.refuse(row)
    await store.refuse(6, provisional=True)
    store.check_size()
    await letters.withdraw("cloud")
    store.check_size()
    await letters.drop([("cloud", 2)])
    store.check_size()
    await letters.request_replay([("cloud", 3)])
    readings = await letters.requested("cloud", until=99, limit=1, max_bytes=1)
    await letters.freeze_replay("cloud", FrozenReplay("msg_1", "00", readings))
    await letters.refused_again("cloud", "msg_1", "for quite another reason, with an é", 0)
    store.check_size()
    await store.refuse(4)  # by a reader that has begun anew
    store.check_size()
    assert await store.kept() == [3, 4, 5]
    async for _ in erase(store.log, "default", "kitchen"):
        pass
    assert store.ask("SELECT bytes FROM dead_letters_kept") == [(0,)]


async def test_p5_a_cap_that_was_lowered_holds_after_the_next_start(tmp_path: Path) -> None:
    async with opened(tmp_path / "log.db", letters=8) as store:
        await store.fill(8)
        for row in range(1, 9):
            await store.refuse(row)
    async with opened(tmp_path / "log.db", letters=3) as store:
        store.log.bounds.tick()
        await store.fill(1)  # goes through the same thread, after it
        assert await store.kept() == [6, 7, 8]
        assert store.dropped() == 5


async def test_p5_a_flood_of_losses_is_not_a_flood_of_different_lines(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    for row in range(1, 11):
        await store.refuse(row)
        await store.refuse(row, "archive")
    lines = {(one.name, one.msg) for one in caplog.records if one.levelno == logging.WARNING and "dead" in one.message}
    assert len(lines) == 2, "equal lines, one for each destination: the repeat filter counts the others"


async def test_p5_the_cap_costs_no_scan(store: Store) -> None:
    plan = store.ask(f"EXPLAIN QUERY PLAN {_OLDEST.format(size=size_sql('dead_letters')).replace('?', '1')}")
    assert [words for *_, words in plan] == ["SCAN dead_letters USING INDEX dead_letters_may_leave"]

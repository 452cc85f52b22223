"""The log between its model and a disk, a clock and room of ours: waits until it has done all, and compares.

What is done with it is up to `log_under_test.py`.
"""

import asyncio
import contextlib
import json
import sqlite3
import sys
import tempfile
from collections.abc import Coroutine
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, cast

import pytest
from hypothesis.stateful import RuleBasedStateMachine

from gateway.clock import ManualClock
from gateway.config import StorageSettings
from gateway.metrics import Metrics
from gateway.model.errors import StoreFailed, StoreFull
from gateway.model.reading import NewReading
from gateway.storage import append as append_module
from gateway.storage import bounds as bounds_module
from gateway.storage import group_commit as group_commit_module
from gateway.storage import log as log_module
from gateway.storage import reclaim as reclaim_module
from gateway.storage import space as space_module
from gateway.storage import unused_metadata as unused_metadata_module
from gateway.storage import waiting as waiting_module
from gateway.storage.log import Log
from gateway.storage.space import Pages
from tests.storage.log_model import (
    DEDUPE_WINDOW_MS,
    HIGH_WATER_ROWS,
    LOW_WATER_ROWS,
    Entry,
    Frozen,
    LogModel,
)
from tests.storage.tampered_disk import Disk

T = TypeVar("T")

COUNTED = space_module.LOW_WATER_BYTES // LOW_WATER_ROWS
"""A row counts for a page of this size, so that few rows fill the store; SQLite's own pages are powers of two."""
_PATIENCE_S = 20.0
_MEMORY = Path("/dev/shm")  # what a power cut leaves is our own doing, so no disk need be waited for


@dataclass(slots=True)
class Sent:
    """A message on its way into the log."""

    entries: list[Entry]
    was_full: bool
    task: asyncio.Task[None]


@dataclass(slots=True)
class Freezing:
    """An attempt on its way to the disk."""

    frozen: Frozen
    task: asyncio.Task[bool]


class LogAtRest(RuleBasedStateMachine):
    """One log, over all its restarts; its disk, its clock and the room it has are ours."""

    model: LogModel
    log: Log
    disk: Disk
    folder: Path
    settings: StorageSettings

    def __init__(self) -> None:
        super().__init__()
        self.patches = pytest.MonkeyPatch()
        self.tmp = tempfile.TemporaryDirectory(dir=_MEMORY if _MEMORY.exists() else None)
        self.folders = iter(range(sys.maxsize))
        self.runner = asyncio.Runner()
        self.stack = contextlib.AsyncExitStack()
        self.clock = ManualClock(synced=False)
        self.complaints: list[str] = []
        self.hangs = False
        self.sent: list[Sent] = []
        self.freezing: dict[str, Freezing] = {}
        self.dropping: list[asyncio.Task[Any]] = []
        self.given_up: set[str] = set()
        """Attempts that were acknowledged, or whose reader is gone."""
        self.ever: list[NewReading] = []
        self.number = 0
        self.faults = 0

    def teardown(self) -> None:
        self.disk.go_on()
        with contextlib.suppress(TimeoutError, StoreFailed):
            self._run(self._abandon())
        self.runner.close()
        self.patches.undo()
        self.tmp.cleanup()

    def _patch(self) -> None:
        patch = self.patches.setattr
        patch(group_commit_module, "_MOVE_FLUSH_S", 3600.0)  # a second passes when we say so
        patch(waiting_module, "_COMMIT_BYTES", 60)
        patch(log_module, "WAL_PAGES", 12)
        patch(group_commit_module, "_METADATA_IN_MEMORY", 1)
        patch(group_commit_module, "_STREAMS_IN_MEMORY", 2)
        patch(bounds_module, "_LARGEST_SHARE", 0)  # as `_count_rows` counts
        patch(bounds_module, "_LARGEST_ROW_BYTES", COUNTED)
        patch(bounds_module, "_ROWS_PER_STEP", 2)
        patch(bounds_module, "_ROWS_PER_STEP_AT_MOST", 3)
        patch(space_module, "BALLAST_BYTES", 4096)
        patch(append_module, "read_pages", _count_rows)
        patch(reclaim_module, "read_pages", _count_rows)
        patch(unused_metadata_module, "read_pages", _count_rows)
        patch(space_module.Space, "room_bytes", lambda _, pages: self.model.capacity * COUNTED - pages.live_bytes)
        patch(bounds_module, "_SHRINK_FROM_BYTES", 0)
        connect = log_module._connect

        def tamper(path: Path, settings: StorageSettings) -> Disk:
            return Disk(connect(path, settings), path.parent)

        patch(log_module, "_connect", tamper)

    def _run(self, what: Coroutine[Any, Any, T]) -> T:
        async def within_bounds() -> T:
            asyncio.get_running_loop().set_exception_handler(lambda _, about: self.complaints.append(str(about)))
            async with asyncio.timeout(_PATIENCE_S):
                return await what

        return self.runner.run(within_bounds())

    def _new_folder(self) -> Path:
        folder = Path(self.tmp.name) / str(next(self.folders))
        folder.mkdir()
        return folder

    async def _open(self) -> None:
        log = Log.create(
            self.folder / "log.db",
            self.settings,
            dedupe_window_ms=DEDUPE_WINDOW_MS,
            clock=self.clock,
            metrics=Metrics(),
            tell=lambda _: None,
        )
        self.log = await self.stack.enter_async_context(log)
        self.disk = cast("Disk", self.log._files._db)

    async def _abandon(self) -> None:
        """What a dead process does no longer: it may write to files that nobody will read."""
        self.disk.fail_at(0, "io")
        with contextlib.suppress(StoreFailed):
            await self.stack.aclose()
        tasks = [sent.task for sent in self.sent] + [freezing.task for freezing in self.freezing.values()]
        await asyncio.gather(*tasks, *self.dropping, return_exceptions=True)

    def _forget(self) -> None:
        self.sent, self.freezing, self.dropping = [], {}, []

    # Until nothing happens any more

    async def _settle(self) -> None:
        """Wait until the log has done what it was asked, and compare; while the disk hangs, that is nothing."""
        if self.hangs:
            for _ in range(5):
                await asyncio.sleep(0)
            return
        await self._be_quiet()
        self.model.disturbed = self.disk.faults > self.faults
        self.model.follow(self.disk.take_history(), self._outcomes())
        self._check_freezes()
        self._check_full()
        await self._check_attempts()
        await self._check_figures()
        self.model.tightest = self.model.capacity
        self.model.retains_before_ms = None
        self.model.disturbed = False
        self.faults = self.disk.faults

    async def _be_quiet(self) -> None:
        for _ in range(1_000):
            done = self._barrier()
            await done
            for _ in range(3):
                await asyncio.sleep(0)
            log, bounds = self.log, self.log.bounds
            is_writing = log._committing or log._waiting or log._due
            if not (is_writing or bounds._making_room or bounds._retaining):
                break
        else:
            raise AssertionError("the log is never done")
        await asyncio.sleep(0)
        assert not self.complaints, self.complaints

    def _barrier(self) -> asyncio.Future[None]:
        """Return what is done when the writing thread has done what it has to do now."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()
        self.log._files.writer._jobs.put(partial(loop.call_soon_threadsafe, done.set_result, None))  # type: ignore[arg-type]
        return done

    def _outcomes(self) -> list[Entry]:
        """Return what was acknowledged; whatever was not must have its reason."""
        acknowledged: list[Entry] = []
        disturbed = self.disk.faults > self.faults
        for sent in self.sent:
            assert sent.task.done(), "neither acknowledged nor refused"
            match sent.task.exception():
                case None:
                    acknowledged += sent.entries
                case StoreFull():
                    assert sent.was_full, "refused for want of room, but the store was not full"
                case StoreFailed():
                    assert disturbed, "refused for no reason"
                case error:
                    raise AssertionError(error)
        for drop in self.dropping:
            assert drop.exception() is None or disturbed
        self.sent, self.dropping = [], []
        return acknowledged

    def _check_freezes(self) -> None:
        for name, freezing in self.freezing.items():
            attempt = freezing.frozen.attempt
            assert freezing.task.done(), "neither frozen nor refused"
            if freezing.task.exception() is not None:
                assert self.model.disturbed, "not frozen for no reason"
            elif freezing.task.result():
                assert self.model.state.cursors[name].attempt == attempt, "frozen, but not on disk"
                self.model.readers[name].batch = attempt.batch_id
            else:
                there = [row for row in self.model.state.rows if attempt.after_row < row <= attempt.last_row]
                assert len(there) != attempt.readings, "not frozen, though all of it is there"
        self.freezing = {}

    def _check_full(self) -> None:
        is_full = self.log.bounds.full is not None
        if is_full and not self.model.was_full and not self.model.disturbed:
            assert self.model.tightest - len(self.model.state.rows) < HIGH_WATER_ROWS, "full, though there is room"
            if self.model.room < LOW_WATER_ROWS:  # otherwise the next tick finds out
                assert not self.model.may_leave(), "full, though rows may leave"
        self.model.was_full = is_full

    async def _check_attempts(self) -> None:
        """An attempt is made of the same readings whenever it is read again."""
        for reader in self.model.readers.values():
            if not reader.batch:
                continue
            attempt = self.model.attempts[reader.batch].attempt
            frozen = self.model.thaws(attempt)
            if frozen is None:
                assert reader.batch in self.given_up, "rows of an attempt under way have left"
                continue
            epochs = {int(boot): epoch for boot, epoch in json.loads(attempt.epochs).items()}
            again = await self.log.read(
                attempt.after_row, until=attempt.last_row, limit=attempt.readings, max_bytes=sys.maxsize, epochs=epochs
            )
            assert again == frozen.readings, "an attempt has changed"

    async def _check_figures(self) -> None:
        rows = self.model.state.rows
        buffer = await self.log.buffer()
        assert (buffer.readings, buffer.quarantined) == (len(rows), len(self.model.state.quarantine))
        assert max(rows, default=0) <= self.log.last_row <= self.model.newest
        for name, lost in self.model.lost.items():
            loss = await self.log.loss(name)
            assert (loss.readings if loss else 0) == len(lost)
        for name, reader in self.model.readers.items():
            if self.log._waiting.moves.get(name, self.model.state.cursors[name].position) != reader.position:
                raise AssertionError(f"the move of {name} to {reader.position} is forgotten")


def _count_rows(db: sqlite3.Connection) -> Pages:
    """Stand in for `read_pages`: a row is a page, and enough is free for every tick to give some back."""
    (rows,) = db.execute("SELECT count(*) FROM device_telemetry_history").fetchone()
    return Pages(COUNTED, 2 * rows + 1, rows + 1)
